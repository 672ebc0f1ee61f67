//! Sweeps and attribution on prompts that are longer than a block of queries.

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use rewire_analysis::Outcome;
use rewire_analysis::attribution::attribution_patching;
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_model::{Architecture, QUERY_BLOCK, Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};

/// Returns pairs of prompts with `pos` tokens that differ at position `at` and three later ones.
fn pairs(n: u32, pos: u32, at: u32) -> PromptPairs {
    let token = |row: u32, p: u32| (p * p * 7 + row * 3 + p / 5) % 19;
    let clean = |row| (0..pos).map(|p| token(row, p)).collect::<Vec<u32>>();
    let pair = |row| {
        let corrupted = |(p, t): (usize, u32)| if (at..at + 4).contains(&(p as u32)) { (t + 1) % 19 } else { t };
        let corrupted = clean(row).into_iter().enumerate().map(corrupted).collect();
        PromptPair { clean: clean(row), corrupted, answers: vec![3], wrong_answers: vec![11] }
    };
    PromptPairs::new((0..n).map(pair).collect()).expect("pairs of one length")
}

/// Asserts that the effects of two outcomes agree, as a share of the largest effect of their kind.
fn assert_agree(found: &Outcome, expected: &Outcome, tolerance: f32) {
    assert_eq!(found.effects.len(), expected.effects.len());
    for (found, expected) in found.effects.iter().zip(&expected.effects) {
        let largest = expected.values.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!(largest > 0.0, "{:?} have no effect", expected.kind);
        for (a, b) in found.values.iter().zip(&expected.values) {
            assert!((a - b).abs() <= tolerance * largest, "{:?}: {a} is not {b}, of {largest}", expected.kind);
        }
    }
}

#[test]
fn sweeps_of_512_tokens_equal_whole_forward_passes() {
    let parts = [Component::HeadZ, Component::HeadQ, Component::HeadK, Component::HeadV, Component::HeadPattern];
    let nodes = parts.map(NodeKind::all);
    let pairs = pairs(1, 512, 170);
    let metric = LogitDiff::new(&pairs);
    let question = Question::new(&pairs, &metric).in_metric_units();
    for family in [Architecture::Gpt2, Architecture::GptNeoX, Architecture::Gemma2] {
        let config = TransformerConfig { n_ctx: 512, ..TransformerConfig::tiny(family) };
        let model = Transformer::<Flex>::random(&config, 5, &Default::default());
        let of = |execution: &Execution| {
            activation_patching(&model, question, &nodes, Direction::Denoising, execution).expect("a sweep")
        };
        let execution = Execution::default().fitted(&model, pairs.width(), None);
        assert_agree(&of(&execution), &of(&Execution::reference()), 2e-4);
    }
}

#[test]
fn attribution_of_long_prompts_does_not_depend_on_who_sees_the_patterns() {
    let pairs = pairs(2, 300, 90);
    const { assert!(300 - 90 > QUERY_BLOCK) };
    let metric = LogitDiff::new(&pairs);
    let question = Question::new(&pairs, &metric).in_metric_units();
    for family in [Architecture::Gpt2, Architecture::Gemma2] {
        let config = TransformerConfig { n_ctx: 300, ..TransformerConfig::tiny(family) };
        let model = Transformer::<Autodiff<Flex>>::random(&config, 5, &Default::default());
        let of = |components: &[Component]| {
            let nodes: Vec<NodeKind> = components.iter().copied().map(NodeKind::by_position).collect();
            attribution_patching(&model, question, &nodes, Direction::Denoising, &Execution::default())
                .expect("an attribution")
        };
        let [z, q, k, v] = [Component::HeadZ, Component::HeadQ, Component::HeadK, Component::HeadV];
        let mut whole = of(&[z, q, k, v, Component::ResidPre, Component::HeadPattern]);
        whole.effects.pop();
        assert_agree(&of(&[z, q, k, v, Component::ResidPre]), &whole, 1e-4);
    }
}

/// The scores of one row and layer would take 268 MB as a whole, and the tape of a backward pass
/// several times as much.
#[cfg(target_os = "linux")]
#[test]
fn sweeps_and_attribution_of_2048_tokens_never_hold_whole_patterns() {
    let config = TransformerConfig { n_heads: 16, n_ctx: 2048, ..TransformerConfig::gpt2(2, 16, 32, 19, 2048) };
    let model = Transformer::<Autodiff<Flex>>::random(&config, 0, &Default::default());
    let pairs = pairs(1, 2048, 3);
    let metric = LogitDiff::new(&pairs);
    let question = Question::new(&pairs, &metric).in_metric_units();
    let execution = Execution::default().fitted(&model, pairs.width(), None);
    let nodes = [Component::HeadZ, Component::HeadQ, Component::HeadV].map(NodeKind::all);
    let exact = activation_patching(&model.valid(), question, &nodes[..1], Direction::Denoising, &execution);
    exact.expect("a sweep");
    attribution_patching(&model, question, &nodes, Direction::Denoising, &execution).expect("an attribution");
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak of memory");
    let kib: u64 = peak.trim().trim_end_matches(" kB").trim().parse().expect("a number of KiB");
    assert!(kib < 256 << 10, "the process took {kib} KiB");
}
