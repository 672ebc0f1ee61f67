//! Compares the numbers that `sweep` writes with TransformerLens and Captum: every method that has
//! a table, for GPT-2 and NeoX, with processed and unprocessed weights.

use std::collections::BTreeMap;

use ndarray::{ArrayD, Axis, IxDyn, Slice, stack};
use rewire_tests::compare::{Tolerance, assert_close, scale};
use rewire_tests::fixture::{Arrays, Fixture, processings, tensors};
use serde_json::Value;
use tempfile::TempDir;

use crate::shared;

// Each absolute part is about five times the largest difference beyond the relative part, measured
// over all tables here.

/// For normalized effects of patching, which are differences of metrics near 1; measured 2.5e-7,
/// and 4.4e-7 for single prompts.
const CHANGES: Tolerance = Tolerance::new(1.5e-6, 1e-5);
/// For normalized effects of one row, whose span is half of the mean span; measured 6.9e-7.
const CHANGES_OF_ROW: Tolerance = Tolerance::new(3e-6, 1e-5);
/// For normalized attributions, which are sums of products; measured 2.4e-8.
const PRODUCTS: Tolerance = Tolerance::new(1.5e-7, 1e-5);
/// For normalized attributions of head edges; measured 1.0e-8.
const PATHS: Tolerance = Tolerance::new(5e-8, 1e-5);
/// For integrated gradients of logit differences near 10; measured 1.3e-6.
const INTEGRALS: Tolerance = Tolerance::new(6e-6, 1e-5);
/// For logit differences; measured 2.1e-7.
const LOGITS: Tolerance = Tolerance::new(1e-6, 1e-5);

const BLOCKS: [&str; 3] = ["resid_pre", "attn_out", "mlp_out"];
const HEADS: [&str; 5] = ["head_z", "head_q", "head_k", "head_v", "head_pattern"];

/// A fixture's model with one kind of weights, and a directory to sweep into.
struct Case<'a> {
    fixture: &'a Fixture,
    weights: &'static str,
    directory: TempDir,
}

/// Runs `check` on every fixture with both kinds of weights.
fn each_case(check: impl Fn(&Case)) {
    for fixture in &Fixture::all() {
        for (weights, _) in processings() {
            check(&Case { fixture, weights, directory: tempfile::tempdir().unwrap() });
        }
    }
}

impl Case<'_> {
    /// Runs `sweep` with flags separated by spaces; returns the tensors in effects.safetensors, and
    /// effects.json.
    fn sweep(&self, flags: &str) -> (Arrays, Value) {
        let (model, pairs) = (self.fixture.model_directory(), self.fixture.pairs_file());
        let mut arguments = vec!["sweep", "--out", "o", "--model", model.to_str().unwrap()];
        arguments.extend(["--pairs", pairs.to_str().unwrap()]);
        arguments.extend(flags.split_whitespace());
        arguments.extend((self.weights == "raw").then_some("--no-process-weights"));
        shared::run(self.directory.path(), &arguments, &[]);
        let out = self.directory.path().join("o");
        (tensors(&out.join("effects.safetensors")), shared::json(&out.join("effects.json")))
    }

    /// Returns a reference table; `name` omits the kind of weights. External fixtures may lack some
    /// tables.
    fn table(&self, name: &str) -> Option<&ArrayD<f32>> {
        let table = self.fixture.table(&format!("{}/{name}", self.weights));
        assert!(table.is_some() || !self.fixture.is_own(), "{}: {} {name} is missing", self.fixture.name, self.weights);
        table
    }

    /// Compares numbers with the table `name`, if the fixture has it.
    fn close(&self, actual: &ArrayD<f32>, name: &str, tolerance: Tolerance) {
        if let Some(expected) = self.table(name) {
            assert_close(actual, expected, tolerance, &format!("{} {}/{name}", self.fixture.name, self.weights));
        }
    }

    /// Returns the mean logit differences on the clean and the corrupted run.
    fn logit_differences(&self) -> [f32; 2] {
        let per_row = self.table("logit_diff_per_row").unwrap();
        [0, 1].map(|run| per_row.index_axis(Axis(0), run).mean().unwrap())
    }
}

/// Stacks tensors along a new first axis.
fn stacked<'a>(found: &Arrays, names: impl IntoIterator<Item = &'a str>, by: &str) -> ArrayD<f32> {
    let parts: Vec<_> = names.into_iter().map(|name| found[&format!("{name}{by}")].view()).collect();
    stack(Axis(0), &parts).unwrap()
}

/// Returns `[.., head, pos]` in the order of the reference, `[.., pos, head]`.
fn positions_first(mut values: ArrayD<f32>) -> ArrayD<f32> {
    let last = values.ndim() - 1;
    values.swap_axes(last - 1, last);
    values
}

#[test]
fn activation_patching_matches_transformer_lens() {
    each_case(|case| {
        for (direction, tag) in [("denoising", "act"), ("noising", "noising")] {
            if tag == "noising" && !case.fixture.is_own() {
                continue;
            }
            let sweep =
                |flags: &str| case.sweep(&format!("--method activation-patching --direction {direction} {flags}"));
            let (blocks, heads) = (BLOCKS.join(","), HEADS.join(","));
            let further = if case.fixture.name.contains("neox") { "resid_post" } else { "resid_post,resid_mid" };

            let (found, about) = sweep(&format!("--nodes {blocks},{heads},{further} --by position"));
            case.close(&stacked(&found, BLOCKS, "@position"), &format!("{tag}/block_every"), CHANGES);
            let by_position = positions_first(stacked(&found, HEADS, "@position"));
            case.close(&by_position, &format!("{tag}/head_by_pos_every"), CHANGES);
            if tag == "act" && case.fixture.is_own() {
                for name in further.split(',') {
                    case.close(&found[&format!("{name}@position")], &format!("act/{name}"), CHANGES);
                }
            }
            baselines_match(case, &about);

            let devices: &[&str] = if cfg!(feature = "ndarray") { &["flex", "ndarray"] } else { &["flex"] };
            for device in devices {
                let (found, _) = sweep(&format!("--nodes {heads},mlp_post --by all --device {device}"));
                case.close(&stacked(&found, HEADS, ""), &format!("{tag}/head_all_pos_every"), CHANGES);
                if tag == "act" && case.fixture.is_own() {
                    case.close(&found["mlp_post"], "act/mlp_post", CHANGES);
                }
            }
            if case.fixture.is_own() {
                let (found, _) = sweep(&format!("--nodes {heads} --by all --per-prompt"));
                // Prompts are the last axis of the table.
                let per_prompt = stacked(&found, HEADS, "").permuted_axes(IxDyn(&[0, 2, 3, 1]));
                case.close(&per_prompt, &format!("{tag}/head_all_pos_every_per_prompt"), CHANGES);
            }
            if tag == "act" {
                let (found, _) = sweep("--nodes head_pattern --by cell");
                case.close(&found["head_pattern@cell"], "act/pattern_dest_src", CHANGES);
            }
        }
    });
}

/// Asserts that the metric of both runs matches, prompt by prompt.
fn baselines_match(case: &Case, about: &Value) {
    let per_row = case.table("logit_diff_per_row").unwrap();
    for (row, run) in ["clean", "corrupted"].into_iter().enumerate() {
        let values = about["baselines"][run].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32);
        let expected = per_row.index_axis(Axis(0), row).to_owned();
        let what = format!("{} {} {run} baselines", case.fixture.name, case.weights);
        assert_close(&ArrayD::from_shape_vec(expected.shape(), values.collect()).unwrap(), &expected, LOGITS, &what);
    }
}

#[test]
fn patching_one_row_matches_the_comparison_notebook() {
    each_case(|case| {
        let flags = "--nodes head_result,mlp_post --direction noising --metric logit-diff --per-prompt";
        let (found, about) = case.sweep(&format!("--method activation-patching {flags}"));
        assert_eq!(about["metric"], "logit-diff");
        let per_row = case.table("logit_diff_per_row").unwrap();
        let span = per_row[[0, 0]] - per_row[[1, 0]];
        for (name, table) in [("head_result", "seed001/ap_attn"), ("mlp_post", "seed001/ap_mlp")] {
            let row_0 = found[name].index_axis(Axis(0), 0).to_owned();
            case.close(&(row_0 / span), table, CHANGES_OF_ROW);
        }
    });
}

#[test]
fn attribution_patching_matches_transformer_lens() {
    each_case(|case| {
        for (direction, tag) in [("denoising", "attr"), ("noising", "attr_noising")] {
            if tag == "attr_noising" && !case.fixture.is_own() {
                continue;
            }
            let sweep =
                |flags: &str| case.sweep(&format!("--method attribution-patching --direction {direction} {flags}"));
            let (blocks, heads) = (BLOCKS.join(","), HEADS.join(","));
            let (found, _) = sweep(&format!("--nodes {blocks},{heads} --by position"));
            case.close(&stacked(&found, BLOCKS, "@position"), &format!("{tag}/block_every"), PRODUCTS);
            let by_position = positions_first(stacked(&found, HEADS, "@position"));
            case.close(&by_position, &format!("{tag}/head_by_pos_every"), PRODUCTS);

            let (found, _) = sweep(&format!("--nodes {heads} --by all"));
            case.close(&stacked(&found, HEADS, ""), &format!("{tag}/head_all_pos_every"), PRODUCTS);
        }
    });
}

#[test]
fn head_edges_match_transformer_lens() {
    each_case(|case| {
        for (norm, table) in [("exact", "attr/head_path_exact"), ("frozen", "attr/head_path_fwd_div")] {
            // With unprocessed weights the frozen norm has a gain, which the reference omits.
            if norm == "frozen" && case.weights == "raw" {
                continue;
            }
            let flags = format!("--method attribution-patching --nodes head_edges --norm {norm}");
            let (found, _) = case.sweep(&flags);
            let Some(expected) = case.table(table) else { continue };
            // The reference has one axis for layer, head and input, and one for layer and head.
            let paths = found["head_edges"].clone().into_shape_with_order(expected.shape()).unwrap();
            case.close(&paths, table, PATHS);
        }
    });
}

/// The arguments of one path patching call: receivers, policies, `--by`, and whether prompts are
/// kept apart.
type PathCall = (String, &'static [&'static str], &'static str, bool);

/// Returns the call that computes a path patching table, and the name of the senders in it. The
/// table's name is `receivers/senders`.
fn path_call(table: &str) -> Option<(PathCall, String)> {
    let (receivers, senders) = table.split_once('/')?;
    // The TransformerLens oracle has shorter names.
    let receivers = match receivers {
        "resid_post_last" => "resid_post:3",
        "q" => "q:2.1,q:3.0,q:3.3",
        "k" => "k:2.1,k:3.0,k:3.3",
        "v" => "v:3.2,v:2.0",
        "qkv_2.1" => "q:2.1,k:2.1,v:2.1",
        named => named,
    };
    let (senders, policies): (_, &[&str]) = match senders.strip_suffix("_nomlp") {
        Some(senders) => (senders, &["direct"]),
        None => (senders, &["path-patching", "redwood"]),
    };
    let (senders, per_prompt) = match senders.strip_suffix("_per_prompt") {
        Some(senders) => (senders, true),
        None => (senders, false),
    };
    let (senders, by) = match senders {
        "z" => ("head_z", "all"),
        "z_by_pos" | "head_z@position" => ("head_z", "position"),
        // This is not a table of effects.
        patterns if patterns.starts_with("patterns_") => return None,
        named => (named, "all"),
    };
    Some(((receivers.to_owned(), policies, by, per_prompt), senders.to_owned()))
}

#[test]
fn path_patching_matches_transformer_lens() {
    each_case(|case| {
        let prefix = format!("{}/path/", case.weights);
        let mut calls: BTreeMap<PathCall, Vec<(String, &str)>> = BTreeMap::new();
        for table in case.fixture.results.keys().filter_map(|name| name.strip_prefix(&prefix)) {
            if let Some((call, senders)) = path_call(table) {
                calls.entry(call).or_default().push((senders, table));
            }
        }
        assert!(calls.len() >= 10, "{}: {} calls of path patching", case.fixture.name, calls.len());
        for ((receivers, policies, by, per_prompt), tables) in &calls {
            let senders = tables.iter().map(|(senders, _)| senders.as_str()).collect::<Vec<_>>().join(",");
            for policy in *policies {
                let each = if *per_prompt { "--per-prompt" } else { "" };
                let (found, _) = case.sweep(&format!(
                    "--method path-patching --direction noising --freeze {policy} --receivers {receivers} --nodes {senders} \
                     --by {by} {each}"
                ));
                for (senders, table) in tables {
                    let mut actual =
                        found[&if *by == "position" { format!("{senders}@position") } else { senders.clone() }].clone();
                    if *by == "position" {
                        actual = positions_first(actual);
                    }
                    if *per_prompt {
                        actual = actual.permuted_axes(IxDyn(&[1, 2, 0]));
                    }
                    if senders == "mlp_post" {
                        // The table has only the first neurons.
                        actual = actual.slice_axis(Axis(1), Slice::from(..6)).to_owned();
                    }
                    case.close(&actual, &format!("path/{table}"), CHANGES);
                }
            }
        }
    });
}

#[test]
fn integrated_gradients_match_captum() {
    each_case(|case| {
        for (baseline, end) in [("corrupt", "corr"), ("zero", "zero")] {
            let (found, about) = case.sweep(&format!(
                "--method integrated-gradients --nodes head_result,mlp_post --baseline {baseline} --steps 50 \
                 --rule gauss-legendre --metric logit-diff --per-prompt"
            ));
            for (name, table) in [("head_result", "attn"), ("mlp_post", "mlp")] {
                case.close(&found[name], &format!("ig/{table}_{end}"), INTEGRALS);
                let steps = &about["notes"]["steps_by_layer"][name];
                assert!(steps.as_array().unwrap().iter().all(|steps| *steps == 50), "{name}: {steps}");
                // Captum's gaps are below 1e-7. The rest is float32 rounding, measured up to
                // 7.6e-6.
                let gap = scale(&found[&format!("{name}.gap")]);
                assert!(gap < 3e-5, "{} {table}_{end}: a gap of {gap}", case.fixture.name);
            }
        }
    });
}

#[test]
fn ablation_matches_transformer_lens() {
    each_case(|case| {
        for (by, table) in
            [("zero", "ablate/zero"), ("mean", "ablate/mean"), ("mean --mean-over position", "ablate/mean_by_position")]
        {
            if table == "ablate/mean_by_position" && !case.fixture.is_own() {
                continue;
            }
            let (found, _) = case.sweep(&format!("--method ablation --ablate {by} --nodes head_z --metric logit-diff"));
            case.close(&found["head_z"], table, LOGITS);
            // After normalization, the mean over corrupted runs is 0 and over clean runs 1.
            let (found, _) = case.sweep(&format!("--method ablation --ablate {by} --nodes head_z"));
            let Some(expected) = case.table(table) else { continue };
            let [clean, corrupted] = case.logit_differences();
            let expected = expected.mapv(|after| (after - corrupted) / (clean - corrupted));
            let what = format!("{} {} {table}, normalized", case.fixture.name, case.weights);
            assert_close(&found["head_z"], &expected, CHANGES, &what);
        }
    });
}

#[test]
fn logit_attribution_matches_transformer_lens() {
    each_case(|case| {
        // TransformerLens omits the final norm's gain, which unprocessed weights have.
        let (found, _) = case.sweep("--method logit-attribution --nodes head_result --final-norm-gain left-out");
        case.close(&found["head_result"], "dla/heads_clean", LOGITS);
    });
}
