//! Every rule of the resource types, by the API server itself: what it refuses, what it admits, and that none is missing.
//!
//! The types' unit tests check the same rules with another CEL implementation; here is the one that counts.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kubernetes::kubectl::{install_types, kubectl};
use crate::kubernetes::{Namespace, with_control_plane};
use crate::types::{condition, object};

/// A description, on its own or in place of an earlier one with a status.
struct Case {
    kind: &'static str,
    name: String,
    before: Option<Value>,
    status: Option<Value>,
    after: Value,
    /// A part of what the server answers; empty when it takes the description.
    refusal: &'static str,
}

fn new(kind: &'static str, after: Value, refusal: &'static str) -> Case {
    Case { kind, name: "one".into(), before: None, status: None, after, refusal }
}

fn change(kind: &'static str, before: Value, after: Value, refusal: &'static str) -> Case {
    Case { before: Some(before), ..new(kind, after, refusal) }
}

/// `base` with the fields of `more`.
fn with(base: &Value, more: &Value) -> Value {
    let mut all = base.clone();
    let fields = more.as_object().cloned().unwrap_or_default();
    all.as_object_mut().expect("an object").extend(fields);
    all
}

fn here(more: &Value) -> Value {
    with(&json!({ "clusterRef": { "name": "a" } }), more)
}

fn clusters() -> Vec<Case> {
    let cluster = |spec: Value, refusal| new("Cluster", spec, refusal);
    let named = |name: &str, refusal| Case { name: name.into(), ..cluster(json!({}), refusal) };
    let listeners = |ports: &[i32], refusal| {
        let all = ports.iter().enumerate().map(|(i, port)| json!({ "name": format!("l{i}"), "port": port }));
        cluster(json!({ "listeners": all.collect::<Vec<_>>() }), refusal)
    };
    let listener = |more: Value, refusal| {
        cluster(json!({ "listeners": [with(&json!({ "name": "plain", "port": 9092 }), &more)] }), refusal)
    };
    let storage = |before: Value, after: Value, refusal| {
        change("Cluster", json!({ "storage": before }), json!({ "storage": after }), refusal)
    };
    let resources =
        |kind: &str, memory: Value, refusal| cluster(json!({ "resources": { kind: { "memory": memory } } }), refusal);
    let from = |namespaces: Value, refusal| cluster(json!({ "allowedNamespaces": namespaces }), refusal);
    let window = |cron: &str, duration: &str, refusal| {
        cluster(json!({ "rolling": { "windows": [{ "cron": cron, "duration": duration }] } }), refusal)
    };
    let one_address = json!({ "name": "a", "port": 9092, "type": "nodeport", "advertisedHost": "b.example.com" });
    let fast = |size: &str| json!({ "size": size, "storageClassName": "fast" });
    vec![
        cluster(json!({}), ""),
        named(&"a".repeat(40), ""),
        named(&"a".repeat(41), "at most 40 characters"),
        named("1st", "begins with a letter"),
        named("a.b", "begins with a letter"),
        cluster(json!({ "replicas": 0 }), "should be greater than or equal to 1"),
        cluster(json!({ "replicas": 1001 }), "should be less than or equal to 1000"),
        cluster(json!({ "replica": 3 }), "unknown field \"spec.replica\""),
        cluster(json!({ "version": "not a tag" }), "spec.version"),
        cluster(json!({ "listeners": [] }), "should have at least 1 items"),
        window("0 2 * * 6,0", "3h", ""),
        window("*/15 0-4 1,L JAN-MAR MON#2", "168h", ""),
        window("60 2 * * *", "3h", "cron is minute (0-59)"),
        window("0 2 * * 8", "3h", "cron is minute (0-59)"),
        window("0 2 * *", "3h", "spec.rolling.windows[0].cron"),
        window("0 2 * * *", "8d", "spec.rolling.windows[0].duration"),
        listeners(&[9092, 9094], ""),
        listeners(&[9092, 9092], "two listeners with one port"),
        listeners(&[9093], "9093 (among brokers)"),
        listeners(&[9644], "9644 (health and metrics)"),
        listeners(&[80], "should be greater than or equal to 1024"),
        cluster(
            json!({ "listeners": [{ "name": "a", "port": 9092 }, { "name": "a", "port": 9094 }] }),
            "Duplicate value",
        ),
        listener(json!({ "name": "replication" }), "the operator's own"),
        listener(json!({ "name": "Plain" }), "should match"),
        listener(json!({ "type": "public" }), "supported values: \"internal\", \"nodeport\", \"loadbalancer\""),
        listener(json!({ "advertisedHost": "b-{id}.example.com" }), "advertisedHost belongs to"),
        listener(json!({ "advertisedHost": "b-{id}.example.com", "type": "nodeport" }), ""),
        listener(json!({ "advertisedHost": "b.example.com", "type": "nodeport" }), "advertisedHost has {id}"),
        listener(json!({ "advertisedHost": "fd00::{id}", "type": "nodeport" }), ""),
        listener(json!({ "advertisedHost": "b-{id}.example.com:9092", "type": "nodeport" }), "should match"),
        listener(json!({ "advertisedHost": "...", "type": "nodeport" }), "should match"),
        listener(json!({ "tls": { "secretName": "billing.example" } }), ""),
        listener(json!({ "tls": { "secretName": "../billing" } }), "should match"),
        cluster(json!({ "storage": { "storageClassName": "Fast Disks" } }), "should match"),
        change(
            "Cluster",
            json!({ "replicas": 1, "listeners": [one_address] }),
            json!({ "listeners": [one_address] }),
            "advertisedHost has {id}",
        ),
        listener(
            json!({ "type": "loadbalancer", "service": { "loadBalancerSourceRanges": ["everybody"] } }),
            "spec.listeners[0].service.loadBalancerSourceRanges",
        ),
        listener(json!({ "service": { "labels": { "a": "b" } } }), "service belongs to"),
        listener(json!({ "service": { "labels": { "a": "b" } }, "type": "loadbalancer" }), ""),
        storage(fast("100Gi"), fast("0.2Ti"), ""),
        storage(fast("100Gi"), fast("100G"), "cannot become smaller"),
        storage(fast("100Gi"), json!({ "size": "100Gi" }), "storageClassName cannot change"),
        storage(json!({ "size": "100Gi" }), fast("100Gi"), "storageClassName cannot change"),
        storage(
            fast("100Gi"),
            json!({ "size": "100Gi", "storageClassName": "slow" }),
            "storageClassName cannot change",
        ),
        storage(fast("1Gi"), with(&fast("1Gi"), &json!({ "type": "Ephemeral" })), "storage.type cannot change"),
        cluster(json!({ "storage": { "size": "0Gi" } }), "1Mi at least"),
        cluster(json!({ "storage": { "size": "99999999Ei" } }), "less than 1Ei"),
        cluster(
            json!({ "storage": { "type": "Ephemeral", "storageClassName": "fast" } }),
            "storageClassName belongs to",
        ),
        cluster(json!({ "image": "a b" }), "spec.image"),
        cluster(json!({ "storage": { "size": "much" } }), "spec.storage.size"),
        cluster(json!({ "replicas": 3, "minReplicas": 5, "rebalance": { "throttle": "1k" } }), ""),
        resources("limits", json!("512Mi"), ""),
        resources("limits", json!(2), ""),
        resources("limits", json!("1e3"), ""),
        resources("limits", json!("abc"), "spec.resources.limits.memory"),
        resources("requests", json!("512 MB"), "spec.resources.requests.memory"),
        resources("requests", json!("-1"), "spec.resources.requests.memory"),
        cluster(json!({ "rebalance": { "throttle": "fast" } }), "spec.rebalance.throttle"),
        cluster(json!({ "minReplicas": 0 }), "spec.minReplicas"),
        cluster(json!({ "rebalance": { "throttle": "0" } }), "nothing moves"),
        cluster(json!({ "rebalance": { "maxConcurrentMoves": 0 } }), "spec.rebalance.maxConcurrentMoves"),
        from(json!({ "from": "All" }), ""),
        from(json!({ "from": "Selector", "selector": { "matchLabels": { "a": "b" } } }), ""),
        from(json!({ "from": "Selector" }), "selector belongs to"),
        from(json!({ "selector": {} }), "selector belongs to"),
    ]
}

fn topics() -> Vec<Case> {
    let topic = |spec: Value, refusal| new("Topic", spec, refusal);
    let change = |before: Value, after: Value, refusal| change("Topic", before, after, refusal);
    let grown = |before: Value, there: i32, after: Value, refusal| Case {
        status: Some(json!({ "partitions": there })),
        ..change(before, after, refusal)
    };
    let elsewhere = json!({ "bootstrapServers": "b:9092,c:9092" });
    let parts = |partitions: i32| here(&json!({ "partitions": partitions }));
    vec![
        topic(here(&json!({})), ""),
        topic(elsewhere.clone(), ""),
        topic(json!({}), "exactly one of clusterRef and bootstrapServers"),
        topic(here(&elsewhere), "exactly one of clusterRef and bootstrapServers"),
        topic(json!({ "clusterRef": { "name": "a", "namespace": "../b" } }), "should match"),
        topic(json!({ "clusterRef": { "name": "../a" } }), "should match"),
        topic(json!({ "bootstrapServers": "nowhere" }), "spec.bootstrapServers"),
        topic(json!({ "bootstrapServers": "b:9092,[::1]:65535" }), ""),
        topic(json!({ "bootstrapServers": "b:9092,c:65536" }), "each address is host:port"),
        topic(here(&json!({ "topicName": "__consumer_offsets" })), "that topic is the brokers' own"),
        topic(here(&json!({ "topicName": "__connect" })), ""),
        Case { name: "x".repeat(250), ..topic(here(&json!({})), "249 characters at most") },
        Case { name: "x".repeat(250), ..topic(here(&json!({ "topicName": "x" })), "") },
        change(here(&json!({})), json!({ "clusterRef": { "name": "b" } }), "clusterRef cannot change"),
        change(here(&json!({})), elsewhere, "clusterRef cannot change"),
        change(here(&json!({ "topicName": "v1" })), here(&json!({ "topicName": "v2" })), "topicName cannot change"),
        change(here(&json!({ "topicName": "v1" })), here(&json!({})), "topicName cannot change"),
        change(here(&json!({})), here(&json!({ "topicName": "v1" })), "topicName cannot change"),
        topic(here(&json!({ "topicName": ".." })), "no topic names"),
        topic(here(&json!({ "topicName": "a/b" })), "spec.topicName"),
        topic(here(&json!({ "partitions": 0 })), "should be greater than or equal to 1"),
        grown(parts(12), 12, parts(11), "fewer than it has"),
        grown(parts(12), 12, parts(13), ""),
        grown(here(&json!({})), 12, parts(11), "fewer than it has"),
        grown(parts(12), 12, here(&json!({})), ""),
        // A slip on a topic that was never made may be corrected.
        change(parts(30_000), parts(3), ""),
        // Somebody else has grown it: other changes are still possible.
        grown(parts(12), 20, with(&parts(12), &json!({ "replicationFactor": 2 })), ""),
        // That both say the same is found by the operator: rules do not see the values of `config`.
        topic(here(&json!({ "retention": { "time": "7d" }, "config": { "retention.ms": 1000 } })), ""),
        topic(
            here(
                &json!({ "retention": { "time": "7d" }, "config": { "retention.bytes": 1, "min.insync.replicas": null } }),
            ),
            "",
        ),
        topic(here(&json!({ "cleanupPolicy": ["compact", "compact"] })), "Duplicate value"),
        topic(here(&json!({ "retention": { "time": "1 week" } })), "spec.retention.time"),
        topic(here(&json!({ "retention": { "size": "much" } })), "spec.retention.size"),
        topic(here(&json!({ "config": { "a": 1, "b": "x", "c": true, "d": null, "e": [1], "f": 0.5 } })), ""),
    ]
}

fn groups() -> Vec<Case> {
    let group = |more: Value, refusal| new("ConsumerGroup", here(&more), refusal);
    let change = |before: Value, after: Value, refusal| change("ConsumerGroup", before, after, refusal);
    let reset = |to: Value, refusal| group(json!({ "reset": { "id": "1", "to": to } }), refusal);
    let named = |name: &str| here(&json!({ "groupId": name }));
    let scaled = |more: Value, rest: Value, refusal| {
        let scale = with(&json!({ "targetRef": { "name": "billing" } }), &more);
        group(with(&json!({ "scale": scale }), &rest), refusal)
    };
    let scale = |more: Value, refusal| scaled(more, json!({}), refusal);
    let stops = json!({ "id": "1", "to": { "offset": "Earliest" }, "whenActive": "PauseTarget" });
    let begins = |more: Value, refusal| group(with(&json!({ "topics": ["t"] }), &more), refusal);
    vec![
        group(json!({}), ""),
        group(json!({ "bootstrapServers": "b:9092" }), "exactly one of clusterRef and bootstrapServers"),
        new("ConsumerGroup", json!({}), "exactly one of clusterRef and bootstrapServers"),
        new("ConsumerGroup", json!({ "bootstrapServers": "b:0" }), "each address is host:port"),
        change(here(&json!({})), json!({ "clusterRef": { "name": "b" } }), "clusterRef cannot change"),
        change(here(&json!({})), json!({ "bootstrapServers": "b:9092" }), "clusterRef cannot change"),
        change(named("v1"), here(&json!({ "groupId": "v1", "topics": ["t"] })), ""),
        change(named("v1"), named("v2"), "groupId cannot change"),
        change(named("v1"), here(&json!({})), "groupId cannot change"),
        reset(json!({ "offset": "Earliest" }), ""),
        reset(json!({ "timestamp": "2026-10-01T00:00:00Z" }), ""),
        reset(json!({ "offsets": { "t-0": 5 } }), ""),
        reset(json!({ "offsets": { "t-0": -1 } }), "should be greater than or equal to 0"),
        reset(json!({ "offsets": {} }), "at least 1"),
        reset(json!({ "shiftBy": -5 }), ""),
        reset(json!({}), "exactly one of offset, timestamp, shiftBy and offsets"),
        reset(json!({ "offset": "Latest", "shiftBy": -5 }), "exactly one of offset, timestamp, shiftBy and offsets"),
        reset(json!({ "timestamp": "yesterday" }), "spec.reset.to.timestamp"),
        begins(json!({ "initialOffsets": { "offset": "Earliest" } }), ""),
        begins(json!({ "initialOffsets": {} }), "exactly one of offset and timestamp"),
        group(json!({ "initialOffsets": { "offset": "Earliest" } }), "initialOffsets need topics"),
        group(json!({ "lagPolicy": {} }), "maxLag, maxLagTime or both"),
        group(json!({ "lagPolicy": { "maxLag": 0 } }), ""),
        group(json!({ "lagPolicy": { "maxLagTime": "5m" } }), ""),
        group(json!({ "lagPolicy": { "maxLag": -1 } }), "should be greater than or equal to 0"),
        scale(json!({ "maxReplicas": 12 }), ""),
        scale(json!({ "minReplicas": 0, "maxReplicas": 12, "downWindow": "1h", "allowIdle": true }), ""),
        scale(json!({ "mode": "Manual" }), ""),
        scale(json!({}), "maxReplicas is needed, and is minReplicas or more"),
        scale(json!({ "minReplicas": 3, "maxReplicas": 2 }), "maxReplicas is needed, and is minReplicas or more"),
        scale(json!({ "minReplicas": -1, "maxReplicas": 2 }), "should be greater than or equal to 0"),
        scale(json!({ "maxReplicas": 2, "lagPerReplica": 0 }), "should be greater than or equal to 1"),
        scale(json!({ "maxReplicas": 2, "upWindow": "soon" }), "spec.scale.upWindow"),
        scale(json!({ "targetRef": { "name": "../../billing" } }), "should match"),
        scale(json!({ "mode": "Manual", "targetRef": { "kind": "Job", "name": "a" } }), "supported values"),
        group(json!({ "reset": stops }), "PauseTarget needs scale.targetRef"),
        scaled(json!({ "mode": "Manual" }), json!({ "reset": stops }), ""),
    ]
}

/// What the server answers to a case; empty when it agrees.
fn answer(space: &Namespace, case: &Case) -> String {
    let after = object(case.kind, &case.name, &case.after);
    let Some(before) = &case.before else {
        let output = space.kubectl(["create", "--dry-run=server", "-f", "-"]).stdin(after.to_string()).run();
        return if output.code == 0 { String::new() } else { output.err };
    };
    let before = object(case.kind, &case.name, before);
    space.send("create", &before).expect_ok();
    if let Some(status) = &case.status {
        space.set_status(case.kind, &case.name, status).expect_ok();
    }
    let output = space.send("replace", &after);
    space.kubectl(["delete", case.kind, &case.name, "--wait=false"]).ok();
    if output.code == 0 { String::new() } else { output.err }
}

fn check(what: &str, cases: &[Case]) {
    install_types();
    let space = Namespace::new(what);
    let mut wrong = Vec::new();
    for case in cases {
        let found = answer(&space, case);
        let right = if case.refusal.is_empty() { found.is_empty() } else { found.contains(case.refusal) };
        if !right {
            let before = case.before.as_ref().map(|before| format!("{before} -> ")).unwrap_or_default();
            let wanted = if case.refusal.is_empty() { "to be taken" } else { case.refusal };
            wrong.push(format!("{} {before}{}\n  expected {wanted:?}, found {found:?}", case.kind, case.after));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn of_a_cluster() {
    with_control_plane("rules::of_a_cluster", || check("clusters", &clusters()));
}

#[test]
fn of_a_topic() {
    with_control_plane("rules::of_a_topic", || check("topics", &topics()));
}

#[test]
fn of_a_consumer_group() {
    with_control_plane("rules::of_a_consumer_group", || check("groups", &groups()));
}

/// Every message of a rule below a schema.
fn messages(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                found.insert(rule["message"].as_str().expect("a rule has a message").to_owned());
            }
            fields.values().for_each(|value| messages(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| messages(value, found)),
        _ => {}
    }
}

#[test]
fn none_is_without_a_test() {
    with_control_plane("rules::none_is_without_a_test", || {
        install_types();
        let mut untested = Vec::new();
        let kinds = [("clusters", clusters()), ("topics", topics()), ("consumergroups", groups())];
        for (plural, cases) in kinds {
            let text = kubectl(["get", "crd", &format!("{plural}.klamm.dev"), "--output=json"]).ok().out;
            let mut found = BTreeSet::new();
            messages(&serde_json::from_str(&text).expect("JSON"), &mut found);
            assert!(found.len() >= 5, "{plural}: {found:?}");
            let refusals = || cases.iter().map(|case| case.refusal).filter(|refusal| !refusal.is_empty());
            let silent = found.into_iter().filter(|rule| !refusals().any(|refusal| rule.contains(refusal)));
            untested.extend(silent.map(|rule| format!("{plural}: {rule}")));
        }
        assert!(untested.is_empty(), "{}", untested.join("\n"));
    });
}

#[test]
fn a_status_is_never_refused() {
    with_control_plane("rules::a_status_is_never_refused", || {
        install_types();
        let space = Namespace::new("status");
        let ready = condition("Ready", "True", "Ready", "");
        space.apply(&object("Topic", "orders", &here(&json!({ "partitions": 12, "topicName": "Orders" }))));
        let written = |kind: &str, name: &str, status: Value| {
            let generation = |object: Option<Value>| object.expect("it is there")["metadata"]["generation"].clone();
            let before = generation(space.get(kind, name));
            space.set_status(kind, name, &status).expect_ok();
            assert_eq!(generation(space.get(kind, name)), before, "a status is no change of the description");
        };
        // Somebody else has grown the topic beyond its description; then it is made anew with less.
        written("kmt", "orders", json!({ "partitions": 12, "conditions": [ready], "observedGeneration": 1 }));
        written("kmt", "orders", json!({ "partitions": 20, "drift": [{ "key": "partitions", "actual": "20" }] }));
        written("kmt", "orders", json!({ "partitions": 6, "replicationFactor": 1, "drift": [] }));
        // Finalizers and labels are no change of the description either.
        written("kmt", "orders", json!({ "partitions": 20 }));
        let patch = r#"{"metadata":{"finalizers":["klamm.dev/topic"],"labels":{"a":"b"}}}"#;
        space.kubectl(["patch", "kmt", "orders", "--type=merge", "--patch", patch]).ok();
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        space.kubectl(["patch", "kmt", "orders", "--type=merge", "--patch", patch]).ok();

        space.apply(&object("Cluster", "prod", &json!({ "storage": { "size": "1Gi", "storageClassName": "fast" } })));
        let operation = json!({
            "type": "RollingRestart", "reason": "ConfigChanged", "step": "Pending", "message": "2 of 3", "brokers": [1],
            "startedAt": "2026-10-01T00:00:00Z",
        });
        written(
            "kmc",
            "prod",
            json!({
                "conditions": [ready], "replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "operation": operation,
                "listeners": [{ "name": "plain", "bootstrapServers": "prod-bootstrap:9092" }],
                "brokers": [{ "id": 0, "pod": "prod-0", "state": "Running", "upToDate": true }],
            }),
        );
        written("kmc", "prod", json!({ "operation": null, "brokers": [] }));

        space.apply(&object("ConsumerGroup", "billing", &here(&json!({ "groupId": "billing.v1" }))));
        let lag = json!({ "total": 7, "max": 5, "uncommittedPartitions": 0, "observedAt": "2026-10-01T00:00:00Z" });
        written("kmg", "billing", json!({ "conditions": [ready], "state": "Stable", "members": 2, "lag": lag }));
        // What is not of the type is refused: a status is checked, too.
        let output = space.set_status("kmg", "billing", &json!({ "members": "two" }));
        assert_ne!(output.code, 0, "{output}");
    });
}
