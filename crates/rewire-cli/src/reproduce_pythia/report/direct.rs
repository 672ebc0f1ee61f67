//! The report's sections on exact effects of heads: patching of head parts, and direct effects on
//! the logits with direct logit attribution beside them.

use rewire_analysis::stats::{pearson, regression};
use rewire_circuits::mean_by_head;
use rewire_report::Page;
use rewire_report::charts::{self, Meaning, Point};

use super::maps::{Maps, attention, step};
use crate::reproduce_pythia::arguments::Arguments;
use crate::reproduce_pythia::shown::Found;
use rewire_report::names::head_name;

pub(super) fn parts(page: &mut Page, found: &Found, maps: &Maps) {
    page.section(
        "Parts of heads",
        "The corrupted run takes one output, query, key, value or pattern of one head from the clean run (denoising). \
         The exact effect is the restored share of the clean-corrupted difference; above 0 supports the behavior.",
    );
    let titles = ["Output", "Query", "Key", "Value", "Pattern"];
    let all: Vec<_> = (0..titles.len()).map(|kind| mean_by_head(&found.parts, kind)).collect();
    let reach = charts::color_limit(all.iter().map(|map| map.view()));
    let meaning = Meaning::of(&found.parts);
    maps.row(page, meaning, &titles.iter().zip(&all).map(|(title, map)| (*title, map, reach)).collect::<Vec<_>>());
    page.text(
        "Each point compares the output effect of a head with its pattern effect. The values of a head far above the \
         diagonal matter more than its attention pattern.",
    );
    let [output, pattern] = [&all[0], &all[4]];
    let point = |((layer, head), &x): ((usize, usize), &f32)| Point {
        x,
        y: output[[layer, head]],
        layer,
        name: head_name(layer, head),
    };
    let points: Vec<Point> = pattern.indexed_iter().map(point).collect();
    page.chart(charts::scatter(
        "Output patching and pattern patching",
        &points,
        ["effect of the pattern (share)", "effect of the output (share)"],
    ));
    let pairs = || pattern.iter().copied().zip(output.iter().copied());
    let r = pearson(pairs()).map_or("-".to_owned(), |r| format!("{r:.3}"));
    let slope = regression(pairs()).map_or("-".to_owned(), |[slope, _]| format!("{slope:.3}"));
    page.text(&format!("Over all heads: Pearson {r}, slope {slope}."));
}

pub(super) fn effects(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    page.section(
        "Direct effects on the logits",
        "Exact: path patching from each head's output to the last residual stream, with other heads held and MLPs \
         recomputed, as a share of the clean-corrupted difference. The patch changes the clean run (noising), so a \
         head that serves the behavior has an effect below 0.",
    );
    if let Some(direct) = found.step("direct") {
        step(page, found, maps, direct, "Direct effect (blue: serves the behavior)", arguments);
    }
    page.text(
        "Estimate: direct logit attribution, the contribution of each head to the logit difference in logits, with the \
         scale of the final norm held and without MLPs. Above 0 serves the behavior.",
    );
    let attribution = mean_by_head(&found.attribution, 0);
    let title = "Direct logit attribution, in logits (blue: serves the behavior)";
    maps.row(
        page,
        Meaning::of(&found.attribution),
        &[(title, &attribution, charts::color_limit([attribution.view()]))],
    );
    if !found.opposing.is_empty() {
        page.text("Heads that work against the behavior with an effect beyond the threshold:");
        attention(page, found, found.opposing.iter().copied());
    }
}
