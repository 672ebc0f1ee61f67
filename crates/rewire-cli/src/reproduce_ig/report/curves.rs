//! Interpolation curves, and the contrastive pair.

use rewire_analysis::integrated::Curves;
use rewire_hooks::Head;
use rewire_report::Page;
use rewire_report::charts;

use rewire_studies::integrated_gradients::{Contrasted, Drawn, Found};

pub(super) fn sections(page: &mut Page, found: &Found) {
    let Drawn { heads, inside, wide } = &found.curves;
    page.section(
        "Interpolation curves",
        "The logit difference (in logits) on the clean prompt while one head moves along the line from its clean \
         activation (0) to its corrupted activation (1). Everything after the head is recomputed. Integrated gradients \
         of that head alone integrates the slope of this curve.",
    );
    let named = |curves: &Curves| {
        let curve = |(node, head): (usize, &Head)| (head.to_string(), curves.mean(node));
        heads.iter().enumerate().map(curve).collect::<Vec<_>>()
    };
    let axes = ["position on the line (0: clean, 1: corrupted)", "logit difference (logits)"];
    page.row(vec![charts::curves("From clean to corrupted", &inside.places, &named(inside), axes)]);
    page.row(vec![charts::curves("Beyond both ends", &wide.places, &named(wide), axes)]);
    let rows = heads.iter().enumerate().map(|(node, head)| {
        let [values, beyond] = [inside.mean(node), wide.mean(node)];
        let ends =
            |values: &[f32]| [values.first(), values.last()].map(|v| v.map_or("-".to_owned(), |v| format!("{v:.4}")));
        let [start, end] = ends(&values);
        let [trough, peak] = extremes(&wide.places, &beyond);
        vec![head.to_string(), start, end, peak, trough]
    });
    page.text(
        "The value of each curve at the clean and the corrupted activation, and its peak and trough over the wide \
         range:",
    );
    page.table(
        &["head", "clean end (logits)", "corrupted end (logits)", "peak (logits, at)", "trough (logits, at)"],
        rows.collect(),
    );
    if !found.contrasts.is_empty() {
        contrasts(page, &found.contrasts);
    }
}

/// Returns the lowest and the highest value of a curve, each with its place on the line.
fn extremes(places: &[f64], values: &[f32]) -> [String; 2] {
    let shown =
        |at: Option<(&f64, &f32)>| at.map_or("-".to_owned(), |(place, value)| format!("{value:.4} ({place:.2})"));
    let all = || places.iter().zip(values);
    [shown(all().min_by(|a, b| a.1.total_cmp(b.1))), shown(all().max_by(|a, b| a.1.total_cmp(b.1)))]
}

fn contrasts(page: &mut Page, contrasts: &[Contrasted]) {
    page.section(
        "The contrastive pair",
        "Effects of one head on two further pairs, in logits. The notebook's second pair is meant to make a name mover \
         matter more: the first mentions of the names become a cat and a dog. \"as printed\": the corrupted prompt is \
         two tokens longer than the clean prompt. The notebook's library pads the clean prompt at its end, and the \
         notebook reads the logits after the padding. Its clean logit difference therefore falls from 4.276 to 1.458, \
         and it compares positions that do not correspond. \"aligned\": \"cat and dog\" replaces \"John and Mary\" \
         token for token.",
    );
    let row = |c: &Contrasted| {
        let [clean, corrupted] = c.logit_differences;
        vec![
            c.name.to_owned(),
            c.head.to_string(),
            format!("{clean:.4}"),
            format!("{corrupted:.4}"),
            format!("{:.4}", c.patched),
            format!("{:.4}", c.integrated),
            format!("{:.1e}", c.gap),
            format!("{:.3e}", c.literal),
            format!("{:.4}", c.literal_gap),
        ]
    };
    let header = [
        "pair",
        "head",
        "clean (logits)",
        "corrupted (logits)",
        "patching (logits)",
        "integrated gradients (logits)",
        "gap of its layer (logits)",
        "notebook's figure (mean)",
        "gap of the notebook's figure (logits)",
    ];
    page.table(&header, contrasts.iter().map(row).collect());
    for contrast in contrasts {
        let [clean, corrupted] = &contrast.prompts;
        page.text(&format!("{}: {clean} | {corrupted}", contrast.name));
    }
    page.text(
        "On this pair the notebook's code follows the line from the corrupted to the clean activation. Its one \
         gradient is next to the corrupted activation, and a head that supports the behavior has a figure above 0. The \
         notebook prints patching as a share of the first pair's clean minus corrupted logit difference, because it \
         does not recompute that difference. The table has logits.",
    );
    if let Some(places) = contrasts.first().map(|c| c.curve.places.clone()) {
        let curve = |c: &Contrasted| (format!("{}, {}", c.head, c.name), c.curve.mean(0));
        let axes = ["position on the line (0: clean, 1: corrupted)", "logit difference (logits)"];
        let curves: Vec<_> = contrasts.iter().map(curve).collect();
        page.row(vec![charts::curves("Contrastive pairs", &places, &curves, axes)]);
    }
}
