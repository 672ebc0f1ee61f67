//! The report's sections on heads that write the answer: patching of head parts, direct effects,
//! movers, suppression, backups.

use rewire_analysis::stats::{pearson, regression};
use rewire_circuits::{COPIES, mean_by_head};
use rewire_hooks::Head;
use rewire_report::Page;
use rewire_report::charts::{self, Point};

use super::maps::{Maps, attention, step, strongest};
use crate::reproduce_pythia::arguments::Arguments;
use crate::reproduce_pythia::rows;
use crate::reproduce_pythia::sentences;
use crate::reproduce_pythia::shown::Found;
use rewire_report::names::head_name;

pub(super) fn performance(page: &mut Page, found: &Found) {
    let [clean, corrupted] = found.parts.baselines.means();
    page.section(
        "Performance",
        "Mean logit difference at each prompt's last token: the logit of IO minus the logit of S. Corrupted prompts \
         have IO in place of S2, so the right answer becomes S and the corrupted logit difference is negative. The \
         notebook calls this corruption ABC, but ABC prompts have three different names.",
    );
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    page.table(
        &["", "value"],
        vec![
            row("prompts", found.data.pairs.len().to_string()),
            row("BOS token in front of each prompt", if found.data.has_bos { "yes" } else { "no" }.to_owned()),
            row("clean logit difference", format!("{clean:.4}")),
            row("corrupted logit difference", format!("{corrupted:.4}")),
            row("clean prompts with the logit of IO above the logit of S", format!("{:.1}%", 100.0 * found.right)),
        ],
    );
    let (prompt, _) = found.shown;
    let text = found.data.pairs.labels(prompt).concat();
    page.text(&format!("Prompt {prompt}: {}", text.trim_start_matches("<|endoftext|>")));
}

pub(super) fn parts(page: &mut Page, found: &Found, maps: &Maps) {
    page.section(
        "Effects of the parts of heads",
        "The corrupted run takes one output, query, key, value or pattern of one head from the clean run (denoising). \
         The effect is the restored share of the clean minus corrupted logit difference.",
    );
    let titles = ["Output", "Query", "Key", "Value", "Pattern"];
    let all: Vec<_> = (0..titles.len()).map(|kind| mean_by_head(&found.parts, kind)).collect();
    let reach = charts::color_limit(all.iter().map(|map| map.view()));
    page.row(titles.iter().zip(&all).map(|(title, map)| maps.of(title, map, reach)).collect());
    page.text(
        "Each point compares the output effect of a head with its pattern effect. The values of a head far above the \
         diagonal matter more than its attention pattern.",
    );
    let [output, pattern] = [&all[0], &all[4]];
    let point = |((layer, head), &x): ((usize, usize), &f32)| Point {
        x,
        y: output[[layer, head]],
        layer,
        name: head_name(layer, head),
    };
    let points: Vec<Point> = pattern.indexed_iter().map(point).collect();
    page.chart(charts::scatter(
        "Output patching and pattern patching",
        &points,
        ["effect of the pattern", "effect of the output"],
    ));
    let pairs = || pattern.iter().copied().zip(output.iter().copied());
    let r = pearson(pairs()).map_or("-".to_owned(), |r| format!("{r:.3}"));
    let slope = regression(pairs()).map_or("-".to_owned(), |[slope, _]| format!("{slope:.3}"));
    page.text(&format!("Over all heads: Pearson {r}, slope {slope}."));
}

pub(super) fn effects(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    page.section(
        "Direct effects on the logits",
        "Path patching from each head's output to the last residual stream, with other heads held and MLPs recomputed. \
         The patch changes the clean run (noising), so a head that serves the behavior has an effect below 0. Direct \
         logit attribution is the contribution of each head to the logit difference, with the scale of the final norm \
         held and without MLPs.",
    );
    let attribution = mean_by_head(&found.attribution, 0);
    page.chart(maps.of(
        "Direct logit attribution, in logits (blue: for the answer)",
        &attribution,
        charts::color_limit([attribution.view()]),
    ));
    if let Some(direct) = found.step("direct") {
        step(page, found, maps, direct, "Direct effect (red: serves the behavior)", arguments);
    }
    if !found.opposing.is_empty() {
        page.text("Heads that work against the behavior with an effect beyond the threshold:");
        attention(page, found, found.opposing.iter().copied());
    }
}

pub(super) fn movers(page: &mut Page, found: &Found, maps: &Maps) {
    page.section(
        "Movers and negative movers",
        "A copy score passes the residual stream after block 0 at IO, S1 and S2 through the value and output matrices \
         of a head and through the unembedding. The score is the percentage of these names whose own token is among \
         the five tokens of largest logit. The notebook uses no norms. Wang et al. use the norm of the head and the \
         final norm. A mover has a score above 75%. The notebook compares percentages with 0.75, so every head with a \
         score above 0 passes there.",
    );
    for (scores, norms) in found.copying.iter().zip(["without norms", "with norms"]) {
        page.row(vec![
            maps.of(&format!("Copy scores, {norms}"), &scores.positive, 100.0),
            maps.of(&format!("Negative copy scores, {norms}"), &scores.negative, 100.0),
        ]);
    }
    let effects = found.direct.effects();
    let [plain, normed] = &found.copying;
    let masked = |scores: &ndarray::Array2<f32>| {
        ndarray::Array2::from_shape_fn(effects.dim(), |at| if scores[at] > COPIES { effects[at] } else { 0.0 })
    };
    let reach = charts::color_limit([effects.view()]);
    page.row(vec![
        maps.of("Direct effect of heads that copy", &masked(&plain.positive), reach),
        maps.of("Direct effect of heads that copy negatively", &masked(&plain.negative), reach),
    ]);
    let row = |&Head { layer, head }: &Head| {
        let at = [layer, head];
        let score = |v: f32| format!("{v:.1}%");
        let class = match effects[at] < 0.0 {
            true if plain.positive[at] > COPIES => "name mover",
            true => "serves the behavior, does not copy",
            false if plain.negative[at] > COPIES => "negative name mover",
            false => "works against the behavior, does not copy negatively",
        };
        vec![
            head_name(layer, head),
            class.to_owned(),
            format!("{:+.4}", effects[at]),
            score(plain.positive[at]),
            score(normed.positive[at]),
            score(plain.negative[at]),
            score(normed.negative[at]),
        ]
    };
    let rows: Vec<_> = found.direct.serving.iter().chain(&found.opposing).map(row).collect();
    let header = [
        "head",
        "class",
        "direct effect",
        "copy score",
        "copy score, norms",
        "negative copy score",
        "negative copy score, norms",
    ];
    if rows.is_empty() {
        page.text("No head has a direct effect beyond the threshold.");
        return;
    }
    page.table(&header, rows);
    page.text(&format!(
        "Scores are over {} names. The map of heads that copy negatively is masked by negative copy scores; the \
         notebook masks it by positive copy scores.",
        plain.tokens
    ));
}

pub(super) fn suppression(page: &mut Page, found: &Found, maps: &Maps) {
    page.section(
        "Copy suppression",
        "Copy-suppression-preserving ablation (McDougall et al. 2023) of every head. From a token that is about to be \
         copied the head keeps only the part of its output that lowers that token's logit. All of its other output is \
         replaced by its mean. The score is the remaining share of the head's effect on the next-token distribution: 1 \
         - KL(preserved) / KL(mean-ablated). The score means little for heads whose mean ablation changes little. The \
         paper's head (10.7 of GPT-2 small) scores 76.9% on web text.",
    );
    let mut scores = ndarray::Array2::zeros(found.direct.effects().dim());
    let mut changes = scores.clone();
    for s in &found.suppression {
        let at = [s.head.layer, s.head.head];
        // A score below 0 means a larger KL divergence than under mean ablation.
        scores[at] = s.score().map_or(0.0, |score| 100.0 * score.max(0.0) as f32);
        changes[at] = s.ablated as f32;
    }
    page.row(vec![
        maps.of("Copy suppression in percent (scores below 0 shown as 0)", &scores, 100.0),
        maps.of("KL divergence under mean ablation, in nats", &changes, charts::color_limit([changes.view()])),
    ]);
    let mut strongest: Vec<_> = found.suppression.iter().collect();
    strongest.sort_by(|a, b| b.ablated.total_cmp(&a.ablated));
    page.text("The ten heads whose mean ablation changes the next-token distribution most:");
    page.table(&SUPPRESSION, strongest.into_iter().take(10).map(rows::suppression_row).collect());
}

/// Header of [`rows::suppression_row`].
const SUPPRESSION: [&str; 4] = ["head", "KL, mean-ablated", "KL, suppression preserved", "score"];

pub(super) fn backups(page: &mut Page, found: &Found, maps: &Maps) {
    let Some(backup) = &found.backup else {
        page.section(
            "Backups",
            "No head serves the behavior directly beyond the threshold, so there are no movers to remove.",
        );
        return;
    };
    let [before, after] = backup.logit_differences();
    page.section(
        "Backups",
        &format!(
            "{}. These heads are set to zero together. The score of every other head is the increase of its direct \
             logit attribution, as a share of the logit difference before. Each attribution uses the scale of the \
             final norm at the last token on its own run. A backup copies names and does not work against the \
             behavior.",
            match found.has_movers {
                true => "The movers are the heads that serve the behavior directly and do not attend from END to S2",
                false =>
                    "Every head that serves the behavior directly attends from END to S2, so all of these heads are \
                     removed",
            }
        ),
    );
    page.table(
        &["", "value"],
        vec![
            vec!["heads set to zero".to_owned(), sentences::names(backup.ablated.iter().copied())],
            vec!["logit difference before".to_owned(), format!("{before:.4}")],
            vec!["logit difference after".to_owned(), format!("{after:.4}")],
            vec!["change".to_owned(), format!("{:.2}%", 100.0 * (after - before) / before)],
        ],
    );
    let mut taken = backup.taken_over();
    for &Head { layer, head } in &backup.ablated {
        taken[[layer, head]] = 0.0;
    }
    let total: f32 = taken.iter().filter(|share| **share > 0.0).sum();
    page.chart(maps.of("Share of the logit difference taken over", &taken, charts::color_limit([taken.view()])));
    page.text(&format!("Heads that add more than before take over {:.1}% in total.", 100.0 * total));
    let rows = strongest(&taken, 1.0, 10);
    let rows = rows.into_iter().map(|(head, share)| vec![head.to_string(), format!("{:.2}%", 100.0 * share)]);
    page.table(&["head", "takes over"], rows.collect());
}
