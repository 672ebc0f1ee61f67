//! Patches the output of one head on the corrupted run with its output on the clean run.

use rewire::prelude::*;

fn main() -> Result<(), Error> {
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let clean = "When John and Mary went to the shops, John gave the bag to";
    let corrupted = "When John and Mary went to the shops, Mary gave the bag to";
    let (_, cache) = model.run_with_cache(clean)?;

    let mut patch = Patch::nodes(&[Head::new(3, 7).z()], &cache)?;
    let patched = model.run_with(corrupted, &mut patch)?;
    patch.finish()?; // an error if a replacement was not applied

    let [mary, john] = [" Mary", " John"].map(|name| model.tokenizer().map(|t| t.single_token(name)));
    let (mary, john) = (mary?? as usize, john?? as usize);
    let difference = |logits: Tensor<Cpu, 3>| {
        let [_, pos, _] = logits.dims();
        let logit = |token| logits.clone().narrow(1, pos - 1, 1).narrow(2, token, 1).into_scalar();
        logit(mary) - logit(john)
    };
    let (before, after) = (difference(model.run(corrupted)?), difference(patched));
    println!("logit difference Mary - John: {before:.2}, with L3H7 from the clean run: {after:.2}");
    assert!(after > before + 1.0);
    Ok(())
}
