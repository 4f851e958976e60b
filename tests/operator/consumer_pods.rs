//! Consumers in pods, as the pages tell to run them: they come with the lag and go with it, and they are stopped for a reset by
//! an operator that is killed again and again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use klamm_tests::{Random, eventually, paths};
use serde_json::{Value, json};

use crate::clusters::{BROKER, World};
use crate::consumers::FLAGS;
use crate::kubernetes::{Namespace, with_nodes};
use crate::pages::{commands, shell};
use crate::process::{Operator, condition};
use crate::stage::OnDrop;

const PARTITIONS: i32 = 4;
/// Records of each partition, and how many of them are read again.
const RECORDS: i32 = 250;
const AGAIN: i32 = 50;
/// How many resets there are.
const ROUNDS: i64 = 2;

/// A Cluster, and consumers of one of its topics.
struct Consumers {
    world: World,
    bootstrap: String,
}

impl Consumers {
    fn start() -> Consumers {
        let world = World::new("consumers");
        let spec = json!({
            "replicas": 1, "storage": { "size": "1Gi" },
            "resources": { "requests": { "cpu": "0.05", "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
            "listeners": [{ "name": "plain", "port": 9092 }, { "name": "outside", "port": 9094, "type": "nodeport" }],
        });
        world.create("demo", spec);
        let bootstrap = world.bootstrap("demo", "outside");
        world.until_open(&bootstrap);
        Consumers { world, bootstrap }
    }

    fn space(&self) -> &Namespace {
        &self.world.space
    }

    fn klamm(&self, line: &str) -> klamm_tests::Tool {
        self.world.klamm(&self.bootstrap, &line.split_whitespace().collect::<Vec<_>>())
    }

    fn produce(&self, partition: i32, numbers: std::ops::Range<i32>) {
        let lines: String = numbers.map(|number| format!("{partition}-{number}\n")).collect();
        self.klamm(&format!("produce orders --partition {partition}")).stdin(lines).ok();
    }

    /// What the group has committed, in all partitions.
    fn committed(&self) -> i64 {
        let out = self.klamm("groups describe shipping -o json").run().out;
        let all: Value = serde_json::from_str(&out).unwrap_or_default();
        let rows = all[0]["partitions"].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|row| row["current_offset"].as_i64()).sum()
    }

    fn deployment(&self) -> Value {
        self.space().get("deployment", "shipping").expect("the Deployment")
    }

    /// Waits until there are so many pods, asked for and there.
    fn until_pods(&self, wanted: i32) {
        self.space().until("deployment", "shipping", 120, |found| {
            let there = found["status"]["readyReplicas"].as_i64().unwrap_or(0) == i64::from(wanted);
            (found["spec"]["replicas"] == wanted && there).then_some(())
        });
    }

    fn until_read(&self, records: i32) {
        let mut last = 0;
        let found = klamm_tests::wait_for(Duration::from_secs(90), || {
            last = self.committed();
            std::thread::sleep(Duration::from_millis(200));
            (last == i64::from(records)).then_some(())
        });
        assert!(found.is_some(), "{last} records of {records} are committed");
    }

    /// The lines of a page's block, but for those about the chart. The example's window is longer than a test.
    fn page(&self, heading: &str) -> Vec<String> {
        let example = "examples/kubernetes/consumer-group-scaled.yaml";
        let text = std::fs::read_to_string(paths::tests_dir().join("..").join(example)).expect("the example");
        let text = text.replace("image: klamm/broker:0.1.0", &format!("image: {BROKER}"));
        let text =
            text.replace("lagPerReplica: 1000", "lagPerReplica: 100").replace("downWindow: 5m", "downWindow: 1s");
        let file = paths::scratch_dir("example").join("consumers.yaml");
        std::fs::write(&file, text).expect("written");
        let here = format!("--namespace {} ", self.space().name());
        let lines = commands("docs/consumer-groups.md", heading).into_iter().filter(|line| !line.starts_with("helm "));
        lines
            .map(|line| {
                line.replace("kubectl ", &format!("kubectl {here}")).replace(example, &file.display().to_string())
            })
            .collect()
    }
}

/// Kills the operator and starts it again, until told to end; answers the last one, and where the reset was each time.
fn disturb(consumers: &Consumers, random: &mut Random, enough: &AtomicBool) -> (Operator, Vec<String>) {
    let (space, mut at) = (consumers.space(), Vec::new());
    loop {
        let mut operator = Operator::launch(None, &[space], &FLAGS);
        std::thread::sleep(Duration::from_millis(random.between(100, 900)));
        // In the end one has to be left in peace.
        if enough.load(Ordering::Relaxed) || at.len() >= 15 {
            return (operator, at);
        }
        operator.kill();
        let group = space.get("kmg", "shipping").expect("the ConsumerGroup");
        let pause = &group["status"]["pause"];
        let step = match (&pause["stoppedAt"], pause.is_null()) {
            (Value::Null, false) => "noted",
            (_, false) => "stopped",
            _ if condition(&group, "ResetComplete").is_some_and(|is| is == "True/Applied") => "done",
            _ => "not begun",
        };
        at.push(format!("{step} ({} replicas)", consumers.deployment()["spec"]["replicas"]));
    }
}

impl Consumers {
    /// Offsets have moved once, and as many pods as before have read on from there.
    fn were_moved(&self, round: i64, before: &Value) {
        let (from, to) = (2 * RECORDS, 2 * RECORDS - AGAIN);
        let again = |partition: i32| (to..from).map(move |number| format!("{partition}-{number}"));
        let wanted: BTreeSet<String> = (0..PARTITIONS).flat_map(again).collect();
        let mut last = BTreeSet::new();
        let found = klamm_tests::wait_for(Duration::from_secs(60), || {
            let logs = self.space().kubectl(["logs", "--selector=app=shipping", "--tail=-1"]).run().out;
            last = logs.lines().map(String::from).collect();
            (last == wanted).then_some(())
        });
        assert!(found.is_some(), "read again: {last:#?}");
        self.until_read(2 * PARTITIONS * RECORDS);
        let (now, group) = (self.deployment(), self.space().get("kmg", "shipping").expect("the ConsumerGroup"));
        let generation = |found: &Value| found["metadata"]["generation"].as_i64().unwrap_or(0);
        assert_eq!(now["spec"]["replicas"], 3, "{now:#}");
        assert_eq!(generation(&now) - generation(before), 2 * round, "stopped once and started once: {now:#}");
        let last = &group["status"]["lastReset"];
        assert!(last["result"] == "Applied" && last["id"] == format!("replay-{round}"), "{group:#}");
        assert_eq!(last["preview"][0], format!("orders-0: {from} -> {to}"), "{group:#}");
    }
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}

#[test]
fn pods_come_with_the_lag_and_are_stopped_for_a_reset() {
    with_nodes("consumer_pods::pods_come_with_the_lag_and_are_stopped_for_a_reset", || {
        let seed = klamm_tests::seed();
        let mut consumers = Consumers::start();
        consumers.world.operator.kill();
        let mut operator = Operator::start_with(&[consumers.space()], &FLAGS);
        consumers.klamm(&format!("topics create orders --partitions {PARTITIONS}")).ok();
        (0..PARTITIONS).for_each(|partition| consumers.produce(partition, 0..RECORDS));

        // By lag: from the one that a Deployment has by itself, or from none, to as many as can read; and to none.
        let since = Instant::now();
        for line in consumers.page("Scale consumers by lag") {
            shell(&line).ok();
        }
        consumers.until_read(PARTITIONS * RECORDS);
        let read = seconds(since);
        consumers.until_pods(0);
        let gone = seconds(since);
        println!("figures consumers: {} records read {read} after apply, no pods after {gone}", PARTITIONS * RECORDS);
        let since = Instant::now();
        for partition in 0..PARTITIONS {
            consumers.produce(partition, RECORDS..2 * RECORDS);
        }
        consumers.space().until("deployment", "shipping", 60, |found| (found["spec"]["replicas"] != 0).then_some(()));
        let asked = seconds(since);
        consumers.until_read(2 * PARTITIONS * RECORDS);
        println!(
            "figures consumers: from none, asked for {asked} after the records, all read after {}",
            seconds(since)
        );
        let events = consumers.space().kubectl(["get", "events", "--output=jsonpath={.items[*].reason}"]).ok().out;
        assert!(events.contains("ScaledUp") && events.contains("ScaledDown"), "{events}");

        // By hand from now on.
        let manual = json!({ "spec": { "scale": { "mode": "Manual" } } }).to_string();
        consumers.space().kubectl(["patch", "kmg", "shipping", "--type=merge", "--patch", &manual]).ok();
        crate::process::until_condition(consumers.space(), "kmg", "shipping", "ScalingActive", "False/Manual");
        consumers.space().kubectl(["scale", "deployment", "shipping", "--replicas=3"]).ok();
        consumers.until_pods(3);
        eventually("all of them are members", 60, || {
            let out = consumers.klamm("groups describe shipping -o json").run().out;
            let all: Value = serde_json::from_str(&out).ok()?;
            (all[0]["state"] == "Stable" && all[0]["members"].as_array()?.len() == 3).then_some(())
        });
        operator.kill();
        let before = consumers.deployment();

        let mut random = Random::new(seed);
        for round in 1..=ROUNDS {
            let (since, enough) = (Instant::now(), AtomicBool::new(false));
            let (mut last_one, kills) = std::thread::scope(|scope| {
                let disturber = scope.spawn(|| disturb(&consumers, &mut random, &enough));
                // Also when something fails: nobody waits for the thread in vain.
                let _end = OnDrop(|| enough.store(true, Ordering::Relaxed));
                for line in consumers.page("Reset a running group") {
                    shell(&line.replace("replay-1", &format!("replay-{round}"))).ok();
                }
                consumers.until_pods(3);
                enough.store(true, Ordering::Relaxed);
                disturber.join().expect("the operator is started again each time")
            });
            println!("figures consumers: reset {round} took {}, operator killed {kills:?}", seconds(since));
            consumers.were_moved(round, &before);
            last_one.kill();
        }
        println!("figures consumers: seed {seed}");
    });
}
