//! Correlations with activation patching over many generated pairs: one pair says little, and differs from the next.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use ndarray::{Array2, Axis};
use rewire_analysis::{
    Bootstrap, Direction, Effects, Options, PathIntegral, Quadrature, Scale, activation_patching, integrated_gradients,
    literal_first_node, pearson,
};
use rewire_model::Transformer;
use rewire_tasks::{LogitDiff, PromptPairs};

use super::analyse::KINDS;
use crate::compute::options;
use crate::progress::with_bar;

/// The figures that are correlated with patching, and the difference of both.
pub(super) const FIGURES: [&str; 3] = ["one gradient", "integral", "integral less one gradient"];
/// Pairs from which on an interval is given instead of the range.
const FEWEST: usize = 5;

/// Pearson's correlations over the nodes of each pair.
pub(super) struct Averaged {
    /// Pairs that were run.
    pub(super) n: usize,
    /// Seed of the generated pairs and of the bootstrap.
    pub(super) seed: u64,
    /// `[pair, figure]` of each of [`KINDS`]; pairs on which a method gives every node the same score have no correlation and are
    /// left out.
    pub(super) correlations: [Array2<f32>; 2],
}

/// The mean of one figure over pairs, with its 95% bootstrap interval or, for fewer than five pairs, the range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mean {
    pub(super) mean: f32,
    pub(super) ends: [f32; 2],
    pub(super) is_interval: bool,
}

/// Patching, the notebook's one gradient and the integral on each pair, to the corrupted baseline.
pub(super) fn averaged<B: AutodiffBackend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    seed: u64,
    integral: &PathIntegral<B::InnerBackend>,
) -> anyhow::Result<Averaged> {
    let metric = LogitDiff::new(pairs);
    let kinds = KINDS.map(|(kind, _)| kind);
    let options = Options { direction: Direction::Noising, scale: Scale::Metric, ..options(model, pairs.width()) };
    let exact = with_bar("generated pairs: activation patching", |progress| {
        activation_patching(&model.valid(), pairs, &metric, &kinds, &Options { progress, ..options })
    })?;
    let integrated = with_bar("generated pairs: integrated gradients", |progress| {
        integrated_gradients(model, pairs, &metric, &kinds, integral, &Options { progress, ..options })
    })?;
    let of_notebook = PathIntegral { quadrature: Quadrature::default(), ..integral.clone() };
    let literal = literal_first_node(model, pairs, &metric, &kinds, &of_notebook, &options)?;
    let correlations = [0, 1].map(|kind| {
        let figures = [&literal.outcome.effects[kind], &integrated.outcome.effects[kind]];
        correlations(&exact.effects[kind], figures)
    });
    Ok(Averaged { n: pairs.len(), seed, correlations })
}

/// `[pair, figure]`: of the two figures with the exact effects, and the second less the first.
fn correlations(exact: &Effects, figures: [&Effects; 2]) -> Array2<f32> {
    let of_pair = |pair: usize, figure: &Effects| {
        let [figure, exact] = [figure, exact].map(|effects| effects.values.index_axis(Axis(0), pair));
        pearson(figure.iter().copied().zip(exact.iter().copied()))
    };
    let rows = (0..exact.values.shape()[0]).filter_map(|pair| {
        let [one, integral] = [of_pair(pair, figures[0])?, of_pair(pair, figures[1])?];
        Some([one as f32, integral as f32, (integral - one) as f32])
    });
    Array2::from(rows.collect::<Vec<_>>())
}

impl Averaged {
    /// The mean of each of [`FIGURES`] for one of [`KINDS`]; `None` if no pair has a correlation.
    pub(super) fn means(&self, kind: usize) -> Option<[Mean; 3]> {
        let values = &self.correlations[kind];
        if values.is_empty() {
            return None;
        }
        let effects = Effects { kind: KINDS[kind].0, values: values.clone().into_dyn() };
        let interval = effects.bootstrap(Bootstrap { seed: self.seed, ..Bootstrap::default() });
        let is_interval = values.nrows() >= FEWEST;
        let mean = effects.mean();
        Some([0, 1, 2].map(|figure| {
            let range = || {
                let of_figure = values.column(figure);
                [of_figure.fold(f32::INFINITY, |m, v| m.min(*v)), of_figure.fold(f32::NEG_INFINITY, |m, v| m.max(*v))]
            };
            let ends = match &interval {
                Some([low, high]) if is_interval => [low[[figure]], high[[figure]]],
                _ => range(),
            };
            Mean { mean: mean[[figure]], ends, is_interval }
        }))
    }

    /// What the correlations say, for one of [`KINDS`].
    pub(super) fn conclusion(&self, kind: usize) -> String {
        let nodes = KINDS[kind].1;
        match self.means(kind) {
            Some([.., Mean { ends: [low, high], is_interval: true, .. }]) if high < 0.0 || low > 0.0 => {
                let which = if high < 0.0 { "the one gradient" } else { "the integral" };
                format!("{nodes}: {which} follows activation patching more closely")
            }
            Some([.., Mean { is_interval: true, .. }]) => {
                format!("{nodes}: neither follows activation patching more closely, as far as these pairs show")
            }
            Some(_) => format!("{nodes}: fewer than {FEWEST} pairs, too few to say"),
            None => format!("{nodes}: no pair has a correlation"),
        }
    }
}

impl Mean {
    /// `0.640 (0.610 to 0.665)`.
    pub(super) fn text(&self) -> String {
        let Mean { mean, ends: [low, high], is_interval } = self;
        let what = if *is_interval { "" } else { "range " };
        format!("{mean:.3} ({what}{low:.3} to {high:.3})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn averaged_of(rows: &[[f32; 3]]) -> Averaged {
        let values = Array2::from(rows.to_vec());
        Averaged { n: rows.len(), seed: 1, correlations: [values.clone(), values] }
    }

    #[test]
    fn correlations_are_of_each_pair_apart() {
        let effects = |values: [f32; 6]| Effects {
            kind: KINDS[1].0,
            values: Array2::from_shape_vec((2, 3), values.to_vec()).unwrap().into_dyn(),
        };
        let exact = effects([1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        let one = effects([1.0, 2.0, 3.0, 3.0, 2.0, 1.0]);
        let integral = effects([3.0, 2.0, 1.0, 3.0, 2.0, 1.0]);
        let found = correlations(&exact, [&one, &integral]);
        assert_eq!(found, ndarray::arr2(&[[1.0, -1.0, -2.0], [-1.0, -1.0, 0.0]]));
        // A pair whose nodes all have one score has no correlation.
        let flat = effects([1.0, 2.0, 3.0, 0.0, 0.0, 0.0]);
        assert_eq!(correlations(&exact, [&flat, &integral]).nrows(), 1);
    }

    #[test]
    fn conclusions_follow_the_interval_of_the_difference() {
        let rows = |difference: [f32; 6]| difference.map(|d| [0.5, 0.5 + d, d]);
        let says = |difference| averaged_of(&rows(difference)).conclusion(0);
        assert!(says([-0.1, -0.2, -0.1, -0.2, -0.1, -0.2]).contains("the one gradient follows"));
        assert!(says([0.1, 0.2, 0.1, 0.2, 0.1, 0.2]).contains("the integral follows"));
        assert!(says([-0.1, 0.1, -0.2, 0.2, -0.3, 0.3]).contains("neither"));
        assert!(averaged_of(&rows([0.1; 6])[..4]).conclusion(0).contains("too few"));
        let few = averaged_of(&[[0.5, 0.7, 0.2], [0.1, 0.3, 0.2]]).means(0).unwrap();
        assert_eq!(few[0].text(), "0.300 (range 0.100 to 0.500)");
    }
}
