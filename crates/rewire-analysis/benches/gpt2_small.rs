//! Benchmarks of the forward and backward passes, the cache and every sweep at GPT-2-small size, on
//! seeded random weights.
//!
//! Run `cargo bench -p rewire-analysis`, or a single one by name:
//! `cargo bench -p rewire-analysis -- heads`. `cargo xtask bench` also measures lower bounds and
//! TransformerLens.

use std::time::Duration;

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{
    EdgeAttributionOptions, NormJacobian, attribution_patching, attribution_patching_with_edges,
};
use rewire_analysis::node::{By, Component, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_hooks::{GradientProbes, HookPoint, Recorder, Site};
use rewire_model::{ReadPositions, Readout, Run, Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, Metric, PromptPair, PromptPairs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Returns eight pairs of 15 tokens that differ at token 10, as in the demo.
fn pairs() -> PromptPairs {
    let token = |i: u32| i * 7919 % 50_000;
    let prompt = |row: u32| -> Vec<u32> {
        (0..15).map(|p| token(if p == 10 { 900 + row } else { 20 * (row / 2) + p + 1 })).collect()
    };
    let pair = |row: u32| PromptPair {
        clean: prompt(row),
        corrupted: prompt(row ^ 1),
        answers: vec![token(2000 + row)],
        wrong_answers: vec![token(2000 + (row ^ 1))],
    };
    PromptPairs::new((0..8).map(pair).collect()).expect("pairs of one length")
}

fn gpt2_small(criterion: &mut Criterion) {
    let config = TransformerConfig::gpt2(12, 12, 768, 50_257, 1024);
    let model = Transformer::<Autodiff<Flex>>::random(&config, 0, &Default::default());
    let inner = model.valid();
    let pairs = pairs();
    let metric = LogitDiff::new(&pairs);
    let execution = Execution::default();
    let at_end = || Readout { positions: ReadPositions::Each(pairs.ends()), columns: None };
    let tokens = || inner.tokens(&pairs.clean()).expect("tokens of the vocabulary");

    let mut group = criterion.benchmark_group("gpt2-small");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(5));
    group.bench_function("forward", |b| b.iter(|| inner.forward(Run::tokens(tokens()).with_readout(at_end()), ())));
    group.bench_function("cache", |b| {
        b.iter(|| {
            let mut recorder = Recorder::all();
            inner.forward(Run::tokens(tokens()).with_readout(at_end()), &mut recorder).map(|_| recorder.into_cache())
        });
    });
    group.bench_function("forward and backward", |b| {
        b.iter(|| {
            let probed = |p: HookPoint| p.site().is_some_and(|s| matches!(s, Site::Q | Site::Z));
            let mut probes = GradientProbes::filtered(probed);
            let tokens = model.tokens(&pairs.clean()).expect("tokens of the vocabulary");
            let readout = Readout { columns: metric.reads().columns, ..at_end() };
            let logits =
                model.forward(Run::tokens(tokens).with_readout(readout), &mut probes).expect("a run of the model");
            let prompts: Vec<usize> = (0..pairs.len()).collect();
            let [rows, _, columns] = logits.dims();
            probes.gradients(&metric.evaluate(logits.reshape([rows, columns]), &prompts).sum())
        });
    });

    let parts = [Component::HeadZ, Component::HeadQ, Component::HeadK, Component::HeadV, Component::HeadPattern];
    let blocks = [Component::ResidPre, Component::AttnOut, Component::MlpOut].map(NodeKind::by_position);
    let by_position = parts.map(NodeKind::by_position);
    let all_parts = parts.map(NodeKind::all);
    group.bench_function("attribution", |b| {
        b.iter(|| {
            attribution_patching(&model, Question::new(&pairs, &metric), &by_position, Direction::Denoising, &execution)
        })
    });
    group.bench_function("attribution with head edges", |b| {
        let paths = EdgeAttributionOptions { norm: NormJacobian::Exact, reduce: Reduce::Mean };
        b.iter(|| {
            attribution_patching_with_edges(
                &model,
                Question::new(&pairs, &metric),
                &by_position,
                paths,
                Direction::Denoising,
                &execution,
            )
        });
    });
    let cells = [NodeKind { component: Component::HeadPattern, by: By::Cell }];
    let sweeps: [(&str, &[NodeKind]); 4] = [
        ("heads", &[NodeKind::all(Component::HeadZ)]),
        ("blocks by position", &blocks),
        ("head parts", &all_parts),
        ("head parts by position", &by_position),
    ];
    for (name, nodes) in sweeps {
        group.bench_function(name, |b| {
            b.iter(|| {
                activation_patching(&inner, Question::new(&pairs, &metric), nodes, Direction::Denoising, &execution)
            })
        });
    }
    group.bench_function("attribution of pattern cells", |b| {
        b.iter(|| {
            attribution_patching(&model, Question::new(&pairs, &metric), &cells, Direction::Denoising, &execution)
        });
    });
    group.finish();
}

criterion_group!(benches, gpt2_small);
criterion_main!(benches);
