//! The results on each set of pairs, with standard errors and intervals.

use std::ops::Deref;

use rewire_analysis::edges::VerifiedEdges;
use rewire_analysis::stats::{Proportion, pearson};
use rewire_studies::Check;
use rewire_studies::ioi::{DIRECTIONS, Demo, Findings, HeadEffect, Noising};
use serde_json::{Value, json};

use rewire_report::names::head_name;
use rewire_report::numbers::{number, signed};
use rewire_report::{Certainty, Columns, describe_clusters};

/// Number of heads in a table.
pub(super) const TOP: usize = 10;

/// The results that the report needs.
pub(super) struct Found {
    pub(super) demo: Demo,
    /// The results on the demo's prompts and, if there are any, on the generated prompts.
    pub(super) sets: Vec<Set>,
    /// Estimates of all edges and exact effects, on the demo's pairs.
    pub(super) edges: VerifiedEdges,
    pub(super) checks: Vec<Check>,
    /// Warnings, one line each.
    pub(super) warnings: Vec<String>,
}

/// The effects of the heads' outputs on one set of pairs.
pub(super) struct Set {
    found: Findings,
    /// Standard errors, intervals and p-values of the exact effects, by direction.
    pub(super) certainty: Vec<Certainty>,
}

impl Deref for Set {
    type Target = Findings;

    fn deref(&self) -> &Findings {
        &self.found
    }
}

impl Set {
    pub(super) fn new(found: Findings, seed: u64) -> Self {
        let clusters = found.pairs.clusters();
        let certainty =
            found.outcomes.iter().map(|[exact, _]| Certainty::new(&exact.effects[0], &clusters, seed)).collect();
        Self { found, certainty }
    }

    /// Returns on how many clean prompts the logit of the right name is above that of the wrong
    /// one.
    pub(super) fn right(&self) -> Proportion {
        Proportion::of(self.outcomes[0][0].baselines.clean.iter().map(|difference| *difference > 0.0))
    }

    /// Returns header and rows of a table of the `n` heads of largest exact effect.
    pub(super) fn table(&self, direction: usize, n: usize) -> (Vec<String>, Vec<Vec<String>>) {
        let heads = self.heads(direction);
        let heads = &heads[..n.min(heads.len())];
        let certainty = &self.certainty[direction];
        let places: Vec<Vec<usize>> = heads.iter().map(|h| vec![h.layer, h.head]).collect();
        let Columns { header, rows } = certainty.columns(&self.outcomes[direction][0].effects[0], &places);
        let row = |((head, place), sure): ((&HeadEffect, &Vec<usize>), Vec<String>)| {
            let HeadEffect { layer, head, exact, attribution } = *head;
            let name = certainty.marked(head_name(layer, head), place);
            let estimate = [number(attribution), signed(attribution - exact)];
            [name, number(exact)].into_iter().chain(sure).chain(estimate).collect()
        };
        let rows = heads.iter().zip(&places).zip(rows).map(row).collect();
        let [first, last] =
            [["head", "exact (share)"], ["attribution (share)", "error (share)"]].map(|names| names.map(str::to_owned));
        (first.into_iter().chain(header).chain(last).collect(), rows)
    }

    /// Returns the reason why noising has no table, or `None` if it has one.
    pub(super) fn noising_in_words(&self) -> Option<String> {
        match self.noising {
            Noising::Apart => None,
            Noising::MinusDenoising(difference) => {
                let how = match difference {
                    0.0 => "exactly, for every prompt and head".to_owned(),
                    _ => format!("to within {difference:.1e}, for every prompt and head"),
                };
                Some(format!(
                    "Noising has no table: it is minus denoising, {how}. The set holds every pair's mirror, and the \
                     metric changes its sign on the mirror."
                ))
            }
        }
    }

    /// Describes the uncertainty of the exact effects for `effects.json`.
    pub(super) fn describe_certainty(&self, seed: u64) -> Value {
        let table = |(direction, certainty): (usize, &Certainty)| {
            let effects = &self.outcomes[direction][0].effects[0];
            (DIRECTIONS[direction].to_string(), certainty.describe(effects, |place| head_name(place[0], place[1])))
        };
        let mut described = describe_clusters(&self.pairs.clusters(), seed);
        described["head_z"] = self.certainty.iter().enumerate().map(table).collect();
        described["noising_is_minus_denoising"] = json!(self.noising != Noising::Apart);
        described
    }
}

pub(super) fn correlation(heads: &[HeadEffect]) -> Option<f64> {
    pearson(heads.iter().map(|h| (h.exact, h.attribution)))
}
