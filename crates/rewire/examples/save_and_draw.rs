//! Saves effects with a description of the run, and draws them.

use rewire::prelude::*;
use rewire::tasks::ioi::demo_pairs;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
    let pairs = demo_pairs(model.tokenizer()?, model.bos())?;
    let study = Study::new(&model, &pairs, LogitDiff::new(&pairs));
    let outcome = study.patch([NodeKind::all(Component::HeadZ), NodeKind::by_position(Component::ResidPre)])?;

    let out = std::env::temp_dir().join("rewire-save-and-draw");
    outcome.save(&out)?; // effects.safetensors, effects.csv, effects.json, report.html
    outcome.effects[1].heat_map().save(out.join("by-position.html"))?;
    println!("{} holds the tables and the charts", out.display());
    Ok(())
}
