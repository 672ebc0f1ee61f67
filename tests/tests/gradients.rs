//! Gradients at every hook point against central finite differences, in float64 so that the differences are exact enough.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use burn_ndarray::NdArray;
use rewire_hooks::{GradientProbes, Hook, HookPoint, Recorder};
use rewire_model::{Run, Transformer, TransformerConfig};

type Double = NdArray<f64>;

/// Adds `step` times a fixed direction at one point.
struct Nudge {
    point: HookPoint,
    step: f64,
}

/// A fixed direction without structure.
fn direction(len: usize) -> Vec<f64> {
    (0..len).map(|i| (1.7 * i as f64 + 0.3).sin()).collect()
}

impl<B: Backend> Hook<B> for Nudge {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        if point != self.point {
            return activation;
        }
        let dims = activation.dims();
        let along = TensorData::new(direction(dims.iter().product()), dims);
        let along = Tensor::<B, D>::from_data(along, &activation.device());
        activation + along * self.step
    }
}

/// A loss that every logit of every position matters to, and not linearly.
fn loss<B: Backend>(model: &Transformer<B>, hook: impl Hook<B>) -> Tensor<B, 1> {
    let tokens = model.tokens(&[vec![3, 1, 4, 1, 5], vec![9, 2, 6, 5, 3]]).unwrap();
    let logits = model.forward(Run::tokens(tokens), hook).unwrap();
    (logits * 0.5).sin().sum()
}

#[test]
fn gradients_are_the_limits_of_differences_at_every_hook_point() {
    for config in [TransformerConfig::gpt2(2, 2, 16, 11, 8), TransformerConfig::neox(2, 2, 16, 11, 8)] {
        let device = Default::default();
        let model = Transformer::<Autodiff<Double>>::random(&config, 3, &device);
        let inner = model.valid();

        let mut recorder = Recorder::<Double>::all();
        loss(&inner, &mut recorder);
        let points: Vec<HookPoint> = recorder.into_cache().points().collect();

        let mut probes = GradientProbes::all();
        let value = loss(&model, &mut probes);
        let gradients = probes.gradients(&value);
        assert_eq!(gradients.points().collect::<Vec<_>>(), points, "not every point was probed");

        for point in points {
            let gradient: Vec<f64> = match point.rank() {
                4 => gradients.get::<4>(point).unwrap().into_data().iter::<f64>().collect(),
                _ => gradients.get::<3>(point).unwrap().into_data().iter::<f64>().collect(),
            };
            let analytic: f64 = gradient.iter().zip(direction(gradient.len())).map(|(g, d)| g * d).sum();
            let step = 1e-5;
            let at = |step: f64| loss(&inner, Nudge { point, step }).into_data().iter::<f64>().sum::<f64>();
            let numeric = (at(step) - at(-step)) / (2.0 * step);
            let size = gradient.iter().map(|g| g.abs()).sum::<f64>().max(1e-3);
            let error = (analytic - numeric).abs() / size;
            assert!(error < 1e-6, "{:?} {point}: {analytic} but differences give {numeric}", config.architecture);
            assert!(gradient.iter().any(|g| *g != 0.0), "{point} has no gradient");
        }
    }
}
