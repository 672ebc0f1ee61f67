//! The report's details on the number that the notebook's code computes.

use ndarray::Array2;
use rewire_analysis::integrated::Quadrature;
use rewire_report::Page;
use rewire_report::charts::{self, Meaning};

use super::attributions::grid_map;
use rewire_studies::integrated_gradients::{BASELINES, Compared, KINDS};

pub(super) fn section(page: &mut Page, compared: &Compared) {
    page.section(
        "What the notebook's code computes",
        "One gradient, not the integral. Captum runs all quadrature steps in one batch. The notebook's metric reads \
         the logits of batch row 0 only. Only the first step, next to the clean activation, therefore has a gradient. \
         The gradients of all other steps are 0. The notebook's code returns that one gradient, times the change of \
         the activation, times the first weight. The notebook's printed table of heads on this pair is larger by a \
         factor of 18 or more, so it is not known whether its printed correlations come from one gradient.",
    );
    if let Some(node) = Quadrature::default().nodes().ok().and_then(|nodes| nodes.first().copied()) {
        page.text(&format!(
            "The first of Captum's 50 steps is at {:.6} of the line, with weight {:.6}.",
            node.at, node.weight
        ));
    }
    scaled(page, compared);
    completeness(page, compared);
}

/// Adds maps of the notebook's figure times 1e5 and of patching, on one color scale.
fn scaled(page: &mut Page, compared: &Compared) {
    page.text(
        "The figure of heads times 1e5, corrupted baseline. The first row shows the scaled figure and activation \
         patching on one color scale. The second row shows their differences on another scale. The notebook chose the \
         factor 1e5 to make both maps look alike. The factor has no other meaning.",
    );
    let grid = |of: &dyn Fn((usize, usize)) -> f32| {
        let shape = compared.exact.effects[1].values.shape();
        Array2::from_shape_fn((shape[1], shape[2]), of)
    };
    let figure = grid(&|place| compared.scaled_literal_of(place.into()));
    let exact = grid(&|place| compared.exact_of(place.into()));
    let rows = [
        [("the notebook's figure times 1e5", figure.clone()), ("activation patching", exact.clone())],
        [
            ("figure times 1e5 minus patching", &figure - &exact),
            ("|figure times 1e5| minus |patching|", figure.mapv(f32::abs) - exact.mapv(f32::abs)),
        ],
    ];
    for maps in rows {
        let reach = charts::color_limit(maps.iter().map(|(_, map)| map.view()));
        page.row(maps.iter().map(|(title, map)| grid_map(title, map, 1, reach, Meaning::default())).collect());
    }
}

/// Adds the completeness gaps, which show that the notebook's figure is not the integral.
fn completeness(page: &mut Page, compared: &Compared) {
    page.text(
        "Completeness is the evidence: along each line the attributions of a layer must sum to the change of the \
         metric. The gap is the difference between that sum and that change. The tables list the gap of each layer. \
         The gaps that the notebook printed are nearly the whole change of the metric. Captum reports gaps and does \
         not treat them as errors.",
    );
    for (baseline, lines) in BASELINES.iter().zip(&compared.lines) {
        for (kind, (_, nodes)) in KINDS.iter().enumerate() {
            let [true_, literal] = [&lines.integrated, &lines.literal].map(|of| &of.completeness[kind]);
            let row = |layer: usize| {
                let at = [0, layer];
                vec![
                    format!("L{layer}"),
                    format!("{:.4}", true_.change[at]),
                    true_.steps[layer].to_string(),
                    format!("{:.1e}", true_.gap[at]),
                    format!("{:.4}", literal.gap[at]),
                ]
            };
            page.text(&format!("{nodes}, {baseline} baseline:"));
            let header = [
                "layer",
                "change of the metric (logits)",
                "steps",
                "gap (logits)",
                "gap of the notebook's figure (logits)",
            ];
            page.table(&header, (0..true_.steps.len()).map(row).collect());
        }
    }
}
