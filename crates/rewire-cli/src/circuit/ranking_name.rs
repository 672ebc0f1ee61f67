//! The names of rankings of edges on the command line.

use clap::ValueEnum;
use rewire_circuits::Ranking;

/// How edges are ranked, as a flag names it.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum RankingName {
    Absolute,
    Signed,
}

impl RankingName {
    /// Returns the ranking.
    pub(crate) fn ranking(self) -> Ranking {
        match self {
            RankingName::Absolute => Ranking::Absolute,
            RankingName::Signed => Ranking::Signed,
        }
    }
}
