//! What runs a group's consumers: scaled by lag, and stopped for a reset. The consumers themselves run beside; what is looked
//! at is the number of pods that their Deployment is to have.

use std::time::Duration;

use klamm_tests::{Broker, Process, eventually};
use serde_json::{Value, json};

use crate::kubernetes::kubectl::install_types;
use crate::kubernetes::{Namespace, with_control_plane};
use crate::process::{Operator, klamm, until_condition};
use crate::types::object;

const FLAGS: [&str; 2] = ["--leader-election=false", "--allow-scale-targets=true"];

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
        until_replicas(&space, 1);
        let member = klamm(&broker, "consume orders --group billing").start();
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
            let mut member = klamm(&broker, "consume orders --group billing --from-beginning").start();
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
            space.until("kmg", "billing", 60, |found| found["metadata"]["finalizers"].is_null().then_some(()));
        },
    );
}
