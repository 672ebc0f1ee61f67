//! Gradients at the inputs of all readers, multiplied by the changes of all writers.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::{HookPoint, Site};
use rewire_model::{Differentiable, Transformer, TransformerConfig};
use rewire_tensor::{cast_like, matmul, to_f32};

use crate::attribution::edges as head_edges;
use crate::attribution::linearize::Linearized;
use crate::edges::graph::EdgeGraph;
use crate::effects::Reduce;
use crate::error::AnalysisError;

/// Returns the sites whose activations edge attribution needs.
pub(super) fn recorded(config: &TransformerConfig) -> Vec<Site> {
    let mut sites = head_edges::recorded(config);
    sites.extend([Site::AttnOut, Site::MlpOut]);
    if !config.parallel_block {
        sites.push(Site::ResidMid);
    }
    sites
}

/// Returns whether edge attribution needs the gradient at a point.
pub(super) fn is_probed(config: &TransformerConfig, point: HookPoint) -> bool {
    let HookPoint::Block { layer, site } = point else { return false };
    match site {
        Site::Ln2Normalized => true,
        Site::ResidPost => layer + 1 == config.n_layers,
        _ => head_edges::probed(config).contains(&site),
    }
}

/// Returns the source run minus the base run in the output of every writer,
/// `[writer, prompt, pos * d_model]`.
pub(super) fn written<B: Differentiable>(
    model: &Transformer<B>,
    linear: &Linearized<B>,
) -> Result<Tensor<B::InnerBackend, 3>, AnalysisError> {
    let (config, at) = (model.config(), HookPoint::block);
    // Position embeddings are the same in both runs.
    let input = linear.difference::<3>(at(0, Site::ResidPre))?;
    let [prompts, pos, d_model] = input.dims();
    let width = pos * d_model;
    let mut all = vec![input.reshape([1, prompts, width])];
    for layer in 0..config.n_layers {
        let z = linear.difference::<4>(at(layer, Site::Z))?;
        let [_, _, heads, d_head] = z.dims();
        let z = z.reshape([prompts * pos, heads, d_head]).swap_dims(0, 1);
        let change = matmul(z, to_f32(model.w_o(layer).inner())); // [head, row, d_model]
        let change = match head_edges::after_attention(model, linear, linear.norm(), layer)? {
            Some(norm) => norm.forward(change),
            None => change,
        };
        all.push(change.reshape([heads, prompts, width]));
        all.push(linear.difference::<3>(at(layer, Site::MlpOut))?.reshape([1, prompts, width]));
    }
    Ok(Tensor::cat(all, 0))
}

/// Returns the effects of all edges at the gradients of one run: one flat tensor for each group of
/// readers, `[prompt, reader, writer]`, with the writers before the group. With [`Reduce::Mean`],
/// the values are sums over prompts.
///
/// The groups are the heads and the MLP of each layer, then the logits.
pub(super) fn effects<B: Differentiable>(
    model: &Transformer<B>,
    graph: &EdgeGraph,
    linear: &Linearized<B>,
    written: &Tensor<B::InnerBackend, 3>,
    reduce: Reduce,
) -> Result<Vec<Tensor<B::InnerBackend, 1>>, AnalysisError> {
    let [_, prompts, width] = written.dims();
    // `gradients` are `[reader, row, d_model]`. No product copies a transposed factor.
    let of_group = |gradients: Tensor<B::InnerBackend, 3>, reader: usize| {
        let (readers, writers) = (gradients.dims()[0], graph.n_writers_to(reader));
        let written = written.clone().narrow(0, 0, writers);
        match reduce {
            Reduce::PerPrompt => {
                let gradients = gradients.reshape([readers, prompts, width]).swap_dims(0, 1);
                matmul(gradients, written.permute([1, 2, 0])).reshape([prompts * readers * writers])
            }
            Reduce::Mean => {
                let gradients = gradients.reshape([readers, prompts * width]);
                matmul(gradients, written.reshape([writers, prompts * width]).transpose()).reshape([readers * writers])
            }
        }
    };
    let mut all = Vec::new();
    for layer in 0..graph.n_layers() {
        let heads = graph.heads_of(layer);
        let at_heads = head_edges::arriving(model, linear, linear.norm(), layer)?;
        all.push(of_group(at_heads, heads.start));
        all.push(of_group(of_one(at_mlp(model, linear, layer)?), heads.end));
    }
    let last = HookPoint::block(graph.n_layers() - 1, Site::ResidPost);
    all.push(of_group(of_one(to_f32(linear.gradients.get::<3>(last)?)), graph.n_readers() - 1));
    Ok(all)
}

/// Returns the gradient at the residual stream that the MLP of a layer reads, through that MLP
/// alone, `[prompt, pos, d_model]`.
fn at_mlp<B: Differentiable>(
    model: &Transformer<B>,
    linear: &Linearized<B>,
    layer: usize,
) -> Result<Tensor<B::InnerBackend, 3>, AnalysisError> {
    let site = if model.config().parallel_block { Site::ResidPre } else { Site::ResidMid };
    let stream = linear.base.get::<3>(HookPoint::block(layer, site))?.inner();
    let leaf = Tensor::<B, 3>::from_inner(stream).require_grad();
    let normalized = model.mlp_norm_by_rule(layer, leaf.clone(), linear.backward);
    let gradient = linear.gradients.get::<3>(HookPoint::block(layer, Site::Ln2Normalized))?;
    let gradient = cast_like(Tensor::<B, 3>::from_inner(gradient), &normalized);
    let mut found = (normalized * gradient).sum().backward();
    Ok(match leaf.grad_remove(&mut found) {
        Some(gradient) => to_f32(gradient),
        None => to_f32(leaf.zeros_like().inner()),
    })
}

/// Turns one vector per position, `[prompt, pos, d_model]`, into `[1, row, d_model]`.
fn of_one<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    let [prompts, pos, d_model] = x.dims();
    x.reshape([1, prompts * pos, d_model])
}
