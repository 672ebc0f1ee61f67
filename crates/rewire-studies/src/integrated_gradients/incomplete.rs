//! Sentences about attributions that do not sum to the change of the metric.

use rewire_analysis::integrated::{Completeness, Missed};

/// Number of layers that a sentence names.
const NAMED: usize = 4;

/// Returns a sentence for each kind of node that misses the tolerance in some layers, with the
/// layers of largest gap. `what` names the prompts and the baseline of the attributions.
pub(super) fn incomplete(what: &str, completeness: &[Completeness]) -> Vec<String> {
    completeness.iter().filter_map(|of| sentence(what, of)).collect()
}

fn sentence(what: &str, of: &Completeness) -> Option<String> {
    let missed = of.missed();
    // The largest gap of each layer: `missed` begins with the largest of all.
    let mut layers: Vec<Missed> = Vec::new();
    for one in &missed {
        if layers.iter().all(|other| other.layer != one.layer) {
            layers.push(*one);
        }
    }
    if layers.is_empty() {
        return None;
    }
    let one = |Missed { layer, gap, change, allowed, .. }: &Missed| {
        let steps = of.steps[*layer];
        format!("L{layer} (gap {gap:.1e} for a change of {change:.1e}, {allowed:.1e} allowed, {steps} steps)")
    };
    let mut named: Vec<String> = layers.iter().take(NAMED).map(one).collect();
    if layers.len() > NAMED {
        named.push(format!("and {} more", layers.len() - NAMED));
    }
    let (kind, n, of_layers) = (of.kind, layers.len(), of.steps.len());
    Some(format!(
        "integrated gradients, {what}: the attributions of {kind} do not sum to the change of the metric within the \
         tolerance in {n} of {of_layers} layers ({} of {} lines): {}; the attributions in these layers are uncertain \
         by the gaps",
        missed.len(),
        of.gap.len(),
        named.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::super::analyze::HEADS;
    use super::*;

    #[test]
    fn layers_whose_gap_is_too_large_are_named_with_their_gaps() {
        let complete = |gap: [[f32; 3]; 2]| Completeness {
            kind: HEADS,
            gap: arr2(&gap).into_dyn(),
            change: arr2(&[[2.0; 3]; 2]).into_dyn(),
            allowed: arr2(&[[0.002; 3]; 2]).into_dyn(),
            steps: vec![3200, 50, 100],
        };
        let within = complete([[0.002, -0.001, 0.0], [0.0; 3]]);
        assert!(incomplete("zero baseline", &[within]).is_empty());
        let beyond = complete([[0.05, 0.0, 0.003], [-0.5, 0.0, 0.0]]);
        assert_eq!(
            incomplete("zero baseline", &[beyond]),
            ["integrated gradients, zero baseline: the attributions of head_result do not sum to the change of the \
              metric within the tolerance in 2 of 3 layers (3 of 6 lines): L0 (gap -5.0e-1 for a change of 2.0e0, \
              2.0e-3 allowed, 3200 steps), L2 (gap 3.0e-3 for a change of 2.0e0, 2.0e-3 allowed, 100 steps); the \
              attributions in these layers are uncertain by the gaps"]
        );
    }
}
