//! The notebook's steps: the heads that write the answer, the heads that reach their queries, and
//! the heads that reach those.

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
use rewire_circuits::{AttentionProfile, Evidence, PathStep, Seen, evidence, induces, inhibits};
use rewire_hooks::Head;
use rewire_model::{FinalNormGain, Transformer};
use rewire_tasks::{LogitDiff, Tokenizer};

use super::circuit::{self, Circuit};
use super::data::{Data, Sets};
use super::edges::{self, Edges};
use super::settings::Settings;
use crate::{Setup, StudyError};

/// The parts of heads that the first step patches.
pub const PARTS: [Component; 5] =
    [Component::HeadZ, Component::HeadQ, Component::HeadK, Component::HeadV, Component::HeadPattern];

/// Number of heads whose S2-inhibition is measured. Each head needs complete forward passes.
const MEASURED: usize = 6;

/// Function words, which copy suppression never keeps.
const FUNCTION_WORDS: [&str; 24] = [
    " the", " a", " an", " to", " of", " and", " in", " at", " for", " with", " on", " were", " was", " had", " went",
    " gave", " it", " that", " is", ",", ".", "The", "When", "Then",
];

/// The results of the study.
pub struct Found {
    /// The prompts for the steps.
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
    /// Copy scores without and with norms.
    pub copying: [CopyScores; 2],
    /// Copy suppression of every head.
    pub suppression: Vec<Suppression>,
    /// Direct logit attribution before and after the movers are removed; `None` if no head serves
    /// the behavior directly.
    pub backup: Option<Backup>,
    /// Path patching into the movers' queries.
    pub queries: Option<PathStep>,
    /// S2-inhibition of the strongest heads that reach the movers' queries.
    pub inhibition: Vec<Inhibition>,
    /// Path patching into the values of heads that attend from END to S2 and have a direct effect
    /// on the logits.
    pub direct_values: Option<PathStep>,
    /// Path patching into the values of the S-inhibition heads that reach the movers' queries, or
    /// of all heads that reach the queries if there are no S-inhibition heads.
    pub values: Option<PathStep>,
    /// Path patching into the keys of the induction heads that the value steps found, or of all
    /// heads that they found if there are no induction heads.
    pub keys: Option<PathStep>,
    /// The heads that are ablated together, and whose queries are receivers.
    pub movers: Vec<Head>,
    /// Whether `movers` are movers. If false, there is no mover, and `movers` has all heads that
    /// serve the behavior directly.
    pub has_movers: bool,
    /// Attention of the heads between the names.
    pub looks: AttentionProfile,
    /// Index of one clean prompt, and its attention patterns, `[layer, head, dest, src]`.
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
    let writers = steps.writers(tokenizer, settings.show)?;
    let senders = steps.senders(&writers.chosen, &writers.looks)?;
    let evidence = writers.evidence(&senders, settings.threshold, share_of_span(&parts));
    let all: Vec<&PathStep> = [&writers.direct].into_iter().chain(senders.made()).collect();
    let circuit = circuit::find(&inner, setup, &sets, &evidence, &all, settings)?;
    let edges = edges::find(model, setup, data, settings)?;
    let Writers { direct, opposing, attribution, copying, looks, shown, suppression, chosen, backup } = writers;
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

/// The results on the heads that write the answer.
struct Writers {
    direct: PathStep,
    opposing: Vec<Head>,
    attribution: Outcome,
    copying: [CopyScores; 2],
    looks: AttentionProfile,
    shown: (usize, Array4<f32>),
    suppression: Vec<Suppression>,
    chosen: Movers,
    backup: Option<Backup>,
}

impl Writers {
    /// Returns the heads that have a role, from these results and from the senders.
    fn evidence(&self, senders: &Senders, threshold: f32, share_of_span: f32) -> Vec<Evidence> {
        evidence(&Seen {
            direct: &self.direct,
            opposing: &self.opposing,
            queries: &senders.queries,
            values: [&senders.direct_values, &senders.values],
            keys: &senders.keys,
            looks: &self.looks,
            copying: &self.copying[0],
            backup: self.backup.as_ref(),
            movers: &self.chosen.movers,
            threshold,
            share_of_span,
        })
    }
}

/// The heads with direct effects, sorted into direct inhibitors and movers.
struct Movers {
    /// Direct inhibitors: heads that attend from END to S2 and have a direct effect on the logits,
    /// for or against the behavior. The notebook does not count them as movers.
    directly: Vec<Head>,
    /// The other heads that serve the behavior directly. If there are none, all heads that serve it
    /// directly.
    movers: Vec<Head>,
    /// Whether `movers` has heads that are not direct inhibitors.
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

/// The steps that find the senders to the heads that serve the behavior directly.
struct Senders {
    queries: Option<PathStep>,
    inhibition: Vec<Inhibition>,
    direct_values: Option<PathStep>,
    values: Option<PathStep>,
    keys: Option<PathStep>,
}

impl Senders {
    /// Returns the steps that ran.
    fn made(&self) -> impl Iterator<Item = &PathStep> {
        [&self.queries, &self.direct_values, &self.values, &self.keys].into_iter().flatten()
    }
}

/// The arguments that all steps share.
struct Steps<'a, B: Backend> {
    model: &'a Transformer<B>,
    setup: &'a Setup<'a>,
    data: &'a Data,
    threshold: f32,
    execution: Execution<'a>,
}

impl<B: Backend> Steps<'_, B> {
    /// Patches the parts of heads, denoising.
    fn parts(&self) -> Result<Outcome, AnalysisError> {
        let pairs = &self.data.pairs;
        let metric = LogitDiff::new(pairs);
        let question = Question::new(pairs, &metric);
        self.setup.step("parts of heads", |progress| {
            let execution = Execution { progress, ..self.execution };
            activation_patching(self.model, question, &PARTS.map(NodeKind::all), Direction::Denoising, &execution)
        })
    }

    /// Finds the heads that write the answer, and measures them. `show` is the prompt whose
    /// attention is kept.
    fn writers(&self, tokenizer: &Tokenizer, show: usize) -> Result<Writers, AnalysisError> {
        let (model, pairs, execution) = (self.model, &self.data.pairs, &self.execution);
        let last = Receiver::new(model.config().n_layers - 1, Input::ResidPost);
        let direct = self.patched("direct effects", vec![last])?;
        let opposing = direct.opposing(self.threshold);
        let results = [NodeKind::all(Component::HeadResult)];
        let attribution = logit_attribution(model, pairs, &results, FinalNormGain::Applied, execution)?;
        let copying = [self.copying(CopyNorms::Without)?, self.copying(CopyNorms::With)?];
        let (looks, shown) = self.looks(show)?;
        let suppression = self.suppression(tokenizer)?;
        let chosen = Movers::new(&direct, &opposing, &looks);
        let backup = match chosen.movers.is_empty() {
            true => None,
            false => Some(backup_heads(model, pairs, &chosen.movers, FinalNormGain::Applied, execution)?),
        };
        Ok(Writers { direct, opposing, attribution, copying, looks, shown, suppression, chosen, backup })
    }

    /// Runs path patching from all heads into the receivers.
    fn patched(&self, what: &str, receivers: Vec<Receiver>) -> Result<PathStep, AnalysisError> {
        self.setup.step(what, |progress| {
            let execution = Execution { progress, ..self.execution };
            PathStep::find(self.model, &self.data.pairs, receivers, self.threshold, &execution)
        })
    }

    /// Runs path patching into one input of some heads. Returns `None` if all of these heads are in
    /// layer 0, because no head can send to layer 0.
    fn into(&self, what: &str, input: Input, heads: &[Head]) -> Result<Option<PathStep>, AnalysisError> {
        let reachable = heads.iter().filter(|head| head.layer > 0);
        let mut receivers = Vec::new();
        for receiver in reachable.map(|head| Receiver::of_head(*head, input, self.model.config())) {
            // Heads that share keys or values receive through one key/value head.
            if !receivers.contains(&receiver) {
                receivers.push(receiver);
            }
        }
        if receivers.is_empty() { Ok(None) } else { self.patched(what, receivers).map(Some) }
    }

    fn copying(&self, norms: CopyNorms) -> Result<CopyScores, AnalysisError> {
        let Data { pairs, .. } = self.data;
        self.setup.step("copy scores", |progress| {
            let execution = Execution { progress, ..self.execution };
            copy_scores(self.model, &pairs.clean(), &self.data.names(), norms, &execution)
        })
    }

    /// Returns the attention between the names, and the index and attention patterns of one prompt.
    fn looks(&self, show: usize) -> Result<(AttentionProfile, (usize, Array4<f32>)), AnalysisError> {
        let pairs = &self.data.pairs;
        let patterns = attention_patterns(self.model, &pairs.clean(), self.execution.prompt_batch)?;
        let shown = show.min(pairs.len() - 1);
        let looks = AttentionProfile::new(&patterns, &self.data.roles);
        Ok((looks, (shown, patterns.index_axis(Axis(0), shown).to_owned())))
    }

    /// Measures copy suppression of every head.
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

    /// Finds the heads that reach the movers' queries, and the heads that reach those heads.
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

/// Returns the clean logit difference as a share of the clean minus corrupted one.
fn share_of_span(parts: &Outcome) -> f32 {
    let [clean, corrupted] = parts.baselines.means();
    (clean / (clean - corrupted)) as f32
}

/// Returns the share of clean prompts with the logit of IO above the logit of S.
fn right(parts: &Outcome) -> f64 {
    let clean = &parts.baselines.clean;
    clean.iter().filter(|v| **v > 0.0).count() as f64 / clean.len() as f64
}

fn serving(step: &Option<PathStep>) -> Vec<Head> {
    step.as_ref().map(|step| step.serving.clone()).unwrap_or_default()
}
