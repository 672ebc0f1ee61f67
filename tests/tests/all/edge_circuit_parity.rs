//! MIB's figures of circuits of edges are those of a literal implementation in PyTorch, on GPT-2,
//! GPT-NeoX and Llama: faithfulness at ten sizes, edges after pruning, CPR and CMD.
//!
//! `fixtures/edge_circuits.py` made the tables.

use std::path::Path;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use ndarray::Array1;
use rewire_analysis::Reduce;
use rewire_analysis::edges::{GradientsAt, attribute_all_edges, patch_all_edges};
use rewire_analysis::integrated::{Quadrature, Rule};
use rewire_analysis::run::{Direction, Execution, Intervention, Question};
use rewire_circuits::{EdgeScores, Judging, Ranking, SIZES, judge_scores};
use rewire_model::{BackwardRule, ModelFiles, Transformer};
use rewire_tasks::{LogitDiff, PairsSource, read_pairs};
use rewire_tests::compare::{Tolerance, assert_close};
use rewire_tests::fixture::tensors;
use rewire_tests::on_every_backend;

const MODELS: [&str; 3] = ["tiny-gpt2", "tiny-neox", "families/tiny-llama"];
const TOLERANCE: Tolerance = Tolerance::new(2e-5, 0.0);

on_every_backend!(figures_of_circuits_match_a_literal_implementation);

fn figures_of_circuits_match_a_literal_implementation<B: Backend>() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut compared = 0;
    for name in MODELS {
        let directory = fixtures.join(name);
        let files = ModelFiles::directory(&directory.join("model")).unwrap();
        let model: Transformer<Autodiff<B>> = Transformer::load(&files, &Default::default()).unwrap();
        let source = PairsSource::new(None, None, model.config().d_vocab, model.config().n_ctx);
        let pairs = read_pairs(&directory.join("pairs.jsonl"), &source).unwrap().pairs;
        let metric = LogitDiff::new(&pairs);
        let question = Question::new(&pairs, &metric);
        let tables = tensors(&directory.join("edge_circuits.safetensors"));
        let execution = Execution::default();
        let estimate = |at, rule| {
            let question = question.by_rule(rule);
            attribute_all_edges(&model, question, at, Reduce::Mean, Direction::Noising, &execution).unwrap()
        };
        let along = |at: GradientsAt| estimate(at, BackwardRule::Gradient);
        let [left, right] = [Rule::RiemannLeft, Rule::RiemannRight].map(|rule| Quadrature { rule, steps: 5 });
        for scores in ["exact", "eap", "eap_ig_inputs_k0", "eap_ig_inputs_k1", "eap_ig_activations_k1", "relp"] {
            let effects = match scores {
                "exact" => {
                    patch_all_edges(&model.valid(), question, Reduce::Mean, Direction::Noising, &execution).unwrap()
                }
                "eap" => along(GradientsAt::Base),
                "eap_ig_inputs_k0" => along(GradientsAt::Inputs(left)),
                "eap_ig_inputs_k1" => along(GradientsAt::Inputs(right)),
                "eap_ig_activations_k1" => along(GradientsAt::Activations(right)),
                _ => estimate(GradientsAt::Base, BackwardRule::Relp),
            };
            for ranking in [Ranking::Absolute, Ranking::Signed] {
                let outside = Intervention::Resample;
                let judging = Judging { sizes: &SIZES, ranking, outside: &outside, seed: 0 };
                let scored = EdgeScores::of(&effects);
                let found = judge_scores(&model.valid(), question, &scored, &judging, &execution).unwrap();
                let kept: Vec<f64> = found.sized.circuits.iter().map(|circuit| circuit.len() as f64).collect();
                let areas = vec![found.curve.cpr, found.curve.cmd];
                for (figure, found) in [("faithfulness", found.curve.faithfulness), ("kept", kept), ("area", areas)] {
                    let table = format!("circuit/{scores}/{ranking}/{figure}");
                    let found = Array1::from_iter(found.iter().map(|value| *value as f32)).into_dyn();
                    assert_close(&found, &tables[&table], TOLERANCE.on::<B>(), &format!("{name} {table}"));
                    compared += found.len();
                }
            }
        }
    }
    assert_eq!(compared, 3 * 6 * 2 * 22);
}
