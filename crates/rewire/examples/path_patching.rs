//! Path patching: which heads affect the logit difference through the queries of head L3H7?

use rewire::path::Input;
use rewire::prelude::*;
use rewire::tasks::ioi::demo_pairs;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let pairs = demo_pairs(model.tokenizer()?, model.bos())?;
    let study = Study::new(&model, &pairs, LogitDiff::new(&pairs)).noising();
    let queries = Receiver::new(3, Input::Q).head(7);
    let found = study.path_patch([Component::HeadZ], &[queries], FreezePolicy::path_patching())?;
    for node in found.outcome.effects[0].top(5) {
        println!("{node}");
    }
    // A head of the same or a later layer cannot affect the queries of L3H7.
    assert!(found.outcome.effects[0].top(1)[0].node.layer < 3);
    Ok(())
}
