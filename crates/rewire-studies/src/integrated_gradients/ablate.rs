//! The ablation experiments: how often the model answers right without the heads on which the methods disagree.

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

/// What heads are replaced by, in the notebook's order, and what it left to do.
pub const INTERVENTIONS: [&str; 3] = ["zero", "mean", "resample"];
/// Tokens that the model may say, as in the notebook.
pub const NEW_TOKENS: usize = 3;
/// Prompts that are run at once.
const AT_ONCE: usize = 64;

/// How often the model answers right, as it is and without some heads.
pub struct Ablations {
    /// As it is.
    pub whole: AnswerAccuracy,
    /// The heads that are removed one by one.
    pub heads: Vec<Head>,
    /// Without each head; one row an intervention.
    pub alone: Vec<Vec<AnswerAccuracy>>,
    /// Those of them that are outliers by the notebook's rule; on its own model its six.
    pub of_notebook: Vec<Head>,
    /// Sets of heads that are removed together, by name.
    pub sets: Vec<(String, Vec<Head>)>,
    /// Without each set; one row an intervention.
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
    // On the notebook's own model its six heads, whichever are outliers here.
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

/// Correlations over heads of a method's scores with the change of accuracy.
pub struct Correlations {
    /// What they are called.
    pub scores: &'static str,
    /// One an intervention.
    pub with_change: Vec<Option<f64>>,
}

impl Ablations {
    /// Change of the share of prompts on which the model says the answer, head by head.
    #[must_use]
    pub fn changes(&self, intervention: usize) -> Vec<f32> {
        let whole = self.whole.said.share();
        self.alone[intervention].iter().map(|without| (without.said.share() - whole) as f32).collect()
    }

    /// Of the difference of scores, and of each method's, with the change of accuracy; of the true attributions and the notebook's.
    #[must_use]
    pub fn correlations(&self, compared: &Compared) -> Vec<Correlations> {
        type Score = fn(&Compared, Head) -> f32;
        // The notebook takes the difference from its figure unscaled, some 1e-7: it is patching itself, but for rounding.
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

    /// Change of the share of prompts on which the model says the answer without one head.
    #[must_use]
    pub fn change(&self, intervention: usize, head: Head) -> Option<f32> {
        let at = self.heads.iter().position(|h| *h == head)?;
        self.changes(intervention).get(at).copied()
    }

    /// Whether the model gets the task right at all: if it does not, nothing can make it worse.
    #[must_use]
    pub fn means_nothing(&self) -> bool {
        self.whole.is_never_right()
    }

    /// Names of the heads.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.heads.iter().map(Head::to_string).collect()
    }
}
