//! What holds for every Cluster, whatever its user writes.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::golden_test::checked;
use super::*;

prop_compose! {
    fn specs()(
        replicas in 1..1000_i32,
        ports in prop::collection::btree_set(1024_i32..65535, 1..8),
        kinds in prop::collection::vec(0..3_usize, 8),
        partitions in 1..100_i32,
        rack in any::<bool>(),
        labels in prop::collection::btree_map("[a-z]{1,5}", "[a-z]{0,5}", 0..3),
    ) -> Value {
        let kind = ["internal", "nodeport", "loadbalancer"];
        let ports = ports.into_iter().filter(|port| *port != 9093 && *port != 9644).enumerate();
        let listeners: Vec<_> = ports.map(|(n, port)| json!({ "name": format!("l{n}"), "port": port, "type": kind[kinds[n]] })).collect();
        let mut spec = json!({
            "replicas": replicas, "listeners": listeners,
            "config": { "num.partitions": partitions, "log.retention.ms": partitions }, "podTemplate": { "labels": labels },
        });
        if rack {
            spec["rack"] = json!({});
        }
        spec
    }
}

fn facts(checked: &Checked, replicas: i32) -> Facts {
    let mut facts = Facts { replicas: Some(replicas), ..Facts::default() };
    for listener in &checked.spec.listeners {
        for id in 0..replicas {
            let place = match listener.kind {
                ListenerType::Loadbalancer => Outside::Host(format!("h{id}")),
                _ => Outside::Port(30000 + id),
            };
            facts.outside.insert((listener.name.clone(), id), place);
        }
    }
    facts
}

fn template(objects: &[Value]) -> &Value {
    let set = objects.iter().find(|object| object["kind"] == "StatefulSet").expect("a StatefulSet");
    &set["spec"]["template"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn names_fit_and_differ(spec in specs(), name in "[a-z][a-z0-9-]{0,38}[a-z0-9]") {
        let checked = checked(&name, spec);
        let facts = facts(&checked, checked.spec.replicas.min(5));
        let all: Vec<_> = services(&checked, &facts).into_iter().chain(brokers(&checked, &facts).unwrap()).collect();
        let mut names = BTreeSet::new();
        for object in &all {
            let name = object["metadata"]["name"].as_str().unwrap();
            prop_assert!(name.len() <= 63, "{name}");
            prop_assert!(names.insert((object["kind"].as_str().unwrap(), name)), "{name} twice");
            let ports = object["spec"]["ports"].as_array().cloned().unwrap_or_default();
            let numbers: BTreeSet<_> = ports.iter().map(|port| port["port"].as_i64().unwrap()).collect();
            prop_assert_eq!(numbers.len(), ports.len());
        }
        let largest = checked.names.broker_of("abcdefghijkl", 999);
        prop_assert!(largest.len() <= 63 && checked.names.pod(999).len() <= 63);
    }

    #[test]
    fn scaling_restarts_nobody(spec in specs(), others in 1..8_i32) {
        let here = checked("prod", spec.clone());
        let mut other = spec;
        other["replicas"] = others.into();
        let there = checked("prod", other);
        prop_assert_eq!(here.template_hash(), there.template_hash());
        let (one, two) = (brokers(&here, &facts(&here, 3)).unwrap(), brokers(&there, &facts(&there, others)).unwrap());
        prop_assert_eq!(template(&one), template(&two));
    }

    #[test]
    fn only_what_needs_a_restart_changes_the_hash(spec in specs(), number in 101..200_i32) {
        let hash = |spec: &Value| checked("prod", spec.clone()).template_hash();
        let (mut live, mut start, mut host) = (spec.clone(), spec.clone(), spec.clone());
        live["config"]["log.retention.ms"] = number.into();
        start["config"]["num.partitions"] = number.into();
        host["podTemplate"]["spec"] = json!({ "priorityClassName": "p" });
        prop_assert_eq!(hash(&spec), hash(&live));
        prop_assert_ne!(hash(&spec), hash(&start));
        prop_assert_ne!(hash(&spec), hash(&host));
    }

    #[test]
    fn brokers_stay_as_many_as_they_are(spec in specs(), there in 1..5_i32) {
        let checked = checked("prod", spec);
        let all = brokers(&checked, &facts(&checked, there)).unwrap();
        let set = all.iter().find(|object| object["kind"] == "StatefulSet").unwrap();
        prop_assert_eq!(set["spec"]["replicas"].as_i64().unwrap(), i64::from(there));
    }
}
