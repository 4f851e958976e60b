//! Ways to the brokers: a name for each, a place to begin inside, and for every listener outside a place to begin and a
//! Service for each broker.

use serde_json::{Value, json};

use super::checked::Checked;
use super::names::LISTENER;
use crate::crd::cluster::{ADMIN_PORT, INTERNAL_PORT, Listener, ListenerType};

/// All Services of a cluster with so many brokers.
pub fn all(checked: &Checked, replicas: i32) -> Vec<Value> {
    let mut all = vec![headless(checked)];
    all.extend(bootstrap(checked));
    for listener in checked.spec.listeners.iter().filter(|listener| listener.kind != ListenerType::Internal) {
        all.push(outside(checked, listener, None));
        all.extend((0..replicas).map(|id| outside(checked, listener, Some(id))));
    }
    all
}

/// A port of a Service and, by the same number, of brokers.
pub fn port(name: &str, port: i32) -> Value {
    json!({ "name": name, "port": port, "targetPort": port, "protocol": "TCP" })
}

fn headless(checked: &Checked) -> Value {
    let names = &checked.names;
    let mut ports = vec![port("replication", INTERNAL_PORT), port("admin", ADMIN_PORT)];
    ports.extend(checked.spec.listeners.iter().map(|listener| port(&listener.name, listener.port)));
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": names.meta(&names.headless()),
        "spec": {
            "type": "ClusterIP", "clusterIP": "None", "selector": names.selector(), "ports": ports,
            // Brokers have to find each other before they are ready.
            "publishNotReadyAddresses": true,
        },
    })
}

fn bootstrap(checked: &Checked) -> Option<Value> {
    let names = &checked.names;
    let ports: Vec<_> =
        checked.listeners_of(ListenerType::Internal).map(|listener| port(&listener.name, listener.port)).collect();
    (!ports.is_empty()).then(|| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": names.meta(&names.bootstrap()),
            "spec": { "type": "ClusterIP", "selector": names.selector(), "ports": ports },
        })
    })
}

/// The Service of one broker, or of all.
fn outside(checked: &Checked, listener: &Listener, id: Option<i32>) -> Value {
    let names = &checked.names;
    let name = match id {
        Some(id) => names.broker_of(&listener.name, id),
        None => names.bootstrap_of(&listener.name),
    };
    let own = listener.service.clone().unwrap_or_default();
    let mut metadata = names.meta(&name);
    let text = |(key, value): (String, String)| (key, Value::String(value));
    if let Some(labels) = metadata["labels"].as_object_mut() {
        let ours = std::mem::take(labels);
        labels.extend(own.labels.into_iter().map(text));
        labels.extend(ours);
        labels.insert(LISTENER.into(), listener.name.as_str().into());
    }
    if !own.annotations.is_empty() {
        metadata["annotations"] = own.annotations.into_iter().map(text).collect::<serde_json::Map<_, _>>().into();
    }
    let mut selector = names.selector();
    if let Some(id) = id {
        selector.insert("statefulset.kubernetes.io/pod-name".into(), names.pod(id).into());
    }
    let mut spec = json!({ "selector": selector, "ports": [port(&listener.name, listener.port)] });
    match listener.kind {
        ListenerType::Loadbalancer => {
            spec["type"] = "LoadBalancer".into();
            if let Some(class) = own.load_balancer_class {
                spec["loadBalancerClass"] = class.into();
            }
            if !own.load_balancer_source_ranges.is_empty() {
                spec["loadBalancerSourceRanges"] = own.load_balancer_source_ranges.into();
            }
        }
        ListenerType::Nodeport | ListenerType::Internal => spec["type"] = "NodePort".into(),
    }
    if id.is_some() {
        // A broker that catches up is the one that clients of its partitions need, ready or not.
        spec["publishNotReadyAddresses"] = true.into();
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec })
}
