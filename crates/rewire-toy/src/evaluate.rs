//! Scores a model on indirect object identification.

use burn::tensor::backend::Backend;
use rewire_model::{ModelError, ReadPositions, Readout, Run, Transformer};
use rewire_tasks::{Accuracy, LogitDiff, Metric, PromptPairs};
use serde::{Deserialize, Serialize};

/// A model's score on IOI prompts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct IoiScore {
    /// Number of scored prompts.
    pub prompts: usize,
    /// Share of prompts after which IO is the most likely token.
    pub accuracy: f64,
    /// Share of prompts after which IO is more likely than S.
    pub io_above_s: f64,
    /// Mean logit of IO minus the logit of S.
    pub mean_logit_diff: f64,
}

/// Prompts in one batch, which bounds the memory that scoring takes.
const BATCH: usize = 128;

/// Scores the clean prompts of `pairs`.
///
/// # Errors
/// [`ModelError`] if the model cannot run the prompts.
pub fn score_ioi<B: Backend>(model: &Transformer<B>, pairs: &PromptPairs) -> Result<IoiScore, ModelError> {
    let [mut correct, mut above, mut total] = [0.0, 0.0, 0.0];
    for batch in pairs.batches(BATCH) {
        let readout = Readout { positions: ReadPositions::Each(batch.ends()), columns: None };
        let run = Run::tokens(model.tokens(&batch.clean())?).with_readout(readout);
        let logits = model.forward(run, ())?;
        let [rows, _, d_vocab] = logits.dims();
        let logits = logits.reshape([rows, d_vocab]);
        let prompts: Vec<usize> = (0..rows).collect();

        let diff = LogitDiff::new(&batch);
        let columns: Vec<i32> = diff.reads().columns.unwrap_or_default().iter().map(|&c| c as i32).collect();
        let index = burn::tensor::Tensor::<B, 1, burn::tensor::Int>::from_data(columns.as_slice(), &logits.device());
        for value in host(diff.evaluate(logits.clone().select(1, index), &prompts)) {
            above += f64::from(u8::from(value > 0.0));
            total += f64::from(value);
        }
        correct += host(Accuracy::new(&batch).evaluate(logits, &prompts)).iter().map(|&v| f64::from(v)).sum::<f64>();
    }
    let n = pairs.len() as f64;
    Ok(IoiScore { prompts: pairs.len(), accuracy: correct / n, io_above_s: above / n, mean_logit_diff: total / n })
}

fn host<B: Backend>(values: burn::tensor::Tensor<B, 1>) -> Vec<f32> {
    values.into_data().iter::<f32>().collect()
}
