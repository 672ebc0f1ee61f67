//! Patches every head exactly, one at a time: which heads carry the behavior?

use rewire::prelude::*;

fn main() -> Result<(), Error> {
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let pairs = model.pairs([
        Pair {
            clean: "When John and Mary went to the shops, John gave the bag to",
            corrupted: "When John and Mary went to the shops, Mary gave the bag to",
            answer: " Mary",
            wrong_answer: " John",
        },
        Pair {
            clean: "When Tom and James went to the park, James gave the ball to",
            corrupted: "When Tom and James went to the park, Tom gave the ball to",
            answer: " Tom",
            wrong_answer: " James",
        },
    ])?;
    let study = Study::new(&model, &pairs, LogitDiff::new(&pairs));
    // Effects are 0 on the corrupted prompt and 1 on the clean prompt.
    let outcome = study.patch([Component::HeadZ])?;
    for node in outcome.effects[0].top(5) {
        println!("{node}");
    }
    let map = outcome.effects[0].to_array2(); // [layer, head]
    assert_eq!(map.map(|map| map.dim()), Some((4, 8)));
    Ok(())
}
