//! Effects to disk and to the eye.
//!
//! Use this crate to keep what an analysis found: [`write_results`] writes `effects.safetensors`
//! (the numbers), `effects.json` (what they are, and how they were made) and `effects.csv` (the
//! same numbers, one a line, but for tables of more than [`CSV_LIMIT`]); [`Page`] is one HTML file
//! that needs nothing else, not even a network. [`names`] ranks and names nodes, and [`Certainty`] says
//! how sure their mean effects are. Data come first: whatever is drawn can be drawn
//! again from the files. The files of a run appear together or not at all.
//!
//! ```
//! use ndarray::arr2;
//! use rewire_report::{Page, charts::{self, HeatMapLabels}};
//!
//! let effects = arr2(&[[0.1, -0.4], [0.0, 0.7]]);
//! let [layers, heads] = ["L", "H"].map(|prefix| (0..2).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>());
//! let labels = HeatMapLabels { rows: ("layer", &layers), columns: ("head", &heads), reach: 1.0 };
//! let mut page = Page::new("Heads", "which heads matter");
//! page.section("Exact effects", "Share of the behavior that each head brings back.");
//! page.chart(charts::heat_map("By head", &effects.view(), labels));
//! assert!(page.render().contains("By head"));
//! ```
#![forbid(unsafe_code)]

pub mod agreement;
mod attention;
mod certainty;
pub mod charts;
mod draw;
mod error;
mod graph;
pub mod head_edges;
mod labels;
pub mod names;
mod page;
mod results;
pub mod screening;
mod tables;

pub use attention::AttentionMap;
pub use certainty::{Certainty, Columns, describe_clusters};
pub use draw::Draw;
pub use error::ReportError;
pub use graph::{Emphasis, Graph, GraphEdge, GraphNode};
pub use labels::Labels;
pub use page::Page;
pub use results::{TABLE_FILES, write_results};
pub use tables::{AXES, About, CSV_LIMIT, Table, describe_baselines};
