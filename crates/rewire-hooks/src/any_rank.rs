//! Tensors of any rank in one type. Only this file takes burn's primitives apart.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, DType, Int, Shape, Slice, Tensor, TensorData, TensorMetadata, TensorPrimitive};

/// A float tensor whose number of dimensions is known only at run time.
///
/// Activations have three or four dimensions, depending on their [hook point](crate::HookPoint).
/// Code that treats all points alike holds them as `AnyRank`, and asks for a fixed rank only when
/// it needs one. Tensors are shared, not copied.
///
/// ```
/// use burn::backend::Flex;
/// use burn::tensor::Tensor;
/// use rewire_hooks::AnyRank;
///
/// let z = Tensor::<Flex, 4>::ones([2, 5, 4, 8], &Default::default());
/// let any = AnyRank::from(z);
/// assert_eq!((any.rank(), any.dims()), (4, vec![2, 5, 4, 8]));
/// assert!(any.get::<3>().is_none());
///
/// let last = any.narrow(1, 4, 1); // the last position
/// assert_eq!(last.get::<4>().unwrap().dims(), [2, 1, 4, 8]);
/// ```
#[derive(Debug, Clone)]
pub struct AnyRank<B: Backend>(B::FloatTensorPrimitive);

impl<B: Backend, const D: usize> From<Tensor<B, D>> for AnyRank<B> {
    fn from(tensor: Tensor<B, D>) -> Self {
        AnyRank(tensor.into_primitive().tensor())
    }
}

impl<B: Backend> AnyRank<B> {
    /// Returns a tensor of zeros with these sizes.
    #[must_use]
    pub fn zeros(dims: &[usize], device: &B::Device) -> Self {
        let flat = Self::from(Tensor::<B, 1>::zeros([dims.iter().product::<usize>()], device));
        AnyRank(B::float_reshape(flat.0, Shape::from(dims.to_vec())))
    }

    /// Returns a tensor with the values and the shape of `data`.
    #[must_use]
    pub fn from_data(data: TensorData, device: &B::Device) -> Self {
        let shape = data.shape.clone();
        let flat = TensorData { shape: Shape::from(vec![shape.num_elements()]), ..data };
        AnyRank(B::float_reshape(Self::from(Tensor::<B, 1>::from_data(flat, device)).0, shape))
    }

    /// Returns the size of each dimension.
    #[must_use]
    pub fn dims(&self) -> Vec<usize> {
        self.0.shape().to_vec()
    }

    /// Returns the number of dimensions.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.dims().len()
    }

    /// Returns the element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.0.dtype()
    }

    /// Returns the device that holds the tensor.
    #[must_use]
    pub fn device(&self) -> B::Device {
        B::float_device(&self.0)
    }

    /// Returns the tensor with a fixed rank, or `None` if it does not have `D` dimensions.
    #[must_use]
    pub fn get<const D: usize>(&self) -> Option<Tensor<B, D>> {
        (self.rank() == D).then(|| Tensor::from_primitive(TensorPrimitive::Float(self.0.clone())))
    }

    /// Returns the values, in row-major order, in another shape.
    ///
    /// # Panics
    /// If the new shape has another number of elements.
    #[must_use]
    pub fn reshape<const D: usize>(&self, dims: [usize; D]) -> Tensor<B, D> {
        let reshaped = B::float_reshape(self.0.clone(), Shape::from(dims.to_vec()));
        Tensor::from_primitive(TensorPrimitive::Float(reshaped))
    }

    /// Returns the slice `start..start + len` along dimension `dim`.
    ///
    /// # Panics
    /// If the tensor has no such dimension or range.
    #[must_use]
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Self {
        let range = |(d, size)| if d == dim { start..start + len } else { 0..size };
        let slices: Vec<Slice> = self.dims().into_iter().enumerate().map(range).map(Slice::from).collect();
        AnyRank(B::float_slice(self.0.clone(), &slices))
    }

    /// Returns the slices at these indices along dimension `dim`, in this order.
    ///
    /// # Panics
    /// If the tensor has no such dimension or index.
    #[must_use]
    pub fn select(&self, dim: usize, places: &[usize]) -> Self {
        let places: Vec<i64> = places.iter().map(|&place| place as i64).collect();
        let index = Tensor::<B, 1, Int>::from_data(places.as_slice(), &self.device());
        AnyRank(B::float_select(self.0.clone(), dim, index.into_primitive()))
    }

    /// Returns `times` copies, one after the other, along dimension `dim`.
    ///
    /// # Panics
    /// If the tensor has no such dimension.
    #[must_use]
    pub fn repeat_dim(&self, dim: usize, times: usize) -> Self {
        if times == 1 {
            return self.clone();
        }
        AnyRank(B::float_repeat_dim(self.0.clone(), dim, times))
    }

    /// Expands dimensions of size 1, without copying, until the sizes are `dims`.
    ///
    /// # Panics
    /// If a dimension whose size is not 1 would have to change.
    #[must_use]
    pub fn expand(&self, dims: &[usize]) -> Self {
        AnyRank(B::float_expand(self.0.clone(), Shape::from(dims.to_vec())))
    }

    /// Returns `value` at the elements where the mask is true, and this tensor elsewhere. All three
    /// have one shape.
    ///
    /// # Panics
    /// If the shapes differ.
    #[must_use]
    pub fn mask_where(&self, mask: &AnyMask<B>, value: &Self) -> Self {
        AnyRank(B::float_mask_where(self.0.clone(), mask.0.clone(), value.0.clone()))
    }
}

impl<B: AutodiffBackend> AnyRank<B> {
    /// Returns the gradient that a backward pass left for this probe's leaf. It is zero if the loss
    /// does not depend on the leaf.
    pub(crate) fn take_gradient(self, gradients: &mut B::Gradients) -> AnyRank<B::InnerBackend> {
        // A probe's leaf holds zeros, which are also the gradient if the loss does not depend on
        // it.
        AnyRank(B::grad_remove(&self.0, gradients).unwrap_or_else(|| B::inner(self.0)))
    }
}

/// A mask whose number of dimensions is known only at run time.
#[derive(Debug, Clone)]
pub struct AnyMask<B: Backend>(B::BoolTensorPrimitive);

impl<B: Backend, const D: usize> From<Tensor<B, D, Bool>> for AnyMask<B> {
    fn from(mask: Tensor<B, D, Bool>) -> Self {
        AnyMask(mask.into_primitive())
    }
}

impl<B: Backend> AnyMask<B> {
    /// Returns a mask of these sizes that is true at the indices for which `covers` holds.
    #[must_use]
    pub fn of(dims: &[usize], device: &B::Device, mut covers: impl FnMut(&[usize]) -> bool) -> Self {
        let n = dims.iter().product();
        let mut values = Vec::with_capacity(n);
        let mut index = vec![0; dims.len()];
        for flat in 0..n {
            let mut rest: usize = flat;
            for (place, size) in index.iter_mut().zip(dims).rev() {
                (*place, rest) = (rest % size, rest / size);
            }
            values.push(covers(&index));
        }
        let flat = Tensor::<B, 1, Bool>::from_data(TensorData::new(values, [n]), device);
        AnyMask(B::bool_reshape(flat.into_primitive(), Shape::from(dims.to_vec())))
    }

    /// Returns the size of each dimension.
    #[must_use]
    pub fn dims(&self) -> Vec<usize> {
        self.0.shape().to_vec()
    }

    /// Returns the mask with a fixed rank, or `None` if it does not have `D` dimensions.
    #[must_use]
    pub fn get<const D: usize>(&self) -> Option<Tensor<B, D, Bool>> {
        (self.dims().len() == D).then(|| Tensor::from_primitive(self.0.clone()))
    }

    /// Expands dimensions of size 1, without copying, until the sizes are `dims`.
    ///
    /// # Panics
    /// If a dimension whose size is not 1 would have to change.
    #[must_use]
    pub fn expand(&self, dims: &[usize]) -> Self {
        AnyMask(B::bool_expand(self.0.clone(), Shape::from(dims.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    fn counting(dims: &[usize]) -> AnyRank<Flex> {
        let numbers: Vec<f32> = (0..dims.iter().product()).map(|i| i as f32).collect();
        AnyRank::from_data(TensorData::new(numbers, dims.to_vec()), &Default::default())
    }

    fn numbers(any: &AnyRank<Flex>) -> Vec<f32> {
        any.reshape([any.dims().iter().product()]).into_data().to_vec().unwrap()
    }

    #[test]
    fn any_rank_operations_match_fixed_rank_ones() {
        let any = counting(&[2, 3, 4]);
        let fixed: Tensor<Flex, 3> = any.get().unwrap();
        let same = |found: AnyRank<Flex>, expected: Tensor<Flex, 3>| {
            assert_eq!(found.dims(), expected.dims());
            assert_eq!(numbers(&found), expected.into_data().to_vec::<f32>().unwrap());
        };
        same(any.narrow(1, 1, 2), fixed.clone().narrow(1, 1, 2));
        let index = Tensor::<Flex, 1, Int>::from_ints([2, 0], &Default::default());
        same(any.select(1, &[2, 0]), fixed.clone().select(1, index));
        same(any.repeat_dim(0, 2), fixed.clone().repeat_dim(0, 2));
        same(any.narrow(0, 1, 1).expand(&[5, 3, 4]), fixed.clone().narrow(0, 1, 1).expand([5, 3, 4]));
        let mask = AnyMask::of(&[2, 3, 4], &Default::default(), |index| index[1] == 2 && index[2] > 0);
        let zeros = AnyRank::zeros(&[2, 3, 4], &Default::default());
        same(any.mask_where(&mask, &zeros), fixed.clone().mask_where(mask.get().unwrap(), fixed.zeros_like()));
    }

    #[test]
    fn get_with_another_rank_returns_none() {
        let any = counting(&[2, 3]);
        assert_eq!(any.rank(), 2);
        assert!(any.get::<2>().is_some() && any.get::<1>().is_none() && any.get::<3>().is_none());
        let mask = AnyMask::<Flex>::of(&[2, 3], &Default::default(), |_| true);
        assert!(mask.get::<2>().is_some() && mask.get::<3>().is_none());
    }
}
