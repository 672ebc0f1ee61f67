//! AtP*, end to end: the flags, the names in effects.json and the report, and refusals.

use std::process::Command;

use crate::shared::{self, PAIRS};

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    directory
}

const HEADS: [&str; 6] =
    ["--method", "attribution-patching", "--nodes", "head_q,head_k,head_z", "--direction", "noising"];

#[test]
fn atp_star_names_itself_and_has_no_sign() {
    let directory = directory();
    let sweep = |more: &[&str]| shared::sweep(directory.path(), &[&HEADS, more].concat());
    let (plain, about, _) = sweep(&[]);
    assert_eq!(about["notes"]["estimator"], "AtP");
    let (fixed, about, printed) = sweep(&["--qk-fix"]);
    assert_eq!(about["notes"]["estimator"], "AtP with the QK fix");
    assert!(printed.contains("head_q (estimated by AtP with the QK fix, noising"), "{printed}");
    assert_eq!(fixed["head_z"], plain["head_z"]);
    assert_ne!(fixed["head_q"], plain["head_q"]);
    assert_ne!(fixed["head_k"], plain["head_k"]);
    let (star, about, printed) = sweep(&["--qk-fix", "--grad-drop"]);
    assert_eq!(about["notes"]["estimator"], "AtP*");
    assert!(about["notes"]["values_are"].as_str().unwrap().contains("without a sign"));
    assert!(printed.contains("head_q (estimated by AtP*, noising"), "{printed}");
    for kind in ["head_q", "head_k", "head_z"] {
        assert!(star[kind].1.iter().all(|size| *size >= 0.0), "{kind}");
        assert!(star[kind].1.iter().any(|size| *size > 0.0), "{kind}");
    }
    let report = std::fs::read_to_string(directory.path().join("o/report.html")).unwrap();
    assert!(report.contains("attribution-patching by AtP*") && report.contains("sizes without a sign"));
}

#[test]
fn the_bound_on_skipped_nodes_is_written_with_its_confidence() {
    let directory = directory();
    let heads = ["--method", "attribution-patching", "--verify", "5", "--bound-skipped", "40"];
    let (_, about, printed) = shared::sweep(directory.path(), &heads);
    let bound = &about["notes"]["skipped_bound"];
    assert_eq!((&bound["confidence"], &bound["subsets"]), (&serde_json::json!(0.95), &serde_json::json!(40)));
    assert_eq!(bound["subsets_of_each_node"], 4);
    assert!(bound["bound"].as_f64().unwrap() > 0.0);
    assert!(printed.contains("with 95% confidence, no skipped node has a mean effect beyond"), "{printed}");
    let (found, about, _) = shared::sweep(directory.path(), &["--method", "attribution-patching", "--verify", "all"]);
    assert!(found["verified/head_z"].1.iter().all(|effect| effect.is_finite()));
    assert_eq!(about["notes"]["screening"]["skipped"], 0);
}

#[test]
fn flags_that_do_not_go_together_are_refused() {
    let directory = directory();
    let refused = |arguments: &str, expected: &str| {
        let all = ["sweep", "--pairs", "pairs.jsonl", "--out", "o"].into_iter().chain(arguments.split_whitespace());
        let output =
            Command::new(env!("CARGO_BIN_EXE_rewire")).args(all).current_dir(directory.path()).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {message}");
        assert!(message.contains(expected), "{arguments}: {message}");
    };
    let estimate = "--method attribution-patching";
    refused("--qk-fix --nodes head_q", "--qk-fix needs --method attribution-patching");
    refused(&format!("{estimate} --qk-fix"), "add one of them to --nodes");
    refused(&format!("{estimate} --qk-fix --nodes edges"), "does not go with --nodes edges");
    refused(&format!("{estimate} --grad-drop --nodes head_q:L0H1"), "does not go with --nodes names of single nodes");
    refused(&format!("{estimate} --grad-drop --nodes resid_pre"), "GradDrop does not take resid_pre");
    refused(&format!("{estimate} --bound-skipped 40"), "--bound-skipped needs --verify");
    refused(&format!("{estimate} --verify 5 --bound-skipped 4"), "give at least 20 subsets");
    refused(&format!("{estimate} --verify some"), "give a number or `all`");
}
