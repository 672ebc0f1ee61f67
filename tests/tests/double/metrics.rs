//! Compares metrics with their definitions, and their gradients with finite differences.

use approx::assert_abs_diff_eq;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Tensor, TensorData};
use burn_ndarray::NdArray;
use rewire_tasks::{
    Accuracy, AtClean, BuiltinMetric, KlDivergence, LogProbability, LogitDiff, Metric, Normalization, Probability,
    ProbabilityDifference, PromptPair, PromptPairs, WholeAnswers,
};

type Double = NdArray<f64>;

const VOCABULARY: usize = 5;

fn pairs() -> PromptPairs {
    let pair = |answers: Vec<u32>, wrong_answers: Vec<u32>| PromptPair {
        clean: vec![0, 1],
        corrupted: vec![0, 2],
        answers,
        wrong_answers,
    };
    PromptPairs::new(vec![pair(vec![3], vec![1]), pair(vec![0, 4], vec![2, 1])]).unwrap()
}

const LOGITS: [[f64; VOCABULARY]; 2] = [[0.1, -0.4, 1.2, 0.7, 0.0], [2.0, 0.3, -1.0, 0.5, 0.9]];

/// Returns the metric of logits `[row, vocabulary]`. The metric gets only the columns that it
/// reads.
fn value(metric: &BuiltinMetric, logits: &[f64]) -> Vec<f64> {
    let columns = metric.reads().columns.unwrap_or_else(|| (0..VOCABULARY).collect());
    let read: Vec<f64> = logits.chunks(VOCABULARY).flat_map(|row| columns.iter().map(|&c| row[c])).collect();
    let read = Tensor::<Double, 2>::from_data(TensorData::new(read, [2, columns.len()]), &Default::default());
    metric.evaluate(read, &[0, 1]).into_data().iter::<f64>().collect()
}

fn all() -> [BuiltinMetric; 6] {
    let reference = LOGITS.map(|row| row.iter().rev().map(|v| *v as f32).collect::<Vec<_>>());
    [
        BuiltinMetric::LogitDiff(LogitDiff::new(&pairs())),
        BuiltinMetric::Probability(Probability::new(&pairs())),
        BuiltinMetric::ProbabilityDifference(ProbabilityDifference::new(&pairs())),
        BuiltinMetric::LogProbability(LogProbability::new(&pairs())),
        BuiltinMetric::KlDivergence(KlDivergence::new(&pairs(), &reference)),
        BuiltinMetric::Accuracy(Accuracy::new(&pairs())),
    ]
}

#[test]
fn metrics_match_their_definitions() {
    let softmax = |row: &[f64]| {
        let total: f64 = row.iter().map(|l| l.exp()).sum();
        row.iter().map(|l| l.exp() / total).collect::<Vec<_>>()
    };
    let [p, q] = LOGITS.map(|row| softmax(&row));
    let kl = |row: &[f64]| {
        let reference: Vec<f64> = softmax(&row.iter().rev().copied().collect::<Vec<_>>());
        reference.iter().zip(softmax(row)).map(|(r, s)| r * (r / s).ln()).sum::<f64>()
    };
    let expected = [
        [0.7 + 0.4, (2.0 + 0.9) / 2.0 - (-1.0 + 0.3) / 2.0],
        [p[3], q[0] + q[4]],
        [p[3] - p[1], q[0] + q[4] - q[2] - q[1]],
        [p[3].ln(), (q[0] + q[4]).ln()],
        [kl(&LOGITS[0]), kl(&LOGITS[1])],
        [0.0, 1.0],
    ];
    for (metric, expected) in all().iter().zip(expected) {
        for (got, expected) in value(metric, LOGITS.as_flattened()).into_iter().zip(expected) {
            assert_abs_diff_eq!(got, expected, epsilon = 1e-6);
        }
    }
}

#[test]
fn metric_gradients_match_finite_differences() {
    for metric in all() {
        let columns = metric.reads().columns.unwrap_or_else(|| (0..VOCABULARY).collect());
        let read: Vec<f64> = LOGITS.iter().flat_map(|row| columns.iter().map(|&c| row[c])).collect();
        let data = TensorData::new(read, [2, columns.len()]);
        let logits = Tensor::<Autodiff<Double>, 2>::from_data(data, &Default::default()).require_grad();
        let sum = metric.evaluate(logits.clone(), &[0, 1]).sum();
        if !metric.is_differentiable() {
            assert_eq!(metric.name(), "accuracy");
            continue;
        }
        let gradient: Vec<f64> = logits.grad(&sum.backward()).unwrap().into_data().iter::<f64>().collect();
        for (i, analytic) in gradient.into_iter().enumerate() {
            let (row, column) = (i / columns.len(), columns[i % columns.len()]);
            let at = |step: f64| {
                let mut logits = LOGITS;
                logits[row][column] += step;
                value(&metric, logits.as_flattened()).iter().sum::<f64>()
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert_abs_diff_eq!(analytic, numeric, epsilon = 1e-6);
        }
    }
}

#[test]
fn a_logit_difference_weighs_answer_sets_of_unequal_sizes_the_same() {
    let pair = PromptPair { clean: vec![0], corrupted: vec![1], answers: vec![2, 0, 3], wrong_answers: vec![4] };
    let one_wrong = PromptPairs::new(vec![pair.clone(), PromptPair { wrong_answers: vec![4, 1], ..pair }]).unwrap();
    let metric = BuiltinMetric::LogitDiff(LogitDiff::new(&one_wrong));
    let [a, b] = LOGITS;
    let expected = [(a[2] + a[0] + a[3]) / 3.0 - a[4], (b[2] + b[0] + b[3]) / 3.0 - (b[4] + b[1]) / 2.0];
    let shifted = LOGITS.map(|row| row.map(|logit| logit + 7.0));
    for logits in [LOGITS, shifted] {
        for (got, expected) in value(&metric, logits.as_flattened()).into_iter().zip(expected) {
            assert_abs_diff_eq!(got, expected, epsilon = 1e-6);
        }
    }
}

/// Pairs with answers of three tokens, of one token, and of two tokens with another last token.
fn whole_answers() -> PromptPairs {
    let pair = |answers: &[&[u32]]| WholeAnswers {
        clean: vec![0, 1],
        corrupted: vec![0, 2],
        answers: answers.iter().map(|answer| answer.to_vec()).collect(),
    };
    PromptPairs::with_whole_answers(&[pair(&[&[3, 1, 4]]), pair(&[&[2]]), pair(&[&[0, 1], &[0, 4], &[0, 1]])]).unwrap()
}

/// The logits of the three pairs at the three positions that the metric reads. Where an answer has
/// fewer tokens, the last position comes again.
const OF_WHOLE_ANSWERS: [[f64; VOCABULARY]; 9] = [
    [0.1, -0.4, 1.2, 0.7, 0.0],
    [2.0, 0.3, -1.0, 0.5, 0.9],
    [-0.6, 1.4, 0.2, -0.1, 0.8],
    [1.1, 0.0, -0.3, 0.6, -2.0],
    [1.1, 0.0, -0.3, 0.6, -2.0],
    [1.1, 0.0, -0.3, 0.6, -2.0],
    [0.4, 0.9, -0.7, 1.3, 0.2],
    [-1.2, 0.5, 0.1, 0.3, 1.6],
    [-1.2, 0.5, 0.1, 0.3, 1.6],
];

#[test]
fn the_log_probability_of_whole_answers_matches_its_definition_and_its_gradient_finite_differences() {
    let metric = LogProbability::new(&whole_answers());
    assert_eq!((metric.positions_per_prompt(), metric.reads().columns), (3, None));
    assert_eq!(metric.reads().positions, [1, 2, 3, 1, 1, 1, 1, 2, 2]);
    let evaluate = |logits: &[[f64; VOCABULARY]]| -> Vec<f64> {
        let data = TensorData::new(logits.as_flattened().to_vec(), [9, VOCABULARY]);
        let logits = Tensor::<Double, 2>::from_data(data, &Default::default());
        metric.evaluate(logits, &[0, 1, 2]).into_data().iter::<f64>().collect()
    };
    let log = |row: usize, tokens: &[usize]| {
        let row = OF_WHOLE_ANSWERS[row];
        let total: f64 = row.iter().map(|logit| logit.exp()).sum();
        (tokens.iter().map(|&token| row[token].exp()).sum::<f64>() / total).ln()
    };
    let expected = [log(0, &[3]) + log(1, &[1]) + log(2, &[4]), log(3, &[2]), log(6, &[0]) + log(7, &[1, 4])];
    for (got, expected) in evaluate(&OF_WHOLE_ANSWERS).into_iter().zip(expected) {
        assert_abs_diff_eq!(got, expected, epsilon = 1e-12);
    }
    let data = TensorData::new(OF_WHOLE_ANSWERS.as_flattened().to_vec(), [9, VOCABULARY]);
    let logits = Tensor::<Autodiff<Double>, 2>::from_data(data, &Default::default()).require_grad();
    let gradients = metric.evaluate(logits.clone(), &[0, 1, 2]).sum().backward();
    let gradient: Vec<f64> = logits.grad(&gradients).unwrap().into_data().iter::<f64>().collect();
    for (i, analytic) in gradient.into_iter().enumerate() {
        let at = |step: f64| {
            let mut logits = OF_WHOLE_ANSWERS;
            logits[i / VOCABULARY][i % VOCABULARY] += step;
            evaluate(&logits).iter().sum::<f64>()
        };
        assert_abs_diff_eq!(analytic, (at(1e-5) - at(-1e-5)) / 2e-5, epsilon = 1e-6);
    }
    // Rows may be any prompts, in any order.
    let rows: Vec<[f64; VOCABULARY]> = [6, 7, 8, 0, 1, 2].map(|row| OF_WHOLE_ANSWERS[row]).to_vec();
    let data = TensorData::new(rows.as_flattened().to_vec(), [6, VOCABULARY]);
    let logits = Tensor::<Double, 2>::from_data(data, &Default::default());
    let found: Vec<f64> = metric.evaluate(logits, &[2, 0]).into_data().iter::<f64>().collect();
    for (found, expected) in found.into_iter().zip([expected[2], expected[0]]) {
        assert_abs_diff_eq!(found, expected, epsilon = 1e-12);
    }
}

#[test]
fn the_rounding_bound_of_whole_answers_covers_the_error_of_float32() {
    let metric = LogProbability::new(&whole_answers());
    for size in [0.01, 1.0, 10.0, 40.0] {
        let logits: Vec<f32> = OF_WHOLE_ANSWERS.as_flattened().iter().map(|logit| (logit * size) as f32).collect();
        let short = Tensor::<Flex, 2>::from_data(TensorData::new(logits.clone(), [9, VOCABULARY]), &Default::default());
        let exact: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
        let exact = Tensor::<Double, 2>::from_data(TensorData::new(exact, [9, VOCABULARY]), &Default::default());
        let exact: Vec<f64> = metric.evaluate(exact, &[0, 1, 2]).into_data().iter::<f64>().collect();
        let bounds: Vec<f32> = metric.rounding(short.clone(), &[0, 1, 2]).into_data().iter::<f32>().collect();
        let found: Vec<f32> = metric.evaluate(short, &[0, 1, 2]).into_data().iter::<f32>().collect();
        for ((found, exact), bound) in found.into_iter().zip(exact).zip(bounds) {
            let error = (f64::from(found) - exact).abs();
            assert!(error <= f64::from(bound), "{error:e} of {bound:e}");
            assert!(bound < 1e-4 * (1.0 + exact.abs() as f32), "{bound:e} says nothing about {exact}");
        }
    }
}

#[test]
fn metrics_of_logits_that_are_not_finite_are_not_finite() {
    // Every metric here reads columns 1 and 3.
    for (metric, wrong) in
        all().iter().flat_map(|m| [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|wrong| (m, wrong)))
    {
        let mut logits = LOGITS;
        (logits[0][1], logits[1][3]) = (wrong, 0.5);
        let [first, second] = value(metric, logits.as_flattened())[..] else { panic!("a number a row") };
        // A token with a logit of -inf has probability 0.
        let of_probability = ["probability", "prob-diff", "log-prob"].contains(&metric.name());
        let may_be_finite = of_probability && wrong == f64::NEG_INFINITY;
        assert!(!first.is_finite() || may_be_finite, "{} of {wrong} is {first}", metric.name());
        assert!(second.is_finite(), "{}: one row spoils another", metric.name());
    }
}

#[test]
fn only_a_kl_divergence_from_the_clean_run_is_stationary_on_it() {
    let reference = LOGITS.map(|row| row.map(|v| v as f32).to_vec());
    assert_eq!(BuiltinMetric::KlDivergence(KlDivergence::new(&pairs(), &reference)).at_clean(), AtClean::Stationary);
    assert_eq!(KlDivergence::from_reference(&pairs(), &reference).at_clean(), AtClean::Varies);
    let varying = all().into_iter().filter(|metric| metric.name() != "kl");
    assert!(varying.into_iter().all(|metric| metric.at_clean() == AtClean::Varies));
    // At its own reference, the gradient with respect to every logit is 0 up to the rounding of the
    // reference to float32.
    let metric = KlDivergence::new(&pairs(), &reference);
    let data = TensorData::new(LOGITS.as_flattened().to_vec(), [2, VOCABULARY]);
    let logits = Tensor::<Autodiff<Double>, 2>::from_data(data, &Default::default()).require_grad();
    let gradients = metric.evaluate(logits.clone(), &[0, 1]).sum().backward();
    let gradient: Vec<f64> = logits.grad(&gradients).unwrap().into_data().iter::<f64>().collect();
    assert!(gradient.iter().all(|g| g.abs() < 1e-6), "{gradient:?}");
}

#[test]
fn equal_baselines_cannot_normalize() {
    assert!(Normalization::new(1.5, 1.5).is_err());
    assert!(Normalization::new(f64::NAN, 1.0).is_err());
    assert!(Normalization::new(1000.0, 1000.0001).is_err(), "float32 does not tell these apart");
    let scale = Normalization::new(3.0, -1.0).unwrap();
    assert_eq!([scale.scale(4.0), scale.scale(-1.0)], [1.0, -0.25]);
}

/// Returns `n` numbers between -1 and 1 from a linear congruential generator.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

#[test]
fn rounding_bounds_of_metrics_are_tight() {
    const ROWS: usize = 40;
    for columns in [64, 4096] {
        let pair = PromptPair { clean: vec![0], corrupted: vec![1], answers: vec![3, 5], wrong_answers: vec![1] };
        let pairs = PromptPairs::new(vec![pair; ROWS]).unwrap();
        let reference: Vec<Vec<f32>> =
            (0..ROWS).map(|row| noise(columns, row as u64).iter().map(|v| 12.0 * v).collect()).collect();
        // The logits range from very near the reference to far from it.
        let run = |row: usize| {
            let reach = 10_f32.powf(row as f32 / 10.0 - 3.5);
            let moves = noise(columns, 1000 + row as u64);
            reference[row].iter().zip(moves).map(|(l, v)| l + reach * v).collect::<Vec<f32>>()
        };
        let logits: Vec<Vec<f32>> = (0..ROWS).map(run).collect();
        let log_softmax = |row: &[f32]| {
            let total: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
            row.iter().map(|&l| f64::from(l) - total.ln()).collect::<Vec<_>>()
        };
        let kl = |row: usize| -> f64 {
            let both = log_softmax(&reference[row]).into_iter().zip(log_softmax(&logits[row]));
            both.map(|(p, q)| p.exp() * (p - q)).sum()
        };
        let difference = |row: usize| {
            let at = |column: usize| f64::from(logits[row][column]);
            (at(3) + at(5)) / 2.0 - at(1)
        };
        let probability = |row: usize| {
            let log_q = log_softmax(&logits[row]);
            log_q[3].exp() + log_q[5].exp()
        };
        let probability_difference = |row: usize| {
            let log_q = log_softmax(&logits[row]);
            log_q[3].exp() + log_q[5].exp() - log_q[1].exp()
        };
        let log_probability = |row: usize| probability(row).ln();
        let metrics: [(BuiltinMetric, &dyn Fn(usize) -> f64); 5] = [
            (BuiltinMetric::KlDivergence(KlDivergence::new(&pairs, &reference)), &kl),
            (BuiltinMetric::LogitDiff(LogitDiff::new(&pairs)), &difference),
            (BuiltinMetric::Probability(Probability::new(&pairs)), &probability),
            (BuiltinMetric::LogProbability(LogProbability::new(&pairs)), &log_probability),
            (BuiltinMetric::ProbabilityDifference(ProbabilityDifference::new(&pairs)), &probability_difference),
        ];
        for (metric, exact) in metrics {
            let read = metric.reads().columns.unwrap_or_else(|| (0..columns).collect());
            let data: Vec<f32> = logits.iter().flat_map(|row| read.iter().map(|&c| row[c])).collect();
            let data = TensorData::new(data, [ROWS, read.len()]);
            let tensor = Tensor::<Flex, 2>::from_data(data, &Default::default());
            let prompts: Vec<usize> = (0..ROWS).collect();
            let found: Vec<f32> = metric.evaluate(tensor.clone(), &prompts).into_data().iter::<f32>().collect();
            let roundings: Vec<f32> = metric.rounding(tensor, &prompts).into_data().iter::<f32>().collect();
            let errors: Vec<f64> = (0..ROWS).map(|row| (f64::from(found[row]) - exact(row)).abs()).collect();
            for (row, (error, rounding)) in errors.iter().zip(&roundings).enumerate() {
                let name = metric.name();
                assert!(
                    *error <= f64::from(*rounding),
                    "{name}, {columns} columns, row {row}: {error:e} of {rounding:e}"
                );
            }
            let sum: f32 = roundings.iter().sum();
            // The bound assumes that a sum over columns rounds at random sqrt(columns) times. If
            // few columns contribute, that is far too much.
            assert!(f64::from(sum) < 500.0 * errors.iter().sum::<f64>(), "{}, {columns} columns", metric.name());
        }
    }
}
