//! The table of times: its columns, its rows, and the legend below it.

use rewire_analysis::patching::Cost;

use super::peer::Sharing;
use super::rates::Rates;
use super::seconds::in_words;
use super::timing::{Timed, TimedPeer};
use crate::output::text_table;

/// The optional columns of a table.
pub(super) struct Columns {
    /// Seconds of the first run. Only on a GPU.
    pub(super) first: bool,
    /// The shared part of the model, if the table has the peer's times.
    pub(super) peer: Option<Sharing>,
}

/// The times of the works on one model.
pub(super) struct Table {
    columns: Columns,
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table without rows.
    pub(super) fn new(columns: Columns) -> Self {
        let mut header = vec!["work", "nodes", "seconds", "GFLOP", "GB", "floor, s", "time / floor", "matmul, %"];
        if columns.first {
            header.push("first, s");
        }
        if columns.peer.is_some() {
            header.extend(["TransformerLens, s", "times faster", "largest difference"]);
        }
        Self { columns, header, rows: Vec::new() }
    }

    /// Returns the cells of a timed work that follow its name and its number of nodes.
    pub(super) fn cells(&self, timed: &Timed, cost: Cost, rates: &Rates) -> Vec<String> {
        let mut cells = against_floor(timed.ours, cost, rates).to_vec();
        if self.columns.first {
            cells.push(in_words(timed.first));
        }
        if let (Some(Ok(theirs)), Some(sharing)) = (&timed.theirs, self.columns.peer) {
            cells.extend(against_peer(timed.ours, theirs, sharing));
        }
        cells
    }

    /// Adds a row and returns it as one line. Missing cells become a dash.
    pub(super) fn add(&mut self, mut row: Vec<String>) -> String {
        row.resize(self.header.len(), "-".to_owned());
        let line = format!("{}\n", row.join("  "));
        self.rows.push(row);
        line
    }

    /// Returns the table as text, with a legend of its columns. The peer ran at most `peer_patches`
    /// patches of each work.
    pub(super) fn text(&self, peer_patches: usize) -> String {
        let mut text = format!("\n{}", text_table(&self.header, &self.rows));
        if self.columns.first {
            text += "first, s: time of the first run, which compiles and tunes kernels; the median leaves it out\n";
        }
        text += "seconds: median time; GFLOP: lower bound on matmul operations; GB: lower bound on memory traffic\n";
        text += "floor, s: the longer of GFLOP at the matmul rate and GB at the memory bandwidth\n\
                 matmul, %: GFLOP per second, as a share of the matmul rate\n";
        if let Some(sharing) = self.columns.peer {
            text += &format!("~: estimated from at most {peer_patches} patches, each a whole forward pass\n");
            if sharing == Sharing::Shape {
                text += "TransformerLens has other random weights; only times are compared, not results\n";
            }
        }
        text
    }
}

/// Returns our seconds, the lower bounds on operations and bytes, the floor, our time divided by
/// the floor, and our share of the matmul rate in percent.
fn against_floor(ours: f64, cost: Cost, rates: &Rates) -> [String; 6] {
    let floor = cost.seconds(rates.products, rates.bandwidth);
    let share = 100.0 * cost.operations / rates.products / ours;
    let [operations, bytes] = [format!("{:.0}", cost.operations / 1e9), format!("{:.1}", cost.bytes / 1e9)];
    [in_words(ours), operations, bytes, in_words(floor), format!("{:.2}", ours / floor), format!("{share:.0}")]
}

/// Returns the peer's seconds (with `~` if it ran only some of the patches), the peer's time
/// divided by ours, and the largest difference.
fn against_peer(ours: f64, theirs: &TimedPeer, sharing: Sharing) -> [String; 3] {
    let mark = if theirs.stride > 1 { "~" } else { "" };
    let compared = match sharing {
        Sharing::Weights => format!("{:.0e}", theirs.difference),
        Sharing::Shape => "-".to_owned(),
    };
    [format!("{mark}{}", in_words(theirs.seconds)), format!("{:.1}", theirs.seconds / ours), compared]
}
