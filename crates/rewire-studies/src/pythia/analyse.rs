//! The notebook's steps: who writes the answer, who tells them where to look, and who tells those.

use std::collections::BTreeSet;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use ndarray::{Array4, Axis};
use rewire_analysis::Outcome;
use rewire_analysis::heads::{
    Backup, CopyNorms, CopyScores, Inhibition, KeptTokens, Suppression, attention_patterns, backup_heads, copy_scores,
    copy_suppression, logit_attribution, s2_inhibition,
};
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::path::{Input, Receiver};
use rewire_analysis::run::{Direction, Options};
use rewire_circuits::{Head, NameAttention, PathStep, Seen, evidence, induces, inhibits};
use rewire_model::{FinalNormGain, Transformer};
use rewire_tasks::{LogitDiff, Tokenizer};

use super::Settings;
use super::circuit::{self, Circuit};
use super::data::{Data, Sets};
use super::edges::{self, Edges};
use crate::{Setup, StudyError};

/// The parts of heads that are patched first.
pub const PARTS: [Component; 5] =
    [Component::HeadZ, Component::HeadQ, Component::HeadK, Component::HeadV, Component::HeadPattern];

/// Heads whose S2-inhibition is measured: each takes whole forwards.
const MEASURED: usize = 6;

/// Function words, which copy suppression never keeps.
const FUNCTION_WORDS: [&str; 24] = [
    " the", " a", " an", " to", " of", " and", " in", " at", " for", " with", " on", " were", " was", " had", " went",
    " gave", " it", " that", " is", ",", ".", "The", "When", "Then",
];

/// All that is found.
pub struct Found {
    /// The prompts of the steps.
    pub data: Data,
    /// Share of clean prompts whose logit difference is above 0.
    pub right: f64,
    /// Activation patching of the heads' parts, denoising.
    pub parts: Outcome,
    /// Path patching into the last residual stream.
    pub direct: PathStep,
    /// Heads that work against the behaviour directly, strongest first.
    pub opposing: Vec<Head>,
    /// Direct logit attribution of head results.
    pub attribution: Outcome,
    /// Without and with norms.
    pub copying: [CopyScores; 2],
    /// Copy suppression of every head.
    pub suppression: Vec<Suppression>,
    /// What other heads add when the movers are removed; `None` if no head serves directly.
    pub backup: Option<Backup>,
    /// Into the movers' queries.
    pub queries: Option<PathStep>,
    /// S2-inhibition of the strongest heads that reach the queries.
    pub inhibition: Vec<Inhibition>,
    /// Into the values of heads that look at S2 and write to the logits themselves.
    pub direct_values: Option<PathStep>,
    /// Into the values of those that reach the movers' queries.
    pub values: Option<PathStep>,
    /// Into the keys of the heads that both found.
    pub keys: Option<PathStep>,
    /// The heads that are ablated together and whose queries receive.
    pub movers: Vec<Head>,
    /// Whether they are movers, or, without any, all that serve the behaviour directly.
    pub has_movers: bool,
    /// Where heads look.
    pub looks: NameAttention,
    /// Patterns of one clean prompt, `[layer, head, dest, src]`, and its number.
    pub shown: (usize, Array4<f32>),
    /// The circuit.
    pub circuit: Circuit,
    /// The paths between heads.
    pub edges: Edges,
}

/// Runs all steps.
///
/// # Errors
/// [`StudyError`], for example if an analysis fails.
pub fn analyse<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    tokenizer: &Tokenizer,
    sets: Sets,
    settings: &Settings,
) -> Result<Found, StudyError> {
    let inner = model.valid();
    let data = &sets.steps;
    let pairs = &data.pairs;
    let metric = LogitDiff::new(pairs);
    let threshold = settings.threshold;
    let options = Options { direction: Direction::Noising, ..setup.options(model, pairs.width()) };
    let parts = setup.step("parts of heads", |progress| {
        let options = Options { direction: Direction::Denoising, progress, ..options };
        activation_patching(&inner, pairs, &metric, &PARTS.map(NodeKind::all), &options)
    })?;
    let step = |what: &str, receivers: Vec<Receiver>| {
        setup.step(what, |progress| {
            PathStep::find(&inner, pairs, receivers, threshold, &Options { progress, ..options })
        })
    };
    let last = Receiver::new(inner.config().n_layers - 1, Input::ResidPost);
    let direct = step("direct effects", vec![last])?;
    let opposing = direct.opposing(threshold);
    let results = [NodeKind::all(Component::HeadResult)];
    let attribution = logit_attribution(&inner, pairs, &results, FinalNormGain::Applied, &options)?;
    let copying = [CopyNorms::Without, CopyNorms::With].map(|norms| {
        setup.step("copy scores", |progress| {
            copy_scores(&inner, &pairs.clean(), &data.names(), norms, &Options { progress, ..options })
        })
    });
    let [without, with] = copying;
    let copying = [without?, with?];

    let patterns = attention_patterns(&inner, &pairs.clean(), options.prompt_batch)?;
    let looks = NameAttention::new(&patterns, &data.roles);
    let shown = settings.show.min(pairs.len() - 1);
    let shown = (shown, patterns.index_axis(Axis(0), shown).to_owned());
    drop(patterns);

    let excluded: BTreeSet<u32> = FUNCTION_WORDS
        .iter()
        .filter_map(|word| tokenizer.single_token(word).ok())
        .chain(inner.config().bos_token)
        .collect();
    let (layers, heads) = (inner.config().n_layers, inner.config().n_heads);
    let all: Vec<Head> = (0..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head))).collect();
    let keep = KeptTokens { excluded, ..KeptTokens::default() };
    let suppression = setup.step("copy suppression", |progress| {
        copy_suppression(&inner, pairs, &all, &keep, &Options { progress, ..options })
    })?;
    // Those that look at S2 and write to the logits themselves inhibit it there: the notebook keeps them apart from the movers.
    let directly: Vec<Head> =
        direct.serving.iter().chain(&opposing).copied().filter(|&head| inhibits(&looks, head)).collect();
    let mut movers: Vec<Head> = direct.serving.iter().copied().filter(|head| !directly.contains(head)).collect();
    let has_movers = !movers.is_empty();
    if !has_movers {
        movers.clone_from(&direct.serving);
    }
    let backup = match movers.is_empty() {
        true => None,
        false => Some(backup_heads(&inner, pairs, &movers, FinalNormGain::Applied, &options)?),
    };
    // Nothing is written before the heads of layer 0.
    let into = |what: &str, input: Input, heads: &[Head]| {
        let reachable = heads.iter().filter(|(layer, _)| *layer > 0);
        let receivers: Vec<_> = reachable.map(|&(layer, head)| Receiver::new(layer, input).head(head)).collect();
        if receivers.is_empty() { Ok(None) } else { step(what, receivers).map(Some) }
    };
    let queries = into("into the movers' queries", Input::Q, &movers)?;
    let candidates: Vec<Head> = serving(&queries);
    let measured = &candidates[..candidates.len().min(MEASURED)];
    let inhibition = setup.step("S2-inhibition", |progress| {
        s2_inhibition(&inner, pairs, &data.roles, measured, &movers, &Options { progress, ..options })
    })?;
    let inhibitors: Vec<Head> = candidates.iter().copied().filter(|&head| inhibits(&looks, head)).collect();
    let direct_values = into("into the direct inhibitors' values", Input::V, &directly)?;
    let values =
        into("into the inhibitors' values", Input::V, if inhibitors.is_empty() { &candidates } else { &inhibitors })?;
    let finders: BTreeSet<Head> = serving(&direct_values).into_iter().chain(serving(&values)).collect();
    let inductive: Vec<Head> = finders.iter().copied().filter(|&head| induces(&looks, head)).collect();
    let finders: Vec<Head> = finders.into_iter().collect();
    let keys = into("into the keys", Input::K, if inductive.is_empty() { &finders } else { &inductive })?;

    let [clean, corrupted] = parts.baselines.means();
    let evidence = evidence(&Seen {
        direct: &direct,
        opposing: &opposing,
        queries: &queries,
        values: [&direct_values, &values],
        keys: &keys,
        looks: &looks,
        copying: &copying[0],
        backup: backup.as_ref(),
        movers: &movers,
        threshold,
        share_of_span: (clean / (clean - corrupted)) as f32,
    });
    let steps: Vec<&PathStep> =
        [Some(&direct), queries.as_ref(), direct_values.as_ref(), values.as_ref(), keys.as_ref()]
            .into_iter()
            .flatten()
            .collect();
    let circuit = circuit::find(&inner, setup, &sets, &evidence, &steps, settings)?;
    let edges = edges::find(model, setup, data, settings)?;
    let right = right(&parts);
    Ok(Found {
        right,
        parts,
        direct,
        opposing,
        attribution,
        copying,
        suppression,
        backup,
        queries,
        inhibition,
        direct_values,
        values,
        keys,
        movers,
        has_movers,
        looks,
        shown,
        circuit,
        edges,
        data: sets.steps,
    })
}

/// Share of clean prompts with IO above S.
fn right(parts: &Outcome) -> f64 {
    let clean = &parts.baselines.clean;
    clean.iter().filter(|v| **v > 0.0).count() as f64 / clean.len() as f64
}

fn serving(step: &Option<PathStep>) -> Vec<Head> {
    step.as_ref().map(|step| step.serving.clone()).unwrap_or_default()
}
