//! Hostile hubs: runs the whole program against every behavior of the hub client's test server.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rand_chacha::rand_core::Rng;

use crate::program::ended;
use crate::server::{Behavior, REPOSITORY, TOKEN, serve};
use crate::trials::Trials;

/// A fetch that takes longer than this counts as endless.
const LONGEST: Duration = Duration::from_secs(120);

/// Behaviors that end by timeouts of half a minute or more. The hub client's own tests cover them
/// with shorter timeouts.
const SLOW: [Behavior; 5] = [
    Behavior::StallBeforeHeaders,
    Behavior::TrickleHeaders,
    Behavior::StallInBody,
    Behavior::TrickleBody,
    Behavior::EndlessInformational,
];

/// Fetches a model from a hostile server and checks: one error, in bounded time, nothing outside
/// the cache, and no token at another host.
pub(crate) fn fetch(trials: &mut Trials) -> anyhow::Result<()> {
    let quick: Vec<Behavior> = Behavior::ALL.into_iter().filter(|behavior| !SLOW.contains(behavior)).collect();
    let behavior = match trials.number() % (2 * quick.len()) {
        listed if listed < quick.len() => quick[listed],
        _ => Behavior::Mangled(trials.random.next_u64()),
    };
    let server = serve(behavior);
    let directory = trials.fresh()?;
    let start = Instant::now();
    let child = trials
        .program
        .command(directory.path(), &["reproduce-facts", "--model", REPOSITORY, "--out", "o"])
        .env("HF_HUB_CACHE", directory.path().join("cache"))
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_TOKEN", TOKEN)
        .env("HF_HUB_OFFLINE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let ended = ended(child)?;
    // The honest server's files are not a complete model, either.
    ensure!(ended.code == Some(2), "{behavior:?}: exit code {:?}", ended.code);
    ensure!(start.elapsed() < LONGEST, "{behavior:?}: {:?}", start.elapsed());
    let is_plain = |line: &str| !line.contains(char::is_control) && line.len() < 1500;
    ensure!(ended.stderr.lines().all(is_plain), "{behavior:?}: {:?}", ended.stderr);
    ensure!(
        ended.stderr.lines().last().is_some_and(|line| line.starts_with("error: ")),
        "{behavior:?}: {}",
        ended.stderr
    );
    let mut names: Vec<_> =
        std::fs::read_dir(directory.path())?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
    names.retain(|name| name != "cache" && name != "pairs.jsonl");
    ensure!(names.is_empty(), "{behavior:?} wrote {names:?} outside the cache");
    let strangers = format!("{:?}", server.requests_of_stranger());
    ensure!(!strangers.contains(TOKEN), "{behavior:?}: another host got the token");
    Ok(())
}
