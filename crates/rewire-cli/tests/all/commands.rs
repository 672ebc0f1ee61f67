//! Runs the commands end to end on the embedded models.

use std::path::Path;
use std::process::Command;

use crate::shared::{self, PAIRS, json, run, tensors};
use rewire_tests::hub_server;
use serde_json::Value;

/// An empty body of a table. No report has one: a panel without data is left out.
const NO_DATA: &str = "<tbody></tbody>";

#[test]
fn reproduce_ioi_finds_the_important_heads_and_writes_every_file() {
    for model in ["toy-gpt2", "toy-neox"] {
        let directory = tempfile::tempdir().unwrap();
        let printed =
            run(directory.path(), &["reproduce-ioi", "--model", model, "--prompts", "12", "--seed", "5"], &[]);
        for word in ["8 demo prompts", "12 generated prompts", "denoising", "noising", "Pearson", "report.html"] {
            assert!(printed.contains(word), "{model}: {word} is not in {printed}");
        }
        let out = directory.path().join("out/reproduce-ioi");
        let tensors = tensors(&out.join("effects.safetensors"));
        let (shape, exact) = &tensors["demo/activation-patching/denoising/head_z"];
        assert_eq!(shape, &[8, 4, 8]);
        let strongest = (0..32).map(|h| (0..8).map(|p| exact[p * 32 + h]).sum::<f32>() / 8.0).fold(0.0, f32::max);
        assert!(strongest > 0.1, "{model}: no head does anything");
        assert_eq!(tensors["demo/activation-patching/denoising/resid_pre@position"].0, [8, 4, 15]);
        assert_eq!(tensors["demo/attention-attribution"].0, [8, 4, 8, 15, 15]);
        assert_eq!(tensors["demo/head_edges"].0, [4, 8, 3, 4, 8, 15]);
        assert_eq!(tensors["demo/activation-patching/denoising/head_pattern@position"].0, [8, 4, 8, 15]);
        assert_eq!(tensors["demo/attribution-patching/denoising/head_pattern@cell"].0, [8, 4, 8, 15, 15]);
        assert_eq!(tensors["generated/attribution-patching/noising/head_z"].0, [12, 4, 8]);
        assert!(tensors.values().all(|(_, values)| values.iter().all(|v| v.is_finite())));

        // The prompts differ in one token. Patching the residual stream there before layer 0
        // restores the whole metric, and earlier positions restore nothing.
        let (_, residual) = &tensors["demo/activation-patching/denoising/resid_pre@position"];
        let at = |pos: usize| (0..8).map(|p| residual[p * 60 + pos]).sum::<f32>() / 8.0;
        assert!((at(10) - 1.0).abs() < 1e-4, "{model}: {}", at(10));
        assert!((0..10).all(|pos| at(pos) == 0.0), "{model}: something before the difference matters");

        let about = json(&out.join("effects.json"));
        let agreement = about["notes"]["agreement"].as_array().unwrap();
        assert_eq!(agreement.len(), if model == "toy-neox" { 14 } else { 15 });
        assert!(
            agreement.iter().all(|a| a["pearson"].is_number() && a["compared"].as_u64() > Some(0)),
            "{agreement:?}"
        );
        assert_eq!([&about["seed"], &about["device"]], [&Value::from(5), &Value::from("flex")]);
        assert_eq!(about["tensors"].as_array().unwrap().len(), tensors.len());
        assert!(about["labels"]["demo"][0][2] == " John");
        let generated = &about["baselines"]["generated"];
        assert_eq!(generated["clean"].as_array().unwrap().len(), 12);
        assert!(printed.contains(&format!("right on {} of 12 clean prompts", generated["clean_correct"])), "{model}");
        let finding = about["finding"].as_array().unwrap();
        assert_eq!(finding.len(), 3, "{model}");
        assert!(finding.iter().all(|sentence| printed.contains(sentence.as_str().unwrap())), "{finding:?}");
        let lines = std::fs::read_to_string(out.join("effects.csv")).unwrap();
        // A table of edges has a line for each edge.
        let edges = if model == "toy-neox" { 1487 } else { 1519 };
        let lines_of = |(name, (_, values)): (&String, &(Vec<usize>, Vec<f32>))| match name.contains("/edges/") {
            true => edges,
            false => values.len(),
        };
        let numbers: usize = tensors.iter().map(lines_of).filter(|n| *n <= 50_000).sum();
        assert!(tensors.values().any(|(_, values)| values.len() > 50_000), "nothing was too large for the CSV file");
        assert_eq!(lines.lines().count(), numbers + 1);

        let report = std::fs::read_to_string(out.join("report.html")).unwrap();
        let exact_first_and_details_last = [
            "How to read this",
            "Heads on the demo's 8 prompts",
            "Heads on 12 generated prompts",
            "Layers by position",
            "Parts of heads",
            "How far attribution is from the exact effects",
            "Why attribution errs: saturated attention",
            "Edges between heads",
            "Attention cell by cell",
            "Estimates of edges against exact effects",
            "Files and statistics",
        ];
        let headings = shared::headings(&report);
        let ours: Vec<&String> = headings.iter().filter(|h| *h != "Finding" && *h != "Warnings").collect();
        assert_eq!(ours, exact_first_and_details_last, "{model}");
        assert!(!report.contains(NO_DATA), "{model}");
        // The report and the screen begin with the same sentences.
        let sentences: Vec<&str> = printed.lines().skip_while(|line| line.starts_with(model)).take(3).collect();
        for (sentence, begins) in sentences.iter().zip(["", "The effect of L", "Attribution, the cheap estimate,"]) {
            assert!(sentence.starts_with(begins), "{model}: {sentence}");
            assert!(shared::text_of(&report).contains(sentence), "{model}: {sentence} is not in the report");
        }
        assert!(sentences[0].contains("change the logit difference by 5% or more"), "{model}: {}", sentences[0]);
        for word in ["Pearson", "Spearman", "Plotly.newPlot", "rewireAttention(", "John_10"] {
            assert!(report.contains(word), "{model}: {word} is not in the report");
        }
        assert!(!report.contains("<script src="), "the report needs a network");
        assert!(report.len() < 8_000_000, "{} bytes", report.len());
    }
}

#[test]
fn sweep_writes_the_documented_files() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let sweep = |arguments: &[&str]| {
        let (effects, about, _) = shared::sweep(directory.path(), arguments);
        (effects, about)
    };
    let (heads, about) = sweep(&[]);
    assert_eq!(heads.keys().collect::<Vec<_>>(), ["head_z"]);
    assert_eq!(heads["head_z"].0, [4, 8]);
    assert_eq!(about["metric"], "logit-diff-normalized");
    assert_eq!(about["axes"]["head_z"], serde_json::json!(["layer", "head"]));
    assert!(about["baselines"]["clean_mean"].as_f64().unwrap() > 3.0);
    // A sweep of all heads may take 5 s; it takes a fraction of one.
    assert!(about["wall_time_s"].as_f64().unwrap() < 5.0, "{}", about["wall_time_s"]);

    let (each, _) = sweep(&["--per-prompt"]);
    assert_eq!(each["head_z"].0, [2, 4, 8]);
    let mean: Vec<f32> = (0..32).map(|i| (each["head_z"].1[i] + each["head_z"].1[32 + i]) / 2.0).collect();
    assert!(mean.iter().zip(&heads["head_z"].1).all(|(a, b)| (a - b).abs() < 1e-6));

    let all = "resid_pre,resid_mid,resid_post,attn_out,mlp_out,head_q,head_k,head_v,head_z,head_result,head_pattern";
    for method in ["activation-patching", "attribution-patching"] {
        let (positions, _) = sweep(&["--method", method, "--nodes", all, "--by", "position", "--direction", "noising"]);
        assert_eq!(positions.len(), 11);
        assert_eq!(positions["head_z@position"].0, [4, 8, 15]);
        assert_eq!(positions["resid_mid@position"].0, [4, 15]);
        let (cells, _) = sweep(&["--method", method, "--nodes", "head_pattern", "--by", "cell"]);
        assert_eq!(cells["head_pattern@cell"].0, [4, 8, 15, 15]);
        let (neurons, _) = sweep(&["--method", method, "--nodes", "mlp_post"]);
        assert_eq!(neurons["mlp_post"].0, [4, 256]);
        for metric in ["logit-diff", "probability", "kl"] {
            let (effects, _) = sweep(&["--method", method, "--metric", metric]);
            assert!(effects["head_z"].1.iter().any(|v| v.abs() > 1e-4), "{method} {metric}");
        }
    }
    let (result, _) = sweep(&["--nodes", "head_result"]);
    assert_eq!(result["head_result"], heads["head_z"], "a head's output is a linear image of its mixed values");
    if cfg!(feature = "ndarray") {
        let (ndarray, about) = sweep(&["--device", "ndarray"]);
        assert_eq!(about["device"], "ndarray");
        assert!(ndarray["head_z"].1.iter().zip(&heads["head_z"].1).all(|(a, b)| (a - b).abs() < 1e-4));
    }
    let (raw, about) = sweep(&["--no-process-weights"]);
    assert_eq!(about["processed_weights"], false);
    assert!(raw["head_z"].1.iter().zip(&heads["head_z"].1).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn sweep_writes_head_edges_screening_marks_and_intervals() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS.replace('}', ", \"position\": 10}")).unwrap();
    let sweep = |arguments: &[&str]| shared::sweep(directory.path(), arguments);
    let attribution = ["--method", "attribution-patching"];
    let estimate = |more: &[&str]| sweep(&[&attribution, more].concat());

    let (exact, about, printed) = estimate(&["--nodes", "head_edges,head_z"]);
    assert_eq!(exact["head_edges"].0, [4, 8, 3, 4, 8, 15]);
    assert_eq!(exact["head_z"].0, [4, 8]);
    assert_eq!(about["notes"]["norm"], "exact");
    assert_eq!(about["axes"]["head_edges"][2], "input");
    assert!(printed.contains(" -> "), "{printed}");
    let (frozen, about, _) = estimate(&["--nodes", "head_edges", "--norm", "frozen", "--per-prompt"]);
    assert_eq!(frozen["head_edges"].0, [2, 4, 8, 3, 4, 8, 15]);
    assert_eq!(about["notes"]["norm"], "frozen");

    let (screened, about, printed) = estimate(&["--nodes", "head_z,head_q", "--verify", "5"]);
    let verified = screened.iter().filter(|(name, _)| name.starts_with("verified/")).flat_map(|(_, (_, v))| v);
    assert_eq!(verified.filter(|v| !v.is_nan()).count(), 5);
    assert_eq!([&about["notes"]["screening"]["verified"], &about["notes"]["screening"]["skipped"]], [5, 59]);
    assert!(printed.contains("59 nodes were skipped; the largest attribution among them is"), "{printed}");

    let (marked, ..) = sweep(&["--by", "marked"]);
    let (positions, ..) = sweep(&["--by", "position"]);
    assert_eq!(marked["head_z@marked"].0, [4, 8]);
    let at_10: Vec<f32> = positions["head_z@position"].1.iter().skip(10).step_by(15).copied().collect();
    assert!(marked["head_z@marked"].1.iter().zip(&at_10).all(|(a, b)| (a - b).abs() < 1e-6));

    let (sure, about, printed) = sweep(&["--intervals", "--seed", "3"]);
    let tables = ["head_z", "head_z.family_wise_p", "head_z.high", "head_z.low", "head_z.standard_error"];
    assert_eq!(sure.keys().collect::<Vec<_>>(), tables);
    let [mean, low, high] = ["head_z", "head_z.low", "head_z.high"].map(|name| &sure[name].1);
    assert!((0..32).all(|i| low[i] <= mean[i] + 1e-6 && mean[i] <= high[i] + 1e-6));
    let uncertainty = &about["notes"]["uncertainty"];
    assert_eq!([&uncertainty["prompts"], &uncertainty["clusters"]], [2, 2]);
    assert_eq!(uncertainty["tables"]["head_z"]["intervals"], "range of 2 clusters");
    assert!(uncertainty.get("bootstrap").is_none(), "{uncertainty}");
    assert!(printed.contains("range of 2 clusters") && !printed.contains("95% interval"), "{printed}");
}

/// Returns the demo's eight prompts as pairs: each of the four is followed by its mirror.
fn demo_pairs() -> String {
    let frames = [
        ("When John and Mary went to the shops, {} gave the bag to", ["John", "Mary"]),
        ("When Tom and James went to the park, {} gave the ball to", ["James", "Tom"]),
        ("When Dan and Sid went to the shops, {} gave an apple to", ["Sid", "Dan"]),
        ("After Martin and Amy went to the park, {} gave a drink to", ["Amy", "Martin"]),
    ];
    let line = |frame: &str, [subject, other]: [&str; 2]| {
        let [clean, corrupt] = [subject, other].map(|name| frame.replace("{}", name));
        let [answer, wrong] = [other, subject].map(|name| format!(" {name}"));
        serde_json::json!({ "clean": clean, "corrupt": corrupt, "answers": [answer], "wrong_answers": [wrong] })
            .to_string()
    };
    let lines = frames.map(|(frame, [a, b])| format!("{}\n{}\n", line(frame, [a, b]), line(frame, [b, a])));
    lines.concat()
}

/// Returns the numbers in the first table line that starts with `name`.
fn row(printed: &str, name: &str) -> Vec<f64> {
    let line = printed.lines().find(|line| line.split_whitespace().next() == Some(name));
    let words = line.unwrap_or_else(|| panic!("no {name} in {printed}")).split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Effect, standard error, range, interval by Student's t and smallest p-value of the strongest
/// head on the demo's prompts. The effects are from transformers in float64, with hooks before the
/// output projections, and the statistics from NumPy.
const STRONGEST: [(&str, &str, [f64; 7]); 2] = [
    ("toy-gpt2", "L3H7", [0.4164, 0.0995, 0.1378, 0.5854, 0.0996, 0.7331, 0.125]),
    ("toy-neox", "L0H1", [0.4389, 0.0508, 0.2912, 0.5106, 0.2774, 0.6005, 0.125]),
];

#[test]
fn the_demos_eight_prompts_count_as_four_and_noising_is_not_printed_twice() {
    for (model, head, expected) in STRONGEST {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("pairs.jsonl"), demo_pairs()).unwrap();
        let by_demo = run(directory.path(), &["reproduce-ioi", "--model", model, "--prompts", "0"], &[]);
        let (_, about, by_sweep) = shared::sweep(directory.path(), &["--model", model]);
        for printed in [&by_demo, &by_sweep] {
            let found = row(printed, head);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1.6e-4, "{model}: {found} for {expected} in {printed}");
            }
            for part in
                ["range of 4 clusters", "4 clusters of 8 prompts", "32 nodes compared", "no p-value can be below 0.125"]
            {
                assert!(printed.contains(part), "{model}: {part} is not in {printed}");
            }
            assert!(!printed.contains(" *"), "{model}: a node is marked: {printed}");
        }
        assert_eq!(about["notes"]["uncertainty"]["cluster_of_prompt"], serde_json::json!([0, 0, 1, 1, 2, 2, 3, 3]));

        assert_eq!(by_demo.matches("heads by exact effect").count(), 1, "{by_demo}");
        assert!(by_demo.contains("it is minus denoising"), "{by_demo}");
        let out = directory.path().join("out/reproduce-ioi");
        let about = json(&out.join("effects.json"));
        let demo = &about["notes"]["uncertainty"]["demo"];
        assert_eq!(demo["noising_is_minus_denoising"], true);
        assert_eq!(demo["head_z"]["denoising"]["family_wise"]["threshold_in_standard_errors"], Value::Null);
        let report = std::fs::read_to_string(out.join("report.html")).unwrap();
        assert!(report.contains("range of 4 clusters") && !report.contains("<p>Noising: the clean run"));
        // The tensors have both directions nevertheless.
        let effects = tensors(&out.join("effects.safetensors"));
        let [denoising, noising] =
            ["denoising", "noising"].map(|way| &effects[&format!("demo/activation-patching/{way}/head_z")].1);
        let mirrored =
            (0..8).all(|p| (0..32).all(|h| (denoising[p * 32 + h] + noising[(p ^ 1) * 32 + h]).abs() < 5e-5));
        assert!(mirrored, "{model}: noising is not minus denoising");
    }
}

#[test]
fn significant_heads_are_starred_on_the_screen_in_the_report_and_in_json() {
    for model in ["toy-gpt2", "toy-neox"] {
        let directory = tempfile::tempdir().unwrap();
        let printed = run(directory.path(), &["reproduce-ioi", "--model", model, "--prompts", "24"], &[]);
        assert_eq!(printed.matches("heads by exact effect").count(), 3, "the generated prompts have both: {printed}");
        let out = directory.path().join("out/reproduce-ioi");
        let about = json(&out.join("effects.json"));
        let generated = &about["notes"]["uncertainty"]["generated"];
        assert_eq!([&generated["prompts"], &generated["bootstrap"]["resamples"]], [24, 1000]);
        let family = &generated["head_z"]["denoising"]["family_wise"];
        let strongest = family["largest_beyond"][0].as_str().unwrap();
        let starred = format!("{strongest} *");
        assert!(printed.contains(&starred), "{model}: {starred} is not in {printed}");
        let report = std::fs::read_to_string(out.join("report.html")).unwrap();
        assert!(report.contains(&format!("<td>{starred}</td>")), "{model}");
        // A head is starred if and only if it is further from 0 than the threshold.
        let threshold = family["threshold_in_standard_errors"].as_f64().unwrap();
        let table = printed.split("24 generated prompts: clean").nth(1).unwrap();
        let rows = table.lines().skip_while(|line| !line.starts_with("  head")).skip(1).take(10);
        for line in rows {
            let found: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let size = found[0].abs() / found[1];
            // Near the threshold, four printed digits are not precise enough.
            if (size - threshold).abs() > 0.05 {
                assert_eq!(line.contains(" *"), size > threshold, "{model}: {line} and {threshold}");
            }
        }
    }
}

#[test]
fn intervals_follow_the_seed() {
    let directory = tempfile::tempdir().unwrap();
    // Eight pairs without mirrors.
    let names = ["John", "Mary", "Tom", "James", "Dan", "Sid", "Amy", "Martin"];
    let line = |i: usize| {
        let [a, b] = [names[i], names[(i + 1) % 8]];
        PAIRS.lines().next().unwrap().replace("John", "{A}").replace("Mary", "{B}").replace("{A}", a).replace("{B}", b)
    };
    std::fs::write(directory.path().join("pairs.jsonl"), (0..8).map(|i| line(i) + "\n").collect::<String>()).unwrap();
    let low = |seed: &str| {
        let (found, about, _) = shared::sweep(directory.path(), &["--intervals", "--seed", seed]);
        assert_eq!(about["notes"]["uncertainty"]["bootstrap"]["seed"].to_string(), seed);
        assert_eq!(about["notes"]["uncertainty"]["tables"]["head_z"]["intervals"], "95% interval");
        found["head_z.low"].1.clone()
    };
    let three = low("3");
    assert_eq!(three, low("3"));
    assert_ne!(three, low("4"));
}

#[test]
fn a_killed_sweep_resumes_and_gives_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS.repeat(10)).unwrap();
    let sweep = |out: &'static str| {
        ["sweep", "--pairs", "pairs.jsonl", "--nodes", "mlp_post,head_k", "--by", "position", "--out", out]
    };
    run(directory.path(), &sweep("whole"), &[]);

    let mut killed = Command::new(env!("CARGO_BIN_EXE_rewire"))
        .args(sweep("killed"))
        .current_dir(directory.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let unfinished = directory.path().join("killed/unfinished.jsonl");
    let passes = || std::fs::read_to_string(&unfinished).map_or(0, |text| text.lines().count());
    while passes() < 4 {
        assert!(killed.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(!directory.path().join("killed/effects.safetensors").exists());

    let printed = run(directory.path(), &sweep("killed"), &[]);
    let resuming = printed.lines().find_map(|line| line.strip_prefix("resuming an unfinished sweep: "));
    let counts = resuming.and_then(|line| line.strip_suffix(" passes were done before")?.split_once(" of "));
    let [done, all] = counts.map(|(done, all)| [done, all].map(|n| n.parse().unwrap())).unwrap_or([0, 0]);
    // The first line of the record describes the run.
    assert!(done >= 3 && done <= all, "{printed}");
    for file in ["effects.safetensors", "report.html"] {
        let [whole, killed] = ["whole", "killed"].map(|d| std::fs::read(directory.path().join(d).join(file)).unwrap());
        assert!(whole == killed, "{file} differs");
    }
    assert!(!unfinished.exists());
}

#[test]
fn the_same_command_gives_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = |out: &str| {
        run(directory.path(), &["reproduce-ioi", "--prompts", "5", "--out", out], &[]);
        std::fs::read(directory.path().join(out).join("effects.safetensors")).unwrap()
    };
    assert!(bytes("first") == bytes("second"));
}

#[test]
fn models_from_a_directory_and_the_hub_equal_the_embedded_one() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rewire-toy/models/toy-neox");
    let files = ["config.json", "model.safetensors", "tokenizer.json"];
    let files = files.map(|name| (name.to_owned(), std::fs::read(toy.join(name)).unwrap()));
    let server = hub_server::HubServer::start("rewire/toy-neox", files.into());
    let cache = directory.path().join("hub").display().to_string();
    let endpoint = server.endpoint();
    let environment = [("HF_HUB_CACHE", cache.as_str()), ("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_OFFLINE", "0")];
    let effects = |model: &str| {
        run(directory.path(), &["sweep", "--pairs", "pairs.jsonl", "--out", "o", "--model", model], &environment);
        std::fs::read(directory.path().join("o/effects.safetensors")).unwrap()
    };
    let embedded = effects("toy-neox");
    assert!(effects(&toy.display().to_string()) == embedded);
    assert!(effects("rewire/toy-neox") == embedded);
    assert!(server.requests() > 0);
}

#[test]
fn sweep_writes_the_documented_integrals_and_ablations() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let sweep = |arguments: &[&str]| shared::sweep(directory.path(), arguments);
    let of = |nodes: &str, more: &[&str]| {
        let line = ["--method", "integrated-gradients", "--nodes", nodes, "--metric", "logit-diff"];
        sweep(&[&line, more].concat())
    };
    let integral = |more: &[&str]| of("head_result,mlp_post", more);
    let (each, about, printed) =
        integral(&["--baseline", "corrupt", "--steps", "50", "--rule", "gauss-legendre", "--per-prompt"]);
    assert_eq!(each.keys().collect::<Vec<_>>(), ["head_result", "head_result.gap", "mlp_post", "mlp_post.gap"]);
    let shapes = ["head_result", "head_result.gap", "mlp_post", "mlp_post.gap"].map(|name| each[name].0.clone());
    assert_eq!(shapes, [vec![2, 4, 8], vec![2, 4], vec![2, 4, 256], vec![2, 4]]);
    assert_eq!(about["axes"]["head_result.gap"], serde_json::json!(["prompt", "layer"]));
    assert_eq!(about["notes"]["steps_by_layer"]["head_result"], serde_json::json!([50, 50, 50, 50]));
    assert_eq!(about["notes"]["integral"]["rule"], "gauss-legendre");
    assert!(each["head_result.gap"].1.iter().all(|gap| gap.abs() < 1e-3));
    assert!(printed.contains("gap between the sum of attributions and the change of the metric"), "{printed}");
    let (mean, ..) = integral(&[]);
    assert_eq!(mean["mlp_post"].0, [4, 256]);
    assert_eq!(mean["mlp_post.gap"].0, [4]);
    let (alone, ..) = of("head_z", &["--line", "node"]);
    let (patched, ..) = sweep(&["--nodes", "head_z", "--direction", "noising", "--metric", "logit-diff"]);
    assert!(alone["head_z"].1.iter().zip(&patched["head_z"].1).all(|(a, b)| (a - b).abs() < 0.02), "own lines");
    assert_eq!(alone["head_z.gap"].0, [4, 8]);
    let (zero, ..) = integral(&["--baseline", "zero", "--by", "position", "--tolerance", "0.001"]);
    assert_eq!(zero["head_result@position"].0, [4, 8, 15]);

    // A baseline of zeros from a file equals the zero baseline.
    let zeros: Vec<u8> = [0.0_f32; 128].iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = || safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, 1, 8, 16], &zeros).unwrap();
    let names: Vec<String> = (0..4).map(|layer| format!("blocks.{layer}.attn.hook_z")).collect();
    let bytes = safetensors::serialize(names.iter().map(|name| (name, view())), None).unwrap();
    std::fs::write(directory.path().join("zeros.safetensors"), bytes).unwrap();
    let (given, ..) = of("head_result", &["--baseline", "zeros.safetensors"]);
    let (zero, ..) = of("head_result", &["--baseline", "zero"]);
    assert_eq!(given, zero);
    let (to_mean, about, _) =
        integral(&["--baseline", "mean", "--reference", "pairs.jsonl", "--mean-over", "position"]);
    assert!(to_mean["head_result"].1.iter().any(|v| v.abs() > 0.01));
    assert_eq!(about["notes"]["integral"]["baseline"], "mean");

    let ablate = |by: &str| {
        let flags = ["--method", "ablation", "--ablate", by, "--nodes", "head_z", "--metric", "logit-diff"];
        sweep(&flags)
    };
    let (resampled, about, _) = ablate("resample");
    let clean = about["baselines"]["clean_mean"].as_f64().unwrap() as f32;
    let noised = patched["head_z"].1.iter().map(|change| clean + change);
    assert!(resampled["head_z"].1.iter().zip(noised).all(|(a, b)| (a - b).abs() < 1e-4), "the metric after ablation");
    for by in ["zero", "mean"] {
        let (after, about, printed) = ablate(by);
        assert_eq!(about["notes"]["replaced_by"], by);
        assert_eq!(after["head_z"].0, [4, 8]);
        assert!(after["head_z"].1.iter().any(|v| (v - clean).abs() > 0.5), "{by}");
        assert!(printed.contains("metric after"), "{printed}");
    }
}

#[test]
fn reproduce_ig_compares_ablates_and_draws() {
    for model in ["toy-gpt2", "toy-neox"] {
        let directory = tempfile::tempdir().unwrap();
        let arguments = [
            "reproduce-ig",
            "--model",
            model,
            "--prompts",
            "30",
            "--heads",
            "3.0",
            "--seed",
            "4",
            "--generated-pairs",
            "50",
        ];
        let printed = run(directory.path(), &arguments, &[]);
        for word in [
            "notebook's",
            "zero baseline",
            "corrupted baseline",
            " of 30 generated prompts, seed 4",
            "L3H0",
            "resample",
        ] {
            assert!(printed.contains(word), "{model}: {word} is not in {printed}");
        }
        assert!(!printed.contains("means nothing"), "{printed}");
        let out = directory.path().join("out/reproduce-ig");
        let (tensors, about) = (tensors(&out.join("effects.safetensors")), json(&out.join("effects.json")));
        assert_eq!(tensors["integrated-gradients/corrupted/mlp_post"].0, [1, 4, 256]);
        assert_eq!(tensors["literal-first-node/zero/head_result"].0, [1, 4, 8]);
        assert_eq!(tensors["curves/wide"].0[1], 101);
        let gap = |name: &str| {
            tensors[&format!("integrated-gradients/{name}.gap")].1.iter().fold(0.0_f32, |m, v| m.max(v.abs()))
        };
        assert!(gap("corrupted/head_result") < 1e-3 && gap("corrupted/mlp_post") < 1e-2, "{model}");
        // Over generated pairs, one gradient follows patching more closely for neurons, and the
        // integral for heads.
        for (nodes, sign) in [("neurons", -1.0), ("heads", 1.0)] {
            assert_eq!(tensors[&format!("generated-pairs/pearson/{nodes}")].0, [50, 3]);
            let of = &about["notes"]["generated_pairs"]["nodes"][nodes];
            let difference = &of["pearson"]["integral_less_one_gradient"];
            let ends = [0, 1].map(|end| difference["bootstrap_95"][end].as_f64().unwrap());
            assert!(ends.iter().all(|end| sign * end > 0.0), "{model} {nodes}: {of}");
            assert!(printed.contains(of["conclusion"].as_str().unwrap()), "{printed}");
        }
        let study = &about["notes"]["ablation"];
        assert_eq!(study["whole"]["said"]["of"], 30);
        assert!(study["whole"]["said"]["share"].as_f64().unwrap() > 0.9, "{study}");
        assert!(study["heads"]["zero"]["L3H0"]["said"]["wilson_95"][1].as_f64().unwrap() > 0.5, "{study}");
        let report = std::fs::read_to_string(out.join("report.html")).unwrap();
        let headings = shared::headings(&report);
        let ours: Vec<&String> = headings.iter().filter(|h| *h != "Finding" && *h != "Warnings").collect();
        let exact_first_and_details_last = [
            "How to read this",
            "Activation patching",
            "Integrated gradients, corrupted baseline",
            "Integrated gradients, zero baseline",
            "Which follows activation patching?",
            "Heads on which the methods disagree",
            "Ablation: does the model still give the right answer?",
            "Interpolation curves",
            "The contrastive pair",
            "What the notebook's code computes",
        ];
        assert_eq!(ours, exact_first_and_details_last, "{model}");
        assert!(!report.contains(NO_DATA), "{model}");
        for part in
            ["over 50 generated pairs, the mean Pearson correlation", "have no interval", "activation patching is 0."]
        {
            assert!(printed.contains(part), "{model}: {part} is not in {printed}");
        }
    }
}
