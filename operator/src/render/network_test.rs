//! Whether the brokers' NetworkPolicy lets in whom it has to, by the rules of NetworkPolicies and the pods' own labels and
//! ports. What enforces policies is the network plug-in's, which the suites' Kubernetes has none of.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt as _};
use serde_json::{Value, json};

use super::golden_test::{checked, settings};
use super::*;

type Labels = BTreeMap<String, String>;

/// Somebody who connects.
struct Peer {
    namespace: &'static str,
    labels: Labels,
}

fn labels(all: &[(&str, &str)]) -> Labels {
    all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn fits(selector: &LabelSelector, labels: &Labels) -> bool {
    Selector::try_from(selector.clone()).expect("a selector").matches(labels)
}

/// Without a selector of namespaces a peer is of the policy's own.
fn is_from(rule: &NetworkPolicyPeer, home: &str, peer: &Peer) -> bool {
    let names = labels(&[("kubernetes.io/metadata.name", peer.namespace)]);
    let near = rule.namespace_selector.as_ref().map_or(peer.namespace == home, |selector| fits(selector, &names));
    near && rule.pod_selector.as_ref().is_none_or(|selector| fits(selector, &peer.labels))
}

fn admits(policy: &NetworkPolicy, peer: &Peer, port: i64) -> bool {
    let home = policy.metadata.namespace.as_deref().expect("a namespace");
    let rules = policy.spec.as_ref().and_then(|spec| spec.ingress.as_deref()).unwrap_or_default();
    rules.iter().any(|rule| {
        let ports = rule.ports.as_deref().unwrap_or_default();
        let open = ports.is_empty()
            || ports.iter().any(|open| {
                assert_eq!((open.protocol.as_deref(), open.end_port), (Some("TCP"), None));
                open.port == i32::try_from(port).ok().map(IntOrString::Int)
            });
        let from = rule.from.as_deref().unwrap_or_default();
        open && (from.is_empty() || from.iter().any(|rule| is_from(rule, home, peer)))
    })
}

/// The labels that the operator's chart gives its pods.
fn operators() -> Labels {
    let text = include_str!("../../../charts/klamm-operator/templates/_helpers.tpl");
    let selector = text.split("define \"klamm-operator.selector\"").nth(1).and_then(|rest| rest.split("end }}").next());
    let lines = selector.expect("the selector").lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(_, value)| !value.contains("{{")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn it_lets_in_whom_it_has_to_and_nobody_else() {
    let friends = json!([{ "podSelector": { "matchLabels": { "team": "billing" } } }]);
    let listeners = json!([
        { "name": "plain", "port": 9092 },
        { "name": "own", "port": 9192, "allowedPeers": friends },
        { "name": "out", "port": 9094, "type": "nodeport", "advertisedHost": "b{id}.example.com" },
    ]);
    let cluster =
        checked("prod", json!({ "listeners": listeners, "podTemplate": { "labels": { "team": "streams" } } }));
    let policy: NetworkPolicy = serde_json::from_value(network::policy(&cluster)).expect("a policy");
    let template = pod::template(&cluster);
    let own: Labels = serde_json::from_value(template["metadata"]["labels"].clone()).expect("labels");
    assert!(fits(policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref()).expect("a selector"), &own));

    let at = |namespace, labels| Peer { namespace, labels };
    let broker = at("streaming", own.clone());
    let (operator, impostor) = (at("klamm-system", operators()), at("elsewhere", operators()));
    assert_eq!(settings().namespace, "klamm-system");
    let friend = at("streaming", labels(&[("team", "billing")]));
    let (client, outside) = (at("streaming", labels(&[("app", "a")])), at("elsewhere", labels(&[])));
    let others = checked("other", json!({}));
    let other: Labels = serde_json::from_value(pod::template(&others)["metadata"]["labels"].clone()).expect("labels");
    let others = at("streaming", other);
    let mut ports = 0;
    for port in template["spec"]["containers"][0]["ports"].as_array().expect("ports") {
        ports += 1;
        let (name, port) = (port["name"].as_str().expect("a name"), port["containerPort"].as_i64().expect("a port"));
        let [brokers, operators, friends, anybody] = match name {
            // Replication and the quorum; the operator asks and tells the brokers there.
            "replication" => [true, true, false, false],
            "own" => [false, false, true, false],
            // Probes come from nodes, and metrics are read from anywhere.
            "admin" | "plain" | "out" => [true; 4],
            other => panic!("who needs {other}?"),
        };
        for (peer, wanted, who) in [
            (&broker, brokers, "a broker"),
            (&operator, operators, "the operator"),
            (&impostor, anybody, "somebody who calls himself the operator"),
            (&friend, friends, "an allowed peer"),
            (&others, anybody, "a broker of another cluster"),
            (&client, anybody, "a client"),
            (&outside, anybody, "a client of another namespace"),
        ] {
            assert_eq!(admits(&policy, peer, port), wanted, "{who} at {name}");
        }
    }
    assert_eq!(ports, 5);
    assert!(!admits(&policy, &broker, 22));
    // What brokers and Services name is among those ports.
    let facts = Facts {
        replicas: Some(1),
        outside: [(("out".to_owned(), 0), Outside::Port(30_000))].into(),
        ..Facts::default()
    };
    let known: Vec<&Value> = template["spec"]["containers"][0]["ports"].as_array().expect("ports").iter().collect();
    for service in services(&cluster, &facts) {
        for port in service["spec"]["ports"].as_array().expect("ports") {
            let target = &port["targetPort"];
            let there = known.iter().any(|own| own["name"] == *target || own["containerPort"] == *target);
            assert!(there, "{service:#}: {target} is no port of the pods");
        }
    }
}

#[test]
fn what_a_clusters_status_selects_are_its_brokers() {
    // For a HorizontalPodAutoscaler, which looks at the pods of the scale's selector.
    let cluster = checked("prod", json!({ "podTemplate": { "labels": { "team": "streams" } } }));
    let own = pod::template(&cluster)["metadata"]["labels"].clone();
    let text = cluster.names.serving_text();
    assert!(text.ends_with(",!klamm.dev/draining") && own.get("klamm.dev/draining").is_none(), "{text}");
    let pairs: Vec<_> = text.split(',').filter_map(|pair| pair.split_once('=')).collect();
    assert!(pairs.len() >= 2, "{text}");
    for (key, value) in pairs {
        assert_eq!(own[key], value, "{text}");
    }
}
