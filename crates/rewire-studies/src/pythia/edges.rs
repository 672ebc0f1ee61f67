//! The paths between heads.

use std::collections::HashSet;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use ndarray::Axis;
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{EdgeAttributionOptions, NormJacobian, edge_attribution};
use rewire_analysis::path::{Edge, FreezePolicy, HeadEdges, Input, head_edges};
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_hooks::Head;
use rewire_model::Transformer;
use rewire_tasks::LogitDiff;

use super::data::Data;
use super::settings::Settings;
use crate::{Setup, StudyError};

/// Largest number of edges of a model for which all edges are patched exactly.
const ALL: usize = 2000;

/// The effects of the paths between heads.
#[derive(Debug, Clone)]
pub struct Edges {
    /// The edges that were patched exactly.
    pub exact: HeadEdges,
    /// Number of edges of the model.
    pub all: usize,
    /// The kept edges with their mean effects, largest first.
    pub pruned: Vec<(Edge, f32)>,
    /// The smallest absolute effect of a kept edge.
    pub threshold: f32,
}

/// Patches every edge exactly. If there are more than [`ALL`] edges, patches only those of largest
/// attribution.
///
/// With grouped-query attention, an edge is patched into the keys or values of a whole group of
/// heads, and attribution has one edge for each head of the group. Of these, only the one of
/// largest attribution is patched.
pub(super) fn find<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    data: &Data,
    settings: &Settings,
) -> Result<Edges, StudyError> {
    let config = model.config();
    let (layers, heads) = (config.n_layers, config.n_heads);
    let every: Vec<Head> = (0..layers).flat_map(|layer| (0..heads).map(move |head| Head::new(layer, head))).collect();
    let all = Edge::between(&every);
    let n_all = all.len();
    let metric = LogitDiff::new(&data.pairs);
    let question = Question::new(&data.pairs, &metric);
    let execution = setup.execution(model, data.pairs.width());
    let chosen = match n_all {
        0..=ALL => all,
        _ => {
            let path_options = EdgeAttributionOptions { norm: NormJacobian::Exact, reduce: Reduce::Mean };
            let paths = setup.step("attribution of all paths", |progress| {
                edge_attribution(
                    model,
                    question,
                    path_options,
                    Direction::Noising,
                    &Execution { progress, ..execution },
                )
            })?;
            // [layer_end, head_end, input, layer_start, head_start]
            let sums = paths.mean().sum_axis(Axis(5));
            let size = |edge: &Edge| {
                let input = [Input::Q, Input::K, Input::V].iter().position(|input| *input == edge.input).unwrap_or(0);
                sums[[edge.to.layer, edge.to.head, input, edge.from.layer, edge.from.head]].abs()
            };
            let mut ranked: Vec<(Edge, f32)> = all.into_iter().map(|edge| (edge, size(&edge))).collect();
            ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
            let mut seen = HashSet::new();
            let mut is_first = |edge: &Edge| {
                let sharing = if edge.input == Input::Q { 1 } else { config.heads_per_key_value_head() };
                seen.insert((edge.from, edge.to.layer, edge.to.head / sharing, edge.input))
            };
            ranked.into_iter().map(|(edge, _)| edge).filter(|edge| is_first(edge)).take(settings.edges).collect()
        }
    };
    let exact = setup.step("paths between heads", |progress| {
        let execution = Execution { progress, ..execution };
        head_edges(&model.valid(), question, &chosen, FreezePolicy::path_patching(), Direction::Noising, &execution)
    })?;
    let largest = exact.outcome.mean().iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let threshold = settings.edge_threshold.unwrap_or(0.1 * largest);
    let pruned = exact.pruned(threshold);
    Ok(Edges { exact, all: n_all, pruned, threshold })
}
