//! A Cluster on trial: clients write and read all the time, while a test does what it does, phase by phase. In the end nothing
//! that was acknowledged may be lost or be there twice, no client may have noticed anything, and no partition may have stood
//! still for long.
//!
//! The Cluster is called `load`, has the Topic `orders`, and keeps everything three times. The judgement is that of `load`.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use klamm_tests::Random;
use klamm_tests::checker::check;
use klamm_tests::workload::Load;
use serde_json::Value;

use crate::clusters::World;
use crate::kubernetes::Namespace;
use crate::load::{OnDrop, PARTITIONS, Phase, STOPPED, Stage, Stalls, disturb, judge, logs_if_it_fails, orders, start};
use crate::metrics_api::now;
use crate::process::{Operator, until_condition};

/// A Cluster under load, as a test sees it.
pub struct Trial<'a> {
    pub stage: Stage<'a>,
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

/// Runs `body` under load, and judges.
#[track_caller]
pub fn trial(what: &str, space: &Namespace, bootstrap: String, body: impl FnOnce(&Trial<'_>)) {
    let seed = klamm_tests::seed();
    let _logs = logs_if_it_fails(space);
    println!("figures {what}: clients begin at {}", now());
    let running = Load { rate: 300, ..Load::new("orders", PARTITIONS, seed) }.start(&bootstrap);
    running.more(1000, Duration::from_secs(60));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (stalls, enough) = (Stalls::default(), AtomicBool::new(false));
    let stage = Stage { space, running: &running, runtime, bootstrap, stalls: &stalls };
    stage.whole();
    let trial = Trial { stage, what, seed, phases: RefCell::default() };
    std::thread::scope(|scope| {
        scope.spawn(|| stalls.watch(&enough));
        // Also when something fails: nobody waits for the thread in vain.
        let _end = OnDrop(|| enough.store(true, Ordering::Relaxed));
        body(&trial);
    });
    let Trial { stage, phases, .. } = trial;
    drop(stage);
    let errors = running.errors();
    let history = running.finish();
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
        self.phase_within(STOPPED, name, harm)
    }

    /// The same where a partition may go without an acknowledged write for as many milliseconds.
    #[track_caller]
    pub fn phase_within(&self, limit: u32, name: &str, harm: impl FnOnce()) -> Duration {
        let (from_ms, since) = (self.stage.running.now_ms(), Instant::now());
        self.stage.stalls.longest();
        harm();
        let took = since.elapsed();
        self.stage.whole();
        let (to_ms, stall_ms) = (self.stage.running.now_ms(), self.stage.stalls.longest());
        let name = format!("{}: {name}", self.what);
        self.phases.borrow_mut().push(Phase { name, from_ms, to_ms, limit, stall_ms });
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
