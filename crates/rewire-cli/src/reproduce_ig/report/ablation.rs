//! The report's sections on outlier heads and on ablation.

use rewire_analysis::stats::{Proportion, pearson};
use rewire_hooks::Head;
use rewire_report::Page;
use rewire_report::charts::{self, Bars};
use rewire_tasks::ioi::{GPT2_SMALL_CIRCUIT, gpt2_small_class};

use super::attributions::least_squares;
use crate::in_words::right_on;
use crate::model::Source;
use crate::reproduce_ig::arguments::Arguments;
use crate::reproduce_ig::results::{ACCURACY, accuracy_rows, with_interval};
use rewire_report::names::counted;
use rewire_report::numbers::number;
use rewire_studies::integrated_gradients::{
    ACCURACY as PRINTED_WHOLE, ACCURACY_WITHOUT, Ablations as Study, Compared, Found, INTERVENTIONS, MEAN_ABLATION,
    OUTLIERS, REFERENCE, ZERO_ABLATION,
};

pub(super) fn sections(page: &mut Page, source: &Source, found: &Found, arguments: &Arguments) {
    let compared = &found.compared;
    page.section(
        "Heads on which the methods disagree",
        &format!(
            "Outlier heads: patching minus integrated gradients lies beyond the limits of agreement, corrupted \
             baseline. Scores are shares of the clean-corrupted difference. The notebook has its own rule. It \
             multiplies its figure by 1e5 and takes heads whose absolute difference from patching exceeds 1.96 \
             standard deviations of such differences. The result depends on the factor 1e5. In this run the scaled \
             figure has on average {:.4} times the absolute value of patching.",
            compared.scaled_literal_share()
        ),
    );
    let row = |&head: &Head| {
        let mut row = vec![
            head.to_string(),
            number(compared.exact_of(head)),
            number(compared.integrated_of(head)),
            number(compared.scaled_literal_of(head)),
            mark(compared.outliers().contains(&head)),
            mark(compared.literal_outliers().contains(&head)),
        ];
        if source.is_gpt2_small() {
            row.push(gpt2_small_class(head.layer, head.head).map_or("-", |class| class.name).to_owned());
        }
        row
    };
    let mut header = vec![
        "head",
        "patching (share)",
        "integrated gradients (share)",
        "notebook's figure times 1e5",
        "outlier",
        "outlier by the notebook's rule",
    ];
    header.extend(source.is_gpt2_small().then_some("published class"));
    let mut heads = compared.outliers();
    heads.extend(compared.literal_outliers().into_iter().filter(|h| !compared.outliers().contains(h)));
    heads.sort_unstable();
    if heads.is_empty() {
        page.text("No head is an outlier by either rule.");
    } else {
        page.table(&header, heads.iter().map(row).collect());
    }
    if source.is_gpt2_small() {
        circuit(page, found);
    }
    match &found.study {
        Some(study) => experiments(page, source, found, study, arguments),
        None => page.text("The heads were not ablated: there are no generated prompts for it (--prompts 0)."),
    }
}

fn mark(is: bool) -> String {
    if is { "yes" } else { "-" }.to_owned()
}

/// Adds a table of the published circuit with both methods' scores.
fn circuit(page: &mut Page, found: &Found) {
    let compared = &found.compared;
    let ranked = compared.heads_by_effect();
    let mut rows = Vec::new();
    for class in GPT2_SMALL_CIRCUIT {
        for head in class.heads.iter().copied().map(Head::from) {
            let rank = ranked.iter().position(|&h| h == head).map_or(0, |r| r + 1);
            rows.push(vec![
                head.to_string(),
                format!("{} ({})", class.name, class.at),
                number(compared.exact_of(head)),
                number(compared.integrated_of(head)),
                rank.to_string(),
            ]);
        }
    }
    page.text(
        "The heads of the published circuit (Wang et al. 2022), with both scores and the rank of the exact effect:",
    );
    page.table(&["head", "class", "patching (share)", "integrated gradients (share)", "rank of effect"], rows);
}

fn experiments(page: &mut Page, source: &Source, found: &Found, study: &Study, arguments: &Arguments) {
    page.section(
        "Ablation: does the model still give the right answer?",
        &format!(
            "The intact model is {} (seed {}). Shares are of these prompts, logit differences in logits. The model \
             generates up to three greedy tokens per prompt. A prompt counts as right if the first generated word \
             contains the name. Ablated heads are replaced by zero, by their mean over {REFERENCE} other prompts and \
             all positions (mean), or by their activation on the prompt with three other names (resample). Intervals \
             are 95% Wilson intervals.",
            right_on(study.whole.said, "generated prompt"),
            arguments.seed
        ),
    );
    if study.means_nothing() {
        page.text(
            "This model never gets the task right on these prompts. No ablation can make it worse, so the comparison \
             below means nothing.",
        );
    }
    let mut names = vec!["none".to_owned()];
    names.extend(study.names());
    let bars: Vec<Bars> = INTERVENTIONS
        .iter()
        .zip(&study.alone)
        .map(|(by, row)| {
            let all = || [&study.whole].into_iter().chain(row);
            Bars {
                name: (*by).to_owned(),
                heights: all().map(|a| a.said.share()).collect(),
                intervals: all().map(|a| a.said.wilson()).collect(),
            }
        })
        .collect();
    page.chart(charts::bars("Share of prompts answered right", &names, &bars, ["ablated head", "share right"], 1.0));
    page.table(&ACCURACY, accuracy_rows(study));
    if source.is_gpt2_small() {
        page.text(
            "Accuracies after zero ablation, from the notebook and from this run. The notebook's 10,000 prompts are \
             not available, so this run uses generated prompts and there is no verdict:",
        );
        let row =
            |name: String, printed: f64, ours: Proportion| vec![name, format!("{printed:.4}"), with_interval(ours)];
        let mut rows = vec![row("nothing".to_owned(), PRINTED_WHOLE, study.whole.said)];
        for ((head, _), printed) in OUTLIERS.into_iter().zip(ACCURACY_WITHOUT) {
            let ours = study.heads.iter().position(|h| *h == head).map(|i| study.alone[0][i].said);
            rows.extend(ours.map(|ours| row(head.to_string(), printed, ours)));
        }
        page.table(&["ablated", "the notebook's accuracy", "ours (95% interval)"], rows);
    }
    correlations(page, source, found, study);
}

/// Adds the correlations of scores with the change of accuracy.
fn correlations(page: &mut Page, source: &Source, found: &Found, study: &Study) {
    page.text(
        "Do the scores predict the change of accuracy? Correlations over the ablated heads of each score with the \
         change of the share of prompts answered right, by ablation:",
    );
    if study.heads.len() < 3 {
        page.text(&format!(
            "No correlation and no plot: {} ablated, and a correlation needs at least 3 heads.",
            counted(study.heads.len(), "head")
        ));
        return;
    }
    let number = |r: &Option<f64>| r.map_or("-".to_owned(), |r| format!("{r:.4}"));
    let rows = study
        .correlations(&found.compared)
        .into_iter()
        .map(|c| [c.scores.to_owned()].into_iter().chain(c.with_change.iter().map(number)).collect::<Vec<_>>());
    page.table(&["scores", "zero", "mean", "resample"], rows.collect());
    page.text(&format!(
        "These correlations are over {} heads, chosen because the methods disagree on them. They are weak evidence for \
         either method.",
        study.heads.len()
    ));
    let axes = ["patching minus integrated gradients", "change of the share right"];
    let scatters = INTERVENTIONS.iter().enumerate().map(|(i, by)| {
        let point = |(&head, change): (&Head, f32)| charts::Point {
            x: found.compared.exact_of(head) - found.compared.integrated_of(head),
            y: change,
            layer: head.layer,
            name: head.to_string(),
        };
        let points: Vec<_> = study.heads.iter().zip(study.changes(i)).map(point).collect();
        charts::scatter_with(&format!("{by} ablation"), &points, axes, &[])
    });
    page.row(scatters.collect());
    regressions(page, source, found, study);
}

/// Adds the notebook's regressions of the change of accuracy on scores, over the outliers of the
/// notebook's rule, with the printed and our correlations.
fn regressions(page: &mut Page, source: &Source, found: &Found, study: &Study) {
    type Score = fn(&Compared, Head) -> f32;
    let scores: [(&str, Score); 3] = [
        ("patching minus the notebook's figure", |c, head| c.exact_of(head) - c.literal_of(head)),
        ("the notebook's figure", Compared::literal_of),
        ("activation patching", Compared::exact_of),
    ];
    let printed = [ZERO_ABLATION.map(Some), MEAN_ABLATION];
    if study.of_notebook.is_empty() {
        page.text("The notebook's regressions are left out: no head is an outlier by the notebook's rule.");
        return;
    }
    page.text(
        "The notebook's regressions, over the outlier heads of the notebook's rule. The notebook's figure is not \
         scaled by 1e5 here. The printed correlations have no verdict, because they are for the notebook's 10,000 \
         prompts, which are not available. In \"patching minus the notebook's figure\" the figure is about a millionth \
         of patching, so that regression is the regression on patching alone.",
    );
    let mut rows = Vec::new();
    for (i, (by, printed)) in INTERVENTIONS.iter().zip(printed).enumerate() {
        let charts = scores.iter().zip(printed).map(|((what, score), printed)| {
            let points: Vec<_> = study
                .of_notebook
                .iter()
                .filter_map(|&head| {
                    let (x, y) = (score(&found.compared, head), study.change(i, head)?);
                    Some(charts::Point { x, y, layer: head.layer, name: head.to_string() })
                })
                .collect();
            let (x, y): (Vec<f32>, Vec<f32>) = points.iter().map(|p| (p.x, p.y)).unzip();
            let r = pearson(x.iter().copied().zip(y.iter().copied()));
            let number = |r: Option<f64>| r.map_or("-".to_owned(), |r| format!("{r:.4}"));
            let mut row = vec![(*by).to_owned(), (*what).to_owned(), number(r)];
            row.extend(source.is_gpt2_small().then(|| number(printed)));
            rows.push(row);
            let title = format!("{by} ablation: {what} (Pearson {})", number(r));
            charts::scatter_with(&title, &points, [what, "change of the share right"], &least_squares(&x, &y))
        });
        page.row(charts.collect());
    }
    let mut header = vec!["ablation", "scores", "Pearson"];
    header.extend(source.is_gpt2_small().then_some("printed"));
    page.table(&header, rows);
}
