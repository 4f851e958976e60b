//! What runs a group's consumers: scaled by lag, and stopped for a reset. The consumers themselves run beside; what is looked
//! at is the number of pods that their Deployment is to have.

use std::time::Duration;

use klamm_tests::{Broker, Process, Tool, assert_contains, eventually};
use serde_json::{Value, json};

use crate::charts::{chart, may_it};
use crate::kubernetes::control::program;
use crate::kubernetes::kubectl::{install_types, kubectl};
use crate::kubernetes::{Namespace, with_control_plane};
use crate::process::{Operator, condition, klamm, until_condition};
use crate::types::object;

pub const FLAGS: [&str; 2] = ["--leader-election=false", "--allow-scale-targets=true"];

fn deployment(space: &Namespace, replicas: i32) {
    let labels = json!({ "app": "billing" });
    let pod = json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": "none" }] } });
    space.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "billing" },
        "spec": { "replicas": replicas, "selector": { "matchLabels": labels }, "template": pod },
    }));
}

fn group(space: &Namespace, broker: &Broker, spec: Value) {
    let mut spec = spec;
    spec["bootstrapServers"] = broker.bootstrap().into();
    space.apply(&object("ConsumerGroup", "billing", &spec));
}

fn look(space: &Namespace) {
    space.kubectl(["annotate", "--overwrite", "kmg", "billing", &format!("look={}", klamm_tests::unique("now"))]).ok();
}

/// Waits until the Deployment is to have so many pods.
fn until_replicas(space: &Namespace, wanted: i32) {
    space.until("deployment", "billing", 90, |found| (found["spec"]["replicas"] == wanted).then_some(()));
}

fn ends(mut member: Process) {
    member.signal("TERM");
    member.wait(Duration::from_secs(20)).expect("it ends");
}

#[test]
fn consumers_come_with_the_first_record_and_go_when_all_is_read() {
    with_control_plane("consumers::consumers_come_with_the_first_record_and_go_when_all_is_read", || {
        install_types();
        let (space, broker) = (Namespace::new("lag"), Broker::start(&[]));
        let _operator = Operator::start_with(&[&space], &FLAGS);
        klamm(&broker, "topics create orders --partitions 2").ok();
        deployment(&space, 0);
        let scale =
            json!({ "targetRef": { "name": "billing" }, "minReplicas": 0, "maxReplicas": 5, "downWindow": "1s" });
        let spec = json!({ "topics": ["orders"], "initialOffsets": { "offset": "Earliest" }, "scale": scale });
        group(&space, &broker, spec);
        until_condition(&space, "kmg", "billing", "ScalingActive", "True/Enough");
        klamm(&broker, "produce orders --partition 1").stdin("one\n").ok();
        look(&space);
        until_replicas(&space, 1);
        let member = klamm(&broker, "consume orders --group billing").start();
        eventually("it reads", 60, || member.stdout().contains("one").then_some(()));
        until_replicas(&space, 0);
        ends(member);

        // Somebody else's from now on.
        space.kubectl(["autoscale", "deployment", "billing", "--min=1", "--max=3"]).ok();
        look(&space);
        until_condition(&space, "kmg", "billing", "ScalingActive", "False/ScaleConflict");
        space.kubectl(["delete", "hpa", "billing"]).ok();
        look(&space);
        until_condition(&space, "kmg", "billing", "ScalingActive", "True");
    });
}

#[test]
fn a_reset_stops_consumers_and_starts_them_again_though_the_operator_is_killed() {
    with_control_plane(
        "consumers::a_reset_stops_consumers_and_starts_them_again_though_the_operator_is_killed",
        || {
            install_types();
            let (space, broker) = (Namespace::new("pause"), Broker::start(&[]));
            let mut operator = Operator::start_with(&[&space], &FLAGS);
            klamm(&broker, "topics create orders --partitions 1").ok();
            klamm(&broker, "produce orders --partition 0").stdin("a\nb\nc\n").ok();
            let member = klamm(&broker, "consume orders --group billing --from-beginning").start();
            eventually("it reads", 60, || member.stdout().contains('c').then_some(()));
            deployment(&space, 2);
            let scale = json!({ "targetRef": { "name": "billing" }, "mode": "Manual" });
            let reset = json!({ "id": "one", "to": { "offset": "Earliest" }, "whenActive": "PauseTarget" });
            group(&space, &broker, json!({ "topics": ["orders"], "scale": scale, "reset": reset }));
            until_replicas(&space, 0);
            operator.kill();
            let noted = space.get("kmg", "billing").expect("the ConsumerGroup");
            assert_eq!(noted["status"]["pause"]["replicas"], 2, "{noted:#}");
            ends(member);
            let _next = Operator::start_with(&[&space], &FLAGS);
            let done = until_condition(&space, "kmg", "billing", "ResetComplete", "True/Applied");
            until_replicas(&space, 2);
            assert_eq!(done["status"]["lastReset"]["partitions"], 1, "{done:#}");
            let read = klamm(&broker, "consume orders --group billing -n 3").ok();
            assert_eq!(read.out.lines().count(), 3, "{read}");
            // Its finalizer is gone with the note.
            look(&space);
            space.until("kmg", "billing", 60, |found| found["metadata"]["finalizers"].is_null().then_some(()));
        },
    );
}

/// What a chart with these values lets an operator do in a namespace.
fn rights(space: &Namespace, allowed: bool) -> String {
    let watched = format!("watchNamespaces={{{}}}", space.name());
    let allowed = format!("scaleTargets.allowed={allowed}");
    let set = ["crds.create=false", "controllers={consumer-groups}", &watched, &allowed].map(|set| ["--set", set]);
    let verb = ["template", "scaler", "--namespace", space.name(), "--show-only", "templates/rbac.yaml"];
    Tool::new(program("helm")).args(verb).arg(chart("klamm-operator")).args(set.as_flattened()).ok().out
}

#[test]
fn the_charts_role_lets_the_operator_scale_and_do_nothing_else() {
    with_control_plane("consumers::the_charts_role_lets_the_operator_scale_and_do_nothing_else", || {
        install_types();
        let (space, broker) = (Namespace::new("rights"), Broker::start(&[]));
        let (all, less) = (rights(&space, true), rights(&space, false));
        kubectl(["apply", "-f", "-"]).stdin(all.clone()).ok();
        let account = format!("system:serviceaccount:{}:scaler-klamm-operator", space.name());
        let here = format!("--namespace={}", space.name());
        for (may, verb, what) in [
            (true, "get", "deployments.apps/scale"),
            (true, "patch", "deployments.apps/scale"),
            (true, "patch", "statefulsets.apps/scale"),
            (true, "list", "horizontalpodautoscalers.autoscaling"),
            (false, "update", "deployments.apps/scale"),
            (false, "get", "deployments.apps"),
            (false, "patch", "deployments.apps"),
            (false, "patch", "statefulsets.apps"),
            (false, "patch", "replicasets.apps/scale"),
            (false, "patch", "horizontalpodautoscalers.autoscaling"),
            (false, "get", "pods"),
            (false, "get", "secrets"),
        ] {
            assert_eq!(may_it(&account, verb, what, &here), may, "{verb} {what}");
        }
        assert!(!may_it(&account, "patch", "deployments.apps/scale", "--namespace=default"), "nor elsewhere");

        let flags = ["--controllers=consumer-groups", "--namespace", space.name()];
        let operator = Operator::start_as(&account, &[&space], &[&FLAGS[..], &flags].concat());
        klamm(&broker, "topics create orders --partitions 2").ok();
        deployment(&space, 0);
        let scaled = |least: i32, more: Value| {
            let scale = json!({ "targetRef": { "name": "billing" }, "minReplicas": least, "maxReplicas": 9 });
            let mut spec = json!({ "topics": ["orders"], "scale": scale });
            spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            group(&space, &broker, spec);
        };
        // What a person wants counts more than how many can read.
        scaled(3, json!({}));
        until_condition(&space, "kmg", "billing", "ScalingLimited", "True/MinReplicas");
        until_replicas(&space, 3);
        let log = operator.log();
        assert!(!log.to_lowercase().contains("forbidden"), "{log}");

        // A role of an older chart, say.
        kubectl(["apply", "-f", "-"]).stdin(less).ok();
        eventually("the right is gone", 30, || {
            (!may_it(&account, "patch", "deployments.apps/scale", &here)).then_some(())
        });
        let member = klamm(&broker, "consume orders --group billing").start();
        eventually("it has a member", 60, || {
            klamm(&broker, "groups describe billing").run().out.contains("Stable").then_some(())
        });
        scaled(4, json!({ "reset": { "id": "one", "to": { "offset": "Latest" }, "whenActive": "PauseTarget" } }));
        let found = until_condition(&space, "kmg", "billing", "ScalingActive", "False/Forbidden");
        let said = |kind: &str| condition(&found, kind).unwrap_or_default();
        assert_eq!((said("Stalled"), said("ResetComplete")), ("True/Forbidden".into(), "False/Forbidden".into()));
        assert_eq!((said("Active").as_str(), &found["status"]["members"]), ("True/Members", &json!(1)), "{found:#}");
        eventually("an Event tells of it", 30, || {
            let fields = "--field-selector=reason=Forbidden,type=Warning";
            let told = space.kubectl(["get", "events", fields, "--output=jsonpath={.items[*].message}"]).ok().out;
            told.contains("scaleTargets.allowed").then_some(())
        });
        until_replicas(&space, 3);
        kubectl(["apply", "-f", "-"]).stdin(all.clone()).ok();
        until_replicas(&space, 0);
        ends(member);
        until_condition(&space, "kmg", "billing", "ResetComplete", "True");
        until_replicas(&space, 4);
        kubectl(["delete", "-f", "-"]).stdin(all).ok();
    });
}

/// Each of these would have taken consumers away, or set what is somebody else's.
#[test]
fn what_is_described_wrongly_or_cannot_be_seen_takes_nobody_away() {
    with_control_plane("consumers::what_is_described_wrongly_or_cannot_be_seen_takes_nobody_away", || {
        install_types();
        let (space, mut broker) = (Namespace::new("harm"), Broker::start(&[]));
        let mut operator = Operator::start_with(&[&space], &FLAGS);
        klamm(&broker, "topics create orders --partitions 2").ok();
        klamm(&broker, "produce orders --partition 0").stdin("a\n").ok();
        klamm(&broker, "produce orders --partition 1").stdin("b\n").ok();
        let bootstrap = broker.bootstrap().to_owned();
        let spec = |target: Value, more: Value| {
            let mut scale = json!({ "targetRef": target, "minReplicas": 0, "maxReplicas": 5, "lagPerReplica": 1, "downWindow": "1s" });
            scale.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            json!({ "topics": ["orders"], "initialOffsets": { "offset": "Earliest" }, "scale": scale,
                "bootstrapServers": bootstrap })
        };
        let billing = || json!({ "name": "billing" });

        // Somewhere else, and what cannot be scaled.
        for target in
            [json!({ "name": "billing", "namespace": "default" }), json!({ "name": "billing", "kind": "Pod" })]
        {
            let found = object("ConsumerGroup", "wrong", &spec(target, json!({}))).to_string();
            let refused = space.kubectl(["create", "--validate=strict", "-f", "-"]).stdin(found).run();
            assert!(refused.code != 0 && refused.err.contains("targetRef"), "{refused}");
        }

        // A target that is not there yet; then one for two.
        space.apply(&object("ConsumerGroup", "billing", &spec(billing(), json!({}))));
        until_condition(&space, "kmg", "billing", "ScalingActive", "False/TargetNotFound");
        deployment(&space, 0);
        look(&space);
        until_replicas(&space, 2);
        // Of two of the same second the older one is not the first one.
        std::thread::sleep(Duration::from_millis(1100));
        space.apply(&object("ConsumerGroup", "other", &spec(billing(), json!({ "minReplicas": 4 }))));
        let conflict = until_condition(&space, "kmg", "other", "ScalingActive", "False/ScaleConflict");
        assert_contains(&conflict["status"].to_string(), &format!("ConsumerGroup {}/billing", space.name()));

        // An operator that is killed in a window: the next one goes on with it.
        let groups = "groups reset-offsets billing --topic orders --to-latest";
        let window = |window: &str| {
            space.apply(&object("ConsumerGroup", "billing", &spec(billing(), json!({ "downWindow": window }))));
        };
        window("10m");
        klamm(&broker, groups).ok();
        look(&space);
        let held = until_condition(&space, "kmg", "billing", "ScalingActive", "True/Stabilizing");
        let since = |found: &Value| found["status"]["scaling"]["pending"]["since"].clone();
        operator.kill();
        let _next = Operator::start_with(&[&space], &FLAGS);
        window("20m");
        let going = until_condition(&space, "kmg", "billing", "ScalingActive", "True/Stabilizing");
        assert!(since(&held).is_string() && since(&held) == since(&going), "{held:#}\n{going:#}");

        // Brokers that do not answer: nobody knows what is unread.
        broker.kill();
        window("0s");
        until_condition(&space, "kmg", "billing", "ScalingActive", "Unknown/ClusterUnreachable");
        until_replicas(&space, 2);
        broker.restart();
        look(&space);
        until_replicas(&space, 0);
        // What it scaled is gone.
        space.kubectl(["delete", "deployment", "billing", "--timeout=30s"]).limit(40).ok();
        look(&space);
        until_condition(&space, "kmg", "billing", "ScalingActive", "False/TargetNotFound");
    });
}
