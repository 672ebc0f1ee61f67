//! The maps, bar charts and attention patterns that show the effects of heads in any step.

use ndarray::Array2;
use rewire_analysis::Effects;
use rewire_hooks::Head;
use rewire_report::charts::{self, Bars, Chart, HeatMapLabels};
use rewire_report::names::{head_name, token_labels};
use rewire_report::{AttentionMap, Certainty, Page};

use crate::reproduce_pythia::arguments::Arguments;
use crate::reproduce_pythia::rows;
use crate::reproduce_pythia::sentences;
use crate::reproduce_pythia::shown::{Found, Step};

/// Number of heads in bar charts and tables.
const TOP: usize = 15;
/// Smallest share that gets a bar.
const SEEN: f32 = 0.002;
/// Number of heads whose attention is drawn.
const DRAWN: usize = 8;

/// Labels of maps by layer and head.
pub(super) struct Maps {
    pub(super) layers: Vec<String>,
    pub(super) heads: Vec<String>,
}

impl Maps {
    pub(super) fn of(&self, title: &str, values: &Array2<f32>, reach: f32) -> Chart {
        let labels = HeatMapLabels { rows: ("layer", &self.layers), columns: ("head", &self.heads), reach };
        charts::heat_map(title, &values.view(), labels)
    }
}

/// Adds the results of path patching into a step's receivers: a map, bar charts for both signs, a
/// table, and the attention of the strongest heads.
pub(super) fn step(page: &mut Page, found: &Found, maps: &Maps, step: &Step, title: &str, arguments: &Arguments) {
    let effects = step.effects();
    if effects.iter().all(|effect| *effect == 0.0) {
        page.text("No head reaches these receivers: every effect is 0.");
        return;
    }
    page.chart(maps.of(title, &effects, charts::color_limit([effects.view()])));
    for (name, sign) in [("serves the behavior", -1.0), ("works against the behavior", 1.0)] {
        let mut top = strongest(&effects, sign, TOP);
        top.retain(|(_, share)| *share >= SEEN);
        if !top.is_empty() {
            page.chart(bars(name, step, &top, sign));
        }
    }
    let total: f32 = step.serving.iter().map(|head| -effects[[head.layer, head.head]]).sum();
    let threshold = 100.0 * arguments.threshold;
    page.text(&match step.serving.is_empty() {
        true => format!(
            "No head serves the behavior beyond the threshold of {threshold:.1}% of the clean minus corrupted logit \
             difference."
        ),
        false => format!(
            "Heads that serve the behavior beyond the threshold of {threshold:.1}%: {} (together {:.0}% of the clean \
             minus corrupted logit difference).",
            sentences::names(step.serving.iter().copied()),
            100.0 * total
        ),
    });
    let (header, rows) = rows::step_table(step, TOP);
    page.table(&header.iter().map(String::as_str).collect::<Vec<_>>(), rows);
    page.text(&step.certainty.in_words());
    let looking = strongest(&effects, -1.0, DRAWN).into_iter().filter(|(_, share)| *share >= SEEN);
    attention(page, found, looking.map(|(head, _)| head));
}

/// Returns the `n` heads of largest effect of one sign, with the absolute value of the effect.
pub(super) fn strongest(effects: &Array2<f32>, sign: f32, n: usize) -> Vec<(Head, f32)> {
    let mut heads: Vec<(Head, f32)> = effects.indexed_iter().map(|(place, v)| (place.into(), sign * v)).collect();
    heads.retain(|(_, v)| *v > 1e-4);
    heads.sort_by(|a, b| b.1.total_cmp(&a.1));
    heads.truncate(n);
    heads
}

fn bars(title: &str, step: &Step, heads: &[(Head, f32)], sign: f32) -> Chart {
    let row = bar_row(&step.outcome.effects[0], &step.certainty, heads, sign);
    let names: Vec<String> = heads.iter().map(|(head, _)| head.to_string()).collect();
    let top = row.intervals.iter().map(|[_, high]| *high).fold(0.0, f64::max);
    charts::bars(title, &names, &[row], ["head", "share of clean minus corrupted"], top)
}

/// Returns the bars of some heads with the same intervals as in the tables.
fn bar_row(effects: &Effects, certainty: &Certainty, heads: &[(Head, f32)], sign: f32) -> Bars {
    let places: Vec<Vec<usize>> = heads.iter().map(|(head, _)| vec![head.layer, head.head]).collect();
    let turned = |ends: [f32; 2]| {
        let [a, b] = ends.map(|end| f64::from(sign * end));
        [a.min(b), a.max(b)]
    };
    let heights: Vec<f64> = heads.iter().map(|(_, v)| f64::from(*v)).collect();
    let intervals = match certainty.ends(effects, &places) {
        Some(ends) => ends.into_iter().map(turned).collect(),
        None => heights.iter().map(|height| [*height; 2]).collect(),
    };
    Bars { name: "share".to_owned(), heights, intervals }
}

/// Adds the attention of some heads on the prompt that the user chose.
pub(super) fn attention(page: &mut Page, found: &Found, heads: impl Iterator<Item = Head>) {
    let (prompt, patterns) = &found.shown;
    let tokens = token_labels(&found.data.pairs.labels(*prompt));
    let n = tokens.len();
    let map = |Head { layer, head }: Head| AttentionMap {
        name: head_name(layer, head),
        tokens: tokens.clone(),
        values: patterns
            .slice_each_axis(|axis| match axis.axis.index() {
                0 => (layer..layer + 1).into(),
                1 => (head..head + 1).into(),
                _ => (0..n).into(),
            })
            .to_shape((n, n))
            .map(|values| values.to_owned())
            .unwrap_or_default(),
    };
    let maps: Vec<AttentionMap> = heads.take(DRAWN).map(map).collect();
    if !maps.is_empty() {
        page.text(&format!("Attention of these heads on prompt {prompt} (rows attend to columns):"));
        page.attention(maps);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use rewire_analysis::node::{Component, NodeKind};
    use rewire_tasks::Clusters;

    use super::*;

    #[test]
    fn bars_match_the_intervals_in_the_tables_and_follow_the_seed() {
        let value = |(prompt, _, head): (usize, usize, usize)| -0.1 * ((prompt * 7 + head * 3) % 11) as f32;
        let values = Array3::from_shape_fn((12, 1, 2), value).into_dyn();
        let effects = Effects::new(NodeKind::all(Component::HeadZ), values, Vec::new());
        let (bar, table): (Vec<_>, Vec<_>) = [0, 1, 0]
            .map(|seed| {
                let certainty = Certainty::new(&effects, &Clusters::each(12), seed);
                let bar = bar_row(&effects, &certainty, &[(Head::new(0, 1), 0.5)], -1.0).intervals[0];
                (bar, certainty.columns(&effects, &[vec![0, 1]]).rows[0][1].clone())
            })
            .into_iter()
            .unzip();
        for ([low, high], printed) in bar.iter().zip(&table) {
            assert_eq!(&format!("{:.4} to {:.4}", -high, -low), printed);
        }
        assert!(bar[0] != bar[1] && table[0] != table[1], "the seed makes no difference");
        assert!(bar[0] == bar[2] && table[0] == table[2]);
    }
}
