//! Runs a prompt, keeps every activation, and prints the tokens that one head attends to from the
//! last position.

use rewire::prelude::*;

fn main() -> Result<(), Error> {
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let prompt = "When John and Mary went to the shops, John gave the bag to";
    let (logits, cache) = model.run_with_cache(prompt)?;
    println!("logits {:?} [batch, pos, vocabulary], {} activations", logits.dims(), cache.len());

    let head = Head::new(3, 7);
    let pattern = cache.block::<4>(head.layer, Site::Pattern)?; // [batch, head, query, key]
    let [_, _, queries, keys] = pattern.dims();
    let row = pattern.narrow(1, head.head, 1).narrow(2, queries - 1, 1).reshape([keys]);
    let tokens = model.encode(prompt)?;
    for (token, weight) in tokens.iter().zip(row.into_data().iter::<f32>()).filter(|(_, weight)| *weight > 0.1) {
        println!("{head} attends to {:?}: {weight:.2}", model.decode(&[*token])?);
    }
    Ok(())
}
