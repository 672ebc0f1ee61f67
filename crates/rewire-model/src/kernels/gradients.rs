//! Activation functions, norms and rotation on the autodiff backend over flex, each as one step of
//! the tape. Each returns `None` for tensors that are not float32 tensors on that backend.

use burn::tensor::{Tensor, TensorPrimitive, backend::Backend};
use burn_flex::{Flex, FlexTensor};
use rewire_hooks::NormKind;

use crate::config::Activation;
use crate::kernels::flex::{self, changed, contiguous, filled, slice};
use crate::kernels::simd_backward::{self as backward, Curve};
use crate::kernels::tape::{Differentiated, Input, record};

pub(super) fn primitive<const D: usize>(x: Tensor<Flex, D>) -> FlexTensor {
    x.into_primitive().tensor()
}

fn tensor<const D: usize>(x: FlexTensor) -> Tensor<Flex, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

/// Returns the fused activation function, if there is one.
fn curve(activation: Activation) -> Option<Curve> {
    match activation {
        Activation::Gelu => Some(Curve::Gelu),
        Activation::GeluNew => Some(Curve::GeluNew),
        Activation::Silu => Some(Curve::Silu),
        Activation::Relu => None,
    }
}

/// Keeps the input of an activation function.
#[derive(Debug, Clone)]
struct Activated {
    x: FlexTensor,
    curve: Curve,
}

impl Differentiated<1> for Activated {
    fn gradients(self, of_result: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(times_slope(of_result, &self.x, self.curve))]
    }
}

/// Returns gradients times the derivatives at `x`.
fn times_slope(gradients: FlexTensor, x: &FlexTensor, curve: Curve) -> FlexTensor {
    let x = slice(x);
    changed(gradients, 1, |first, gradients| curve.times_slope(&x[first..][..gradients.len()], gradients))
}

pub(super) fn activate<B: Backend>(x: &Tensor<B, 3>, activation: Activation) -> Option<Tensor<B, 3>> {
    let curve = curve(activation)?;
    let input = Input::of(x)?;
    let x = contiguous(primitive(input.value()));
    let value = flex::activate(tensor::<3>(x.clone()), activation).ok()?;
    Some(record([input.on_tape()], value, || Activated { x, curve }))
}

/// Keeps both factors of a gated MLP.
#[derive(Debug, Clone)]
struct Gated {
    gate: FlexTensor,
    factor: FlexTensor,
    activation: Activation,
    curve: Curve,
}

impl Differentiated<2> for Gated {
    fn gradients(self, of_result: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let Self { gate, factor, activation, curve } = self;
        let of_result = tensor::<3>(contiguous(of_result));
        let of_factor = wanted[1].then(|| {
            let activated = flex::activate(tensor::<3>(gate.clone()), activation).expect("an activation with a curve");
            primitive(activated * of_result.clone())
        });
        let of_gate = wanted[0].then(|| times_slope(primitive(of_result * tensor(factor)), &gate, curve));
        [of_gate, of_factor]
    }
}

/// Returns the activation function of `gate` times `factor`.
pub(super) fn gated<B: Backend>(
    gate: &Tensor<B, 3>,
    factor: &Tensor<B, 3>,
    activation: Activation,
) -> Option<Tensor<B, 3>> {
    let curve = curve(activation).filter(|_| gate.dims() == factor.dims())?;
    let inputs = [Input::of(gate)?, Input::of(factor)?];
    let [gate, factor] = inputs.each_ref().map(|input| contiguous(primitive(input.value())));
    let value = flex::gated(tensor::<3>(gate.clone()), &tensor(factor.clone()), activation).ok()?;
    Some(record(inputs.map(Input::on_tape), value, || Gated { gate, factor, activation, curve }))
}

/// Keeps the input and the scales of a norm.
#[derive(Debug, Clone)]
struct Scales {
    x: FlexTensor,
    scale: FlexTensor,
    kind: NormKind,
}

impl Differentiated<1> for Scales {
    fn gradients(self, of_result: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let shape = self.x.layout().shape().clone();
        let d = shape[2];
        let of_result = contiguous(of_result);
        let (x, scale, of_scale) = (slice(&self.x), slice(&self.scale), slice(&of_result));
        let centers = self.kind == NormKind::Layer;
        [Some(filled(&[shape[0], shape[1], d], d, |first, out| {
            let rows = out.len() / d;
            let [scale, of_scale] = [scale, of_scale].map(|all| &all[first..][..rows]);
            backward::norm_scale(&x[first * d..][..rows * d], d, centers, [scale, of_scale], out);
        }))]
    }
}

pub(super) fn norm_scale<B: Backend>(x: &Tensor<B, 3>, kind: NormKind, eps: f32) -> Option<Tensor<B, 3>> {
    let input = Input::of(x)?;
    let x = tensor::<3>(contiguous(primitive(input.value())));
    let value = flex::norm_scale(&x, kind, eps)?;
    let scale = primitive(value.clone());
    Some(record([input.on_tape()], value, || Scales { x: primitive(x), scale, kind }))
}

/// Keeps the output and the scales of a norm.
#[derive(Debug, Clone)]
struct Quotient {
    output: FlexTensor,
    scale: FlexTensor,
    kind: NormKind,
}

impl Differentiated<2> for Quotient {
    fn gradients(self, of_result: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let shape = self.output.layout().shape().clone();
        let d = shape[2];
        let of_result = contiguous(of_result);
        let (output, scale) = (slice(&self.output), slice(&self.scale));
        let of_scale = wanted[1].then(|| {
            let gradients = slice(&of_result);
            filled(&[shape[0], shape[1], 1], 1, |first, out| {
                let [output, gradients] = [output, gradients].map(|all| &all[first * d..][..out.len() * d]);
                backward::scale_of_quotient(output, gradients, &scale[first..][..out.len()], d, out);
            })
        });
        let centers = self.kind == NormKind::Layer;
        let of_x = wanted[0].then(|| {
            changed(of_result, d, |first, rows| {
                backward::normalize(&scale[first..][..rows.len() / d], d, centers, rows);
            })
        });
        [of_x, of_scale]
    }
}

/// Returns `x`, centered if the norm centers, divided by `scale`, or `None` if a hook has put a
/// scale of another shape there.
pub(super) fn normalize<B: Backend>(x: &Tensor<B, 3>, scale: &Tensor<B, 3>, kind: NormKind) -> Option<Tensor<B, 3>> {
    let dims = x.dims();
    if scale.dims() != [dims[0], dims[1], 1] {
        return None;
    }
    let inputs = [Input::of(x)?, Input::of(scale)?];
    let [x, scale] = inputs.each_ref().map(|input| contiguous(primitive(input.value())));
    let value: Tensor<Flex, 3> = match kind {
        NormKind::Layer => flex::normalize(&tensor(x), &tensor(scale.clone()))?,
        NormKind::Rms => tensor::<3>(x) / tensor::<3>(scale.clone()),
    };
    let output = primitive(value.clone());
    Some(record(inputs.map(Input::on_tape), value, || Quotient { output, scale, kind }))
}

/// Keeps the angles of a rotation.
#[derive(Debug, Clone)]
struct Rotated {
    cos: Tensor<Flex, 4>,
    sin: Tensor<Flex, 4>,
}

impl Differentiated<1> for Rotated {
    fn gradients(self, of_result: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        // Both dimensions of a pair have one sine, so that turning back is the transposed map.
        let turned = flex::rotated(&tensor::<4>(of_result), &self.cos, &self.sin.neg());
        [turned.map(primitive)]
    }
}

/// Returns `x`, rotated by angles that are not on the tape.
pub(super) fn rotated<B: Backend>(x: &Tensor<B, 4>, cos: &Tensor<B, 4>, sin: &Tensor<B, 4>) -> Option<Tensor<B, 4>> {
    let input = Input::of(x)?;
    let [cos, sin] = [Input::of(cos)?, Input::of(sin)?];
    if cos.is_tracked() || sin.is_tracked() {
        return None;
    }
    let (cos, sin) = (cos.value(), sin.value());
    let value = flex::rotated(&input.value(), &cos, &sin)?;
    Some(record([input.on_tape()], value, || Rotated { cos, sin }))
}
