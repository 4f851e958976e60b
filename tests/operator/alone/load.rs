//! What clients notice of Kubernetes: a Cluster under acks=all idempotent load, with a group and the fault suite's checker,
//! while its description changes, its brokers are upgraded, its nodes are drained, its pods are deleted, a node is cut off, and
//! its operator is killed again and again.
//!
//! Clients come by a nodeport, as programs outside do. `KLAMM_LONG=1` repeats each harm more often.

use std::time::Duration;

use klamm_client::Client;
use klamm_tests::Random;
use klamm_tests::workload::options;
use serde_json::{Value, json};

use crate::clusters::{BROKER, World, broker};
use crate::kubernetes::kubectl::kubectl;
use crate::kubernetes::{NODES, image, with_nodes_alone};
use crate::pages::{commands, shell};
use crate::process::until_condition;
use crate::stage::{OnDrop, Stage, orders};
use crate::trial::{Trial, described, trial};
use crate::types::object;

/// The same brokers by another name: pods of it are other pods.
const NEXT: &str = "klamm.test/broker:2";

impl Stage<'_> {
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
    with_nodes_alone("alone::load::clients_notice_nothing", || {
        let rounds = if klamm_tests::long() { 10 } else { 1 };
        let mut random = Random::new(klamm_tests::seed());
        let world = World::new("load");
        image::load(&broker(NEXT));
        let (space, bootstrap, mut operator) = described(world, description());
        let group = json!({ "clusterRef": { "name": "load" }, "groupId": "orders-group", "topics": ["orders"] });
        space.apply(&object("ConsumerGroup", "orders", &group));
        operator.kill();
        trial("load", &space, bootstrap, |trial| {
            trial.disturbed(|| {
                (0..rounds).for_each(|round| harm(trial, round, &mut random));
                until_condition(&space, "cluster", "load", "Ready", "True/Serving");
            });
        });
    });
}

/// All harms, one after the other; the brokers are whole after each.
fn harm(trial: &Trial<'_>, round: i64, random: &mut Random) {
    let stage = &trial.stage;
    let pods = stage.uids();
    trial.phase("configuration changed", || (1..=3).for_each(|n| stage.reconfigure(3 * round + n)));
    assert_eq!(stage.uids(), pods, "no pod was replaced");
    trial.phase("certificates of the brokers changed", || stage.certify());
    assert_eq!(stage.uids(), pods, "no pod was replaced");
    for (what, image) in [("upgraded", NEXT), ("downgraded", BROKER)] {
        trial.phase(&format!("all brokers {what}"), || stage.run_by(image));
    }
    trial.phase("an image described that is not there, and taken back", || stage.mistake());
    trial.phase("each node drained in turn", || stage.drain());
    for flags in [[].as_slice(), &["--force", "--grace-period=0"]] {
        let broker = random.below(3) as usize;
        let how = if flags.is_empty() { "deleted" } else { "deleted by force" };
        trial.phase(&format!("pod {broker} {how}"), || {
            let before = stage.uid(broker);
            let pod = format!("load-{broker}");
            stage.space.kubectl(["delete", "pod", &pod, "--wait=false"]).args(flags).ok();
            stage.replaced(broker, &before);
        });
    }
    let victim = random.below(3) as usize;
    trial.phase(&format!("broker {victim} killed (-9)"), || stage.killed(victim));
    let victim = random.below(3) as usize;
    trial.phase(&format!("node of broker {victim} cut off"), || {
        let since = stage.running.now_ms();
        let _there = stage.cut_off(victim);
        stage.running.writable_since(since, Duration::from_secs(60));
        stage.running.more(3000, Duration::from_secs(60));
    });
}
