//! `cargo xtask reproduce-ig`: integrated gradients against activation patching, and what ablation says of both.

mod ablate;
mod analyse;
mod averaged;
mod checks;
mod curves;
mod printed;
mod printed_curves;
mod report;
mod results;

use std::path::PathBuf;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use clap::Args;
use rewire_analysis::integrated::{PathIntegral, Quadrature, Rule};
use rewire_analysis::node::Node;
use rewire_model::Transformer;
use rewire_tasks::PromptPairs;
use rewire_tasks::ioi::{Contrast, Corruption, IoiGenerator, Split, comparison_pair, contrastive_pair};

use crate::arguments::{at_least_one, at_most_a_million, tolerance};
use crate::device::on_device;
use crate::model::{ModelArguments, Source};
use crate::output::{RESULTS, WaitArguments, announce, warn};
use crate::publish::Publication;
use crate::session::Session;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Generated prompts on which accuracy is measured, up to 10,000 in the notebook; 0 leaves the ablation study out.
    #[arg(long, default_value_t = 1000, value_parser = at_most_a_million)]
    prompts: usize,
    /// Generated pairs over which correlations with activation patching are averaged; 0 leaves them
    /// out. Without it 100, or 5 for a model of more than 10,000 neurons.
    #[arg(long, value_name = "N", value_parser = at_most_a_million)]
    generated_pairs: Option<usize>,
    /// Seed of the generated prompts and pairs.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Heads to ablate besides the outliers: LAYER.HEAD, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = layer_and_head)]
    heads: Vec<(usize, usize)>,
    /// Nodes of the quadrature.
    #[arg(long, default_value_t = Quadrature::default().steps, value_parser = at_least_one)]
    steps: usize,
    /// gauss-legendre, riemann-left, riemann-right, riemann-middle, trapezoid.
    #[arg(long, default_value_t = Quadrature::default().rule)]
    rule: Rule,
    /// How far attributions may be from summing to the metric's change, as a share of it and of a hundredth of what cancels in it; more
    /// steps are taken until they are nearer, and where that does not help it is an error.
    #[arg(long, default_value_t = 0.001, value_parser = tolerance)]
    tolerance: f64,
    /// How far the interpolation curves go beyond the clean (0) and the corrupted (1) activation.
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"], default_values_t = [-2.0, 3.0], allow_negative_numbers = true)]
    range: Vec<f64>,
    /// Directory for effects.safetensors, effects.json, effects.csv and report.html.
    #[arg(long, default_value = "out/reproduce-ig")]
    out: PathBuf,
    #[command(flatten)]
    wait: WaitArguments,
}

/// Prompts over which the mean activations are, as in the notebook.
const REFERENCE: usize = 100;
/// Pairs that are generated unless another number is given, for models of up to [`LARGE`] neurons
/// and for larger ones.
const GENERATED_PAIRS: [usize; 2] = [100, 5];
/// Neurons above which patching every one on 100 pairs would take hours on a CPU.
const LARGE: usize = 10_000;

fn layer_and_head(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('.').and_then(|(layer, head)| Some((layer.parse().ok()?, head.parse().ok()?)));
    parts.ok_or_else(|| format!("`{text}` is no head; heads are LAYER.HEAD, such as 9.6"))
}

/// All prompts that the study is on.
struct Prompts {
    /// The notebook's pair.
    pair: PromptPairs,
    /// Its contrastive pair, as printed and aligned.
    contrasts: [(PromptPairs, [String; 2]); 2],
    /// Generated pairs with the notebook's corruption, over which correlations are averaged.
    generated: Option<PromptPairs>,
    /// Those that accuracy is measured on, corrupted by three other names, and those that means are over.
    sets: Option<[PromptPairs; 2]>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let session = Session::new(arguments.model.device, &arguments.model.memory)?;
    let range = match *arguments.range.as_slice() {
        [from, to] if from <= 0.0 && to >= 1.0 && (to - from).is_finite() => [from, to],
        _ => anyhow::bail!("--range {:?}: it must hold all from 0 to 1, the two activations", arguments.range),
    };
    let quadrature = Quadrature { rule: arguments.rule, steps: arguments.steps };
    quadrature.nodes()?;
    let source = Source::open(&arguments.model)?;
    let prompts = prompts(&source, arguments)?;
    check_heads(&source, &arguments.heads)?;
    let directory = arguments.wait.take(&arguments.out, &RESULTS)?;
    announce(&source)?;

    let found = on_device!(&session, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?;
        let setup = session.setup();
        let integral = PathIntegral { quadrature, tolerance: arguments.tolerance, ..PathIntegral::default() };
        let compared = analyse::compare(&model, &setup, &prompts.pair, &integral)?;
        let averaged = match &prompts.generated {
            Some(pairs) => Some(averaged::averaged(&model, &setup, pairs, arguments.seed, &integral)?),
            None => None,
        };
        let inner = model.valid();
        let study = match &prompts.sets {
            Some(sets) => {
                Some(ablate::study(&inner, &setup, source.tokenizer()?, sets, &compared, &source, &arguments.heads)?)
            }
            None => None,
        };
        let curves = curves::draw(&inner, &setup, &prompts, &compared, range, source.is_gpt2_small())?;
        let contrasts = curves::contrasts(&model, &setup, &prompts, &compared, source.is_gpt2_small(), &integral)?;
        anyhow::Ok(Found { compared, averaged, study, curves, contrasts })
    })?;
    let checks = if source.is_gpt2_small() { checks::checks(&found) } else { Vec::new() };
    let warnings = warn(&source, [("", found.compared.exact.warnings())]);

    let page = report::page(&session, &source, &prompts, &found, &checks, arguments, &warnings);
    Publication {
        tables: results::tables(&found),
        metric: "logit-diff".to_owned(),
        seed: arguments.seed,
        labels: rewire_report::Labels::First(&prompts.pair),
        baselines: rewire_report::describe_baselines(&found.compared.exact.baselines),
        notes: results::notes(&found, arguments),
        page,
        files: Vec::new(),
        summary: results::summary(&session, &source, &found, &checks, arguments),
        warnings,
    }
    .publish(&session, &source, &directory)
}

/// All that the report is made of.
struct Found {
    compared: analyse::Compared,
    averaged: Option<averaged::Averaged>,
    study: Option<ablate::Study>,
    curves: curves::Drawn,
    contrasts: Vec<curves::Contrasted>,
}

fn prompts(source: &Source, arguments: &Arguments) -> anyhow::Result<Prompts> {
    let (tokenizer, config) = (source.tokenizer()?, &source.config);
    let bos = source.bos_for_text()?;
    let pair = comparison_pair(tokenizer, bos)?;
    let contrast = |contrast| -> anyhow::Result<(PromptPairs, [String; 2])> {
        let pairs = contrastive_pair(tokenizer, bos, contrast)?;
        let pair = &pairs.pairs()[0];
        let texts =
            [&pair.clean, &pair.corrupted].map(|tokens| tokenizer.decode(tokens).replace("<|endoftext|>", " BOS "));
        Ok((pairs, texts))
    };
    let contrasts = [contrast(Contrast::AsPrinted)?, contrast(Contrast::Aligned)?];
    let sampled = |n, offset, corruption: Corruption| -> anyhow::Result<PromptPairs> {
        let prompts = IoiGenerator::new(tokenizer)?.sample(n, arguments.seed.wrapping_add(offset), Split::All);
        Ok(corruption.pairs(&prompts, tokenizer, bos)?)
    };
    let sets = match arguments.prompts {
        0 => None,
        n => Some([sampled(n, 0, Corruption::Abc)?, sampled(REFERENCE, 1, Corruption::Abc)?]),
    };
    let is_large = config.n_layers * config.d_mlp > LARGE;
    let generated = match arguments.generated_pairs.unwrap_or(GENERATED_PAIRS[usize::from(is_large)]) {
        0 => None,
        n => Some(sampled(n, 2, Corruption::S2ToIo)?),
    };
    let of_contrasts = contrasts.iter().map(|(pairs, _)| pairs);
    for pairs in [&pair].into_iter().chain(of_contrasts).chain(&generated).chain(sets.iter().flatten()) {
        pairs.check_model(config.d_vocab, config.n_ctx)?;
    }
    if let Some(width) = sets.iter().flatten().map(PromptPairs::width).max()
        && width + ablate::NEW_TOKENS - 1 > config.n_ctx
    {
        anyhow::bail!(
            "prompts of {width} tokens and what is said after them do not fit the context of {}",
            config.n_ctx
        );
    }
    Ok(Prompts { pair, contrasts, generated, sets })
}

/// Refuses heads that the model does not have, or that are named twice.
fn check_heads(source: &Source, heads: &[(usize, usize)]) -> anyhow::Result<()> {
    let (layers, of_layer) = (source.config.n_layers, source.config.n_heads);
    for (i, &(layer, head)) in heads.iter().enumerate() {
        if layer >= layers || head >= of_layer {
            anyhow::bail!("--heads {layer}.{head}: the model has {layers} layers of {of_layer} heads, counted from 0");
        }
        if heads[..i].contains(&(layer, head)) {
            anyhow::bail!("--heads names {layer}.{head} twice");
        }
    }
    Ok(())
}

/// A head's output at all positions.
fn head_node((layer, head): (usize, usize)) -> Node {
    Node::new(layer, rewire_analysis::node::Component::HeadResult).unit(head)
}
