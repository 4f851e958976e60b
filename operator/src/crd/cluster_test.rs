//! What the API server refuses of a Cluster, by the same rules run here.

use kube::CustomResourceExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Cluster;

fn named(name: &str, spec: Value) -> Cluster {
    let text =
        json!({ "apiVersion": "klamm.dev/v1alpha1", "kind": "Cluster", "metadata": { "name": name }, "spec": spec });
    serde_json::from_value(text).expect("a cluster")
}

fn cluster(spec: Value) -> Cluster {
    named("prod", spec)
}

#[track_caller]
fn refused(result: Result<(), impl std::fmt::Display>, why: &str) {
    let error = result.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains(why), "{why:?} expected, found {error:?}");
}

#[test]
fn an_empty_description_is_a_cluster_of_three() {
    let cluster = cluster(json!({}));
    assert!(cluster.validate_cel().is_ok());
    assert_eq!(cluster.spec.replicas, 3);
    assert_eq!(cluster.spec.storage.size, "10Gi");
    assert_eq!(cluster.spec.listeners.len(), 1);
    assert_eq!((cluster.spec.listeners[0].name.as_str(), cluster.spec.listeners[0].port), ("plain", 9092));
}

#[test]
fn names_fit_into_those_that_are_made_of_them() {
    assert!(named(&"a".repeat(40), json!({})).validate_cel().is_ok());
    refused(named(&"a".repeat(41), json!({})).validate_cel(), "at most 40 characters");
    refused(named("1st", json!({})).validate_cel(), "begins with a letter");
    refused(named("a.b", json!({})).validate_cel(), "begins with a letter");
}

#[test]
fn listeners_do_not_clash() {
    let listeners = |ports: &[i32]| {
        let all: Vec<_> =
            ports.iter().enumerate().map(|(i, port)| json!({ "name": format!("l{i}"), "port": port })).collect();
        cluster(json!({ "listeners": all }))
    };
    assert!(listeners(&[9092, 9094]).validate_cel().is_ok());
    refused(listeners(&[9092, 9092]).validate_cel(), "two listeners with one port");
    refused(listeners(&[9093]).validate_cel(), "9093 (among brokers)");
    refused(listeners(&[9644]).validate_cel(), "9644 (health and metrics)");
    let own = json!({ "listeners": [{ "name": "replication", "port": 9092 }] });
    refused(cluster(own).validate_cel(), "the operator's own");
    let inside = json!({ "listeners": [{ "name": "plain", "port": 9092, "advertisedHost": "b-{id}.example.com" }] });
    refused(cluster(inside).validate_cel(), "advertisedHost belongs to");
    let shared = json!([{ "name": "plain", "port": 9092, "type": "nodeport", "advertisedHost": "b.example.com" }]);
    assert!(cluster(json!({ "replicas": 1, "listeners": shared })).validate_cel().is_ok());
    refused(cluster(json!({ "listeners": shared })).validate_cel(), "advertisedHost has {id}");
}

#[test]
fn volumes_grow_and_stay_what_they_are() {
    let storage = |storage: Value| cluster(json!({ "storage": storage }));
    let old = storage(json!({ "size": "100Gi", "storageClassName": "fast" }));
    assert!(storage(json!({ "size": "0.2Ti", "storageClassName": "fast" })).validate_cel_update(&old).is_ok());
    let smaller = storage(json!({ "size": "100G", "storageClassName": "fast" }));
    refused(smaller.validate_cel_update(&old), "cannot become smaller");
    refused(storage(json!({ "size": "100Gi" })).validate_cel_update(&old), "storageClassName cannot change");
    let other = storage(json!({ "size": "100Gi", "storageClassName": "slow" }));
    refused(other.validate_cel_update(&old), "storageClassName cannot change");
    let gone = storage(json!({ "type": "Ephemeral", "size": "100Gi", "storageClassName": "fast" }));
    refused(gone.validate_cel_update(&old), "storage.type cannot change");
    refused(storage(json!({ "size": "0Gi" })).validate_cel(), "1Mi at least");
    refused(storage(json!({ "size": "1" })).validate_cel(), "1Mi at least");
    refused(storage(json!({ "size": "2Ei" })).validate_cel(), "less than 1Ei");
    let nowhere = storage(json!({ "type": "Ephemeral", "storageClassName": "fast" }));
    refused(nowhere.validate_cel(), "storageClassName belongs to");
}

#[test]
fn partitions_move_at_some_pace() {
    let throttled = |rate: &str| cluster(json!({ "rebalance": { "throttle": rate } }));
    assert!(throttled("50Mi").validate_cel().is_ok());
    refused(throttled("0").validate_cel(), "nothing moves");
    refused(throttled("0.5").validate_cel(), "nothing moves");
}

#[test]
fn processor_and_memory_are_quantities() {
    let schema = serde_json::to_value(Cluster::crd()).expect("JSON");
    let resources =
        &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["resources"];
    for kind in ["limits", "requests"] {
        let quantity = &resources["properties"][kind]["additionalProperties"];
        assert_eq!(quantity["x-kubernetes-int-or-string"], true, "{kind}: `cpu: 2` is one, too");
        let pattern = regex::Regex::new(quantity["pattern"].as_str().expect("a pattern")).expect("a good one");
        for right in ["2", "500m", "0.5", ".5", "1.", "512Mi", "1.5G", "100k", "1e3", "1E-3", "+1", "1E", "50n"] {
            assert!(pattern.is_match(right), "{kind}: {right}");
        }
        for wrong in ["abc", "", "Gi", "1K", "1mi", "1 Gi", "1Gb", "-1", "1.2.3", "1e", "1e0.5", "512 Mi"] {
            assert!(!pattern.is_match(wrong), "{kind}: {wrong}");
        }
    }
}

#[test]
fn namespaces_are_selected_by_a_selector() {
    let from = |namespaces: Value| cluster(json!({ "allowedNamespaces": namespaces }));
    assert!(from(json!({ "from": "All" })).validate_cel().is_ok());
    assert!(from(json!({ "from": "Selector", "selector": { "matchLabels": { "a": "b" } } })).validate_cel().is_ok());
    refused(from(json!({ "from": "Selector" })).validate_cel(), "selector belongs to");
    refused(from(json!({ "selector": {} })).validate_cel(), "selector belongs to");
}

fn windows(cron: &str) -> Result<(), String> {
    let rolling = json!({ "windows": [{ "cron": cron, "duration": "1h" }] });
    cluster(json!({ "rolling": rolling })).validate_cel().map_err(|error| error.to_string())
}

#[test]
fn a_window_that_never_opens_is_refused_when_it_is_applied() {
    for cron in [
        "60 0 * * *",
        "0 24 * * *",
        "0 2 32 * *",
        "0 2 * 13 *",
        "0 2 * * 8",
        "0-75 2 * * *",
        "*/90 2 * * *",
        "0,99 2 * * *",
        "a 2 * * *",
        "0 2 * * sunday",
        "0 -1 * * *",
        "0  2 * *",
        "@daily",
        "0 2 * *",
    ] {
        let said = windows(cron).err().unwrap_or_default();
        assert!(said.contains("minute (0-59)"), "{cron}: {said:?}");
    }
    for cron in
        ["0 2 * * 6,0", "*/15 0-5,22-23 1,15 jan-MAR mon-fri", "59 23 31 12 7", "05 02 L * 5L", "0 2 15W * MON#1"]
    {
        assert_eq!(windows(cron), Ok(()), "{cron}");
        assert!(crate::roll::window::Window::parse(cron, "1h").is_ok(), "{cron}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_that_makes_sense_is_refused(cron in "[*0-9][0-9]?([-/,][0-9]{1,2})? [*0-9][0-9]?([-/,][0-9]{1,2})? ([*L]|[0-9]{1,2}W?)(,[0-9]{1,2})? ([*]|[0-9]{1,2}|(JAN|dec)(-[0-9]{1,2})?) ([*]|[0-9]|(MON|sun)(L|#[0-9])?)([-/,][0-9])?") {
        if crate::roll::window::Window::parse(&cron, "1h").is_ok() {
            prop_assert_eq!(windows(&cron), Ok(()), "{}", cron);
        }
    }
}
