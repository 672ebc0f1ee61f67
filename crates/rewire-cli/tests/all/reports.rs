//! The report of a sweep: the finding first, one color for support, and no maps of rounding.

use crate::shared::{PAIRS, sweep};

/// Sweeps two pairs and returns the report without its head.
fn report(arguments: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pairs.jsonl"), PAIRS).unwrap();
    sweep(directory.path(), arguments);
    let report = std::fs::read_to_string(directory.path().join("o/report.html")).unwrap();
    report.split_once("<body>").unwrap().1.to_owned()
}

/// Returns the number of heat maps in a report.
fn heat_maps(report: &str) -> usize {
    report.matches("\"type\":\"heatmap\"").count()
}

#[test]
fn a_sweep_opens_with_its_finding() {
    let report = report(&[]);
    let (finding, rest) = report.split_once("</aside>").unwrap();
    for part in ["The largest effect is that of L", "of the clean–corrupted difference", "2 prompt pairs", "are exact"]
    {
        assert!(finding.contains(part), "{part} is not in {finding}");
    }
    assert!(finding.contains("rewireDraw(\"chart-finding\""), "the finding has no figure");
    let sections = ["<nav", "How to read this</h2>", "Baselines</h2>", "head_z</h2>"].map(|part| rest.find(part));
    assert!(sections.iter().all(Option::is_some) && sections.is_sorted(), "{sections:?}");
    assert_eq!(heat_maps(&report), 1);
}

#[test]
fn one_color_supports_the_behavior_in_every_method() {
    let [supports, opposes] = ["#2166ac", "#b2182b"].map(|color| format!("\"colorscale\":[[0.0,\"{color}\"]"));
    let lowest = |arguments: &[&str]| {
        let report = report(arguments);
        (report.contains(&supports), report.contains(&opposes))
    };
    // The lowest value opposes if effects above 0 support.
    assert_eq!(lowest(&["--direction", "denoising"]), (false, true));
    assert_eq!(lowest(&["--direction", "noising"]), (true, false));
    assert_eq!(lowest(&["--method", "ablation", "--ablate", "mean"]), (true, false));
    assert_eq!(lowest(&["--method", "integrated-gradients"]), (true, false));
    assert_eq!(lowest(&["--method", "logit-attribution"]), (false, true));
}

#[test]
fn heads_by_position_have_one_map_per_layer_and_intervals_on_hover() {
    let report = report(&["--by", "position", "--intervals"]);
    assert!((1..=4).contains(&heat_maps(&report)), "{} maps", heat_maps(&report));
    assert!(report.contains("difference\\u003cbr>%{text}\\u003cextra>"), "the maps do not show intervals");
}

#[test]
fn an_estimate_says_how_far_it_is_from_exact() {
    let estimate = ["--method", "attribution-patching"];
    assert!(report(&estimate).contains("first-order estimates. --verify K patches"));
    let verified = report(&[&estimate[..], &["--verify", "3"]].concat());
    for part in ["The largest exact effect among the verified nodes is that of", "Pearson correlation", "largest error"]
    {
        assert!(verified.contains(part), "{part}");
    }
}

#[test]
fn a_table_of_zeros_is_a_sentence() {
    let apart = ["--method", "path-patching", "--receivers", "q:0.1,v:3.7", "--receivers-apart"];
    let report = report(&apart);
    // No path reaches the first layer's queries.
    assert!(report.contains("<p>All effects are below"), "{report}");
    assert_eq!(heat_maps(&report), 1);
}
