//! Metrics against what they are by definition, and their gradients against differences.

use approx::assert_abs_diff_eq;
use burn::backend::Autodiff;
use burn::tensor::{Tensor, TensorData};
use burn_ndarray::NdArray;
use rewire_tasks::{
    Accuracy, BuiltinMetric, KlDivergence, LogitDiff, Metric, Normalisation, Probability, PromptPair, PromptPairs,
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

/// The metric of logits over the whole vocabulary, of which it is given what it reads.
fn value(metric: &BuiltinMetric, logits: &[f64]) -> Vec<f64> {
    let columns = metric.reads().columns.unwrap_or_else(|| (0..VOCABULARY).collect());
    let read: Vec<f64> = logits.chunks(VOCABULARY).flat_map(|row| columns.iter().map(|&c| row[c])).collect();
    let read = Tensor::<Double, 2>::from_data(TensorData::new(read, [2, columns.len()]), &Default::default());
    metric.evaluate(read, &[0, 1]).into_data().iter::<f64>().collect()
}

fn all() -> [BuiltinMetric; 4] {
    let reference = LOGITS.map(|row| row.iter().rev().map(|v| *v as f32).collect::<Vec<_>>());
    [
        BuiltinMetric::LogitDiff(LogitDiff::new(&pairs())),
        BuiltinMetric::Probability(Probability::new(&pairs())),
        BuiltinMetric::KlDivergence(KlDivergence::new(&pairs(), &reference)),
        BuiltinMetric::Accuracy(Accuracy::new(&pairs())),
    ]
}

#[test]
fn metrics_are_what_they_are_by_definition() {
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
fn gradients_of_metrics_are_limits_of_differences() {
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
fn baselines_that_coincide_cannot_normalise() {
    assert!(Normalisation::new(1.5, 1.5).is_err());
    assert!(Normalisation::new(f64::NAN, 1.0).is_err());
    assert!(Normalisation::new(1000.0, 1000.0001).is_err(), "float32 does not tell these apart");
    let scale = Normalisation::new(3.0, -1.0).unwrap();
    assert_eq!([scale.scale(4.0), scale.scale(-1.0)], [1.0, -0.25]);
}
