//! Bfloat16 and small memory budgets, end to end: the report states the precision and its measured
//! error, and the budget does not change the effects.

use crate::shared::{self, PAIRS, run};

#[test]
fn a_bfloat16_sweep_reports_its_error_against_float32() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    let sweep = |arguments: &[&str]| shared::sweep(directory.path(), arguments);
    let (full, about, printed) = sweep(&[]);
    assert_eq!(about["computed"]["weights_and_activations"], "f32");
    assert_eq!(about["computed"]["products_of_float32"], "float32");
    assert!(about["notes"].get("against_float32").is_none() && !printed.contains("compared with float32"));

    let (short, about, printed) = sweep(&["--dtype", "bf16"]);
    assert_eq!(about["computed"]["weights_and_activations"], "bf16");
    assert!(short["head_z"].1 != full["head_z"].1);
    let of_heads = &about["notes"]["against_float32"]["tables"]["head_z"];
    let [largest, error] = ["largest_effect", "largest_error"].map(|key| of_heads[key].as_f64().unwrap());
    assert!(0.0 < error && error < 0.1 * largest, "{of_heads}");
    assert_eq!(about["notes"]["against_float32"]["prompt_pairs"], 1);
    assert!(printed.contains("bfloat16 weights and activations compared with float32, on the first pair"), "{printed}");
    let report = std::fs::read_to_string(directory.path().join("o/report.html")).unwrap();
    assert!(report.contains("Against float32</h2>") && report.contains("bfloat16 weights and activations"));

    let methods: [&[&str]; 5] = [
        &["--method", "attribution-patching", "--nodes", "head_z,head_edges", "--verify", "3"],
        &["--method", "integrated-gradients", "--nodes", "head_z,mlp_post"],
        &["--method", "path-patching", "--receivers", "resid_post:3,q:3.7", "--direction", "noising"],
        &["--method", "ablation", "--ablate", "mean", "--nodes", "head_z,mlp_post"],
        &["--method", "logit-attribution"],
    ];
    for method in methods {
        let (found, about, _) = sweep(&[method, &["--dtype", "bf16"]].concat());
        assert!(found["head_z"].1.iter().any(|v| v.abs() > 1e-3), "{method:?}");
        let of_heads = &about["notes"]["against_float32"]["tables"]["head_z"];
        assert!(of_heads["pearson"].as_f64().unwrap() > 0.98, "{method:?}: {of_heads}");
    }
}

#[test]
fn a_small_budget_gives_the_same_effects_in_smaller_passes() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS.repeat(4)).unwrap();
    let sweep = |arguments: &[&str]| {
        let nodes = ["--nodes", "head_z,resid_pre", "--by", "position"];
        shared::sweep(directory.path(), &[&nodes, arguments].concat()).0
    };
    let whole = sweep(&[]);
    for budget in ["64MiB", "1MB", "1 B"] {
        let found = sweep(&["--memory-budget", budget]);
        for (name, (shape, values)) in &whole {
            assert_eq!(&found[name].0, shape);
            let error = found[name].1.iter().zip(values).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(error < 1e-5, "{budget} {name}: {error}");
        }
    }
}

#[test]
fn the_benchmark_runs_at_small_size() {
    let directory = tempfile::tempdir().unwrap();
    let printed = run(directory.path(), &["bench", "--sizes", "tiny", "--repeats", "1", "--pairs", "4"], &[]);
    let works = [
        "forward",
        "forward-backward",
        "attribution",
        "heads",
        "blocks-by-position",
        "head-parts-by-position",
        "integrated-gradients",
        "paths-to-residual",
        "paths-to-queries",
    ];
    let table = printed.split("time / floor").nth(1).unwrap();
    for work in works {
        assert!(table.lines().any(|line| line.trim_start().starts_with(&format!("{work} "))), "{work}: {printed}");
    }
    let short = run(
        directory.path(),
        &["bench", "--sizes", "tiny", "--repeats", "1", "--works", "heads,attribution-lean", "--dtype", "bf16"],
        &[],
    );
    assert!(short.contains("bfloat16 weights and activations"), "{short}");
    let json = ["bench", "--sizes", "tiny", "--repeats", "1", "--works", "heads,forward-backward", "--json"];
    let found: serde_json::Value = serde_json::from_str(&run(directory.path(), &json, &[])).unwrap();
    assert_eq!(found["rates"]["matmuls"].as_array().unwrap().len(), 3);
    for (work, name) in found["works"].as_array().unwrap().iter().zip(["heads", "forward-backward"]) {
        assert_eq!(work["work"], name);
        let [ratio, seconds, floor] =
            ["time_over_floor", "seconds", "floor_seconds"].map(|figure| work[figure].as_f64().unwrap());
        assert!((ratio - seconds / floor).abs() <= 1e-9 * ratio, "{work}");
    }
}
