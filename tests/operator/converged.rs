//! What is as described is left alone: however often the operator looks, by whatever it is made to look, it writes nothing
//! but its Lease.

use klamm_tests::{Broker, eventually};
use serde_json::json;

use crate::clusters::World;
use crate::kubernetes::audit::written_by;
use crate::kubernetes::kubectl::install_types;
use crate::kubernetes::{Namespace, with_control_plane, with_nodes};
use crate::process::{Operator, klamm, until_condition};
use crate::types::object;

/// A kind's short name, its controller, and which objects there are.
type Kind<'a> = (&'a str, &'a str, &'a [&'a str]);

/// Has the operator look at all of these several times, and another process in its place once. Fails when it has written
/// anything, also Events.
#[track_caller]
pub fn stays_as_it_is(
    space: &Namespace,
    operator: &mut Operator,
    again: impl FnOnce() -> Operator,
    kinds: &[Kind<'_>],
) {
    let done = |operator: &Operator, controller: &str| {
        let name = format!("klamm_operator_reconcile_total{{controller=\"{controller}\",result=\"ok\"}}");
        operator.metric(&name)
    };
    let before = written_by(operator.user());
    assert!(!before.is_empty(), "the audit log has nothing of {}", operator.user());
    for round in 0..4 {
        for (kind, controller, names) in kinds {
            let seen = done(operator, controller);
            let touch = format!("klamm.test/look={round}");
            let touched = space.kubectl(["annotate", "--overwrite", kind]).args(*names).arg(&touch);
            touched.ok();
            eventually("all are looked at", 60, || {
                (done(operator, controller) >= seen + names.len() as f64).then_some(())
            });
        }
    }
    operator.kill();
    *operator = again();
    for (_, controller, names) in kinds {
        eventually("the next one has looked at all", 60, || {
            (done(operator, controller) >= names.len() as f64).then_some(())
        });
        let told = |name: &str| operator.metric(&format!("klamm_operator_{name}{{controller=\"{controller}\"}}"));
        eventually("its metrics tell that all are as described, and that none waits", 10, || {
            (told("steady_state_total") >= names.len() as f64 && told("queue_depth") == 0.0).then_some(())
        });
    }
    let now = written_by(operator.user());
    assert!(now.len() == before.len(), "written though nothing has changed: {:#?}", &now[before.len()..]);
}

#[test]
fn topics_and_groups_are_left_alone() {
    with_control_plane("converged::topics_and_groups_are_left_alone", || {
        install_types();
        let (space, broker) = (Namespace::new("calm"), Broker::start(&[]));
        let flags = [format!("--namespace={}", space.name()), "--allow-scale-targets=true".into()];
        let start = || Operator::start_with(&[&space], &flags.each_ref().map(String::as_str));
        let mut operator = start();
        let at = |mut spec: serde_json::Value| {
            spec["bootstrapServers"] = broker.bootstrap().into();
            spec
        };
        space.apply(&object("Topic", "orders", &at(json!({ "partitions": 3, "config": { "retention.ms": 1000 } }))));
        space.apply(&object("Topic", "bills", &at(json!({ "drift": "Report", "cleanupPolicy": ["compact"] }))));
        until_condition(&space, "kmt", "orders", "Ready", "True/AsDescribed");
        until_condition(&space, "kmt", "bills", "Ready", "True/AsDescribed");
        // One that has read all, one that has been reset, one that begins where it is told to, one that scales. How long one
        // lags is news, and told twice a minute at most.
        klamm(&broker, "produce orders --partition 0").stdin("a\nb\nc\n").ok();
        klamm(&broker, "consume orders --group done --from-beginning -n 3").ok();
        let labels = json!({ "app": "none" });
        let pod =
            json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": "none" }] } });
        space.apply(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "none" },
            "spec": { "replicas": 1, "selector": { "matchLabels": labels }, "template": pod },
        }));
        let scale = json!({ "targetRef": { "name": "none" }, "minReplicas": 1, "maxReplicas": 3 });
        for (name, spec) in [
            ("done", json!({ "lagPolicy": { "maxLag": 0 } })),
            ("reset", json!({ "topics": ["orders"], "reset": { "id": "1", "to": { "offset": "Latest" } } })),
            ("guarded", json!({ "topics": ["orders"], "initialOffsets": { "offset": "Latest" } })),
            ("scaled", json!({ "topics": ["bills"], "scale": scale })),
        ] {
            space.apply(&object("ConsumerGroup", name, &at(spec)));
            until_condition(&space, "kmg", name, "Ready", "True");
        }
        until_condition(&space, "kmg", "reset", "ResetComplete", "True/Applied");
        until_condition(&space, "kmg", "scaled", "ScalingActive", "True");
        let kinds: [Kind<'_>; 2] =
            [("kmt", "topic", &["orders", "bills"]), ("kmg", "consumergroup", &["done", "reset", "guarded", "scaled"])];
        stays_as_it_is(&space, &mut operator, start, &kinds);
    });
}

#[test]
fn a_cluster_and_what_refers_to_it_are_left_alone() {
    with_nodes("converged::a_cluster_and_what_refers_to_it_are_left_alone", || {
        let World { space, mut operator } = {
            let world = World::new("still");
            let here = json!({ "clusterRef": { "name": "still" }, "topics": ["orders"] });
            world.space.apply(&object("Topic", "orders", &json!({ "clusterRef": { "name": "still" } })));
            world.space.apply(&object("ConsumerGroup", "billing", &here));
            let spec = json!({
                "replicas": 1, "storage": { "size": "1Gi", "whenDeleted": "Delete" }, "rack": {},
                "config": { "log.retention.ms": 86_400_000, "num.partitions": 2 },
                "resources": { "requests": { "cpu": "0.05", "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
                "listeners": [
                    { "name": "plain", "port": 9092 },
                    { "name": "outside", "port": 9094, "type": "nodeport", "service": { "annotations": { "a": "b" } } },
                ],
            });
            world.create("still", spec);
            world
        };
        until_condition(&space, "kmc", "still", "ConfigApplied", "True/Applied");
        until_condition(&space, "kmt", "orders", "Ready", "True/AsDescribed");
        until_condition(&space, "kmg", "billing", "Ready", "True/Watched");
        // Who may have to say something else of the last change: its debounce, and a second look.
        std::thread::sleep(std::time::Duration::from_secs(3));
        let kinds: [Kind<'_>; 3] =
            [("kmc", "cluster", &["still"]), ("kmt", "topic", &["orders"]), ("kmg", "consumergroup", &["billing"])];
        stays_as_it_is(&space, &mut operator, || Operator::start(&[&space]), &kinds);
        space.kubectl(["delete", "kmt,kmg,kmc", "--all", "--timeout=60s"]).limit(70).ok();
    });
}
