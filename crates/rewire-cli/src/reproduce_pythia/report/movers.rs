//! The report's details on heads that write the answer: copy scores of the movers, backups, and
//! copy suppression.

use ndarray::Array2;
use rewire_circuits::COPIES;
use rewire_hooks::Head;
use rewire_report::Page;
use rewire_report::charts::{self, Meaning};

use super::maps::{Maps, strongest};
use crate::reproduce_pythia::rows;
use crate::reproduce_pythia::sentences;
use crate::reproduce_pythia::shown::Found;
use rewire_report::numbers::signed;

pub(super) fn movers(page: &mut Page, found: &Found, maps: &Maps) {
    page.section(
        "Movers and negative movers",
        "Copy scores, in percent of names. A copy score passes the residual stream after block 0 at IO, S1 and S2 \
         through the value and output matrices of a head and through the unembedding. The score is the percentage of \
         these names whose own token is among the five tokens of largest logit. The notebook uses no norms. Wang et \
         al. use the norm of the head and the final norm. A mover has a score above 75%. The notebook compares \
         percentages with 0.75, so every head with a score above 0 passes there.",
    );
    for (scores, norms) in found.copying.iter().zip(["without norms", "with norms"]) {
        let [positive, negative] =
            ["Copy scores", "Negative copy scores"].map(|what| format!("{what}, {norms} (percent)"));
        let meaning = Meaning { unit: "percent", ..Meaning::default() };
        maps.row(
            page,
            meaning,
            &[(positive.as_str(), &scores.positive, 100.0), (negative.as_str(), &scores.negative, 100.0)],
        );
    }
    let effects = found.direct.effects();
    let masked = |scores: &Array2<f32>| {
        Array2::from_shape_fn(effects.dim(), |at| if scores[at] > COPIES { effects[at] } else { 0.0 })
    };
    let reach = charts::color_limit([effects.view()]);
    let [plain, _] = &found.copying;
    let (copying, negative) = (masked(&plain.positive), masked(&plain.negative));
    maps.row(
        page,
        Meaning::of(&found.direct.outcome),
        &[
            ("Direct effect of heads that copy (share)", &copying, reach),
            ("Direct effect of heads that copy negatively (share)", &negative, reach),
        ],
    );
    table(page, found, &effects);
}

/// Adds a table of the heads with a direct effect beyond the threshold, with their copy scores.
fn table(page: &mut Page, found: &Found, effects: &Array2<f32>) {
    let [plain, normed] = &found.copying;
    let row = |head: &Head| {
        let at = [head.layer, head.head];
        let score = |v: f32| format!("{v:.1}%");
        let class = match effects[at] < 0.0 {
            true if plain.positive[at] > COPIES => "name mover",
            true => "serves the behavior, does not copy",
            false if plain.negative[at] > COPIES => "negative name mover",
            false => "works against the behavior, does not copy negatively",
        };
        let scores = [plain.positive[at], normed.positive[at], plain.negative[at], normed.negative[at]].map(score);
        [head.to_string(), class.to_owned(), signed(effects[at])].into_iter().chain(scores).collect()
    };
    let rows: Vec<Vec<String>> = found.direct.serving.iter().chain(&found.opposing).map(row).collect();
    if rows.is_empty() {
        page.text("No table of movers: no head has a direct effect beyond the threshold.");
        return;
    }
    let header = [
        "head",
        "class",
        "direct effect (share)",
        "copy score",
        "copy score, norms",
        "negative copy score",
        "negative copy score, norms",
    ];
    page.table(&header, rows);
    page.text(&format!(
        "Scores are over {} names. The map of heads that copy negatively is masked by negative copy scores; the \
         notebook masks it by positive copy scores.",
        plain.tokens
    ));
}

pub(super) fn backups_and_suppression(page: &mut Page, found: &Found, maps: &Maps) {
    page.section(
        "Backups and copy suppression",
        "Two further functions of heads. A backup adds to the logit difference once the movers are removed. A head \
         that suppresses copies lowers the logit of tokens that are about to be copied.",
    );
    backups(page, found, maps);
    suppression(page, found, maps);
}

fn backups(page: &mut Page, found: &Found, maps: &Maps) {
    let Some(backup) = &found.backup else {
        page.text(
            "Backups were not measured: no head serves the behavior directly beyond the threshold, so there are no \
             movers to remove.",
        );
        return;
    };
    let [before, after] = backup.logit_differences();
    page.text(&format!(
        "Backups. {}. These heads are set to zero together. The score of every other head is the increase of its \
         direct logit attribution, as a share of the logit difference before. Each attribution uses the scale of the \
         final norm at the last token on its own run. A backup copies names and does not work against the behavior.",
        match found.has_movers {
            true => "The movers are the heads that serve the behavior directly and do not attend from END to S2",
            false =>
                "Every head that serves the behavior directly attends from END to S2, so all of these heads are \
                 removed",
        }
    ));
    page.table(
        &["", "value"],
        vec![
            vec!["heads set to zero".to_owned(), sentences::names(backup.ablated.iter().copied())],
            vec!["logit difference before (logits)".to_owned(), format!("{before:.4}")],
            vec!["logit difference after (logits)".to_owned(), format!("{after:.4}")],
            vec!["change".to_owned(), format!("{:.2}%", 100.0 * (after - before) / before)],
        ],
    );
    let mut taken = backup.taken_over();
    for &Head { layer, head } in &backup.ablated {
        taken[[layer, head]] = 0.0;
    }
    let total: f32 = taken.iter().filter(|share| **share > 0.0).sum();
    maps.row(
        page,
        Meaning::default(),
        &[("Share of the logit difference taken over", &taken, charts::color_limit([taken.view()]))],
    );
    let rows = strongest(&taken, 1.0, 10);
    if rows.is_empty() {
        page.text("No other head adds more than before.");
        return;
    }
    page.text(&format!("Heads that add more than before take over {:.1}% in total.", 100.0 * total));
    let rows = rows.into_iter().map(|(head, share)| vec![head.to_string(), format!("{:.2}%", 100.0 * share)]);
    page.table(&["head", "takes over"], rows.collect());
}

fn suppression(page: &mut Page, found: &Found, maps: &Maps) {
    page.text(
        "Copy suppression. Copy-suppression-preserving ablation (McDougall et al. 2023) of every head. From a token \
         that is about to be copied the head keeps only the part of its output that lowers that token's logit. All of \
         its other output is replaced by its mean. The score is the remaining share of the head's effect on the \
         next-token distribution: 1 - KL(preserved) / KL(mean-ablated). The score means little for heads whose mean \
         ablation changes little. The paper's head (L10H7 of GPT-2 small) scores 76.9% on web text.",
    );
    let mut scores = Array2::zeros(found.direct.effects().dim());
    let mut changes = scores.clone();
    for s in &found.suppression {
        let at = [s.head.layer, s.head.head];
        // A score below 0 means a larger KL divergence than under mean ablation.
        scores[at] = s.score().map_or(0.0, |score| 100.0 * score.max(0.0) as f32);
        changes[at] = s.ablated as f32;
    }
    maps.row(
        page,
        Meaning::default(),
        &[
            ("Copy suppression in percent (scores below 0 shown as 0)", &scores, 100.0),
            ("KL divergence under mean ablation, in nats", &changes, charts::color_limit([changes.view()])),
        ],
    );
    let mut strongest: Vec<_> = found.suppression.iter().collect();
    strongest.sort_by(|a, b| b.ablated.total_cmp(&a.ablated));
    page.text("The ten heads whose mean ablation changes the next-token distribution most:");
    page.table(&SUPPRESSION, strongest.into_iter().take(10).map(rows::suppression_row).collect());
}

/// Header of [`rows::suppression_row`].
const SUPPRESSION: [&str; 4] = ["head", "KL, mean-ablated (nats)", "KL, suppression preserved (nats)", "score"];
