//! Running seeds, one after the other or for a while, and telling what became of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

use klamm::planted::{Bug, plant};

use crate::world::World;

/// What became of a seed.
pub struct Outcome {
    pub broken: Option<String>,
    pub trace: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
    pub steps: u64,
}

thread_local! {
    static WHY: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what a panic says for [`run`], and shows nothing of it by itself.
fn catch_words() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let simulates = WHY.with_borrow(Option::is_some);
            if !simulates {
                return shown(info);
            }
            let at = info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default();
            let text = info.payload_as_str().unwrap_or("a panic without words");
            WHY.set(Some(format!("{text}{at}")));
        }));
    });
}

/// Runs one seed.
pub fn run(seed: u64, bug: Option<Bug>, tracing: bool) -> Outcome {
    catch_words();
    plant(bug);
    WHY.set(Some(String::new()));
    let mut world = None;
    let ran = catch_unwind(AssertUnwindSafe(|| world.insert(World::new(seed, tracing)).run()));
    plant(None);
    let why = WHY.take().unwrap_or_default();
    let broken = ran.is_err().then_some(why);
    let (mut trace, counts, steps) =
        world.map_or_else(Default::default, |w| (w.trace().to_vec(), w.counts.clone(), w.steps));
    if let Some(why) = &broken
        && tracing
    {
        trace.push(format!("BROKEN {why}"));
    }
    Outcome { broken, trace, counts, steps }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn bug() -> Option<Bug> {
    let name = std::env::var("KLAMM_SIM_BUG").ok()?;
    let found = BUGS.iter().find(|bug| format!("{bug:?}") == name);
    Some(*found.unwrap_or_else(|| panic!("KLAMM_SIM_BUG is one of {BUGS:?}")))
}

const BUGS: [Bug; 5] = [
    Bug::HighWatermarkFromLogEnd,
    Bug::TruncatedToHighWatermark,
    Bug::IsrShrunkAlone,
    Bug::AckedBelowMinIsr,
    Bug::CleanStopNotSynced,
];

fn command(seed: u64, bug: Option<Bug>) -> String {
    let bug = bug.map(|bug| format!(" KLAMM_SIM_BUG={bug:?}")).unwrap_or_default();
    format!("KLAMM_SIM_SEED={seed}{bug} cargo test -p klamm-tests --test sim replay -- --nocapture")
}

/// `KLAMM_SIM_SEED` step by step.
#[test]
fn replay() {
    let Some(seed) = number("KLAMM_SIM_SEED") else { return };
    let outcome = run(seed, bug(), true);
    outcome.trace.iter().for_each(|line| println!("{line}"));
    assert!(outcome.broken.is_none(), "seed {seed}: {}", outcome.broken.unwrap_or_default());
}

/// Seeds nobody has tried: for `KLAMM_SIM_SECONDS`, or as many as `KLAMM_SIM_SEEDS` from `KLAMM_SIM_FIRST` on.
#[test]
fn fresh_seeds() {
    let first = number("KLAMM_SIM_FIRST").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |d| d.as_nanos() as u64 >> 10 << 20)
    });
    let seeds = number("KLAMM_SIM_SEEDS").unwrap_or(u64::MAX);
    let seconds = number("KLAMM_SIM_SECONDS").unwrap_or(if seeds == u64::MAX { 120 } else { u64::MAX >> 1 });
    let failures_max = number("KLAMM_SIM_FAILURES").unwrap_or(1) as usize;
    let (began, bug) = (Instant::now(), bug());
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut broken = Vec::new();
    let (mut done, mut steps) = (0, 0);
    for seed in (first..).take(usize::try_from(seeds).unwrap_or(usize::MAX)) {
        if began.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        let outcome = run(seed, bug, false);
        done += 1;
        steps += outcome.steps;
        outcome.counts.into_iter().for_each(|(what, n)| *counts.entry(what).or_default() += n);
        if let Some(why) = outcome.broken {
            println!("seed {seed}: {why}\n  {}", command(seed, bug));
            broken.push(seed);
            if broken.len() >= failures_max {
                break;
            }
        }
    }
    let elapsed = began.elapsed();
    let rate = done as f64 / elapsed.as_secs_f64();
    println!(
        "figures: {done} seeds from {first} in {:.1} s, {rate:.0} a second, {steps} steps; {counts:?}",
        elapsed.as_secs_f64()
    );
    assert!(broken.is_empty(), "{} of {done} seeds broke something: {broken:?}", broken.len());
}

#[test]
fn one_seed_twice_gives_one_trace() {
    for seed in 1..=20 {
        let (one, other) = (run(seed, None, true), run(seed, None, true));
        assert!(one.trace.len() > 100, "seed {seed}: {:?}", one.broken);
        let differs = one.trace.iter().zip(&other.trace).find(|(a, b)| a != b);
        assert!(differs.is_none(), "seed {seed}: {differs:?}");
        assert_eq!(one.trace.len(), other.trace.len(), "seed {seed}");
    }
}

/// The runs are worth something only if everything happens in them.
#[test]
fn what_may_happen_does() {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 1..=60 {
        let outcome = run(seed, None, false);
        assert!(outcome.broken.is_none(), "{}: {}", command(seed, None), outcome.broken.unwrap_or_default());
        outcome.counts.into_iter().for_each(|(what, n)| *counts.entry(what).or_default() += n);
    }
    let wanted = [
        "acknowledged",
        "clean stops",
        "clock jumps",
        "controllers",
        "deaf",
        "isolations",
        "kills",
        "leaders",
        "offsets committed",
        "offsets looked up",
        "one-way partitions",
        "pauses",
        "power losses",
        "reassignments",
        "truncated",
        "wipes",
    ];
    let missing: Vec<_> = wanted.iter().filter(|what| counts.get(**what).is_none_or(|n| *n < 5)).collect();
    assert!(missing.is_empty(), "{missing:?} of {counts:?}");
}

/// Seeds that found something once; what it was stands in docs/faults.md.
const KEPT: &[u64] = &[];

#[test]
fn seeds_that_once_found_something_pass() {
    for &seed in KEPT {
        let outcome = run(seed, None, false);
        assert!(outcome.broken.is_none(), "{}: {}", command(seed, None), outcome.broken.unwrap_or_default());
    }
}

/// A seed for each bug that finds it.
const PLANTED: [(Bug, u64); 5] = [
    (Bug::HighWatermarkFromLogEnd, 1),
    (Bug::TruncatedToHighWatermark, 6),
    (Bug::IsrShrunkAlone, 2),
    (Bug::AckedBelowMinIsr, 15),
    (Bug::CleanStopNotSynced, 15),
];

/// How many seeds may be tried when the one that is given has come to do something else.
const TRIES: u64 = 600;

#[test]
fn planted_bugs_are_found() {
    for (bug, given) in PLANTED {
        let finds = |seed: &u64| run(*seed, Some(bug), false).broken.is_some();
        let found = std::iter::once(given).chain(1..TRIES).find(finds);
        let seed =
            found.unwrap_or_else(|| panic!("{bug:?} is not found by {TRIES} seeds: the simulator is blind to it"));
        let clean = run(seed, None, false);
        assert!(clean.broken.is_none(), "{}: {}", command(seed, None), clean.broken.unwrap_or_default());
        println!(
            "figures: {bug:?} is found by seed {seed}{}",
            if seed == given { "" } else { ", no longer by the one given" }
        );
    }
}
