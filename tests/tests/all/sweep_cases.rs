//! What sweeps refuse, and what they compute, in single cases.

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use rewire_analysis::AnalysisError;
use rewire_analysis::attribution::attribution_patching;
use rewire_analysis::node::{By, Component, Node, NodeKind, Positions};
use rewire_analysis::patching::{activation_patching, activation_patching_cost, patch_groups, screen_then_verify};
use rewire_analysis::run::{Direction, Execution, LayerBatching, Question};
use rewire_model::{Transformer, TransformerConfig};
use rewire_tasks::{LogProbability, LogitDiff, PairsError, PromptPair, PromptPairs, WholeAnswers};
use rewire_tests::asked;
use rewire_tests::compare::scale;

use crate::properties::sweeps::{Elsewhere, model};

fn two_pairs() -> PromptPairs {
    let pair = PromptPair { clean: vec![1, 2, 3], corrupted: vec![1, 4, 3], answers: vec![5], wrong_answers: vec![6] };
    PromptPairs::new(vec![pair.clone(), pair]).unwrap()
}

#[test]
fn metrics_that_read_after_the_prompt_are_refused() {
    let model = model::<Autodiff<Flex>>(&TransformerConfig::gpt2(1, 2, 16, 17, 12), 0);
    let pairs = two_pairs();
    let metric = Elsewhere { of: LogitDiff::new(&pairs), read: vec![2, 3] };
    let heads = [NodeKind::all(Component::HeadZ)];
    let expected = "the metric reads position 3 of prompt 1, and the longest prompt has 3 tokens (prompts and positions \
                are counted from 0)";
    let refused = attribution_patching(
        &model,
        Question::new(&pairs, &metric),
        &heads,
        Direction::Denoising,
        &Execution::default(),
    )
    .unwrap_err();
    assert_eq!(refused.to_string(), expected);
    let refused = activation_patching(
        &model.valid(),
        Question::new(&pairs, &metric),
        &heads,
        Direction::Denoising,
        &Execution::default(),
    )
    .unwrap_err();
    assert_eq!(refused.to_string(), expected);
}

#[test]
fn a_whole_answer_of_one_token_gives_the_log_of_its_probability() {
    let model = model::<Flex>(&TransformerConfig::neox(2, 2, 16, 17, 12), 5);
    let pairs = two_pairs();
    let whole = |p: &PromptPair| WholeAnswers {
        clean: p.clean.clone(),
        corrupted: p.corrupted.clone(),
        answers: vec![p.answers.clone()],
    };
    let whole = PromptPairs::with_whole_answers(&pairs.pairs().iter().map(whole).collect::<Vec<_>>()).unwrap();
    let heads = [NodeKind::all(Component::HeadZ)];
    let (log, plain) = (LogProbability::new(&whole), rewire_tasks::Probability::new(&pairs));
    let run = Execution::default();
    let log = activation_patching(&model, asked(&whole, &log), &heads, Direction::Noising, &run).unwrap();
    let plain = activation_patching(&model, asked(&pairs, &plain), &heads, Direction::Noising, &run).unwrap();
    let all = |outcome: &rewire_analysis::Outcome| {
        let values = outcome.effects[0].values.clone();
        let base = outcome.baselines.clean.clone();
        values.indexed_iter().map(|(index, effect)| f64::from(effect + base[index[0]])).collect::<Vec<f64>>()
    };
    for (log, plain) in all(&log).into_iter().zip(all(&plain)) {
        assert!((log - plain.ln()).abs() < 1e-5, "{log} is not the log of {plain}");
    }
}

#[test]
fn a_metric_of_other_pairs_or_of_other_numbers_of_positions_is_refused() {
    let model = model::<Flex>(&TransformerConfig::gpt2(1, 2, 16, 17, 12), 0);
    let answers = |n: usize| WholeAnswers { clean: vec![1, 2], corrupted: vec![1, 3], answers: vec![vec![4; n]] };
    let [one, two] = [[3, 3].as_slice(), &[3]]
        .map(|of| PromptPairs::with_whole_answers(&of.iter().map(|&n| answers(n)).collect::<Vec<_>>()).unwrap());
    let metric = LogProbability::new(&one);
    let heads = [NodeKind::all(Component::HeadZ)];
    let refused =
        activation_patching(&model, asked(&two, &metric), &heads, Direction::Denoising, &Execution::default());
    assert!(matches!(refused, Err(AnalysisError::MetricOfOtherPairs { expected: 1, found: 2 })));
}

#[test]
fn nodes_outside_the_model_are_refused_by_name() {
    let model = model::<Autodiff<Flex>>(&TransformerConfig::neox(2, 2, 16, 17, 12), 0);
    let pairs = two_pairs();
    let metric = LogitDiff::new(&pairs);
    let refused = |groups: &[Vec<Node>]| {
        patch_groups(
            &model.valid(),
            Question::new(&pairs, &metric),
            groups,
            Direction::Denoising,
            &Execution::default(),
        )
        .unwrap_err()
        .to_string()
    };
    let z = || Node::new(0, Component::HeadZ);
    assert_eq!(refused(&[]), "no nodes were given; give at least one");
    assert_eq!(refused(&[vec![z()], vec![]]), "group 1 (counted from 0) has no nodes");
    let message = refused(&[vec![Node::new(2, Component::HeadZ).unit(1)]]);
    assert_eq!(
        message,
        "there is no head_z:L2H1: layer 2 is out of range (the model has 2 layers of 2 heads, counted from 0)"
    );
    assert_eq!(
        refused(&[vec![z().unit(2)]]),
        "there is no head_z:L0H2: head 2 is out of range (the model has 2 layers of 2 heads, counted from 0)"
    );
    let neuron = Node::new(1, Component::MlpPost).unit(64);
    assert_eq!(
        refused(&[vec![neuron]]),
        "there is no mlp_post:L1N64: neuron 64 is out of range (there are 64, counted from 0)"
    );
    let late = z().at(Positions::One(3));
    assert_eq!(
        refused(&[vec![late]]),
        "there is no head_z:L0@3: position 3 is out of range (there are 3, counted from 0)"
    );
    let each = z().at(Positions::Each(vec![1]));
    assert!(refused(&[vec![each]]).contains("positions for 1 prompts, and there are 2"));
    assert!(refused(&[vec![Node::new(0, Component::ResidMid)]]).contains("in parallel"));
    let cell = z().at(Positions::Cell { dest: 1, src: 0 });
    assert!(refused(&[vec![cell]]).contains("only attention patterns have cells"));
}

#[test]
fn meaningless_screens_and_marks_are_refused() {
    let model = model::<Autodiff<Flex>>(&TransformerConfig::gpt2(2, 2, 16, 17, 12), 0);
    let pairs = two_pairs();
    let metric = LogitDiff::new(&pairs);
    let heads = [NodeKind::all(Component::HeadZ)];
    let screen = |k| {
        screen_then_verify(
            &model,
            Question::new(&pairs, &metric),
            &heads,
            k,
            Direction::Denoising,
            &Execution::default(),
        )
        .unwrap_err()
    };
    assert!(matches!(screen(5), AnalysisError::TooManyNodes { k: 5, nodes: 4 }));
    assert!(matches!(screen(0), AnalysisError::NoNodes));
    let unmarked = NodeKind { component: Component::HeadZ, by: By::Marked };
    let refused = activation_patching(
        &model.valid(),
        Question::new(&pairs, &metric),
        &[unmarked],
        Direction::Denoising,
        &Execution::default(),
    )
    .unwrap_err();
    assert!(refused.to_string().contains("mark no position"), "{refused}");
    assert_eq!(
        pairs.clone().with_marked_positions(vec![0, 3]),
        Err(PairsError::MarkOutside { pair: 1, mark: Some(3), len: 3 })
    );
    assert_eq!(pairs.with_marked_positions(vec![0]), Err(PairsError::MarkOutside { pair: 1, mark: None, len: 3 }));
}

#[test]
fn only_activations_that_can_change_are_computed() {
    // GPT-2 small's heads on the demo's prompts: 15 tokens that differ from position 10 on.
    let config = TransformerConfig { d_vocab: 30, n_ctx: 16, ..TransformerConfig::gpt2(12, 12, 48, 30, 16) };
    let model = Transformer::<Flex>::random(&config, 0, &Default::default());
    let clean: Vec<u32> = (0..15).collect();
    let mut corrupted = clean.clone();
    corrupted[10] = 20;
    let pair = PromptPair { clean, corrupted, answers: vec![1], wrong_answers: vec![2] };
    let pairs = PromptPairs::new(vec![pair; 8]).unwrap();
    let metric = LogitDiff::new(&pairs);
    let heads = [NodeKind::all(Component::HeadZ)];
    let counted = activation_patching_cost(&model, &pairs, &metric, &heads, &Execution::default()).unwrap();
    // By hand, per head: an MLP (16 d^2 per token), 10 - l whole blocks (24 d^2), keys and values
    // in the last block (4 d^2), and the rest of that block at one position (20 d^2). In the last
    // layer: the MLP at one position.
    let (d2, tokens, prompts) = (48.0 * 48.0, 40.0, 8.0);
    let layer =
        |l: f64| if l == 11.0 { 16.0 * prompts } else { (16.0 + 24.0 * (10.0 - l) + 4.0) * tokens + 20.0 * prompts };
    let products: f64 = (0..12).map(|l| 12.0 * d2 * layer(f64::from(l))).sum();
    let base = 2.0 * d2 * prompts * (11.0 * 24.0 * 15.0 + 4.0 * 15.0 + 20.0);
    let ratio = counted.operations / (products + base);
    // Attention and the two logits are not in this count.
    assert!((1.0..1.1).contains(&ratio), "{ratio}");
    // One run for all layers computes the same, and reads each block's weights once.
    let budget = Execution { token_budget: 1 << 20, layers: Some(LayerBatching::AllLayers), ..Execution::default() };
    let together = activation_patching_cost(&model, &pairs, &metric, &heads, &budget).unwrap();
    assert_eq!(together.operations, counted.operations);
    assert!(together.bytes < counted.bytes);
    let all = [NodeKind::by_position(Component::ResidPre)];
    let by_position = activation_patching_cost(&model, &pairs, &metric, &all, &Execution::default()).unwrap();
    assert!(by_position.operations < counted.operations);
    // A block has 12 d^2 weights. The two runs read all blocks, and the pass for layer l reads the
    // blocks above l and the MLP of l. Each row's residual stream is read and written once per
    // block.
    let weights = d2 * (2.0 * 12.0 * 12.0 + (0..12).map(|l| 12.0 * f64::from(11 - l) + 8.0).sum::<f64>());
    let rows_and_blocks = 2.0 * prompts * 15.0 * 12.0 + (0..12).map(|l| 12.0 * tokens * f64::from(12 - l)).sum::<f64>();
    let ratio = counted.bytes / (4.0 * (weights + 2.0 * 48.0 * rows_and_blocks));
    // The columns of the logits are not in this count.
    assert!((1.0..1.01).contains(&ratio), "{ratio}");
    assert_eq!(counted.seconds(counted.operations, 1e30), 1.0);
    assert_eq!(counted.seconds(1e30, counted.bytes), 1.0);
    let far =
        activation_patching(&model, asked(&pairs, &metric), &all, Direction::Denoising, &Execution::default()).unwrap();
    let before = far.effects[0].values.slice_axis(ndarray::Axis(2), ndarray::Slice::from(..10)).to_owned();
    assert_eq!(scale(&before), 0.0);
}

#[test]
fn unsupported_analyses_are_refused() {
    let config = TransformerConfig::neox(1, 2, 8, 17, 12);
    let model = model::<Autodiff<Flex>>(&config, 0);
    let pair = PromptPair { clean: vec![1, 2], corrupted: vec![1, 3], answers: vec![4], wrong_answers: vec![5] };
    let pairs = PromptPairs::new(vec![pair.clone()]).unwrap();
    let metric = LogitDiff::new(&pairs);
    let run = |nodes: &[NodeKind]| {
        activation_patching(
            &model.valid(),
            Question::new(&pairs, &metric),
            nodes,
            Direction::Denoising,
            &Execution::default(),
        )
        .unwrap_err()
    };
    assert!(matches!(run(&[]), AnalysisError::NoNodes));
    let mid = NodeKind::by_position(Component::ResidMid);
    assert!(matches!(run(&[mid]), AnalysisError::MissingNode { node, .. } if node == mid));
    let cells = NodeKind { component: Component::HeadZ, by: By::Cell };
    assert!(matches!(run(&[cells]), AnalysisError::MissingNode { node, .. } if node == cells));

    let accuracy = rewire_tasks::Accuracy::new(&pairs);
    let heads = [NodeKind::all(Component::HeadZ)];
    let refused = attribution_patching(
        &model,
        Question::new(&pairs, &accuracy),
        &heads,
        Direction::Denoising,
        &Execution::default(),
    )
    .unwrap_err();
    assert!(matches!(refused, AnalysisError::NotDifferentiable { metric: "accuracy" }));

    let same = PromptPairs::new(vec![PromptPair { corrupted: pair.clean.clone(), ..pair.clone() }]).unwrap();
    let refused = activation_patching(
        &model.valid(),
        Question::new(&same, &LogitDiff::new(&same)),
        &heads,
        Direction::Denoising,
        &Execution::default(),
    )
    .unwrap_err();
    assert!(matches!(refused, AnalysisError::Normalization(_)));
    // The error comes before the sweep, not after it.
    let untouched = Execution { progress: &|done, _| assert_eq!(done, 0), ..Execution::default() };
    assert!(
        activation_patching(
            &model.valid(),
            Question::new(&same, &LogitDiff::new(&same)),
            &heads,
            Direction::Denoising,
            &untouched
        )
        .is_err()
    );

    let two = PromptPairs::new(vec![pair.clone(), pair.clone()]).unwrap();
    let refused = activation_patching(
        &model.valid(),
        Question::new(&two, &metric),
        &heads,
        Direction::Denoising,
        &Execution::default(),
    )
    .unwrap_err();
    assert!(matches!(refused, AnalysisError::MetricOfOtherPairs { expected: 2, found: 1 }));

    let outside = PromptPairs::new(vec![PromptPair { answers: vec![17], ..pair }]).unwrap();
    let refused = activation_patching(
        &model.valid(),
        Question::new(&outside, &metric),
        &heads,
        Direction::Denoising,
        &Execution::default(),
    )
    .unwrap_err();
    assert!(matches!(refused, AnalysisError::Pairs(_)));
}
