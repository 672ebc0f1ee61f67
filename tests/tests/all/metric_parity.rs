//! Effects of heads match TransformerLens under metrics other than one logit difference at END:
//! sets of answers, answers of several tokens, and another position.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use ndarray::{ArrayD, Axis, aview1, stack};
use rewire_analysis::attribution::attribution_patching;
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Execution};
use rewire_model::{Transformer, WeightProcessing};
use rewire_tasks::{
    BuiltinMetric, LogProbability, LogitDiff, MetricPosition, ProbabilityDifference, PromptPairs, WholeAnswers,
};
use rewire_tests::asked;
use rewire_tests::compare::{Tolerance, assert_within, scale};
use rewire_tests::fixture::{Arrays, Fixture, tensors};
use rewire_tests::on_every_backend;

on_every_backend!(effects_under_further_metrics_match_transformer_lens);

/// Relative to the largest metric or effect of a table, whose numbers are float32 differences of
/// metrics of that size. TransformerLens itself differs by 8.5e-7 between float32 and float64.
const TOLERANCE: f32 = 4e-6;

/// Returns the tables that `metrics.py` computes.
fn tables(fixture: &Fixture) -> Option<Arrays> {
    let path = fixture.pairs_file().with_file_name("metrics.safetensors");
    assert!(path.is_file() || !fixture.is_own(), "{} is missing", path.display());
    path.is_file().then(|| tensors(&path))
}

/// Returns the pairs with the answers in a table `[row, token]`, in which -1 ends an answer.
fn whole(pairs: &PromptPairs, answers: &ArrayD<f32>) -> PromptPairs {
    let whole = pairs.pairs().iter().zip(answers.outer_iter()).map(|(pair, answer)| WholeAnswers {
        clean: pair.clean.clone(),
        corrupted: pair.corrupted.clone(),
        answers: vec![answer.iter().filter(|token| **token >= 0.0).map(|&token| token as u32).collect()],
    });
    PromptPairs::with_whole_answers(&whole.collect::<Vec<_>>()).unwrap()
}

fn effects_under_further_metrics_match_transformer_lens<B: Backend>() {
    for fixture in Fixture::all() {
        let Some(tables) = tables(&fixture) else { continue };
        let model: Transformer<Autodiff<B>> = fixture.model(WeightProcessing::default());
        let pairs = fixture.pairs_of(&model, "metrics_pairs.jsonl");
        let whole = whole(&pairs, &tables["whole_answers"]);
        let marked = MetricPosition::Marked.of(&pairs).unwrap();
        let metrics = [
            ("prob_diff", &pairs, BuiltinMetric::ProbabilityDifference(ProbabilityDifference::new(&pairs))),
            ("logit_diff", &pairs, BuiltinMetric::LogitDiff(LogitDiff::new(&pairs))),
            ("log_prob", &whole, BuiltinMetric::LogProbability(LogProbability::new(&whole))),
            ("elsewhere", &pairs, BuiltinMetric::LogitDiff(LogitDiff::new(&pairs).at(marked))),
        ];
        for (name, pairs, metric) in &metrics {
            let values = &tables[&format!("{name}/values")];
            let (question, heads, run) =
                (asked(pairs, metric), [NodeKind::all(Component::HeadZ)], Execution::default());
            let patched = |direction| activation_patching(&model.valid(), question, &heads, direction, &run).unwrap();
            let estimated = attribution_patching(&model, question, &heads, Direction::Denoising, &run).unwrap();
            let outcomes =
                [("act", patched(Direction::Denoising)), ("noising", patched(Direction::Noising)), ("attr", estimated)];
            for (tag, outcome) in outcomes {
                let what = format!("{} {name}/{tag}", fixture.name);
                let expected = &tables[&format!("{name}/{tag}")];
                let tolerance = Tolerance::from(TOLERANCE * scale(values).max(scale(expected))).on::<B>();
                assert!(scale(expected) > 1e3 * tolerance.absolute, "{what}: the effects are too small to compare");
                assert_within(&outcome.effects[0].values, expected, tolerance, &what);
                let found = [&outcome.baselines.clean, &outcome.baselines.corrupted].map(|values| aview1(values));
                let found = stack(Axis(0), &found).unwrap().into_dyn();
                assert_within(&found, values, tolerance, &format!("{what}: unpatched"));
            }
        }
    }
}
