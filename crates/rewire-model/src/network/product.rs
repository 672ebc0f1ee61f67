//! Products with a model's matrix on the autodiff backend over flex, each as one step of the tape.
//!
//! The tape keeps the place of the matrix, not its values. The backward pass converts a matrix in a
//! file again. Nothing computes gradients of matrices.

use std::any::Any;
use std::ops::Range;

use burn::tensor::{Tensor, TensorPrimitive, backend::Backend};
use burn_flex::{Flex, FlexTensor};
use rewire_tensor::{Precision, matmul};

use crate::kernels::tape::{Differentiated, Input, Tracked, record};
use crate::network::matrix::Matrix;

/// Returns `x @ w + b` for each of these neighboring columns of `w`, whose biases are `b`. `x` is
/// `[rows, from]`. Returns `None` if the backend is not autodiff over flex, if the numbers are not
/// float32, or if the weights are on the tape, as in training.
pub(crate) fn products<B: Backend, const N: usize>(
    x: &Tensor<B, 2>,
    w: &Matrix<B>,
    parts: &[Range<usize>; N],
    b: &Tensor<B, 1>,
) -> Option<[Tensor<B, 2>; N]> {
    let any: &dyn Any = w;
    let w = any.downcast_ref::<Matrix<Tracked>>().filter(|w| w.precision() == Precision::Float32)?;
    if let Matrix::InMemory(values) = w {
        Input::of(&values.val()).filter(|values| !values.is_tracked())?;
    }
    let b = Input::of(b).filter(|b| !b.is_tracked())?.value();
    let w = w.untracked();
    let all = parts[0].start..parts[N - 1].end;
    let rows = matmul(Input::of(x)?.value(), w.columns(all.clone())) + b.unsqueeze();
    let input = || Input::of(x).expect("an input a moment ago").on_tape();
    Some(parts.clone().map(|columns| {
        let value = rows.clone().narrow(1, columns.start - all.start, columns.len());
        record([input()], value, || Factor { w: w.clone(), columns })
    }))
}

/// Some columns of a matrix.
#[derive(Debug, Clone)]
struct Factor {
    w: Matrix<Flex>,
    columns: Range<usize>,
}

impl Differentiated<1> for Factor {
    fn gradients(self, of_result: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let gradient = Tensor::<Flex, 2>::from_primitive(TensorPrimitive::Float(of_result));
        let w = self.w.columns(self.columns);
        // The product in the other order reads the rows of `w` as they are in memory, instead of
        // copying all of `w` into the order of its columns.
        let of_x = matmul(w, gradient.transpose()).transpose();
        [Some(of_x.into_primitive().tensor().to_contiguous())]
    }
}
