//! How a toy model was trained.

use serde::{Deserialize, Serialize};

use crate::evaluate::IoiScore;

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainingOptions {
    /// Decides weights and data; the same seed gives the same model.
    pub seed: u64,
    /// Optimizer steps.
    pub steps: usize,
    /// Prompts a step.
    pub batch: usize,
    /// Highest learning rate; reached after a tenth of the steps at most 200, then falling to nothing along a cosine.
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
    /// Mean of its part that predicts the answer, nats.
    pub answer_loss: f64,
}

/// What was done to make a model, and how well it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The model's name.
    pub model: String,
    /// How it was trained.
    pub options: TrainingOptions,
    /// Its number of parameters.
    pub parameters: usize,
    /// The loss as training went.
    pub loss_curve: Vec<LossPoint>,
    /// Its score on prompts whose names and whose template, place and object were held out.
    pub held_out: IoiScore,
    /// Seed of the held-out prompts.
    pub held_out_seed: u64,
}
