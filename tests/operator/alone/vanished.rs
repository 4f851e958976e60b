//! Brokers that are gone from one moment to the next: their node is cut off, and somebody deletes their pods by force, as one does
//! with what is left of a lost node. With a pod goes its name, so that nobody can ask any more where it was; that
//! nothing answers there has to be found out nevertheless, long before its session ends. Judged as in `load`.

use std::time::Duration;

use klamm_tests::Tool;
use serde_json::{Value, json};

use crate::clusters::World;
use crate::kubernetes::with_nodes_alone;
use crate::stage::Stage;
use crate::trial::{described, gone, trial};

fn description() -> Value {
    json!({
        "replicas": 3, "storage": { "size": "1Gi" },
        "resources": { "requests": { "cpu": "0.05", "memory": "64Mi" }, "limits": { "memory": "256Mi" } },
        "config": { "default.replication.factor": 3, "min.insync.replicas": 2, "offsets.topic.num.partitions": 5 },
        "listeners": [{ "name": "plain", "port": 9092 }, { "name": "outside", "port": 9094, "type": "nodeport" }],
    })
}

/// The broker that is the active controller, by what brokers say of themselves.
fn controller(stage: &Stage<'_>) -> usize {
    klamm_tests::eventually("one is the active controller", 30, || {
        (0..3).find(|broker| {
            let pod = stage.pod(*broker).unwrap_or_default();
            let url = format!("http://{}:9644/metrics", pod["status"]["podIP"].as_str().unwrap_or_default());
            let told = Tool::new("curl").args(["-sf", "--max-time", "2", &url]).run().out;
            told.lines().any(|line| line == "kafka_controller_kafkacontroller_activecontrollercount 1")
        })
    })
}

/// Cuts a broker's node off and deletes its pod by force, and goes on once clients write everywhere.
fn vanish(stage: &Stage<'_>, broker: usize) {
    let (before, since) = (stage.uid(broker), stage.running.now_ms());
    let there = stage.cut_off(broker);
    let pod = format!("load-{broker}");
    stage.space.kubectl(["delete", "pod", &pod, "--force", "--grace-period=0", "--wait=false"]).ok();
    stage.running.writable_since(since, Duration::from_secs(60));
    stage.running.more(3000, Duration::from_secs(60));
    drop(there);
    stage.replaced(broker, &before);
}

#[test]
fn a_name_that_nobody_knows_any_more_costs_no_session() {
    with_nodes_alone("alone::vanished::a_name_that_nobody_knows_any_more_costs_no_session", || {
        let (space, bootstrap, _operator) = described(World::new("vanished"), description());
        let _gone = gone(&space);
        trial("vanished", &space, bootstrap, |trial| {
            let rounds = if klamm_tests::long() { 10 } else { 1 };
            for _ in 0..rounds {
                let active = controller(&trial.stage);
                trial.phase("the active controller", || vanish(&trial.stage, active));
                let other = (controller(&trial.stage) + 1) % 3;
                trial.phase("another broker", || vanish(&trial.stage, other));
            }
        });
    });
}
