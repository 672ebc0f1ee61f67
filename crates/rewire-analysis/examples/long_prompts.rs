//! Times analyses of long prompts on seeded random weights, and prints the peak memory of the
//! process. docs/performance.md shows the results.
//!
//! ```sh
//! cargo run -p rewire-analysis --example long_prompts -- gpt2 2048 1 heads
//! ```
//!
//! The arguments are the size (`gpt2` for GPT-2 small, `smollm2` for SmolLM2-135M), the number of
//! tokens, the number of pairs, and the work: `load`, `forward`,
//! `whole` (a forward pass with a hook that sees whole patterns), `heads`, `queries`, `values` or
//! `attribution`. `cost` runs nothing and prints the floating-point operations of sweeps.

use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use rewire_analysis::attribution::attribution_patching;
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::patching::{activation_patching, activation_patching_cost};
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_hooks::{Hook, HookPoint};
use rewire_model::{ReadPositions, Readout, Run, Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, PromptPair, PromptPairs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A hook that sees every activation and changes none.
struct SeesAll;

impl Hook<Flex> for SeesAll {
    fn visit<const D: usize>(&mut self, _: HookPoint, activation: Tensor<Flex, D>) -> Tensor<Flex, D> {
        activation
    }
}

/// Returns pairs of `pos` tokens that differ at the tenth token.
fn pairs(n: u32, pos: u32) -> PromptPairs {
    let token = |i: u32| i * 7919 % 49_000;
    let prompt = |row: u32, changed: u32| -> Vec<u32> {
        (0..pos).map(|p| token(if p == 10 { 9000 + changed } else { 20 * row + p + 1 })).collect()
    };
    let pair = |row: u32| PromptPair {
        clean: prompt(row, 2 * row),
        corrupted: prompt(row, 2 * row + 1),
        answers: vec![token(2000 + row)],
        wrong_answers: vec![token(3000 + row)],
    };
    PromptPairs::new((0..n).map(pair).collect()).expect("pairs of one length")
}

/// Returns the seconds that all threads of this process have computed, on Linux.
fn processor_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = status.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [size, pos, n, work] = arguments.as_slice() else { return Err("expected: SIZE TOKENS PAIRS WORK".into()) };
    let pairs = pairs(n.parse()?, pos.parse()?);
    let config = match size.as_str() {
        "gpt2" => TransformerConfig::gpt2(12, 12, 768, 50_257, pairs.width().max(1024)),
        "smollm2" => TransformerConfig {
            key_value_heads: Some(3),
            d_mlp: 1536,
            tied_unembedding: true,
            ..TransformerConfig::llama(30, 9, 576, 49_152, pairs.width().max(2048))
        },
        other => return Err(format!("unknown size {other}").into()),
    };
    let model = Transformer::<Autodiff<Flex>>::random(&config, 0, &Default::default());
    let inner = model.valid();
    let metric = LogitDiff::new(&pairs);
    let question = Question::new(&pairs, &metric).in_metric_units();
    let progress = |done: usize, of: usize| eprint!("\r{done} of {of} ");
    let execution = Execution { progress: &progress, ..Execution::default() }.fitted(&inner, pairs.width(), None);
    let (begun, processor) = (Instant::now(), processor_seconds()?);
    let sweep = |component: Component| {
        activation_patching(&inner, question, &[NodeKind::all(component)], Direction::Denoising, &execution)
    };
    let run = || {
        let readout = Readout { positions: ReadPositions::Each(pairs.ends()), columns: None };
        inner.tokens(&pairs.clean()).map(|tokens| Run::tokens(tokens).with_readout(readout))
    };
    match work.as_str() {
        "load" => {}
        "cost" => {
            for nodes in [NodeKind::all(Component::HeadZ), NodeKind::by_position(Component::ResidPre)] {
                let cost = activation_patching_cost(&inner, &pairs, &metric, &[nodes], &execution)?;
                println!("{nodes}: {:.0} GFLOP", cost.operations / 1e9);
            }
        }
        "forward" => drop(inner.forward(run()?, ())?),
        "whole" => drop(inner.forward(run()?, SeesAll)?),
        "heads" => drop(sweep(Component::HeadZ)?),
        "queries" => drop(sweep(Component::HeadQ)?),
        "values" => drop(sweep(Component::HeadV)?),
        "attribution" => {
            let nodes = [Component::HeadZ, Component::HeadQ, Component::HeadK, Component::HeadV, Component::ResidPre];
            let nodes = nodes.map(NodeKind::by_position);
            attribution_patching(&model, question, &nodes, Direction::Denoising, &execution)?;
        }
        other => return Err(format!("unknown work {other}").into()),
    }
    eprintln!();
    let cpu = processor_seconds()? - processor;
    println!(
        "{size}, {work}, {pos} tokens, {n} pairs: {:.1} s, {cpu:.1} s of processors",
        begun.elapsed().as_secs_f64()
    );
    for line in std::fs::read_to_string("/proc/self/status")?.lines().filter(|line| line.starts_with("VmHWM")) {
        println!("{line}");
    }
    Ok(())
}
