//! Who may connect to brokers, and how many of them may be away at once.

use serde_json::{Value, json};

use super::checked::Checked;
use crate::crd::cluster::{ADMIN_PORT, INTERNAL_PORT};

/// The NetworkPolicy: brokers and the operator on the brokers' own listener, everybody to health and metrics, which are
/// read-only, and to listeners whom they allow.
pub fn policy(checked: &Checked) -> Value {
    let names = &checked.names;
    let ports = |port: i32| json!([{ "port": port, "protocol": "TCP" }]);
    let operator = json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": checked.operator_namespace } },
        "podSelector": { "matchLabels": { "app.kubernetes.io/name": "klamm-operator" } },
    });
    let brokers = json!({ "podSelector": { "matchLabels": names.selector() } });
    let mut ingress = vec![
        json!({ "ports": ports(INTERNAL_PORT), "from": [brokers, operator] }),
        json!({ "ports": ports(ADMIN_PORT) }),
    ];
    for listener in &checked.spec.listeners {
        let mut rule = json!({ "ports": ports(listener.port) });
        if !listener.allowed_peers.is_empty() {
            rule["from"] = serde_json::to_value(&listener.allowed_peers).unwrap_or_default();
        }
        ingress.push(rule);
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": names.meta(&names.cluster),
        "spec": { "podSelector": { "matchLabels": names.selector() }, "policyTypes": ["Ingress"], "ingress": ingress },
    })
}

/// The PodDisruptionBudget. A broker is ready only once it is in sync, so that draining nodes waits for that; one that
/// isn't ready may always be evicted, since it is away in any case.
pub fn budget(checked: &Checked) -> Value {
    let names = &checked.names;
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": names.meta(&names.cluster),
        "spec": {
            "maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": { "matchLabels": names.selector() },
        },
    })
}
