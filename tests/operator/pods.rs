//! Real pods on three nodes: brokers of an image made here, with volumes and names, and a node that is cut off.

use std::collections::BTreeSet;
use std::time::Instant;

use klamm_tests::{Tool, assert_contains};
use serde_json::{Value, json};

use crate::kubernetes::image::{self, Image, SHELL};
use crate::kubernetes::kubectl::kubectl;
use crate::kubernetes::{NODES, Namespace, with_nodes};

const BROKER: &str = "klamm.test/klamm:1";

/// Three brokers in a namespace of their own, as plain resources.
pub struct Brokers {
    space: Namespace,
}

impl Brokers {
    pub fn start(what: &str) -> Brokers {
        let binary = image::static_binary("klamm");
        image::load(&Image::new(BROKER, &["/klamm"]).file(binary, "/klamm").user("65532:65532"));
        let brokers = Brokers { space: Namespace::new(what) };
        // Pods that ask for more than the strictest profile grants are refused.
        kubectl(["label", "namespace", brokers.space.name(), "pod-security.kubernetes.io/enforce=restricted"]).ok();
        let since = Instant::now();
        brokers.space.apply(&brokers.resources());
        let rollout = ["rollout", "status", "statefulset/b", "--timeout=90s"];
        let output = brokers.space.kubectl(rollout).limit(100).run();
        if output.code != 0 {
            let pods = brokers.space.kubectl(["describe", "pods"]).run();
            let logs = brokers.space.kubectl(["logs", "-l", "app=b", "--tail=20"]).run();
            panic!("{output}\n{pods}\n{logs}");
        }
        println!("figures {what}: three brokers ready {:.1} s after apply", since.elapsed().as_secs_f64());
        brokers
    }

    fn host(&self, broker: usize) -> String {
        format!("b-{broker}.b.{}.svc.cluster.local", self.space.name())
    }

    fn resources(&self) -> Value {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "b" },
            "spec": {
                "clusterIP": "None", "selector": { "app": "b" }, "publishNotReadyAddresses": true,
                "ports": [{ "name": "kafka", "port": 9092 }],
            },
        });
        let bootstrap = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "bootstrap" },
            "spec": { "selector": { "app": "b" }, "ports": [{ "name": "kafka", "port": 9092 }] },
        });
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "b" },
            "spec": {
                "serviceName": "b", "replicas": 3, "podManagementPolicy": "Parallel",
                "selector": { "matchLabels": { "app": "b" } },
                "template": { "metadata": { "labels": { "app": "b" } }, "spec": self.pod() },
                "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } },
                } }],
            },
        });
        json!({ "apiVersion": "v1", "kind": "List", "items": [service, bootstrap, set] })
    }

    fn pod(&self) -> Value {
        let voters: Vec<String> = (0..3).map(|id| format!("{id}@{}:9093", self.host(id))).collect();
        let own = format!("$(NAME).b.{}.svc.cluster.local:9092", self.space.name());
        let settings = [
            ("process.roles", "broker,controller".to_owned()),
            ("cluster.id", "cG9kcy1vZi1hLXRlc3QtMQ".into()),
            ("controller.quorum.voters", voters.join(",")),
            ("listeners", "PLAINTEXT://0.0.0.0:9092,CONTROLLER://0.0.0.0:9093".into()),
            ("advertised.listeners", format!("PLAINTEXT://{own}")),
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".into()),
            ("inter.broker.listener.name", "PLAINTEXT".into()),
            ("controller.listener.names", "CONTROLLER".into()),
            ("klamm.admin.listener", "0.0.0.0:9644".into()),
            ("log.dirs", "/data/log".into()),
            ("default.replication.factor", "3".into()),
            ("min.insync.replicas", "2".into()),
        ];
        let mut args = vec!["broker".to_owned(), "--set".into(), "node.id=$(ID)".into()];
        args.extend(settings.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]));
        let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
        let probe = |path: &str| json!({ "httpGet": { "path": path, "port": 9644 }, "periodSeconds": 1 });
        json!({
            // Else a Service of an unlucky name becomes a setting of the broker.
            "enableServiceLinks": false,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 10,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": { "matchLabels": { "app": "b" } },
            }],
            "containers": [{
                "name": "broker", "image": BROKER, "imagePullPolicy": "Never", "args": args,
                "env": [
                    { "name": "NAME", "valueFrom": field("metadata.name") },
                    { "name": "ID", "valueFrom": field("metadata.labels['apps.kubernetes.io/pod-index']") },
                ],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
                },
                "resources": { "requests": { "cpu": "50m", "memory": "32Mi" }, "limits": { "memory": "128Mi" } },
                "readinessProbe": probe("/readyz"), "livenessProbe": probe("/livez"),
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }],
        })
    }

    /// Where a broker's pod runs.
    pub fn node_of(&self, broker: usize) -> String {
        let pod = self.space.get("pod", &format!("b-{broker}")).expect("a pod");
        pod["spec"]["nodeName"].as_str().expect("a node").to_owned()
    }

    /// Waits until a broker says that it takes part and all its replicas are in sync.
    pub fn ready(&self, broker: usize) {
        self.space.until("pod", &format!("b-{broker}"), 90, |pod| {
            let conditions = pod["status"]["conditions"].as_array()?;
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True").then_some(())
        });
    }

    /// The command line tools, in the machine's network, by way of one of the brokers.
    pub fn klamm(&self, broker: usize, args: &[&str]) -> Tool {
        Tool::new(image::static_binary("klamm"))
            .args(["--bootstrap", &format!("{}:9092", self.host(broker))])
            .args(args)
    }

    pub fn write(&self, broker: usize, lines: &str) {
        self.klamm(broker, &["produce", "orders"]).stdin(lines).ok();
    }

    pub fn read(&self, broker: usize) -> BTreeSet<String> {
        let output = self.klamm(broker, &["consume", "orders", "--from-beginning", "--exit-at-end"]).ok();
        output.out.lines().map(String::from).collect()
    }
}

pub fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("line-{n}\n")).collect()
}

fn ready(node: usize) -> bool {
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    kubectl(["get", "node", &format!("node{node}"), "--output", path]).ok().out == "True"
}

#[test]
fn nodes_are_ready_and_have_zones() {
    with_nodes("pods::nodes_are_ready_and_have_zones", || {
        for node in 1..=NODES {
            assert!(ready(node), "node{node}");
        }
        let zones = kubectl(["get", "nodes", "--label-columns=topology.kubernetes.io/zone"]).ok();
        zones.expect("zone1").expect("zone2").expect("zone3");
    });
}

#[test]
fn brokers_serve_from_pods_with_volumes_and_names() {
    with_nodes("pods::brokers_serve_from_pods_with_volumes_and_names", || {
        let brokers = Brokers::start("brokers");
        let space = &brokers.space;
        let places: BTreeSet<String> = (0..3).map(|broker| brokers.node_of(broker)).collect();
        assert_eq!(places.len(), NODES, "one on each node");
        let claims = space.kubectl(["get", "pvc", "--output=jsonpath={.items[*].status.phase}"]).ok().out;
        assert_eq!(claims, "Bound Bound Bound");

        // A pod on one node finds and reaches those of the others by their names, and all of them by a Service's.
        let other = Namespace::new("shell");
        let run = ["run", "shell", "--image", SHELL, "--image-pull-policy=Never", "--", "sleep", "600"];
        other.kubectl(run).ok();
        other.kubectl(["wait", "--for=condition=Ready", "pod/shell", "--timeout=60s"]).limit(70).ok();
        let inside = |args: &[&str]| other.kubectl(["exec", "shell", "--"]).args(args).ok();
        for broker in 0..3 {
            let pod = space.get("pod", &format!("b-{broker}")).expect("a pod");
            let address = pod["status"]["podIP"].as_str().expect("an address").to_owned();
            inside(&["nslookup", &brokers.host(broker)]).expect(&address);
            inside(&["wget", "-q", "-O", "-", &format!("http://{}:9644/readyz", brokers.host(broker))]);
        }
        let bootstrap = format!("bootstrap.{}.svc.cluster.local", space.name());
        inside(&["nc", "-w", "5", &bootstrap, "9092", "-e", "true"]);
        space.kubectl(["logs", "b-0"]).ok();

        // From here as well; and what a pod leaves behind, the next one of its name finds.
        brokers.klamm(0, &["topics", "create", "orders", "--partitions", "3"]).ok();
        brokers.write(1, &lines(0..100));
        let place = brokers.node_of(2);
        space.kubectl(["delete", "pod", "b-2"]).limit(60).ok();
        brokers.ready(2);
        assert_eq!(brokers.node_of(2), place, "its volume is there");
        assert_eq!(brokers.read(2).len(), 100);
        let described = brokers.klamm(2, &["topics", "describe", "orders"]).ok().out;
        assert_contains(&described, "orders");
    });
}
