//! Plans the patches of a sweep and divides them into passes.
//!
//! A patch of one node changes the residual stream by a known amount at one [`Entry`], and its run
//! starts there. Patches that start at one position run in one batch. With
//! [`LayerBatching::PerLayer`], a batch has the patches of one entry. With
//! [`LayerBatching::AllLayers`], a batch has the patches of all entries, and each row joins the run
//! at its entry.

use crate::node::index::{positions_of, units};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_model::{RunStart, TransformerConfig};

use crate::node::index::{NodeIndex, effect_index};
use crate::node::kind::{Component, Node, NodeKind, Positions};
use crate::run::batch::PromptBatch;
use crate::run::execution::LayerBatching;

/// The point at which a changed residual stream enters the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Before this block; `n_layers` stands for the point before the final norm.
    Pre(usize),
    /// Between attention and MLP of this block.
    Mid(usize),
}

/// Nodes of one kind, layer and position that differ only in their head or neuron.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitSlice {
    /// Index of the kind in the sweep's list of kinds.
    pub(crate) kind: usize,
    pub(crate) layer: usize,
    pub(crate) positions: Positions,
    pub(crate) units: Range<usize>,
}

/// Patches that run in one batch. The patches of the first part start the run; later parts join it
/// at their entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedPass {
    /// The first computed position.
    pub(crate) first: usize,
    /// Parts from shallow to deep entries.
    pub(crate) parts: Vec<EntryGroup>,
}

/// Patches of a pass that share one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryGroup {
    pub(crate) entry: Entry,
    pub(crate) slices: Vec<UnitSlice>,
}

impl Entry {
    /// Starts a run at this entry with this residual stream, `[row, pos, d_model]`.
    pub(crate) fn start<B: Backend>(self, residual: Tensor<B, 3>) -> RunStart<B> {
        match self {
            Entry::Mid(layer) => RunStart::ResidMid { layer, residual },
            Entry::Pre(layer) => RunStart::Residual { layer, residual },
        }
    }

    /// Returns the depth of the entry, in halves of a block.
    pub(crate) fn depth(self) -> usize {
        match self {
            Entry::Pre(layer) => 2 * layer,
            Entry::Mid(layer) => 2 * layer + 1,
        }
    }

    /// Returns the entry at which a patch of `component` in `layer` first changes the residual
    /// stream.
    pub(crate) fn of(component: Component, layer: usize, config: &TransformerConfig) -> Self {
        match component {
            Component::ResidPre => Entry::Pre(layer),
            Component::ResidPost | Component::MlpOut | Component::MlpPost => Entry::Pre(layer + 1),
            Component::ResidMid => Entry::Mid(layer),
            _ if config.parallel_block => Entry::Pre(layer + 1),
            _ => Entry::Mid(layer),
        }
    }
}

impl EntryGroup {
    /// Returns the number of patches.
    pub(crate) fn variants(&self) -> usize {
        self.slices.iter().map(|s| s.units.len()).sum()
    }
}

impl PlannedPass {
    /// Builds a pass of `variants` patches that share one entry, without real nodes; used to
    /// compute costs.
    pub(crate) fn of_one_entry(entry: Entry, first: usize, variants: usize) -> Self {
        let slice = UnitSlice { kind: 0, layer: 0, positions: Positions::All, units: 0..variants };
        Self { first, parts: vec![EntryGroup { entry, slices: vec![slice] }] }
    }

    /// Returns the number of patches.
    pub(crate) fn variants(&self) -> usize {
        self.parts.iter().map(EntryGroup::variants).sum()
    }

    /// Returns the slices in the order of the pass's rows.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &UnitSlice> {
        self.parts.iter().flat_map(|part| &part.slices)
    }

    /// Describes the pass for its checkpoint id. The text for a pass must stay the same in every
    /// version. `kinds` are the sweep's kinds.
    pub(crate) fn describe(&self, kinds: &[NodeKind]) -> String {
        let slice = |UnitSlice { kind, layer, positions, units }: &UnitSlice| {
            let (component, unit) = (kinds[*kind].component, Some(units.start));
            let first = Node { layer: *layer, component, unit, positions: positions.clone() };
            format!("{first} and {} more", units.len() - 1)
        };
        let slices: Vec<_> = self.slices().map(slice).collect();
        format!("from position {}: {}", self.first, slices.join(", "))
    }

    /// Returns the part of the pass with these patches, counted in the order of the slices.
    pub(crate) fn part(&self, patches: Range<usize>) -> Self {
        let mut before = 0;
        let mut parts = Vec::new();
        for part in &self.parts {
            let mut slices = Vec::new();
            for slice in &part.slices {
                let of_slice = before..before + slice.units.len();
                let (from, to) = (patches.start.max(of_slice.start), patches.end.min(of_slice.end));
                if from < to {
                    let start = slice.units.start + from - before;
                    slices.push(UnitSlice { units: start..start + to - from, ..slice.clone() });
                }
                before = of_slice.end;
            }
            if !slices.is_empty() {
                parts.push(EntryGroup { entry: part.entry, slices });
            }
        }
        Self { first: self.first, parts }
    }
}

/// Plans the passes over one prompt batch, for the chosen nodes or for all nodes.
///
/// The plan is the same on every machine for the same kinds, pairs, token budget and layers.
pub(crate) fn plan(
    kinds: &[NodeKind],
    config: &TransformerConfig,
    batch: &PromptBatch,
    chosen: Option<&BTreeSet<NodeIndex>>,
    token_budget: usize,
    layers: LayerBatching,
) -> Vec<PlannedPass> {
    // Grouped by first position, then by depth of the entry.
    let mut by_start: BTreeMap<usize, BTreeMap<usize, EntryGroup>> = BTreeMap::new();
    for layer in 0..config.n_layers {
        for (index_of_kind, &kind) in kinds.iter().enumerate() {
            let entry = Entry::of(kind.component, layer, config);
            for positions in positions_of(kind, &batch.pairs) {
                let Some(first) = batch.first_changed(kind.component, layer, config, &positions) else { continue };
                let wanted = |unit: usize| {
                    let unit = kind.unit_axis().map(|_| unit);
                    chosen.is_none_or(|chosen| {
                        let index = effect_index(0, layer, unit, &positions)[1..].to_vec();
                        chosen.contains(&NodeIndex { kind: index_of_kind, index })
                    })
                };
                let of_first = by_start.entry(first).or_default();
                let part = of_first.entry(entry.depth()).or_insert(EntryGroup { entry, slices: Vec::new() });
                for units in runs_of(units(kind, config), wanted) {
                    part.slices.push(UnitSlice { kind: index_of_kind, layer, positions: positions.clone(), units });
                }
            }
        }
    }
    let mut passes = Vec::new();
    for (first, parts) in by_start {
        let at_once = at_once(config, batch, first, token_budget);
        let parts: Vec<EntryGroup> = parts.into_values().filter(|part| !part.slices.is_empty()).collect();
        let together: Vec<Vec<EntryGroup>> = match layers {
            LayerBatching::PerLayer => parts.into_iter().map(|part| vec![part]).collect(),
            LayerBatching::AllLayers => vec![parts],
        };
        for parts in together.into_iter().filter(|parts| !parts.is_empty()) {
            passes.extend(chunks(PlannedPass { first, parts }, at_once));
        }
    }
    // Long runs come first: otherwise one thread could start a long run when all others are done.
    passes.sort_by_key(|pass| (pass.parts.first().map(|part| part.entry.depth()), pass.first));
    passes
}

/// Returns how many patches that start at `first` fit into one batch.
///
/// The token budget bounds the tokens, and also the logits if the metric reads many logits.
pub(crate) fn at_once(config: &TransformerConfig, batch: &PromptBatch, first: usize, token_budget: usize) -> usize {
    let tokens = batch.prompts.len() * (batch.pairs.width() - first);
    let logits = batch.prompts.len() * batch.reads_per_prompt() * batch.columns(config);
    (token_budget / tokens.max(1)).min(token_budget * config.d_mlp / logits.max(1)).max(1)
}

/// Returns the wanted numbers below `n` as maximal ranges of consecutive numbers.
fn runs_of(n: usize, wanted: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for i in (0..n).filter(|&i| wanted(i)) {
        match runs.last_mut() {
            Some(run) if run.end == i => run.end += 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

/// Cuts a pass into passes of at most `size` patches each.
fn chunks(pass: PlannedPass, size: usize) -> Vec<PlannedPass> {
    // Passes have equal sizes, because the largest bounds the memory and the smallest the speed.
    let total = pass.variants();
    let size = total.div_ceil(total.div_ceil(size).max(1)).max(1);
    (0..total).step_by(size).map(|from| pass.part(from..total.min(from + size))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(units: Range<usize>) -> UnitSlice {
        UnitSlice { kind: 0, layer: 0, positions: Positions::All, units }
    }

    fn pass(parts: &[&[(usize, usize)]]) -> PlannedPass {
        let part = |(layer, units): (usize, &&[(usize, usize)])| {
            let slices = units.iter().map(|&(from, to)| slice(from..to)).collect();
            EntryGroup { entry: Entry::Pre(layer), slices }
        };
        PlannedPass { first: 0, parts: parts.iter().enumerate().map(part).collect() }
    }

    /// Returns the depth and the units of each slice.
    fn units(pass: &PlannedPass) -> Vec<(usize, usize, usize)> {
        let of_part = |part: &EntryGroup| {
            let depth = part.entry.depth();
            part.slices.iter().map(move |s| (depth, s.units.start, s.units.end)).collect::<Vec<_>>()
        };
        pass.parts.iter().flat_map(of_part).collect()
    }

    #[test]
    fn chunks_are_even_and_cover_everything() {
        let sizes = |parts: &[&[(usize, usize)]], size| chunks(pass(parts), size).iter().map(units).collect::<Vec<_>>();
        assert_eq!(sizes(&[&[(0, 5)]], 4), [[(0, 0, 3)], [(0, 3, 5)]]);
        assert_eq!(sizes(&[&[(0, 2), (0, 4)]], 3), [vec![(0, 0, 2), (0, 0, 1)], vec![(0, 1, 4)]]);
        assert_eq!(sizes(&[&[(0, 2)]], 9), [[(0, 0, 2)]]);
        assert_eq!(sizes(&[&[(0, 2)], &[(0, 3)]], 4), [vec![(0, 0, 2), (2, 0, 1)], vec![(2, 1, 3)]]);
    }

    #[test]
    fn splitting_a_pass_keeps_its_patches_in_order() {
        let pass = pass(&[&[(2, 5)], &[(0, 4)]]);
        assert_eq!(units(&pass.part(0..7)), [(0, 2, 5), (2, 0, 4)]);
        assert_eq!(units(&pass.part(1..3)), [(0, 3, 5)]);
        assert_eq!(units(&pass.part(2..5)), [(0, 4, 5), (2, 0, 2)]);
        assert_eq!(units(&pass.part(6..7)), [(2, 3, 4)]);
    }

    #[test]
    fn entries_sort_by_depth() {
        let order = [Entry::Pre(0), Entry::Mid(0), Entry::Pre(1), Entry::Mid(1), Entry::Pre(2)];
        assert_eq!(order.map(Entry::depth), [0, 1, 2, 3, 4]);
    }
}
