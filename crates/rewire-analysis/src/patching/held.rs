//! The memory of the activations that patching holds for each prompt pair.

use rewire_hooks::{Axis, HookPoint, Site};
use rewire_model::TransformerConfig;
use rewire_tensor::Precision;

use crate::node::kind::NodeKind;
use crate::patching::delta::{reads_of_base, reads_of_source};

/// Returns the bytes of the activations that activation patching of these kinds holds for a prompt
/// pair of `pos` tokens: those of the patched run, and those that replace them.
#[must_use]
pub fn held_a_pair(kinds: &[NodeKind], config: &TransformerConfig, pos: usize, precision: Precision) -> u64 {
    let points = (0..config.n_layers).flat_map(|layer| Site::all().map(move |site| (layer, site)));
    let of_point = |(layer, site): (usize, Site)| {
        let point = HookPoint::Block { layer, site };
        let times =
            u64::from(reads_of_base(kinds, config, pos, point)) + u64::from(reads_of_source(kinds, config, point));
        times * bytes(site, config, pos, precision)
    };
    points.map(of_point).sum()
}

/// Returns the bytes of an activation of one prompt.
fn bytes(site: Site, config: &TransformerConfig, pos: usize, precision: Precision) -> u64 {
    let size = |axis: &Axis| match axis {
        Axis::Batch | Axis::One => 1,
        Axis::Pos | Axis::Query | Axis::Key => pos as u64,
        Axis::Head => config.heads_at(site) as u64,
        Axis::DHead => config.d_head as u64,
        Axis::DModel => config.d_model as u64,
        Axis::DMlp => config.d_mlp as u64,
    };
    // Scores and patterns are float32 in every precision.
    let of_each = if matches!(site, Site::AttnScores | Site::Pattern) { 4 } else { precision.bytes() as u64 };
    of_each * site.axes().iter().map(size).product::<u64>()
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use rewire_hooks::Recorder;
    use rewire_model::Run;
    use rewire_toy::Toy;

    use super::*;
    use crate::node::kind::Component;

    #[test]
    fn the_estimate_is_what_the_two_runs_record() {
        for toy in [Toy::Gpt2, Toy::NeoX] {
            let model = toy.load::<Flex>(&Default::default()).unwrap();
            let config = model.config().clone();
            let tokens = vec![(1..10).collect::<Vec<u32>>()];
            for components in [
                &[Component::HeadZ][..],
                &[Component::HeadQ, Component::HeadPattern],
                &[Component::ResidPre, Component::MlpPost, Component::HeadV],
            ] {
                let kinds: Vec<NodeKind> = components.iter().map(|component| NodeKind::all(*component)).collect();
                let recorded = |accepts: &dyn Fn(HookPoint) -> bool| {
                    let mut recorder = Recorder::all();
                    let run = Run::tokens(model.tokens(&tokens).unwrap());
                    model.forward(run, &mut recorder).unwrap();
                    let cache = recorder.into_cache();
                    let points = cache.points().filter(|point| accepts(*point));
                    points.map(|point| 4 * cache.dims(point).unwrap().iter().product::<usize>() as u64).sum::<u64>()
                };
                let expected = recorded(&|point| reads_of_base(&kinds, &config, 9, point))
                    + recorded(&|point| reads_of_source(&kinds, &config, point));
                assert_eq!(held_a_pair(&kinds, &config, 9, Precision::Float32), expected, "{toy:?} {components:?}");
            }
        }
    }
}
