//! Tensors as numpy arrays, and numpy arrays as tensors.
//!
//! A result is an object with numpy's array interface, whose memory an array shares. The module
//! therefore needs nothing of numpy when it is built, and works with every version of it.

use burn::tensor::TensorData;
use burn::tensor::backend::Backend;
use ndarray::{ArrayD, IxDyn};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use rewire_hooks::AnyRank;

use crate::failure::Failure;

/// Bytes of a float32 number.
const BYTES: usize = size_of::<f32>();

/// Returns the values of a tensor, in row-major order.
pub(crate) fn values<B: Backend>(tensor: AnyRank<B>) -> Result<ArrayD<f32>, Failure> {
    let dims = tensor.dims();
    let flat = tensor.reshape([dims.iter().product::<usize>()]);
    // Values that nobody else holds are moved and not copied.
    drop(tensor);
    let values = flat.into_data().convert::<f32>().into_vec::<f32>();
    let values = values.map_err(|error| Failure::Internal(format!("a tensor is not float32: {error:?}")))?;
    ArrayD::from_shape_vec(IxDyn(&dims), values).map_err(|error| Failure::Internal(error.to_string()))
}

/// Numbers that a numpy array shares.
#[pyclass(frozen, module = "rewire._rewire")]
pub(crate) struct Floats {
    values: Vec<f32>,
    shape: Vec<usize>,
}

#[pymethods]
impl Floats {
    /// Describes the memory to numpy. An array over it keeps this object alive.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        let is_read_only = false;
        interface.set_item("data", (self.values.as_ptr() as usize, is_read_only))?;
        interface.set_item("shape", PyTuple::new(py, &self.shape)?)?;
        interface.set_item("typestr", if cfg!(target_endian = "big") { ">f4" } else { "<f4" })?;
        interface.set_item("version", 3)?;
        Ok(interface)
    }
}

/// Returns a writable float32 array of these values. Nothing is copied.
pub(crate) fn to_numpy(py: Python<'_>, values: ArrayD<f32>) -> PyResult<Bound<'_, PyAny>> {
    let shape = values.shape().to_vec();
    let values = match values.is_standard_layout() {
        true => values.into_raw_vec_and_offset().0,
        false => values.iter().copied().collect(),
    };
    py.import("numpy")?.call_method1("asarray", (Floats { values, shape },))
}

/// Returns the values and the shape of anything that numpy makes a float32 array of.
pub(crate) fn from_numpy(array: &Bound<'_, PyAny>) -> PyResult<ArrayD<f32>> {
    let numpy = array.py().import("numpy")?;
    let array = numpy.call_method1("asarray", (array, "float32"))?;
    let shape: Vec<usize> = array.getattr("shape")?.extract()?;
    let bytes = array.call_method0("tobytes")?.downcast_into::<PyBytes>()?;
    let number = |bytes: &[u8]| f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let values = bytes.as_bytes().chunks_exact(BYTES).map(number).collect();
    ArrayD::from_shape_vec(IxDyn(&shape), values).map_err(|error| Failure::Internal(error.to_string()).into())
}

/// Returns a tensor with these values.
pub(crate) fn tensor<B: Backend>(values: ArrayD<f32>, device: &B::Device) -> AnyRank<B> {
    let dims = values.shape().to_vec();
    AnyRank::from_data(TensorData::new(values.into_iter().collect::<Vec<f32>>(), dims), device)
}
