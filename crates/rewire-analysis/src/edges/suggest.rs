//! Suggests the name of an edge that a mistyped name was probably meant to be.

use rewire_hooks::Head;
use rewire_model::HeadInput;

use crate::edges::graph::{Edge, Reader, Writer};

/// Longest name that is read for a suggestion.
const LONGEST: usize = 80;

/// Returns the part of an error that suggests an edge: ``; did you mean `a5.h9->m7`?``. Empty if
/// the text does not name two components.
pub(super) fn did_you_mean(typed: &str) -> String {
    suggestion(typed).map_or_else(String::new, |edge| format!("; did you mean `{edge}`?"))
}

/// Reads other notations of components: `L5H9`, `5.9`, `head_v:L8H6`, `mlp_out:L3`, `embed`.
fn suggestion(typed: &str) -> Option<Edge> {
    if typed.len() > LONGEST {
        return None;
    }
    let plain = typed.to_lowercase().replace(['→', '='], "-");
    let (writer, reader) = plain.split_once('-')?;
    let edge = Edge { writer: writer_like(writer)?, reader: reader_like(reader.trim_start_matches(['-', '>']))? };
    (edge.to_string() != typed).then_some(edge)
}

fn writer_like(name: &str) -> Option<Writer> {
    match numbers(name).as_slice() {
        [] if ["in", "emb", "tok"].iter().any(|start| name.trim().contains(start)) => Some(Writer::Input),
        [layer] if name.contains('m') => Some(Writer::Mlp(*layer)),
        [layer, head] => Some(Writer::Head(Head::new(*layer, *head))),
        _ => None,
    }
}

fn reader_like(name: &str) -> Option<Reader> {
    match numbers(name).as_slice() {
        [] if ["logit", "out", "unembed"].iter().any(|part| name.contains(part)) => Some(Reader::Logits),
        [layer] if name.contains('m') => Some(Reader::Mlp(*layer)),
        [layer, head] => Some(Reader::Head(Head::new(*layer, *head), input_like(name))),
        _ => None,
    }
}

/// Returns the input that a name has a letter of. Without one, queries stand for all three.
fn input_like(name: &str) -> HeadInput {
    let last = name.chars().rev().find(|letter| ['q', 'k', 'v'].contains(letter));
    match last {
        Some('k') => HeadInput::K,
        Some('v') => HeadInput::V,
        _ => HeadInput::Q,
    }
}

/// Returns the numbers in a name.
fn numbers(name: &str) -> Vec<usize> {
    name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_notations_of_an_edge_are_recognized() {
        let cases = [
            ("a5.h9->a8.h6", "a5.h9->a8.h6<q>"),
            ("A5.H9->A8.H6<V>", "a5.h9->a8.h6<v>"),
            ("a5.h9->a8.h6.k", "a5.h9->a8.h6<k>"),
            ("L5H9->head_v:L8H6", "a5.h9->a8.h6<v>"),
            ("5.9=>8.6", "a5.h9->a8.h6<q>"),
            ("embed -> mlp3", "input->m3"),
            ("mlp_out:L3->logit", "m3->logits"),
            ("m3-logits", "m3->logits"),
        ];
        for (typed, expected) in cases {
            assert_eq!(suggestion(typed).map(|edge| edge.to_string()).as_deref(), Some(expected), "{typed}");
        }
    }

    #[test]
    fn text_without_two_components_gets_no_suggestion() {
        for typed in ["", "input", "a1.h2", "->", "a1->a2", "x->y", "logits->m0", "a0.h1->a1.h0.2<q>"] {
            assert_eq!(suggestion(typed), None, "{typed}");
        }
    }
}
