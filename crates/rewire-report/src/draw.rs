//! Draws and saves effects, for programs that call the library.

use std::path::Path;

use ndarray::{Array2, ArrayD};
use rewire_analysis::{Effects, Outcome, Reduce};
use rewire_store::{OutputDirectory, Waiting};

use crate::charts::{HeatMapLabels, Meaning, color_limit, effect_map};
use crate::error::ReportError;
use crate::noise;
use crate::numbers::number;
use crate::page::Page;
use crate::results::{TABLE_FILES, write_results};
use crate::tables::{About, Quantity, Table, describe_baselines};
use crate::units::unit;

/// Name of the page that [`Draw::save`] writes beside the tables.
const REPORT: &str = "report.html";

/// Draws and saves results.
///
/// ```
/// use ndarray::array;
/// use rewire_analysis::Effects;
/// use rewire_analysis::node::{Component, NodeKind};
/// use rewire_report::Draw;
///
/// let kind = NodeKind::all(Component::HeadZ);
/// let effects = Effects::new(kind, array![[[0.5, -0.1]]].into_dyn(), vec![15]);
/// let page = effects.heat_map();
/// assert!(page.render().contains("head_z"));
/// ```
pub trait Draw {
    /// Returns a page with a heat map of mean effects. Blue supports the behavior and red opposes
    /// it; without a method, blue is above 0. Each layer is a row (each head, for heads by
    /// position). Effects that may be float32 rounding are not drawn.
    fn heat_map(&self) -> Page;

    /// Writes `effects.safetensors` (float32, mean effects), `effects.csv`, `effects.json` (their
    /// description) and `report.html` into a directory. Creates the directory if it does not exist.
    /// The files appear together.
    ///
    /// # Errors
    /// [`ReportError`], if the directory cannot be written, another run is writing to it, or a file
    /// that Rewire did not write is in the way.
    fn save(&self, directory: impl AsRef<Path>) -> Result<(), ReportError>;
}

impl Draw for Outcome {
    fn heat_map(&self) -> Page {
        let mut page = Page::new("Effects", &format!("{}, {}, metric {}", self.method, self.direction, self.metric));
        let [clean, corrupted] = self.baselines.means();
        let unit = unit(self.metric, self.scale);
        let baselines = format!("{}: clean {}, corrupted {}.", self.metric, number(clean), number(corrupted));
        page.section("Mean effects", &format!("{baselines} Effects are in this unit: {unit}."));
        self.effects.iter().for_each(|effects| add(&mut page, effects, Meaning::of(self)));
        page
    }

    fn save(&self, directory: impl AsRef<Path>) -> Result<(), ReportError> {
        let table = |effects: &Effects| Table::new(effects.kind.to_string(), effects, Reduce::Mean, self);
        let tables = self.effects.iter().map(table).collect();
        let about = About {
            metric: self.metric.to_owned(),
            baselines: describe_baselines(&self.baselines),
            warnings: self.warnings().iter().map(ToString::to_string).collect(),
            ..About::this_program()
        };
        write(directory.as_ref(), tables, &about, &self.heat_map())
    }
}

impl Draw for Effects {
    fn heat_map(&self) -> Page {
        let mut page = Page::new("Effects", &self.kind.to_string());
        page.section("Mean effects", "Means over prompts.");
        add(&mut page, self, Meaning::default());
        page
    }

    fn save(&self, directory: impl AsRef<Path>) -> Result<(), ReportError> {
        let table = Table {
            name: self.kind.to_string(),
            axes: self.axis_names()[1..].iter().map(|axis| (*axis).to_owned()).collect(),
            values: self.mean(),
            quantity: Quantity::Effect,
            prompts_by_position: self.prompts_by_position(),
            ..Table::default()
        };
        write(directory.as_ref(), vec![table], &About::this_program(), &self.heat_map())
    }
}

fn write(directory: &Path, tables: Vec<Table>, about: &About, page: &Page) -> Result<(), ReportError> {
    let [a, b, c] = TABLE_FILES;
    let directory = OutputDirectory::take(directory, &[a, b, c, REPORT], "saving effects", Waiting::Refuse)?;
    write_results(&directory, &tables, about, vec![(REPORT, page.render().into_bytes())])
}

/// Adds a heat map of mean effects with the names of its rows and columns, or the reason why there
/// is none.
fn add(page: &mut Page, effects: &Effects, meaning: Meaning) {
    let (names, map) = rows(effects);
    if noise::is_all_below(&map.view(), meaning.floor) {
        page.text(&format!("{}: {}", effects.kind, noise::all_below(meaning.floor)));
        return;
    }
    let axes = effects.axis_names();
    let last = axes.last().filter(|_| axes.len() > 2).copied().unwrap_or("");
    let prefix = match last {
        "head" => "H",
        "neuron" => "N",
        _ => "",
    };
    let columns: Vec<String> = match axes.len() {
        2 => vec![String::new()],
        _ => (0..map.ncols()).map(|column| format!("{prefix}{column}")).collect(),
    };
    let labels = HeatMapLabels { rows: (axes[1], &names), columns: (last, &columns), reach: color_limit([map.view()]) };
    page.chart(effect_map(&effects.kind.to_string(), &map.view(), labels, meaning, None));
}

/// Returns the names of the rows, and mean effects as a matrix whose columns are the last axis.
fn rows(effects: &Effects) -> (Vec<String>, Array2<f32>) {
    let mean: ArrayD<f32> = effects.mean();
    let (rows, columns) = match mean.shape() {
        [layers] => (vec![*layers], 1),
        [rows @ .., columns] => (rows.to_vec(), *columns),
        [] => (vec![1], 1),
    };
    let n_rows: usize = rows.iter().product();
    let name = |row: usize| match rows[..] {
        _ if !effects.nodes.is_empty() => match n_rows / effects.nodes.len() {
            1 => effects.nodes[row].to_string(),
            of_node => format!("{} {}", effects.nodes[row / of_node], row % of_node),
        },
        [_] => format!("L{row}"),
        [_, units] => format!("L{}H{}", row / units, row % units),
        [_, units, positions] => {
            format!("L{}H{} {}", row / (units * positions), row / positions % units, row % positions)
        }
        _ => row.to_string(),
    };
    let values = mean.into_iter().collect();
    let map = Array2::from_shape_vec((n_rows, columns), values).expect("as many numbers as the axes have places");
    ((0..n_rows).map(name).collect(), map)
}
