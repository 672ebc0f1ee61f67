//! The report over all cells of a grid.

use std::collections::BTreeSet;

use ndarray::{Axis, Slice};
use rewire_report::Page;
use rewire_report::charts::{self, Chart, HeatMapLabels, Meaning, RangedLine, Ranked};
use rewire_report::names::counted;

use super::cells::Cell;
use super::panels::{Panel, panels};
use super::results::Ended;
use super::sentences::{main_panel, sentences, shares};
use super::table;

/// Most nodes of a chart of lines.
const LINES: usize = 8;
/// Most rows of a heat map, and most bars.
const ROWS: usize = 20;
/// Most warnings that are listed.
const WARNINGS: usize = 30;

/// Returns the report.
pub(super) fn page(title: Option<&str>, cells: &[Cell], ended: &[Ended]) -> Page {
    let panels = panels(cells, ended);
    let numbers = |of: &dyn Fn(&Cell) -> String| cells.iter().map(of).collect::<BTreeSet<String>>().len();
    let models = numbers(&|cell| cell.model.clone());
    let places = numbers(&|cell| format!("{} {}", cell.model, cell.revision.as_deref().unwrap_or_default()));
    let tasks = numbers(&|cell| cell.task.clone());
    let subtitle = format!(
        "{} · {} · {} · {}",
        counted(models, "model"),
        counted(places, "revision"),
        counted(tasks, "task"),
        counted(cells.len(), "cell")
    );
    let mut page = Page::new(title.unwrap_or("Grid"), &subtitle);
    page.finding(&sentences(cells, ended, &panels), main_panel(&panels).map(picture));
    let failed = cells.iter().zip(ended).filter_map(|(cell, ended)| match ended {
        Ended::Failed(problem) => Some(format!("{} failed: {problem}", cell.in_words())),
        Ended::Finished(_) => None,
    });
    page.warnings(&failed.collect::<Vec<_>>());
    how_to_read(&mut page, &panels);
    behavior(&mut page, cells, ended, &panels);
    effects(&mut page, &panels);
    page.section(
        "Cells",
        "One row for each cell: the share of clean prompts on which the model is right, the mean metric on the clean \
         and on the corrupted prompts, and the node of largest effect. Each cell has a report of its own.",
    );
    page.table(&table::SUMMARY, table::summary(cells, ended));
    warnings(&mut page, cells, ended);
    page
}

/// Adds the meaning of the numbers and of the colors.
fn how_to_read(page: &mut Page, panels: &[Panel]) {
    let units: BTreeSet<&str> = panels.iter().map(|panel| panel.meaning().unit).collect();
    let units = units.into_iter().collect::<Vec<_>>().join("; ");
    page.section("How to read this", &format!("Unit of the effects: {units}."));
    page.text(
        "A cell is a sweep of one model at one revision on one task, with one seed. Effects are means over its prompts, \
         and here also means over seeds; the bars on a line reach from the smallest to the largest seed. In heat maps, \
         blue supports the behavior of the clean run and red opposes it.",
    );
    page.text(
        "Revisions stand at equal distances, in the order of the file. A gap is a revision whose cells failed. An effect \
         at a revision at which the model does not do the task yet is no part of the behavior.",
    );
    page.text("Point at a cell, a bar or a point to see its node and its numbers.");
}

/// Adds the share of prompts on which the models are right.
fn behavior(page: &mut Page, cells: &[Cell], ended: &[Ended], panels: &[Panel]) {
    let mut seen = BTreeSet::new();
    let several = panels.iter().filter(|panel| panel.revisions.len() > 1);
    let first: Vec<&Panel> = several.filter(|panel| seen.insert((&panel.model, &panel.task))).collect();
    let Some(panel) = first.first() else { return };
    page.section(
        "Does the model do the task?",
        "The share of clean prompts on which an answer has a larger logit than every wrong answer, mean over seeds.",
    );
    // Models with the same revisions share a chart.
    let mut charts: Vec<(&[String], Vec<RangedLine>)> = Vec::new();
    for panel in &first {
        let values = shares(cells, ended, &panel.model, &panel.task, &panel.revisions);
        let ranges = values.iter().map(|value| [*value; 2]).collect();
        let line = RangedLine { name: panel.title(), values, ranges };
        match charts.iter_mut().find(|(revisions, _)| *revisions == panel.revisions) {
            Some((_, lines)) => lines.push(line),
            None => charts.push((&panel.revisions, vec![line])),
        }
    }
    let meaning = Meaning { unit: "share of clean prompts", ..panel.meaning() };
    for (revisions, lines) in charts {
        page.chart(charts::ranged_lines("Prompts on which the model is right", revisions, &lines, "revision", meaning));
    }
}

/// Adds a section for each table, with the panels of all models and tasks.
fn effects(page: &mut Page, panels: &[Panel]) {
    let mut table = "";
    for panel in panels {
        if panel.table != table {
            table = &panel.table;
            page.section(table, "The nodes of largest effect at any revision, for each model and task.");
        }
        match panel.revisions.len() {
            1 => page.chart(picture(panel)),
            _ => page.row(vec![picture(panel), map(panel)]),
        }
    }
}

/// Returns the picture of a panel: lines across revisions, or a ranking at the only revision.
fn picture(panel: &Panel) -> Chart {
    let title = format!("{}: {}", panel.table, panel.title());
    if panel.revisions.len() == 1 {
        let ranked = (0..panel.nodes.len().min(ROWS)).filter(|&node| panel.mean[[node, 0]].is_finite());
        let ranked = ranked.map(|node| Ranked {
            name: panel.nodes[node].clone(),
            effect: panel.mean[[node, 0]],
            interval: (panel.seeds > 1).then(|| panel.ends[[node, 0]]),
        });
        return charts::ranking(&title, &ranked.collect::<Vec<_>>(), panel.meaning());
    }
    let line = |node: usize| RangedLine {
        name: panel.nodes[node].clone(),
        values: panel.mean.row(node).to_vec(),
        ranges: panel.ends.row(node).to_vec(),
    };
    let lines: Vec<RangedLine> = (0..panel.nodes.len().min(LINES)).map(line).collect();
    charts::ranged_lines(&title, &panel.revisions, &lines, "revision", panel.meaning())
}

/// Returns the heat map of a panel, nodes by revisions.
fn map(panel: &Panel) -> Chart {
    let shown = panel.nodes.len().min(ROWS);
    let values = panel.mean.slice_axis(Axis(0), Slice::from(..shown));
    let labels = HeatMapLabels {
        rows: ("node", &panel.nodes[..shown]),
        columns: ("revision", &panel.revisions),
        reach: charts::color_limit([values]),
    };
    let ends = panel.ends.slice_axis(Axis(0), Slice::from(..shown)).to_owned();
    let title = format!("{}: {}", panel.table, panel.title());
    charts::effect_map(&title, &values, labels, panel.meaning(), (panel.seeds > 1).then_some(&ends))
}

/// Adds the warnings of the cells.
fn warnings(page: &mut Page, cells: &[Cell], ended: &[Ended]) {
    let all = cells.iter().zip(ended).filter_map(|(cell, ended)| Some((cell, ended.results()?)));
    let lines =
        all.flat_map(|(cell, found)| found.warnings.iter().map(|warning| format!("{}: {warning}", cell.in_words())));
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        return;
    }
    page.section("Warnings of the cells", "Reasons to doubt the numbers of single cells.");
    lines.iter().take(WARNINGS).for_each(|line| page.text(line));
    if lines.len() > WARNINGS {
        page.text(&format!("{} more are in grid.json.", lines.len() - WARNINGS));
    }
}
