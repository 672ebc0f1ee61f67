//! The margin of the answers over the wrong answers: whether a model does the task.

use burn::tensor::{Bool, Tensor, TensorData, backend::Backend};

use crate::metrics::metric::{Metric, Reads};
use crate::pairs::PromptPairs;

/// Largest logit of the answers minus the largest logit of the wrong answers, at END. The model is
/// right on a prompt if the margin is above 0.
///
/// For a pair without wrong answers, every other token is a wrong answer. The model is then right
/// if the most likely next token is an answer.
#[derive(Debug, Clone)]
pub struct Margin {
    positions: Vec<usize>,
    /// The tokens that the metric reads, ascending; `None` for all.
    columns: Option<Vec<usize>>,
    /// Indices of the answers among the columns, per prompt.
    answers: Vec<Vec<usize>>,
    /// Indices of the wrong answers among the columns, per prompt. Empty for all other tokens.
    wrong_answers: Vec<Vec<usize>>,
}

/// The tokens whose largest logit is taken.
#[derive(Clone, Copy)]
enum Side {
    Right,
    Wrong,
}

impl Margin {
    /// Creates the metric for these pairs.
    #[must_use]
    pub fn new(pairs: &PromptPairs) -> Self {
        let reads_all = pairs.pairs().iter().any(|pair| pair.wrong_answers.is_empty());
        let columns = (!reads_all).then(|| {
            let tokens = pairs.pairs().iter().flat_map(|pair| pair.answers.iter().chain(&pair.wrong_answers));
            let mut columns: Vec<usize> = tokens.map(|&token| token as usize).collect();
            columns.sort_unstable();
            columns.dedup();
            columns
        });
        let index = |&token: &u32| match &columns {
            Some(columns) => columns.partition_point(|&column| column < token as usize),
            None => token as usize,
        };
        let indices = |tokens: &[u32]| -> Vec<usize> { tokens.iter().map(index).collect() };
        let answers = pairs.pairs().iter().map(|pair| indices(&pair.answers)).collect();
        let wrong_answers = pairs.pairs().iter().map(|pair| indices(&pair.wrong_answers)).collect();
        Self { positions: pairs.ends(), columns, answers, wrong_answers }
    }

    /// Reads the logits at these positions, one per prompt, instead of at END.
    #[must_use]
    pub fn at(self, positions: Vec<usize>) -> Self {
        Self { positions, ..self }
    }

    /// Returns the largest logit on one side, `[row]`.
    fn largest<B: Backend>(&self, side: Side, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        let [rows, columns] = logits.dims();
        let mut is_left_out = Vec::with_capacity(rows * columns);
        for &prompt in prompts {
            let (tokens, is_of_side) = match side {
                Side::Right => (&self.answers[prompt], true),
                Side::Wrong if self.wrong_answers[prompt].is_empty() => (&self.answers[prompt], false),
                Side::Wrong => (&self.wrong_answers[prompt], true),
            };
            let row = is_left_out.len();
            is_left_out.resize(row + columns, is_of_side);
            tokens.iter().for_each(|token| is_left_out[row + token] = !is_of_side);
        }
        let data = TensorData::new(is_left_out, [rows, columns]);
        let mask = Tensor::<B, 2, Bool>::from_data(data, &logits.device());
        logits.mask_fill(mask, f32::NEG_INFINITY).max_dim(1).reshape([rows])
    }
}

impl Metric for Margin {
    fn name(&self) -> &'static str {
        "margin"
    }

    fn reads(&self) -> Reads {
        Reads { positions: self.positions.clone(), columns: self.columns.clone() }
    }

    fn evaluate<B: Backend>(&self, logits: Tensor<B, 2>, prompts: &[usize]) -> Tensor<B, 1> {
        self.largest(Side::Right, logits.clone(), prompts) - self.largest(Side::Wrong, logits, prompts)
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::pairs::PromptPair;

    fn margins(metric: &Margin, logits: [[f32; 4]; 2]) -> Vec<f32> {
        let columns = metric.reads().columns.unwrap_or_else(|| (0..4).collect());
        let read: Vec<f32> = logits.iter().flat_map(|row| columns.iter().map(|&column| row[column])).collect();
        let logits = Tensor::<Flex, 2>::from_data(TensorData::new(read, [2, columns.len()]), &Default::default());
        metric.evaluate(logits, &[0, 1]).into_data().to_vec().unwrap()
    }

    fn pair(answers: &[u32], wrong_answers: &[u32]) -> PromptPair {
        PromptPair {
            clean: vec![0],
            corrupted: vec![1],
            answers: answers.to_vec(),
            wrong_answers: wrong_answers.to_vec(),
        }
    }

    #[test]
    fn the_margin_compares_the_largest_logit_of_each_side() {
        let pairs = PromptPairs::new(vec![pair(&[1, 3], &[2]), pair(&[2], &[3, 1])]).unwrap();
        let metric = Margin::new(&pairs);
        assert_eq!(metric.reads().columns, Some(vec![1, 2, 3]));
        assert_eq!([metric.reads().positions, metric.clone().at(vec![0, 3]).reads().positions], [[0, 0], [0, 3]]);
        // The mean answer of the first prompt is below its wrong answer, the largest above.
        assert_eq!(margins(&metric, [[9.0, -8.0, 1.0, 2.0], [9.0, 5.0, 4.0, 1.0]]), [1.0, -1.0]);
    }

    #[test]
    fn without_wrong_answers_every_other_token_is_wrong() {
        let pairs = PromptPairs::new(vec![pair(&[1], &[2]), pair(&[2], &[3])]).unwrap();
        let metric = Margin { columns: None, wrong_answers: vec![vec![], vec![3]], ..Margin::new(&pairs) };
        let metric = Margin { answers: vec![vec![1], vec![2]], ..metric };
        assert_eq!(margins(&metric, [[2.0, 5.0, 1.0, 4.0], [9.0, 5.0, 4.0, 1.0]]), [1.0, 3.0]);
    }
}
