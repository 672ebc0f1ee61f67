//! `rewire models`: the models that commands can use by name.

use rewire_model::{packaged_model, short_names};
use rewire_toy::Toy;

use crate::output::print;

/// Lists the models.
pub(crate) fn run() -> anyhow::Result<()> {
    let toys = Toy::ALL.iter().map(|toy| [toy.name().to_owned(), "in this program, for trying things out".to_owned()]);
    let (name, place) = packaged_model();
    let packaged = [[name.to_owned(), place]];
    let hub = short_names().map(|(name, repository)| [name.to_owned(), format!("{repository} on the hub")]);
    let rows: Vec<[String; 2]> = toys.chain(packaged).chain(hub).collect();
    let width = rows.iter().map(|[name, _]| name.len()).max().unwrap_or(0);
    let mut text = format!("  {:<width$}  where it is\n", "--model");
    for [name, place] in &rows {
        text += &format!("  {name:<width$}  {place}\n");
    }
    text += "\nAny other repository of the hub: owner/name. A revision follows the name: gpt2@main, EleutherAI/pythia-160m@step1000.\n";
    text += "A directory: config.json; model.safetensors or pytorch_model.bin (or an index and its shards);\n";
    text += "for text, tokenizer.json, or vocab.json and merges.txt.\n";
    text += "A GGUF file: FILE.gguf, or owner/name:FILE.gguf on the hub.\n";
    text += "Architectures: GPT-2, GPT-NeoX (Pythia), GPT-J, GPT-Neo, OPT, Llama (SmolLM2), Mistral, Qwen2, Qwen3, Gemma-2,\n";
    text += "Gemma-3, OLMo-2, SmolLM3 and Phi-3.\n";
    print(&text)
}
