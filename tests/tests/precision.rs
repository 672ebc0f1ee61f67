//! Weights and activations of bfloat16: every method runs, in the numbers that it promises, and near float32.

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::tensor::DType;
use ndarray::ArrayD;
use rewire_analysis::{CopyNorms, Options, PathIntegral, copy_scores};
use rewire_device::Precision;
use rewire_hooks::{HookPoint, NormSite, Recorder, Site};
use rewire_model::{Run, Transformer, WeightProcessing};
use rewire_tests::fixture::Fixture;
use rewire_tests::methods::every_effect;

type Tracked = Autodiff<Flex>;

fn both(fixture: &Fixture) -> [Transformer<Tracked>; 2] {
    [Precision::Float32, Precision::BFloat16]
        .map(|precision| fixture.model::<Tracked>(WeightProcessing::default()).in_precision(precision))
}

#[test]
fn activations_are_of_the_numbers_that_are_promised() {
    for fixture in Fixture::all() {
        let [_, model] = both(&fixture);
        let model = model.valid();
        assert_eq!(model.precision(), Precision::BFloat16);
        let pairs = fixture.pairs(&model);
        let mut recorder = Recorder::all();
        let logits = model.forward(Run::tokens(model.tokens(&pairs.clean()).unwrap()), &mut recorder).unwrap();
        assert_eq!(logits.dtype(), DType::F32);
        let cache = recorder.into_cache();
        for point in cache.points() {
            let full = match point {
                HookPoint::FinalNorm(NormSite::Scale | NormSite::Normalized) => true,
                other => other.site().is_some_and(|site| {
                    matches!(site, Site::Ln1Scale | Site::Ln2Scale | Site::AttnScores | Site::Pattern)
                }),
            };
            let dtype = match point.rank() {
                4 => cache.get::<4>(point).unwrap().dtype(),
                _ => cache.get::<3>(point).unwrap().dtype(),
            };
            assert_eq!(dtype == DType::F32, full, "{}: {point} is of {dtype:?}", fixture.name);
        }
    }
}

/// Alike as vectors, for small ones among large are noise; and not the same, else nothing was in shorter numbers.
#[test]
fn every_method_runs_near_float32() {
    for fixture in Fixture::all() {
        let models = both(&fixture);
        let pairs = fixture.pairs(&models[0]);
        // Gradients of 8 bits do not sum to the change of the metric to within a hundredth.
        let integral = PathIntegral { tolerance: 0.5, ..PathIntegral::default() };
        let [full, short] = models.each_ref().map(|m| every_effect(m, &pairs, &integral, &Options::default()));
        for ((name, full), (_, short)) in full.iter().zip(&short) {
            assert_eq!(full.shape(), short.shape(), "{name}");
            let dot = |a: &ArrayD<f32>, b: &ArrayD<f32>| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let [of_full, of_short] = [dot(full, full), dot(short, short)];
            let what = format!("{} {name}", fixture.name);
            assert!(of_full > 0.0 && of_short > 0.0, "{what}: nothing was found");
            let cosine = dot(full, short) / (of_full * of_short).sqrt();
            // What one path carries is small against the stream that it is added to, which has 8 bits.
            let least = if name.starts_with("path patching") { 0.95 } else { 0.99 };
            assert!(cosine > least, "{what}: {cosine}");
            assert!(full != short, "{what}: the same numbers");
        }
        let model = models[1].valid();
        let names: Vec<Vec<usize>> = pairs.pairs().iter().map(|_| vec![1, 2]).collect();
        let copied = copy_scores(&model, &pairs.clean(), &names, CopyNorms::With, &Options::default()).unwrap();
        assert!(copied.positive.iter().all(|score| (0.0..=100.0).contains(score)), "{:?}", copied.positive);
    }
}
