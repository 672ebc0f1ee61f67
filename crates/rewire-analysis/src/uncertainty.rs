//! How sure a mean over prompts is.

use ndarray::{ArrayD, Axis as Dimension, Zip};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::Effects;

/// A bootstrap of the mean over prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// How much of the resampled means lies between the two ends, 0 to 1.
    pub level: f64,
    /// How many times prompts are drawn.
    pub resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { level: 0.95, resamples: 1000, seed: 0 }
    }
}

impl Effects {
    /// Standard error of the mean over prompts, `[layer, ..]`; `None` for a single prompt, which has none.
    #[must_use]
    pub fn standard_error(&self) -> Option<ArrayD<f32>> {
        let n = self.values.shape()[0];
        if n < 2 {
            return None;
        }
        let mean = self.mean();
        let mut squares = ArrayD::<f64>::zeros(mean.shape());
        for of_prompt in self.values.outer_iter() {
            Zip::from(&mut squares).and(&of_prompt).and(&mean).for_each(|s, v, m| *s += f64::from(v - m).powi(2));
        }
        Some(squares.mapv(|s| (s / (n - 1) as f64 / n as f64).sqrt() as f32))
    }

    /// Lower and upper end of the percentile bootstrap interval of the mean over prompts, `[layer, ..]` each. Every resample
    /// draws prompts, the same for all nodes; the unit (baselines) stays as it is. Too narrow for few prompts: of two it is their
    /// range. `None` for a single prompt.
    #[must_use]
    pub fn bootstrap(&self, bootstrap: Bootstrap) -> Option<[ArrayD<f32>; 2]> {
        let n = self.values.shape()[0];
        if n < 2 || bootstrap.resamples == 0 {
            return None;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(bootstrap.seed);
        // How often each prompt is drawn, per resample.
        let draws: Vec<Vec<f32>> = (0..bootstrap.resamples)
            .map(|_| {
                let mut times = vec![0.0; n];
                for _ in 0..n {
                    times[((u64::from(rng.next_u32()) * n as u64) >> 32) as usize] += 1.0 / n as f32;
                }
                times
            })
            .collect();
        let tail = (1.0 - bootstrap.level.clamp(0.0, 1.0)) / 2.0;
        let last = bootstrap.resamples - 1;
        let at = |share: f64| ((share * last as f64).round() as usize).min(last);
        let [mut low, mut high] = [(); 2].map(|()| self.mean());
        let mut means = vec![0.0_f32; bootstrap.resamples];
        let nodes = self.values.lanes(Dimension(0));
        for ((values, low), high) in nodes.into_iter().zip(&mut low).zip(&mut high) {
            if values.iter().all(|v| *v == values[0]) {
                continue; // Every resample gives the same.
            }
            for (mean, times) in means.iter_mut().zip(&draws) {
                *mean = values.iter().zip(times).map(|(v, t)| v * t).sum();
            }
            means.sort_by(f32::total_cmp);
            (*low, *high) = (means[at(tail)], means[at(1.0 - tail)]);
        }
        Some([low, high])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Component, NodeKind};

    fn effects(values: &[f32]) -> Effects {
        let values = ArrayD::from_shape_vec(vec![values.len(), 1, 1], values.to_vec()).unwrap();
        Effects { kind: NodeKind::all(Component::HeadZ), values, lengths: Vec::new() }
    }

    #[test]
    fn standard_error_of_known_numbers() {
        let error = effects(&[1.0, 2.0, 3.0, 4.0]).standard_error().unwrap()[[0, 0]];
        assert!((error - 0.645_497_2).abs() < 1e-6, "{error}");
        assert_eq!(effects(&[1.0]).standard_error(), None);
        assert_eq!(effects(&[1.0]).bootstrap(Bootstrap::default()), None);
    }

    #[test]
    fn the_interval_is_about_two_errors_either_way_and_repeats() {
        let effects = effects(&(0..50).map(|i| (i * 37 % 50) as f32).collect::<Vec<_>>());
        let [low, high] = effects.bootstrap(Bootstrap::default()).unwrap().map(|e| e[[0, 0]]);
        let (mean, error) = (effects.mean()[[0, 0]], effects.standard_error().unwrap()[[0, 0]]);
        assert!((low - (mean - 1.96 * error)).abs() < 0.3 * error, "{low}");
        assert!((high - (mean + 1.96 * error)).abs() < 0.3 * error, "{high}");
        assert_eq!(effects.bootstrap(Bootstrap::default()), effects.bootstrap(Bootstrap::default()));
        let same = self::effects(&[3.0, 3.0]).bootstrap(Bootstrap::default()).unwrap();
        assert_eq!(same.map(|e| e[[0, 0]]), [3.0, 3.0]);
    }
}
