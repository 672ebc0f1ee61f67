//! Attention heads by layer and index, and the activations of one head.

use std::fmt;
use std::str::FromStr;

use rewire_input::cut;
use serde::{Deserialize, Serialize};

use crate::point::{HookPoint, Site};

/// An attention head.
///
/// `Display` writes the usual name, `L9H6`. `FromStr` reads `L9H6`, `l9h6` and `9.6`.
///
/// ```
/// use rewire_hooks::Head;
///
/// let head = Head::new(9, 6);
/// assert_eq!(head.to_string(), "L9H6");
/// assert_eq!("9.6".parse(), Ok(head));
/// assert_eq!(head.z().point().to_string(), "blocks.9.attn.hook_z");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Head {
    /// Index of the block, from 0.
    pub layer: usize,
    /// Index of the head in its block, from 0.
    pub head: usize,
}

impl Head {
    /// Returns head `head` of block `layer`.
    #[must_use]
    pub const fn new(layer: usize, head: usize) -> Self {
        Self { layer, head }
    }

    /// Returns the head's mixed values (`z`), before the output projection.
    #[must_use]
    pub fn z(self) -> HeadPoint {
        HeadPoint::new(self, Site::Z)
    }

    /// Returns the head's queries, before the rotary embedding.
    #[must_use]
    pub fn q(self) -> HeadPoint {
        HeadPoint::new(self, Site::Q)
    }

    /// Returns the head's keys, before the rotary embedding.
    #[must_use]
    pub fn k(self) -> HeadPoint {
        HeadPoint::new(self, Site::K)
    }

    /// Returns the head's values.
    #[must_use]
    pub fn v(self) -> HeadPoint {
        HeadPoint::new(self, Site::V)
    }

    /// Returns the head's attention probabilities.
    #[must_use]
    pub fn pattern(self) -> HeadPoint {
        HeadPoint::new(self, Site::Pattern)
    }
}

impl From<(usize, usize)> for Head {
    /// Makes a head from its layer and its index in that layer, such as an index into a
    /// `[layer, head]` array.
    fn from((layer, head): (usize, usize)) -> Self {
        Self { layer, head }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}H{}", self.layer, self.head)
    }
}

/// A string that is not the name of a head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a head; write layer and head, both from 0, as L9H6 or 9.6", cut(.0))]
pub struct ParseHeadError(pub String);

impl FromStr for Head {
    type Err = ParseHeadError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown = || ParseHeadError(name.to_owned());
        let (layer, head) = match name.strip_prefix(['L', 'l']) {
            Some(rest) => rest.split_once(['H', 'h']),
            None => name.split_once('.'),
        }
        .ok_or_else(unknown)?;
        // `usize::from_str` would accept a plus sign.
        let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse().map_err(|_| unknown()),
            false => Err(unknown()),
        };
        Ok(Self { layer: number(layer)?, head: number(head)? })
    }
}

/// One activation of one head, at all positions or at one.
///
/// The methods of [`Head`] make it. [`Patch::nodes`](crate::Patch::nodes) replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeadPoint {
    head: Head,
    site: Site,
    position: Option<usize>,
}

impl HeadPoint {
    fn new(head: Head, site: Site) -> Self {
        Self { head, site, position: None }
    }

    /// Restricts the activation to this position. A pattern is restricted to the row of this query
    /// position.
    #[must_use]
    pub fn at(self, position: usize) -> Self {
        Self { position: Some(position), ..self }
    }

    /// Returns the head.
    #[must_use]
    pub fn head(self) -> Head {
        self.head
    }

    /// Returns the hook point. Its activation holds every head of the block.
    #[must_use]
    pub fn point(self) -> HookPoint {
        HookPoint::block(self.head.layer, self.site)
    }

    /// Returns the position, or `None` for all positions.
    #[must_use]
    pub fn position(self) -> Option<usize> {
        self.position
    }
}

impl fmt::Display for HeadPoint {
    /// Writes the site's name inside attention, the head, and the position: `head_z:L9H6`,
    /// `head_pattern:L9H6@10`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "head_{}:{}", self.site.name().trim_start_matches("attn.hook_"), self.head)?;
        match self.position {
            Some(position) => write!(f, "@{position}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_names_round_trip() {
        for head in [Head::new(0, 0), Head::new(9, 6), Head::new(31, 127)] {
            assert_eq!(head.to_string().parse(), Ok(head));
            assert_eq!(head.to_string().to_lowercase().parse(), Ok(head));
            assert_eq!(format!("{}.{}", head.layer, head.head).parse(), Ok(head));
        }
    }

    #[test]
    fn malformed_head_names_are_refused() {
        let names = ["", "L9", "9", "H6", "L9H", "LH6", "L9H6H1", "9.", ".6", "9.6.1", "-1.2", "+9.6", "L9.6", " 9.6"];
        for name in names {
            assert_eq!(name.parse::<Head>(), Err(ParseHeadError(name.to_owned())));
        }
        let said = "Q9".parse::<Head>().unwrap_err().to_string();
        assert_eq!(said, "`Q9` is not a head; write layer and head, both from 0, as L9H6 or 9.6");
    }

    #[test]
    fn heads_sort_by_layer_then_head() {
        assert!(Head::new(1, 9) < Head::new(2, 0) && Head::new(2, 0) < Head::new(2, 1));
    }

    #[test]
    fn activations_of_a_head_name_the_head() {
        let head = Head::new(9, 6);
        assert_eq!(head.z().to_string(), "head_z:L9H6");
        assert_eq!(head.pattern().at(10).to_string(), "head_pattern:L9H6@10");
        let sites = [head.z(), head.q(), head.k(), head.v(), head.pattern()].map(|node| node.point().site());
        assert_eq!(sites, [Site::Z, Site::Q, Site::K, Site::V, Site::Pattern].map(Some));
    }
}
