//! Operations with gradients of their own on the autodiff backend over flex.
//!
//! burn differentiates an operation that is written in several of its own one by one: each keeps
//! its inputs on the tape and allocates a gradient. An operation of this file is one step of the
//! tape. Its value is computed by the same loops as on flex itself, with the same bits.

use std::any::Any;
use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::backend::BackendTypes;
use burn::tensor::{DType, Tensor, TensorPrimitive, backend::Backend};
use burn_flex::{Flex, FlexTensor};

/// The backend whose operations are recorded.
pub(crate) type Tracked = Autodiff<Flex>;

/// An operation with `N` inputs, whose gradients it computes from what it keeps.
pub(crate) trait Differentiated<const N: usize>: Clone + Debug + Send + 'static {
    /// Returns the gradients of the inputs for the gradient of the result. `wanted` says which of
    /// them anything needs. The others may be `None`.
    fn gradients(self, of_result: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N];
}

/// A tensor with its place on the tape.
pub(crate) type OnTape = <Tracked as BackendTypes>::FloatTensorPrimitive;

/// One input of an operation.
pub(crate) struct Input<const D: usize>(OnTape);

impl<const D: usize> Input<D> {
    /// Returns `x` as an input, if it is a float32 tensor on autodiff over flex.
    pub(crate) fn of<B: Backend>(x: &Tensor<B, D>) -> Option<Self> {
        let any: &dyn Any = x;
        let x = any.downcast_ref::<Tensor<Tracked, D>>().filter(|x| x.dtype() == DType::F32)?;
        Some(Self(x.clone().into_primitive().tensor()))
    }

    /// Returns the value of the input.
    pub(crate) fn value(&self) -> Tensor<Flex, D> {
        Tensor::from_primitive(TensorPrimitive::Float(self.0.primitive.clone()))
    }

    /// Returns the input on the tape, without its rank.
    pub(crate) fn on_tape(self) -> OnTape {
        self.0
    }

    /// Returns whether anything needs the gradient of the input.
    pub(crate) fn is_tracked(&self) -> bool {
        self.0.is_tracked()
    }
}

/// Returns `value` as the result of an operation on `inputs`, on backend `B`. `kept` is called if
/// anything needs a gradient.
///
/// # Panics
/// If `B` is not autodiff over flex, which [`Input::of`] has shown.
pub(crate) fn record<B: Backend, const D: usize, const N: usize, S: Differentiated<N>>(
    inputs: [OnTape; N],
    value: Tensor<Flex, D>,
    kept: impl FnOnce() -> S,
) -> Tensor<B, D> {
    let value = value.into_primitive().tensor();
    let nodes = inputs.map(|input| input.node);
    let result = match Step::<S>(PhantomData).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(kept(), value),
        OpsKind::UnTracked(prep) => prep.finish(value),
    };
    let mut slot = Some(Tensor::<Tracked, D>::from_primitive(TensorPrimitive::Float(result)));
    let any: &mut dyn Any = &mut slot;
    any.downcast_mut::<Option<Tensor<B, D>>>().and_then(Option::take).expect("the backend that it came from")
}

/// The step of the tape for an operation that keeps `S`.
#[derive(Debug)]
struct Step<S>(PhantomData<fn() -> S>);

impl<S: Differentiated<N>, const N: usize> Backward<Flex, N> for Step<S> {
    type State = S;

    fn backward(self, ops: Ops<S, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let of_result = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let of_inputs = ops.state.gradients(of_result, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(of_inputs) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
