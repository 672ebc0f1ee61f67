//! Matmul that keeps every bit of float32, as a custom operation for burn's CUDA backend. It has a
//! gradient, and runs in order with the operations that the backend fuses.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, Shape, Tensor, TensorMetadata, TensorPrimitive};
use burn_cubecl::cubecl::cuda::CudaRuntime;
use burn_cubecl::fusion::FusionCubeRuntime;
use burn_cubecl::{CubeBackend, CubeRuntime};
use burn_fusion::stream::{Operation, OperationStreams};
use burn_fusion::{Fusion, FusionRuntime};
use burn_ir::{CustomOpIr, HandleContainer, OperationIr, OperationOutput, TensorIr};

use super::simt_matmul;

/// burn's backend over a runtime of kernels, before fusion.
type Kernels<R> = CubeBackend<R, f32, i32, u8>;
/// burn's backend with fusion; for CUDA, the type that `burn-cuda` calls `Cuda`.
type Fused<R> = Fusion<Kernels<R>>;

/// Returns the product of two float32 tensors on CUDA, tracked or not. Gives other tensors back as
/// the error.
pub(crate) fn float32_matmul<B: Backend, const D: usize>(
    a: Tensor<B, D>,
    b: Tensor<B, D>,
) -> Result<Tensor<B, D>, (Tensor<B, D>, Tensor<B, D>)> {
    if a.dtype() != DType::F32 || b.dtype() != DType::F32 {
        return Err((a, b));
    }
    type Plain = Fused<CudaRuntime>;
    on::<Plain, B, D>(a, b, matmul::<CudaRuntime>)
        .or_else(|(a, b)| on::<Autodiff<Plain>, B, D>(a, b, tracked_matmul::<CudaRuntime>))
}

/// Applies `operation` to the primitives of `a` and `b` if `B` is `Wanted`. Otherwise gives both
/// back as the error.
fn on<Wanted: Backend, B: Backend, const D: usize>(
    a: Tensor<B, D>,
    b: Tensor<B, D>,
    operation: impl Fn(FloatTensor<Wanted>, FloatTensor<Wanted>) -> FloatTensor<Wanted>,
) -> Result<Tensor<B, D>, (Tensor<B, D>, Tensor<B, D>)> {
    let (mut a, mut b) = (Some(a), Some(b));
    let wanted = |slot: &mut dyn Any| slot.downcast_mut::<Option<Tensor<Wanted, D>>>().and_then(Option::take);
    let (Some(of_a), Some(of_b)) = (wanted(&mut a), wanted(&mut b)) else {
        return Err((a.expect("not taken"), b.expect("not taken")));
    };
    // One of the two may be expanded along its leading axes. The backward pass of `expand` then
    // sums its gradient.
    let [of_a, of_b] = same_batch(of_a, of_b).map(|tensor| tensor.into_primitive().tensor());
    let mut out = Some(Tensor::<Wanted, D>::from_primitive(TensorPrimitive::Float(operation(of_a, of_b))));
    let slot: &mut dyn Any = &mut out;
    Ok(slot.downcast_mut::<Option<Tensor<B, D>>>().and_then(Option::take).expect("the backend that it came from"))
}

/// Expands both to the same leading axes.
fn same_batch<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> [Tensor<B, D>; 2] {
    let [of_a, of_b] = [a.dims(), b.dims()];
    let batch = |axis: usize| of_a[axis].max(of_b[axis]);
    let as_large = |tensor: Tensor<B, D>| {
        let mut dims = tensor.dims();
        (0..D.saturating_sub(2)).for_each(|axis| dims[axis] = batch(axis));
        if dims == tensor.dims() { tensor } else { tensor.expand(dims) }
    };
    [as_large(a), as_large(b)]
}

/// The matmul as an operation in the stream that the backend fuses.
struct Product<R> {
    desc: CustomOpIr,
    runtime: PhantomData<R>,
}

impl<R> fmt::Debug for Product<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Product").field("desc", &self.desc).finish()
    }
}

impl<R: CubeRuntime> Operation<FusionCubeRuntime<R>> for Product<R> {
    fn execute(&self, handles: &mut HandleContainer<<FusionCubeRuntime<R> as FusionRuntime>::FusionHandle>) {
        let ([a, b], [out]) = self.desc.as_fixed();
        let (a, b) = (handles.get_float_tensor::<Kernels<R>>(a), handles.get_float_tensor::<Kernels<R>>(b));
        handles.register_float_tensor::<Kernels<R>>(&out.id, simt_matmul::matmul(a, b));
    }
}

fn matmul<R: CubeRuntime>(a: FloatTensor<Fused<R>>, b: FloatTensor<Fused<R>>) -> FloatTensor<Fused<R>> {
    let client = a.client.clone();
    let streams = OperationStreams::with_inputs([&a, &b]);
    let (of_a, of_b) = (a.shape(), b.shape());
    let rank = of_a.len();
    let mut shape: Vec<usize> = of_a.iter().copied().collect();
    shape[rank - 1] = of_b[rank - 1];
    let out = TensorIr::uninit(client.create_empty_handle(), Shape::from(shape), DType::F32);
    let desc = CustomOpIr::new("float32_matmul", &[a.into_ir(), b.into_ir()], &[out]);
    let operation = Product::<R> { desc: desc.clone(), runtime: PhantomData };
    client.register(streams, OperationIr::Custom(desc), operation).output()
}

/// The backward pass of the matmul. Its state holds, for each factor, the other factor if a
/// gradient is needed.
#[derive(Debug)]
struct ProductBackward;

impl<R: CubeRuntime> Backward<Fused<R>, 2> for ProductBackward {
    type State = [Option<FloatTensor<Fused<R>>>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<Fused<R>>(&ops.node);
        let [of_a, of_b] = ops.parents;
        let [a, b] = ops.state;
        let transposed = |x| <Fused<R> as burn::tensor::ops::FloatTensorOps<Fused<R>>>::float_transpose(x);
        if let (Some(node), Some(b)) = (of_a, b) {
            grads.register::<Fused<R>>(node.id, matmul::<R>(gradient.clone(), transposed(b)));
        }
        if let (Some(node), Some(a)) = (of_b, a) {
            grads.register::<Fused<R>>(node.id, matmul::<R>(transposed(a), gradient));
        }
    }
}

fn tracked_matmul<R: CubeRuntime>(
    a: FloatTensor<Autodiff<Fused<R>>>,
    b: FloatTensor<Autodiff<Fused<R>>>,
) -> FloatTensor<Autodiff<Fused<R>>> {
    let kept = [b.is_tracked().then(|| a.primitive.clone()), a.is_tracked().then(|| b.primitive.clone())];
    let out = matmul::<R>(a.primitive, b.primitive);
    match ProductBackward.prepare::<NoCheckpointing>([a.node, b.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(kept, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
