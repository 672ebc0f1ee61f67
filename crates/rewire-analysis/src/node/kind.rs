//! Nodes: the parts of a model to intervene on.

use rewire_hooks::{Axis, HookPoint, Site};
use serde::{Deserialize, Serialize};

/// A component of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The residual stream before a block.
    ResidPre,
    /// The residual stream between attention and MLP.
    ResidMid,
    /// The residual stream after a block.
    ResidPost,
    /// The output of attention.
    AttnOut,
    /// The output of the MLP.
    MlpOut,
    /// A head's queries.
    HeadQ,
    /// A head's keys.
    HeadK,
    /// A head's values.
    HeadV,
    /// A head's weighted sum of values, before the output projection (z).
    HeadZ,
    /// The output of a head. It is a linear function of `HeadZ`, and both have the same effect.
    HeadResult,
    /// A head's attention pattern.
    HeadPattern,
    /// An MLP neuron, after its activation function.
    MlpPost,
}

/// How finely a component is divided into nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// All positions together.
    All,
    /// Each position separately; for an attention pattern, each destination.
    Position,
    /// Each cell of an attention pattern separately: destination and source.
    Cell,
    /// One position per prompt, marked by the pairs
    /// ([`PromptPairs::with_marked_positions`](rewire_tasks::PromptPairs::with_marked_positions)),
    /// such as a repeated name or a verb that is at another position in each prompt. For an
    /// attention pattern, the position is the destination.
    Marked,
}

/// A node kind: one component in every layer, divided in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeKind {
    /// The component.
    pub component: Component,
    /// How finely it is divided.
    pub by: By,
}

/// The positions of a node in the prompts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// All positions.
    All,
    /// One position, the same in every prompt; for an attention pattern, the destination.
    One(usize),
    /// One position per prompt, in the order of the pairs.
    Each(Vec<usize>),
    /// One cell of an attention pattern.
    Cell {
        /// The position that attends.
        dest: usize,
        /// The position attended to.
        src: usize,
    },
}

/// A node: one part of a model to intervene on, alone or in a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// The layer.
    pub layer: usize,
    /// The component of the layer.
    pub component: Component,
    /// Index of the head or neuron. `None` for a component that is not divided, and for all heads
    /// or neurons together.
    pub unit: Option<usize>,
    /// The positions in the prompts.
    pub positions: Positions,
}

impl NodeKind {
    /// Returns the kind for a component with all positions together.
    #[must_use]
    pub fn all(component: Component) -> Self {
        Self { component, by: By::All }
    }

    /// Returns the kind for a component with each position separately.
    #[must_use]
    pub fn by_position(component: Component) -> Self {
        Self { component, by: By::Position }
    }

    /// Returns the hook site at which the nodes are patched.
    #[must_use]
    pub fn site(self) -> Site {
        match self.component {
            Component::ResidPre => Site::ResidPre,
            Component::ResidMid => Site::ResidMid,
            Component::ResidPost => Site::ResidPost,
            Component::AttnOut => Site::AttnOut,
            Component::MlpOut => Site::MlpOut,
            Component::HeadQ => Site::Q,
            Component::HeadK => Site::K,
            Component::HeadV => Site::V,
            Component::HeadZ | Component::HeadResult => Site::Z,
            Component::HeadPattern => Site::Pattern,
            Component::MlpPost => Site::MlpPost,
        }
    }

    /// Returns the axes that distinguish the nodes in one layer, in the order of the axes of
    /// [`Effects`](crate::Effects).
    #[must_use]
    pub fn axes(self) -> Vec<Axis> {
        let site = self.site().axes();
        let units = [Axis::Head, Axis::DMlp].into_iter().filter(|a| site.contains(a));
        let positions: &[Axis] = match self.by {
            By::All | By::Marked => &[],
            By::Position => &[Axis::Pos, Axis::Query],
            By::Cell => &[Axis::Query, Axis::Key],
        };
        units.chain(positions.iter().copied().filter(|a| site.contains(a))).collect()
    }

    /// Returns whether there is a node at `index` along the axes of its effects, layer first. In an
    /// attention pattern, no position attends to a later one.
    pub(crate) fn has(self, index: &[usize]) -> bool {
        match (self.by, index) {
            (By::Cell, [.., dest, src]) => src <= dest,
            _ => true,
        }
    }

    /// Returns whether the nodes are heads or parts of heads.
    #[must_use]
    pub fn is_of_heads(self) -> bool {
        self.unit_axis() == Some(Axis::Head)
    }

    /// Returns the axis of the units, heads or neurons.
    pub(crate) fn unit_axis(self) -> Option<Axis> {
        self.site().axes().iter().copied().find(|axis| matches!(axis, Axis::Head | Axis::DMlp))
    }
}

/// Converts a component into its kind with all positions together.
impl From<Component> for NodeKind {
    fn from(component: Component) -> Self {
        Self::all(component)
    }
}

impl Positions {
    /// Returns the position in prompt `prompt`, or `None` for all positions.
    #[must_use]
    pub fn position(&self, prompt: usize) -> Option<usize> {
        match self {
            Positions::All => None,
            Positions::One(position) | Positions::Cell { dest: position, .. } => Some(*position),
            Positions::Each(positions) => positions.get(prompt).copied(),
        }
    }

    /// Returns the positions for the prompts `from .. from + len` alone.
    pub(crate) fn of_prompts(&self, from: usize, len: usize) -> Self {
        match self {
            Positions::Each(positions) => Positions::Each(positions[from..from + len].to_vec()),
            other => other.clone(),
        }
    }
}

impl Node {
    /// Returns the node for a whole component of a layer.
    #[must_use]
    pub fn new(layer: usize, component: Component) -> Self {
        Self { layer, component, unit: None, positions: Positions::All }
    }

    /// Returns the node for head or neuron `unit` of this component.
    #[must_use]
    pub fn unit(self, unit: usize) -> Self {
        Self { unit: Some(unit), ..self }
    }

    /// Returns the name for tables and charts, in which a head needs no component: `L9H6`,
    /// `mlp_out:L3`, `L9H6@14`.
    #[must_use]
    pub fn short_name(&self) -> String {
        let is_head = NodeKind::all(self.component).unit_axis() == Some(Axis::Head);
        match self.unit {
            Some(unit) if is_head => format!("L{}H{unit}{}", self.layer, self.positions),
            _ => self.to_string(),
        }
    }

    /// Returns the hook point at which the node is replaced.
    #[must_use]
    pub fn point(&self) -> HookPoint {
        HookPoint::block(self.layer, NodeKind::all(self.component).site())
    }

    /// Returns the node at these positions.
    #[must_use]
    pub fn at(self, positions: Positions) -> Self {
        Self { positions, ..self }
    }
}

/// Returns the names of the nodes in a group, separated by commas.
pub(crate) fn named(group: &[Node]) -> String {
    group.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effect_axes_are_units_then_positions() {
        assert_eq!(NodeKind::by_position(Component::ResidPre).axes(), [Axis::Pos]);
        assert_eq!(NodeKind::by_position(Component::HeadPattern).axes(), [Axis::Head, Axis::Query]);
        let cells = NodeKind { component: Component::HeadPattern, by: By::Cell };
        assert_eq!(cells.axes(), [Axis::Head, Axis::Query, Axis::Key]);
        assert_eq!(NodeKind::all(Component::MlpPost).axes(), [Axis::DMlp]);
    }
}
