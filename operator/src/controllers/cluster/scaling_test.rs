//! How many brokers there are, against an API server that is made up. No broker answers here: more come, and none goes.

use serde_json::json;

use super::controller_test::{SET, World, outside};
use super::rolling_test::{running, running_by};
use super::*;
use crate::crd::cluster::OperationType;
use crate::render::names;

fn asked(world: &World, replicas: i32) {
    world.edit(|cluster| cluster["spec"]["replicas"] = replicas.into());
}

fn replicas(world: &World) -> i64 {
    world.server.get(SET).unwrap()["spec"]["replicas"].as_i64().unwrap()
}

#[tokio::test]
async fn brokers_come_with_all_they_need_and_none_goes_while_nobody_can_be_asked() {
    let world = running().await;
    asked(&world, 4);
    world.pass().await.unwrap();
    let expected = ["PATCH services/prod-out-2", "PATCH services/prod-out-3", "PATCH clusters/prod/status"];
    assert_eq!(world.server.writes(), expected, "their addresses first");
    assert_eq!(world.condition("UpToDate"), "False/Scaling");
    world.pass().await.unwrap();
    assert_eq!(world.server.writes()[..2], ["PATCH configmaps/prod-config", "PATCH statefulsets/prod"]);
    assert_eq!(replicas(&world), 4);
    let notes = world.server.get(SET).unwrap()["metadata"]["annotations"].clone();
    assert_eq!((&notes[names::JOINING], &notes[names::FOUNDERS]), (&json!("2,3"), &json!("2")));
    let files = world.server.get("/api/v1/namespaces/x/configmaps/prod-config").unwrap()["data"].clone();
    let file = files["prod-3.properties"].as_str().unwrap_or_else(|| panic!("{files:#}"));
    assert!(file.contains("controller.quorum.bootstrap.servers=prod-0") && !file.contains("prod-2.prod"), "{file}");

    // Nor one of their own, which a single name would make them do.
    let alone = World::new(json!({ "replicas": 1 }));
    alone.pass().await.unwrap();
    asked(&alone, 2);
    alone.pass().await.unwrap();
    let files = alone.server.get("/api/v1/namespaces/x/configmaps/prod-config").unwrap()["data"].clone();
    let file = files["prod-1.properties"].as_str().unwrap_or_else(|| panic!("{files:#}"));
    let seeds = file.lines().find_map(|line| line.strip_prefix("controller.quorum.bootstrap.servers=")).unwrap();
    assert!(seeds.split(',').count() == 2 && seeds.split(',').all(|seed| seed.starts_with("prod-0.")), "{seeds}");

    // Fewer, or none: nobody tells what those hold that would go.
    for wish in [3, 1, 2] {
        asked(&world, wish);
        for _ in 0..3 {
            world.pass().await.unwrap();
            assert_eq!(replicas(&world), 4);
        }
        let operation = world.cluster().status.unwrap().operation.unwrap();
        let kind = if wish == 2 { OperationType::ScaleIn } else { operation.kind };
        assert_eq!((operation.kind, operation.step), (kind, OperationStep::Running));
        assert!(operation.blocked_by.is_some_and(|why| !why.is_empty()), "{wish}");
    }
    asked(&world, 50);
    world.pass().await.unwrap();
    world.pass().await.unwrap();
    assert_eq!(replicas(&world), 50);
    world.edit(|cluster| cluster["spec"]["paused"] = true.into());
    asked(&world, 60);
    world.pass().await.unwrap();
    assert_eq!(replicas(&world), 50);
}

#[tokio::test]
async fn whichever_request_fails_brokers_are_added_once() {
    for code in [0, 500] {
        for number in (0..40).step_by(3) {
            let world = World::new(outside());
            world.pass().await.unwrap();
            asked(&world, 3);
            world.server.writes();
            world.server.0.lock().fail = Some((number, code));
            for _ in 0..3 {
                let _ = world.pass().await;
                world.server.0.lock().fail = None;
            }
            let at = format!("request {number}, {code}");
            assert_eq!(replicas(&world), 3, "{at}");
            assert_eq!(world.server.get(SET).unwrap()["metadata"]["annotations"][names::JOINING], "2", "{at}");
            world.server.writes();
            world.pass().await.unwrap();
            assert!(world.server.writes().is_empty(), "{at}");
        }
    }
}

#[tokio::test]
async fn what_was_decided_by_an_older_look_is_not_written() {
    for number in (0..40).step_by(2) {
        let world = World::new(outside());
        world.pass().await.unwrap();
        asked(&world, 3);
        world.pass().await.unwrap();
        // Another operator, while this one looks.
        let mut theirs = world.server.get(SET).unwrap();
        theirs["spec"]["replicas"] = 9.into();
        (theirs["metadata"]["generation"], theirs["metadata"]["resourceVersion"]) = (77.into(), "77".into());
        world.server.writes();
        world.server.0.lock().meddle = Some((number, SET.into(), theirs));
        let _ = world.pass().await;
        let meddled = world.server.0.lock().meddle.is_none();
        assert_eq!(replicas(&world), if meddled { 9 } else { 3 }, "request {number}");
    }
}

#[tokio::test]
async fn autoscalers_count_who_stays() {
    let world = running().await;
    assert!(world.cluster().status.unwrap().selector.unwrap().ends_with(",!klamm.dev/draining"));
    let leaving = |id: &str| {
        let mut set = world.server.get(SET).unwrap();
        set["metadata"]["annotations"][names::LEAVING] = id.into();
        world.server.put(SET, set);
    };
    let pods = world.server.get("/api/v1/namespaces/x/pods/prod-1").unwrap();
    let labelled = |label: Option<&str>| {
        let mut pod = pods.clone();
        pod["metadata"]["namespace"] = "x".into();
        pod["metadata"]["labels"] = label.map_or(json!({}), |label| json!({ names::DRAINING: label }));
        world.server.put("/api/v1/namespaces/x/pods/prod-1", pod);
    };
    let patched = async || {
        world.server.writes();
        // A label that is taken away comes back as null from a server that is made up, which is nothing that a pod can have.
        let _ = world.pass().await;
        world.server.writes().into_iter().filter(|write| write.contains("pods/")).collect::<Vec<_>>()
    };
    labelled(None);
    assert!(patched().await.is_empty());
    leaving("1");
    world.edit(|cluster| cluster["spec"]["paused"] = true.into());
    assert!(patched().await.is_empty(), "paused");
    world.edit(|cluster| cluster["spec"]["paused"] = false.into());
    assert_eq!(patched().await, ["PATCH pods/prod-1"]);
    labelled(Some("true"));
    assert!(patched().await.is_empty(), "once");
    // It stays after all.
    leaving("");
    assert_eq!(patched().await, ["PATCH pods/prod-1"]);
    labelled(None);
    assert!(patched().await.is_empty());
}

/// Puts a StatefulSet there that somebody has scaled, whose own controller has seen it.
fn scaled_by_hand(world: &World, replicas: i32) {
    let mut set = world.server.get(SET).unwrap();
    set["spec"]["replicas"] = replicas.into();
    (set["metadata"]["generation"], set["status"]["observedGeneration"]) = (9.into(), 9.into());
    world.server.put(SET, set);
}

#[tokio::test]
async fn brokers_that_somebody_takes_away_are_back_in_one_look_and_nobody_is_asked() {
    let world = running_by(json!({ "replicas": 3 })).await;
    let ready = world.condition("Ready");
    scaled_by_hand(&world, 1);
    world.pass().await.unwrap();
    assert_eq!(replicas(&world), 3);
    let set = world.server.get(SET).unwrap();
    assert_eq!(set["metadata"]["annotations"][names::JOINING], "1,2", "they get their share as any that come");
    let operation = world.cluster().status.unwrap().operation.unwrap();
    assert_eq!((operation.kind, operation.reason.as_str()), (OperationType::ScaleOut, "BrokersTakenAway"));
    assert!(operation.message.contains("to 1: brokers 1, 2 come back"), "{}", operation.message);
    assert_eq!(world.condition("Ready"), ready, "nobody was asked");
    // It is a recovery until they are well.
    world.pass().await.unwrap();
    let operation = world.cluster().status.unwrap().operation.unwrap();
    assert_eq!((operation.kind, operation.reason.as_str()), (OperationType::ScaleOut, "BrokersTakenAway"));

    // All that there were, though fewer are asked for: those that go give away before what they hold.
    let world = running_by(json!({ "replicas": 3 })).await;
    asked(&world, 2);
    scaled_by_hand(&world, 1);
    world.pass().await.unwrap();
    assert_eq!(replicas(&world), 3);

    // Nothing is changed while that is not wished, and then it is.
    let world = running_by(json!({ "replicas": 3 })).await;
    world.edit(|cluster| cluster["spec"]["paused"] = true.into());
    scaled_by_hand(&world, 1);
    world.pass().await.unwrap();
    assert_eq!(replicas(&world), 1);
}

#[tokio::test]
async fn who_was_about_to_go_is_not_put_back_without_asking() {
    let world = running_by(json!({ "replicas": 3 })).await;
    asked(&world, 2);
    let mut set = world.server.get(SET).unwrap();
    set["metadata"]["annotations"][names::LEAVING] = "2".into();
    world.server.put(SET, set);
    scaled_by_hand(&world, 2);
    for _ in 0..3 {
        world.pass().await.unwrap();
        assert_eq!(replicas(&world), 2);
    }
}

#[tokio::test]
async fn what_was_noted_of_brokers_that_never_came_brings_none() {
    // The operator died between the note and the StatefulSet, and the wish was taken back.
    let world = running_by(json!({ "replicas": 3 })).await;
    let at = "/api/v1/namespaces/x/configmaps/prod-config";
    let mut config = world.server.get(at).unwrap();
    config["metadata"]["annotations"][names::BROKERS] = "50".into();
    world.server.put(at, config);
    for _ in 0..2 {
        world.pass().await.unwrap();
        assert_eq!(replicas(&world), 3);
    }
}

#[tokio::test]
async fn fifty_by_mistake_are_told_in_a_line() {
    let world = running_by(json!({ "replicas": 3 })).await;
    asked(&world, 50);
    world.pass().await.unwrap();
    let first = world.cluster().status.unwrap().operation.unwrap();
    assert!(first.message.contains("brokers 3-49"), "{}", first.message);
    let notes: Vec<String> = world.server.0.lock().bodies.iter().map(|(_, body)| body.clone()).collect();
    assert!(notes.iter().any(|body| body.contains("brokers are asked for: brokers 3-49 are added")));
}
