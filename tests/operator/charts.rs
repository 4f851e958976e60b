//! The charts as text: what they render, what they refuse, and that they speak of things that there are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klamm_tests::process::Output;
use klamm_tests::{Broker, Tool, assert_contains, paths};
use serde_json::{Value, json};

use crate::kubernetes::control::program;
use crate::kubernetes::kubectl::{self, install_types, kubectl};
use crate::kubernetes::{Namespace, with_control_plane};
use crate::process::{Operator, until_condition};
use crate::types::object;

/// Everything that can be switched on.
const OPERATOR_ALL: &[&str] = &[
    "replicas=2",
    "controllers={topics,consumer-groups}",
    "watchNamespaces={a,b}",
    "scaleTargets.allowed=true",
    "image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "imagePullSecrets[0].name=pull",
    "serviceAccount.annotations.a=b",
    "podLabels.team=streams",
    "podAnnotations.note=here",
    "priorityClassName=system-cluster-critical",
    "nodeSelector.disk=fast",
    "tolerations[0].operator=Exists",
    "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring",
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.podMonitor.enabled=true",
    "monitoring.brokers.enabled=true",
    "monitoring.brokers.labels.release=prometheus",
    "monitoring.prometheusRule.enabled=true",
    "monitoring.prometheusRule.maxConsumerLag=100000",
    "monitoring.dashboards.enabled=true",
];

const CLUSTER_ALL: &[&str] = &[
    "name=prod",
    "autoscaling.enabled=true",
    "autoscaling.metrics[0].type=Resource",
    "autoscaling.metrics[0].resource.name=cpu",
    "autoscaling.metrics[0].resource.target.type=Utilization",
    "autoscaling.metrics[0].resource.target.averageUtilization=70",
    "cluster.version=0.1.0",
    "cluster.listeners[0].name=tls",
    "cluster.listeners[0].port=9094",
    "cluster.listeners[0].tls.secretName=prod-tls",
    "cluster.listeners[1].name=plain",
    "cluster.listeners[1].port=9192",
    "topics.orders.partitions=12",
    "topics.orders.retention.time=7d",
    "groups.billing.topics={orders}",
    "labels.team=streams",
    "annotations.helm\\.sh/resource-policy=keep",
];

/// The folder of a chart.
pub fn chart(name: &str) -> PathBuf {
    paths::tests_dir().join("../charts").join(name)
}

fn helm(verb: &[&str], name: &str, set: &[&str]) -> Output {
    let values = set.iter().flat_map(|value| ["--set", value]);
    Tool::new(program("helm")).args(verb).arg(chart(name)).args(values).run()
}

pub fn render(name: &str, set: &[&str]) -> String {
    // As if the Prometheus operator were there.
    let verb = ["template", "one", "--namespace", "klamm", "--api-versions", "monitoring.coreos.com/v1"];
    let output = helm(&verb, name, set);
    assert_eq!(output.code, 0, "{output}");
    output.out
}

fn golden(file: &str, text: &str) {
    let path = paths::tests_dir().join("operator/golden").join(file);
    if std::env::var_os("UPDATE").is_some_and(|v| v == "1") {
        std::fs::write(&path, text).expect("written");
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    if found != text {
        let now = paths::scratch_dir("golden").join(file);
        std::fs::write(&now, text).expect("written");
        let diff = Tool::new("diff").arg("-u").args([&path, &now]).run();
        panic!("{file} is not what the chart renders; UPDATE=1 rewrites it:\n{}", diff.out);
    }
}

#[test]
fn they_have_no_fault_that_helm_knows_of() {
    for (name, all) in [("klamm-operator", OPERATOR_ALL), ("klamm", CLUSTER_ALL)] {
        for set in [&[][..], all] {
            let output = helm(&["lint", "--strict", "--with-subcharts"], name, set);
            assert_eq!(output.code, 0, "{output}");
        }
    }
}

#[test]
fn they_render_what_they_did() {
    // The resource types have a test of their own.
    let quiet = "crds.create=false";
    golden("klamm-operator-defaults.yaml", &render("klamm-operator", &[quiet]));
    let all: Vec<&str> = OPERATOR_ALL.iter().copied().chain([quiet]).collect();
    // Dashboards are long, and files anyway.
    golden(
        "klamm-operator-all.yaml",
        &render("klamm-operator", &[&all[..], &["monitoring.dashboards.enabled=false"]].concat()),
    );
    let boards = render("klamm-operator", &all);
    assert_contains(&boards, "grafana_dashboard: \"1\"");
    assert_contains(&boards, "klamm-brokers.json: |");
    assert_contains(&boards, "klamm-operator.json: |");
    golden("klamm-defaults.yaml", &render("klamm", &[]));
    golden("klamm-all.yaml", &render("klamm", CLUSTER_ALL));
}

#[test]
fn what_no_value_is_called_is_refused() {
    let refused = |name: &str, set: &str, what: &str| {
        let output = helm(&["template", "one"], name, &[set]);
        assert_ne!(output.code, 0, "{set} is taken: {output}");
        assert_contains(&output.err, what);
    };
    for (set, what) in [
        ("replica=2", "replica"),
        ("image.tagg=1", "tagg"),
        ("monitoring.podMonitor.enable=true", "enable"),
        ("watchNamespaces={Not_A_Name}", "watchNamespaces"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("concurrency=0", "concurrency"),
        ("controllers={users}", "controllers"),
        ("controllers={}", "controllers"),
        ("log.format=xml", "format"),
    ] {
        refused("klamm-operator", set, what);
    }
    for (set, what) in [
        ("replica=2", "replica"),
        ("cluster.storag.size=1Gi", "storag"),
        ("cluster.replicas=3", "replicas"),
        ("topics.orders.partition=3", "partition"),
        ("topics.orders.clusterRef.name=x", "clusterRef"),
        ("groups.billing.topic=orders", "topic"),
        ("name=Upper", "name"),
        ("autoscaling.enabled=true", "metrics"),
    ] {
        refused("klamm", set, what);
    }
}

/// Whether an account may do something: to `resource`, or to `resource/subresource`.
pub fn may_it(account: &str, verb: &str, what: &str, here: &str) -> bool {
    let (resource, sub) = what.split_once('/').unwrap_or((what, ""));
    let sub = format!("--subresource={sub}");
    kubectl(["auth", "can-i", verb, resource, &sub, here, &format!("--as={account}")]).run().code == 0
}

#[test]
fn an_operator_of_topics_alone_has_the_rights_for_topics_alone() {
    with_control_plane("charts::an_operator_of_topics_alone_has_the_rights_for_topics_alone", || {
        install_types();
        let (space, broker) = (Namespace::new("part"), Broker::start(&[]));
        let set = ["crds.create=false", "controllers={topics}", &format!("watchNamespaces={{{}}}", space.name())]
            .map(|set| ["--set".to_owned(), set.to_owned()]);
        let verb = ["template", "op", "--namespace", space.name(), "--show-only", "templates/rbac.yaml"];
        let rights = Tool::new(program("helm")).args(verb).arg(chart("klamm-operator")).args(set.as_flattened()).ok();
        kubectl(["apply", "-f", "-"]).stdin(rights.out.clone()).ok();
        let account = format!("system:serviceaccount:{}:op-klamm-operator", space.name());
        let operator = Operator::start_as(&account, &[&space], &["--controllers=topics", "--namespace", space.name()]);
        let spec = json!({ "bootstrapServers": broker.bootstrap(), "partitions": 1, "replicationFactor": 1 });
        space.apply(&object("Topic", "orders", &spec));
        until_condition(&space, "kmt", "orders", "Ready", "True");
        space.kubectl(["delete", "kmt", "orders", "--timeout=60s"]).limit(70).ok();
        let log = operator.log();
        assert!(log.contains("controller starts") && !log.to_lowercase().contains("forbidden"), "{log}");
        let here = format!("--namespace={}", space.name());
        for (may, verb, what) in [
            (true, "patch", "topics.klamm.dev"),
            (true, "watch", "clusters.klamm.dev"),
            (false, "patch", "clusters.klamm.dev"),
            (false, "list", "consumergroups.klamm.dev"),
            (false, "get", "secrets"),
            (false, "create", "statefulsets.apps"),
            (false, "get", "pods"),
            (false, "patch", "deployments.apps/scale"),
        ] {
            assert_eq!(may_it(&account, verb, what, &here), may, "{verb} {what}");
        }
        kubectl(["delete", "-f", "-"]).stdin(rights.out).ok();
    });
}

#[test]
fn two_releases_do_not_look_after_the_same() {
    with_control_plane("charts::two_releases_do_not_look_after_the_same", || {
        let (one, two) = (Namespace::new("one"), Namespace::new("two"));
        let chart = chart("klamm-operator").display().to_string();
        let release = |verb: &str, space: &Namespace, more: &[String]| {
            let set = more.iter().flat_map(|value| ["--set", value]);
            let fixed = [verb, "op", &chart, "--namespace", space.name(), "--set", "crds.create=false"];
            kubectl::helm(fixed).args(set).run()
        };
        let own = [format!("watchNamespaces={{{},{}}}", one.name(), two.name())];
        let first = release("install", &one, &own);
        assert_eq!(first.code, 0, "{first}");
        let name = format!("ClusterRole {}:op-klamm-operator looks after namespace {}", one.name(), two.name());
        let shared = format!("watchNamespaces={{{}}}", two.name());
        for set in [vec![shared.clone()], vec![], vec![shared.clone(), "controllers={topics}".into()]] {
            let refused = release("install", &two, &set);
            assert_ne!(refused.code, 0, "{set:?}");
            assert_contains(&refused.err, if set.is_empty() { "looks after namespace" } else { &name });
        }
        // One that leaves off is no hindrance, and a release is none to itself.
        let less = release("upgrade", &one, &[own[0].clone(), "controllers={clusters}".into()]);
        assert_eq!(less.code, 0, "{less}");
        let beside = release("install", &two, &[shared, "controllers={topics}".into()]);
        assert_eq!(beside.code, 0, "{beside}");
        for space in [&one, &two] {
            kubectl::helm(["uninstall", "op", "--no-hooks", "--namespace", space.name()]).ok();
        }
    });
}

#[test]
fn the_number_of_brokers_is_left_to_who_scales_them() {
    assert_contains(&render("klamm", &[]), "replicas: 3");
    let scaled = render("klamm", CLUSTER_ALL);
    let spec = scaled.split("kind: Cluster\n").nth(1).and_then(|rest| rest.split("---").next()).expect("a Cluster");
    assert!(!spec.contains("replicas:"), "{spec}");
    assert_contains(&scaled, "kind: HorizontalPodAutoscaler");
}

/// Left out, `spec.replicas` would be the resource type's default, and brokers would be drained.
#[test]
fn a_release_that_is_handed_to_an_autoscaler_keeps_its_brokers() {
    with_control_plane("charts::a_release_that_is_handed_to_an_autoscaler_keeps_its_brokers", || {
        install_types();
        let space = Namespace::new("handed");
        let chart = chart("klamm").display().to_string();
        let release = |verb: &str, set: &[&str]| {
            let set = set.iter().flat_map(|value| ["--set", value]);
            kubectl::helm([verb, "prod", &chart, "--namespace", space.name()]).args(set).ok();
        };
        release("install", &["replicas=6"]);
        let asked = || space.get("kmc", "prod").expect("a Cluster")["spec"]["replicas"].clone();
        let scaled = [
            "autoscaling.enabled=true",
            "autoscaling.metrics[0].type=Resource",
            "autoscaling.metrics[0].resource.name=cpu",
            "autoscaling.metrics[0].resource.target.type=Utilization",
            "autoscaling.metrics[0].resource.target.averageUtilization=60",
        ];
        release("upgrade", &scaled);
        assert_eq!(asked(), 6);
        space.kubectl(["scale", "kmc/prod", "--replicas=7"]).ok();
        release("upgrade", &scaled);
        assert_eq!(asked(), 7);
    });
}

#[test]
fn the_operators_chart_brings_the_resource_types_as_they_are() {
    let (own, copies) = (paths::tests_dir().join("../crds"), chart("klamm-operator").join("files/crds"));
    let names = |dir: &Path| -> BTreeSet<String> {
        let entries = std::fs::read_dir(dir).expect("a folder").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names(&own), names(&copies));
    let rendered = render("klamm-operator", &[]);
    for name in names(&own) {
        let text = std::fs::read_to_string(own.join(&name)).expect("a definition");
        let copy = std::fs::read_to_string(copies.join(&name)).expect("its copy");
        assert!(text == copy, "charts/klamm-operator/files/crds/{name} differs from crds/{name}: copy it");
        // As it is, and kept when the release goes.
        let kept = text.replacen("metadata:\n", "metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n", 1);
        assert_contains(&rendered, kept.trim());
    }
    assert!(!render("klamm-operator", &["crds.create=false"]).contains("CustomResourceDefinition"));
}

#[test]
fn values_of_resources_are_those_of_the_resource_types() {
    let schema = std::fs::read_to_string(chart("klamm").join("values.schema.json")).expect("the schema");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let docs = std::fs::read_to_string(paths::tests_dir().join("../docs/crds.md")).expect("docs/crds.md");
    for (kind, place, left) in [
        ("Cluster", "/properties/cluster/properties", &["replicas"][..]),
        ("Topic", "/properties/topics/patternProperties", &["clusterRef", "bootstrapServers"]),
        ("ConsumerGroup", "/properties/groups/patternProperties", &["clusterRef", "bootstrapServers"]),
    ] {
        let mut known = schema.pointer(place).expect("properties");
        if place.ends_with("patternProperties") {
            known = &known.as_object().and_then(|all| all.values().next()).expect("a pattern")["properties"];
        }
        let known: BTreeSet<&str> = known.as_object().expect("fields").keys().map(String::as_str).collect();
        let table = docs.split(&format!("### {kind} spec\n")).nth(1).and_then(|rest| rest.split("###").next());
        let fields = table.expect("a table").lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let fields: BTreeSet<&str> = fields.filter(|name| !name.contains(['.', '[']) && !left.contains(name)).collect();
        assert_eq!(known, fields, "{kind}");
    }
}

/// The HorizontalPodAutoscaler of the chart on a real one's controller: it reads how many brokers there are, and which pods
/// they are, from the scale of a Cluster. Numbers to scale by it has none here.
#[test]
fn an_autoscaler_reads_the_scale_of_a_cluster() {
    with_control_plane("charts::an_autoscaler_reads_the_scale_of_a_cluster", || {
        install_types();
        let space = Namespace::new("autoscaled");
        let scaled: Vec<&str> = CLUSTER_ALL.iter().copied().filter(|set| !set.starts_with("annotations")).collect();
        let rendered = render("klamm", &scaled).replace("  namespace: klamm\n", "");
        // All of it is as the API server wants it.
        space.kubectl(["apply", "--dry-run=server", "-f", "-"]).stdin(rendered.clone()).ok();
        let parts: Vec<&str> = rendered.split("---\n").collect();
        let part = |kind: &str| parts.iter().find(|part| part.contains(&format!("\nkind: {kind}\n"))).expect(kind);
        space.kubectl(["apply", "-f", "-"]).stdin(part("Cluster").to_string()).ok();
        let selector = "app.kubernetes.io/name=klamm,app.kubernetes.io/instance=prod";
        let status = json!({ "replicas": 3, "readyReplicas": 3, "selector": selector });
        space.set_status("kmc", "prod", &status).expect_ok();
        space.kubectl(["apply", "-f", "-"]).stdin(part("HorizontalPodAutoscaler").to_string()).ok();
        space.until("hpa", "prod", 90, |autoscaler| {
            let conditions = autoscaler["status"]["conditions"].as_array()?;
            let able = conditions.iter().find(|condition| condition["type"] == "AbleToScale")?;
            let reasons = ["SucceededGetScale", "ReadyForNewScale"].map(Value::from);
            (able["status"] == "True"
                && reasons.contains(&able["reason"])
                && autoscaler["status"]["currentReplicas"] == 3)
                .then_some(())
        });
        let path = format!("/apis/klamm.dev/v1alpha1/namespaces/{}/clusters/prod/scale", space.name());
        let scale: Value = serde_json::from_str(&kubectl(["get", "--raw", &path]).ok().out).expect("JSON");
        assert_eq!((&scale["status"]["replicas"], &scale["status"]["selector"]), (&json!(3), &json!(selector)));
    });
}

/// Words of a text that could be a metric's name.
pub fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("klamm_") || word.starts_with("kafka_")).map(String::from).collect()
}

#[test]
fn alerts_and_dashboards_ask_for_metrics_that_there_are() {
    let read = |path: PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (files, root) = (chart("klamm-operator").join("files"), paths::tests_dir().join(".."));
    let mut known = metrics(&read(root.join("docs/metrics.md")));
    known.extend(metrics(&read(root.join("docs/operator-metrics.md"))));
    let mut texts = vec![read(files.join("alerts.yaml")), read(chart("klamm-operator").join("templates/alerts.yaml"))];
    for board in ["brokers", "operator"] {
        let text = read(files.join(format!("dashboards/{board}.json")));
        let parsed: Value = serde_json::from_str(&text).expect("JSON");
        assert!(parsed["panels"].as_array().is_some_and(|panels| panels.len() > 5), "{board}");
        texts.push(text);
    }
    for text in &texts {
        for name in metrics(text) {
            // A label, which the scrape adds.
            if name == "klamm_cluster" {
                continue;
            }
            let plain = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
            assert!(known.contains(&name) || known.contains(plain), "nobody has a metric {name}");
        }
    }
}
