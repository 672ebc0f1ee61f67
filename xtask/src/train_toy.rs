//! `cargo xtask train-toy`: trains the embedded models from scratch.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
use burn::backend::{Autodiff, Flex};
use clap::Args;
use rewire_cli::output::{WaitArguments, print};
use rewire_cli::progress::StepProgress;
use rewire_toy::{MODEL_FILES, Toy, TrainingOptions, save, train};

/// Autodiff over flex in the only form for which Rewire fuses nothing. The embedded models were
/// trained without fused operations, and training them again gives the same bytes.
type Plain = Autodiff<Flex, BalancedCheckpointing>;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Model to train: toy-gpt2 or toy-neox [default: both].
    #[arg(long)]
    model: Option<Toy>,
    /// Seed of weights and data; the same seed gives the same weights on one machine.
    #[arg(long, default_value_t = TrainingOptions::default().seed)]
    seed: u64,
    /// Number of optimizer steps.
    #[arg(long, default_value_t = TrainingOptions::default().steps)]
    steps: usize,
    /// Prompts per step.
    #[arg(long, default_value_t = TrainingOptions::default().batch)]
    batch: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = TrainingOptions::default().learning_rate)]
    learning_rate: f64,
    /// Directory to write to, with one folder per model, named after it [default: the folder of the
    /// embedded models].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Replace a model that is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArguments,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.steps > 0 && arguments.batch > 0, "--steps and --batch must be at least 1");
    let toys = arguments.model.map_or(Toy::ALL.to_vec(), |toy| vec![toy]);
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/rewire-toy/models"),
    };
    // Both are checked before the first one trains, which takes minutes.
    if !arguments.force {
        toys.iter().try_for_each(|toy| refuse_to_replace(&out.join(toy.name())))?;
    }
    toys.into_iter().try_for_each(|toy| train_one(toy, arguments, &out))
}

/// Refuses a directory that holds a file of a model.
fn refuse_to_replace(directory: &Path) -> anyhow::Result<()> {
    match MODEL_FILES.iter().find(|name| directory.join(name).exists()) {
        Some(found) => bail!(
            "{} holds a model ({found}); choose another --out, or give --force to replace it",
            directory.display()
        ),
        None => Ok(()),
    }
}

fn train_one(toy: Toy, arguments: &Arguments, out: &Path) -> anyhow::Result<()> {
    let options = TrainingOptions {
        seed: arguments.seed,
        steps: arguments.steps,
        batch: arguments.batch,
        learning_rate: arguments.learning_rate,
        ..TrainingOptions::default()
    };
    let started = Instant::now();
    let mut progress = StepProgress::new(toy.name());
    let report = |step, loss: f64| progress.update(step, options.steps, &format!("answer loss {loss:.4}"));
    let directory = arguments.wait.take(&out.join(toy.name()), &MODEL_FILES)?;
    let trained = train::<Plain>(toy, &options, &Default::default(), report)?;
    progress.finish();
    save(&directory, &trained.model, &trained.tokenizer_json, &trained.manifest).context("cannot save the model")?;
    let score = trained.manifest.held_out;
    let seconds = started.elapsed().as_secs_f64();
    let mut text = format!("{toy}: {} parameters, {seconds:.0} s\n", trained.manifest.parameters);
    let curve = &trained.manifest.loss_curve;
    for point in curve.iter().rev().step_by(curve.len().div_ceil(10).max(1)).collect::<Vec<_>>().into_iter().rev() {
        text += &format!("  step {:>5}  loss {:.4}  answer {:.4}\n", point.step, point.loss, point.answer_loss);
    }
    print(&format!(
        "{text}  on {} held-out prompts: accuracy {:.4}, IO above S {:.4}, mean logit difference {:.3}\n  written to {}\n",
        score.prompts,
        score.accuracy,
        score.io_above_s,
        score.mean_logit_diff,
        directory.path().display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_there_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        refuse_to_replace(directory.path()).unwrap();
        std::fs::write(directory.path().join(MODEL_FILES[0]), "mine").unwrap();
        let refused = refuse_to_replace(directory.path()).unwrap_err().to_string();
        assert!(refused.contains(MODEL_FILES[0]) && refused.contains("--force"), "{refused}");
    }
}
