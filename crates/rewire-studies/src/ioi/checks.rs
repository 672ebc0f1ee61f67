//! Comparisons of the figures that the demo prints with ours, for GPT-2 small only.

use rewire_analysis::node::{Component, NodeKind};
use rewire_tasks::Tokenizer;
use rewire_tasks::ioi::{DEMO_ANSWER_IDS_GPT2, demo_prompts};

use super::analyze::Findings;
use super::cached::CACHED;
use super::study::Found;
use crate::Check;

/// Tolerance for mean logit differences: another machine sums in another order. Float32 and float64
/// differ by 1e-6 on a random model of this size. The residual stream of a trained model has
/// entries of some thousands, so the tolerance is a hundred times as large.
const OF_LOGITS: f64 = 1e-4;
/// Tolerance for shares of the clean minus corrupted logit difference, which is 7.1.
const OF_SHARES: f64 = 2e-5;

/// The demo's first clean and corrupted prompt, as the demo prints them.
const STRINGS: [(&str, &str); 2] = [
    ("clean", "<|endoftext|>When John and Mary went to the shops, John gave the bag to"),
    ("corrupted", "<|endoftext|>When John and Mary went to the shops, Mary gave the bag to"),
];

/// The first names of heads, half heads and head inputs, as the demo prints them.
const NAMES: [&str; 3] = ["L0H0 L0H1 L0H2 L0H3 L0H4", "L0H0+ L0H0- L0H1+ L0H1- L0H2+", "L0H0Q L0H0K L0H0V L0H1Q L0H1K"];

/// Number of patches that the demo's progress bars count: blocks by position, and heads.
const PATCHES: [(&str, Component, usize); 8] = [
    ("residual stream", Component::ResidPre, 180),
    ("attention outputs", Component::AttnOut, 180),
    ("MLP outputs", Component::MlpOut, 180),
    ("heads' outputs", Component::HeadZ, 144),
    ("heads' queries", Component::HeadQ, 144),
    ("heads' keys", Component::HeadK, 144),
    ("heads' values", Component::HeadV, 144),
    ("heads' patterns", Component::HeadPattern, 144),
];

/// Compares the figures that the demo prints with the measured figures.
///
/// # Panics
/// If `found` has no set of pairs.
#[must_use]
pub fn checks(Found { demo, sets, cached, .. }: &Found, tokenizer: &Tokenizer) -> Vec<Check> {
    let found = &sets[0];
    let pair = &found.pairs.pairs()[0];
    let strings = STRINGS.into_iter().zip([&pair.clean, &pair.corrupted]).map(|((which, expected), tokens)| {
        Check::same(format!("{which} string 0"), expected, &tokenizer.decode(tokens))
    });
    let [clean, corrupted] = found.baselines();
    let [activations, gradients] = *cached;
    let number = |what: &str, expected: usize, got: usize| Check::same(what, &expected.to_string(), &got.to_string());
    // The prompts differ in one token, so patching the residual stream before block 0 at that token
    // gives the clean run.
    let all = demo.exact_of(NodeKind::by_position(Component::ResidPre)).map_or(f64::NAN, |effects| {
        let at = found.pairs.first_difference(0).unwrap_or(0);
        f64::from(effects.mean()[[0, at]])
    });
    let mut checks: Vec<Check> = strings.collect();
    checks.extend(token_ids(found));
    checks.extend([
        Check::figure("clean logit difference", 3.5519, clean, 4, OF_LOGITS),
        Check::figure("corrupted logit difference", -3.5519, corrupted, 4, OF_LOGITS),
        Check::figure("normalized, the clean run in place of the corrupted one", 1.0, all, 4, OF_SHARES),
        Check::figure("normalized, the corrupted run", 0.0, 1.0 - all, 4, OF_SHARES),
        number("activations of a run", CACHED, activations),
        number("gradients of a run", CACHED, gradients),
    ]);
    checks.extend(names(found).iter().zip(NAMES).map(|(got, expected)| Check::same("first names", expected, got)));
    let patches = PATCHES.map(|(what, component, expected)| {
        let by_head = NodeKind::all(component);
        let kind = if by_head.is_of_heads() { by_head } else { NodeKind::by_position(component) };
        let got = demo.exact_of(kind).map_or(0, |effects| effects.mean().len());
        number(&format!("patches of {what}"), expected, got)
    });
    checks.extend(patches);
    checks
}

fn token_ids(found: &Findings) -> impl Iterator<Item = Check> + '_ {
    let prompts = found.pairs.pairs().iter().zip(demo_prompts()).zip(DEMO_ANSWER_IDS_GPT2);
    prompts.map(|((pair, (_, [answer, wrong])), expected)| {
        let got = [pair.answers[0], pair.wrong_answers[0]];
        Check::same(format!("token ids of \" {answer}\", \" {wrong}\""), &format!("{expected:?}"), &format!("{got:?}"))
    })
}

/// Returns our first names of heads, half heads and head inputs.
fn names(found: &Findings) -> [String; 3] {
    let shape = found.outcomes[0][0].effects[0].values.shape().to_vec();
    let all = (0..shape[1]).flat_map(|layer| (0..shape[2]).map(move |head| format!("L{layer}H{head}")));
    let heads: Vec<String> = all.collect();
    let first = |ends: &[&str]| {
        let names = heads.iter().flat_map(|head| ends.iter().map(move |end| format!("{head}{end}")));
        names.take(5).collect::<Vec<_>>().join(" ")
    };
    [first(&[""]), first(&["+", "-"]), first(&["Q", "K", "V"])]
}
