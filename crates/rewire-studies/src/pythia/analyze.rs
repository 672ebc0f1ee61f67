//! The notebook's steps: who writes the answer, who tells them where to look, and who tells those.

use std::collections::BTreeSet;

use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use ndarray::{Array4, Axis};
use rewire_analysis::heads::{
    Backup, CopyNorms, CopyScores, Inhibition, KeptTokens, Suppression, attention_patterns, backup_heads, copy_scores,
    copy_suppression, logit_attribution, s2_inhibition,
};
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::path::{Input, Receiver};
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_analysis::{AnalysisError, Outcome};
use rewire_circuits::{AttentionProfile, PathStep, Seen, evidence, induces, inhibits};
use rewire_hooks::Head;
use rewire_model::{FinalNormGain, Transformer};
use rewire_tasks::{LogitDiff, Tokenizer};

use super::circuit::{self, Circuit};
use super::data::{Data, Sets};
use super::edges::{self, Edges};
use super::settings::Settings;
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
    /// Heads that work against the behavior directly, strongest first.
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
    /// Whether they are movers, or, without any, all that serve the behavior directly.
    pub has_movers: bool,
    /// Where heads look.
    pub looks: AttentionProfile,
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
pub fn analyze<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    tokenizer: &Tokenizer,
    sets: Sets,
    settings: &Settings,
) -> Result<Found, StudyError> {
    let inner = model.valid();
    let data = &sets.steps;
    let pairs = &data.pairs;
    let execution = setup.execution(model, pairs.width());
    let steps = Steps { model: &inner, setup, data, threshold: settings.threshold, execution };
    let parts = steps.parts()?;
    let last = Receiver::new(inner.config().n_layers - 1, Input::ResidPost);
    let direct = steps.patched("direct effects", vec![last])?;
    let opposing = direct.opposing(settings.threshold);
    let results = [NodeKind::all(Component::HeadResult)];
    let attribution = logit_attribution(&inner, pairs, &results, FinalNormGain::Applied, &execution)?;
    let copying = [steps.copying(CopyNorms::Without)?, steps.copying(CopyNorms::With)?];
    let (looks, shown) = steps.looks(settings.show)?;
    let suppression = steps.suppression(tokenizer)?;
    let chosen = Movers::new(&direct, &opposing, &looks);
    let backup = match chosen.movers.is_empty() {
        true => None,
        false => Some(backup_heads(&inner, pairs, &chosen.movers, FinalNormGain::Applied, &execution)?),
    };
    let senders = steps.senders(&chosen, &looks)?;
    let [clean, corrupted] = parts.baselines.means();
    let evidence = evidence(&Seen {
        direct: &direct,
        opposing: &opposing,
        queries: &senders.queries,
        values: [&senders.direct_values, &senders.values],
        keys: &senders.keys,
        looks: &looks,
        copying: &copying[0],
        backup: backup.as_ref(),
        movers: &chosen.movers,
        threshold: settings.threshold,
        share_of_span: (clean / (clean - corrupted)) as f32,
    });
    let all: Vec<&PathStep> = [&direct].into_iter().chain(senders.made()).collect();
    let circuit = circuit::find(&inner, setup, &sets, &evidence, &all, settings)?;
    let edges = edges::find(model, setup, data, settings)?;
    let Movers { movers, has_movers, .. } = chosen;
    let Senders { queries, inhibition, direct_values, values, keys } = senders;
    Ok(Found {
        right: right(&parts),
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

/// The heads that serve the behavior directly, by what they do.
struct Movers {
    /// Those that look from END at S2 and write to the logits themselves, for or against the
    /// behavior: the notebook keeps them apart from the movers.
    directly: Vec<Head>,
    /// The others that serve it; all, if each looks at S2.
    movers: Vec<Head>,
    /// Whether there are others.
    has_movers: bool,
}

impl Movers {
    fn new(direct: &PathStep, opposing: &[Head], looks: &AttentionProfile) -> Self {
        let both = direct.serving.iter().chain(opposing).copied();
        let directly: Vec<Head> = both.filter(|&head| inhibits(looks, head)).collect();
        let mut movers: Vec<Head> = direct.serving.iter().copied().filter(|head| !directly.contains(head)).collect();
        let has_movers = !movers.is_empty();
        if !has_movers {
            movers.clone_from(&direct.serving);
        }
        Self { directly, movers, has_movers }
    }
}

/// What reaches the heads that serve the behavior directly.
struct Senders {
    queries: Option<PathStep>,
    inhibition: Vec<Inhibition>,
    direct_values: Option<PathStep>,
    values: Option<PathStep>,
    keys: Option<PathStep>,
}

impl Senders {
    /// The steps that were made.
    fn made(&self) -> impl Iterator<Item = &PathStep> {
        [&self.queries, &self.direct_values, &self.values, &self.keys].into_iter().flatten()
    }
}

/// What all steps have in common.
struct Steps<'a, B: Backend> {
    model: &'a Transformer<B>,
    setup: &'a Setup<'a>,
    data: &'a Data,
    threshold: f32,
    execution: Execution<'a>,
}

impl<B: Backend> Steps<'_, B> {
    /// Activation patching of the heads' parts, denoising.
    fn parts(&self) -> Result<Outcome, AnalysisError> {
        let pairs = &self.data.pairs;
        let metric = LogitDiff::new(pairs);
        let question = Question::new(pairs, &metric);
        self.setup.step("parts of heads", |progress| {
            let execution = Execution { progress, ..self.execution };
            activation_patching(self.model, question, &PARTS.map(NodeKind::all), Direction::Denoising, &execution)
        })
    }

    /// Path patching of all heads into some receivers.
    fn patched(&self, what: &str, receivers: Vec<Receiver>) -> Result<PathStep, AnalysisError> {
        self.setup.step(what, |progress| {
            let execution = Execution { progress, ..self.execution };
            PathStep::find(self.model, &self.data.pairs, receivers, self.threshold, &execution)
        })
    }

    /// Path patching into an input of some heads; none if nothing can reach them, since nothing is
    /// written before the heads of layer 0.
    fn into(&self, what: &str, input: Input, heads: &[Head]) -> Result<Option<PathStep>, AnalysisError> {
        let reachable = heads.iter().filter(|head| head.layer > 0);
        let receivers: Vec<_> = reachable.map(|head| Receiver::new(head.layer, input).head(head.head)).collect();
        if receivers.is_empty() { Ok(None) } else { self.patched(what, receivers).map(Some) }
    }

    fn copying(&self, norms: CopyNorms) -> Result<CopyScores, AnalysisError> {
        let Data { pairs, .. } = self.data;
        self.setup.step("copy scores", |progress| {
            let execution = Execution { progress, ..self.execution };
            copy_scores(self.model, &pairs.clean(), &self.data.names(), norms, &execution)
        })
    }

    /// Where heads look, and the patterns of one prompt with its number.
    fn looks(&self, show: usize) -> Result<(AttentionProfile, (usize, Array4<f32>)), AnalysisError> {
        let pairs = &self.data.pairs;
        let patterns = attention_patterns(self.model, &pairs.clean(), self.execution.prompt_batch)?;
        let shown = show.min(pairs.len() - 1);
        let looks = AttentionProfile::new(&patterns, &self.data.roles);
        Ok((looks, (shown, patterns.index_axis(Axis(0), shown).to_owned())))
    }

    /// Copy suppression of every head.
    fn suppression(&self, tokenizer: &Tokenizer) -> Result<Vec<Suppression>, AnalysisError> {
        let config = self.model.config();
        let excluded: BTreeSet<u32> = FUNCTION_WORDS
            .iter()
            .filter_map(|word| tokenizer.single_token(word).ok())
            .chain(config.bos_token)
            .collect();
        let (layers, heads) = (config.n_layers, config.n_heads);
        let all: Vec<Head> = (0..layers).flat_map(|layer| (0..heads).map(move |head| Head::new(layer, head))).collect();
        let keep = KeptTokens { excluded, ..KeptTokens::default() };
        self.setup.step("copy suppression", |progress| {
            let execution = Execution { progress, ..self.execution };
            copy_suppression(self.model, &self.data.pairs, &all, &keep, &execution)
        })
    }

    /// Who tells the movers where to look, and who tells those.
    fn senders(&self, chosen: &Movers, looks: &AttentionProfile) -> Result<Senders, AnalysisError> {
        let Movers { directly, movers, .. } = chosen;
        let queries = self.into("into the movers' queries", Input::Q, movers)?;
        let candidates: Vec<Head> = serving(&queries);
        let measured = &candidates[..candidates.len().min(MEASURED)];
        let inhibition = self.setup.step("S2-inhibition", |progress| {
            let execution = Execution { progress, ..self.execution };
            s2_inhibition(self.model, &self.data.pairs, &self.data.roles, measured, movers, &execution)
        })?;
        let inhibitors: Vec<Head> = candidates.iter().copied().filter(|&head| inhibits(looks, head)).collect();
        let direct_values = self.into("into the direct inhibitors' values", Input::V, directly)?;
        let receiving = if inhibitors.is_empty() { &candidates } else { &inhibitors };
        let values = self.into("into the inhibitors' values", Input::V, receiving)?;
        let finders: BTreeSet<Head> = serving(&direct_values).into_iter().chain(serving(&values)).collect();
        let inductive: Vec<Head> = finders.iter().copied().filter(|&head| induces(looks, head)).collect();
        let finders: Vec<Head> = finders.into_iter().collect();
        let keys = self.into("into the keys", Input::K, if inductive.is_empty() { &finders } else { &inductive })?;
        Ok(Senders { queries, inhibition, direct_values, values, keys })
    }
}

/// Share of clean prompts with IO above S.
fn right(parts: &Outcome) -> f64 {
    let clean = &parts.baselines.clean;
    clean.iter().filter(|v| **v > 0.0).count() as f64 / clean.len() as f64
}

fn serving(step: &Option<PathStep>) -> Vec<Head> {
    step.as_ref().map(|step| step.serving.clone()).unwrap_or_default()
}
