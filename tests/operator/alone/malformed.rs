//! One object that cannot be read stops nobody else. How it comes about: it was stored while its type was looser, by an
//! older or newer set of resource types.

use std::time::Duration;

use klamm_tests::{Broker, assert_contains, eventually, wait_for};
use serde_json::{Value, json};

use crate::kubernetes::kubectl::{install_types, kubectl};
use crate::kubernetes::{Namespace, with_control_plane_alone};
use crate::process::{Operator, until_condition};
use crate::types::object;

const TYPES: [&str; 3] = ["clusters", "topics", "consumergroups"];

/// One that the API server takes no status of: a rule of the type cannot be checked on it.
const RULED: &str = "ruled";

/// Lets the API server take anything for a kind.
fn loosen(plural: &str) {
    let found = kubectl(["get", "crd", &format!("{plural}.klamm.dev"), "--output=json"]).ok().out;
    let mut definition: Value = serde_json::from_str(&found).expect("JSON");
    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = anything;
    definition["metadata"] = json!({ "name": definition["metadata"]["name"] });
    definition.as_object_mut().expect("an object").remove("status");
    // By whom they are put back.
    kubectl(["apply", "--server-side", "--force-conflicts", "-f", "-"]).stdin(definition.to_string()).ok();
}

/// Puts the types back as they are.
fn tighten() {
    let crds = klamm_tests::paths::tests_dir().join("../crds").display().to_string();
    kubectl(["apply", "--server-side", "--force-conflicts", "-f", &crds]).ok();
}

/// An object of each kind with one field of another type than it should have.
fn slips(broker: &str) -> [(Value, &'static str); 6] {
    let at = |more: Value| {
        let mut spec = json!({ "bootstrapServers": broker });
        spec.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        spec
    };
    [
        (object("Topic", "slip", &at(json!({ "partitions": "three", "topicName": "orders" }))), "spec.partitions"),
        (object("Topic", "held", &at(json!({ "partitions": [1] }))), "spec.partitions"),
        (object("Topic", "worse", &json!({ "bootstrapServers": [9092] })), "spec.bootstrapServers"),
        (object("ConsumerGroup", "slip", &at(json!({ "topics": "orders" }))), "spec.topics"),
        (object("Cluster", "slip", &json!({ "replicas": 1, "image": 7 })), "spec.image"),
        (object("Cluster", RULED, &json!({ "replicas": 1, "listeners": "all" })), "spec.listeners"),
    ]
}

/// What was described after those is as described, and what was before goes.
fn others_are_looked_after(space: &Namespace, broker: &Broker, round: &str) {
    let spec = json!({ "bootstrapServers": broker.bootstrap(), "partitions": 2 });
    space.apply(&object("Topic", round, &spec));
    let group = json!({ "bootstrapServers": broker.bootstrap(), "deletionPolicy": "DeleteWhenEmpty" });
    space.apply(&object("ConsumerGroup", round, &group));
    space.apply(&object("Cluster", round, &json!({ "replicas": 1, "config": { "node.id": 7 } })));
    until_condition(space, "kmt", round, "Ready", "True/AsDescribed");
    until_condition(space, "kmg", round, "Ready", "True");
    until_condition(space, "kmc", round, "Stalled", "True/InvalidConfig");
    space.kubectl(["delete", "kmt,kmg,kmc", round, "--timeout=60s"]).limit(70).ok();
    assert_eq!(crate::topics::described(broker, round), None, "its topic has gone with it");
}

#[test]
fn what_cannot_be_read_stops_nobody_else() {
    with_control_plane_alone("alone::malformed::what_cannot_be_read_stops_nobody_else", || {
        install_types();
        let (space, broker) = (Namespace::new("malformed"), Broker::start(&[]));
        let mut operator = Operator::start(&[&space]);
        // An older one describes the topic that the slip names, too: neither takes it from the other.
        let orders = json!({ "bootstrapServers": broker.bootstrap(), "partitions": 1, "topicName": "orders" });
        let slips = slips(broker.bootstrap());
        TYPES.iter().for_each(|plural| loosen(plural));
        for (slip, _) in &slips {
            let stored = wait_for(Duration::from_secs(60), || (space.send("apply", slip).code == 0).then_some(()));
            assert!(stored.is_some(), "{slip:#} is not taken: {}", space.send("apply", slip));
        }
        tighten();
        for (slip, _) in &slips {
            let mut next = slip.clone();
            next["metadata"]["name"] = "refused".into();
            eventually("its type is as it was", 60, || {
                let told = space.kubectl(["create", "--dry-run=server", "-f", "-"]).stdin(next.to_string()).run();
                (told.code != 0).then_some(())
            });
        }
        // Of one second nobody is older.
        std::thread::sleep(Duration::from_millis(1100));
        space.apply(&object("Topic", "younger", &orders));

        // Each is told of, with the field.
        let told = |operator: &Operator| {
            for (slip, field) in &slips {
                let kind = slip["kind"].as_str().expect("a kind");
                let name = slip["metadata"]["name"].as_str().expect("a name");
                if name != RULED {
                    let found = until_condition(&space, kind, name, "Stalled", "True/Malformed");
                    assert_contains(&found["status"]["conditions"].to_string(), field);
                }
                let shown = format!("{}/{name}", space.name());
                eventually("the log names it", 20, || {
                    let log = operator.log();
                    log.lines().any(|line| line.contains(&shown) && line.contains(field)).then_some(())
                });
                eventually("an Event names it", 20, || {
                    let shown = space.kubectl(["describe", kind, name]).ok().out;
                    let told =
                        |line: &str| line.contains("Warning") && line.contains("Malformed") && line.contains(field);
                    shown.lines().any(told).then_some(())
                });
            }
            for controller in ["cluster", "topic", "consumergroup"] {
                let counted = format!("klamm_operator_malformed_objects_total{{controller=\"{controller}\"}}");
                assert!(operator.metric(&counted) >= 1.0, "{counted}");
            }
        };
        told(&operator);
        others_are_looked_after(&space, &broker, "beside");
        until_condition(&space, "kmt", "younger", "Ready", "False/ResourceConflict");

        // One that finds them when it starts; it says nothing twice.
        let versions = || {
            let path = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
            space.kubectl(["get", "kmt,kmg,kmc", "--output", path]).ok().out
        };
        let before = versions();
        operator.kill();
        let operator = Operator::start(&[&space]);
        told(&operator);
        others_are_looked_after(&space, &broker, "after");
        assert_eq!(versions(), before);

        // Mended, it is looked after; deleted, it waits for a word, if there is something to undo.
        let patch = |kind: &str, name: &str, patch: Value| {
            space.kubectl(["patch", kind, name, "--type=merge", "--patch", &patch.to_string()]).ok();
        };
        patch("kmt", "slip", json!({ "spec": { "partitions": 2 } }));
        until_condition(&space, "kmt", "slip", "Ready", "True/AsDescribed");
        patch("kmg", "slip", json!({ "spec": { "topics": ["orders"] } }));
        until_condition(&space, "kmg", "slip", "Ready", "True");
        patch("kmt", "held", json!({ "metadata": { "finalizers": ["klamm.dev/topic"] } }));
        space.kubectl(["delete", "kmt", "held", "--wait=false"]).ok();
        space.until("kmt", "held", 30, |found| {
            found["status"]["conditions"].to_string().contains("klamm.dev/force-finalize=true").then_some(())
        });
        space.kubectl(["annotate", "kmt", "held", "klamm.dev/force-finalize=true"]).ok();
        space.kubectl(["wait", "--for=delete", "--timeout=30s", "kmt/held"]).ok();
        space.kubectl(["delete", "kmt,kmg,kmc", "--all", "--timeout=60s"]).limit(70).ok();
    });
}
