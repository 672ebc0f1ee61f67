//! The notebook's own prompts, and its measurements on them.

use burn::tensor::backend::Backend;
use rewire_analysis::Outcome;
use rewire_analysis::heads::{Backup, CopyNorms, CopyScores, Inhibition, backup_heads, copy_scores, s2_inhibition};
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::path::{FreezePolicy, Input, Receiver, path_patching};
use rewire_analysis::run::{Direction, Question};
use rewire_circuits::mean_by_head;
use rewire_hooks::Head;
use rewire_model::{FinalNormGain, Transformer};
use rewire_tasks::ioi::Roles;
use rewire_tasks::{LogitDiff, PromptPair, PromptPairs, Tokenizer};
use serde::Deserialize;

use crate::{Setup, StudyError};

/// The prompts of the notebook's studies. notebook/README.md describes how they were drawn.
const STUDY: &str = include_str!("notebook/seed42.jsonl");
/// The prompts of the notebook's S2-inhibition cell.
const INHIBITION: &str = include_str!("notebook/seed1234.jsonl");

/// The notebook's name movers. The notebook ablates these heads and patches their queries.
pub(super) const MOVERS: [Head; 6] =
    [Head::new(8, 1), Head::new(8, 2), Head::new(8, 10), Head::new(9, 4), Head::new(9, 6), Head::new(10, 7)];
/// The notebook's head with a direct effect that does not copy. The notebook patches its values.
const DIRECT_INHIBITOR: [Head; 1] = [Head::new(8, 9)];
/// The notebook's S-inhibition heads. The notebook measures their S2-inhibition and patches their
/// values.
pub(super) const INHIBITORS: [Head; 2] = [Head::new(7, 4), Head::new(7, 6)];

#[derive(Deserialize)]
struct Line {
    clean: String,
    corrupt: String,
    io: String,
    s: String,
}

/// Prompts without BOS, with the positions of their names.
struct Prompts {
    pairs: PromptPairs,
    roles: Vec<Roles>,
}

impl Prompts {
    fn new(lines: &str, tokenizer: &Tokenizer) -> Result<Self, StudyError> {
        let (mut pairs, mut roles) = (Vec::new(), Vec::new());
        for line in lines.lines() {
            let line: Line = serde_json::from_str(line).map_err(|e| StudyError::Prompts(e.to_string()))?;
            let [io, s] = [&line.io, &line.s].map(|name| tokenizer.single_token(&format!(" {name}")));
            let (io, s) = (io?, s?);
            let clean = tokenizer.encode(&line.clean)?;
            let positions = |name: u32| clean.iter().enumerate().filter(move |(_, t)| **t == name).map(|(i, _)| i);
            let [s1, s2] = positions(s).collect::<Vec<_>>()[..] else {
                return Err(StudyError::Prompts(format!(
                    "the name {} does not occur exactly twice in {:?}",
                    line.s, line.clean
                )));
            };
            let first = positions(io).next();
            let first = first.ok_or_else(|| {
                StudyError::Prompts(format!("the name {} does not occur in {:?}", line.io, line.clean))
            })?;
            roles.push(Roles { io: first, s1, s2, end: clean.len() - 1 });
            let corrupted = tokenizer.encode(&line.corrupt)?;
            pairs.push(PromptPair { clean, corrupted, answers: vec![io], wrong_answers: vec![s] });
        }
        Ok(Self { pairs: PromptPairs::new(pairs)?, roles })
    }
}

/// The notebook's measurements, repeated on its own prompts.
pub(super) struct Measured {
    /// Mean clean and corrupted logit difference.
    pub(super) logit_differences: [f64; 2],
    pub(super) backup: Backup,
    pub(super) copying: CopyScores,
    /// S2-inhibition of [`INHIBITORS`].
    pub(super) inhibition: Vec<Inhibition>,
    /// Sums of the largest effects, as the notebook's bar charts print them.
    pub(super) totals: Totals,
}

/// Sums of the largest shares of each bar chart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Totals {
    /// Direct effects of the 15 heads that serve the behavior most, and of the 15 heads that work
    /// most against it.
    pub(super) direct: [f64; 2],
    /// Shares that the 15 strongest backups take over.
    pub(super) backup: f64,
    /// Effects of 10 heads through the movers' queries.
    pub(super) queries: f64,
    /// Effects of 10 heads through the direct inhibitor's values.
    pub(super) direct_values: f64,
    /// Effects of 10 heads through the inhibitors' values.
    pub(super) values: f64,
}

pub(super) fn measure<B: Backend>(
    model: &Transformer<B>,
    setup: &Setup,
    tokenizer: &Tokenizer,
) -> Result<Measured, StudyError> {
    let study = Prompts::new(STUDY, tokenizer)?;
    let inhibition = Prompts::new(INHIBITION, tokenizer)?;
    let execution = setup.execution(model, study.pairs.width().max(inhibition.pairs.width()));
    let metric = LogitDiff::new(&study.pairs);
    let into = |receivers: Vec<Receiver>| -> Result<Outcome, StudyError> {
        let heads = [NodeKind::all(Component::HeadZ)];
        let policy = FreezePolicy::path_patching();
        Ok(path_patching(
            model,
            Question::new(&study.pairs, &metric),
            &heads,
            &receivers,
            policy,
            Direction::Noising,
            &execution,
        )?
        .outcome)
    };
    let inputs = |input: Input, heads: &[Head]| {
        heads.iter().map(|head| Receiver::of_head(*head, input, model.config())).collect::<Vec<_>>()
    };
    let direct = into(vec![Receiver::new(model.config().n_layers - 1, Input::ResidPost)])?;
    let logit_differences = direct.baselines.means();
    let serving =
        |outcome: &Outcome, n: usize| sum_of_largest(mean_by_head(outcome, 0).iter().map(|effect| -effect), n);
    let backup = backup_heads(model, &study.pairs, &MOVERS, FinalNormGain::Applied, &execution)?;
    let totals = Totals {
        direct: [serving(&direct, 15), sum_of_largest(mean_by_head(&direct, 0).iter().copied(), 15)],
        backup: sum_of_largest(backup.taken_over().iter().copied(), 15),
        queries: serving(&into(inputs(Input::Q, &MOVERS))?, 10),
        direct_values: serving(&into(inputs(Input::V, &DIRECT_INHIBITOR))?, 10),
        values: serving(&into(inputs(Input::V, &INHIBITORS))?, 10),
    };
    let names: Vec<Vec<usize>> = study.roles.iter().map(|r| vec![r.io, r.s1, r.s2]).collect();
    Ok(Measured {
        logit_differences,
        totals,
        backup,
        copying: copy_scores(model, &study.pairs.clean(), &names, CopyNorms::Without, &execution)?,
        inhibition: s2_inhibition(model, &inhibition.pairs, &inhibition.roles, &INHIBITORS, &MOVERS, &execution)?,
    })
}

/// Returns the sum of the `n` largest numbers.
fn sum_of_largest(numbers: impl Iterator<Item = f32>, n: usize) -> f64 {
    let mut numbers: Vec<f32> = numbers.collect();
    numbers.sort_by(|a, b| b.total_cmp(a));
    numbers.into_iter().take(n).map(f64::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_sums_the_largest_bars_without_a_threshold() {
        assert_eq!(sum_of_largest([0.5, -2.0, 0.25, -0.5].into_iter(), 3), 0.25);
        assert_eq!(sum_of_largest([1.0].into_iter(), 15), 1.0);
    }

    #[test]
    fn prompts_match_the_printed_ones_of_the_generators_notebooks() {
        let lines = |text: &str| text.lines().map(|l| serde_json::from_str::<Line>(l).unwrap()).collect::<Vec<_>>();
        for text in [STUDY, INHIBITION] {
            let lines = lines(text);
            assert_eq!(lines.len(), 70);
            for Line { clean, corrupt, io, s } in lines {
                let count = |text: &str, name: &str| text.split([' ', ',']).filter(|word| *word == name).count();
                assert_eq!([count(&clean, &io), count(&clean, &s)], [1, 2], "{clean}");
                assert_eq!([count(&corrupt, &io), count(&corrupt, &s)], [2, 1], "{corrupt}");
            }
        }
        // dataset-test.ipynb in the notebook's repository prints this prompt and its flipped form.
        let first = &lines(STUDY)[0];
        assert_eq!(first.clean, "Then, Alex and Anthony had a lot of fun at the school. Anthony gave a ring to");
        assert_eq!(first.corrupt, "Then, Alex and Anthony had a lot of fun at the school. Alex gave a ring to");
    }
}
