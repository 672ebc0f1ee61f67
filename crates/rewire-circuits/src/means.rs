//! Mean head outputs, which replace the outputs of ablated heads.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use rewire_analysis::AnalysisError;
use rewire_analysis::run::{Intervention, MeanOver, mean_activations};
use rewire_hooks::Site;
use rewire_model::Transformer;

/// Returns the mean output (z) of every head over each group of prompts, by position, as Wang et
/// al. 2022 do for each template. The prompts of a group have the same length. Runs `batch` prompts
/// at once.
///
/// # Errors
/// [`AnalysisError`], for example if a group is empty or its prompts differ in length.
pub fn means_by<B: Backend, K: Ord + Clone>(
    model: &Transformer<B>,
    groups: &BTreeMap<K, Vec<Vec<u32>>>,
    batch: usize,
) -> Result<BTreeMap<K, Intervention<B>>, AnalysisError> {
    let mean = |(key, prompts): (&K, &Vec<Vec<u32>>)| {
        let mean = mean_activations(model, prompts, &[Site::Z], MeanOver::Prompts, batch)?;
        Ok((key.clone(), Intervention::Fixed(mean)))
    };
    groups.iter().map(mean).collect()
}
