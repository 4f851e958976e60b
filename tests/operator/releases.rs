//! The operator as its users install it: by its chart, in a pod, with no more rights than the chart gives it.

use std::time::{Duration, Instant};

use klamm_tests::process::Output;
use klamm_tests::{Tool, assert_contains, paths, wait_for};
use serde_json::{Value, json};

use crate::charts::chart;
use crate::dockerfile;
use crate::kubernetes::identity::as_admin;
use crate::kubernetes::image::{load, static_binary};
use crate::kubernetes::kubectl::{helm, install_types, kubectl};
use crate::kubernetes::{Namespace, with_control_plane, with_nodes};
use crate::process::{Operator, until_condition};
use crate::types::object;

/// The chart as it was first.
pub const FIRST: &str = "operator/fixtures/klamm-operator-0.1.0.tgz";
const IMAGE: &str = "klamm.test/operator";
const BROKER: &str = "klamm.test/broker:1";

/// A namespace where pods get nothing that the strictest profile does not grant.
fn restricted(what: &str) -> Namespace {
    let space = Namespace::new(what);
    kubectl(["label", "namespace", space.name(), "pod-security.kubernetes.io/enforce=restricted"]).ok();
    space
}

/// A release of the operator's chart, in a namespace of its own.
pub struct Release {
    pub space: Namespace,
    pub name: String,
}

impl Release {
    /// The image is on every node then; nothing is installed yet.
    pub fn new(what: &str) -> Release {
        load(&dockerfile::image("operator", &format!("{IMAGE}:test")));
        Release { space: restricted(what), name: "op".into() }
    }

    pub fn helm(&self, args: &[&str]) -> Tool {
        helm(["--namespace", self.space.name()]).args(args).limit(200)
    }

    /// Installs or upgrades it and waits until it runs.
    pub fn run(&self, verb: &[&str], chart: &str, set: &[&str]) {
        let image = [&format!("image.repository={IMAGE}"), "image.tag=test", "image.pullPolicy=Never"];
        let values = image.iter().chain(set).flat_map(|value| ["--set", value]);
        let output = self.helm(verb).args([&self.name, chart, "--wait", "--timeout=120s"]).args(values).run();
        if output.code != 0 {
            let pods = self.space.kubectl(["describe", "pods"]).run();
            panic!("{output}\n{pods}\n{}", self.log());
        }
    }

    pub fn uninstall(&self) -> Output {
        let output = self.helm(&["uninstall", &self.name, "--wait", "--timeout=150s"]).run();
        if output.code != 0 {
            let (pods, jobs) =
                (self.space.kubectl(["describe", "pods"]).run(), self.space.kubectl(["describe", "jobs"]).run());
            let logs = self.space.kubectl(["logs", "-l", "app.kubernetes.io/name=klamm-operator-uninstall"]).run();
            panic!("{output}\n{pods}\n{jobs}\n{logs}");
        }
        output
    }

    pub fn log(&self) -> String {
        self.space.kubectl(["logs", "-l", "app.kubernetes.io/name=klamm-operator", "--tail=-1"]).run().out
    }

    /// The log's warnings and errors.
    pub fn complaints(&self) -> String {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""));
        lines.take(20).collect::<Vec<_>>().join("\n")
    }

    /// What `kubectl auth can-i` says for the operator.
    pub fn may(&self, what: &[&str]) -> bool {
        let account = format!("--as=system:serviceaccount:{}:op-klamm-operator", self.space.name());
        let out = kubectl(["auth", "can-i"]).args(what).arg(account).run();
        match out.out.trim() {
            "yes" => true,
            "no" => false,
            _ => panic!("{out}"),
        }
    }
}

/// A Cluster of one broker that keeps nothing. The image is to be there.
pub fn small() -> Value {
    json!({
        "replicas": 1, "storage": { "type": "Ephemeral", "size": "1Gi" }, "image": BROKER, "rack": {},
        "podTemplate": { "spec": { "containers": [{ "name": "broker", "imagePullPolicy": "Never" }] } },
        "resources": { "requests": { "cpu": "20m", "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
    })
}

/// A broker in a pod, alone.
pub struct Broker {
    pub space: Namespace,
}

impl Broker {
    pub fn start(what: &str) -> Broker {
        load(&dockerfile::image("broker", BROKER));
        let broker = Broker { space: restricted(what) };
        let host = broker.bootstrap();
        let settings = [
            "listeners=PLAINTEXT://0.0.0.0:9092".to_owned(),
            format!("advertised.listeners=PLAINTEXT://{host}"),
            "klamm.admin.listener=0.0.0.0:9644".into(),
            "log.dirs=/data/log".into(),
        ];
        let set = settings.iter().flat_map(|setting| ["--set", setting]);
        let args: Vec<&str> = ["broker"].into_iter().chain(set).collect();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "kafka", "labels": { "app": "kafka" } },
            "spec": {
                "enableServiceLinks": false, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 5,
                "securityContext": {
                    "runAsNonRoot": true, "fsGroup": 65532, "seccompProfile": { "type": "RuntimeDefault" },
                },
                "containers": [{
                    "name": "broker", "image": BROKER, "imagePullPolicy": "Never", "args": args,
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
                    },
                    "readinessProbe": { "httpGet": { "path": "/readyz", "port": 9644 }, "periodSeconds": 1 },
                    "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                }],
                "volumes": [{ "name": "data", "emptyDir": {} }],
            },
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "kafka" },
            "spec": { "selector": { "app": "kafka" }, "ports": [{ "port": 9092 }] },
        });
        broker.space.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": [service, pod] }));
        broker.space.kubectl(["wait", "--for=condition=Ready", "--timeout=90s", "pod/kafka"]).limit(100).ok();
        broker
    }

    pub fn bootstrap(&self) -> String {
        format!("kafka.{}.svc.cluster.local:9092", self.space.name())
    }

    /// The names of all topics.
    pub fn topics(&self) -> Vec<String> {
        let bootstrap = self.bootstrap();
        let tool = Tool::new(static_binary("klamm")).args(["--bootstrap", &bootstrap, "topics", "list", "-o", "json"]);
        let all: Value = serde_json::from_str(&tool.ok().out).expect("JSON");
        let names = all.as_array().expect("topics").iter().filter_map(|topic| topic["name"].as_str());
        names.map(String::from).collect()
    }

    pub fn topic(&self, space: &Namespace, name: &str) {
        space.apply(&object("Topic", name, &json!({ "bootstrapServers": self.bootstrap() })));
    }
}

pub fn finalizers(space: &Namespace, name: &str) -> Value {
    space.get("kmt", name).expect("a Topic")["metadata"]["finalizers"].clone()
}

#[test]
fn an_operator_of_some_namespaces_does_with_its_roles() {
    with_nodes("releases::an_operator_of_some_namespaces_does_with_its_roles", || {
        install_types();
        let (release, broker) = (Release::new("home"), Broker::start("brokers"));
        let (watched, other) = (Namespace::new("watched"), Namespace::new("other"));
        // A name's dots would be a path for helm.
        let spaces = format!("watchNamespaces={{{}}}", watched.name());
        let chart = chart("klamm-operator").display().to_string();
        release.run(&["install"], &chart, &["crds.create=false", &spaces]);
        broker.topic(&other, "left-alone");
        broker.topic(&watched, "orders");
        // It has the rights for each of the three kinds.
        watched.apply(&object("Cluster", "one", &small()));
        let here = json!({ "clusterRef": { "name": "one" } });
        watched.apply(&object("ConsumerGroup", "billing", &here));
        until_condition(&watched, "kmt", "orders", "Ready", "True");
        let wait = ["wait", "--for=condition=Ready", "--timeout=100s", "kmc/one", "kmg/billing"];
        let waited = watched.kubectl(wait).limit(110).run();
        assert!(waited.code == 0, "{waited}\n{}", release.complaints());
        watched.kubectl(["describe", "kmt", "orders"]).ok().expect("TopicCreated");
        // What the operator has done besides is known to be over: this one was first.
        let alone = other.get("kmt", "left-alone").expect("a Topic");
        assert!(alone.get("status").is_none() && alone["metadata"]["finalizers"].is_null(), "{alone:#}");
        assert_eq!(broker.topics(), ["orders"]);

        let (here, there) = (format!("--namespace={}", watched.name()), format!("--namespace={}", other.name()));
        let own = format!("--namespace={}", release.space.name());
        for (may, what) in [
            (true, ["get", "secrets", &here]),
            (true, ["create", "statefulsets.apps", &here]),
            (true, ["patch", "topics.klamm.dev/status", &here]),
            (true, ["delete", "pods", &here]),
            (true, ["patch", "leases.coordination.k8s.io/klamm-operator", &own]),
            (true, ["get", "customresourcedefinitions/topics.klamm.dev", ""]),
            (false, ["list", "secrets", &here]),
            (false, ["watch", "secrets", &here]),
            (false, ["delete", "persistentvolumeclaims", &here]),
            (false, ["delete", "topics.klamm.dev", &here]),
            (false, ["create", "roles.rbac.authorization.k8s.io", &here]),
            (false, ["get", "secrets", &there]),
            (false, ["get", "secrets", &own]),
            (false, ["create", "statefulsets.apps", &there]),
            (false, ["delete", "pods", &there]),
            (false, ["get", "secrets", "--all-namespaces"]),
            (false, ["list", "secrets", "--all-namespaces"]),
            (false, ["patch", "pods", "--all-namespaces"]),
            (false, ["patch", "customresourcedefinitions/topics.klamm.dev", ""]),
            (false, ["*", "*", "--all-namespaces"]),
        ] {
            let args: Vec<&str> = what.iter().copied().filter(|arg| !arg.is_empty()).collect();
            assert_eq!(release.may(&args), may, "{what:?}");
        }
        let log = release.log();
        assert!(
            log.contains("controller starts") && !log.to_lowercase().contains("forbidden"),
            "{}",
            release.complaints()
        );
        let pods = release.space.kubectl([
            "get",
            "pods",
            "-o",
            "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
        ]);
        assert_eq!(pods.ok().out, "0");

        // With the namespace goes the RoleBinding in it, maybe before the Topic, which has to be let go nevertheless.
        let global = format!("{}:op-klamm-operator", release.space.name());
        watched.kubectl(["delete", "rolebinding", &global]).ok();
        kubectl(["delete", "namespace", watched.name(), "--timeout=100s"]).limit(110).ok();
        assert!(broker.topics().is_empty(), "{:?}", broker.topics());
        release.uninstall();
    });
}

#[test]
pub fn finalizers_are_not_dropped_while_an_operator_runs() {
    with_nodes("releases::finalizers_are_not_dropped_while_an_operator_runs", || {
        install_types();
        let (release, broker) = (Release::new("busy"), Broker::start("busy"));
        let space = Namespace::new("busy");
        let spaces = format!("watchNamespaces={{{}}}", space.name());
        let current = chart("klamm-operator").display().to_string();
        release.run(&["install"], &current, &["crds.create=false", &spaces]);
        broker.topic(&space, "t");
        until_condition(&space, "kmt", "t", "Ready", "True");
        let lease = format!("--namespace={}", release.space.name());
        let tool = as_admin(Tool::new(static_binary("klamm-operator")));
        let watched = format!("--watch-namespaces={}", space.name());
        let mut drop = tool.args(["drop-finalizers", &lease, &watched, "--identity=drop", "--log-format=text"]).start();
        // It waits for the lease for as long as the operator has it.
        assert!(wait_for(Duration::from_secs(5), || drop.ended()).is_none(), "{}", drop.stderr());
        assert!(!finalizers(&space, "t").is_null());
        release.space.kubectl(["scale", "deployment", "op-klamm-operator", "--replicas=0"]).ok();
        let ended = drop.wait(Duration::from_secs(60)).expect("it has the lease within a minute");
        assert!(ended.success(), "{}", drop.stderr());
        assert_contains(&drop.stderr(), "finalizers are dropped");
        assert!(finalizers(&space, "t").is_null());
        release.uninstall();
        kubectl(["delete", "namespace", space.name(), "--timeout=60s"]).limit(70).ok();
    });
}

#[test]
fn namespaces_go_in_any_order_of_deletion() {
    with_nodes("releases::namespaces_go_in_any_order_of_deletion", || {
        install_types();
        load(&dockerfile::image("broker", BROKER));
        let spaces: Vec<Namespace> =
            ["at-once", "cluster-first", "topic-first", "operator-first"].map(restricted).into();
        let all: Vec<&Namespace> = spaces.iter().collect();
        let mut operator = Operator::start(&all);
        for space in &spaces {
            let here = json!({ "clusterRef": { "name": "one" } });
            space.apply(&object("Topic", "orders", &here));
            space.apply(&object("ConsumerGroup", "billing", &here));
            space.apply(&object("Cluster", "one", &small()));
        }
        for space in &spaces {
            let wait = ["wait", "--for=condition=Ready", "--timeout=120s", "kmc/one", "kmt/orders", "kmg/billing"];
            space.kubectl(wait).limit(130).ok();
            assert!(!finalizers(space, "orders").is_null(), "there is something to let go of");
        }
        let [at_once, cluster_first, topic_first, operator_first] = spaces.as_slice() else { panic!("four") };
        let delete = |space: &Namespace| {
            let since = Instant::now();
            kubectl(["delete", "namespace", space.name(), "--timeout=100s"]).limit(110).ok();
            println!("figures namespace {}: gone after {:.1} s", space.name(), since.elapsed().as_secs_f64());
        };
        delete(at_once);
        cluster_first.kubectl(["delete", "kmc", "one", "--timeout=30s"]).limit(40).ok();
        delete(cluster_first);
        topic_first.kubectl(["delete", "kmt", "orders", "--timeout=30s"]).limit(40).ok();
        topic_first.kubectl(["delete", "kmc", "one", "--timeout=30s"]).limit(40).ok();
        delete(topic_first);
        // Without an operator a Topic stays, and keeps its namespace, until somebody drops the finalizers.
        assert_eq!(operator.stop(), 0);
        kubectl(["delete", "namespace", operator_first.name(), "--wait=false"]).ok();
        operator_first.until("kmt", "orders", 60, |topic| topic["metadata"]["deletionTimestamp"].as_str().map(|_| ()));
        let tool = as_admin(Tool::new(static_binary("klamm-operator")));
        let watched = format!("--watch-namespaces={}", operator_first.name());
        tool.args(["drop-finalizers", "--identity=test", &watched]).ok();
        kubectl(["wait", "--for=delete", "--timeout=100s", &format!("namespace/{}", operator_first.name())])
            .limit(110)
            .ok();
    });
}

#[test]
fn the_examples_are_taken() {
    with_control_plane("releases::the_examples_are_taken", || {
        install_types();
        let space = Namespace::new("examples");
        let dir = paths::tests_dir().join("../examples/kubernetes");
        let mut applied = 0;
        let mut files: Vec<_> =
            std::fs::read_dir(&dir).expect("examples").flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "yaml")) {
            // A field that is not known would be passed over in silence.
            space.kubectl(["apply", "--validate=strict", "-f"]).arg(file).ok();
            applied += 1;
        }
        assert!(applied >= 8, "{files:?}");
        // All of them at once, as somebody may who has just cloned the repository: whatever is there has to be a manifest.
        space.kubectl(["apply", "--validate=strict", "-f"]).arg(&dir).ok();
        let values = paths::tests_dir().join("../examples/helm/values-klamm.yaml").display().to_string();
        let chart = chart("klamm").display().to_string();
        let rendered = helm(["--namespace", space.name(), "template", "demo", &chart, "--values", &values]).ok().out;
        space.kubectl(["apply", "--dry-run=server", "-f", "-"]).stdin(rendered).ok();
        // The commands of the pages, as far as they only write.
        for line in [
            r#"patch kmt orders --type=merge --patch {"spec":{"retention":{"time":"12h"}}}"#,
            "annotate kmt orders klamm.dev/paused=true",
            "annotate kmt orders klamm.dev/force-finalize=true",
            "get klamm",
        ] {
            space.kubectl(line.split_whitespace()).ok();
        }
        // Nobody is there to look after them.
        space.kubectl(["delete", "kmc,kmt,kmg,deployments", "--all", "--timeout=30s"]).limit(40).ok();
    });
}
