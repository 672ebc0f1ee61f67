//! What integrated gradients go to, and what ablation replaces by: flags, and what they stand for.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use burn::tensor::backend::Backend;
use clap::{Args, ValueEnum};
use rewire_analysis::{Intervention, MeanOver, NodeKind, PathIntegral, Quadrature, Rule, Together, mean_activations};
use rewire_model::Transformer;
use serde_json::{Value, json};

use super::{Arguments, MethodName};
use crate::arguments::at_least_one;
use crate::given::read_activations;

/// Flags of integrated gradients.
#[derive(Args)]
pub(super) struct IntegralArguments {
    /// Integrated gradients: where the line from the clean activation ends. corrupt, zero (of neurons: where the MLP reads zeros),
    /// mean, or a safetensors file of float32 activations by hook name (blocks.0.attn.hook_z).
    #[arg(long, value_name = "corrupt|zero|mean|FILE")]
    baseline: Option<Baseline>,
    /// Integrated gradients: nodes of the quadrature [default: 50].
    #[arg(long, value_parser = at_least_one)]
    steps: Option<usize>,
    /// Integrated gradients: gauss-legendre, riemann-left, riemann-right, riemann-middle, trapezoid [default: gauss-legendre].
    #[arg(long)]
    rule: Option<Rule>,
    /// Integrated gradients: how far attributions may be from summing to the metric's change, as a share of it; more steps are taken
    /// until they are nearer, and where that does not help it is an error [default: 0.01].
    #[arg(long)]
    tolerance: Option<f64>,
    /// Integrated gradients: whether all heads or neurons of a layer move together, or each alone [default: layer].
    #[arg(long, value_enum)]
    line: Option<LineName>,
}

/// Flags of ablation, and of means.
#[derive(Args)]
pub(super) struct AblationArguments {
    /// Ablation: what each node is replaced by; resample is the corrupted prompt's [default: zero].
    #[arg(long, value_enum)]
    ablate: Option<Ablate>,
    /// Means: over prompts and positions (all), or over prompts at each position.
    #[arg(long, value_enum, default_value = "all")]
    mean_over: MeanName,
    /// Means: pairs whose clean prompts they are over, as in --pairs, instead of the pairs' own.
    #[arg(long, value_name = "FILE.jsonl")]
    pub(super) reference: Option<PathBuf>,
}

#[derive(Clone)]
enum Baseline {
    Corrupt,
    Zero,
    Mean,
    File(PathBuf),
}

impl FromStr for Baseline {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "corrupt" => Ok(Baseline::Corrupt),
            "zero" => Ok(Baseline::Zero),
            "mean" => Ok(Baseline::Mean),
            path if Path::new(path).is_file() => Ok(Baseline::File(path.into())),
            other => Err(format!("`{other}` is neither corrupt, zero or mean nor a file")),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum LineName {
    Layer,
    Node,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Ablate {
    Zero,
    Mean,
    Resample,
}

#[derive(Clone, Copy, ValueEnum)]
enum MeanName {
    All,
    Position,
}

impl IntegralArguments {
    /// Refuses flags that another method does not know.
    pub(super) fn check(&self, method: MethodName) -> anyhow::Result<()> {
        let given = [
            ("--baseline", self.baseline.is_some()),
            ("--steps", self.steps.is_some()),
            ("--rule", self.rule.is_some()),
            ("--tolerance", self.tolerance.is_some()),
            ("--line", self.line.is_some()),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, given)| *given && method != MethodName::IntegratedGradients) {
            bail!("{flag} goes with --method integrated-gradients");
        }
        if let Some(tolerance) = self.tolerance.filter(|t| t.is_nan() || *t <= 0.0) {
            bail!("--tolerance {tolerance} can never be met: it must be above 0");
        }
        Ok(())
    }

    pub(super) fn wants_mean(&self) -> bool {
        matches!(self.baseline, Some(Baseline::Mean))
    }

    fn quadrature(&self) -> Quadrature {
        let Quadrature { rule, steps } = Quadrature::default();
        Quadrature { rule: self.rule.unwrap_or(rule), steps: self.steps.unwrap_or(steps) }
    }

    pub(super) fn integral<B: Backend>(
        &self,
        model: &Transformer<B>,
        nodes: &[NodeKind],
        reference: &[Vec<u32>],
        arguments: &Arguments,
    ) -> anyhow::Result<PathIntegral<B>> {
        let baseline = match &self.baseline {
            None | Some(Baseline::Corrupt) => Intervention::Resample,
            Some(Baseline::Zero) => Intervention::Zero,
            Some(Baseline::Mean) => arguments.ablation.mean(model, nodes, reference, arguments.prompt_batch)?,
            Some(Baseline::File(path)) => Intervention::Fixed(read_activations(path, &model.device())?),
        };
        let together = match self.line {
            None | Some(LineName::Layer) => Together::Layer,
            Some(LineName::Node) => Together::Node,
        };
        let PathIntegral { tolerance, refinements, .. } = PathIntegral::<B>::default();
        let tolerance = self.tolerance.unwrap_or(tolerance);
        Ok(PathIntegral { baseline, together, quadrature: self.quadrature(), tolerance, refinements })
    }

    /// All that the result depends on; a file by its contents.
    pub(super) fn describe(&self) -> anyhow::Result<Value> {
        let baseline = match &self.baseline {
            None | Some(Baseline::Corrupt) => "corrupt".to_owned(),
            Some(Baseline::Zero) => "zero".to_owned(),
            Some(Baseline::Mean) => "mean".to_owned(),
            Some(Baseline::File(path)) => {
                let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                format!("file {:08x}", crc32fast::hash(&bytes))
            }
        };
        let line = if matches!(self.line, Some(LineName::Node)) { "node" } else { "layer" };
        let Quadrature { rule, steps } = self.quadrature();
        Ok(json!({ "baseline": baseline, "rule": rule, "steps": steps, "tolerance": self.tolerance, "line": line }))
    }
}

impl AblationArguments {
    /// Refuses flags that another method does not know.
    pub(super) fn check(&self, method: MethodName, wants_mean: bool) -> anyhow::Result<()> {
        if self.ablate.is_some() && method != MethodName::Ablation {
            bail!("--ablate goes with --method ablation");
        }
        if self.reference.is_some() && !wants_mean {
            bail!("--reference goes with --ablate mean or --baseline mean");
        }
        Ok(())
    }

    pub(super) fn wants_mean(&self) -> bool {
        self.ablate == Some(Ablate::Mean)
    }

    fn mean<B: Backend>(
        &self,
        model: &Transformer<B>,
        nodes: &[NodeKind],
        reference: &[Vec<u32>],
        prompt_batch: usize,
    ) -> anyhow::Result<Intervention<B>> {
        let sites: Vec<_> = nodes.iter().map(|kind| kind.site()).collect();
        let over = match self.mean_over {
            MeanName::All => MeanOver::PromptsAndPositions,
            MeanName::Position => MeanOver::Prompts,
        };
        Ok(Intervention::Fixed(mean_activations(model, reference, &sites, over, prompt_batch)?))
    }

    pub(super) fn intervention<B: Backend>(
        &self,
        model: &Transformer<B>,
        nodes: &[NodeKind],
        reference: &[Vec<u32>],
        prompt_batch: usize,
    ) -> anyhow::Result<Intervention<B>> {
        Ok(match self.ablate {
            None | Some(Ablate::Zero) => Intervention::Zero,
            Some(Ablate::Resample) => Intervention::Resample,
            Some(Ablate::Mean) => self.mean(model, nodes, reference, prompt_batch)?,
        })
    }

    /// All that the result depends on.
    pub(super) fn describe(&self) -> Value {
        let name = self.ablate.unwrap_or(Ablate::Zero).to_possible_value().map(|v| v.get_name().to_owned());
        let over = self.mean_over.to_possible_value().map(|v| v.get_name().to_owned());
        json!({ "replaced by": name, "mean over": over })
    }
}
