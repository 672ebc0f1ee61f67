//! Loads a model with its tokenizer and continues a prompt.

use rewire::prelude::*;

fn main() -> Result<(), Error> {
    // Or "gpt2", "pythia-160m", "owner/name@revision", or a directory.
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let prompt = "When John and Mary went to the shops, John gave the bag to";
    let continuation = model.generate(prompt, 1)?;
    println!("{prompt}{continuation}");
    assert_eq!(continuation, " Mary");
    Ok(())
}
