//! The resource types as users of kubectl see them: accepted, documented, with columns, short names and subresources.

use klamm_tests::assert_contains;
use serde_json::{Value, json};

use crate::kubernetes::kubectl::{install_types, kubectl};
use crate::kubernetes::{Namespace, with_control_plane};

/// Plural, kind and short name of each type.
const TYPES: [(&str, &str, &str); 3] =
    [("clusters", "Cluster", "kmc"), ("topics", "Topic", "kmt"), ("consumergroups", "ConsumerGroup", "kmg")];

/// A resource of one of the types.
pub fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "klamm.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

#[test]
fn the_api_server_takes_them() {
    with_control_plane("types::the_api_server_takes_them", || {
        install_types();
        for (plural, kind, short) in TYPES {
            let text = kubectl(["get", "crd", &format!("{plural}.klamm.dev"), "--output=json"]).ok().out;
            let definition: Value = serde_json::from_str(&text).expect("JSON");
            let conditions = definition["status"]["conditions"].as_array().expect("conditions");
            let holds = |kind: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == "True");
            assert!(holds("Established") && holds("NamesAccepted"), "{conditions:?}");
            assert!(!holds("NonStructuralSchema"), "{conditions:?}");
            assert_eq!(definition["status"]["acceptedNames"]["kind"], kind);
            assert_eq!(definition["status"]["acceptedNames"]["shortNames"], json!([short]));
        }
        // Again, as an upgrade does.
        install_types();
    });
}

#[test]
fn kubectl_explains_and_lists_them() {
    with_control_plane("types::kubectl_explains_and_lists_them", || {
        install_types();
        let space = Namespace::new("lists");
        let here = json!({ "clusterRef": { "name": "prod" } });
        space.apply(&object("Cluster", "prod", &json!({})));
        space.apply(&object("Topic", "orders", &here));
        space.apply(&object("ConsumerGroup", "billing", &here));

        kubectl(["explain", "kmc"]).ok().expect("A Klamm cluster: brokers that speak Kafka's protocol");
        kubectl(["explain", "cluster.spec.replicas"]).ok().expect("How many brokers");
        kubectl(["explain", "kmt.spec.partitions"]).ok().expect("How many partitions");
        kubectl(["explain", "kmg.status.lag.total"]).ok().expect("Records that are not committed");
        kubectl(["explain", "cluster.spec.listeners.tls.secretName"])
            .ok()
            .expect("A Secret of the Cluster's namespace");

        let columns = |kind: &str| {
            let text = space.kubectl(["get", kind]).ok().out;
            text.lines().next().unwrap_or_default().split_whitespace().map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(columns("kmc"), ["NAME", "READY", "BROKERS", "DESIRED", "VERSION", "OPERATION", "AGE"]);
        assert_eq!(columns("kmt"), ["NAME", "CLUSTER", "PARTITIONS", "RF", "READY", "REASON", "AGE"]);
        assert_eq!(columns("kmg"), ["NAME", "CLUSTER", "GROUP", "STATE", "MEMBERS", "LAG", "READY", "AGE"]);
        space.kubectl(["get", "kmt", "--output=wide"]).ok().expect("TOPIC ID").expect("MESSAGE");

        let all = space.kubectl(["get", "klamm"]).ok().out;
        for name in ["cluster.klamm.dev/prod", "topic.klamm.dev/orders", "consumergroup.klamm.dev/billing"] {
            assert_contains(&all, name);
        }
    });
}

#[test]
fn columns_show_the_status() {
    with_control_plane("types::columns_show_the_status", || {
        install_types();
        let space = Namespace::new("columns");
        space.apply(&object("Topic", "orders", &json!({ "clusterRef": { "name": "prod" }, "partitions": 12 })));
        let ready = condition("Ready", "False", "InvalidConfig", "no such key");
        let status = json!({ "partitions": 7, "replicationFactor": 3, "conditions": [ready] });
        space.set_status("kmt", "orders", &status).expect_ok();
        let line = space.kubectl(["get", "kmt", "orders", "--no-headers"]).ok().out;
        let cells: Vec<&str> = line.split_whitespace().take(6).collect();
        assert_eq!(cells, ["orders", "prod", "7", "3", "False", "InvalidConfig"]);
        let wait = |value: &str| {
            let wanted = format!("--for=condition=Ready={value}");
            space.kubectl(["wait", &wanted, "--timeout=1s", "kmt/orders"]).run()
        };
        assert_eq!(wait("False").code, 0);
        assert_ne!(wait("True").code, 0);
    });
}

#[test]
fn a_cluster_scales_as_a_deployment_does() {
    with_control_plane("types::a_cluster_scales_as_a_deployment_does", || {
        install_types();
        let space = Namespace::new("scale");
        space.apply(&object("Cluster", "prod", &json!({})));
        space.set_status("kmc", "prod", &json!({ "replicas": 3, "selector": "klamm.dev/cluster=prod" })).expect_ok();
        space.kubectl(["scale", "cluster", "prod", "--current-replicas=3", "--replicas=5"]).ok();
        assert_eq!(space.get("kmc", "prod").expect("a cluster")["spec"]["replicas"], 5);
        let path = format!("/apis/klamm.dev/v1alpha1/namespaces/{}/clusters/prod/scale", space.name());
        let scale: Value = serde_json::from_str(&kubectl(["get", "--raw", &path]).ok().out).expect("JSON");
        assert_eq!(scale["spec"]["replicas"], 5);
        assert_eq!(scale["status"], json!({ "replicas": 3, "selector": "klamm.dev/cluster=prod" }));
        // A HorizontalPodAutoscaler goes the same way, and is held to the same bounds.
        let out = space.kubectl(["scale", "kmc", "prod", "--replicas=0"]).run();
        assert_ne!(out.code, 0, "{out}");
        assert_contains(&out.err, "spec.replicas");
    });
}

/// A condition of a status.
pub fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": 1,
        "lastTransitionTime": "2026-10-01T00:00:00Z",
    })
}
