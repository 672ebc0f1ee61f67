//! The matrix of a linear map or of an embedding: in memory, or in the model's file.

use std::ops::Range;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rewire_tensor::Precision;

use crate::files::stored::{RowsAre, StoredMatrix};
use crate::network::linear::frozen;

/// A matrix, `[rows, columns]`.
#[derive(Module, Debug)]
pub(crate) enum Matrix<B: Backend> {
    /// The values.
    InMemory(Param<Tensor<B, 2>>),
    /// A matrix in the model's file, and what is done to it.
    InFile(InFile<B>),
}

/// A matrix in the model's file. [`tensor`](Self::tensor) converts it to float32 and applies the
/// steps of weight processing, in the order and with the operations of a matrix in memory, so that
/// both have the same bits.
#[derive(Module, Debug)]
pub(crate) struct InFile<B: Backend> {
    /// A norm's gain that the rows are multiplied by, `[rows]`.
    gain: Option<Param<Tensor<B, 1>>>,
    /// An empty tensor on the device: the file is on none.
    place: Param<Tensor<B, 1>>,
    #[module(skip)]
    source: Source,
}

/// The stored values, and the steps that need no tensor.
#[derive(Debug, Clone)]
struct Source {
    stored: Arc<StoredMatrix>,
    /// Whether the stored matrix is transposed first.
    transposed: bool,
    /// The axes along which the mean is subtracted, one after the other, after the gain.
    centered: Vec<usize>,
    precision: Precision,
}

impl<B: Backend> Matrix<B> {
    /// Returns a matrix whose values are in memory.
    pub(crate) fn in_memory(values: Tensor<B, 2>) -> Self {
        Matrix::InMemory(frozen(values))
    }

    /// Returns a matrix that stays in its file.
    pub(crate) fn in_file(stored: StoredMatrix, device: &B::Device) -> Self {
        let source =
            Source { stored: Arc::new(stored), transposed: false, centered: Vec::new(), precision: Precision::Float32 };
        Matrix::InFile(InFile { gain: None, place: frozen(Tensor::zeros([1], device)), source })
    }

    /// Returns the values. Those of a matrix in a file are converted at each call.
    pub(crate) fn val(&self) -> Tensor<B, 2> {
        match self {
            Matrix::InMemory(values) => values.val(),
            Matrix::InFile(file) => file.tensor(),
        }
    }

    /// Returns the values of neighboring columns.
    pub(crate) fn columns(&self, columns: Range<usize>) -> Tensor<B, 2> {
        match columns.len() == self.dims()[1] {
            true => self.val(),
            false => self.val().narrow(1, columns.start, columns.len()),
        }
    }

    /// Returns the numbers of rows and columns.
    pub(crate) fn dims(&self) -> [usize; 2] {
        match self {
            Matrix::InMemory(values) => values.dims(),
            Matrix::InFile(file) => file.dims(),
        }
    }

    /// Returns the device of the values.
    pub(crate) fn device(&self) -> B::Device {
        match self {
            Matrix::InMemory(values) => values.val().device(),
            Matrix::InFile(file) => file.place.val().device(),
        }
    }

    /// Returns the element type of the values.
    pub(crate) fn precision(&self) -> Precision {
        match self {
            Matrix::InMemory(values) if values.val().dtype() == burn::tensor::DType::BF16 => Precision::BFloat16,
            Matrix::InMemory(_) => Precision::Float32,
            Matrix::InFile(file) => file.source.precision,
        }
    }

    /// Returns the slices of these indices along `axis`: rows (0) or columns (1). Converts only
    /// these, if the steps allow it.
    pub(crate) fn select(&self, axis: usize, index: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        match self {
            Matrix::InMemory(values) => values.val().select(axis, index),
            Matrix::InFile(file) => file.select(axis, index),
        }
    }

    /// Returns the matrix with its rows multiplied by a norm's gain, `[rows]`.
    pub(crate) fn times_rows(self, gain: Tensor<B, 1>) -> Self {
        match self {
            Matrix::InMemory(values) => Self::in_memory(with_gain(values.val(), gain)),
            Matrix::InFile(file) => Matrix::InFile(InFile { gain: Some(frozen(gain)), ..file }),
        }
    }

    /// Returns the matrix minus its mean along `axis`.
    pub(crate) fn centered(self, axis: usize) -> Self {
        match self {
            Matrix::InMemory(values) => Self::in_memory(centered(values.val(), axis)),
            Matrix::InFile(mut file) => {
                file.source.centered.push(axis);
                Matrix::InFile(file)
            }
        }
    }

    /// Returns the transposed matrix. A matrix in a file must not be processed yet.
    pub(crate) fn transposed(self) -> Self {
        match self {
            Matrix::InMemory(values) => Self::in_memory(values.val().transpose()),
            Matrix::InFile(mut file) => {
                file.source.transposed = !file.source.transposed;
                Matrix::InFile(file)
            }
        }
    }

    /// Returns the matrix with values of this element type.
    pub(crate) fn cast(self, precision: Precision) -> Self {
        match self {
            Matrix::InMemory(values) => Self::in_memory(values.val().cast(precision.dtype())),
            Matrix::InFile(mut file) => {
                file.source.precision = precision;
                Matrix::InFile(file)
            }
        }
    }
}

impl<B: Backend> InFile<B> {
    fn dims(&self) -> [usize; 2] {
        let [rows, columns] = self.source.stored.shape();
        if self.source.transposed { [columns, rows] } else { [rows, columns] }
    }

    /// Returns the values, converted and processed.
    fn tensor(&self) -> Tensor<B, 2> {
        let Source { stored, transposed, .. } = &self.source;
        let values = self.on_device(stored.values(), stored.shape());
        self.processed(if *transposed { values.transpose() } else { values })
    }

    fn select(&self, axis: usize, index: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        let Source { stored, transposed, centered, .. } = &self.source;
        let stored_axis = match (stored.rows_are(), transposed) {
            (RowsAre::Rows, false) | (RowsAre::Columns, true) => 0,
            (RowsAre::Columns, false) | (RowsAre::Rows, true) => 1,
        };
        // Means of columns, or over them, are taken of the whole matrix: how they are summed may
        // depend on its shape. Rows are multiplied by their own gains.
        let needs_all = match axis {
            0 => centered.contains(&0) || self.gain.is_some(),
            _ => !centered.is_empty(),
        };
        if axis != stored_axis || needs_all {
            return self.tensor().select(axis, index);
        }
        let chosen: Vec<usize> = index.into_data().iter::<i64>().map(|i| i as usize).collect();
        let values = self.on_device(stored.chosen(&chosen), stored.shape_of(chosen.len()));
        self.processed(if *transposed { values.transpose() } else { values })
    }

    fn on_device(&self, values: Vec<f32>, shape: [usize; 2]) -> Tensor<B, 2> {
        Tensor::from_data(TensorData::new(values, shape), &self.place.val().device())
    }

    fn processed(&self, values: Tensor<B, 2>) -> Tensor<B, 2> {
        let values = match &self.gain {
            Some(gain) => with_gain(values, gain.val()),
            None => values,
        };
        let values = self.source.centered.iter().fold(values, |values, &axis| centered(values, axis));
        match self.source.precision {
            Precision::Float32 => values,
            short => values.cast(short.dtype()),
        }
    }
}

#[cfg(feature = "flex")]
impl<B: burn::tensor::backend::AutodiffBackend> Matrix<B> {
    /// Returns the matrix on the backend without a tape.
    pub(crate) fn untracked(&self) -> Matrix<B::InnerBackend> {
        match self {
            Matrix::InMemory(values) => Matrix::in_memory(values.val().inner()),
            Matrix::InFile(_) => burn::module::AutodiffModule::valid(self),
        }
    }
}

fn with_gain<B: Backend>(values: Tensor<B, 2>, gain: Tensor<B, 1>) -> Tensor<B, 2> {
    let rows = values.dims()[0];
    values * gain.reshape([rows, 1])
}

/// Returns `tensor` minus its mean along `axis`.
pub(crate) fn centered<B: Backend, const D: usize>(tensor: Tensor<B, D>, axis: usize) -> Tensor<B, D> {
    tensor.clone() - tensor.mean_dim(axis)
}
