//! An operator that looks after all namespaces: releases of its chart from the first to this one, and the README's five
//! commands.

use std::time::Instant;

use klamm_tests::{Tool, eventually, paths};
use serde_json::json;

use crate::charts::chart;
use crate::dockerfile;
use crate::kubernetes::identity::as_admin;
use crate::kubernetes::image::{load, static_binary};
use crate::kubernetes::kubectl::{install_types, kubectl};
use crate::kubernetes::{Namespace, with_nodes_alone};
use crate::pages::{commands, shell};
use crate::process::until_condition;
use crate::releases::{Broker, FIRST, Release, finalizers, small};
use crate::types::object;

#[test]
fn a_release_is_installed_upgraded_and_uninstalled() {
    with_nodes_alone("alone::releases::a_release_is_installed_upgraded_and_uninstalled", || {
        let (release, broker) = (Release::new("release"), Broker::start("kept"));
        let space = Namespace::new("team");
        clear(&release);
        // The resource types are there already, from other tests: not so at a user's.
        let first = paths::tests_dir().join(FIRST).display().to_string();
        release.run(&["install", "--take-ownership"], &first, &[]);
        broker.topic(&space, "before");
        until_condition(&space, "kmt", "before", "Ready", "True");
        space.apply(&object("Cluster", "one", &small()));
        until_condition(&space, "kmc", "one", "Ready", "True");
        let pod = || {
            let pod = space.get("pod", "one-0").expect("a broker");
            (pod["metadata"]["uid"].clone(), pod["status"]["containerStatuses"][0]["restartCount"].clone())
        };
        let began = pod();

        // From the first chart to this one: the operator is replaced, the resource types as well, nothing else.
        let id = |name: &str| space.get("kmt", name).expect("a Topic")["status"]["topicId"].clone();
        let before = id("before");
        let current = chart("klamm-operator").display().to_string();
        release.run(&["upgrade"], &current, &["replicas=2", "podLabels.upgraded=yes"]);
        broker.topic(&space, "after");
        until_condition(&space, "kmt", "after", "Ready", "True");
        assert_eq!(id("before"), before, "it was not made anew");
        // A change goes through the new operator and the new types, and to the same broker.
        space.apply(&object("Topic", "inside", &json!({ "clusterRef": { "name": "one" } })));
        until_condition(&space, "kmt", "inside", "Ready", "True");
        let mut changed = small();
        changed["config"] = json!({ "log.retention.ms": 86_400_000 });
        space.apply(&object("Cluster", "one", &changed));
        space.until("kmc", "one", 60, |cluster| {
            let seen = cluster["status"]["observedGeneration"] == cluster["metadata"]["generation"];
            let is = |kind: &str| {
                let mut conditions = cluster["status"]["conditions"].as_array()?.iter();
                Some(conditions.find(|condition| condition["type"] == kind)?["status"] == "True")
            };
            (seen && is("ConfigApplied")? && is("UpToDate")? && is("Ready")?).then_some(())
        });
        assert_eq!(pod(), began, "no broker is restarted for another operator");
        let own = paths::tests_dir().join("../crds").display().to_string();
        // Nothing differs from the definitions of today.
        kubectl(["diff", "--server-side", "--force-conflicts", "-f", &own]).ok();
        let labels = ["get", "pods", "-l", "upgraded=yes", "--field-selector=status.phase=Running", "-o", "name"];
        assert_eq!(release.space.kubectl(labels).ok().out.lines().count(), 2);

        // Away it goes; whatever it looked after stays, and can be deleted.
        assert!(!finalizers(&space, "after").is_null(), "there was something to let go of");
        release.uninstall();
        for kind in ["clusters", "topics", "consumergroups"] {
            kubectl(["get", "crd", &format!("{kind}.klamm.dev")]).ok();
        }
        for name in ["before", "after"] {
            assert!(finalizers(&space, name).is_null(), "{name}");
        }
        assert_eq!(broker.topics(), ["after", "before"]);
        assert_eq!(pod(), began, "brokers go on without an operator");
        let left =
            ["get", "all,serviceaccounts,roles,rolebindings,networkpolicies", "-o", "name", "--ignore-not-found"];
        let left = release.space.kubectl(left).ok().out;
        let left: Vec<&str> = left.lines().filter(|name| !name.ends_with("/default")).collect();
        assert!(left.is_empty(), "{left:?}");
        let roles = kubectl(["get", "clusterroles,clusterrolebindings", "-o", "name"]).ok().out;
        assert!(!roles.contains(&format!("{}:op", release.space.name())), "{roles}");
        // Nobody is there to delete the topic.
        space.kubectl(["delete", "kmt", "after", "--timeout=30s"]).ok();
        assert_eq!(broker.topics(), ["after", "before"]);

        // Back again, without being told to take the types over; the namespace goes with the topic in it.
        release.run(&["install"], &current, &[]);
        until_condition(&space, "kmt", "before", "Ready", "True");
        eventually("it has its finalizer again", 30, || (!finalizers(&space, "before").is_null()).then_some(()));
        until_condition(&space, "kmc", "one", "Ready", "True");
        assert_eq!(pod(), began);
        kubectl(["delete", "namespace", space.name(), "--timeout=100s"]).limit(110).ok();
        assert_eq!(broker.topics(), ["after"]);

        // The operator goes, and right after it a namespace with Topics of brokers that nobody reaches any more.
        let last = Namespace::new("last");
        broker.topic(&last, "orphan");
        until_condition(&last, "kmt", "orphan", "Ready", "True");
        broker.space.kubectl(["delete", "pod", "kafka", "--grace-period=1"]).ok();
        release.uninstall();
        kubectl(["delete", "namespace", last.name(), "--timeout=60s"]).limit(70).ok();
    });
}

/// Lets go of what earlier tests have left: an operator of all namespaces would look after it.
fn clear(release: &Release) {
    install_types();
    let tool = as_admin(Tool::new(static_binary("klamm-operator")));
    let lease = format!("--namespace={}", release.space.name());
    tool.args(["drop-finalizers", &lease, "--identity=test"]).ok();
    let kinds = "clusters.klamm.dev,topics.klamm.dev,consumergroups.klamm.dev";
    kubectl(["delete", kinds, "--all", "--all-namespaces", "--timeout=100s"]).limit(110).ok();
}

#[test]
fn five_commands_from_nothing_to_a_record() {
    with_nodes_alone("alone::releases::five_commands_from_nothing_to_a_record", || {
        let version = env!("CARGO_PKG_VERSION");
        let release = Release { space: Namespace::new("empty"), name: "klamm-operator".into() };
        clear(&release);
        let types = ["clusters.klamm.dev", "topics.klamm.dev", "consumergroups.klamm.dev"];
        kubectl(["delete", "crd"]).args(types).limit(70).ok();
        // As a registry would have them.
        for (target, name) in [("operator", "docker.io/klamm/operator"), ("broker", "docker.io/klamm/broker")] {
            load(&dockerfile::image(target, &format!("{name}:{version}")));
        }
        let since = Instant::now();
        let lines = commands("README.md", "Five commands on Kubernetes");
        assert_eq!(lines.len(), 5, "{lines:#?}");
        let mut last = String::new();
        for line in &lines {
            let output = shell(line).run();
            if output.code != 0 {
                let shown = shell("kubectl get klamm,pods -A; kubectl describe kmc,kmt,pods; kubectl -n klamm-system logs -l app.kubernetes.io/name=klamm-operator --tail=50").run();
                panic!("{output}\n{shown}");
            }
            last = output.out;
        }
        assert_eq!(last, "hello\n");
        println!(
            "figures five commands: a record is read {:.1} s after the first of them",
            since.elapsed().as_secs_f64()
        );

        let tested = shell("helm test demo --timeout 3m").run();
        assert!(tested.code == 0, "{tested}\n{}", shell("kubectl describe pod demo-test").run());
        shell("kubectl delete pod demo-test").ok();

        // What it said to do next, as it is, but for the creation.
        let notes = shell("helm get notes klamm-operator --namespace klamm-system").ok().out;
        let apply = notes.split_once("kubectl apply -f -").and_then(|(_, rest)| rest.split_once("\nEND\n"));
        let (example, _) = apply.unwrap_or_else(|| panic!("{notes}"));
        shell(&format!("kubectl apply --dry-run=server -f - {example}\nEND")).ok();

        // The operator goes first, with Cluster and Topic there, and they can be deleted nevertheless.
        shell("helm uninstall klamm-operator --namespace klamm-system --wait --timeout=150s").ok();
        shell("kubectl exec demo-0 -- /klamm topics describe greetings").ok();
        shell("helm uninstall demo --wait --timeout=60s").ok();
        shell("kubectl wait --for=delete pod --selector=app.kubernetes.io/instance=demo --timeout=60s").ok();
        shell("kubectl delete pvc --selector=app.kubernetes.io/instance=demo --timeout=60s").ok();
        shell("kubectl delete namespace klamm-system --timeout=60s").ok();
    });
}
