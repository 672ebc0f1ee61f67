//! What is intervened on.

use rewire_hooks::HookPoint;
use std::fmt;
use std::str::FromStr;

use rewire_hooks::{Axis, Site};
use serde::{Deserialize, Serialize};

/// A component of every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The residual stream before a block.
    ResidPre,
    /// The residual stream between attention and MLP.
    ResidMid,
    /// The residual stream after a block.
    ResidPost,
    /// What attention writes.
    AttnOut,
    /// What the MLP writes.
    MlpOut,
    /// A head's queries.
    HeadQ,
    /// A head's keys.
    HeadK,
    /// A head's values.
    HeadV,
    /// A head's mixed values.
    HeadZ,
    /// What a head writes; its effect is that of its mixed values, of which it is a linear image.
    HeadResult,
    /// A head's attention pattern.
    HeadPattern,
    /// An MLP neuron, after its activation function.
    MlpPost,
}

/// The components by the names that commands and files give them.
const COMPONENT_NAMES: [(Component, &str); 12] = [
    (Component::ResidPre, "resid_pre"),
    (Component::ResidMid, "resid_mid"),
    (Component::ResidPost, "resid_post"),
    (Component::AttnOut, "attn_out"),
    (Component::MlpOut, "mlp_out"),
    (Component::HeadQ, "head_q"),
    (Component::HeadK, "head_k"),
    (Component::HeadV, "head_v"),
    (Component::HeadZ, "head_z"),
    (Component::HeadResult, "head_result"),
    (Component::HeadPattern, "head_pattern"),
    (Component::MlpPost, "mlp_post"),
];

/// How finely a component is divided into nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// All positions together.
    All,
    /// Each position apart (of an attention pattern: each destination).
    Position,
    /// Each cell of an attention pattern apart: destination and source.
    Cell,
    /// One position a prompt, which its pairs mark ([`PromptPairs::with_marked_positions`](rewire_tasks::PromptPairs::with_marked_positions)): the
    /// repeated name, the verb, whatever stands at another place in each (of an attention pattern: the destination).
    Marked,
}

/// All nodes of one kind: one component, in every layer, divided in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeKind {
    /// The component.
    pub component: Component,
    /// How finely it is divided.
    pub by: By,
}

/// Where in the prompts a node is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// Everywhere.
    All,
    /// At one position, the same in every prompt (of an attention pattern: the destination).
    One(usize),
    /// At one position a prompt, in the order of the pairs.
    Each(Vec<usize>),
    /// One cell of an attention pattern.
    Cell {
        /// The position that attends.
        dest: usize,
        /// The position attended to.
        src: usize,
    },
}

/// One thing to intervene on, alone or in a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Its layer.
    pub layer: usize,
    /// What it is of that layer.
    pub component: Component,
    /// Which head or neuron; `None` for the components that are not divided, and for all of them together.
    pub unit: Option<usize>,
    /// Where in the prompts.
    pub positions: Positions,
}

/// A string that names no component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no node kind `{0}`; there are {names}", names = COMPONENT_NAMES.map(|(_, n)| n).join(", "))]
pub struct ParseNodeError(pub String);

impl NodeKind {
    /// The component, all positions together.
    #[must_use]
    pub fn all(component: Component) -> Self {
        Self { component, by: By::All }
    }

    /// The component, each position apart.
    #[must_use]
    pub fn by_position(component: Component) -> Self {
        Self { component, by: By::Position }
    }

    /// The hook site at which it is patched.
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

    /// What tells its nodes in one layer apart, in the order of the effects' axes.
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

    /// Whether there is a node at `index` along the axes of its effects, layer first: nothing attends to what comes after it.
    pub(crate) fn has(self, index: &[usize]) -> bool {
        match (self.by, index) {
            (By::Cell, [.., dest, src]) => src <= dest,
            _ => true,
        }
    }

    /// Whether its nodes are heads, or parts of them.
    #[must_use]
    pub fn is_of_heads(self) -> bool {
        self.unit_axis() == Some(Axis::Head)
    }

    /// The axis along which its units lie, heads or neurons.
    pub(crate) fn unit_axis(self) -> Option<Axis> {
        self.site().axes().iter().copied().find(|axis| matches!(axis, Axis::Head | Axis::DMlp))
    }
}

/// All positions together.
impl From<Component> for NodeKind {
    fn from(component: Component) -> Self {
        Self::all(component)
    }
}

impl Positions {
    /// The position in prompt `prompt`, if it is one.
    #[must_use]
    pub fn position(&self, prompt: usize) -> Option<usize> {
        match self {
            Positions::All => None,
            Positions::One(position) | Positions::Cell { dest: position, .. } => Some(*position),
            Positions::Each(positions) => positions.get(prompt).copied(),
        }
    }

    /// The same for the prompts `from .. from + len` alone.
    pub(crate) fn of_prompts(&self, from: usize, len: usize) -> Self {
        match self {
            Positions::Each(positions) => Positions::Each(positions[from..from + len].to_vec()),
            other => other.clone(),
        }
    }
}

impl Node {
    /// A whole component of a layer.
    #[must_use]
    pub fn new(layer: usize, component: Component) -> Self {
        Self { layer, component, unit: None, positions: Positions::All }
    }

    /// Its head or neuron `unit`.
    #[must_use]
    pub fn unit(self, unit: usize) -> Self {
        Self { unit: Some(unit), ..self }
    }

    /// Its name for tables and charts, in which a head needs no component: `L9H6`, `L3 mlp_out`,
    /// `L9H6 @ 14`.
    #[must_use]
    pub fn short_name(&self) -> String {
        let is_head = NodeKind::all(self.component).unit_axis() == Some(Axis::Head);
        match self.unit {
            Some(unit) if is_head => format!("L{}H{unit}{}", self.layer, self.positions),
            _ => self.to_string(),
        }
    }

    /// The hook point at which it is replaced.
    #[must_use]
    pub fn point(&self) -> HookPoint {
        HookPoint::block(self.layer, NodeKind::all(self.component).site())
    }

    /// At these positions.
    #[must_use]
    pub fn at(self, positions: Positions) -> Self {
        Self { positions, ..self }
    }
}

/// `L9H6 head_z`, `L3 mlp_post 17`, with `@ 4` for a position.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Node { layer, component, .. } = self;
        let is_head = NodeKind::all(*component).unit_axis() == Some(Axis::Head);
        match self.unit {
            Some(unit) if is_head => write!(f, "L{layer}H{unit} {component}")?,
            Some(unit) => write!(f, "L{layer} {component} {unit}")?,
            None => write!(f, "L{layer} {component}")?,
        }
        write!(f, "{}", self.positions)
    }
}

/// What follows a node's name: nothing for all positions, ` @ 4` for one.
impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Positions::All => Ok(()),
            Positions::One(position) => write!(f, " @ {position}"),
            Positions::Each(_) => write!(f, " @ marked"),
            Positions::Cell { dest, src } => write!(f, " @ {dest}<-{src}"),
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(COMPONENT_NAMES[*self as usize].1)
    }
}

impl FromStr for Component {
    type Err = ParseNodeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = COMPONENT_NAMES.iter().find(|(_, n)| *n == name).map(|(component, _)| *component);
        found.ok_or_else(|| ParseNodeError(name.to_owned()))
    }
}

/// The name of its tensor on disk: `head_z`, `head_z@position`, `head_pattern@cell`.
impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            By::All => write!(f, "{}", self.component),
            By::Position => write!(f, "{}@position", self.component),
            By::Cell => write!(f, "{}@cell", self.component),
            By::Marked => write!(f, "{}@marked", self.component),
        }
    }
}

/// The nodes of a group, in words.
pub(crate) fn named(group: &[Node]) -> String {
    group.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (component, name) in COMPONENT_NAMES {
            assert_eq!((name.parse(), component.to_string().as_str()), (Ok(component), name));
        }
        assert_eq!("head_x".parse::<Component>(), Err(ParseNodeError("head_x".to_owned())));
        assert_eq!(NodeKind::by_position(Component::HeadZ).to_string(), "head_z@position");
    }

    #[test]
    fn axes_are_units_then_positions() {
        assert_eq!(NodeKind::by_position(Component::ResidPre).axes(), [Axis::Pos]);
        assert_eq!(NodeKind::by_position(Component::HeadPattern).axes(), [Axis::Head, Axis::Query]);
        let cells = NodeKind { component: Component::HeadPattern, by: By::Cell };
        assert_eq!(cells.axes(), [Axis::Head, Axis::Query, Axis::Key]);
        assert_eq!(NodeKind::all(Component::MlpPost).axes(), [Axis::DMlp]);
    }
}
