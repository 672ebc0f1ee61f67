//! One device against another: every method finds the same on the backend that `REWIRE_DEVICE` names as on flex.

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use rewire_analysis::{Options, PathIntegral};
use rewire_model::{Transformer, WeightProcessing};
use rewire_tests::compare::{assert_close, scale, tolerance};
use rewire_tests::fixture::Fixture;
use rewire_tests::methods::every_effect;
use rewire_tests::on_every_backend;

on_every_backend!(every_effect_is_flexs);

fn every_effect_is_flexs<B: Backend>() {
    for fixture in Fixture::all() {
        let of_flex: Transformer<Autodiff<burn_flex::Flex>> = fixture.model(WeightProcessing::default());
        let of_other: Transformer<Autodiff<B>> = fixture.model(WeightProcessing::default());
        let pairs = fixture.pairs(&of_flex);
        let expected = every_effect(&of_flex, &pairs, &PathIntegral::default(), &Options::default());
        // As much at once as the device has room for, where it can be asked.
        let options = Options::default().fitted(&of_other, pairs.width(), None);
        let found = every_effect(&of_other, &pairs, &PathIntegral::default(), &options);
        assert!(expected.len() > 40, "only {} tables", expected.len());
        for ((name, expected), (_, found)) in expected.iter().zip(&found) {
            let within = tolerance::<B>() * scale(expected).max(1.0);
            assert_close(found, expected, within, &format!("{} {name}", fixture.name));
        }
    }
}
