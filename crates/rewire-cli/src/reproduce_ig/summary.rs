//! The summary that the command prints.

use rewire_analysis::integrated::Integrated;
use rewire_report::names::counted;
use rewire_studies::Check;
use rewire_studies::integrated_gradients::{Averaged, BASELINES, Compared, Lines, asides};

use super::arguments::Arguments;
use super::results::{
    ACCURACY, ASIDES, AVERAGED, COMPARISON, accuracy_rows, aside_rows, averaged_rows, comparison_rows,
};
use super::shown::Shown;
use crate::in_words::right_on;
use crate::model::Source;
use crate::output::text_table;
use crate::session::Session;

/// Returns the text of the summary: the finding, then the tables.
pub(super) fn summary(session: &Session, source: &Source, shown: &Shown, arguments: &Arguments) -> String {
    let Shown { found, checks, .. } = shown;
    let compared = &found.compared;
    let [clean, corrupted] = compared.logit_differences();
    let mut text = shown.finding.on_screen();
    text += &format!("{} on {}\n", source.name, session.device());
    text += &format!("clean logit difference {clean:.4}, corrupted {corrupted:.4} (logits)\n\n");
    text += "attributions compared with activation patching (\"notebook's\": one gradient near the clean activation, \
             not integrated gradients); no unit, each method scaled by its largest score\n";
    text += &text_table(&COMPARISON, &comparison_rows(found));
    text += &gaps(compared);
    if let Some(averaged) = &found.averaged {
        text += &over_pairs(averaged);
    }
    if let Some(study) = &found.study {
        text += &format!("\n{}, seed {}\n", right_on(study.whole.said, "generated prompt"), arguments.seed);
        if study.means_nothing() {
            text += "the model never gets the task right: the accuracies below mean nothing\n";
        }
        text += &text_table(&ACCURACY, &accuracy_rows(study));
    }
    if !checks.is_empty() {
        text += "\ncompared with the figures that the notebook prints\n";
        text += &text_table(&Check::HEADER, &checks.iter().map(Check::row).collect::<Vec<_>>());
        text += "\nfigures from the table of heads that the notebook's code does not reproduce\n";
        text += &text_table(&ASIDES, &aside_rows(&asides(compared)));
    }
    text
}

/// Returns one line per baseline with the largest completeness gaps.
fn gaps(compared: &Compared) -> String {
    let worst = |integrated: &Integrated| {
        let gaps = integrated.completeness.iter().flat_map(|c| c.gap.iter().zip(&c.change));
        gaps.fold([0.0_f32; 2], |[gap, change], (g, c)| [gap.max(g.abs()), change.max(c.abs())])
    };
    let line = |(baseline, lines): (&&str, &Lines)| {
        let [gap, change] = worst(&lines.integrated);
        let [literal, _] = worst(&lines.literal);
        format!(
            "{baseline} baseline, in logits: largest change of the metric {change:.3}, largest completeness gap \
             {gap:.1e} (gap of the notebook's figure: {literal:.3})\n"
        )
    };
    BASELINES.iter().zip(&compared.lines).map(line).collect()
}

/// Returns the correlations over the generated pairs.
fn over_pairs(averaged: &Averaged) -> String {
    let mut text = format!(
        "\ncorrelation with activation patching over {}, corrupted baseline, seed {}: mean (95% \
         bootstrap interval)\n",
        counted(averaged.n, "generated pair"),
        averaged.seed
    );
    text += &text_table(&AVERAGED, &averaged_rows(averaged));
    text + &[0, 1].map(|kind| format!("{}\n", averaged.conclusion(kind))).concat()
}
