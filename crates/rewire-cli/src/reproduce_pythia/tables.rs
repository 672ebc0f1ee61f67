//! The tables of effects.safetensors and effects.csv.

use ndarray::{Array1, ArrayD, IxDyn};
use rewire_analysis::Method;
use rewire_analysis::Reduce;
use rewire_analysis::path::Input;
use rewire_analysis::run::{Direction, Scale};
use rewire_circuits::AttentionProbe;
use rewire_report::{Quantity, Table};

use super::shown::Found;

/// Returns the tables of all effects and scores.
pub(super) fn tables(found: &Found) -> Vec<Table> {
    let mut tables = Vec::new();
    for effects in &found.parts.effects {
        tables.push(Table::new(format!("parts/{}", effects.kind), effects, Reduce::PerPrompt, &found.parts));
    }
    for (name, step) in &found.steps {
        for effects in &step.outcome.effects {
            tables.push(Table::new(format!("path/{name}/{}", effects.kind), effects, Reduce::PerPrompt, &step.outcome));
        }
    }
    for effects in &found.attribution.effects {
        let name = format!("logit-attribution/{}", effects.kind);
        tables.push(Table::new(name, effects, Reduce::PerPrompt, &found.attribution));
    }
    let plain = |name: String, axes: &[&str], values: ArrayD<f32>| Table {
        name,
        axes: axes.iter().map(|axis| (*axis).to_owned()).collect(),
        values,
        method: None,
        direction: None,
        scale: Some(Scale::Metric),
        ..Table::default()
    };
    for (scores, norms) in found.copying.iter().zip(["without-norms", "with-norms"]) {
        for (sign, values) in [("positive", &scores.positive), ("negative", &scores.negative)] {
            let values = values.clone().into_dyn();
            tables.push(plain(format!("copy-scores/{norms}/{sign}"), &["layer", "head"], values));
        }
    }
    for look in AttentionProbe::ALL {
        let name = format!("attention/{}", look.name().replace(' ', "-"));
        tables.push(plain(name, &["layer", "head"], found.looks.map(look).clone().into_dyn()));
    }
    if let Some(backup) = &found.backup {
        for (when, values) in [("before", &backup.before), ("after", &backup.after)] {
            let values = values.clone().into_dyn();
            tables.push(plain(format!("backup/{when}"), &["prompt", "layer", "head"], values));
        }
    }
    let (layers, heads) = (found.direct.effects().nrows(), found.direct.effects().ncols());
    let mut edges = ArrayD::from_elem(IxDyn(&[layers, heads, 3, layers, heads]), f32::NAN);
    let means: Array1<f32> = found.edges.exact.outcome.mean();
    for (edge, effect) in found.edges.exact.edges.iter().zip(means) {
        let input = [Input::Q, Input::K, Input::V].iter().position(|input| *input == edge.input).unwrap_or(0);
        let index = [edge.to.layer, edge.to.head, input, edge.from.layer, edge.from.head];
        edges[IxDyn(&index)] = effect;
    }
    tables.push(Table {
        method: Some(Method::PathPatching),
        direction: Some(Direction::Noising),
        scale: Some(Scale::Normalized),
        quantity: Quantity::Effect,
        ..plain("edges".to_owned(), &["layer_end", "head_end", "input", "layer_start", "head_start"], edges)
    });
    tables
}
