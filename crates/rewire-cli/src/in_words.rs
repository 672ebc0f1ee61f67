//! Numbers and comparisons in words, for the sentences and tables of the reproductions.

use rewire_analysis::stats::{Proportion, pearson, regression};
use rewire_report::names::counted;

/// Smallest absolute effect at which a node counts in a sentence, as a share of the clean minus
/// corrupted metric.
pub(crate) const COUNTS: f32 = 0.05;
/// Errors below this may be float32 rounding.
const NOISE: f32 = 1e-5;
/// Number of nodes that a sentence names before it counts the others.
const NAMED: usize = 3;
/// Correlations from which an estimate is close to the exact effects, and from which it is roughly
/// right.
const CLOSE: f64 = 0.9;
const ROUGH: f64 = 0.5;

/// Formats a share as a percentage with its sign: `+42%`, `-3.1%`.
pub(crate) fn percent(share: f32) -> String {
    match (100.0 * share, share.abs()) {
        (percent, size) if size.is_nan() || size >= 0.0995 => format!("{percent:+.0}%"),
        (_, 0.0) => "0%".to_owned(),
        (_, size) if size < 5e-4 => "less than 0.1%".to_owned(),
        (percent, _) => format!("{percent:+.1}%"),
    }
}

/// Returns `right on 9 of 10 clean prompts`; `what` names the prompts in the singular.
pub(crate) fn right_on(right: Proportion, what: &str) -> String {
    format!("right on {} of {}", right.successes, counted(right.n, what))
}

/// Returns the first names and the number of the others: `A`, `A and B`, `A, B, C and 4 more`.
pub(crate) fn list(names: &[String]) -> String {
    let (first, others) = names.split_at(names.len().min(NAMED));
    match (first, others.len()) {
        ([], _) => "none".to_owned(),
        ([one], _) => one.clone(),
        ([most @ .., last], 0) => format!("{} and {last}", most.join(", ")),
        (most, more) => format!("{} and {more} more", most.join(", ")),
    }
}

/// A node with its effect, as a share of the clean minus corrupted metric.
pub(crate) type NamedEffect = (String, f32);

/// Returns which nodes have an effect of at least [`COUNTS`]. `nodes` is their noun in the plural,
/// `one` in the singular, and `when` says what was done to them. Largest first.
pub(crate) fn standing_out(effects: &[NamedEffect], [one, nodes]: [&str; 2], when: &str) -> String {
    let least = format!("{:.0}%", 100.0 * COUNTS);
    let named = |(name, effect): &NamedEffect| format!("{name} ({})", percent(*effect));
    let mut sorted: Vec<&NamedEffect> = effects.iter().collect();
    sorted.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let counting: Vec<String> =
        sorted.iter().copied().filter(|(_, effect)| effect.abs() >= COUNTS).map(named).collect();
    let change = format!("the logit difference by {least} or more of the clean-corrupted difference {when}");
    match (counting.len(), sorted.first().copied()) {
        (0, Some(largest)) if largest.1 != 0.0 => {
            format!("No {one} changes {change}; the largest effect is at {}.", named(largest))
        }
        (0, _) => format!("No {one} changes {change}; every effect is 0."),
        (1, _) => format!("One of {} {nodes} changes {change}: {}.", effects.len(), counting[0]),
        (n, _) => format!("{n} of {} {nodes} change {change}: {}.", effects.len(), list(&counting)),
    }
}

/// A node with its exact effect and a cheaper estimate, both as shares of the clean minus corrupted
/// metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Estimated {
    pub(crate) name: String,
    pub(crate) exact: f32,
    pub(crate) estimate: f32,
}

impl Estimated {
    fn error(&self) -> f32 {
        self.estimate - self.exact
    }
}

/// Returns how far estimates are from the exact effects, without a full stop: the correlation, the
/// largest error, and the nodes that are wrong by [`COUNTS`] or more.
pub(crate) fn how_far(method: &str, [one, nodes]: [&str; 2], all: &[Estimated]) -> String {
    let mut sorted: Vec<&Estimated> = all.iter().collect();
    sorted.sort_by(|a, b| b.error().abs().total_cmp(&a.error().abs()));
    let Some(worst) = sorted.first() else { return format!("{method} has no {one} to compare") };
    let compared = format!("{} {}", all.len(), if all.len() == 1 { one } else { nodes });
    let follows = match pearson(all.iter().map(|node| (node.exact, node.estimate))) {
        Some(r) => {
            let verb = match r {
                r if r >= CLOSE => "is close to",
                r if r >= ROUGH => "roughly follows",
                _ => "does not follow",
            };
            format!("{method} {verb} the exact effects of {compared} (Pearson correlation {r:.3})")
        }
        None => format!("{method} has no correlation with the exact effects of {compared}"),
    };
    if worst.error().abs() < NOISE {
        return format!("{follows}, with no error of {NOISE:e} or more");
    }
    let largest = format!(
        "its largest error is at {} (estimate {}, exact {})",
        worst.name,
        percent(worst.estimate),
        percent(worst.exact)
    );
    let wrong: Vec<String> =
        sorted.iter().filter(|node| node.error().abs() >= COUNTS).map(|node| node.name.clone()).collect();
    let least = format!("{:.0}%", 100.0 * COUNTS);
    match wrong.as_slice() {
        [] => format!("{follows}; {largest}, and no {one} is off by {least} or more"),
        wrong => format!("{follows}; {largest}, and it is off by {least} or more at {}", list(wrong)),
    }
}

/// Returns the estimates scaled to the exact effects by least squares, for an estimate in another
/// unit. The scale has no sign: an estimate that runs against the exact effects still does so.
/// Without a least-squares line the estimates stay as they are.
pub(crate) fn scaled(nodes: Vec<Estimated>) -> Vec<Estimated> {
    let Some([slope, _]) = regression(nodes.iter().map(|node| (node.estimate, node.exact))) else { return nodes };
    let mean =
        |of: fn(&Estimated) -> f32| nodes.iter().map(|node| f64::from(of(node))).sum::<f64>() / nodes.len() as f64;
    let [exact, estimate] = [mean(|node| node.exact), mean(|node| node.estimate)];
    let fit = |value: f32| (exact + slope.abs() * (f64::from(value) - estimate)) as f32;
    nodes.into_iter().map(|node| Estimated { estimate: fit(node.estimate), ..node }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, exact: f32, estimate: f32) -> Estimated {
        Estimated { name: name.to_owned(), exact, estimate }
    }

    #[test]
    fn lists_name_three_and_count_the_others() {
        let names = |n: usize| list(&(0..n).map(|i| format!("H{i}")).collect::<Vec<_>>());
        assert_eq!([0, 1, 2, 3, 5].map(names), ["none", "H0", "H0 and H1", "H0, H1 and H2", "H0, H1, H2 and 2 more"]);
    }

    #[test]
    fn right_answers_are_counted() {
        assert_eq!(right_on(Proportion { successes: 9, n: 10 }, "clean prompt"), "right on 9 of 10 clean prompts");
        assert_eq!(right_on(Proportion { successes: 0, n: 1 }, "clean prompt"), "right on 0 of 1 clean prompt");
    }

    #[test]
    fn nodes_that_stand_out_are_named_largest_first() {
        let effects = |values: &[f32]| {
            values.iter().enumerate().map(|(i, v)| (format!("L0H{i}"), *v)).collect::<Vec<NamedEffect>>()
        };
        let says = |values: &[f32]| standing_out(&effects(values), ["head", "heads"], "when patched");
        let change = "the logit difference by 5% or more of the clean-corrupted difference when patched";
        assert_eq!(says(&[0.1, -0.4, 0.01]), format!("2 of 3 heads change {change}: L0H1 (-40%) and L0H0 (+10%)."));
        assert_eq!(says(&[0.1, 0.0]), format!("One of 2 heads changes {change}: L0H0 (+10%)."));
        assert_eq!(says(&[0.0, 0.03]), format!("No head changes {change}; the largest effect is at L0H1 (+3.0%)."));
        assert_eq!(says(&[0.0]), format!("No head changes {change}; every effect is 0."));
        assert_eq!(says(&[]), format!("No head changes {change}; every effect is 0."));
    }

    #[test]
    fn estimates_are_judged_by_correlation_and_by_their_errors() {
        let says = |nodes: &[Estimated]| how_far("Attribution", ["head", "heads"], nodes);
        let good = [node("A", 0.5, 0.48), node("B", 0.1, 0.11), node("C", 0.0, 0.0)];
        assert_eq!(
            says(&good),
            "Attribution is close to the exact effects of 3 heads (Pearson correlation 1.000); its largest error is at \
             A (estimate +48%, exact +50%), and no head is off by 5% or more"
        );
        let bad = [node("A", 0.5, -0.1), node("B", 0.1, 0.3), node("C", 0.0, 0.01)];
        assert_eq!(
            says(&bad),
            "Attribution does not follow the exact effects of 3 heads (Pearson correlation -0.567); its largest error \
             is at A (estimate -10%, exact +50%), and it is off by 5% or more at A and B"
        );
        assert!(
            says(&[node("A", 0.5, 0.5), node("B", 0.1, 0.1)])
                .ends_with("(Pearson correlation 1.000), with no error of 1e-5 or more")
        );
        assert!(
            says(&[node("A", 0.5, 0.4)])
                .starts_with("Attribution has no correlation with the exact effects of 1 head;")
        );
        assert_eq!(says(&[]), "Attribution has no head to compare");
    }

    #[test]
    fn estimates_in_another_unit_are_scaled_by_least_squares() {
        let found = scaled(vec![node("A", 0.5, 5.0), node("B", 0.1, 1.0), node("C", 0.0, 0.0)]);
        assert!(found.iter().all(|node| node.error().abs() < 1e-6), "{found:?}");
        let against = scaled(vec![node("A", 0.5, -5.0), node("B", 0.1, -1.0), node("C", 0.0, 0.0)]);
        assert!(how_far("It", ["head", "heads"], &against).starts_with("It does not follow"), "{against:?}");
        let alike = vec![node("A", 0.5, 1.0), node("B", 0.1, 1.0)];
        assert_eq!(scaled(alike.clone()), alike);
    }
}
