//! The objects of some Clusters, as they were when somebody last looked at them. `UPDATE=1` writes them anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::*;
use crate::crd::Cluster;
use crate::settings::Settings;

/// An operator's settings.
pub fn settings() -> Settings {
    use clap::Parser as _;
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }
    Line::parse_from(["operator", "--namespace=klamm-system", "--identity=test"]).settings
}

/// A Cluster, checked.
pub fn checked(name: &str, spec: Value) -> Checked {
    let uid = "e203a878-4dde-4a1b-be13-c2be1b53e002";
    let object = json!({
        "apiVersion": "klamm.dev/v1alpha1", "kind": "Cluster",
        "metadata": { "name": name, "namespace": "streaming", "uid": uid, "generation": 1 }, "spec": spec,
    });
    let mut cluster: Cluster = serde_json::from_value(object).expect("a cluster");
    // Versions change, what is made of them does not.
    cluster.spec.version.get_or_insert_with(|| "1.2.3".into());
    check(&cluster, &settings()).expect("good")
}

/// Fields that no typed object has are slips of the pen: the API server would drop or refuse them.
fn typed(object: &Value) {
    fn round<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
        let typed: T = serde_json::from_value(object.clone()).expect("of its type");
        serde_json::to_value(typed).expect("as JSON")
    }
    let same = match object["kind"].as_str().expect("a kind") {
        "StatefulSet" => round::<StatefulSet>(object),
        "ConfigMap" => round::<ConfigMap>(object),
        "Service" => round::<Service>(object),
        "ServiceAccount" => round::<ServiceAccount>(object),
        "NetworkPolicy" => round::<NetworkPolicy>(object),
        "PodDisruptionBudget" => round::<PodDisruptionBudget>(object),
        other => panic!("{other} is not known here"),
    };
    assert_eq!(&same, object, "a field of another name than the API's");
}

#[track_caller]
fn golden(name: &str, checked: &Checked, facts: &Facts) {
    let mut text = String::new();
    for object in services(checked, facts).into_iter().chain(brokers(checked, facts).expect("addresses")) {
        typed(&object);
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(&object).expect("as YAML"));
    }
    let file = PathBuf::from(format!("src/render/golden/{name}.yaml"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(&file, &text).expect("written");
    }
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(before == text, "{} is not what is rendered now: UPDATE=1 cargo test -p klamm-operator", file.display());
}

#[test]
fn a_cluster_with_nothing_said() {
    golden("defaults", &checked("prod", json!({})), &Facts::default());
}

#[test]
fn a_single_broker_without_a_disk() {
    let spec = json!({
        "replicas": 1, "storage": { "type": "Ephemeral", "size": "1Gi" },
        "resources": { "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
        "config": { "auto.create.topics.enable": false, "min.insync.replicas": 1, "log.retention.ms": null },
    });
    golden("ephemeral", &checked("dev", spec), &Facts::default());
}

#[test]
fn listeners_outside_racks_and_pods_with_more() {
    let spec = json!({
        "replicas": 2, "rack": {},
        "storage": { "size": "100Gi", "storageClassName": "fast", "whenScaled": "Delete", "whenDeleted": "Delete" },
        "listeners": [
            { "name": "plain", "port": 9092, "allowedPeers": [{ "podSelector": { "matchLabels": { "kafka": "yes" } } }] },
            { "name": "nodes", "port": 9094, "type": "nodeport" },
            { "name": "tls", "port": 9095, "type": "loadbalancer", "tls": { "secretName": "prod-tls", "clientAuth": "Required" },
              "advertisedHost": "b{id}.example.com",
              "service": { "annotations": { "a": "b" }, "loadBalancerClass": "c", "loadBalancerSourceRanges": ["10.0.0.0/8"] } },
            { "name": "lb", "port": 9096, "type": "loadbalancer" },
        ],
        "podTemplate": {
            "labels": { "team": "a", "app.kubernetes.io/name": "not ours" }, "annotations": { "note": "n" },
            "spec": {
                "priorityClassName": "high", "tolerations": [{ "key": "kafka", "operator": "Exists" }],
                "containers": [{ "name": "broker", "env": [{ "name": "RUST_BACKTRACE", "value": "1" }] },
                               { "name": "side", "image": "side:1" }],
            },
        },
    });
    let outside = |listener: &str, id: i32, place: Outside| ((listener.to_owned(), id), place);
    let facts = Facts {
        replicas: Some(2),
        claims: Some(json!([{ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"] } }])),
        cluster_id: Some("4L6g3nShT-eMCtK--X86sw".into()),
        outside: BTreeMap::from([
            outside("nodes", 0, Outside::Port(30000)),
            outside("nodes", 1, Outside::Port(30001)),
            outside("lb", 0, Outside::Host("192.0.2.1".into())),
            outside("lb", 1, Outside::Host("2001:db8::1".into())),
        ]),
        ..Facts::default()
    };
    golden("outside", &checked("prod", spec), &facts);
}

#[test]
fn without_an_address_outside_there_are_no_brokers() {
    let listeners = |kind: &str| json!({ "replicas": 1, "listeners": [{ "name": "out", "port": 9094, "type": kind }] });
    for kind in ["nodeport", "loadbalancer"] {
        let missing = brokers(&checked("prod", listeners(kind)), &Facts::default()).unwrap_err();
        assert_eq!(missing, NotYet::Missing { listener: "out".into(), broker: 0 }, "{kind}");
    }
}

#[test]
fn where_clients_begin() {
    let spec = json!({ "listeners": [
        { "name": "plain", "port": 9092 },
        { "name": "nodes", "port": 9094, "type": "nodeport" },
        { "name": "lb", "port": 9096, "type": "loadbalancer" },
        { "name": "later", "port": 9097, "type": "loadbalancer" },
    ] });
    let places = BTreeMap::from([
        ("nodes".to_owned(), Outside::Port(30000)),
        ("lb".to_owned(), Outside::Host("lb.example.com".into())),
    ]);
    let found = bootstrap(&checked("prod", spec), &["10.0.0.1".into(), "fd00::1".into()], &places);
    let expected = [
        ("plain", "prod-bootstrap.streaming.svc.cluster.local:9092"),
        ("nodes", "10.0.0.1:30000,[fd00::1]:30000"),
        ("lb", "lb.example.com:9096"),
    ];
    assert_eq!(found, expected.map(|(name, servers)| (name.to_owned(), servers.to_owned())));
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let refused = |spec: Value, reason: &str, words: &str| {
        let object = json!({ "metadata": { "name": "prod", "namespace": "x" }, "spec": spec,
            "apiVersion": "klamm.dev/v1alpha1", "kind": "Cluster" });
        let cluster: Cluster = serde_json::from_value(object).expect("a cluster");
        let invalid = check(&cluster, &settings()).expect_err("refused");
        assert!(invalid.reason == reason && invalid.message.contains(words), "{invalid:?}");
    };
    refused(json!({ "config": { "node.id": 1 } }), "InvalidConfig", "node.id cannot be set: the operator sets it");
    refused(json!({ "config": { "a": [1] } }), "InvalidConfig", "a must be a string, a number or a boolean");
    let host = json!({ "listeners": [{ "name": "x", "port": 9094, "type": "nodeport", "advertisedHost": "h" }] });
    refused(host, "InvalidListener", "put {id} into it");
    let odd = json!({ "listeners": [{ "name": "x", "port": 9094, "type": "nodeport", "advertisedHost": "{id}{x}" }] });
    refused(odd, "InvalidListener", "only {id}");
    let nameless = json!({ "podTemplate": { "spec": { "containers": [{ "image": "x" }] } } });
    refused(nameless, "InvalidPodTemplate", "with names");
}

#[test]
fn more_replicas_than_brokers_are_warned_of() {
    let spec = json!({ "replicas": 2, "config": { "default.replication.factor": 3, "min.insync.replicas": "2" } });
    assert_eq!(checked("prod", spec).warnings, ["default.replication.factor is 3, and there are 2 brokers"]);
}

#[test]
fn what_is_for_load_balancers_is_missed_by_nobody() {
    let warnings = |kind: &str, service: Value| {
        let listener = json!({ "name": "outside", "port": 9094, "type": kind, "service": service });
        checked("prod", json!({ "replicas": 1, "listeners": [listener] })).warnings
    };
    let ranges = || json!({ "loadBalancerSourceRanges": ["192.0.2.0/24"] });
    assert_eq!(
        warnings("nodeport", ranges()),
        ["listener outside: loadBalancerSourceRanges is for load balancers, and limits nobody here: see allowedPeers"]
    );
    let class = warnings("nodeport", json!({ "loadBalancerClass": "a" }));
    assert_eq!(class, ["listener outside: loadBalancerClass is for load balancers, and does nothing here"]);
    assert_eq!(warnings("loadbalancer", ranges()), [""; 0]);
    assert_eq!(warnings("nodeport", json!({ "labels": { "a": "b" } })), [""; 0]);
}

#[test]
fn more_brokers_than_a_config_map_holds_are_told_of() {
    let cluster = checked("prod", json!({}));
    let of = |replicas| brokers(&cluster, &Facts { replicas: Some(replicas), ..Facts::default() });
    let size = |objects: &[Value]| {
        let map = objects.iter().find(|object| object["kind"] == "ConfigMap").expect("a ConfigMap");
        map.to_string().len()
    };
    let (mut fit, mut too_many) = (1, 1000);
    while too_many - fit > 1 {
        let middle = i32::midpoint(fit, too_many);
        match of(middle) {
            Ok(objects) => {
                assert!(size(&objects) <= 1 << 20, "{middle}");
                fit = middle;
            }
            Err(NotYet::TooLarge { brokers, bytes }) => {
                assert!(brokers == middle && bytes > CONFIG_BYTES);
                too_many = middle;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(fit > 500, "{fit}");
}

#[test]
fn a_broker_that_runs_by_its_file_tells_the_addresses_it_has() {
    let listeners = json!([
        { "name": "plain", "port": 9092 },
        { "name": "out", "port": 9094, "type": "nodeport" },
        { "name": "named", "port": 9095, "type": "nodeport", "advertisedHost": "b{id}.example.com" },
        { "name": "lb", "port": 9096, "type": "loadbalancer" },
    ]);
    let cluster = checked("prod", json!({ "replicas": 1, "listeners": listeners }));
    let facts = |port, host: &str| {
        let at = |listener: &str, place| ((listener.to_owned(), 0), place);
        let places = [
            at("out", Outside::Port(port)),
            at("named", Outside::Port(port + 1)),
            at("lb", Outside::Host(host.to_owned())),
        ];
        Facts { replicas: Some(1), outside: places.into(), ..Facts::default() }
    };
    let before = facts(30_001, "fd00::1");
    let map = properties::config_map(&cluster, &before, 1).expect("addresses");
    let text = map["data"]["prod-0.properties"].as_str().expect("a file");
    let told = text.lines().find_map(|line| line.strip_prefix("advertised.listeners=")).expect("a line");
    // As the broker reads it.
    let told = told.replace("${env:NODE_IP}", "10.1.2.3");
    let right = |now: &Facts| {
        outside(&cluster, now)[&0].iter().all(|(listener, address)| {
            let own = told.split(',').find_map(|one| one.strip_prefix(&format!("{listener}://")));
            own.is_some_and(|own| own.ends_with(address.as_str()))
        })
    };
    assert_eq!(outside(&cluster, &before)[&0].len(), 3, "{told}");
    assert!(right(&before), "{told}");
    assert!(!right(&facts(30_003, "fd00::1")) && !right(&facts(30_001, "fd00::2")), "{told}");
}
