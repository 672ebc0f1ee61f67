//! Who writes the answer: patching of parts, direct effects, movers, suppression, backups.

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
        "Mean logit difference, IO less S, at each prompt's last token. Corrupted prompts have S2 turned to IO, so that the answer \
         turns round: the notebook calls them ABC, which they are not, and that is why its corrupted figure is negative.",
    );
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    page.table(
        &["", "value"],
        vec![
            row("prompts", found.data.pairs.len().to_string()),
            row("a token in front of each (BOS)", if found.data.has_bos { "yes" } else { "no" }.to_owned()),
            row("clean logit difference", format!("{clean:.4}")),
            row("corrupted logit difference", format!("{corrupted:.4}")),
            row("clean prompts with IO above S", format!("{:.1}%", 100.0 * found.right)),
        ],
    );
    let (prompt, _) = found.shown;
    let text = found.data.pairs.labels(prompt).concat();
    page.text(&format!("Prompt {prompt}: {}", text.trim_start_matches("<|endoftext|>")));
}

pub(super) fn parts(page: &mut Page, found: &Found, maps: &Maps) {
    page.section(
        "Heads by their parts",
        "Each head's output, query, key, value or pattern alone, taken from the clean run into the corrupted one (denoising): the \
         share of clean less corrupted that comes back.",
    );
    let titles = ["Output", "Query", "Key", "Value", "Pattern"];
    let all: Vec<_> = (0..titles.len()).map(|kind| mean_by_head(&found.parts, kind)).collect();
    let reach = charts::color_limit(all.iter().map(|map| map.view()));
    page.row(titles.iter().zip(&all).map(|(title, map)| maps.of(title, map, reach)).collect());
    page.text("Output against pattern: far above the line, a head matters by what it moves and not by where it looks.");
    let [output, pattern] = [&all[0], &all[4]];
    let point = |((layer, head), &x): ((usize, usize), &f32)| Point {
        x,
        y: output[[layer, head]],
        layer,
        name: head_name(layer, head),
    };
    let points: Vec<Point> = pattern.indexed_iter().map(point).collect();
    page.chart(charts::scatter(
        "Output patching against pattern patching",
        &points,
        ["pattern patched", "output patched"],
    ));
    let pairs = || pattern.iter().copied().zip(output.iter().copied());
    let r = pearson(pairs()).map_or("-".to_owned(), |r| format!("{r:.3}"));
    let slope = regression(pairs()).map_or("-".to_owned(), |[slope, _]| format!("{slope:.3}"));
    page.text(&format!("Over all heads: Pearson {r}, slope {slope}."));
}

pub(super) fn effects(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    page.section(
        "Direct effects on the logits",
        "Path patching from each head's output to the last residual stream, other heads held, MLPs recomputed: the clean run is \
         changed (noising), so below 0 serves the behavior. Beside it what each head adds to the logit difference itself, with the \
         final norm's scale held and no MLP between.",
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
        page.text("Heads that work against the behavior, beyond the threshold:");
        attention(page, found, found.opposing.iter().copied());
    }
}

pub(super) fn movers(page: &mut Page, found: &Found, maps: &Maps) {
    page.section(
        "Movers and negative movers",
        "Copy scores: the residual stream after block 0 at IO, S1 and S2, through a head's values and output and the unembedding; the \
         per cent of them whose own token is among the five of largest logit. Without norms as the notebook has it, with both norms \
         as Wang et al. have it. A mover copies above 75 per cent (the notebook compares with 0.75, which every head above 0 passes).",
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
            true => "serves, does not copy",
            false if plain.negative[at] > COPIES => "negative name mover",
            false => "works against, does not copy negatively",
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
    let header =
        ["head", "class", "direct effect", "copies", "copies, norms", "copies negatively", "negatively, norms"];
    if rows.is_empty() {
        page.text("No head has a direct effect beyond the threshold.");
        return;
    }
    page.table(&header, rows);
    page.text(&format!(
        "Of {} names; the negative map has the mask of negative scores, where the notebook has the positive one's.",
        plain.tokens
    ));
}

pub(super) fn suppression(page: &mut Page, found: &Found, maps: &Maps) {
    page.section(
        "Copy suppression",
        "Copy-suppression-preserving ablation (McDougall et al. 2023) of every head: what it moves from a token that is about to be \
         copied may only lower that token's logit, and everything else is its mean. The score is the share of the head's effect on the \
         next-token distribution that is left: 1 - KL(preserved) / KL(mean-ablated). It says nothing of heads whose mean ablation \
         changes little; the paper's head (10.7 of GPT-2 small) scores 76.9% over web text.",
    );
    let mut scores = ndarray::Array2::zeros(found.direct.effects().dim());
    let mut changes = scores.clone();
    for s in &found.suppression {
        let at = [s.head.layer, s.head.head];
        // Below 0 the head is further from itself than if it were ablated.
        scores[at] = s.score().map_or(0.0, |score| 100.0 * score.max(0.0) as f32);
        changes[at] = s.ablated as f32;
    }
    page.row(vec![
        maps.of("Copy suppression, per cent (below 0 shown as 0)", &scores, 100.0),
        maps.of("KL of mean ablation, in nats", &changes, charts::color_limit([changes.view()])),
    ]);
    let mut strongest: Vec<_> = found.suppression.iter().collect();
    strongest.sort_by(|a, b| b.ablated.total_cmp(&a.ablated));
    page.text("The ten heads whose mean ablation changes the distribution most:");
    page.table(&SUPPRESSION, strongest.into_iter().take(10).map(rows::suppression_row).collect());
}

/// Header of [`rows::suppression_row`].
const SUPPRESSION: [&str; 4] = ["head", "KL, mean-ablated", "KL, suppression preserved", "score"];

pub(super) fn backups(page: &mut Page, found: &Found, maps: &Maps) {
    let Some(backup) = &found.backup else {
        page.section(
            "Backups",
            "No head serves the behavior directly beyond the threshold, so there is none to be backed up.",
        );
        return;
    };
    let [before, after] = backup.logit_differences();
    page.section(
        "Backups",
        &format!(
            "{}, set to zero together; what each other head adds to the logit difference more than before, as a share of it. Each run's \
             attribution has that run's final norm scale at the last token. A backup copies names, and does not work against the behavior.",
            match found.has_movers {
                true => "The movers: heads that serve the behavior directly and do not look from END at S2",
                false => "All heads that serve the behavior directly (each looks from END at S2)",
            }
        ),
    );
    page.table(
        &["", "value"],
        vec![
            vec!["heads set to zero".to_owned(), sentences::names(backup.ablated.iter().copied())],
            vec!["logit difference before".to_owned(), format!("{before:.4}")],
            vec!["after".to_owned(), format!("{after:.4}")],
            vec!["change".to_owned(), format!("{:.2}%", 100.0 * (after - before) / before)],
        ],
    );
    let mut taken = backup.taken_over();
    for &Head { layer, head } in &backup.ablated {
        taken[[layer, head]] = 0.0;
    }
    let total: f32 = taken.iter().filter(|share| **share > 0.0).sum();
    page.chart(maps.of("Taken over", &taken, charts::color_limit([taken.view()])));
    page.text(&format!("All that is taken over, by heads that add more than before: {:.1}%.", 100.0 * total));
    let rows = strongest(&taken, 1.0, 10);
    let rows = rows.into_iter().map(|(head, share)| vec![head.to_string(), format!("{:.2}%", 100.0 * share)]);
    page.table(&["head", "takes over"], rows.collect());
}
