//! Edits an activation with a closure while the model runs, and records the activations after it.

use rewire::burn::tensor::s;
use rewire::prelude::*;

fn main() -> Result<(), Error> {
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let prompt = "When John and Mary went to the shops, John gave the bag to";

    // Head 7 of block 3 writes nothing: its z is [batch, pos, head, d_head].
    let mut silenced = edit(Site::Z.at(3), |z: Tensor<Cpu, 4>| z.slice_fill(s![.., .., 7, ..], 0.0));
    let mut recorder = Recorder::filtered(|point| point.site() == Some(Site::ResidPost));
    let without = model.run_with(prompt, (&mut silenced, &mut recorder))?;
    silenced.finish()?; // an error if the edit was not applied

    let change = (model.run(prompt)? - without).abs().max().into_scalar();
    println!("the largest change of a logit is {change:.2}; {} streams recorded", recorder.into_cache().len());
    assert!(change > 0.1);
    Ok(())
}
