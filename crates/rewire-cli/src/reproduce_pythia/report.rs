//! The study's report: the finding, how to read it, the circuit, exact effects with the estimates
//! beside them, checks, and details.

mod circuit;
mod direct;
mod maps;
mod movers;
mod senders;

use rewire_report::Page;
use rewire_studies::Check;

use super::arguments::Arguments;
use super::shown::Found;
use crate::finding::{Finding, reading};
use crate::model::Source;
use crate::session::Session;
use maps::Maps;
use rewire_report::names::numbered;

pub(super) fn page(
    session: &Session,
    source: &Source,
    found: &Found,
    finding: &Finding,
    checks: &[Check],
    arguments: &Arguments,
    warnings: &[String],
) -> Page {
    let title = "The circuit for indirect object identification";
    let mut page = finding.page(title, &source.subtitle(session.device()), warnings);
    let lead = "Which heads make the model name the right person? Effects of path patching are changes of the logit \
                difference on the clean run, as a share of the clean-corrupted difference: an effect of -1 gives the \
                corrupted logit difference. There, below 0 serves the behavior. In patching of the parts of heads \
                and in direct logit attribution, above 0 does. Blue serves the behavior in all maps of effects.";
    reading(&mut page, session, source, lead);
    task(&mut page, source, found);
    let maps = Maps { layers: numbered("L", source.config.n_layers), heads: numbered("H", source.config.n_heads) };
    circuit::section(&mut page, source, found);
    direct::parts(&mut page, found, &maps);
    direct::effects(&mut page, found, &maps, arguments);
    senders::queries(&mut page, found, &maps, arguments);
    senders::values(&mut page, found, &maps, arguments);
    senders::keys(&mut page, found, &maps, arguments);
    circuit::paths(&mut page, found);
    if !checks.is_empty() {
        page.section(
            "The notebook's figures",
            "The figures that the notebook prints, and ours, measured on the notebook's own 70 prompts (seed 42; seed \
             1234 for S2-inhibition; no BOS), drawn again from the notebook's generator. A figure agrees if it equals \
             the printed figure to its last digit, up to float32 rounding.",
        );
        page.table(&Check::HEADER, checks.iter().map(Check::row).collect());
    }
    if source.is_gpt2_small() {
        circuit::published(&mut page, found);
    }
    movers::movers(&mut page, found, &maps);
    movers::backups_and_suppression(&mut page, found, &maps);
    page
}

/// Adds the task, the prompts and the classes of heads to the reading guide.
fn task(page: &mut Page, source: &Source, found: &Found) {
    page.text(
        "The task. A clean prompt names two people and repeats one of the names, the subject (S1, then S2). The right \
         answer is the other name, the indirect object (IO). Corrupted prompts have IO in place of S2, so the right \
         answer becomes S and the corrupted logit difference is negative. The notebook calls this corruption ABC, but \
         ABC prompts have three different names. The logit difference is the logit of IO minus the logit of S at the \
         last token (END).",
    );
    let [clean, corrupted] = found.parts.baselines.means();
    let right = found.right_answers();
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    page.table(
        &["", "value"],
        vec![
            row("prompts", found.data.pairs.len().to_string()),
            row("BOS token in front of each prompt", if found.data.has_bos { "yes" } else { "no" }.to_owned()),
            row("clean logit difference (logits)", format!("{clean:.4}")),
            row("corrupted logit difference (logits)", format!("{corrupted:.4}")),
            row("right on clean prompts (logit of IO above that of S)", format!("{} of {}", right.successes, right.n)),
        ],
    );
    let (prompt, _) = found.shown;
    let text = found.data.pairs.labels(prompt).concat();
    page.text(&format!("Prompt {prompt}: {}", text.trim_start_matches("<|endoftext|>")));
    page.text(
        "The class of a head depends on the step that finds it and on its attention (more than a tenth of the \
         destination's attention, mean over prompts). S-inhibition: from END to S2, and less to IO and to S1. \
         Duplicate token: from S2 to S1. Induction: from S2 to the token after S1. Previous token: from the token \
         after S1 to S1. A backup adds more to the logits after the movers are set to zero. A head may have several \
         classes.",
    );
    if !source.is_processed() {
        page.text(
            "Weights are not processed. Copy scores without norms therefore leave out the gains of the head's norm and \
             of the final norm.",
        );
    }
}
