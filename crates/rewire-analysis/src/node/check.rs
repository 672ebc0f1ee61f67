//! Checks that a model and its prompts have the nodes.

use rewire_hooks::Axis;
use rewire_model::TransformerConfig;
use rewire_tasks::PromptPairs;

use crate::error::AnalysisError;
use crate::node::kind::{By, Component, Node, NodeKind, Positions};

impl NodeKind {
    /// Refuses a node kind that the model or the pairs do not have.
    pub(crate) fn check(self, config: &TransformerConfig, pairs: &PromptPairs) -> Result<(), AnalysisError> {
        if self.by == By::Marked && pairs.marked_positions().is_none() {
            return Err(AnalysisError::NoMarks { node: self });
        }
        if self.component == Component::ResidMid && config.parallel_block {
            let reason = "attention and MLP run in parallel, so nothing lies between them";
            return Err(AnalysisError::MissingNode { node: self, reason });
        }
        if self.by == By::Cell && self.component != Component::HeadPattern {
            let reason = "only attention patterns have cells";
            return Err(AnalysisError::MissingNode { node: self, reason });
        }
        Ok(())
    }
}

impl Node {
    /// Refuses a node that the model or the prompts do not have.
    pub(crate) fn check(&self, config: &TransformerConfig, pairs: &PromptPairs) -> Result<(), AnalysisError> {
        let by = if matches!(self.positions, Positions::Cell { .. }) { By::Cell } else { By::All };
        let kind = NodeKind { component: self.component, by };
        kind.check(config, pairs)?;
        let n_heads = config.heads_at(kind.site());
        let heads = kind.is_of_heads().then_some([config.n_layers, n_heads]);
        let outside =
            |what, found, bound| AnalysisError::OutsideModel { node: self.to_string(), what, found, bound, heads };
        let inside = |what, found, bound| if found < bound { Ok(()) } else { Err(outside(what, found, bound)) };
        inside("layer", self.layer, config.n_layers)?;
        match (self.unit, kind.unit_axis()) {
            (Some(unit), Some(Axis::Head)) => inside("head", unit, n_heads)?,
            (Some(unit), Some(_)) => inside("neuron", unit, config.d_mlp)?,
            (Some(unit), None) => inside("part", unit, 0)?,
            (None, _) => {}
        }
        if let Positions::Each(positions) = &self.positions
            && positions.len() != pairs.len()
        {
            let (found, expected) = (positions.len(), pairs.len());
            return Err(AnalysisError::PositionsOfOtherPairs { node: self.to_string(), expected, found });
        }
        for prompt in 0..pairs.len() {
            if let Some(position) = self.positions.position(prompt) {
                let bound =
                    if matches!(self.positions, Positions::Each(_)) { pairs.end(prompt) + 1 } else { pairs.width() };
                inside("position", position, bound)?;
            }
        }
        if let Positions::Cell { src, .. } = self.positions {
            inside("source", src, pairs.width())?;
        }
        Ok(())
    }
}
