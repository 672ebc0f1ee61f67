//! The heat maps of one kind of node: one map per layer for heads by position, one per head for
//! cells of attention patterns, and one in all for other kinds.

use ndarray::{Array2, ArrayD, Axis};
use rewire_analysis::Effects;
use rewire_report::charts::{self, HeatMapLabels, Meaning};
use rewire_report::{Certainty, Page, names, noise};
use rewire_tasks::PromptPairs;

/// Most rows or columns of a heat map. The cells of a larger map are too small to see.
const WIDEST: usize = 512;
/// Most heat maps of one kind of node. A reader does not compare more.
const MOST_MAPS: usize = 64;

/// One heat map.
struct Panel {
    title: String,
    values: Array2<f32>,
    /// Names of the rows.
    rows: Vec<String>,
    /// Lower and upper ends of the intervals.
    intervals: Option<Array2<[f32; 2]>>,
}

/// The heat maps of one kind of node.
struct Panels {
    /// Names of the axes of rows and columns. A map of one row has no row axis.
    axes: [&'static str; 2],
    columns: Vec<String>,
    all: Vec<Panel>,
}

/// Adds heat maps of the mean effects of one kind of node, named `name`, with their intervals if a
/// certainty is given. Maps of nothing but rounding are named instead of drawn. Positions
/// run toward END, however they are counted.
pub(super) fn add(
    page: &mut Page,
    name: &str,
    effects: &Effects,
    certainty: Option<&Certainty>,
    meaning: Meaning,
    pairs: &PromptPairs,
) {
    // The table names every node of a list.
    if !effects.nodes.is_empty() && effects.axis_names().len() == 2 {
        return;
    }
    let shape = &effects.values.shape()[1..];
    let (maps, largest) = match shape {
        [maps @ .., rows, columns] => (maps.iter().product::<usize>(), *rows.max(columns)),
        shape => (1, shape.iter().product::<usize>()),
    };
    if maps > MOST_MAPS || largest > WIDEST {
        page.text(
            "There are too many nodes for heat maps. The table shows the largest; effects.safetensors holds all.",
        );
        return;
    }
    let ends = certainty.and_then(|certainty| certainty.all_ends(effects));
    let Panels { axes, columns, all } = panels(name, effects, ends, pairs);
    let (empty, drawn): (Vec<Panel>, Vec<Panel>) =
        all.into_iter().partition(|panel| noise::is_all_below(&panel.values.view(), meaning.floor));
    let reach = charts::color_limit(drawn.iter().map(|panel| panel.values.view()));
    let map = |panel: &Panel| {
        let labels = HeatMapLabels { rows: (axes[0], &panel.rows), columns: (axes[1], &columns), reach };
        charts::effect_map(&panel.title, &panel.values.view(), labels, meaning, panel.intervals.as_ref())
    };
    if !drawn.is_empty() {
        page.row(drawn.iter().map(map).collect());
    }
    if !empty.is_empty() {
        let titles: Vec<String> = empty.into_iter().map(|panel| panel.title).collect();
        page.text(&format!("Without a map: {}. {}", titles.join(", "), noise::all_below(meaning.floor)));
    }
}

/// Returns the mean effects as maps of their last two axes.
fn panels(name: &str, effects: &Effects, ends: Option<[ArrayD<f32>; 2]>, pairs: &PromptPairs) -> Panels {
    let mut axes: Vec<(&'static str, Vec<String>)> = effects
        .axis_names()
        .into_iter()
        .enumerate()
        .skip(1)
        .map(|(i, name)| (name, along(effects, i, pairs)))
        .collect();
    // A single position needs no axis.
    if axes.len() > 2 && axes.last().is_some_and(|(_, names)| names.len() == 1) {
        axes.pop();
    }
    let column = axes.pop().unwrap_or_default();
    let row = axes.pop().unwrap_or_else(|| ("", vec![String::new()]));
    let titles: Vec<String> = match axes.as_slice() {
        [] => vec![name.to_owned()],
        [(_, names)] => names.clone(),
        [(_, layers), rest @ ..] => {
            let of_layer = |layer: &String| {
                rest.iter().flat_map(|(_, names)| names).map(|n| format!("{layer}{n}")).collect::<Vec<_>>()
            };
            layers.iter().flat_map(of_layer).collect()
        }
    };
    let [rows, columns] = [row.1.len(), column.1.len()];
    let cut = |values: ArrayD<f32>| -> Vec<Array2<f32>> {
        let turned = turned(effects, values);
        let numbers: Vec<f32> = turned.iter().copied().collect();
        let map = |numbers: &[f32]| {
            Array2::from_shape_vec((rows, columns), numbers.to_vec()).expect("as many numbers as cells")
        };
        numbers.chunks(rows * columns).map(map).collect()
    };
    let intervals: Vec<Option<Array2<[f32; 2]>>> = match ends.map(|[low, high]| [cut(low), cut(high)]) {
        Some([low, high]) => low.iter().zip(&high).map(|(low, high)| Some(both(low, high))).collect(),
        None => titles.iter().map(|_| None).collect(),
    };
    let all = titles.into_iter().zip(cut(effects.mean())).zip(intervals);
    let panel = |title: String, values, intervals| {
        // A head or neuron is named with its layer, which is the title of its map.
        let is_of_layer = ["head", "neuron"].contains(&row.0) && !axes.is_empty();
        let rows = row.1.iter().map(|row| if is_of_layer { format!("{title}{row}") } else { row.clone() }).collect();
        Panel { title, values, rows, intervals }
    };
    Panels {
        axes: [row.0, column.0],
        columns: column.1,
        all: all.map(|((title, values), intervals)| panel(title, values, intervals)).collect(),
    }
}

/// Returns the names along an axis of the effects. Positions run toward END.
fn along(effects: &Effects, axis: usize, pairs: &PromptPairs) -> Vec<String> {
    let mut names = names::along(effects, axis, pairs);
    if effects.axis_names()[axis].ends_with("_from_end") {
        names.reverse();
    }
    names
}

/// Returns means over prompts with positions that run toward END.
fn turned(effects: &Effects, mut values: ArrayD<f32>) -> ArrayD<f32> {
    for (axis, name) in effects.axis_names().into_iter().skip(1).enumerate() {
        if name.ends_with("_from_end") {
            values.invert_axis(Axis(axis));
        }
    }
    values
}

fn both(low: &Array2<f32>, high: &Array2<f32>) -> Array2<[f32; 2]> {
    Array2::from_shape_fn(low.dim(), |place| [low[place], high[place]])
}

#[cfg(test)]
mod tests {
    use ndarray::{IxDyn, array};
    use rewire_analysis::node::{By, Component, NodeKind};
    use rewire_tasks::PromptPair;

    use super::*;

    fn pairs() -> PromptPairs {
        let pair =
            PromptPair { clean: vec![1, 2, 3], corrupted: vec![4, 2, 3], answers: vec![5], wrong_answers: vec![6] };
        PromptPairs::new(vec![pair]).unwrap().with_token_labels(|token| format!("t{token}"))
    }

    fn effects(component: Component, by: By, shape: &[usize]) -> Effects {
        let n: usize = shape.iter().product();
        let values = ArrayD::from_shape_vec(IxDyn(shape), (0..n).map(|i| i as f32).collect()).unwrap();
        Effects::new(NodeKind { component, by }, values, vec![3])
    }

    #[test]
    fn heads_by_position_have_one_map_per_layer() {
        let heads = effects(Component::HeadZ, By::Position, &[1, 2, 4, 3]);
        let found = panels("head_z@position", &heads, None, &pairs());
        assert_eq!((found.axes, found.columns), (["head", "pos"], vec!["t1_0".into(), "t2_1".into(), "t3_2".into()]));
        assert_eq!(found.all.iter().map(|panel| panel.title.as_str()).collect::<Vec<_>>(), ["L0", "L1"]);
        let last = &found.all[1];
        assert_eq!((last.rows[3].as_str(), last.values.dim(), last.values[[3, 2]]), ("L1H3", (4, 3), 23.0));
    }

    #[test]
    fn heads_are_one_map_of_layers_and_heads() {
        let found = panels("head_z", &effects(Component::HeadZ, By::All, &[1, 2, 4]), None, &pairs());
        assert_eq!((found.axes, found.all.len()), (["layer", "head"], 1));
        // Eight heads of one position are no eight maps of one row.
        let single = effects(Component::HeadZ, By::Position, &[1, 2, 8, 1]);
        let found = panels("head_z@position", &single, None, &pairs());
        assert_eq!((found.axes, found.all.len()), (["layer", "head"], 1));
        assert_eq!(found.all[0].values.dim(), (2, 8));
    }

    #[test]
    fn layers_are_one_row_and_cells_have_one_map_per_head() {
        let found = panels("mlp_out", &effects(Component::MlpOut, By::All, &[1, 4]), None, &pairs());
        assert_eq!((found.axes, found.all[0].values.dim()), (["", "layer"], (1, 4)));
        let cells = effects(Component::HeadPattern, By::Cell, &[1, 2, 2, 3, 3]);
        let found = panels("head_pattern@cell", &cells, None, &pairs());
        assert_eq!((found.axes, found.all.len(), found.all[3].title.as_str()), (["dest", "src"], 4, "L1H1"));
    }

    #[test]
    fn positions_from_the_end_run_toward_the_end_with_their_intervals() {
        let kind = effects(Component::ResidPre, By::Position, &[1, 1, 3]).aligned_at_end();
        let found = panels("resid_pre@position", &kind, Some([kind.mean(), kind.mean()]), &pairs());
        assert_eq!(found.columns.last().unwrap(), "t3_END");
        assert_eq!(found.all[0].values, array![[0.0, 1.0, 2.0]]);
        assert_eq!(found.all[0].intervals.as_ref().unwrap()[[0, 2]], [2.0, 2.0]);
    }
}
