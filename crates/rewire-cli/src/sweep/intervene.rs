//! The flags of integrated gradients, ablation and mean activations, and the options they describe.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::bail;
use burn::tensor::backend::Backend;
use clap::{Args, ValueEnum};
use rewire_analysis::integrated::{IntegratedGradientsOptions, LineScope, Quadrature, Rule};
use rewire_analysis::node::NodeKind;
use rewire_analysis::run::{Intervention, MeanOver, mean_activations};
use rewire_hooks::{ActivationCache, HookPoint};
use rewire_input::did_you_mean;
use rewire_model::Transformer;
use serde_json::{Value, json};

use super::choices::{IntegrateName, MethodName};
use crate::activations_file::{self, read_activations};
use crate::arguments::{at_least_one, tolerance};
use crate::compute::NumberArguments;
use crate::headings::{ABLATION, INTEGRATED};

/// Flags of integrated gradients.
#[derive(Args)]
pub(super) struct IntegralArguments {
    /// End of the line: corrupt, zero, mean or a file [default: corrupt].
    ///
    /// The line begins at the clean activation. zero: for neurons, the activation for an MLP input
    /// of zeros. A file is a safetensors file with float32 activations by hook name
    /// (blocks.0.attn.hook_z). Needs --method integrated-gradients.
    #[arg(long, value_name = "BASELINE", help_heading = INTEGRATED)]
    baseline: Option<Baseline>,
    /// Number of quadrature steps [default: 50].
    ///
    /// With --integrate, the default is 5. Needs --method integrated-gradients, or --integrate.
    #[arg(long, value_parser = at_least_one, value_name = "N", help_heading = INTEGRATED)]
    steps: Option<usize>,
    /// Quadrature rule [default: gauss-legendre].
    ///
    /// gauss-legendre, riemann-left, riemann-right, riemann-middle or trapezoid. With --integrate,
    /// the default is riemann-right. Needs --method integrated-gradients, or --integrate.
    #[arg(long, help_heading = INTEGRATED)]
    rule: Option<Rule>,
    /// Largest completeness gap, as a share [default: 0.01].
    ///
    /// The gap is the difference between the sum of attributions and the change of the metric,
    /// relative to the change plus a hundredth of the terms that cancel in it. If it
    /// is larger, the line is divided into up to 64 panels of --steps steps each, where the gap
    /// arises; a gap that stays larger is an error. With --dtype bf16 or
    /// --tf32, the default is 0.1. Needs --method integrated-gradients.
    #[arg(long, value_parser = tolerance, value_name = "SHARE", help_heading = INTEGRATED)]
    tolerance: Option<f64>,
    /// Nodes that move together: layer or node [default: layer].
    ///
    /// layer: all heads or neurons of a layer move together. node: each one moves alone. Needs
    /// --method integrated-gradients.
    #[arg(long, value_enum, hide_possible_values = true, value_name = "SCOPE", help_heading = INTEGRATED)]
    line: Option<LineName>,
}

/// Flags of ablation.
#[derive(Args)]
pub(super) struct AblationArguments {
    /// Replacement of each node: zero, mean or resample [default: zero].
    ///
    /// resample takes the activation of the corrupted prompt. Needs --method ablation.
    #[arg(long, value_enum, hide_possible_values = true, value_name = "BY", help_heading = ABLATION)]
    ablate: Option<Ablate>,
}

/// Flags of mean activations, for `--baseline mean` and `--ablate mean`.
#[derive(Args)]
pub(super) struct MeanArguments {
    /// Axes of a mean: all or position [default: all].
    ///
    /// all: the mean over prompts and positions. position: the mean over prompts at each position.
    /// Needs --ablate mean or --baseline mean.
    #[arg(long, value_enum, hide_possible_values = true, value_name = "AXES", help_heading = ABLATION)]
    mean_over: Option<MeanName>,
    /// Average over the clean prompts of this file.
    ///
    /// The file has the format of --pairs, whose clean prompts are the default. Needs --ablate mean
    /// or --baseline mean.
    #[arg(long, value_name = "FILE", help_heading = ABLATION)]
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
            other => {
                let suggested = did_you_mean(other, ["corrupt", "zero", "mean"]);
                Err(format!("`{other}` is neither corrupt, zero or mean nor a file; give one of these{suggested}"))
            }
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
    /// Refuses these flags if the method does not take them. `integrate` moves along a line of
    /// edges.
    pub(super) fn check(&self, method: MethodName, integrate: Option<IntegrateName>) -> anyhow::Result<()> {
        if method == MethodName::IntegratedGradients {
            return Ok(());
        }
        let given = [
            ("--baseline", self.baseline.is_some()),
            ("--tolerance", self.tolerance.is_some()),
            ("--line", self.line.is_some()),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
            bail!("{flag} needs --method integrated-gradients");
        }
        let line = [("--steps", self.steps.is_some()), ("--rule", self.rule.is_some())];
        match line.iter().find(|(_, given)| *given && integrate.is_none()) {
            Some((flag, _)) => bail!("{flag} needs --method integrated-gradients, or --integrate"),
            None => Ok(()),
        }
    }

    /// Returns the line along which the gradients of edges are averaged.
    pub(super) fn line_of_edges(&self) -> Quadrature {
        Quadrature { rule: self.rule.unwrap_or(Rule::RiemannRight), steps: self.steps.unwrap_or(5) }
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

    /// Returns the options that these flags describe, for nodes of a model.
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
                let n_layers = model.config().n_layers;
                let cache = read_activations(path, n_layers, &model.device())?;
                check_complete(path, &cache, nodes, n_layers)?;
                Intervention::Fixed(cache)
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

    /// Returns everything that the result depends on. For a file, this is a checksum of its bytes.
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

/// Refuses a file that lacks the activations of these nodes in a layer.
fn check_complete<B: Backend>(
    path: &Path,
    cache: &ActivationCache<B>,
    nodes: &[NodeKind],
    n_layers: usize,
) -> anyhow::Result<()> {
    for (kind, layer) in nodes.iter().flat_map(|kind| (0..n_layers).map(move |layer| (kind, layer))) {
        let point = HookPoint::Block { layer, site: kind.site() };
        if !cache.points().any(|found| found == point) {
            bail!("{} has no tensor `{point}`; {kind} needs this activation in every layer", path.display());
        }
    }
    Ok(())
}

impl AblationArguments {
    /// Refuses these flags if the method does not take them.
    pub(super) fn check(&self, method: MethodName) -> anyhow::Result<()> {
        if self.ablate.is_some() && method != MethodName::Ablation {
            bail!("--ablate needs --method ablation");
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

    /// Returns the name of the replacement.
    pub(super) fn describe(&self) -> Value {
        json!(self.ablate.unwrap_or(Ablate::Zero).to_possible_value().map(|v| v.get_name().to_owned()))
    }
}

impl MeanArguments {
    /// Refuses these flags if no mean is used.
    pub(super) fn check(&self, wants_mean: bool) -> anyhow::Result<()> {
        let given = [("--reference", self.reference.is_some()), ("--mean-over", self.mean_over.is_some())];
        match given.iter().find(|(_, given)| *given && !wants_mean) {
            Some((flag, _)) => bail!("{flag} needs --ablate mean or --baseline mean"),
            None => Ok(()),
        }
    }

    /// Returns the means over `prompts` that these flags describe. At most `prompt_batch` prompts
    /// run in one batch.
    pub(super) fn over<'a>(&self, prompts: &'a [Vec<u32>], prompt_batch: usize) -> Means<'a> {
        let over = match self.mean_over {
            None | Some(MeanName::All) => MeanOver::PromptsAndPositions,
            Some(MeanName::Position) => MeanOver::Prompts,
        };
        Means { prompts, over, prompt_batch }
    }

    /// Refuses a reference set without a mean at every position of prompts of `width` tokens.
    pub(super) fn check_reference(&self, prompts: &[Vec<u32>], width: usize) -> anyhow::Result<()> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or_default();
        if self.is_by_position() && longest < width {
            bail!(
                "--mean-over position: no prompt of --reference has more than {longest} tokens, and a prompt of --pairs has \
                 {width}; give a longer reference prompt or --mean-over all"
            );
        }
        Ok(())
    }

    /// Returns whether each position has its own mean.
    pub(super) fn is_by_position(&self) -> bool {
        matches!(self.mean_over, Some(MeanName::Position))
    }

    /// Returns the name of the axes that means are taken over.
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
