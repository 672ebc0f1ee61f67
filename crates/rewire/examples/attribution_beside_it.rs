//! Compares attribution patching with activation patching: how good is the estimate?

use rewire::prelude::*;
use rewire::stats::Agreement;
use rewire::tasks::ioi::demo_pairs;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let pairs = demo_pairs(model.tokenizer()?, model.bos())?;
    let study = Study::new(&model, &pairs, LogitDiff::new(&pairs));
    let exact = study.patch([Component::HeadZ])?;
    let estimated = study.attribute([Component::HeadZ])?;
    let agreement = Agreement::new(&exact.effects[0], &estimated.effects[0], 5)?;
    for (exact, estimate) in exact.effects[0].top(5).iter().zip(estimated.effects[0].top(5)) {
        println!("exact {exact:<16} estimated {estimate}");
    }
    println!("Pearson correlation {:.2}", agreement.pearson.unwrap_or(f64::NAN));
    assert!(agreement.pearson.is_some_and(|r| r > 0.5));
    Ok(())
}
