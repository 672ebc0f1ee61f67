//! Names of heads, nodes and receivers round-trip through text, and effects keep their values when
//! positions are counted from the other end.

use ndarray::{ArrayD, Axis, IxDyn};
use proptest::prelude::*;
use rewire_analysis::Effects;
use rewire_analysis::node::{By, Component, Node, NodeKind, Positions};
use rewire_analysis::path::{Input, Receiver};
use rewire_hooks::Head;

const INPUTS: [Input; 7] =
    [Input::ResidPre, Input::Q, Input::K, Input::V, Input::ResidMid, Input::MlpIn, Input::ResidPost];

fn any_component() -> impl Strategy<Value = Component> {
    prop::sample::select(Component::all().collect::<Vec<_>>())
}

/// Positions whose names do not depend on the prompts.
fn any_positions() -> impl Strategy<Value = Positions> {
    prop_oneof![
        Just(Positions::All),
        any::<usize>().prop_map(Positions::One),
        (any::<usize>(), any::<usize>()).prop_map(|(dest, src)| Positions::Cell { dest, src }),
    ]
}

fn any_node() -> impl Strategy<Value = Node> {
    (any::<usize>(), any_component(), prop::option::of(any::<usize>()), any_positions()).prop_map(
        |(layer, component, unit, positions)| {
            let has_units = NodeKind::all(component).is_of_heads() || component == Component::MlpPost;
            Node { layer, component, unit: unit.filter(|_| has_units), positions }
        },
    )
}

fn any_receiver() -> impl Strategy<Value = Receiver> {
    (any::<usize>(), prop::sample::select(INPUTS.to_vec()), prop::option::of(any::<usize>()), any_positions()).prop_map(
        |(layer, input, head, positions)| {
            let is_of_heads = [Input::Q, Input::K, Input::V].contains(&input);
            Receiver { layer, input, head: head.filter(|_| is_of_heads), positions }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nodes_round_trip_through_text(node in any_node()) {
        let text = node.to_string();
        prop_assert_eq!(text.parse::<Node>(), Ok(node.clone()));
        prop_assert_eq!(text.to_lowercase().parse::<Node>(), Ok(node.clone()));
        prop_assert_eq!(text.replace('_', "-").parse::<Node>(), Ok(node));
    }

    #[test]
    fn receivers_round_trip_through_text(receiver in any_receiver()) {
        let text = receiver.to_string();
        prop_assert_eq!(text.parse::<Receiver>(), Ok(receiver.clone()));
        prop_assert_eq!(text.to_lowercase().parse::<Receiver>(), Ok(receiver));
    }

    #[test]
    fn heads_and_kinds_round_trip_through_text(
        layer in any::<usize>(),
        head in any::<usize>(),
        component in any_component(),
        by in 0_usize..4,
    ) {
        let head = Head::new(layer, head);
        prop_assert_eq!(head.to_string().parse::<Head>(), Ok(head));
        let by = [By::All, By::Position, By::Cell, By::Marked][by];
        let kind = NodeKind { component, by };
        prop_assert_eq!(kind.to_string().parse::<NodeKind>(), Ok(kind));
    }

    #[test]
    fn text_never_panics(text in "[a-zA-Z0-9_:@.<\\- ]{0,24}") {
        let _ = (text.parse::<Node>(), text.parse::<Receiver>(), text.parse::<Head>(), text.parse::<NodeKind>());
    }

    /// Counting positions from END moves every effect of a prompt and changes none: sums over
    /// positions stay, and the effects at END are those at each prompt's last position.
    #[test]
    fn alignment_at_the_end_keeps_sums_over_positions(
        lengths in prop::collection::vec(1_usize..7, 1..5),
        numbers in prop::collection::vec(-4_i32..5, 7 * 5 * 2 * 3),
    ) {
        let width = lengths.iter().copied().max().unwrap_or(1);
        let shape = [lengths.len(), 2, 3, width];
        let values = ArrayD::from_shape_fn(IxDyn(&shape), |index| {
            // After its end, a prompt has no effects.
            if index[3] < lengths[index[0]] { numbers[index[0] * 42 + index[1] * 21 + index[2] * 7 + index[3]] as f32 } else { 0.0 }
        });
        let kind = NodeKind::by_position(Component::HeadZ);
        let effects = Effects::new(kind, values, lengths.clone());
        let aligned = effects.aligned_at_end();
        // Sums of small whole numbers are exact in any order.
        prop_assert_eq!(aligned.values.sum_axis(Axis(3)), effects.values.sum_axis(Axis(3)));
        prop_assert_eq!(aligned.prompts_by_position(), effects.prompts_by_position());
        for (prompt, &length) in lengths.iter().enumerate() {
            for position in 0..length {
                for (layer, head) in [(0, 0), (1, 2)] {
                    prop_assert_eq!(
                        aligned.values[[prompt, layer, head, length - 1 - position]],
                        effects.values[[prompt, layer, head, position]]
                    );
                }
            }
        }
        let last = |layer, head| {
            let ends = lengths.iter().enumerate();
            ends.map(|(prompt, &length)| f64::from(effects.values[[prompt, layer, head, length - 1]])).sum::<f64>()
        };
        let expected = (last(1, 2) / lengths.len() as f64) as f32;
        prop_assert_eq!(aligned.mean()[[1, 2, 0]], expected);
    }
}
