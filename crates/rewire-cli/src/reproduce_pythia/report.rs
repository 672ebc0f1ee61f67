//! The study's report, in the notebook's order.

mod circuit;
mod direct;
mod maps;
mod senders;

use rewire_report::Page;
use rewire_studies::Check;

use super::arguments::Arguments;
use super::shown::Found;
use crate::model::Source;
use crate::notices::new_page;
use crate::session::Session;
use maps::Maps;
use rewire_report::names::numbered;

pub(super) fn page(
    session: &Session,
    source: &Source,
    found: &Found,
    checks: &[Check],
    arguments: &Arguments,
    warnings: &[String],
) -> Page {
    let title = "The circuit for indirect object identification";
    let mut page = new_page(title, &source.subtitle(session.device()), session, source, warnings);
    let maps = Maps { layers: numbered("L", source.config.n_layers), heads: numbered("H", source.config.n_heads) };
    circuit::summary(&mut page, source, found);
    if !checks.is_empty() {
        page.section(
            "The notebook's figures",
            "These figures are measured on the notebook's own 70 prompts (seed 42; seed 1234 for S2-inhibition; no \
             BOS), drawn again from the notebook's generator. A figure agrees if it equals the printed figure to its \
             last digit, up to float32 rounding.",
        );
        page.table(&Check::HEADER, checks.iter().map(Check::row).collect());
    }
    direct::performance(&mut page, found);
    direct::parts(&mut page, found, &maps);
    direct::effects(&mut page, found, &maps, arguments);
    direct::movers(&mut page, found, &maps);
    direct::suppression(&mut page, found, &maps);
    direct::backups(&mut page, found, &maps);
    senders::queries(&mut page, found, &maps, arguments);
    senders::inhibition(&mut page, found);
    senders::direct_values(&mut page, found, &maps, arguments);
    senders::values(&mut page, found, &maps, arguments);
    senders::keys(&mut page, found, &maps, arguments);
    circuit::paths(&mut page, found);
    circuit::members(&mut page, found);
    circuit::faithfulness(&mut page, found);
    if source.is_gpt2_small() {
        circuit::published(&mut page, found);
    }
    circuit::reading(&mut page, source);
    page
}
