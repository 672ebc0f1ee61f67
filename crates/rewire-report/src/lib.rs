//! Saves effects and draws reports.
//!
//! Use this crate to save the results of an analysis. [`write_results`] writes three files:
//! `effects.safetensors` has the numbers, `effects.json` describes the numbers and how they were
//! made, and `effects.csv` has one number per line (without tables of more than [`CSV_LIMIT`]
//! numbers). [`Page`] is one HTML file that needs no other file and no network. [`names`] ranks and
//! names nodes. [`Certainty`] gives errors, intervals and p-values of mean effects. Everything that
//! is drawn can be redrawn from the files. The files of a run appear together or not at all.
//!
//! ```
//! use ndarray::arr2;
//! use rewire_report::{Page, charts::{self, HeatMapLabels}};
//!
//! let effects = arr2(&[[0.1, -0.4], [0.0, 0.7]]);
//! let numbered = |prefix: &str| (0..2).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>();
//! let [layers, heads] = ["L", "H"].map(numbered);
//! let labels = HeatMapLabels { rows: ("layer", &layers), columns: ("head", &heads), reach: 1.0 };
//! let mut page = Page::new("Heads", "which heads matter");
//! page.section("Exact effects", "Share of the behavior that each head restores.");
//! page.chart(charts::heat_map("By head", &effects.view(), labels));
//! assert!(page.render().contains("By head"));
//! ```
#![forbid(unsafe_code)]

pub mod agreement;
mod attention;
mod axis_labels;
mod certainty;
pub mod charts;
mod csv_lines;
mod described_pairs;
mod description;
mod draw;
pub mod edge_agreement;
pub mod edges;
mod error;
mod graph;
pub mod head_edges;
mod labels;
pub mod names;
pub mod noise;
pub mod numbers;
mod page;
mod results;
pub mod screening;
mod tables;
pub mod units;

pub use attention::AttentionMap;
pub use certainty::{Certainty, Columns, describe_clusters};
pub use csv_lines::{AXES, CSV_LIMIT};
pub use described_pairs::MOST_LISTED_PAIRS;
pub use description::SCHEMA;
pub use draw::Draw;
pub use error::ReportError;
pub use graph::drawing::svg;
pub use graph::{Emphasis, Graph, GraphEdge, GraphNode};
pub use labels::{Labels, PairsOrigin};
pub use page::Page;
pub use results::{TABLE_FILES, result_files, write_results};
pub use tables::{About, Quantity, Table, describe_baselines};
