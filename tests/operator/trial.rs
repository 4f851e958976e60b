//! A Cluster on trial: clients write and read all the time, while a test does what it does, phase by phase. In the end nothing
//! that was acknowledged may be lost or be there twice, no client may have noticed anything, and no partition may have stood
//! still for long.
//!
//! The Cluster is called `load`, has the Topic `orders`, and keeps everything three times.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use klamm_tests::Random;
use klamm_tests::checker::check;
use klamm_tests::history::{Gap, History, Outcome, Value as Record};
use klamm_tests::workload::Load;
use serde_json::Value;

use crate::clusters::World;
use crate::kubernetes::Namespace;
use crate::metrics_api::now;
use crate::process::{Operator, until_condition};
use crate::stage::{OnDrop, PARTITIONS, Stage, orders};

/// The longest time in milliseconds that a partition may go without an acknowledged write. While brokers stop in order it is
/// far less. When a node is cut off, nobody says good-bye, and the controller has to find out that nothing of the broker's
/// host answers: 1.0 to 1.6 s, where its session would be 9 s.
const STANDSTILL: u32 = 2000;

/// A Cluster under load, as a test sees it.
pub struct Trial<'a> {
    pub stage: Stage<'a>,
    stalls: &'a Stalls,
    what: &'a str,
    seed: u64,
    phases: RefCell<Vec<Phase>>,
}

/// Describes a Cluster and its Topic and waits for them; where clients begin, and the operator that has made them. The listener
/// `outside` is for them.
#[track_caller]
pub fn described(world: World, spec: Value) -> (Namespace, String, Operator) {
    world.create("load", spec);
    world.space.apply(&orders(0));
    until_condition(&world.space, "topic", "orders", "Ready", "True/AsDescribed");
    let bootstrap = world.bootstrap("load", "outside");
    (world.space, bootstrap, world.operator)
}

/// At its end the brokers are to go: they would be in the way of tests that come later.
pub fn gone(space: &Namespace) -> OnDrop<impl FnMut()> {
    OnDrop(move || {
        space.kubectl(["delete", "cluster,statefulset", "load", "--wait=false"]).run();
    })
}

/// Runs `body` under load, and judges. What it answers is dropped when all that was written has been read.
#[track_caller]
pub fn trial<T>(what: &str, space: &Namespace, bootstrap: String, body: impl FnOnce(&Trial<'_>) -> T) {
    let seed = klamm_tests::seed();
    let _logs = logs_if_it_fails(space);
    println!("figures {what}: clients begin at {}", now());
    let running = Load { rate: 300, ..Load::new("orders", PARTITIONS, seed) }.start(&bootstrap);
    running.more(1000, Duration::from_secs(60));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (stalls, enough) = (Stalls::default(), AtomicBool::new(false));
    let stage = Stage { space, running: &running, runtime, bootstrap };
    stage.whole();
    let trial = Trial { stage, stalls: &stalls, what, seed, phases: RefCell::default() };
    let left = std::thread::scope(|scope| {
        scope.spawn(|| stalls.watch(&enough));
        // Also when something fails: nobody waits for the thread in vain.
        let _end = OnDrop(|| enough.store(true, Ordering::Relaxed));
        body(&trial)
    });
    let Trial { stage, phases, .. } = trial;
    drop(stage);
    let errors = running.errors();
    let history = running.finish();
    drop(left);
    let report = check(&history);
    println!("figures {what}: seed {seed}, {} records acknowledged, {report}", history.acked());
    let slow: Vec<String> = phases.take().iter().flat_map(|phase| judge(phase, &history)).collect();
    assert!(report.is_clean(), "{report}");
    assert!(errors.is_empty(), "clients gave out errors: {errors:#?}");
    assert_eq!(history.not_acked(), 0);
    assert!(slow.is_empty(), "{slow:#?}");
}

impl Trial<'_> {
    /// Runs a stretch that is judged by itself; in its end everything is in sync. Answers how long the harm took.
    #[track_caller]
    pub fn phase(&self, name: &str, harm: impl FnOnce()) -> Duration {
        let (from_ms, since) = (self.stage.running.now_ms(), Instant::now());
        self.stalls.longest();
        harm();
        let took = since.elapsed();
        self.stage.whole();
        let (to_ms, stall_ms) = (self.stage.running.now_ms(), self.stalls.longest());
        let name = format!("{}: {name}", self.what);
        self.phases.borrow_mut().push(Phase { name, from_ms, to_ms, stall_ms });
        took
    }

    /// Runs `body` while the operator is killed and started again.
    #[track_caller]
    pub fn disturbed(&self, body: impl FnOnce()) {
        let (enough, space, seed) = (AtomicBool::new(false), self.stage.space, self.seed);
        let kills = std::thread::scope(|scope| {
            let disturber = scope.spawn(|| disturb(start(space), space, Random::new(seed), &enough));
            // Also when something fails: nobody waits for the thread in vain.
            let _end = OnDrop(|| enough.store(true, Ordering::Relaxed));
            body();
            enough.store(true, Ordering::Relaxed);
            let (_operator, kills) = disturber.join().expect("the operator is started again each time");
            kills
        });
        println!("figures {}: operator killed {kills} times", self.what);
        assert!(kills > 3, "{kills} kills");
    }
}

/// An operator that elects itself: the next one of the same name goes on at once, as a container's next life does.
pub fn start(space: &Namespace) -> Operator {
    Operator::start_with(&[space], &[&format!("--namespace={}", space.name()), "--identity=one"])
}

/// Kills the operator and starts it anew until told to end; answers how often.
fn disturb(mut operator: Operator, space: &Namespace, mut random: Random, enough: &AtomicBool) -> (Operator, u32) {
    let mut kills = 0;
    while !enough.load(Ordering::Relaxed) {
        let until = Instant::now() + Duration::from_millis(random.between(500, 6000));
        while Instant::now() < until && !enough.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        operator.kill();
        kills += 1;
        std::thread::sleep(Duration::from_millis(random.below(1000)));
        operator = start(space);
    }
    (operator, kills)
}

/// A stretch of the run.
struct Phase {
    name: String,
    from_ms: u64,
    to_ms: u64,
    /// How long this very machine let nobody run: brokers can do no better.
    stall_ms: u32,
}

/// Looks at the clock all the time, and remembers the longest time between two looks.
#[derive(Debug, Default)]
struct Stalls(AtomicU32);

impl Stalls {
    fn watch(&self, enough: &AtomicBool) {
        while !enough.load(Ordering::Relaxed) {
            let since = Instant::now();
            std::thread::sleep(Duration::from_millis(10));
            self.0.fetch_max(u32::try_from(since.elapsed().as_millis()).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// Since the last call.
    fn longest(&self) -> u32 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Prints what became of a phase's records; answers which partitions stood still for too long.
fn judge(phase: &Phase, history: &History) -> Vec<String> {
    let during = |ms: u32| (phase.from_ms..phase.to_ms).contains(&u64::from(ms));
    let acked: BTreeSet<Record> = history
        .sends
        .iter()
        .filter(|send| matches!(send.outcome, Outcome::Acked { .. }) && during(send.sent_ms))
        .map(|send| send.value)
        .collect();
    let mut copies: BTreeMap<Record, u32> = acked.iter().map(|value| (*value, 0)).collect();
    for seen in history.log.values().flatten() {
        copies.entry(seen.value).and_modify(|count| *count += 1);
    }
    let (lost, twice) = (copies.values().filter(|n| **n == 0).count(), copies.values().filter(|n| **n > 1).count());
    let gaps = history.gaps_within(phase.from_ms, phase.to_ms);
    let longest: Vec<u32> = gaps.values().map(|gap| gap.ms).collect();
    println!(
        "figures {}: {} records acknowledged in {:.1} s, {lost} lost, {twice} duplicated; longest time without an \
         acknowledged write by partition {longest:?} ms; the machine itself stood still for {} ms",
        phase.name,
        acked.len(),
        Duration::from_millis(phase.to_ms - phase.from_ms).as_secs_f64(),
        phase.stall_ms,
    );
    let slow = gaps.into_iter().filter(|(_, gap)| gap.ms > STANDSTILL + phase.stall_ms);
    let told = |(partition, Gap { from_ms, ms }): (i32, Gap)| {
        format!("{}: partition {partition} stood still for {ms} ms, {from_ms} ms after the clients began", phase.name)
    };
    slow.map(told).collect()
}

/// If a test fails within a scope, what brokers said is kept beside Kubernetes's own logs, for as long as they are there.
fn logs_if_it_fails(space: &Namespace) -> OnDrop<impl FnMut()> {
    OnDrop(move || {
        if std::thread::panicking() {
            space.keep_logs();
        }
    })
}
