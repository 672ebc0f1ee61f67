//! Names of nodes as text, written and read: `head_z:L9H6`, `mlp_out:L3@14`.
//!
//! `Display` writes one canonical name. `FromStr` reads it, and the other names that people use for
//! the same node.

use std::fmt;
use std::str::FromStr;

use rewire_hooks::{Axis, Head, HookPoint};
use rewire_input::{cut, did_you_mean};

use crate::node::kind::{By, Component, Node, NodeKind, Positions};

/// Every component with its canonical name and its aliases. The last alias is TransformerLens' name
/// of the hook point.
const NAMES: [(Component, &str, &[&str]); 12] = [
    (Component::ResidPre, "resid_pre", &["hook_resid_pre"]),
    (Component::ResidMid, "resid_mid", &["hook_resid_mid"]),
    (Component::ResidPost, "resid_post", &["hook_resid_post"]),
    (Component::AttnOut, "attn_out", &["hook_attn_out"]),
    (Component::MlpOut, "mlp_out", &["hook_mlp_out"]),
    (Component::HeadQ, "head_q", &["q", "attn.hook_q"]),
    (Component::HeadK, "head_k", &["k", "attn.hook_k"]),
    (Component::HeadV, "head_v", &["v", "attn.hook_v"]),
    (Component::HeadZ, "head_z", &["z", "attn.hook_z"]),
    (Component::HeadResult, "head_result", &["result", "attn.hook_result"]),
    (Component::HeadPattern, "head_pattern", &["pattern", "attn.hook_pattern"]),
    (Component::MlpPost, "mlp_post", &["neuron", "mlp.hook_post"]),
];

/// The divisions of a kind, as in the names of tables on disk.
const DIVISIONS: [(By, &str); 4] =
    [(By::All, ""), (By::Position, "@position"), (By::Cell, "@cell"), (By::Marked, "@marked")];

/// The reason why a text names no node or no kind of node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseNodeError {
    /// The text names no kind of node.
    #[error("unknown node kind `{}`; use one of {}{}", cut(.0), all_names(), suggested(.0))]
    Kind(String),
    /// The kind is divided in no such way.
    #[error("`{}` does not divide nodes; use position, cell or marked{}", cut(.0), suggested_division(.0))]
    Division(String),
    /// The text names a kind of node, and not where the node is.
    #[error("`{0}` is a kind of node; name one node of it as {0}:{place}", place = place_of(.0))]
    NoPlace(Component),
    /// The text after the kind names no layer, head or neuron.
    #[error("`{}` is no place for {kind}; write it as {place}", cut(.text), place = place_of(.kind))]
    Place {
        /// The kind.
        kind: Component,
        /// The text.
        text: String,
    },
    /// The text after `@` names no position.
    #[error("`{}` is no position; write @14, or @14<-3 for the cell of an attention pattern", cut(.0))]
    Position(String),
}

/// Returns the canonical names of all components, separated by commas.
fn all_names() -> String {
    NAMES.map(|(_, name, _)| name).join(", ")
}

/// Returns the part of an error that suggests a component.
fn suggested(typed: &str) -> String {
    let aliases = NAMES.iter().flat_map(|(_, _, aliases)| aliases.iter().copied());
    did_you_mean(typed, NAMES.iter().map(|(_, name, _)| *name).chain(aliases))
}

/// Returns the part of an error that suggests a division.
fn suggested_division(typed: &str) -> String {
    did_you_mean(typed, DIVISIONS.iter().filter_map(|(_, suffix)| suffix.strip_prefix('@')))
}

/// Returns an example of the place of a component's node.
fn place_of(component: &Component) -> &'static str {
    match NodeKind::all(*component).unit_axis() {
        Some(Axis::Head) => "L9H6 or 9.6",
        Some(_) => "L3N17 or 3.17",
        None => "L3 or 3",
    }
}

impl Component {
    /// Returns every component.
    pub fn all() -> impl Iterator<Item = Component> {
        NAMES.iter().map(|(component, ..)| *component)
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES[*self as usize].1)
    }
}

/// Reads `head_z`, and as the same `z`, `head-z` and `attn.hook_z`, in upper or lower case.
impl FromStr for Component {
    type Err = ParseNodeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let plain = name.to_ascii_lowercase().replace('-', "_");
        let found =
            NAMES.iter().find(|(_, canonical, aliases)| plain == *canonical || aliases.contains(&plain.as_str()));
        found.map(|(component, ..)| *component).ok_or_else(|| ParseNodeError::Kind(name.to_owned()))
    }
}

/// Writes the name of the tensor on disk: `head_z`, `head_z@position`, `head_pattern@cell`.
impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.component, DIVISIONS[self.by as usize].1)
    }
}

/// Reads the name of the tensor on disk, with any name of the component.
impl FromStr for NodeKind {
    type Err = ParseNodeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let (component, suffix) = name.split_at(name.find('@').unwrap_or(name.len()));
        let by = DIVISIONS.iter().find(|(_, known)| *known == suffix).map(|(by, _)| *by);
        let by = by.ok_or_else(|| ParseNodeError::Division(suffix.trim_start_matches('@').to_owned()))?;
        Ok(Self { component: component.parse()?, by })
    }
}

/// Writes the suffix of a node's name: nothing for all positions, `@4` for one position, `@4<-1`
/// for a cell, and `@marked` for one position per prompt.
impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Positions::All => Ok(()),
            Positions::One(position) => write!(f, "@{position}"),
            Positions::Each(_) => write!(f, "@marked"),
            Positions::Cell { dest, src } => write!(f, "@{dest}<-{src}"),
        }
    }
}

/// Writes the name: `head_z:L9H6`, `mlp_post:L3N17`, `mlp_out:L3`, with `@4` for a position.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Node { layer, component, unit, positions } = self;
        write!(f, "{component}:L{layer}")?;
        match unit {
            Some(unit) if NodeKind::all(*component).is_of_heads() => write!(f, "H{unit}")?,
            Some(unit) => write!(f, "N{unit}")?,
            None => {}
        }
        write!(f, "{positions}")
    }
}

/// Reads `head_z:L9H6`, `mlp_post:L3N17` and `mlp_out:L3`, with `@4` or `@4<-1` for a position.
///
/// The part before the colon is any name of the component. The part after it may be `9.6` for
/// `L9H6`, `3.17` for `L3N17`, and `3` for `L3`. A head alone (`L9H6`, `9.6`) means its z. A hook
/// point (`blocks.9.attn.hook_z`) means all heads or neurons of its layer together. Positions that
/// differ between prompts (`@marked`) depend on the pairs, and cannot be read.
impl FromStr for Node {
    type Err = ParseNodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, positions) = split_positions(text)?;
        if let Ok(HookPoint::Block { layer, site }) = name.parse() {
            return Ok(Self::new(layer, site.name().parse()?).at(positions));
        }
        if let Ok(Head { layer, head }) = name.parse() {
            return Ok(Self::new(layer, Component::HeadZ).unit(head).at(positions));
        }
        let (kind, place) = match name.split_once(':') {
            Some((kind, place)) => (kind.parse()?, place),
            None => return Err(ParseNodeError::NoPlace(name.parse()?)),
        };
        let unread = || ParseNodeError::Place { kind, text: place.to_owned() };
        let (layer, unit) = read_place(place, NodeKind::all(kind).unit_axis()).ok_or_else(unread)?;
        Ok(Self { layer, component: kind, unit, positions })
    }
}

/// Splits a name into the part before `@` and the positions after it.
pub(crate) fn split_positions(text: &str) -> Result<(&str, Positions), ParseNodeError> {
    let Some((name, at)) = text.split_once('@') else { return Ok((text.trim(), Positions::All)) };
    let positions = match at.split_once("<-") {
        Some((dest, src)) => read_number(dest.trim()).zip(read_number(src.trim())),
        None => return Ok((name.trim(), Positions::One(read_number(at.trim()).ok_or_else(|| unread(at))?))),
    };
    let (dest, src) = positions.ok_or_else(|| unread(at))?;
    Ok((name.trim(), Positions::Cell { dest, src }))
}

fn unread(position: &str) -> ParseNodeError {
    ParseNodeError::Position(position.trim().to_owned())
}

/// Reads a layer, and the head or neuron in it: `L9H6`, `9.6` or `L9` if `units` are heads,
/// `L3N17`, `3.17` or `L3` if they are neurons, and `L3` or `3` without units.
pub(crate) fn read_place(text: &str, units: Option<Axis>) -> Option<(usize, Option<usize>)> {
    let text = text.to_ascii_uppercase();
    let letter = match units {
        Some(Axis::Head) => 'H',
        Some(_) => 'N',
        None => return Some((read_layer(&text)?, None)),
    };
    if let Some((layer, unit)) = text.strip_prefix('L').and_then(|rest| rest.split_once(letter)) {
        return Some((read_number(layer)?, Some(read_number(unit)?)));
    }
    match text.split_once('.') {
        Some((layer, unit)) => Some((read_number(layer)?, Some(read_number(unit)?))),
        None => Some((read_layer(&text)?, None)),
    }
}

fn read_layer(text: &str) -> Option<usize> {
    read_number(text.strip_prefix('L').unwrap_or(text))
}

/// Reads digits. `usize::from_str` would accept a plus sign.
fn read_number(digits: &str) -> Option<usize> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_is_read_under_all_its_names() {
        for (component, name, aliases) in NAMES {
            assert_eq!(component.to_string(), name);
            let hyphens = name.replace('_', "-");
            for name in [name, &hyphens, &name.to_uppercase()].into_iter().chain(aliases.iter().copied()) {
                assert_eq!(name.parse(), Ok(component), "{name}");
            }
            if component != Component::HeadResult {
                assert_eq!(NodeKind::all(component).site().name().parse(), Ok(component));
            }
        }
        assert_eq!("head_x".parse::<Component>(), Err(ParseNodeError::Kind("head_x".to_owned())));
    }

    #[test]
    fn kinds_round_trip_through_the_names_of_tables() {
        for (by, suffix) in DIVISIONS {
            for component in Component::all() {
                let kind = NodeKind { component, by };
                assert_eq!(kind.to_string(), format!("{component}{suffix}"));
                assert_eq!(kind.to_string().parse(), Ok(kind));
            }
        }
        assert_eq!("z@position".parse(), Ok(NodeKind::by_position(Component::HeadZ)));
        assert_eq!("z@positions".parse::<NodeKind>(), Err(ParseNodeError::Division("positions".to_owned())));
    }

    #[test]
    fn every_name_of_a_node_is_read_as_that_node() {
        let z = Node::new(9, Component::HeadZ).unit(6);
        for text in ["head_z:L9H6", "head-z:l9h6", "z:9.6", "attn.hook_z:9.6", "L9H6", "l9h6", "9.6", " L9H6 "] {
            assert_eq!(text.parse(), Ok(z.clone()), "{text}");
        }
        assert_eq!("L9H6 @ 14".parse(), Ok(z.clone().at(Positions::One(14))));
        let cell = Node::new(2, Component::HeadPattern).unit(1).at(Positions::Cell { dest: 12, src: 4 });
        assert_eq!("pattern:2.1@12<-4".parse(), Ok(cell));
        for text in ["head_z:L9", "z:9", "blocks.9.attn.hook_z"] {
            assert_eq!(text.parse(), Ok(Node::new(9, Component::HeadZ)), "{text}");
        }
        for text in ["mlp_post:L3N17", "neuron:3.17", "mlp.hook_post:l3n17"] {
            assert_eq!(text.parse(), Ok(Node::new(3, Component::MlpPost).unit(17)), "{text}");
        }
        for text in ["resid_pre:L2", "resid-pre:2", "blocks.2.hook_resid_pre"] {
            assert_eq!(text.parse(), Ok(Node::new(2, Component::ResidPre)), "{text}");
        }
    }

    #[test]
    fn an_error_says_what_was_expected() {
        let said = |text: &str| text.parse::<Node>().unwrap_err().to_string();
        assert!(said("head_zz:L0H0").ends_with("did you mean `head_z`?"), "{}", said("head_zz:L0H0"));
        assert!(said("foo").starts_with("unknown node kind `foo`; use one of resid_pre, "), "{}", said("foo"));
        assert_eq!(said("head_z"), "`head_z` is a kind of node; name one node of it as head_z:L9H6 or 9.6");
        assert_eq!(said("z:L9N6"), "`L9N6` is no place for head_z; write it as L9H6 or 9.6");
        assert_eq!(said("mlp_out:L1H2"), "`L1H2` is no place for mlp_out; write it as L3 or 3");
        for text in ["head_z:", "head_z:L", "head_z:+1.2", "head_z:L9H", "head_z:9.6.1", "mlp_post:L1H2"] {
            assert!(matches!(text.parse::<Node>(), Err(ParseNodeError::Place { .. })), "{text}");
        }
        for text in ["L9H6@", "L9H6@end", "L9H6@1<-", "L9H6@-1"] {
            assert!(matches!(text.parse::<Node>(), Err(ParseNodeError::Position(_))), "{text}");
        }
    }
}
