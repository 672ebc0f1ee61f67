//! The finding of a grid in three sentences: the largest effect, how it changes across revisions,
//! and whether the model does the task.

use rewire_report::names::counted;
use rewire_report::numbers::{interval, number};

use super::cells::Cell;
use super::panels::Panel;
use super::results::Ended;

/// Returns the three sentences.
pub(super) fn sentences(cells: &[Cell], ended: &[Ended], panels: &[Panel]) -> Vec<String> {
    let Some(panel) = main_panel(panels) else {
        return vec!["No cell of the grid has effects.".to_owned(), finished(ended)];
    };
    vec![largest(panel), change(panel, panels), right(cells, ended, panel)]
}

/// Returns the panel of the largest effect. Panels in another unit than the first are left out,
/// because their effects cannot be compared.
pub(super) fn main_panel(panels: &[Panel]) -> Option<&Panel> {
    let unit = panels.first()?.meaning().unit;
    let comparable = panels.iter().filter(|panel| panel.meaning().unit == unit && panel.largest().is_some());
    let size = |panel: &&Panel| panel.largest().map_or(0.0, |(_, value)| value.abs());
    comparable.max_by(|a, b| size(a).total_cmp(&size(b)))
}

/// Returns which node has the largest effect, and where.
fn largest(panel: &Panel) -> String {
    let Some(([node, revision], value)) = panel.largest() else { return String::new() };
    let at = at(panel, revision);
    let meaning = panel.meaning();
    let seeds = match panel.seeds {
        0 | 1 => String::new(),
        seeds => format!(", mean over {seeds} seeds, which range from {}", interval(panel.ends[[node, revision]])),
    };
    let role = match meaning.support.supports(value) {
        Some(true) => ". It supports the behavior",
        Some(false) => ". It opposes the behavior",
        None => "",
    };
    let (name, model, task) = (&panel.nodes[node], &panel.model, &panel.task);
    format!(
        "The largest effect in {} is that of {name} in {model}{at} on {task}: {} ({}{seeds}){role}.",
        panel.table,
        number(value),
        meaning.unit
    )
}

/// Returns how the effect of the node changes across revisions, or else the largest effects of
/// other models and tasks.
fn change(panel: &Panel, panels: &[Panel]) -> String {
    let Some(([node, _], _)) = panel.largest() else { return String::new() };
    let name = &panel.nodes[node];
    let known: Vec<usize> = (0..panel.revisions.len()).filter(|&at| panel.mean[[node, at]].is_finite()).collect();
    if let [first, .., last] = known.as_slice() {
        let [from, to] = [first, last].map(|&at| number(panel.mean[[node, at]]));
        let [first, last] = [first, last].map(|&at| &panel.revisions[at]);
        // The revision by which half of the last effect is reached.
        let half = panel.mean[[node, *known.last().unwrap_or(&0)]] / 2.0;
        let reached = known.iter().find(|&&at| panel.mean[[node, at]] / half >= 1.0).map(|&at| &panel.revisions[at]);
        let reached = reached.filter(|at| *at != first && half.abs() > panel.meaning().floor);
        let reached = reached.map_or_else(String::new, |at| format!(", and reaches half of its last value at {at}"));
        return format!("From {first} to {last}, the effect of {name} goes from {from} to {to}{reached}.");
    }
    let others = panels.iter().filter(|other| !std::ptr::eq(*other, panel)).filter_map(|other| {
        let ([node, revision], value) = other.largest()?;
        let place = format!("{}{} on {}", other.model, at(other, revision), other.task);
        Some(format!("{} in {place} ({}, {})", other.nodes[node], number(value), other.table))
    });
    match others.take(3).collect::<Vec<_>>().as_slice() {
        [] => "The grid has one model, one revision and one task, and compares nothing.".to_owned(),
        others => format!("The largest effects elsewhere are those of {}.", others.join("; ")),
    }
}

/// Returns on which share of the prompts the model is right, at the first and the last revision.
fn right(cells: &[Cell], ended: &[Ended], panel: &Panel) -> String {
    let shares = shares(cells, ended, &panel.model, &panel.task, &panel.revisions);
    let known: Vec<(usize, f32)> = shares.into_iter().enumerate().filter(|(_, share)| share.is_finite()).collect();
    let percent = |share: f32| format!("{:.0}%", 100.0 * share);
    let (model, task) = (&panel.model, &panel.task);
    let right = match known.as_slice() {
        [] => String::new(),
        [(at_only, share)] => {
            format!("{model}{} is right on {} of the clean prompts of {task}. ", at(panel, *at_only), percent(*share))
        }
        [(first, from), .., (last, to)] => format!(
            "{model} is right on {} of the clean prompts of {task} at {} and on {} at {}. ",
            percent(*from),
            panel.revisions[*first],
            percent(*to),
            panel.revisions[*last]
        ),
    };
    format!("{right}{}", finished(ended))
}

/// Returns how many cells are finished.
fn finished(ended: &[Ended]) -> String {
    let done = ended.iter().filter(|ended| ended.results().is_some()).count();
    match done == ended.len() {
        true => format!("All {} are finished.", counted(done, "cell")),
        false => format!("{done} of {} are finished; the others failed.", counted(ended.len(), "cell")),
    }
}

/// Returns the share of clean prompts on which a model is right, mean over seeds, for each
/// revision. NaN where it is not known.
pub(super) fn shares(cells: &[Cell], ended: &[Ended], model: &str, task: &str, revisions: &[String]) -> Vec<f32> {
    let of_revision = |revision: &String| {
        let here = cells.iter().zip(ended).filter(|(cell, _)| cell.model == model && cell.task == task);
        let here = here.filter(|(cell, _)| cell.revision.as_deref().unwrap_or("-") == revision);
        let found: Vec<f64> = here.filter_map(|(_, ended)| ended.results()?.share_right()).collect();
        (found.iter().sum::<f64>() / found.len() as f64) as f32
    };
    revisions.iter().map(of_revision).collect()
}

/// Returns the revision, for a sentence; nothing if there is only one.
fn at(panel: &Panel, revision: usize) -> String {
    match panel.revisions.len() {
        1 if panel.revisions[0] == "-" => String::new(),
        _ => format!(" at {}", panel.revisions[revision]),
    }
}
