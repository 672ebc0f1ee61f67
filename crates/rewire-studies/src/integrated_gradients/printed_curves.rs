//! The points of the interpolation curves that the notebook prints. A point is the logit difference
//! at one of Captum's 50 Gauss-Legendre nodes, from the clean to the corrupted activation, to four
//! decimals. The notebook draws further curves without printing their points.

/// Number of points of one printed curve.
pub(super) const POINTS: usize = 50;

/// Curve of head (2, 5) on the first pair. The cell that draws (2, 5) and (10, 3) prints two lists,
/// and this is the first.
#[rustfmt::skip]
pub(super) const HEAD_2_5: [f64; POINTS] = [
    4.2764, 4.2765, 4.2765, 4.2766, 4.2766, 4.2767, 4.2768, 4.2770, 4.2771, 4.2772,
    4.2774, 4.2776, 4.2778, 4.2780, 4.2782, 4.2784, 4.2787, 4.2789, 4.2792, 4.2795,
    4.2797, 4.2800, 4.2803, 4.2806, 4.2809, 4.2812, 4.2814, 4.2817, 4.2820, 4.2823,
    4.2826, 4.2829, 4.2831, 4.2834, 4.2836, 4.2839, 4.2841, 4.2843, 4.2845, 4.2847,
    4.2848, 4.2850, 4.2851, 4.2853, 4.2854, 4.2855, 4.2856, 4.2856, 4.2857, 4.2857,
];

/// Curve of head (10, 3) on the first pair: the second list of the cell that draws (2, 5) and
/// (10, 3).
#[rustfmt::skip]
pub(super) const HEAD_10_3: [f64; POINTS] = [
    4.2764, 4.2764, 4.2763, 4.2762, 4.2760, 4.2758, 4.2756, 4.2754, 4.2751, 4.2748,
    4.2744, 4.2741, 4.2737, 4.2732, 4.2728, 4.2723, 4.2718, 4.2713, 4.2708, 4.2703,
    4.2697, 4.2691, 4.2686, 4.2680, 4.2674, 4.2668, 4.2663, 4.2657, 4.2651, 4.2646,
    4.2640, 4.2635, 4.2629, 4.2624, 4.2620, 4.2615, 4.2610, 4.2606, 4.2602, 4.2598,
    4.2595, 4.2592, 4.2589, 4.2587, 4.2584, 4.2582, 4.2581, 4.2580, 4.2579, 4.2578,
];

/// Curve of head (9, 6) on the contrastive pair.
#[rustfmt::skip]
pub(super) const CONTRASTIVE_9_6: [f64; POINTS] = [
    1.4576, 1.4568, 1.4553, 1.4532, 1.4504, 1.4471, 1.4431, 1.4385, 1.4333, 1.4276,
    1.4213, 1.4146, 1.4073, 1.3996, 1.3914, 1.3828, 1.3739, 1.3646, 1.3551, 1.3453,
    1.3352, 1.3250, 1.3146, 1.3041, 1.2936, 1.2830, 1.2725, 1.2620, 1.2516, 1.2413,
    1.2313, 1.2214, 1.2118, 1.2025, 1.1936, 1.1849, 1.1767, 1.1690, 1.1617, 1.1548,
    1.1485, 1.1428, 1.1376, 1.1329, 1.1289, 1.1255, 1.1227, 1.1206, 1.1191, 1.1183,
];
