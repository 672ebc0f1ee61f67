//! The logit lens: prints the answer that the model would give if it stopped at each layer.

use rewire::prelude::*;

fn main() -> Result<(), Error> {
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let prompt = "When John and Mary went to the shops, John gave the bag to";
    let (_, cache) = model.run_with_cache(prompt)?;
    let lens = model.transformer().logit_lens(&cache)?; // one [batch, pos, vocabulary] per layer
    let mut answers = Vec::new();
    for (layer, logits) in lens.into_iter().enumerate() {
        let [_, pos, d_vocab] = logits.dims();
        let likeliest = rewire::model::likeliest(logits.narrow(1, pos - 1, 1).reshape([1, d_vocab]));
        answers.push(model.decode(&likeliest)?);
        println!("before block {layer}: {:?}", answers[layer]);
    }
    assert_eq!(answers.last().map(String::as_str), Some(" Mary"));
    Ok(())
}
