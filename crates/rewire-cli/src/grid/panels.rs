//! The panels of a grid's report: the effects of one model on one task, by node and revision.

use std::collections::BTreeMap;

use ndarray::{Array2, Axis};
use rewire_report::charts::{Meaning, Support};

use super::cells::Cell;
use super::results::{Effects, Ended};

/// The effects of one table of one model on one task.
pub(super) struct Panel {
    pub(super) model: String,
    pub(super) task: String,
    /// Name of the table, such as `head_z`.
    pub(super) table: String,
    unit: String,
    support: Support,
    floor: f32,
    /// Names of the revisions; one dash if the grid gives none.
    pub(super) revisions: Vec<String>,
    /// Names of the nodes, that of the largest effect at any revision first.
    pub(super) nodes: Vec<String>,
    /// Mean over seeds, `[node, revision]`; NaN where no cell is finished.
    pub(super) mean: Array2<f32>,
    /// Smallest and largest effect of any seed, `[node, revision]`.
    pub(super) ends: Array2<[f32; 2]>,
    /// Largest number of finished cells that a mean is over.
    pub(super) seeds: usize,
}

impl Panel {
    /// Returns the model and the task.
    pub(super) fn title(&self) -> String {
        format!("{} on {}", self.model, self.task)
    }

    /// Returns the meaning of the effects.
    pub(super) fn meaning(&self) -> Meaning<'_> {
        Meaning { unit: &self.unit, support: self.support, floor: self.floor }
    }

    /// Returns the place and the value of the largest effect, `[node, revision]`.
    pub(super) fn largest(&self) -> Option<([usize; 2], f32)> {
        let all = self.mean.indexed_iter().filter(|(_, value)| value.is_finite());
        let ((node, revision), value) = all.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))?;
        Some(([node, revision], *value))
    }
}

/// The table, model and task of a panel, and its cells with what they found.
type Group<'a> = ([&'a str; 3], Vec<(&'a Cell, Option<&'a Effects>)>);

/// Returns a panel for each table, model and task with a finished cell, by table first.
pub(super) fn panels(cells: &[Cell], ended: &[Ended]) -> Vec<Panel> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (cell, ended) in cells.iter().zip(ended) {
        let tables = ended.results().map_or(&[] as &[Effects], |found| &found.tables);
        for table in tables {
            let key = [table.name.as_str(), &cell.model, &cell.task];
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, group)) => group.push((cell, Some(table))),
                None => groups.push((key, vec![(cell, Some(table))])),
            }
        }
    }
    // A revision of which every cell failed is a gap and not left out.
    for (cell, _) in cells.iter().zip(ended).filter(|(_, ended)| ended.results().is_none()) {
        let of_cell = groups.iter_mut().filter(|([_, model, task], _)| *model == cell.model && *task == cell.task);
        of_cell.for_each(|(_, group)| group.push((cell, None)));
    }
    let order: Vec<&str> = groups.iter().map(|([table, ..], _)| *table).collect();
    groups.sort_by_key(|([table, ..], _)| order.iter().position(|known| known == table));
    let all: Vec<&Cell> = cells.iter().collect();
    groups.into_iter().filter_map(|(key, group)| panel(key, &group, &all)).collect()
}

fn panel([table, model, task]: [&str; 3], group: &[(&Cell, Option<&Effects>)], cells: &[&Cell]) -> Option<Panel> {
    let first = group.iter().find_map(|(_, effects)| *effects)?;
    let name = |cell: &Cell| cell.revision.clone().unwrap_or_else(|| "-".to_owned());
    let mut revisions: Vec<String> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.model == model) {
        if !revisions.contains(&name(cell)) {
            revisions.push(name(cell));
        }
    }
    let numbers: BTreeMap<&str, usize> =
        first.nodes.iter().enumerate().map(|(number, (node, _))| (node.as_str(), number)).collect();
    let shape = (first.nodes.len(), revisions.len());
    let (mut sums, mut ends) = (Array2::<f64>::zeros(shape), Array2::from_elem(shape, [f32::NAN; 2]));
    let mut counts = vec![0_usize; revisions.len()];
    for (cell, effects) in group {
        let (Some(effects), Some(at)) = (effects, revisions.iter().position(|known| *known == name(cell))) else {
            continue;
        };
        counts[at] += 1;
        for (node, value) in &effects.nodes {
            let Some(&node) = numbers.get(node.as_str()) else { continue };
            sums[[node, at]] += f64::from(*value);
            let [low, high] = &mut ends[[node, at]];
            (*low, *high) = (low.min(*value), high.max(*value));
        }
    }
    for (mut column, &count) in sums.axis_iter_mut(Axis(1)).zip(&counts) {
        column.mapv_inplace(|sum| if count == 0 { f64::NAN } else { sum / count as f64 });
    }
    let mean = sums.mapv(|mean| mean as f32);
    let size = |node: &usize| mean.row(*node).iter().filter(|v| v.is_finite()).fold(0.0_f32, |m, v| m.max(v.abs()));
    let mut order: Vec<usize> = (0..first.nodes.len()).collect();
    order.sort_by(|a, b| size(b).total_cmp(&size(a)));
    Some(Panel {
        model: model.to_owned(),
        task: task.to_owned(),
        table: table.to_owned(),
        unit: first.unit.clone(),
        support: first.support,
        floor: group.iter().filter_map(|(_, effects)| *effects).map(|effects| effects.floor).fold(0.0, f32::max),
        revisions,
        nodes: order.iter().map(|&node| first.nodes[node].0.clone()).collect(),
        mean: mean.select(Axis(0), &order),
        ends: ends.select(Axis(0), &order),
        seeds: counts.into_iter().max().unwrap_or_default(),
    })
}
