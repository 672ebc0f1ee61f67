//! How a toy model was trained.

use serde::{Deserialize, Serialize};

use crate::evaluate::IoiScore;

/// Training options.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainingOptions {
    /// Seed of weights and data. The same seed gives the same model.
    pub seed: u64,
    /// Optimizer steps.
    pub steps: usize,
    /// Prompts per step.
    pub batch: usize,
    /// Highest learning rate. It is reached after a tenth of the steps, at most 200, and then falls
    /// to 0 along a cosine.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f32,
    /// Held-out prompts to score the trained model on.
    pub evaluate_on: usize,
}

impl Default for TrainingOptions {
    fn default() -> Self {
        Self { seed: 0, steps: 4000, batch: 64, learning_rate: 2e-3, weight_decay: 0.05, evaluate_on: 1000 }
    }
}

/// The training loss around one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossPoint {
    /// The step.
    pub step: usize,
    /// Mean loss over the steps since the previous point, nats.
    pub loss: f64,
    /// Mean loss of predicting the answer over the same steps, nats.
    pub answer_loss: f64,
}

/// How a model was trained, and how well it performs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The model's name.
    pub model: String,
    /// How it was trained.
    pub options: TrainingOptions,
    /// Number of parameters.
    pub parameters: usize,
    /// Loss during training.
    pub loss_curve: Vec<LossPoint>,
    /// Score on prompts whose names and whose template, place and object were held out.
    pub held_out: IoiScore,
    /// Seed of the held-out prompts.
    pub held_out_seed: u64,
}
