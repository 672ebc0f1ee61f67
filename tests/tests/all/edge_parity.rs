//! Effects of edges, and estimates by backward rules, are those of a literal implementation in
//! PyTorch: exact effects, EAP, EAP-IG, RelP and GIM on GPT-2, GPT-NeoX and Llama.
//!
//! `fixtures/edges.py` made the tables.

use std::path::Path;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use ndarray::{ArrayD, Axis};
use rewire_analysis::Reduce;
use rewire_analysis::attribution::attribution_patching;
use rewire_analysis::edges::{GradientsAt, attribute_all_edges, patch_all_edges};
use rewire_analysis::integrated::{Quadrature, Rule};
use rewire_analysis::node::NodeKind;
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_model::{BackwardRule, ModelFiles, Transformer};
use rewire_tasks::{LogitDiff, PairsSource, read_pairs};
use rewire_tests::compare::{Tolerance, assert_close, scale};
use rewire_tests::fixture::{processings, tensors};
use rewire_tests::on_every_backend;

const MODELS: [&str; 3] = ["tiny-gpt2", "tiny-neox", "families/tiny-llama"];
/// As a share of the largest effect of a table, and of each effect.
const TOLERANCE: Tolerance = Tolerance::new(1e-5, 1e-4);

on_every_backend!(edges_match_a_literal_implementation, nodes_by_backward_rules_match_a_literal_implementation);

/// Calls `compare` with each model, its question and its tables, with and without weight
/// processing.
fn for_each_model<B: Backend>(
    mut compare: impl FnMut(&str, &Transformer<Autodiff<B>>, Question<'_, LogitDiff>, &str, &ArrayD<f32>),
) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for (name, directory) in MODELS.map(|name| (name, fixtures.join(name))) {
        let files = ModelFiles::directory(&directory.join("model")).unwrap();
        let tables = tensors(&directory.join("edges.safetensors"));
        for (weights, processing) in processings() {
            let model = Transformer::load(&files, &Default::default()).unwrap().processed(processing);
            let source = PairsSource::new(None, None, model.config().d_vocab, model.config().n_ctx);
            let pairs = read_pairs(&directory.join("pairs.jsonl"), &source).unwrap().pairs;
            let metric = LogitDiff::new(&pairs);
            for (table, expected) in &tables {
                compare(&format!("{name} {weights} {table}"), &model, Question::new(&pairs, &metric), table, expected);
            }
        }
    }
}

fn edges_match_a_literal_implementation<B: Backend>() {
    let mut compared = 0;
    for_each_model::<B>(|what, model, question, table, expected| {
        let Some(table) = table.strip_prefix("edge_per_prompt/") else { return };
        let (execution, each) = (Execution::default(), Reduce::PerPrompt);
        let exact = |direction| patch_all_edges(&model.valid(), question, each, direction, &execution).unwrap();
        let estimate = |at, rule, direction| {
            attribute_all_edges(model, question.by_rule(rule), at, each, direction, &execution).unwrap()
        };
        let at_base = |rule| estimate(GradientsAt::Base, rule, Direction::Noising);
        let along = |at: GradientsAt| estimate(at, BackwardRule::Gradient, Direction::Noising);
        let [left, right] = [Rule::RiemannLeft, Rule::RiemannRight].map(|rule| Quadrature { rule, steps: 5 });
        let found = match table {
            "exact" => exact(Direction::Noising),
            "exact_denoising" => exact(Direction::Denoising),
            "eap" => at_base(BackwardRule::Gradient),
            "eap_denoising" => estimate(GradientsAt::Base, BackwardRule::Gradient, Direction::Denoising),
            "eap_ig_inputs_k0" => along(GradientsAt::Inputs(left)),
            "eap_ig_inputs_k1" => along(GradientsAt::Inputs(right)),
            "eap_ig_activations_k1" => along(GradientsAt::Activations(right)),
            rule => at_base(rule.parse().unwrap()),
        };
        assert_close(&found.values.into_dyn(), expected, TOLERANCE.on::<B>().times(scale(expected)), what);
        compared += 1;
    });
    assert_eq!(compared, 3 * 2 * 9);
}

fn nodes_by_backward_rules_match_a_literal_implementation<B: Backend>() {
    let mut compared = 0;
    for_each_model::<B>(|what, model, question, table, expected| {
        let Some((rule, kind)) = table.strip_prefix("node_per_prompt/").and_then(|of| of.split_once('/')) else {
            return;
        };
        let question = question.by_rule(rule.parse().unwrap());
        let kind: NodeKind = kind.parse().unwrap();
        let found = attribution_patching(model, question, &[kind], Direction::Noising, &Execution::default()).unwrap();
        let found = &found.effects[0].values;
        assert_eq!(found.len_of(Axis(0)), question.pairs.len());
        assert_close(found, expected, TOLERANCE.on::<B>().times(scale(expected)), what);
        compared += 1;
    });
    assert_eq!(compared, 3 * 2 * 2 * 5);
}
