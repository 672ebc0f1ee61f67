//! The notation of edges: `a5.h9->a8.h6<v>`, `input->m0`, `m7->logits`.

use std::str::FromStr;

use rewire_hooks::Head;
use rewire_input::cut;

use crate::edges::graph::{Edge, INPUTS, Reader, Writer, letter};
use crate::edges::suggest::did_you_mean;

/// Error for text that names no edge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no edge `{}`; write an edge such as a5.h9->a8.h6<v>, input->m0 or m7->logits{}", cut(.0), did_you_mean(.0))]
pub struct ParseEdgeError(pub String);

impl FromStr for Edge {
    type Err = ParseEdgeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let edge = || {
            let (writer, reader) = text.split_once("->")?;
            Some(Edge { writer: read_writer(writer)?, reader: read_reader(reader)? })
        };
        edge().ok_or_else(|| ParseEdgeError(text.to_owned()))
    }
}

fn read_writer(name: &str) -> Option<Writer> {
    match name {
        "input" => Some(Writer::Input),
        _ => read_mlp(name).map(Writer::Mlp).or_else(|| read_head(name).map(Writer::Head)),
    }
}

fn read_reader(name: &str) -> Option<Reader> {
    if name == "logits" {
        return Some(Reader::Logits);
    }
    if let Some(layer) = read_mlp(name) {
        return Some(Reader::Mlp(layer));
    }
    let (head, input) = name.strip_suffix('>')?.split_once('<')?;
    let input = INPUTS.into_iter().find(|of| letter(*of) == input)?;
    Some(Reader::Head(read_head(head)?, input))
}

fn read_mlp(name: &str) -> Option<usize> {
    name.strip_prefix('m')?.parse().ok()
}

fn read_head(name: &str) -> Option<Head> {
    let (layer, head) = name.strip_prefix('a')?.split_once(".h")?;
    Some(Head::new(layer.parse().ok()?, head.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_names_no_edge_is_refused() {
        for text in ["", "input", "logits->m0", "a0->m1", "a0.h1->a1.h0<z>", "a0.h1->a1.h0", "m0->m1->m2"] {
            assert_eq!(text.parse::<Edge>(), Err(ParseEdgeError(text.to_owned())), "{text}");
        }
        let refused = |text: &str| text.parse::<Edge>().unwrap_err().to_string();
        assert!(refused("a0.h1->a1.h0").ends_with("did you mean `a0.h1->a1.h0<q>`?"));
        assert!(refused("input").ends_with("or m7->logits"));
    }
}
