//! What goes wrong while brokers go: the API server is out of reach in the middle of it, the operator that leads loses its
//! Lease and another goes on, and somebody asks for far too many brokers by mistake. Nothing is lost, and the status says what
//! happens. `KLAMM_LONG=1`: the API server is gone for a minute, and fifty brokers are asked for.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use klamm_tests::{Tool, wait_for};
use serde_json::{Value, json};

use crate::clusters::World;
use crate::disks::Disks;
use crate::faulty::Proxy;
use crate::kubernetes::{Namespace, image, with_nodes};
use crate::outages::{elect, leads};
use crate::process::{Operator, until_condition};
use crate::scaling::settled;

/// How many records are written first.
const RECORDS: usize = 2000;

/// The volumes of the class are all that there are: not more than five brokers ever start.
fn description(class: &str) -> Value {
    json!({
        "replicas": 3, "storage": { "size": "1Gi", "storageClassName": class, "whenScaled": "Delete" },
        "resources": { "requests": { "cpu": "0.05", "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
        "config": { "default.replication.factor": 2, "min.insync.replicas": 1 },
        "listeners": [{ "name": "plain", "port": 9092, "type": "nodeport" }],
    })
}

fn patch(space: &Namespace, spec: &Value) {
    let patch = json!({ "spec": spec }).to_string();
    space.kubectl(["patch", "cluster", "mishaps", "--type=merge", "--patch", &patch]).ok();
}

fn operation(space: &Namespace, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let found = wait_for(Duration::from_secs(120), || {
        last = space.get("cluster", "mishaps")?["status"].clone();
        std::thread::sleep(Duration::from_millis(200));
        fits(&last).then_some(())
    });
    assert!(found.is_some(), "{what}: {last:#}");
    last
}

#[test]
fn brokers_that_go_while_other_things_fail() {
    with_nodes("mishaps::brokers_that_go_while_other_things_fail", || {
        let world = World::new("mishaps");
        let disks = Disks::make(&world.space, 2);
        world.create("mishaps", description(&disks.class));
        let bootstrap = world.bootstrap("mishaps", "plain");
        klamm_tests::eventually("the port is open", 60, || {
            (world.klamm(&bootstrap, &["topics", "list"]).run().code == 0).then_some(())
        });
        world.klamm(&bootstrap, &["topics", "create", "t", "--partitions", "16"]).ok();
        let lines: String = (0..RECORDS).map(|n| format!("line-{n}\n")).collect();
        world.klamm(&bootstrap, &["produce", "t"]).stdin(&*lines).ok();
        let World { space, mut operator } = world;
        operator.kill();
        let space = &space;
        let all_there = |when: &str| {
            let klamm = Tool::new(image::static_binary("klamm")).args(["--bootstrap", &bootstrap]);
            let read = klamm.args(["consume", "t", "--from-beginning", "--exit-at-end"]).ok();
            assert_eq!(read.out.lines().collect::<BTreeSet<_>>().len(), RECORDS, "{when}");
        };

        let ways = [Proxy::start(), Proxy::start()];
        let mut first = elect(space, &ways[0], "first");
        klamm_tests::eventually("the first one leads", 60, || leads(&first).then_some(()));
        let second = elect(space, &ways[1], "second");
        patch(space, &json!({ "replicas": 4 }));
        settled(space, "mishaps", 4);

        // The API server is gone in the middle, for longer than the Lease.
        patch(space, &json!({ "replicas": 3, "rebalance": { "maxConcurrentMoves": 1 } }));
        operation(space, "it has begun", |status| status["operation"]["step"] == "Draining");
        let cut = Instant::now();
        ways.iter().for_each(Proxy::refuse);
        klamm_tests::eventually("who cannot renew the lease ends", 60, || first.ended().map(|_| ()));
        let ended = cut.elapsed();
        // As its pod's next life.
        let flags = [format!("--namespace={}", space.name()), "--identity=third".into()];
        let flags = flags.each_ref().map(String::as_str);
        let _third = Operator::launch(Some(&ways[0].kubeconfig()), &[space], &flags);
        let long = std::env::var("KLAMM_LONG").is_ok_and(|long| long == "1");
        std::thread::sleep(Duration::from_secs(if long { 60 } else { 20 }).saturating_sub(cut.elapsed()));
        let set = space.get("statefulset", "mishaps").expect("brokers");
        assert_eq!(set["spec"]["replicas"], 4, "nobody has looked: {set:#}");
        all_there("without an API server");
        ways.iter().for_each(Proxy::accept);
        let back = Instant::now();
        settled(space, "mishaps", 3);
        println!(
            "figures mishaps: no API server for {:.0} s while a broker goes, the operator ended after {:.1} s; gone {:.1} s after",
            (back - cut).as_secs_f64(),
            ended.as_secs_f64(),
            back.elapsed().as_secs_f64(),
        );
        all_there("with three brokers");
        let pods = space.kubectl(["get", "pods", "--output=jsonpath={.items[*].metadata.name}"]).ok().out;
        assert_eq!(pods, "mishaps-0 mishaps-1 mishaps-2");

        // Fifty by mistake: those that find a place wait for the others, the cluster serves, and all go again.
        let many = if long { 50 } else { 15 };
        let since = Instant::now();
        patch(space, &json!({ "replicas": many, "rebalance": null }));
        let shown = operation(space, "they are waited for", |status| {
            let conditions = status["conditions"].to_string();
            status["replicas"] == many && status["readyReplicas"] == 5 && conditions.contains("persistent volumes")
        });
        let (begun, step) = (since.elapsed(), &shown["operation"]["step"]);
        assert_eq!((&shown["operation"]["type"], step), (&json!("ScaleOut"), &json!("WaitingForBroker")), "{shown:#}");
        until_condition(space, "cluster", "mishaps", "Ready", "True/Degraded");
        all_there("while so many are asked for");
        let since = Instant::now();
        patch(space, &json!({ "replicas": 3 }));
        settled(space, "mishaps", 3);
        println!(
            "figures mishaps: {many} brokers asked for by mistake, {:.1} s until the status says what is wrong, three again \
             {:.1} s after that is taken back",
            begun.as_secs_f64(),
            since.elapsed().as_secs_f64(),
        );
        all_there("in the end");
        klamm_tests::eventually("three claims are left", 60, || {
            let claims = space.kubectl(["get", "pvc", "--output=jsonpath={.items[*].metadata.name}"]).ok().out;
            (claims == "data-mishaps-0 data-mishaps-1 data-mishaps-2").then_some(())
        });
        drop(second);
    });
}
