//! The ablation experiments: the accuracy of the model without the heads on which the methods
//! disagree.

use burn::tensor::backend::Backend;
use rewire_analysis::node::Node;
use rewire_analysis::patching::{Ablated, AnswerAccuracy, answer_accuracy};
use rewire_analysis::run::{Execution, Intervention, MeanOver, mean_activations};
use rewire_analysis::stats::pearson;
use rewire_hooks::{Head, Site};
use rewire_model::Transformer;
use rewire_tasks::ioi::GPT2_SMALL_CIRCUIT;
use rewire_tasks::{PromptPairs, Tokenizer};

use super::analyze::{Compared, head_node};
use super::printed::OUTLIERS;
use crate::{KnownModel, Setup, StudyError};

/// The replacements of ablated heads, in the notebook's order. The notebook does not have resample.
pub const INTERVENTIONS: [&str; 3] = ["zero", "mean", "resample"];
/// Number of tokens that the model generates, as in the notebook.
pub const NEW_TOKENS: usize = 3;
/// Largest number of prompts in one batch.
const AT_ONCE: usize = 64;

/// The accuracy of the model, intact and with heads ablated.
pub struct Ablations {
    /// Accuracy of the intact model.
    pub whole: AnswerAccuracy,
    /// The heads that are ablated one at a time.
    pub heads: Vec<Head>,
    /// Accuracy without each head, one row per intervention.
    pub alone: Vec<Vec<AnswerAccuracy>>,
    /// The heads that are outliers by the notebook's rule; on the notebook's own model, its six
    /// heads.
    pub of_notebook: Vec<Head>,
    /// Sets of heads that are ablated together, by name.
    pub sets: Vec<(String, Vec<Head>)>,
    /// Accuracy without each set, one row per intervention.
    pub together: Vec<Vec<AnswerAccuracy>>,
}

pub(super) fn study<B: Backend>(
    model: &Transformer<B>,
    setup: &Setup,
    tokenizer: &Tokenizer,
    [set, reference]: &[PromptPairs; 2],
    compared: &Compared,
    known: KnownModel,
    further: &[Head],
) -> Result<Ablations, StudyError> {
    let mut heads = compared.literal_outliers();
    // The notebook's accuracies are for its six heads, even if this run finds other outliers.
    let printed: Vec<_> = OUTLIERS.iter().map(|(head, _)| *head).collect();
    let of_notebook = if known == KnownModel::Gpt2Small { printed } else { heads.clone() };
    for head in compared.outliers().into_iter().chain(of_notebook.iter().copied()).chain(further.iter().copied()) {
        if !heads.contains(&head) {
            heads.push(head);
        }
    }
    heads.sort_unstable();
    let mut sets = Vec::new();
    if heads.len() > 1 {
        sets.push(("all of these".to_owned(), heads.clone()));
    }
    if known == KnownModel::Gpt2Small {
        sets.extend(
            GPT2_SMALL_CIRCUIT
                .iter()
                .map(|class| (format!("{} heads", class.name), class.heads.iter().copied().map(Head::from).collect())),
        );
    }

    let prompts: Vec<Vec<u32>> = reference.pairs().iter().map(|p| p.clean.clone()).collect();
    let means = mean_activations(model, &prompts, &[Site::Z], MeanOver::PromptsAndPositions, AT_ONCE)?;
    let mut ablations = vec![Ablated { nodes: Vec::new(), by: Intervention::Zero }];
    for by in [Intervention::Zero, Intervention::Fixed(means), Intervention::Resample] {
        let alone = heads.iter().map(|head| vec![*head]);
        for removed in alone.chain(sets.iter().map(|(_, heads)| heads.clone())) {
            let nodes: Vec<Node> = removed.into_iter().map(head_node).collect();
            ablations.push(Ablated { nodes, by: by.clone() });
        }
    }
    let found = setup.step("accuracy without heads", |progress| {
        let fitted = setup.execution(model, set.width());
        let execution = Execution { prompt_batch: AT_ONCE.min(fitted.prompt_batch), progress, ..fitted };
        answer_accuracy(model, set, tokenizer, &ablations, NEW_TOKENS, &execution)
    })?;
    let mut found = found.into_iter();
    let whole = found.next().ok_or_else(|| StudyError::Prompts("no accuracy was measured".to_owned()))?;
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in INTERVENTIONS {
        alone.push(found.by_ref().take(heads.len()).collect());
        together.push(found.by_ref().take(sets.len()).collect());
    }
    Ok(Ablations { whole, heads, alone, of_notebook, sets, together })
}

/// Correlations over heads of one score with the change of accuracy.
pub struct Correlations {
    /// Name of the score.
    pub scores: &'static str,
    /// One correlation per intervention.
    pub with_change: Vec<Option<f64>>,
}

impl Ablations {
    /// Returns the change of the share of prompts on which the model says the answer, one per head.
    #[must_use]
    pub fn changes(&self, intervention: usize) -> Vec<f32> {
        let whole = self.whole.said.share();
        self.alone[intervention].iter().map(|without| (without.said.share() - whole) as f32).collect()
    }

    /// Returns the correlations of scores with the change of accuracy: for the difference between
    /// patching and attribution, and for each method. Attributions are integrated gradients and the
    /// notebook's figure.
    #[must_use]
    pub fn correlations(&self, compared: &Compared) -> Vec<Correlations> {
        type Score = fn(&Compared, Head) -> f32;
        // The notebook's unscaled figure is about 1e-7, so its difference from patching is patching
        // itself up to rounding.
        let scores: [(&str, Score); 5] = [
            ("patching less IG", |c, head| c.exact_of(head) - c.integrated_of(head)),
            ("IG", Compared::integrated_of),
            ("activation patching", Compared::exact_of),
            ("patching less the notebook's figure", |c, head| c.exact_of(head) - c.literal_of(head)),
            ("the notebook's figure", Compared::literal_of),
        ];
        let of = |(name, score): (&'static str, Score)| Correlations {
            scores: name,
            with_change: (0..INTERVENTIONS.len())
                .map(|i| pearson(self.heads.iter().map(|&head| score(compared, head)).zip(self.changes(i))))
                .collect(),
        };
        scores.into_iter().map(of).collect()
    }

    /// Returns the change of the share of prompts on which the model says the answer without one
    /// head.
    #[must_use]
    pub fn change(&self, intervention: usize, head: Head) -> Option<f32> {
        let at = self.heads.iter().position(|h| *h == head)?;
        self.changes(intervention).get(at).copied()
    }

    /// Returns whether the comparison is meaningless: the intact model never gets the task right,
    /// so no ablation can make it worse.
    #[must_use]
    pub fn means_nothing(&self) -> bool {
        self.whole.is_never_right()
    }

    /// Returns the names of the heads.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.heads.iter().map(Head::to_string).collect()
    }
}
