//! What path patching refuses, and what it computes, in single cases.

use burn::backend::Flex;
use rewire_analysis::AnalysisError;
use rewire_analysis::node::{Component, Node, NodeKind, Positions};
use rewire_analysis::path::{Edge, FreezePolicy, Input, Path, Receiver, head_edges, patch_paths, path_patching};
use rewire_analysis::run::{Direction, Execution};
use rewire_hooks::Head;
use rewire_model::{Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, PairsError, PromptPairs};
use rewire_tests::asked;

use crate::path_parity::receivers;

fn shorter() -> rewire_tasks::PromptPair {
    rewire_tasks::PromptPair { clean: vec![3, 4], corrupted: vec![3, 7], answers: vec![1], wrong_answers: vec![2] }
}

fn small() -> (Transformer<Flex>, PromptPairs) {
    let config = TransformerConfig::gpt2(3, 2, 8, 17, 12);
    let pair = |clean: [u32; 4], corrupted: [u32; 4]| rewire_tasks::PromptPair {
        clean: clean.to_vec(),
        corrupted: corrupted.to_vec(),
        answers: vec![1],
        wrong_answers: vec![2],
    };
    let pairs = PromptPairs::new(vec![pair([3, 4, 5, 6], [3, 7, 5, 6]), pair([3, 4, 9, 6], [3, 4, 8, 6])]).unwrap();
    (Transformer::random(&config, 3, &Default::default()), pairs)
}

#[test]
fn unreached_receivers_are_named_and_have_no_effect() {
    let (model, pairs) = small();
    let metric = LogitDiff::new(&pairs);
    let heads = [NodeKind::all(Component::HeadZ)];
    let patch = |list: &str| {
        path_patching(
            &model,
            asked(&pairs, &metric),
            &heads,
            &receivers(list),
            FreezePolicy::default(),
            Direction::Noising,
            &Execution::default(),
        )
        .unwrap()
    };
    let found = patch("q:0.1");
    assert_eq!(found.unreached, receivers("q:0.1"));
    assert!(found.outcome.effects[0].values.iter().all(|v| *v == 0.0));
    // Next to a reached receiver it changes nothing.
    let (both, alone) = (patch("q:0.1,v:1.0"), patch("v:1.0"));
    assert_eq!(both.unreached, receivers("q:0.1"));
    assert_eq!(both.outcome.effects[0].values, alone.outcome.effects[0].values);
    assert!(alone.outcome.effects[0].values.iter().any(|v| *v != 0.0));
    // A position without senders.
    let at = |node: usize, receiver: usize| Path {
        senders: vec![Node::new(0, Component::MlpOut).at(Positions::One(node))],
        receivers: vec![Receiver::new(2, Input::ResidPre).at(Positions::One(receiver))],
    };
    let found = patch_paths(
        &model,
        asked(&pairs, &metric),
        &[at(1, 2), at(2, 2)],
        FreezePolicy::default(),
        Direction::Noising,
        &Execution::default(),
    )
    .unwrap();
    assert!(found.values.column(0).iter().all(|v| *v == 0.0));
    assert!(found.values.column(1).iter().any(|v| *v != 0.0));
}

#[test]
fn path_patching_counts_duplicate_senders_once() {
    let (model, pairs) = small();
    let metric = LogitDiff::new(&pairs);
    let path = |senders: Vec<Node>| Path { senders, receivers: receivers("resid_post:2") };
    for component in [Component::MlpPost, Component::HeadZ] {
        let node = Node::new(1, component).unit(1);
        let paths =
            [path(vec![node.clone()]), path(vec![node.clone(), node.clone().at(Positions::One(3)), node.clone()])];
        let found = patch_paths(
            &model,
            asked(&pairs, &metric),
            &paths,
            FreezePolicy::default(),
            Direction::Noising,
            &Execution::default(),
        )
        .unwrap();
        for prompt in 0..pairs.len() {
            let [once, thrice] = [0, 1].map(|path| found.values[[prompt, path]]);
            assert!(once != 0.0 && (once - thrice).abs() < 1e-6, "{component}: {once} {thrice}");
        }
    }
}

#[test]
fn head_edges_lead_to_later_layers_and_equal_path_patching() {
    let (model, pairs) = small();
    let metric = LogitDiff::new(&pairs);
    let all: Vec<Head> = (0..3).flat_map(|layer| (0..2).map(move |head| Head::new(layer, head))).collect();
    let edges = Edge::between(&all);
    assert_eq!(edges.len(), 3 * 2 * 2 * 3);
    let found = head_edges(
        &model,
        asked(&pairs, &metric),
        &edges,
        FreezePolicy::default(),
        Direction::Noising,
        &Execution::default(),
    )
    .unwrap();
    // The effect of each edge equals path patching along this edge only.
    let heads = [NodeKind::all(Component::HeadZ)];
    for (edge, effect) in edges.iter().zip(found.outcome.mean()) {
        let receiver = [Receiver::new(edge.to.layer, edge.input).head(edge.to.head)];
        let alone = path_patching(
            &model,
            asked(&pairs, &metric),
            &heads,
            &receiver,
            FreezePolicy::default(),
            Direction::Noising,
            &Execution::default(),
        );
        let expected = alone.unwrap().outcome.effects[0].mean()[[edge.from.layer, edge.from.head]];
        assert!((effect - expected).abs() < 1e-5, "{edge:?}: {effect} and {expected}");
    }
    let pruned = found.pruned(1e-3);
    assert!(!pruned.is_empty() && pruned.len() < edges.len());
    assert!(pruned.windows(2).all(|w| w[0].1.abs() >= w[1].1.abs()) && pruned.iter().all(|(_, e)| e.abs() >= 1e-3));
    let back = Edge { from: Head::new(1, 0), to: Head::new(1, 1), input: Input::Q };
    let json = serde_json::to_string(&back).unwrap();
    assert_eq!(json, r#"{"from":[1,0],"to":[1,1],"input":"q"}"#);
    assert_eq!(serde_json::from_str::<Edge>(&json).unwrap(), back);
    let refused = head_edges(
        &model,
        asked(&pairs, &metric),
        &[back],
        FreezePolicy::default(),
        Direction::Noising,
        &Execution::default(),
    )
    .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "there is no receiver head_q:L1H1 for L1H0: the receiver must be in a later layer than the sender"
    );
}

#[test]
fn unsupported_paths_are_refused() {
    let (model, pairs) = small();
    let metric = LogitDiff::new(&pairs);
    let refused = |component, list: &str| {
        let kinds = [NodeKind::all(component)];
        let receivers = if list.is_empty() { Vec::new() } else { receivers(list) };
        let policy = FreezePolicy::default();
        path_patching(
            &model,
            asked(&pairs, &metric),
            &kinds,
            &receivers,
            policy,
            Direction::Noising,
            &Execution::default(),
        )
        .unwrap_err()
    };
    assert!(matches!(refused(Component::HeadZ, ""), AnalysisError::NoReceivers));
    let error = refused(Component::HeadQ, "v:1.0").to_string();
    assert!(error.starts_with("head_q:L0H0 writes nothing to the residual stream"), "{error}");
    let error = refused(Component::HeadZ, "q:3.0").to_string();
    assert_eq!(
        error,
        "there is no receiver head_q:L3H0: layer 3 is out of range (the model has 3 layers of 2 heads, counted from 0)"
    );
    let error = refused(Component::HeadZ, "q:1.2").to_string();
    assert_eq!(
        error,
        "there is no receiver head_q:L1H2: head 2 is out of range (the model has 3 layers of 2 heads, counted from 0)"
    );
    let at = |positions| {
        let path = Path {
            senders: vec![Node::new(0, Component::MlpOut)],
            receivers: vec![Receiver::new(1, Input::Q).at(positions)],
        };
        patch_paths(
            &model,
            asked(&pairs, &metric),
            &[path],
            FreezePolicy::default(),
            Direction::Noising,
            &Execution::default(),
        )
        .unwrap_err()
        .to_string()
    };
    assert_eq!(
        at(Positions::One(4)),
        "there is no receiver head_q:L1@4: position 4 is out of range (there are 4, counted from 0)"
    );
    let short = PromptPairs::new(vec![pairs.pairs()[0].clone(), shorter()]).unwrap();
    let path = Path {
        senders: vec![Node::new(0, Component::MlpOut)],
        receivers: vec![Receiver::new(1, Input::Q).at(Positions::One(3))],
    };
    let refused = patch_paths(
        &model,
        asked(&short, &LogitDiff::new(&short)),
        &[path],
        FreezePolicy::default(),
        Direction::Noising,
        &Execution::default(),
    )
    .unwrap_err();
    assert_eq!(refused.to_string(), "receiver head_q:L1@3 is outside prompt 1 (counted from 0), which has 2 tokens");
    assert!(at(Positions::Each(vec![1])).contains("has positions for 1 prompts, and there are 2"));
    let neox = Transformer::<Flex>::random(&TransformerConfig::neox(2, 2, 8, 17, 12), 3, &Default::default());
    let heads = [NodeKind::all(Component::HeadZ)];
    let error = path_patching(
        &neox,
        asked(&pairs, &metric),
        &heads,
        &receivers("resid_mid:1"),
        FreezePolicy::default(),
        Direction::Noising,
        &Execution::default(),
    );
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("there is no receiver resid_mid:L1: attention and MLP run in parallel"), "{error}");
    assert!(matches!(PromptPairs::new(Vec::new()), Err(PairsError::Empty)));
}
