//! Which pods the controller deletes, against an API server that is made up: those that cannot run. Whether one that runs may
//! be stopped nobody tells here, so none is.

use serde_json::{Value, json};

use super::controller_test::{SET, World, outside};
use super::*;
use crate::brokers::Address;
use crate::roll;

/// Two brokers that run as described, and the StatefulSet's controller knows.
pub(super) async fn running() -> World {
    running_by(outside()).await
}

/// As many as are described.
pub(super) async fn running_by(spec: Value) -> World {
    let replicas = i32::try_from(spec["replicas"].as_i64().expect("a number")).expect("a small number");
    let world = World::new(spec);
    world.pass().await.unwrap();
    let mut set = world.server.get(SET).unwrap();
    let annotations = set["spec"]["template"]["metadata"]["annotations"].clone();
    (set["metadata"]["generation"], set["status"]) =
        (1.into(), json!({ "replicas": replicas, "observedGeneration": 1 }));
    world.server.put(SET, set);
    for id in 0..replicas {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("prod-{id}"), "uid": format!("uid-{id}"), "resourceVersion": "7",
                "annotations": annotations, "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        world.server.put(&pod_at(id), pod);
    }
    world.pass().await.unwrap();
    world.server.writes();
    world
}

fn pod_at(id: i32) -> String {
    format!("/api/v1/namespaces/x/pods/prod-{id}")
}

fn edit_pod(world: &World, id: i32, edit: impl FnOnce(&mut Value)) {
    let mut pod = world.server.get(&pod_at(id)).unwrap();
    edit(&mut pod);
    world.server.put(&pod_at(id), pod);
}

/// Its container ends again and again.
fn fails(world: &World, id: i32) {
    let failing = json!([{ "name": "broker", "image": "i", "imageID": "", "ready": false, "restartCount": 3,
        "state": { "waiting": { "reason": "CrashLoopBackOff" } } }]);
    edit_pod(world, id, |pod| pod["status"] = json!({ "phase": "Running", "containerStatuses": failing }));
}

/// The StatefulSet's controller has seen that generation of two.
fn followed(world: &World, generation: i64) {
    let mut set = world.server.get(SET).unwrap();
    (set["metadata"]["generation"], set["status"]) = (2.into(), json!({ "observedGeneration": generation }));
    world.server.put(SET, set);
}

fn deleted(world: &World) -> Vec<String> {
    world.server.writes().into_iter().filter(|write| write.starts_with("DELETE")).collect()
}

fn step(world: &World) -> Option<OperationStep> {
    world.cluster().status.expect("a status").operation.map(|operation| operation.step)
}

#[tokio::test]
async fn no_broker_is_stopped_while_nobody_says_that_it_may_be() {
    let world = running().await;
    world.edit(|cluster| cluster["spec"]["config"] = json!({ "num.partitions": 7 }));
    for _ in 0..3 {
        world.pass().await.unwrap();
        followed(&world, 2);
    }
    assert_eq!(deleted(&world), [""; 0]);
    assert_eq!(step(&world), Some(OperationStep::WaitingForSafety), "the brokers cannot be reached");
    assert_eq!(world.condition("UpToDate"), "False/Rolling");
}

#[tokio::test]
async fn a_pod_that_cannot_run_is_replaced_once_there_is_another_description() {
    let world = running().await;
    fails(&world, 1);
    world.pass().await.unwrap();
    assert_eq!(deleted(&world), [""; 0], "it fails by the description that there is: deleting it helps nobody");
    world.edit(|cluster| cluster["spec"]["config"] = json!({ "num.partitions": 7 }));
    world.pass().await.unwrap();
    followed(&world, 1);
    world.pass().await.unwrap();
    assert_eq!(deleted(&world), [""; 0], "it would be made anew by the old template");
    followed(&world, 2);
    world.pass().await.unwrap();
    assert_eq!(deleted(&world), ["DELETE pods/prod-1"]);
    let bodies = world.server.0.lock().bodies.clone();
    let (_, asked) = bodies.iter().rfind(|(path, _)| path.ends_with("pods/prod-1")).unwrap();
    let asked: Value = serde_json::from_str(asked).unwrap();
    assert_eq!(asked["preconditions"], json!({ "uid": "uid-1", "resourceVersion": "7" }), "that pod and no other");
    world.pass().await.unwrap();
    assert_eq!(deleted(&world), [""; 0]);
    assert_eq!(step(&world), Some(OperationStep::WaitingForBroker));
}

/// A container beside the broker, or before it, as the kubelet tells of it.
fn another(name: &str) -> Value {
    json!({ "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 3,
        "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } } })
}

#[tokio::test]
async fn a_pod_that_waits_for_another_container_is_replaced_like_one_that_cannot_run() {
    let world = running().await;
    edit_pod(&world, 1, |pod| {
        pod["status"] = json!({ "phase": "Pending", "initContainerStatuses": [another("prepare")] });
    });
    world.pass().await.unwrap();
    assert_eq!(world.condition("Stalled"), "True/BrokersFail");
    let conditions = world.cluster().status.unwrap().conditions;
    let said = conditions.iter().find(|condition| condition.type_ == "BrokersReady").unwrap();
    assert!(said.message.contains("prod-1 (container prepare: ImagePullBackOff: no such image)"), "{}", said.message);
    world.edit(|cluster| cluster["spec"]["config"] = json!({ "num.partitions": 7 }));
    world.pass().await.unwrap();
    followed(&world, 2);
    world.pass().await.unwrap();
    assert_eq!(deleted(&world), ["DELETE pods/prod-1"]);
}

#[tokio::test]
async fn a_broker_that_serves_beside_a_container_that_fails_is_asked_about() {
    let world = running().await;
    let broker = json!({ "name": "broker", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
        "state": { "running": {} } });
    let unready = json!({ "type": "Ready", "status": "False", "lastTransitionTime": Timestamp::now().to_string() });
    for id in 0..2 {
        edit_pod(&world, id, |pod| {
            let containers = [broker.clone(), another("side")];
            pod["status"] = json!({ "phase": "Running", "conditions": [unready], "containerStatuses": containers });
        });
    }
    let address = Address::Cluster("x".into(), "prod".into());
    world.context.ways.forget(&address);
    world.pass().await.unwrap();
    assert_eq!(world.condition("Stalled"), "True/BrokersFail");
    assert!(world.context.ways.to(&address).is_some(), "an operator that has just started can ask, too");
    world.edit(|cluster| cluster["spec"]["config"] = json!({ "num.partitions": 7 }));
    world.pass().await.unwrap();
    followed(&world, 2);
    world.pass().await.unwrap();
    assert_eq!(deleted(&world), [""; 0], "nobody says that it may be stopped");
    assert_eq!(step(&world), Some(OperationStep::WaitingForSafety), "waiting helps nobody");
}

#[tokio::test]
async fn a_pod_that_is_ready_between_two_ends_of_a_container_is_not_ready() {
    let world = running().await;
    let checked = crate::render::check(&world.cluster(), &crate::controllers::mock::settings()).unwrap();
    let (now, ready) = (Timestamp::now(), json!({ "type": "Ready", "status": "True" }));
    let stands = |restarts: i32, seconds: i64| {
        let since = now - jiff::SignedDuration::from_secs(seconds);
        let side = json!({ "name": "side", "image": "i", "imageID": "", "ready": true, "restartCount": restarts,
            "state": { "running": { "startedAt": since.to_string() } } });
        let status = json!({ "phase": "Running", "conditions": [ready], "containerStatuses": [side] });
        let pod = serde_json::from_value(json!({ "metadata": { "name": "prod-0" }, "status": status })).unwrap();
        let set = serde_json::from_value(world.server.get(SET).unwrap()).unwrap();
        let observed = observed::Observed { set: Some(set), pods: [(0, pod)].into(), ..Default::default() };
        rolling::facts(&checked, &observed, now).brokers[&0].pod
    };
    // The next broker would get what fails in this one.
    assert_eq!(stands(2, 3), roll::Pod::Unready(roll::PATIENCE));
    assert_eq!(stands(2, 10), roll::Pod::Ready);
    assert_eq!(stands(1, 3), roll::Pod::Ready, "a broker that was told its rack");
}

#[tokio::test]
async fn who_may_not_delete_pods_says_so_once_and_keeps_up_the_status() {
    let world = running().await;
    fails(&world, 1);
    world.edit(|cluster| cluster["spec"]["config"] = json!({ "num.partitions": 7 }));
    world.pass().await.unwrap();
    followed(&world, 2);
    world.server.0.lock().refuse = Some((pod_at(1), 403));
    let told = |world: &World| {
        let state = world.server.0.lock();
        state.bodies.iter().filter(|(path, body)| path.ends_with("/events") && body.contains("right to delete")).count()
    };
    for _ in 0..3 {
        let again = Cluster::reconcile(&world.cluster(), &world.context).await.expect("a status is written");
        assert_eq!(again, Action::requeue(SOON), "as often as any broker that is not ready is looked at");
        let operation = world.cluster().status.unwrap().operation.unwrap();
        assert_eq!((operation.step, operation.broker), (OperationStep::Pending, Some(1)));
        assert!(operation.blocked_by.is_some_and(|why| why.contains("right to delete pods")));
        assert_eq!(world.condition("UpToDate"), "False/RestartRequired");
        assert_eq!(told(&world), 1);
    }
    world.server.0.lock().refuse = None;
    world.pass().await.unwrap();
    assert_eq!(deleted(&world), ["DELETE pods/prod-1"], "it was given the right");
}

#[tokio::test]
async fn a_template_that_asks_for_a_restart_asks_once() {
    let world = running().await;
    let both = json!({ "klamm.dev/restart": "x", "klamm.dev/restarted-for": "y", "note": "z" });
    world.edit(|cluster| cluster["spec"]["podTemplate"] = json!({ "annotations": both }));
    world.pass().await.unwrap();
    assert_eq!(world.condition("UpToDate"), "False/Rolling");
    let annotations = world.server.get(SET).unwrap()["spec"]["template"]["metadata"]["annotations"].clone();
    assert_eq!(annotations["note"], "z");
    assert!(annotations["klamm.dev/restart"].is_null() && annotations["klamm.dev/restarted-for"].is_null());
}

#[tokio::test]
async fn nobody_is_restarted_for_a_description_that_the_statefulset_does_not_have() {
    let world = running().await;
    fails(&world, 1);
    world.edit(|cluster| cluster["spec"]["listeners"][1]["type"] = "loadbalancer".into());
    for _ in 0..3 {
        world.pass().await.unwrap();
        followed(&world, 2);
    }
    assert_eq!(world.condition("Stalled"), "True/BrokersFail");
    assert_eq!(world.condition("Reconciling"), "False/Stalled", "tools that look at it first would wait for ever");
    assert_eq!(deleted(&world), [""; 0], "it would come back as it was, and be restarted again");
}

#[tokio::test]
async fn a_pod_is_restarted_once_for_a_volume_that_the_kubelet_does_not_let_grow() {
    let world = running().await;
    // Pods are of the first of January.
    for (since, due) in [
        ("2025-12-31T00:00:00Z".to_owned(), false),
        ("2026-01-02T00:00:00Z".to_owned(), true),
        (Timestamp::now().to_string(), false),
    ] {
        let pending =
            json!({ "type": "FileSystemResizePending", "status": "True", "lastTransitionTime": since.as_str() });
        world.server.put(
            "/api/v1/namespaces/x/persistentvolumeclaims/data-prod-1",
            json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data-prod-1" },
                "spec": { "resources": { "requests": { "storage": "10Gi" } } },
                "status": { "capacity": { "storage": "10Gi" }, "conditions": [pending] },
            }),
        );
        world.pass().await.unwrap();
        let reason = world.cluster().status.unwrap().operation.map(|operation| operation.reason);
        assert_eq!(reason.as_deref(), due.then_some("VolumeGrown"), "{since}");
    }
}

#[tokio::test]
async fn a_description_that_was_just_applied_is_not_said_to_wait_for_anything_else() {
    let world = running().await;
    let closed = json!({ "windows": [{ "cron": "0 0 29 2 *", "duration": "1m" }] });
    world.edit(|cluster| cluster["spec"]["rolling"] = closed);
    world.edit(|cluster| cluster["spec"]["config"] = json!({ "num.partitions": 7 }));
    world.pass().await.unwrap();
    assert_eq!(world.condition("UpToDate"), "False/Rolling", "the StatefulSet is about to take it");
    followed(&world, 2);
    world.pass().await.unwrap();
    assert_eq!(world.condition("UpToDate"), "False/RestartRequired");
    let message = world.cluster().status.unwrap().operation.unwrap().message;
    assert!(message.contains("02-29T00:00:00Z"), "{message}");
}

#[tokio::test]
async fn another_version_of_the_operator_restarts_nobody() {
    let world = running().await;
    for id in 0..2 {
        edit_pod(&world, id, |pod| {
            pod["metadata"]["annotations"]["klamm.dev/template-hash"] = "of an older operator".into();
        });
    }
    world.pass().await.unwrap();
    assert_eq!((deleted(&world), step(&world)), (vec![], Some(OperationStep::Pending)));
    assert_eq!(world.condition("UpToDate"), "False/RestartRequired");
    world.edit(|cluster| cluster["spec"]["rolling"] = json!({ "onOperatorUpgrade": "Roll" }));
    world.pass().await.unwrap();
    assert_eq!(step(&world), Some(OperationStep::WaitingForSafety), "it wants to");
    world.edit(|cluster| cluster["spec"]["rolling"] = json!({}));
    world.pass().await.unwrap();
    assert_eq!(step(&world), Some(OperationStep::Pending));
    world.edit(|cluster| cluster["metadata"]["annotations"] = json!({ "klamm.dev/restart": "now" }));
    for _ in 0..2 {
        world.pass().await.unwrap();
        followed(&world, 2);
    }
    assert_eq!(step(&world), Some(OperationStep::WaitingForSafety), "somebody asks for it");
    world.edit(|cluster| cluster["spec"]["paused"] = true.into());
    world.pass().await.unwrap();
    assert_eq!((deleted(&world), step(&world)), (vec![], Some(OperationStep::Pending)));
}

#[tokio::test]
async fn one_pod_is_restarted_when_that_one_is_asked_for() {
    let world = running().await;
    edit_pod(&world, 1, |pod| pod["metadata"]["annotations"]["klamm.dev/restart"] = "true".into());
    world.pass().await.unwrap();
    let operation = world.cluster().status.unwrap().operation.unwrap();
    assert_eq!((operation.reason.as_str(), operation.brokers), ("RestartAsked", vec![1]));
    assert_eq!(operation.step, OperationStep::WaitingForSafety);
}

#[tokio::test]
async fn the_only_copy_on_a_disk_that_goes_with_its_pod_stays_until_its_restart_is_asked_for() {
    let at_risk = json!({ "topic": "t", "partition": 0, "in_sync_after": 0, "min_isr": 1, "always": true });
    let answer = serde_json::from_value(json!({ "safe": false, "offline": [at_risk] })).expect("an answer");
    let pod = serde_json::from_value(json!({ "metadata": { "name": "prod-0" } })).expect("a pod");
    for (storage, spared) in [("Ephemeral", true), ("Persistent", false)] {
        let world = World::new(json!({ "replicas": 1, "storage": { "type": storage, "size": "1Gi" } }));
        let lost = || {
            let checked =
                crate::render::check(&world.cluster(), &crate::controllers::mock::settings()).expect("it makes sense");
            rolling::lost_with(&checked, Some(&pod), &answer)
        };
        assert_eq!(lost().is_some_and(|why| why.contains("t-0") && why.contains("klamm.dev/restart")), spared);
        // Though it runs by an older description as well.
        world.edit(|cluster| cluster["spec"]["config"] = json!({ "num.partitions": 7 }));
        assert_eq!(lost().is_some(), spared);
        world.edit(|cluster| cluster["metadata"]["annotations"] = json!({ "klamm.dev/restart": "now" }));
        assert_eq!(lost(), None);
    }
}

#[tokio::test]
async fn a_missing_image_is_what_a_roll_is_blocked_by() {
    let world = running_by(json!({ "replicas": 3 })).await;
    world.edit(|cluster| cluster["spec"]["image"] = "r/missing:1".into());
    world.pass().await.unwrap();
    followed(&world, 2);
    let template = world.server.get(SET).unwrap()["spec"]["template"]["metadata"]["annotations"].clone();
    for reason in ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"] {
        // It was restarted and has the newest description; two are left.
        edit_pod(&world, 0, |pod| {
            pod["metadata"]["annotations"] = template.clone();
            let waiting = json!({ "waiting": { "reason": reason, "message": "no such image" } });
            let container = json!({ "name": "broker", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": waiting });
            pod["status"] = json!({ "phase": "Pending", "containerStatuses": [container] });
        });
        world.pass().await.unwrap();
        let operation = world.cluster().status.unwrap().operation.unwrap();
        assert_eq!((operation.step, operation.broker), (OperationStep::WaitingForBroker, Some(0)));
        let expected = format!("broker 0: {reason}: no such image");
        assert_eq!(operation.blocked_by.as_deref(), Some(expected.as_str()));
        assert_eq!(operation.message, "waits for broker 0, which does not run; left to restart: brokers 1, 2");
    }
}

#[tokio::test]
async fn who_is_being_restarted_is_not_left_to_restart() {
    let world = running_by(json!({ "replicas": 3 })).await;
    world.edit(|cluster| cluster["spec"]["config"] = json!({ "num.partitions": 7 }));
    world.pass().await.unwrap();
    followed(&world, 2);
    edit_pod(&world, 1, |pod| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    world.pass().await.unwrap();
    let message = world.cluster().status.unwrap().operation.unwrap().message;
    assert_eq!(message, "waits for broker 1, which is stopping; left to restart: brokers 0, 2");
}

#[test]
fn a_restart_that_waits_names_those_that_it_waits_for() {
    let why = || "t-0 would be below min.insync.replicas".to_owned();
    let said = |lagging: &[i32]| rolling::with_lagging(why(), 1, &lagging.iter().copied().collect());
    assert_eq!(said(&[1, 2]), "t-0 would be below min.insync.replicas; broker 2 is not in sync yet");
    assert!(said(&[0, 2, 3, 4]).ends_with("; brokers 0, 2-4 are not in sync yet"));
    assert_eq!(said(&[1]), why(), "it is not waited for itself");
}
