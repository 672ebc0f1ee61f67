//! Errors, intervals and p-values of mean effects, as table columns, as text, and as JSON.

use ndarray::ArrayD;
use rewire_analysis::Effects;
use rewire_analysis::stats::{Bootstrap, Family, IntervalKind, SignFlips};
use rewire_tasks::Clusters;
use serde_json::{Value, json};

use crate::numbers::{interval, number};

/// Most nodes beyond the family-wise threshold that `effects.json` names.
const NAMED: usize = 100;
/// The definition of a cluster, as text.
const CLUSTERS_ARE: &str = "pairs of the same two prompts, in either order";

/// Errors, intervals and p-values of the mean effects of one kind of node. Methods take the effects
/// that [`new`](Self::new) was given.
pub struct Certainty {
    clusters: Clusters,
    seed: u64,
    /// Kind of the intervals; none with fewer than two clusters.
    kind: Option<IntervalKind>,
    family: Option<Family>,
}

/// Columns for a table of nodes: errors, intervals and p-values of their effects.
pub struct Columns {
    /// Names of the columns.
    pub header: Vec<String>,
    /// One row per node.
    pub rows: Vec<Vec<String>>,
}

impl Certainty {
    /// Creates the certainty of effects over prompts in these clusters. `seed` is the seed of the
    /// bootstrap and of the sign flips.
    #[must_use]
    pub fn new(effects: &Effects, clusters: &Clusters, seed: u64) -> Self {
        Self {
            clusters: clusters.clone(),
            seed,
            kind: IntervalKind::of(clusters, bootstrap(seed)),
            family: effects.family(clusters, SignFlips { seed, ..SignFlips::default() }),
        }
    }

    /// Returns the lower and upper ends of the intervals of nodes, in the unit of the effects, or
    /// `None` with fewer than two clusters. `places` are indices along the axes of the kind, layer
    /// first. The ends are NaN for a node at a position that too few prompts have.
    #[must_use]
    pub fn ends(&self, effects: &Effects, places: &[Vec<usize>]) -> Option<Vec<[f32; 2]>> {
        self.kind?;
        Some(places.iter().map(|place| self.of_node(effects, place).interval).collect())
    }

    /// Returns standard errors, intervals and p-values of nodes. There are no columns with fewer
    /// than two clusters.
    #[must_use]
    pub fn columns(&self, effects: &Effects, places: &[Vec<usize>]) -> Columns {
        let Some(kind) = self.kind else { return Columns { header: Vec::new(), rows: vec![Vec::new(); places.len()] } };
        // With few clusters, the interval by Student's t is shown next to the range.
        let by_t = matches!(kind, IntervalKind::Range { .. });
        let row = |place: &Vec<usize>| {
            let node = self.of_node(effects, place);
            let p = self.family.as_ref().map_or("-".to_owned(), |family| p(family.p_values[place.as_slice()]));
            let by_t = by_t.then(|| interval(node.by_t));
            [number(node.error), interval(node.interval)].into_iter().chain(by_t).chain([p]).collect()
        };
        let by_t_name = by_t.then(|| "95% by Student's t".to_owned());
        let header = ["std. error".to_owned(), kind.to_string()].into_iter().chain(by_t_name);
        Columns { header: header.chain(["family-wise p".to_owned()]).collect(), rows: places.iter().map(row).collect() }
    }

    /// Returns the certainty of one node's mean, over the prompts that have its position.
    fn of_node(&self, effects: &Effects, place: &[usize]) -> NodeCertainty {
        let (node, clusters) = effects.node(place, &self.clusters);
        let intervals = node.intervals(&clusters, bootstrap(self.seed));
        let by_t = node.t_interval(&clusters, LEVEL);
        NodeCertainty {
            error: node.standard_error(&clusters).map_or(f32::NAN, |error| error[[0]]),
            interval: intervals.map_or([f32::NAN; 2], |found| [found.low[[0]], found.high[[0]]]),
            by_t: by_t.map_or([f32::NAN; 2], |ends| ends.map(|end| end[[0]])),
        }
    }

    /// Returns the node's name, with a star if its effect is beyond the family-wise threshold.
    #[must_use]
    pub fn marked(&self, name: String, place: &[usize]) -> String {
        let is_beyond = self.family.as_ref().is_some_and(|family| family.is_beyond(place));
        if is_beyond { format!("{name} *") } else { name }
    }

    /// Returns text on which prompts errors and intervals are over, and on the meaning of the star.
    #[must_use]
    pub fn in_words(&self) -> String {
        let (prompts, clusters) = (count(self.clusters.prompts(), "prompt"), count(self.clusters.len(), "cluster"));
        let over = match (self.clusters.prompts(), self.clusters.len()) {
            (1, _) => return "One prompt pair has no standard error.".to_owned(),
            (_, 1) => return format!("All {prompts} are one cluster ({CLUSTERS_ARE}), which has no standard error."),
            (all, apart) if all == apart => {
                format!("Standard errors and intervals are over {prompts}; none mirrors or repeats another.")
            }
            _ => format!(
                "Standard errors and intervals are over {clusters} of {prompts}; a cluster holds {CLUSTERS_ARE}."
            ),
        };
        match &self.family {
            Some(family) => format!("{over} {}", compared(family)),
            None => over,
        }
    }

    /// Returns one sentence on how sure the effects are, for the finding of a report.
    #[must_use]
    pub fn in_short(&self) -> String {
        let (prompts, clusters) = (self.clusters.prompts(), self.clusters.len());
        let pairs = count(prompts, "prompt pair");
        let over =
            if prompts == clusters { pairs.clone() } else { format!("{} of {pairs}", count(clusters, "cluster")) };
        match (prompts, clusters, &self.family) {
            (1, ..) => "Only one prompt pair was measured; other prompts may give other effects.".to_owned(),
            (_, 1, _) => {
                format!("All {pairs} are one cluster ({CLUSTERS_ARE}); other prompts may give other effects.")
            }
            (.., None) => format!("The effects are means over {over}."),
            (.., Some(family)) => match family.threshold {
                None => format!(
                    "The effects are means over {over}, which are too few to test {} for significance.",
                    count(family.compared, "node")
                ),
                Some(_) => format!(
                    "The effects are means over {over}; {} of {} passed the family-wise {}% threshold.",
                    family.beyond(),
                    count(family.compared, "compared node"),
                    100.0 * family.level
                ),
            },
        }
    }

    /// Returns the intervals and the family-wise test for `effects.json`. `name` names a node.
    #[must_use]
    pub fn describe(&self, effects: &Effects, name: impl Fn(&[usize]) -> String) -> Value {
        let family = self.family.as_ref().map(|family| {
            let mean = effects.mean();
            let places = family.p_values.indexed_iter().map(|(place, _)| ndarray::Dimension::slice(&place).to_vec());
            let mut beyond: Vec<Vec<usize>> = places.filter(|place| family.is_beyond(place)).collect();
            beyond.sort_by(|a, b| mean[b.as_slice()].abs().total_cmp(&mean[a.as_slice()].abs()));
            json!({
                "method": "single-step max T by sign flips of clusters (Westfall and Young 1993)",
                "level": family.level,
                "nodes_compared": family.compared,
                "flips": family.flips,
                "all_flips": family.all_flips,
                "smallest_p": family.smallest_p(),
                "threshold_in_standard_errors": family.threshold,
                "nodes_beyond": beyond.len(),
                "largest_beyond": beyond.iter().take(NAMED).map(|place| name(place)).collect::<Vec<_>>(),
            })
        });
        json!({ "intervals": self.kind.map(|kind| kind.to_string()), "family_wise": family })
    }

    /// Returns standard errors, lower and upper ends and p-values of all nodes, each with the
    /// suffix of its table's name.
    #[must_use]
    pub fn tables(&self, effects: &Effects) -> Vec<(&'static str, ArrayD<f32>)> {
        let found = effects.intervals(&self.clusters, bootstrap(self.seed));
        let [low, high] = found.map_or([None, None], |found| [Some(found.low), Some(found.high)]);
        let p_values = self.family.as_ref().map(|family| family.p_values.clone());
        let error = effects.standard_error(&self.clusters);
        [("standard_error", error), ("low", low), ("high", high), ("family_wise_p", p_values)]
            .into_iter()
            .filter_map(|(name, values)| values.map(|values| (name, values)))
            .collect()
    }

    /// Returns the lower and the upper ends of the intervals of all nodes, in the shape of the mean
    /// effects, or `None` with fewer than two clusters. This resamples all nodes and may take long.
    #[must_use]
    pub fn all_ends(&self, effects: &Effects) -> Option<[ArrayD<f32>; 2]> {
        let found = effects.intervals(&self.clusters, bootstrap(self.seed))?;
        Some([found.low, found.high])
    }

    /// Returns the name of the intervals, such as `95% interval`, or `None` with fewer than two
    /// clusters.
    #[must_use]
    pub fn interval_name(&self) -> Option<String> {
        self.kind.map(|kind| kind.to_string())
    }
}

/// Certainty of one node's mean; NaN if too few prompts have the node.
struct NodeCertainty {
    error: f32,
    interval: [f32; 2],
    /// Interval by Student's t.
    by_t: [f32; 2],
}

/// Level of the intervals by Student's t and by the bootstrap.
const LEVEL: f64 = 0.95;

fn bootstrap(seed: u64) -> Bootstrap {
    Bootstrap { level: LEVEL, seed, ..Bootstrap::default() }
}

/// Returns the clusters of a set of prompts for `effects.json`, with the bootstrap if there are
/// enough clusters.
#[must_use]
pub fn describe_clusters(clusters: &Clusters, seed: u64) -> Value {
    let mut described = json!({
        "prompts": clusters.prompts(),
        "clusters": clusters.len(),
        "clusters_are": CLUSTERS_ARE,
        "cluster_of_prompt": clusters.of(),
    });
    if clusters.len() >= rewire_analysis::stats::FEWEST_FOR_BOOTSTRAP {
        let Bootstrap { level, resamples, seed } = bootstrap(seed);
        described["bootstrap"] = json!({ "level": level, "resamples": resamples, "seed": seed });
    }
    described
}

/// Returns text on how many nodes were compared, and on the threshold of the star.
fn compared(family: &Family) -> String {
    let percent = 100.0 * family.level;
    let nodes = count(family.compared, "node");
    match family.threshold {
        None => format!(
            "{nodes} compared: {} are too few for a family-wise {percent}% threshold, because no p-value can be below {}.",
            count(family.clusters, "cluster"),
            family.smallest_p()
        ),
        Some(threshold) => format!(
            "{nodes} compared; a star marks the {} beyond the family-wise {percent}% threshold of {threshold:.2} standard errors (max \
             T over {}{} sign flips of clusters).",
            family.beyond(),
            if family.all_flips { "all " } else { "" },
            family.flips
        ),
    }
}

/// Returns a count with its noun: `1 prompt`, `8 prompts`.
fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn p(value: f32) -> String {
    if value < 0.001 { "< 0.001".to_owned() } else { format!("{value:.3}") }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use rewire_analysis::node::{Component, NodeKind};

    use super::*;

    /// Returns effects of two heads on `prompts` prompts. Only head 0 has a consistent effect.
    fn effects(prompts: usize) -> Effects {
        let value = |(prompt, _, head): (usize, usize, usize)| match head {
            0 => 1.0 + 0.01 * prompt as f32,
            _ => [0.3, -0.3, 0.1][prompt % 3],
        };
        let values = Array3::from_shape_fn((prompts, 1, 2), value).into_dyn();
        Effects::new(NodeKind::all(Component::HeadZ), values, Vec::new())
    }

    #[test]
    fn few_clusters_get_a_range_and_no_threshold() {
        let effects = effects(8);
        let sure = Certainty::new(&effects, &Clusters::by([0, 0, 1, 1, 2, 2, 3, 3]), 0);
        let Columns { header, rows } = sure.columns(&effects, &[vec![0, 0]]);
        assert_eq!(header, ["std. error", "range of 4 clusters", "95% by Student's t", "family-wise p"]);
        // By hand: cluster means 1.005, 1.025, 1.045, 1.065.
        assert_eq!(rows, [["0.0129", "1.0050 to 1.0650", "0.9939 to 1.0761", "0.125"]]);
        assert_eq!(sure.marked("L0H0".to_owned(), &[0, 0]), "L0H0");
        let words = sure.in_words();
        for part in ["over 4 clusters of 8 prompts", "2 nodes compared: 4 clusters are too few", "below 0.125"] {
            assert!(words.contains(part), "{words}");
        }
        let short = "The effects are means over 4 clusters of 8 prompt pairs, which are too few to test 2 nodes";
        assert!(sure.in_short().starts_with(short), "{}", sure.in_short());
        let [low, high] = sure.all_ends(&effects).unwrap();
        assert_eq!([low[[0, 0]], high[[0, 0]]], sure.ends(&effects, &[vec![0, 0]]).unwrap()[0]);
        let described = describe_clusters(&sure.clusters, 0);
        assert_eq!([&described["prompts"], &described["clusters"]], [8, 4]);
        assert_eq!(described.get("bootstrap"), None);
    }

    #[test]
    fn significant_nodes_are_starred_and_named() {
        let (effects, clusters) = (effects(8), Clusters::each(8));
        let sure = Certainty::new(&effects, &clusters, 7);
        assert_eq!(sure.columns(&effects, &[]).header, ["std. error", "95% interval", "family-wise p"]);
        assert_eq!(sure.marked("L0H0".to_owned(), &[0, 0]), "L0H0 *");
        assert_eq!(sure.marked("L0H1".to_owned(), &[0, 1]), "L0H1");
        assert!(sure.in_words().contains("2 nodes compared; a star marks the 1 beyond"), "{}", sure.in_words());
        let short =
            "The effects are means over 8 prompt pairs; 1 of 2 compared nodes passed the family-wise 5% threshold.";
        assert_eq!(sure.in_short(), short);
        let described = sure.describe(&effects, |place| format!("H{}", place[1]));
        assert_eq!(described["family_wise"]["largest_beyond"], json!(["H0"]));
        assert_eq!(described["family_wise"]["nodes_compared"], 2);
        assert_eq!(describe_clusters(&clusters, 7)["bootstrap"]["seed"], 7);
    }

    #[test]
    fn one_cluster_has_no_error_columns_and_the_reason_is_printed() {
        let effects = effects(2);
        let sure = Certainty::new(&effects, &Clusters::by([0, 0]), 0);
        let Columns { header, rows } = sure.columns(&effects, &[vec![0, 0]]);
        assert!(header.is_empty() && rows == [[""; 0]]);
        assert!(sure.in_words().starts_with("All 2 prompts are one cluster"), "{}", sure.in_words());
    }

    #[test]
    fn intervals_follow_the_seed() {
        let effects = effects(30);
        let ends = |seed| Certainty::new(&effects, &Clusters::each(30), seed).ends(&effects, &[vec![0, 0]]);
        assert_eq!(ends(3), ends(3));
        assert_ne!(ends(3), ends(4));
    }
}
