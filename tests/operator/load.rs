//! What clients notice of Kubernetes: a Cluster under acks=all idempotent load, with a group and the fault suite's checker,
//! while its description changes, its brokers are upgraded, its nodes are drained, its pods are deleted, a node is cut off, and
//! its operator is killed again and again.
//!
//! Clients come by a nodeport, as programs outside do. `KLAMM_LONG=1` repeats each harm more often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use klamm_client::Client;
use klamm_tests::checker::check;
use klamm_tests::history::{Gap, History, Outcome, Value as Record};
use klamm_tests::workload::{Load, Running, options};
use klamm_tests::{Random, wait_for};
use serde_json::{Value, json};

use crate::clusters::{BROKER, World, broker};
use crate::kubernetes::kubectl::kubectl;
use crate::kubernetes::{NODES, Namespace, image, nodes, with_nodes_alone};
use crate::metrics_api::now;
use crate::pages::{commands, shell};
use crate::process::{Operator, until_condition};
use crate::types::object;

/// The longest time that a partition may go without an acknowledged write while brokers stop in order.
pub const STOPPED: u32 = 2000;
/// The same while a node is cut off, and nobody says good-bye: the controller has to find out that nothing of the broker's
/// host answers. Found: 1.3 to 2 s; its session would be 9 s.
pub const CUT_OFF: u32 = 3000;
/// The same brokers by another name: pods of it are other pods.
const NEXT: &str = "klamm.test/broker:2";
/// The topic's partitions.
pub const PARTITIONS: i32 = 6;

/// A stretch of the run.
pub struct Phase {
    pub name: String,
    pub from_ms: u64,
    pub to_ms: u64,
    pub limit: u32,
    /// How long this very machine let nobody run: brokers can do no better.
    pub stall_ms: u32,
}

/// Looks at the clock all the time, and remembers the longest time between two looks.
#[derive(Debug, Default)]
pub struct Stalls(AtomicU32);

impl Stalls {
    pub fn watch(&self, enough: &AtomicBool) {
        while !enough.load(Ordering::Relaxed) {
            let since = Instant::now();
            std::thread::sleep(Duration::from_millis(10));
            self.0.fetch_max(u32::try_from(since.elapsed().as_millis()).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// Since the last call.
    pub fn longest(&self) -> u32 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Kills the operator and starts it anew until told to end; answers how often.
pub fn disturb(mut operator: Operator, space: &Namespace, mut random: Random, enough: &AtomicBool) -> (Operator, u32) {
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

/// An operator that elects itself: the next one of the same name goes on at once, as a container's next life does.
pub fn start(space: &Namespace) -> Operator {
    Operator::start_with(&[space], &[&format!("--namespace={}", space.name()), "--identity=one"])
}

/// The Cluster and its load, as the harms see them.
pub struct Stage<'a> {
    pub space: &'a Namespace,
    pub running: &'a Running,
    pub runtime: tokio::runtime::Runtime,
    pub bootstrap: String,
    pub stalls: &'a Stalls,
}

impl Stage<'_> {
    pub fn pod(&self, broker: usize) -> Option<Value> {
        self.space.get("pod", &format!("load-{broker}"))
    }

    pub fn uid(&self, broker: usize) -> String {
        self.pod(broker).map_or_else(String::new, |pod| pod["metadata"]["uid"].as_str().unwrap_or_default().into())
    }

    fn uids(&self) -> Vec<String> {
        (0..3).map(|broker| self.uid(broker)).collect()
    }

    /// Waits until a broker's pod is ready, another one than that before.
    pub fn replaced(&self, broker: usize, before: &str) {
        self.space.until("pod", &format!("load-{broker}"), 120, |pod| {
            let conditions = pod["status"]["conditions"].as_array()?;
            let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            (pod["metadata"]["uid"] != before && pod["metadata"]["deletionTimestamp"].is_null() && ready).then_some(())
        });
    }

    /// SIGKILL to a broker; waits until its container runs again and is ready.
    pub fn killed(&self, broker: usize) {
        let starts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        let pod = self.pod(broker).expect("a pod");
        nodes::kill(pod["metadata"]["uid"].as_str().expect("an id"), "/klamm");
        self.space.until("pod", &format!("load-{broker}"), 120, |now| {
            let ready = now["status"]["containerStatuses"][0]["ready"] == true;
            (starts(now) > starts(&pod) && ready).then_some(())
        });
    }

    /// The same while the operator is at this step.
    pub fn killed_while(&self, step: &str, broker: usize) {
        self.space
            .until("cluster", "load", 300, |cluster| (cluster["status"]["operation"]["step"] == step).then_some(()));
        self.running.more(500, Duration::from_secs(60));
        self.killed(broker);
    }

    /// Waits until all replicas are in sync and every partition has been written to.
    pub fn whole(&self) {
        let mut last = String::new();
        let found = wait_for(Duration::from_secs(120), || {
            let asked = self.runtime.block_on(async {
                let client = Client::connect(&self.bootstrap, options()).await?;
                client.topic("orders").await
            });
            let whole = asked.as_ref().is_ok_and(|topic| {
                topic.partitions.iter().all(|p| p.leader >= 0 && p.replicas.len() == 3 && p.isr.len() == 3)
            });
            last = format!("{asked:?}");
            whole.then_some(())
        });
        assert!(found.is_some(), "not in sync: {last}");
        self.running.writable_since(self.running.now_ms(), Duration::from_secs(60));
    }

    /// What has to stay as it is until all run by the newer image and somebody says so: the way back is open as long.
    fn levels(&self) -> Vec<i16> {
        let known = ["metadata.version", "kraft.version", "transaction.version", "group.version"];
        klamm_tests::eventually("a broker tells its features", 60, || {
            let asked = self.runtime.block_on(async {
                let any = Client::connect(&self.bootstrap, options()).await?.any().await?;
                Ok::<_, klamm_client::ClientError>(known.map(|name| any.versions().feature(name)).to_vec())
            });
            asked.ok()
        })
    }

    /// Another image is described, and the operator does the rest.
    fn run_by(&self, image: &str) {
        let (before, levels) = (self.uids(), self.levels());
        let own = format!("load --namespace {}", self.space.name());
        for line in commands("docs/kubernetes.md", "Upgrade brokers") {
            shell(&line.replace("registry.example/klamm/broker:0.2.0", image).replace("prod", &own)).ok();
        }
        (0..3).for_each(|broker| self.replaced(broker, &before[broker]));
        for broker in 0..3 {
            assert_eq!(self.pod(broker).expect("a pod")["spec"]["containers"][0]["image"], image);
        }
        assert_eq!(self.levels(), levels, "nothing is finalized by an upgrade");
    }

    /// What no broker can run by costs one of them, and only until it is taken back.
    fn mistake(&self) {
        let before = self.uids();
        let describe = |image: &str| {
            let patch = json!({ "spec": { "image": image } }).to_string();
            self.space.kubectl(["patch", "cluster", "load", "--type=merge", "--patch", &patch]).ok();
        };
        describe("klamm.test/broker:none");
        until_condition(self.space, "cluster", "load", "Stalled", "True/BrokersFail");
        describe(BROKER);
        until_condition(self.space, "cluster", "load", "UpToDate", "True/AsDescribed");
        let same = before.iter().zip(self.uids()).filter(|(before, now)| **before == *now).count();
        assert_eq!(same, 2, "only the one that could not run was replaced: {before:?}, {:?}", self.uids());
    }

    /// Brokers get other certificates, and show them.
    fn certify(&self) {
        let taken = || {
            let selector = "--selector=app.kubernetes.io/instance=load";
            let logs = self.space.kubectl(["logs", selector, "--tail=-1"]).ok().out;
            logs.lines().filter(|line| line.contains("certificates changed")).count()
        };
        let before = taken();
        self.space.kubectl(["delete", "secret", "load-brokers-tls"]).ok();
        // The next look at the Cluster comes within a minute; a change of it is looked at right away.
        self.space.kubectl(["annotate", "cluster", "load", "--overwrite", &format!("at={before}")]).ok();
        klamm_tests::eventually("all brokers show other certificates", 120, || {
            std::thread::sleep(Duration::from_millis(500));
            (taken() >= before + 3).then_some(())
        });
    }

    /// As one empties nodes for an upgrade: nobody looks at brokers between one node and the next.
    fn drain(&self) {
        let before = self.uids();
        // What other tests have left on the nodes is nobody's who would make it anew.
        let ours = "--pod-selector=klamm.test/drained=yes --ignore-daemonsets";
        // Also when something fails: tests that come later need all nodes.
        let _open = OnDrop(|| {
            let all: Vec<String> = (1..=NODES).map(|node| format!("node{node}")).collect();
            kubectl(["uncordon"]).args(&all).run();
        });
        for node in 1..=NODES {
            for line in commands("docs/kubernetes.md", "Drain nodes") {
                shell(&line.replace("NODE", &format!("node{node}")).replace("--ignore-daemonsets", ours)).ok();
            }
        }
        (0..3).for_each(|broker| self.replaced(broker, &before[broker]));
    }

    /// What the description says changes while brokers run.
    fn reconfigure(&self, round: i64) {
        let config = json!({ "log.segment.bytes": 4_000_000 + round, "log.retention.ms": 86_400_000 + round });
        let patch = json!({ "spec": { "config": config } }).to_string();
        self.space.kubectl(["patch", "cluster", "load", "--type=merge", "--patch", &patch]).ok();
        self.space.apply(&orders(round));
        until_condition(self.space, "topic", "orders", "Ready", "True/AsDescribed");
        until_condition(self.space, "cluster", "load", "ConfigApplied", "True/Applied");
    }
}

pub fn orders(round: i64) -> Value {
    let config = json!({ "segment.bytes": 2_000_000 + round, "max.message.bytes": 2_000_000 + round });
    let spec = json!({
        "clusterRef": { "name": "load" }, "partitions": PARTITIONS, "retention": { "time": format!("{}h", 24 + round) }, "config": config,
    });
    object("Topic", "orders", &spec)
}

fn description() -> Value {
    json!({
        "replicas": 3, "storage": { "size": "1Gi" }, "rack": {},
        "podTemplate": { "labels": { "klamm.test/drained": "yes" } },
        "config": { "default.replication.factor": 3, "min.insync.replicas": 2, "offsets.topic.num.partitions": 5 },
        "listeners": [{ "name": "plain", "port": 9092 }, { "name": "outside", "port": 9094, "type": "nodeport" }],
    })
}

#[test]
fn clients_notice_nothing() {
    with_nodes_alone("load::clients_notice_nothing", || {
        let rounds = if klamm_tests::long() { 10 } else { 1 };
        let seed = klamm_tests::seed();
        let mut random = Random::new(seed);
        let world = World::new("load");
        image::load(&broker(NEXT));
        world.create("load", description());
        world.space.apply(&orders(0));
        let group = json!({ "clusterRef": { "name": "load" }, "groupId": "orders-group", "topics": ["orders"] });
        world.space.apply(&object("ConsumerGroup", "orders", &group));
        until_condition(&world.space, "topic", "orders", "Ready", "True/AsDescribed");
        let bootstrap = world.bootstrap("load", "outside");
        let World { space, mut operator } = world;
        operator.kill();

        let _logs = logs_if_it_fails(&space);
        println!("figures load: clients begin at {}", now());
        let running = Load { rate: 300, ..Load::new("orders", PARTITIONS, seed) }.start(&bootstrap);
        running.more(1000, Duration::from_secs(60));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (stalls, enough) = (Stalls::default(), AtomicBool::new(false));
        let stage = Stage { space: &space, running: &running, runtime, bootstrap, stalls: &stalls };
        stage.whole();
        let (phases, kills) = std::thread::scope(|scope| {
            let killer = random.clone();
            scope.spawn(|| stalls.watch(&enough));
            let disturber = scope.spawn(|| disturb(start(&space), &space, killer, &enough));
            // Also when something fails: nobody waits for the thread in vain.
            let _end = OnDrop(|| enough.store(true, Ordering::Relaxed));
            let phases = harm(&stage, rounds, &mut random);
            enough.store(true, Ordering::Relaxed);
            let (_operator, kills) = disturber.join().expect("the operator is started again each time");
            until_condition(&space, "cluster", "load", "Ready", "True/Serving");
            (phases, kills)
        });
        let errors = running.errors();
        let history = running.finish();
        let report = check(&history);
        println!(
            "figures load: seed {seed}, operator killed {kills} times, {} records acknowledged, {report}",
            history.acked()
        );
        for error in errors.iter().take(12) {
            println!("  client: {}", error.chars().take(300).collect::<String>());
        }
        let mut slow = Vec::new();
        for phase in &phases {
            slow.extend(judge(phase, &history));
        }
        assert!(report.is_clean(), "{report}");
        assert!(errors.is_empty(), "clients gave out errors: {errors:#?}");
        assert_eq!(history.not_acked(), 0);
        assert!(slow.is_empty(), "{slow:#?}");
        assert!(kills > 3, "{kills} kills");
    });
}

/// All harms, one after the other; the brokers are whole after each.
fn harm(stage: &Stage<'_>, rounds: u32, random: &mut Random) -> Vec<Phase> {
    let mut phases = Vec::new();
    let mut phase = |name: String, limit: u32, harm: &mut dyn FnMut()| {
        let from_ms = stage.running.now_ms();
        stage.stalls.longest();
        harm();
        stage.whole();
        phases.push(Phase { name, from_ms, to_ms: stage.running.now_ms(), limit, stall_ms: stage.stalls.longest() });
    };
    for round in 0..rounds {
        let pods = stage.uids();
        phase("configuration changed".into(), STOPPED, &mut || {
            (1..=3).for_each(|n| stage.reconfigure(i64::from(3 * round) + n));
        });
        assert_eq!(stage.uids(), pods, "no pod was replaced");
        phase("certificates of the brokers changed".into(), STOPPED, &mut || stage.certify());
        assert_eq!(stage.uids(), pods, "no pod was replaced");
        for (what, image) in [("upgraded", NEXT), ("downgraded", BROKER)] {
            phase(format!("all brokers {what}"), STOPPED, &mut || stage.run_by(image));
        }
        phase("an image described that is not there, and taken back".into(), STOPPED, &mut || stage.mistake());
        phase("each node drained in turn".into(), STOPPED, &mut || stage.drain());
        for flags in [[].as_slice(), &["--force", "--grace-period=0"]] {
            let broker = random.below(3) as usize;
            let how = if flags.is_empty() { "deleted" } else { "deleted by force" };
            phase(format!("pod {broker} {how}"), STOPPED, &mut || {
                let before = stage.uid(broker);
                let pod = format!("load-{broker}");
                stage.space.kubectl(["delete", "pod", &pod, "--wait=false"]).args(flags).ok();
                stage.replaced(broker, &before);
            });
        }
        let victim = random.below(3) as usize;
        phase(format!("broker {victim} killed (-9)"), STOPPED, &mut || stage.killed(victim));
        let victim = random.below(3) as usize;
        let pod = stage.pod(victim).expect("a pod");
        let name = pod["spec"]["nodeName"].as_str().expect("a node");
        let node = name.trim_start_matches("node").parse().expect("a number");
        phase(format!("node of broker {victim} cut off"), CUT_OFF, &mut || {
            let since = stage.running.now_ms();
            nodes::connect(node, false);
            stage.running.writable_since(since, Duration::from_secs(60));
            stage.running.more(3000, Duration::from_secs(60));
            nodes::connect(node, true);
        });
    }
    phases
}

/// Prints what became of a phase's records; answers which partitions stood still for too long.
pub fn judge(phase: &Phase, history: &History) -> Vec<String> {
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
        "figures load, {}: {} records acknowledged in {:.1} s, {lost} lost, {twice} duplicated; longest time without an \
         acknowledged write by partition {longest:?} ms; the machine itself stood still for {} ms",
        phase.name,
        acked.len(),
        Duration::from_millis(phase.to_ms - phase.from_ms).as_secs_f64(),
        phase.stall_ms,
    );
    let slow = gaps.into_iter().filter(|(_, gap)| gap.ms > phase.limit + phase.stall_ms);
    let told = |(partition, Gap { from_ms, ms }): (i32, Gap)| {
        format!("{}: partition {partition} stood still for {ms} ms, {from_ms} ms after the clients began", phase.name)
    };
    slow.map(told).collect()
}

/// If a test fails within a scope, what brokers said is kept beside Kubernetes's own logs, for as long as they are there.
pub fn logs_if_it_fails(space: &Namespace) -> OnDrop<impl FnMut()> {
    OnDrop(move || {
        if std::thread::panicking() {
            space.keep_logs();
        }
    })
}

/// Does something at the end of a scope, however that comes.
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
