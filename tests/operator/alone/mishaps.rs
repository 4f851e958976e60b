//! What goes wrong while brokers come and go: two operators act at once, the API server is out of reach in the middle of it, the
//! operator that leads loses its Lease and another goes on, and somebody asks for far too many brokers by mistake, or for none.
//! Clients notice nothing, which is judged as in `load`, and the status says what happens. `KLAMM_LONG=1`: the API server is
//! gone for a minute, and fifty brokers are asked for.

use std::time::{Duration, Instant};

use klamm_tests::{assert_contains, wait_for};
use serde_json::{Value, json};

use super::disks::Disks;
use super::scaling::settled;
use crate::clusters::World;
use crate::faulty::Proxy;
use crate::kubernetes::{Namespace, with_nodes_alone};
use crate::outages::{elect, leads};
use crate::process::{Operator, until_condition};
use crate::trial::{Trial, described, gone, trial};

/// Volumes that there are, but for the one of a broker that has come and gone: more brokers than that never start.
const PLACES: i64 = 5;

fn description(class: &str) -> Value {
    json!({
        "replicas": 3, "storage": { "size": "1Gi", "storageClassName": class, "whenScaled": "Delete" },
        "resources": { "requests": { "cpu": "0.05", "memory": "64Mi" }, "limits": { "memory": "256Mi" } },
        "config": { "default.replication.factor": 3, "min.insync.replicas": 2, "offsets.topic.num.partitions": 5 },
        "listeners": [{ "name": "plain", "port": 9092 }, { "name": "outside", "port": 9094, "type": "nodeport" }],
    })
}

fn patch(space: &Namespace, spec: &Value) {
    let patch = json!({ "spec": spec }).to_string();
    space.kubectl(["patch", "cluster", "load", "--type=merge", "--patch", &patch]).ok();
}

fn operation(space: &Namespace, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let found = wait_for(Duration::from_secs(120), || {
        last = space.get("cluster", "load")?["status"].clone();
        std::thread::sleep(Duration::from_millis(200));
        fits(&last).then_some(())
    });
    assert!(found.is_some(), "{what}: {last:#}");
    last
}

fn names(space: &Namespace, kind: &str) -> String {
    let selector = "--selector=app.kubernetes.io/instance=load";
    space.kubectl(["get", kind, selector, "--output=jsonpath={.items[*].metadata.name}"]).ok().out
}

/// An operator, its way to the API server, and who it is.
struct Elected {
    operator: Operator,
    way: Proxy,
    name: &'static str,
}

impl Elected {
    fn new(space: &Namespace, name: &'static str) -> Elected {
        let way = Proxy::start();
        Elected { operator: elect(space, &way, name), way, name }
    }

    /// The next life of its pod: it begins where nobody may answer it.
    fn again(&mut self, space: &Namespace) {
        let flags = [format!("--namespace={}", space.name()), format!("--identity={}", self.name)];
        let flags = flags.each_ref().map(String::as_str);
        self.operator = Operator::launch(Some(&self.way.kubeconfig()), &[space], &flags);
    }
}

/// Where the one that leads stands. There is only one at any time.
fn leader(pair: &[Elected]) -> usize {
    klamm_tests::eventually("one leads", 60, || {
        let leading: Vec<usize> = (0..pair.len()).filter(|n| leads(&pair[*n].operator)).collect();
        assert!(leading.len() < 2, "{} lead", leading.len());
        leading.first().copied()
    })
}

/// Waits until a broker is being drained, a few replicas at a time.
fn until_drained(space: &Namespace) {
    operation(space, "a broker is drained", |status| status["operation"]["step"] == "Draining");
}

/// The operator that leads is cut off, and the other one goes on.
fn cut_off(space: &Namespace, pair: &mut [Elected]) {
    let (first, cut) = (leader(pair), Instant::now());
    pair[first].way.refuse();
    klamm_tests::eventually("the other one leads", 60, || leads(&pair[1 - first].operator).then_some(()));
    println!(
        "figures mishaps: the operator that leads cut off, the other one went on after {:.1} s",
        cut.elapsed().as_secs_f64()
    );
    assert!(pair[first].operator.ended().is_some(), "who cannot renew the lease has ended before");
    pair[first].again(space);
    pair[first].way.accept();
}

/// The API server is gone in the middle of it, for longer than the Lease. When it is back, the operator that led stays cut off.
fn without_api_server(trial: &Trial<'_>, pair: &mut [Elected]) {
    let space = trial.stage.space;
    patch(space, &json!({ "replicas": 3, "rebalance": { "maxConcurrentMoves": 2 } }));
    until_drained(space);
    if klamm_tests::long() {
        cut_off(space, pair);
    }
    let (first, cut) = (leader(pair), Instant::now());
    pair.iter().for_each(|one| one.way.refuse());
    klamm_tests::eventually("who cannot renew the lease ends", 60, || pair[first].operator.ended().map(|_| ()));
    let ended = cut.elapsed();
    pair[first].again(space);
    trial.stage.running.more(1000, Duration::from_secs(60));
    std::thread::sleep(Duration::from_secs(if klamm_tests::long() { 60 } else { 20 }).saturating_sub(cut.elapsed()));
    let set = space.get("statefulset", "load").expect("brokers");
    assert_eq!(set["spec"]["replicas"], 4, "nobody has looked: {set:#}");
    pair[1 - first].way.accept();
    let back = Instant::now();
    settled(space, "load", 3);
    assert!(leads(&pair[1 - first].operator), "the other one goes on");
    println!(
        "figures mishaps: no API server for {:.0} s while a broker goes, the operator that leads ended after {:.1} s; by the \
         other one the broker was gone {:.1} s after",
        (back - cut).as_secs_f64(),
        ended.as_secs_f64(),
        back.elapsed().as_secs_f64(),
    );
    pair[first].way.accept();
    assert_eq!(names(space, "pods"), "load-0 load-1 load-2");
}

/// Fifty by mistake: those that find a place wait for the others, the cluster serves.
fn too_many(space: &Namespace, many: i64) {
    let since = Instant::now();
    patch(space, &json!({ "replicas": many, "rebalance": null }));
    let shown = operation(space, "they are waited for", |status| {
        let conditions = status["conditions"].to_string();
        status["replicas"] == many && status["readyReplicas"] == PLACES && conditions.contains("persistent volumes")
    });
    let begun = since.elapsed();
    let (kind, step) = (&shown["operation"]["type"], &shown["operation"]["step"]);
    assert_eq!((kind, step), (&json!("ScaleOut"), &json!("WaitingForBroker")), "{shown:#}");
    until_condition(space, "cluster", "load", "Ready", "True/Degraded");
    println!(
        "figures mishaps: {many} brokers asked for by mistake, {:.1} s until the status says what is wrong",
        begun.as_secs_f64()
    );
}

/// All go again.
fn back_to_three(space: &Namespace) {
    let since = Instant::now();
    patch(space, &json!({ "replicas": 3 }));
    settled(space, "load", 3);
    println!("figures mishaps: three again {:.1} s after that is taken back", since.elapsed().as_secs_f64());
}

/// None at all is not what anybody can ask for.
fn none(space: &Namespace) {
    let patch = json!({ "spec": { "replicas": 0 } }).to_string();
    for ask in [
        ["scale", "cluster", "load", "--replicas=0"].as_slice(),
        &["patch", "cluster", "load", "--type=merge", "-p", &patch],
    ] {
        let refused = space.kubectl(ask).run();
        assert!(refused.code != 0, "{refused}");
        assert_contains(&refused.err, "spec.replicas");
    }
    assert_eq!(space.get("cluster", "load").expect("a cluster")["spec"]["replicas"], 3);
}

#[test]
fn brokers_that_go_while_other_things_fail() {
    with_nodes_alone("alone::mishaps::brokers_that_go_while_other_things_fail", || {
        let world = World::new("mishaps");
        let disks = Disks::make(&world.space, 2);
        let (space, bootstrap, mut operator) = described(world, description(&disks.class));
        let space = &space;
        let _gone = gone(space);
        trial("mishaps", space, bootstrap, |trial| {
            let mut more = Operator::start(&[space]);
            let took = trial.phase("3 to 4, by two operators that do not know of each other", || {
                patch(space, &json!({ "replicas": 4 }));
                settled(space, "load", 4);
            });
            println!("figures mishaps: 3 to 4 by two operators at once after {:.1} s", took.as_secs_f64());
            operator.kill();
            more.kill();

            let mut pair = [Elected::new(space, "first"), Elected::new(space, "second")];
            trial.phase("4 to 3, no API server meanwhile, then one operator", || without_api_server(trial, &mut pair));
            trial.phase("no broker asked for", || none(space));
            let many = if klamm_tests::long() { 50 } else { 15 };
            trial.phase(&format!("{many} brokers asked for"), || too_many(space, many));
            trial.phase(&format!("{many} to 3"), || back_to_three(space));
        });
        klamm_tests::eventually("three claims are left", 60, || {
            (names(space, "pvc") == "data-load-0 data-load-1 data-load-2").then_some(())
        });
    });
}
