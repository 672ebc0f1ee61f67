//! What integrated gradients go to, and what ablation replaces by: flags, and what they stand for.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::bail;
use burn::tensor::backend::Backend;
use clap::{Args, ValueEnum};
use rewire_analysis::integrated::{IntegratedGradientsOptions, LineScope, Quadrature, Rule};
use rewire_analysis::node::NodeKind;
use rewire_analysis::run::{Intervention, MeanOver, mean_activations};
use rewire_model::Transformer;
use serde_json::{Value, json};

use super::choices::MethodName;
use crate::activations_file::{self, read_activations};
use crate::arguments::{at_least_one, tolerance};
use crate::compute::NumberArguments;

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
    /// Integrated gradients: how far attributions may be from summing to the metric's change, as a share of it and of a hundredth of what
    /// cancels in it; more steps are taken until they are nearer, and where that does not help it is an error [default: 0.01; with --dtype bf16 or --tf32 0.1].
    #[arg(long, value_parser = tolerance)]
    tolerance: Option<f64>,
    /// Integrated gradients: whether all heads or neurons of a layer move together, or each alone [default: layer].
    #[arg(long, value_enum)]
    line: Option<LineName>,
}

/// Flags of ablation.
#[derive(Args)]
pub(super) struct AblationArguments {
    /// Ablation: what each node is replaced by; resample is the corrupted prompt's [default: zero].
    #[arg(long, value_enum)]
    ablate: Option<Ablate>,
}

/// Flags of means, as baselines and in ablation.
#[derive(Args)]
pub(super) struct MeanArguments {
    /// Means: over prompts and positions (all), or over prompts at each position [default: all].
    #[arg(long, value_enum)]
    mean_over: Option<MeanName>,
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
        Ok(())
    }

    pub(super) fn wants_mean(&self) -> bool {
        matches!(self.baseline, Some(Baseline::Mean))
    }

    fn tolerance(&self, numbers: &NumberArguments) -> f64 {
        self.tolerance.unwrap_or_else(|| numbers.tolerance())
    }

    fn quadrature(&self) -> Quadrature {
        let Quadrature { rule, steps } = Quadrature::default();
        Quadrature { rule: self.rule.unwrap_or(rule), steps: self.steps.unwrap_or(steps) }
    }

    /// Returns the integral that these flags describe, for nodes of a model.
    pub(super) fn integral<B: Backend>(
        &self,
        model: &Transformer<B>,
        nodes: &[NodeKind],
        means: &Means,
        numbers: &NumberArguments,
    ) -> anyhow::Result<IntegratedGradientsOptions<B>> {
        let baseline = match &self.baseline {
            None | Some(Baseline::Corrupt) => Intervention::Resample,
            Some(Baseline::Zero) => Intervention::Zero,
            Some(Baseline::Mean) => means.of(model, nodes)?,
            Some(Baseline::File(path)) => {
                Intervention::Fixed(read_activations(path, model.config().n_layers, &model.device())?)
            }
        };
        let together = match self.line {
            None | Some(LineName::Layer) => LineScope::Layer,
            Some(LineName::Node) => LineScope::Node,
        };
        let (quadrature, tolerance) = (self.quadrature().into(), self.tolerance(numbers));
        Ok(IntegratedGradientsOptions {
            baseline,
            scope: together,
            quadrature,
            tolerance,
            ..IntegratedGradientsOptions::default()
        })
    }

    /// All that the result depends on; a file by its contents.
    pub(super) fn describe(&self, numbers: &NumberArguments) -> anyhow::Result<Value> {
        let baseline = match &self.baseline {
            None | Some(Baseline::Corrupt) => "corrupt".to_owned(),
            Some(Baseline::Zero) => "zero".to_owned(),
            Some(Baseline::Mean) => "mean".to_owned(),
            Some(Baseline::File(path)) => {
                let bytes = activations_file::read(path)?;
                format!("file {:08x}", crc32fast::hash(&bytes))
            }
        };
        let line = if matches!(self.line, Some(LineName::Node)) { "node" } else { "layer" };
        let Quadrature { rule, steps } = self.quadrature();
        Ok(
            json!({ "baseline": baseline, "rule": rule, "steps": steps, "tolerance": self.tolerance(numbers), "line": line }),
        )
    }
}

impl AblationArguments {
    /// Refuses flags that another method does not know.
    pub(super) fn check(&self, method: MethodName) -> anyhow::Result<()> {
        if self.ablate.is_some() && method != MethodName::Ablation {
            bail!("--ablate goes with --method ablation");
        }
        Ok(())
    }

    pub(super) fn wants_mean(&self) -> bool {
        self.ablate == Some(Ablate::Mean)
    }

    /// Returns the activations that nodes are replaced by.
    pub(super) fn intervention<B: Backend>(
        &self,
        model: &Transformer<B>,
        nodes: &[NodeKind],
        means: &Means,
    ) -> anyhow::Result<Intervention<B>> {
        Ok(match self.ablate {
            None | Some(Ablate::Zero) => Intervention::Zero,
            Some(Ablate::Resample) => Intervention::Resample,
            Some(Ablate::Mean) => means.of(model, nodes)?,
        })
    }

    /// What nodes are replaced by.
    pub(super) fn describe(&self) -> Value {
        json!(self.ablate.unwrap_or(Ablate::Zero).to_possible_value().map(|v| v.get_name().to_owned()))
    }
}

impl MeanArguments {
    /// Refuses flags where there is no mean.
    pub(super) fn check(&self, wants_mean: bool) -> anyhow::Result<()> {
        let given = [("--reference", self.reference.is_some()), ("--mean-over", self.mean_over.is_some())];
        match given.iter().find(|(_, given)| *given && !wants_mean) {
            Some((flag, _)) => bail!("{flag} goes with --ablate mean or --baseline mean"),
            None => Ok(()),
        }
    }

    /// The means over `prompts` that these flags describe. At most `prompt_batch` prompts run at
    /// once.
    pub(super) fn over<'a>(&self, prompts: &'a [Vec<u32>], prompt_batch: usize) -> Means<'a> {
        let over = match self.mean_over {
            None | Some(MeanName::All) => MeanOver::PromptsAndPositions,
            Some(MeanName::Position) => MeanOver::Prompts,
        };
        Means { prompts, over, prompt_batch }
    }

    /// What means are over.
    pub(super) fn describe(&self) -> Value {
        json!(self.mean_over.unwrap_or(MeanName::All).to_possible_value().map(|v| v.get_name().to_owned()))
    }
}

/// Mean activations over some prompts; [`Means::of`] computes them.
pub(super) struct Means<'a> {
    prompts: &'a [Vec<u32>],
    over: MeanOver,
    prompt_batch: usize,
}

impl Means<'_> {
    /// Computes the mean activations of some nodes.
    fn of<B: Backend>(&self, model: &Transformer<B>, nodes: &[NodeKind]) -> anyhow::Result<Intervention<B>> {
        let sites: Vec<_> = nodes.iter().map(|kind| kind.site()).collect();
        Ok(Intervention::Fixed(mean_activations(model, self.prompts, &sites, self.over, self.prompt_batch)?))
    }
}
