//! The figures that the notebook prints, as constants. A test compares them with the printed lines.

use rewire_hooks::Head;

/// The heads that the notebook reports as outliers, with their patching scores.
pub const OUTLIERS: [(Head, f64); 6] = [
    (Head::new(7, 3), -0.10789),
    (Head::new(8, 10), -0.14233),
    (Head::new(9, 6), 0.00889),
    (Head::new(9, 9), -0.11382),
    (Head::new(10, 6), -0.07559),
    (Head::new(11, 10), 0.21538),
];

/// The name mover whose figures the notebook prints.
pub(super) const NAME_MOVER: Head = Head::new(9, 6);

/// Clean and corrupted logit difference of the first pair.
pub(super) const LOGIT_DIFFERENCES: [f64; 2] = [4.276, -2.738];
/// Clean and corrupted logit difference of the contrastive pair.
pub(super) const CONTRASTIVE_LOGIT_DIFFERENCES: [f64; 2] = [1.458, -0.274];

/// Correlations of the notebook's attributions with patching, by baseline: neurons, then heads.
pub(super) const CORRELATIONS: [[f64; 2]; 2] = [[0.2351, 0.3064], [0.9852, 0.9548]];
/// Jaccard indices of the 30 largest neurons, by baseline.
pub(super) const JACCARD: [f64; 2] = [0.1111, 0.875];
/// Standard deviation over heads of the absolute value of patching minus 1e5 times the notebook's
/// figure.
pub(super) const SD_OF_SIZES: f64 = 0.020_343_3;
/// The notebook's figure of [`NAME_MOVER`] on the first pair.
pub(super) const FIGURE: f64 = -4.516e-7;
/// The notebook's figure of [`NAME_MOVER`] on the contrastive pair, on the line from the corrupted
/// to the clean activation.
pub(super) const CONTRASTIVE_FIGURE: f64 = 3.362e-8;
/// Captum's convergence error for the layer of [`NAME_MOVER`] on the contrastive pair.
pub(super) const CONTRASTIVE_DELTA: f64 = -0.9107;
/// Patching of [`NAME_MOVER`] on the contrastive pair, as a share of the first pair's clean minus
/// corrupted logit difference: the notebook does not recompute its `baseline_diff`.
pub(super) const CONTRASTIVE_PATCHING: f64 = -0.0456;

/// Captum's convergence errors as the notebook prints them, by baseline and layer: heads, then
/// neurons.
pub(super) const DELTAS: [[[f64; 2]; 12]; 2] = [
    [
        [1.5821, 6.2935],
        [0.0784, 0.6687],
        [0.2222, 1.6564],
        [0.7107, 3.3847],
        [1.054, 0.9486],
        [1.1306, 3.1223],
        [0.8233, 2.4615],
        [1.1756, 0.2908],
        [1.6124, -0.8814],
        [-0.9383, 0.8226],
        [-0.5773, 0.057],
        [-0.1852, -0.804],
    ],
    [
        [-0.0801, 5.3677],
        [0.0562, -0.107],
        [-0.0128, -0.1195],
        [0.2566, 0.1361],
        [0.0511, -0.0882],
        [0.3684, 0.2477],
        [0.367, -0.0405],
        [1.3273, 0.4582],
        [2.3822, 0.1205],
        [1.457, 0.6441],
        [-1.0445, 0.4524],
        [-1.9877, 0.4005],
    ],
];

/// Share of the notebook's prompts that the model answers right.
pub const ACCURACY: f64 = 0.7864;
/// Share of the notebook's prompts that the model answers right after zero ablation of each of
/// [`OUTLIERS`].
pub const ACCURACY_WITHOUT: [f64; 6] = [0.6981, 0.7877, 0.8052, 0.8009, 0.7245, 0.9361];
/// Correlations over [`OUTLIERS`] with the change of accuracy under zero ablation, for three
/// scores: patching minus the notebook's figure, the notebook's figure, and patching.
pub const ZERO_ABLATION: [f64; 3] = [0.829_878_7, 0.729_691_6, 0.829_877_4];
/// Correlations over [`OUTLIERS`] with the change of accuracy under mean ablation, for the scores
/// of [`ZERO_ABLATION`]. The notebook does not print the first.
pub const MEAN_ABLATION: [Option<f64>; 3] = [None, Some(0.786_807_8), Some(0.865_912_7)];
