//! The table of times: its columns, its rows, and the text below it.

use rewire_analysis::patching::Cost;

use super::peer::Sharing;
use super::rates::Rates;
use super::seconds::in_words;
use super::timing::{Timed, TimedPeer};
use crate::output::text_table;

/// Which columns a table has beside those that every table has.
pub(super) struct Columns {
    /// Seconds of a first time: on a GPU.
    pub(super) first: bool,
    /// What the peer shares with us, if its times are in the table.
    pub(super) peer: Option<Sharing>,
}

/// The times of the works on one model.
pub(super) struct Table {
    columns: Columns,
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(columns: Columns) -> Self {
        let mut header = vec!["work", "nodes", "seconds", "GFLOP", "GB", "floor, s", "time / floor", "products, %"];
        if columns.first {
            header.push("first, s");
        }
        if columns.peer.is_some() {
            header.extend(["TransformerLens, s", "times faster", "largest difference"]);
        }
        Self { columns, header, rows: Vec::new() }
    }

    /// The cells of a work that was timed, after its name and its number of nodes.
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

    /// Adds a row; a dash stands in each cell that it lacks. Returns the row as one line.
    pub(super) fn add(&mut self, mut row: Vec<String>) -> String {
        row.resize(self.header.len(), "-".to_owned());
        let line = format!("{}\n", row.join("  "));
        self.rows.push(row);
        line
    }

    /// The whole table as text, with the meaning of its columns. The peer ran at most
    /// `peer_patches` patches of a work.
    pub(super) fn text(&self, peer_patches: usize) -> String {
        let mut text = format!("\n{}", text_table(&self.header, &self.rows));
        if self.columns.first {
            text += "first: with what is compiled and tuned once; seconds are of later times\n";
        }
        text += "seconds: the median; GFLOP and GB: what cannot be left out;\n";
        text += "floor: GFLOP at the rate of products or GB at the bandwidth, whichever takes longer; products: share of their rate\n";
        if let Some(sharing) = self.columns.peer {
            text += &format!("~: estimated from at most {peer_patches} patches, each a whole forward\n");
            if sharing == Sharing::Shape {
                text += "TransformerLens has random weights of its own: times are compared, numbers are not\n";
            }
        }
        text
    }
}

/// Seconds, the operations and bytes of the least work, the least time that they take, our time
/// over that, and the share of the rate of matmuls.
fn against_floor(ours: f64, cost: Cost, rates: &Rates) -> [String; 6] {
    let floor = cost.seconds(rates.products, rates.bandwidth);
    let share = 100.0 * cost.operations / rates.products / ours;
    let [operations, bytes] = [format!("{:.0}", cost.operations / 1e9), format!("{:.1}", cost.bytes / 1e9)];
    [in_words(ours), operations, bytes, in_words(floor), format!("{:.2}", ours / floor), format!("{share:.0}")]
}

/// The peer's seconds, marked if it ran only some of the patches; how much faster ours are; and the
/// largest difference.
fn against_peer(ours: f64, theirs: &TimedPeer, sharing: Sharing) -> [String; 3] {
    let mark = if theirs.stride > 1 { "~" } else { "" };
    let compared = match sharing {
        Sharing::Weights => format!("{:.0e}", theirs.difference),
        Sharing::Shape => "-".to_owned(),
    };
    [format!("{mark}{}", in_words(theirs.seconds)), format!("{:.1}", theirs.seconds / ours), compared]
}
