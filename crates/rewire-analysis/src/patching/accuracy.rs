//! Measures how often a model answers correctly, unchanged and with nodes removed: by the rank of
//! the answer, and by the text that the model generates.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::{ActivationCache, AnyRank, HookPoint, Patch, Recorder, Site};
use rewire_model::{LastBlock, ModelError, Prefix, Readout, Run, Transformer, likeliest};
use rewire_tasks::{LogitDiff, PromptPairs, Tokenizer};

use crate::error::AnalysisError;
use crate::node::kind::{Component, Node, NodeKind, Positions, named};
use crate::patching::ablation::check_no_node_twice;
use crate::patching::reference;
use crate::run::batch::{PromptBatch, batches};
use crate::run::execution::Execution;
use crate::run::finite::{Watch, check_prompts, nan_or_zero};
use crate::run::fit::catch_device_faults;
use crate::run::intervention::Intervention;
use crate::run::question::Direction;
use crate::run::record::check_pairs;
use crate::run::transfer::to_vec;
use crate::run::workers;
use crate::stats::proportion::Proportion;

/// Nodes that are removed together, and their replacement. Without nodes, the model stays
/// unchanged.
#[derive(Debug, Clone)]
pub struct Ablated<B: Backend> {
    /// The nodes, at all positions.
    pub nodes: Vec<Node>,
    /// The replacement for the nodes' activations.
    pub by: Intervention<B>,
}

/// How often the model answers the clean prompts correctly.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerAccuracy {
    /// Share of prompts on which no token is likelier than the likeliest answer.
    pub first: Proportion,
    /// Share of prompts on which the likeliest answer is likelier than the likeliest wrong answer.
    pub above_wrong: Proportion,
    /// Share of prompts on which the first word of the greedy generation contains an answer.
    pub said: Proportion,
    /// Mean rank of the likeliest answer among all tokens; rank 1 is the likeliest token.
    pub mean_rank: f64,
    /// Mean logit of the answers minus mean logit of the wrong answers, averaged over prompts.
    pub logit_difference: f64,
}

/// Returns how often the model answers the clean prompts correctly after each ablation, in the
/// order of `ablations`.
///
/// Accuracy is measured by the rank of the answer at END, and by greedy generation of up to
/// `new_tokens` tokens. Only the first generated word counts, and generation ends once that word is
/// known. Each run starts at the lowest layer that its ablation touches. Generation caches keys and
/// values.
///
/// At generated positions, a removed node takes its replacement at END. [`Intervention::Fixed`]
/// must be the same for all prompts. [`Execution::prompt_batch`], the workers and the progress
/// function of `execution` apply. Nothing is stored in [`Execution::checkpoint`].
///
/// # Errors
/// Returns an [`AnalysisError`] for
///
/// - nodes that the model does not have, that are named twice, or that are not at all positions;
/// - attention patterns, because they grow with every generated token;
/// - activations that are given per prompt;
/// - prompts that the model cannot run, or whose generation would exceed the context.
pub fn answer_accuracy<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    tokenizer: &Tokenizer,
    ablations: &[Ablated<B>],
    new_tokens: usize,
    execution: &Execution,
) -> Result<Vec<AnswerAccuracy>, AnalysisError> {
    check(model, pairs, ablations, new_tokens)?;
    catch_device_faults::<B, _>(&model.device(), || {
        let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (prompt, pair) in pairs.pairs().iter().enumerate() {
            by_length.entry(pair.clean.len()).or_default().push(prompt);
        }
        let batches: Vec<Vec<usize>> = by_length
            .into_values()
            .flat_map(|prompts| {
                prompts.chunks(execution.prompt_batch.max(1)).map(<[usize]>::to_vec).collect::<Vec<_>>()
            })
            .collect();
        let (mut done, total) = (0, pairs.len() * ablations.len());
        (execution.progress)(done, total);
        let mut answered: Vec<Vec<AnswerRecord>> =
            ablations.iter().map(|_| vec![AnswerRecord::default(); pairs.len()]).collect();
        workers::run(
            batches.len(),
            execution.workers::<B>(&model.device()),
            |number| {
                let of_batch = batches[number].iter().map(|&prompt| pairs.pairs()[prompt].clone()).collect();
                let of_batch = PromptPairs::new(of_batch)?;
                Batch::new(model, &of_batch, &batches[number], tokenizer, ablations)?.answers(ablations, new_tokens)
            },
            |number, found| {
                for (answered, found) in answered.iter_mut().zip(found) {
                    batches[number].iter().zip(found).for_each(|(&prompt, found)| answered[prompt] = found);
                }
                done += batches[number].len() * ablations.len();
                (execution.progress)(done, total);
                Ok(())
            },
        )?;
        Ok(answered.iter().map(|answered| AnswerAccuracy::of(answered)).collect())
    })
}

fn check<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    ablations: &[Ablated<B>],
    new_tokens: usize,
) -> Result<(), AnalysisError> {
    check_pairs(model, pairs)?;
    for Ablated { nodes, by } in ablations {
        check_no_node_twice(nodes)?;
        let kinds: Vec<NodeKind> = nodes.iter().map(|node| NodeKind::all(node.component)).collect();
        by.check(&kinds, model.config())?;
        for (node, &kind) in nodes.iter().zip(&kinds) {
            let point = node.point();
            if let Intervention::Fixed(given) = by
                && let Some(found) = given.dims(point).filter(|dims| dims[0] != 1)
            {
                let expected = [&[1], &found[1..]].concat();
                return Err(AnalysisError::GivenShape { point, expected, found });
            }
            node.check(model.config(), pairs)?;
            let refuse = |reason| {
                Err(AnalysisError::UnsupportedNode { method: "accuracy of generated answers", node: kind, reason })
            };
            if node.component == Component::HeadPattern {
                return refuse("patterns grow with every generated token; ablate head_z");
            }
            if node.positions != Positions::All {
                return refuse("generated tokens add positions; ablate it at all positions");
            }
        }
    }
    let (found, n_ctx) = (pairs.width() + new_tokens.saturating_sub(1), model.config().n_ctx);
    if found > n_ctx {
        return Err(ModelError::ContextExceeded { found, n_ctx }.into());
    }
    Ok(())
}

/// The measurements on one prompt.
#[derive(Debug, Clone, Copy, Default)]
struct AnswerRecord {
    rank: usize,
    above_wrong: bool,
    said: bool,
    logit_difference: f32,
}

impl AnswerAccuracy {
    fn of(answered: &[AnswerRecord]) -> Self {
        let n = answered.len().max(1) as f64;
        let share = |is: fn(&AnswerRecord) -> bool| Proportion::of(answered.iter().map(is));
        Self {
            first: share(|a| a.rank == 1),
            above_wrong: share(|a| a.above_wrong),
            said: share(|a| a.said),
            mean_rank: answered.iter().map(|a| a.rank as f64).sum::<f64>() / n,
            logit_difference: answered.iter().map(|a| f64::from(a.logit_difference)).sum::<f64>() / n,
        }
    }

    /// Returns whether the model never gives an answer, neither as its likeliest token nor in its
    /// generated text.
    ///
    /// `above_wrong` does not count: by chance, an answer is likelier than a wrong one half of the
    /// time.
    #[must_use]
    pub fn is_never_right(&self) -> bool {
        self.first.successes == 0 && self.said.successes == 0
    }
}

/// Prompts of one length, and the clean run on them.
struct Batch<'a, B: Backend> {
    model: &'a Transformer<B>,
    tokenizer: &'a Tokenizer,
    batch: PromptBatch,
    /// Indices of these prompts among all prompts.
    prompts: &'a [usize],
    /// The text of each prompt's answers, without surrounding spaces.
    names: Vec<Vec<String>>,
    metric: LogitDiff,
    /// Reads all logits at END.
    readout: Readout,
    cache: ActivationCache<B>,
    /// The corrupted run, at the points of the resampled nodes.
    corrupted: ActivationCache<B>,
    /// Logits of the clean run at END, `[prompt, 1, d_vocab]`.
    logits: Tensor<B, 3>,
}

impl<'a, B: Backend> Batch<'a, B> {
    fn new(
        model: &'a Transformer<B>,
        pairs: &PromptPairs,
        prompts: &'a [usize],
        tokenizer: &'a Tokenizer,
        ablations: &[Ablated<B>],
    ) -> Result<Self, AnalysisError> {
        let name = |answer: &u32| tokenizer.decode(&[*answer]).trim().to_owned();
        let names = pairs.pairs().iter().map(|p| p.answers.iter().map(name).collect()).collect();
        let metric = LogitDiff::new(pairs);
        let batch = batches(pairs, &metric, pairs.len())?.get(0);
        let readout = Readout { columns: None, ..batch.readout.clone() };
        let starts: BTreeSet<usize> = ablations.iter().filter_map(|a| lowest(&a.nodes)).collect();
        let resumed = move |p: HookPoint| match p {
            HookPoint::Block { layer, site: Site::ResidPre } => starts.contains(&layer),
            _ => false,
        };
        let mut recorders = (Recorder::filtered(resumed), model.prefix_recorder());
        let mut watch = Watch::new();
        let run = Run::tokens(model.tokens(&pairs.clean())?).with_readout(readout.clone());
        let logits = model.forward(run.with_last_block(LastBlock::ReadPositions), (&mut recorders, &mut watch))?;
        let (resumed, earlier) = recorders;
        let mut cache = resumed.into_cache();
        cache.merge(earlier.into_cache());
        let resampled = ablations.iter().filter(|a| matches!(a.by, Intervention::Resample));
        let points: BTreeSet<HookPoint> = resampled.flat_map(|a| &a.nodes).map(Node::point).collect();
        let corrupted = match points.is_empty() {
            true => ActivationCache::new(),
            false => {
                let accepts = move |p: HookPoint| points.contains(&p);
                Intervention::Resample.source(model, &metric, &batch, Direction::Noising, accepts)?.cache
            }
        };
        let finite = to_vec(watch.mark(nan_or_zero(&logits)));
        check_prompts(model, "an activation of the clean run", &pairs.clean(), prompts, &finite)?;
        Ok(Self { model, tokenizer, batch, prompts, names, metric, readout, cache, corrupted, logits })
    }

    /// Returns one list per ablation, with one record per prompt.
    fn answers(&self, ablations: &[Ablated<B>], new_tokens: usize) -> Result<Vec<Vec<AnswerRecord>>, AnalysisError> {
        ablations.iter().map(|ablated| self.after(ablated, new_tokens)).collect()
    }

    fn after(&self, Ablated { nodes, by }: &Ablated<B>, new_tokens: usize) -> Result<Vec<AnswerRecord>, AnalysisError> {
        let points: BTreeSet<HookPoint> = nodes.iter().map(Node::point).collect();
        let n_prompts = self.batch.prompts.len();
        let Some(lowest) = lowest(nodes) else {
            let mut answered = self.rank_answers(&self.logits, nodes)?;
            let prefix = Prefix::from_cache(&self.cache, self.model.config(), self.batch.pairs.width())?;
            self.generate_answers(&mut answered, &self.logits, prefix, new_tokens, nodes, |_| Ok(Patch::new()))?;
            return Ok(answered);
        };
        let source = match by {
            Intervention::Resample => self.corrupted.clone(),
            _ => {
                let points = points.clone();
                let accepts = move |p: HookPoint| points.contains(&p);
                by.source(self.model, &self.metric, &self.batch, Direction::Noising, accepts)?.cache
            }
        };
        let mut patch = reference::patch(&[nodes], &source, n_prompts, 0, &self.model.device())?;
        let last = self.model.config().n_layers - 1;
        let last_block =
            if nodes.iter().any(|n| n.layer == last) { LastBlock::AllPositions } else { LastBlock::ReadPositions };
        let run = Run::from_residual(lowest, self.cache.block(lowest, Site::ResidPre)?)
            .with_readout(self.readout.clone())
            .with_last_block(last_block);
        let mut recorder = self.model.prefix_recorder();
        let mut watch = Watch::new();
        let logits = self.model.forward(run, ((&mut patch, &mut recorder), &mut watch))?;
        patch.finish()?;
        let rows: Vec<usize> = (0..n_prompts).collect();
        self.check(&to_vec(watch.mark(nan_or_zero(&logits))), &rows, nodes)?;
        // Below its lowest layer, an ablation leaves keys and values unchanged.
        let mut cache = self.cache.clone();
        cache.merge(recorder.into_cache());
        let prefix = Prefix::from_cache(&cache, self.model.config(), self.batch.pairs.width())?;

        let mut answered = self.rank_answers(&logits, nodes)?;
        self.generate_answers(&mut answered, &logits, prefix, new_tokens, nodes, |rows| {
            let at_end = points.iter().try_fold(ActivationCache::new(), |cache, &p| {
                Ok::<_, AnalysisError>(cache.with(p, at_end(source.any(p)?, rows)))
            })?;
            Ok(reference::patch(&[nodes], &at_end, rows.len(), 0, &self.model.device())?)
        })?;
        Ok(answered)
    }

    /// Refuses logits that are not finite. `logits` has one row per prompt of `rows`.
    fn check(&self, logits: &[f32], rows: &[usize], nodes: &[Node]) -> Result<(), AnalysisError> {
        let Some(at) = logits.iter().position(|logit| !logit.is_finite()) else { return Ok(()) };
        let what = match nodes {
            [] => "a logit of the unchanged model".to_owned(),
            nodes => format!("a logit with {} replaced", named(nodes)),
        };
        let row = at / (logits.len() / rows.len().max(1)).max(1);
        Err(AnalysisError::NotFinite { what, value: logits[at], prompt: Some(self.prompts[rows[row]]), first: None })
    }

    /// Returns the rank and the logit difference of each prompt's answers, from logits
    /// `[prompt, 1, d_vocab]` with `nodes` removed.
    fn rank_answers(&self, logits: &Tensor<B, 3>, nodes: &[Node]) -> Result<Vec<AnswerRecord>, AnalysisError> {
        let logits = to_vec(logits.clone());
        self.check(&logits, &(0..self.prompts.len()).collect::<Vec<_>>(), nodes)?;
        let rows = logits.chunks(self.model.config().d_vocab);
        let judge = |(pair, logits): (&rewire_tasks::PromptPair, &[f32])| {
            let of = |tokens: &[u32]| tokens.iter().map(|&t| logits[t as usize]).collect::<Vec<f32>>();
            let best = |of: &[f32]| of.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mean = |of: &[f32]| of.iter().sum::<f32>() / of.len() as f32;
            let (right, wrong) = (of(&pair.answers), of(&pair.wrong_answers));
            let likeliest = best(&right);
            AnswerRecord {
                rank: 1 + logits.iter().filter(|&&l| l > likeliest).count(),
                above_wrong: likeliest > best(&wrong),
                said: false,
                logit_difference: mean(&right) - mean(&wrong),
            }
        };
        Ok(self.batch.pairs.pairs().iter().zip(rows).map(judge).collect())
    }

    /// Generates tokens greedily, starting from `logits`, until each prompt's first word is known
    /// or there are `new_tokens` tokens.
    fn generate_answers(
        &self,
        answered: &mut [AnswerRecord],
        logits: &Tensor<B, 3>,
        mut prefix: Prefix<B>,
        new_tokens: usize,
        nodes: &[Node],
        patch_of: impl Fn(&[usize]) -> Result<Patch<B>, AnalysisError>,
    ) -> Result<(), AnalysisError> {
        let [n_prompts, _, d_vocab] = logits.dims();
        let mut open: Vec<usize> = (0..n_prompts).collect();
        let mut said: Vec<Vec<u32>> = vec![Vec::new(); n_prompts];
        let mut logits = logits.clone().reshape([n_prompts, d_vocab]);
        for left in (0..new_tokens).rev() {
            let chosen = likeliest(logits.clone());
            let mut still_open = Vec::new();
            for (row, (&prompt, &token)) in open.iter().zip(&chosen).enumerate() {
                said[prompt].push(token);
                match first_word_matches(&self.tokenizer.decode(&said[prompt]), &self.names[prompt]) {
                    Some(is_right) => answered[prompt].said = is_right,
                    None => still_open.push(row),
                }
            }
            if still_open.is_empty() || left == 0 {
                return Ok(());
            }
            if still_open.len() < open.len() {
                prefix = prefix.select(&still_open);
            }
            open = still_open.iter().map(|&row| open[row]).collect();
            let tokens: Vec<u32> = still_open.iter().map(|&row| chosen[row]).collect();
            let mut patch = patch_of(&open)?;
            (logits, prefix) = self.model.extend(prefix, &tokens, &mut patch)?;
            patch.finish()?;
            self.check(&to_vec(nan_or_zero(&logits.clone().unsqueeze_dim(1))), &open, nodes)?;
        }
        Ok(())
    }
}

/// Returns the lowest layer of the nodes.
fn lowest(nodes: &[Node]) -> Option<usize> {
    nodes.iter().map(|node| node.layer).min()
}

/// Returns the last position of the prompts in `rows`, `[row, 1, ..]`.
fn at_end<B: Backend>(value: &AnyRank<B>, rows: &[usize]) -> AnyRank<B> {
    value.narrow(1, value.dims()[1] - 1, 1).select(0, rows)
}

/// Returns whether the first word of `text` contains one of `names`; `None` while more text could
/// change that.
fn first_word_matches(text: &str, names: &[String]) -> Option<bool> {
    let word = text.trim_start();
    let end = word.find(char::is_whitespace);
    let first = &word[..end.unwrap_or(word.len())];
    if names.iter().any(|name| !name.is_empty() && first.contains(name)) {
        return Some(true);
    }
    end.map(|_| false)
}

#[cfg(test)]
mod tests {
    use super::first_word_matches;

    #[test]
    fn an_answer_is_decided_when_its_first_word_is_complete() {
        let judge = |text| first_word_matches(text, &["Mary".to_owned()]);
        assert_eq!(judge(" Mary"), Some(true));
        assert_eq!(judge(" Marys"), Some(true));
        assert_eq!(judge(" "), None);
        assert_eq!(judge(" the"), None);
        assert_eq!(judge(" the Mary"), Some(false));
        assert_eq!(judge(" Mar"), None);
        assert_eq!(judge("\nMary."), Some(true));
        assert_eq!(first_word_matches(" x", &[String::new()]), None);
    }
}
