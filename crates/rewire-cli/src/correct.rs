//! Whether the model does the task: on how many prompts it prefers an answer.

use burn::tensor::backend::Backend;
use rewire_analysis::heads::LOGIT_DIFF_BEFORE_CAP;
use rewire_analysis::run::unpatched_metric;
use rewire_analysis::{AnalysisError, Baselines, Outcome};
use rewire_model::Transformer;
use rewire_report::{describe_baselines, units};
use rewire_tasks::{Margin, PromptPairs};
use serde_json::{Value, json};

/// The meaning of "right", for pairs with wrong answers and for pairs without.
const RIGHT: [&str; 2] =
    ["an answer has a larger logit than every wrong answer", "an answer has a larger logit than every other token"];

/// The number of prompts on which the model is right: an answer has a larger logit than every wrong
/// answer where the metric reads. For a pair without wrong answers, it must be the largest logit of
/// all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Correct {
    /// Number of clean prompts on which the model is right.
    pub(crate) clean: usize,
    /// Number of corrupted prompts on which the model prefers an answer of the clean prompt.
    pub(crate) corrupted: usize,
    /// Number of prompt pairs.
    pub(crate) pairs: usize,
    /// The meaning of "right".
    right: &'static str,
}

impl Correct {
    /// Counts the prompts on which the model is right. `margin` reads the logits at the positions
    /// of the sweep's metric.
    ///
    /// If each pair has one answer and one wrong answer, the sign of the logit difference says it,
    /// and the baselines of a sweep of the logit difference suffice. Otherwise both prompts of
    /// each pair run once more, `prompt_batch` pairs at once. Returns `None` for answers of several
    /// tokens, which no single logit decides.
    pub(crate) fn count<B: Backend>(
        model: &Transformer<B>,
        pairs: &PromptPairs,
        margin: &Margin,
        outcome: &Outcome,
        prompt_batch: usize,
    ) -> Result<Option<Self>, AnalysisError> {
        if (0..pairs.len()).any(|pair| pairs.begun(pair) > 0) {
            return Ok(None);
        }
        let is_single = pairs.pairs().iter().all(|pair| pair.answers.len() == 1 && pair.wrong_answers.len() == 1);
        let margins = match outcome.metric {
            // A bound on the logits keeps the sign.
            "logit-diff" | LOGIT_DIFF_BEFORE_CAP if is_single => outcome.baselines.clone(),
            _ => unpatched_metric(model, pairs, margin, prompt_batch)?,
        };
        let right = RIGHT[usize::from(pairs.pairs().iter().any(|pair| pair.wrong_answers.is_empty()))];
        Ok(Some(Self::of_margins(&margins, right)))
    }

    /// Counts the margins above 0.
    fn of_margins(Baselines { clean, corrupted }: &Baselines, right: &'static str) -> Self {
        let [clean_right, corrupted_right] =
            [clean, corrupted].map(|margins| margins.iter().filter(|margin| **margin > 0.0).count());
        Self { clean: clean_right, corrupted: corrupted_right, pairs: clean.len(), right }
    }

    /// Returns the counts as a sentence, for the screen and the report.
    pub(crate) fn sentence(self) -> String {
        let Self { clean, corrupted, pairs, right } = self;
        let prompts = if pairs == 1 { "prompt" } else { "prompts" };
        format!(
            "The model is right on {clean} of {pairs} clean {prompts} and on {corrupted} of {pairs} corrupted {prompts} \
             ({right})."
        )
    }

    /// Returns a warning if the model is right on at most half of the clean prompts.
    pub(crate) fn doubt(self) -> Option<String> {
        let Self { clean, pairs, right, .. } = self;
        (2 * clean <= pairs).then(|| {
            format!(
                "the model is right on only {clean} of {pairs} clean prompts ({right}): it does not do the task, or the \
                 answers and wrong answers are exchanged"
            )
        })
    }

    /// Adds the counts to the baselines in `effects.json`.
    pub(crate) fn describe(self, baselines: &mut Value) {
        baselines["clean_correct"] = json!(self.clean);
        baselines["corrupted_correct"] = json!(self.corrupted);
        baselines["correct_means"] = json!(self.right);
    }
}

/// Returns the baselines of pairs of one answer and one wrong answer for `effects.json`: the logit
/// differences, and on how many prompts the model is right.
pub(crate) fn describe_logit_differences(baselines: &Baselines) -> Value {
    let mut described = describe_baselines(baselines);
    described["unit"] = json!(units::of_metric("logit-diff"));
    Correct::of_margins(baselines, RIGHT[0]).describe(&mut described);
    described
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logit_differences_above_zero_are_counted() {
        let baselines = Baselines { clean: vec![0.5, 2.0, -0.1], corrupted: vec![-1.0, 0.2, -3.0] };
        let described = describe_logit_differences(&baselines);
        assert_eq!([&described["clean_correct"], &described["corrupted_correct"]], [2, 1]);
        assert_eq!([&described["unit"], &described["correct_means"]], ["logits", RIGHT[0]]);
        assert_eq!(described["clean"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn a_tie_is_not_right_and_half_of_the_prompts_is_doubtful() {
        let count = |clean: &[f32]| {
            let baselines = Baselines { clean: clean.to_vec(), corrupted: vec![-1.0; clean.len()] };
            Correct::of_margins(&baselines, RIGHT[0])
        };
        let half = count(&[0.5, 0.0, -0.1, 2.0]);
        assert_eq!([half.clean, half.corrupted, half.pairs], [2, 0, 4]);
        assert!(half.doubt().unwrap().contains("right on only 2 of 4 clean prompts"));
        assert_eq!(count(&[0.5, 0.0, 0.1, 2.0]).doubt(), None);
        assert!(half.sentence().starts_with("The model is right on 2 of 4 clean prompts and on 0 of 4 corrupted"));
    }
}
