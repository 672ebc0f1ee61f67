//! The table of times: its columns, its rows, and the legend below it.

use super::measured::{AgainstPeer, Measured};
use super::peer::Sharing;
use super::seconds::in_words;
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
        let mut header = vec!["work", "nodes", "time / floor"];
        if columns.peer.is_some() {
            header.push("times faster");
        }
        header.extend(["seconds", "floor, s", "GFLOP", "GB", "matmul, %"]);
        if columns.first {
            header.push("first, s");
        }
        if columns.peer.is_some() {
            header.extend(["TransformerLens, s", "largest difference"]);
        }
        Self { columns, header, rows: Vec::new() }
    }

    /// Adds the figures of a work and returns its row as one line.
    pub(super) fn add(&mut self, measured: &Measured) -> String {
        let peer = measured.transformer_lens.as_ref();
        let of_peer = |cell: fn(&AgainstPeer) -> String| peer.map_or_else(|| "-".to_owned(), cell);
        let mut row = vec![measured.work.clone(), measured.nodes.to_string()];
        row.push(format!("{:.2}", measured.time_over_floor));
        if self.columns.peer.is_some() {
            row.push(of_peer(|peer| format!("{:.1}", peer.times_faster)));
        }
        row.extend([
            in_words(measured.seconds),
            in_words(measured.floor_seconds),
            format!("{:.0}", measured.operations / 1e9),
            format!("{:.1}", measured.bytes / 1e9),
            format!("{:.0}", 100.0 * measured.share_of_matmul_rate),
        ]);
        if self.columns.first {
            row.push(measured.first_seconds.map_or_else(|| "-".to_owned(), in_words));
        }
        if self.columns.peer.is_some() {
            row.push(of_peer(|peer| {
                format!("{}{}", if peer.is_extrapolated { "~" } else { "" }, in_words(peer.seconds))
            }));
            row.push(of_peer(|peer| peer.largest_difference.map_or_else(|| "-".to_owned(), |d| format!("{d:.0e}"))));
        }
        self.push(row)
    }

    /// Adds a row of dashes for a work that failed, and returns it as one line.
    pub(super) fn add_failed(&mut self, work: String, nodes: usize) -> String {
        self.push(vec![work, nodes.to_string()])
    }

    fn push(&mut self, mut row: Vec<String>) -> String {
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
        text += "time / floor: median time over the floor, which other machines can be compared by\n";
        text += "floor, s: the longer of GFLOP at the matmul rate and GB at the memory bandwidth\n\
                 GFLOP: lower bound on matmul operations; GB: lower bound on memory traffic\n\
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
