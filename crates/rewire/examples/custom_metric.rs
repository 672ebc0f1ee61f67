//! Defines custom metrics: one with a weight per logit, and one with a closure.

use burn::backend::Autodiff;
use burn::tensor::activation::{log_softmax, softmax};
use rewire::prelude::*;
use rewire::{burn, tasks::ioi::demo_pairs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let pairs = demo_pairs(model.tokenizer()?, model.bos())?;

    // The answer's logit alone, at the last position of each prompt.
    let weights = pairs.pairs().iter().map(|pair| vec![(pair.answers[0], 1.0)]).collect();
    let answer = LinearMetric::new("answer-logit", pairs.ends(), weights)?;
    println!("{}", Study::new(&model, &pairs, answer).patch([Component::HeadZ])?.effects[0].top(1)[0]);

    // The entropy of the next token. Burn computes its gradient.
    let reads = Reads { positions: pairs.ends(), columns: None };
    let entropy = MetricFn::<Autodiff<Cpu>, _>::new("entropy", reads, |logits: Tensor<_, 2>, prompts: &[usize]| {
        (softmax(logits.clone(), 1) * log_softmax(logits, 1)).sum_dim(1).reshape([prompts.len()]).neg()
    });
    let study = Study::new(&model, &pairs, entropy).in_metric_units();
    println!("{}", study.patch([Component::HeadZ])?.effects[0].top(1)[0]);
    println!("{}", study.attribute([Component::HeadZ])?.effects[0].top(1)[0]);
    Ok(())
}
