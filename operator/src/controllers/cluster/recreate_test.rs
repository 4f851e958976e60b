//! How the StatefulSet is made anew when claims have grown, against an API server that is made up.

use serde_json::{Value, json};

use super::controller_test::{SET, World};
use super::rolling_test::running_by;
use crate::render::names;

const CONFIG: &str = "/api/v1/namespaces/x/configmaps/prod-config";

fn claim_at(id: i32) -> String {
    format!("/api/v1/namespaces/x/persistentvolumeclaims/data-prod-{id}")
}

fn edit(world: &World, at: &str, edit: impl FnOnce(&mut Value)) {
    let mut object = world.server.get(at).unwrap_or_else(|| panic!("{at}"));
    edit(&mut object);
    world.server.put(at, object);
}

/// Two brokers, whose claims belong to the StatefulSet and are as large as was described first.
async fn grown() -> World {
    let storage = json!({ "size": "1Gi", "whenDeleted": "Delete", "storageClassName": "fast" });
    let world = running_by(json!({ "replicas": 2, "storage": storage })).await;
    let uid = world.server.get(SET).unwrap()["metadata"]["uid"].clone();
    world.server.put(
        "/apis/storage.k8s.io/v1/storageclasses/fast",
        json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "fast" },
            "provisioner": "p", "allowVolumeExpansion": true }),
    );
    for id in 0..2 {
        let owner = json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "prod", "uid": uid });
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": format!("data-prod-{id}"), "namespace": "x", "uid": format!("claim-{id}"), "ownerReferences": [owner] },
            "spec": { "storageClassName": "fast", "resources": { "requests": { "storage": "1Gi" } } },
            "status": { "capacity": { "storage": "1Gi" } },
        });
        world.server.put(&claim_at(id), claim);
    }
    world.pass().await.unwrap();
    let others = |write: &String| write != "PATCH clusters/prod/status";
    assert!(!world.server.writes().iter().any(others), "all is as described");
    world.edit(|cluster| cluster["spec"]["storage"]["size"] = "2Gi".into());
    // The claims are asked for, and whoever makes volumes sees to it.
    world.pass().await.unwrap();
    let writes = world.server.writes();
    assert_eq!(writes[..2], ["PATCH persistentvolumeclaims/data-prod-0", "PATCH persistentvolumeclaims/data-prod-1"]);
    for id in 0..2 {
        edit(&world, &claim_at(id), |claim| {
            assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "2Gi");
            claim["status"] = json!({ "capacity": { "storage": "2Gi" } });
        });
    }
    world
}

/// What the StatefulSet's controller does when claims are not to go with it.
fn let_go(world: &World) {
    (0..2).for_each(|id| edit(world, &claim_at(id), |claim| claim["metadata"]["ownerReferences"] = json!([])));
}

fn template(world: &World) -> Value {
    world.server.get(SET).unwrap()["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
        .clone()
}

fn when_deleted(world: &World) -> Value {
    world.server.get(SET).unwrap()["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"].clone()
}

#[tokio::test]
async fn claims_are_let_go_first_and_pods_stay() {
    let world = grown().await;
    world.pass().await.unwrap();
    assert_eq!((when_deleted(&world), world.condition("StorageReady").as_str()), (json!("Retain"), "False/Growing"));
    for _ in 0..3 {
        world.pass().await.unwrap();
        assert!(!world.server.writes().iter().any(|write| write.starts_with("DELETE")), "the claims would go with it");
    }
    let_go(&world);
    // A broker that is away may be about to come.
    let pod = "/api/v1/namespaces/x/pods/prod-1";
    edit(&world, pod, |pod| pod["status"]["conditions"][0]["status"] = "False".into());
    world.pass().await.unwrap();
    assert!(world.server.get(SET).is_some());
    edit(&world, pod, |pod| pod["status"]["conditions"][0]["status"] = "True".into());
    world.server.writes();

    let before = world.server.get(SET).unwrap();
    world.pass().await.unwrap();
    let writes = world.server.writes();
    assert_eq!(writes[..3], ["PATCH pods/prod-0", "PATCH pods/prod-1", "DELETE statefulsets/prod"]);
    assert!(writes.contains(&"PATCH statefulsets/prod".to_owned()), "at once: {writes:?}");
    let owners = world.server.get(pod).unwrap()["metadata"]["ownerReferences"].clone();
    assert_eq!((&owners[0]["kind"], &owners[0]["controller"]), (&json!("Cluster"), &Value::Null), "it goes with it");
    let bodies = world.server.0.lock().bodies.clone();
    let mut deletions = bodies.iter().filter(|(path, body)| path == SET && body.contains("Orphan"));
    let asked: Value = serde_json::from_str(&deletions.next_back().unwrap().1).unwrap();
    let of = |key: &str| before["metadata"][key].clone();
    assert_eq!(asked["propagationPolicy"], "Orphan");
    assert_eq!(asked["preconditions"], json!({ "uid": of("uid"), "resourceVersion": of("resourceVersion") }));
    let status = world.cluster().status.unwrap();
    assert_eq!((status.replicas, status.ready_replicas), (2, 2), "the brokers are there");

    world.pass().await.unwrap();
    assert_eq!((template(&world), when_deleted(&world)), (json!("2Gi"), json!("Delete")));
    let after = world.server.get(SET).unwrap();
    for part in ["replicas", "template", "selector", "serviceName"] {
        assert_eq!(after["spec"][part], before["spec"][part]);
    }
    world.pass().await.unwrap();
    world.server.writes();
    world.pass().await.unwrap();
    assert_eq!(world.server.writes(), [""; 0]);
    assert_eq!(world.condition("StorageReady"), "True/AsDescribed");
}

#[tokio::test]
async fn what_is_on_its_way_out_is_waited_for() {
    let world = grown().await;
    world.pass().await.unwrap();
    let_go(&world);
    edit(&world, SET, |set| set["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    world.server.writes();
    world.edit(|cluster| cluster["spec"]["replicas"] = 5.into());
    for _ in 0..3 {
        world.pass().await.unwrap();
    }
    let writes = world.server.writes();
    assert!(writes.iter().all(|write| !write.ends_with("statefulsets/prod")), "{writes:?}");
}

#[tokio::test]
async fn one_that_was_lost_comes_back_with_all_its_brokers() {
    for (noted, orphans, asked, expected) in [(true, 0, 1, 4), (false, 4, 1, 4), (true, 4, 6, 4), (false, 0, 1, 1)] {
        let world = running_by(json!({ "replicas": 4 })).await;
        edit(&world, SET, |set| {
            let notes = set["metadata"]["annotations"].as_object_mut().unwrap();
            notes.insert(names::LEAVING.into(), "3".into());
        });
        edit(&world, CONFIG, |config| {
            let notes = config["metadata"]["annotations"].as_object_mut().unwrap();
            notes.insert(names::LEAVING.into(), "3".into());
            if !noted {
                notes.remove(names::BROKERS);
            }
        });
        let lost = (orphans..4).map(|id| format!("/api/v1/namespaces/x/pods/prod-{id}"));
        [SET.to_owned()].into_iter().chain(lost).for_each(|at| world.server.0.lock().remove(&at));
        world.edit(|cluster| cluster["spec"]["replicas"] = asked.into());
        world.pass().await.unwrap();
        let set = world.server.get(SET).unwrap();
        let case = format!("{noted} {orphans} {asked}");
        assert_eq!(set["spec"]["replicas"], expected, "{case}");
        let notes = &set["metadata"]["annotations"];
        assert_eq!((&notes[names::LEAVING], &notes[names::FOUNDERS]), (&json!("3"), &json!("3")), "{case}");
    }
}

/// Has one request fail, and returns how many there were.
async fn failing(number: usize, code: u16) -> usize {
    let world = grown().await;
    world.pass().await.unwrap();
    let_go(&world);
    world.server.writes();
    world.server.0.lock().fail = Some((number, code));
    for _ in 0..4 {
        let _ = world.pass().await;
    }
    let requests = world.server.0.lock().requests();
    world.server.0.lock().fail = None;
    for _ in 0..2 {
        world.pass().await.unwrap();
    }
    assert_eq!(deletions(&world), 1, "{code} at {number}");
    let set = world.server.get(SET).unwrap_or_else(|| panic!("{code} at {number}"));
    assert_eq!(set["spec"]["replicas"], 2, "{code} at {number}");
    assert_eq!((template(&world), when_deleted(&world)), (json!("2Gi"), json!("Delete")), "{code} at {number}");
    assert!((0..2).all(|id| world.server.get(&claim_at(id)).is_some()));
    requests
}

#[tokio::test]
async fn whichever_request_fails_the_statefulset_is_made_anew_once() {
    let all = (0..60).zip([0, 409, 500].into_iter().cycle()).map(|(number, code)| failing(number, code));
    // Most of their time they wait for brokers that are not there.
    let requests = futures::future::join_all(all).await.into_iter().min().unwrap();
    assert!(requests > 60, "{requests}: not every request has failed once");
}

fn deletions(world: &World) -> usize {
    world.server.writes().iter().filter(|write| write.starts_with("DELETE statefulsets")).count()
}

#[tokio::test]
async fn what_could_not_be_made_now_is_not_deleted() {
    let world = grown().await;
    world.edit(|cluster| {
        cluster["spec"]["listeners"] = json!([{ "name": "far", "port": 9094, "type": "loadbalancer" }]);
    });
    let_go(&world);
    for _ in 0..3 {
        world.pass().await.unwrap();
    }
    assert_eq!((deletions(&world), world.condition("StorageReady").as_str()), (0, "False/Growing"));
}

#[tokio::test]
async fn without_the_right_to_delete_all_else_goes_on() {
    let world = grown().await;
    world.pass().await.unwrap();
    let_go(&world);
    world.server.0.lock().refuse = Some((SET.into(), 403));
    world.pass().await.unwrap();
    let status = world.cluster().status.unwrap();
    let warning = status.conditions.iter().find(|condition| condition.type_ == "Warning").expect("a warning");
    assert!(warning.message.contains("volumes of the first size"), "{}", warning.message);
    assert_eq!(world.condition("StorageReady"), "True/AsDescribed");
}

#[tokio::test]
async fn claims_of_brokers_that_went_hold_up_nothing() {
    let world = grown().await;
    let mut left = world.server.get(&claim_at(1)).unwrap();
    left["metadata"]["name"] = "data-prod-2".into();
    (left["spec"]["resources"]["requests"]["storage"], left["status"]) = ("1Gi".into(), json!({}));
    world.server.put(&claim_at(2), left.clone());
    world.pass().await.unwrap();
    let_go(&world);
    world.pass().await.unwrap();
    assert_eq!(template(&world), "2Gi");
    assert_eq!(world.server.get(&claim_at(2)).unwrap()["spec"], left["spec"], "it grows when it is needed");
}

#[tokio::test]
async fn a_template_that_somebody_keeps_small_is_not_made_anew_for_ever() {
    let world = grown().await;
    world.pass().await.unwrap();
    let_go(&world);
    world.pass().await.unwrap();
    assert_eq!(deletions(&world), 1);
    for _ in 0..3 {
        edit(&world, SET, |set| {
            set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] = "1Gi".into();
        });
        world.pass().await.unwrap();
    }
    assert_eq!(deletions(&world), 0);
}

#[tokio::test]
async fn what_anybody_may_write_costs_nothing() {
    let world = running_by(json!({ "replicas": 2 })).await;
    // A pod of such a name, and a hand on the StatefulSet.
    let mut pod = world.server.get("/api/v1/namespaces/x/pods/prod-1").unwrap();
    pod["metadata"]["name"] = "prod-2147483646".into();
    world.server.put("/api/v1/namespaces/x/pods/prod-2147483646", pod);
    world.server.0.lock().remove(SET);
    world.pass().await.unwrap();
    assert_eq!(world.server.get(SET).unwrap()["spec"]["replicas"], 2);
    edit(&world, SET, |set| set["spec"]["replicas"] = 2_000_000_000.into());
    world.pass().await.unwrap();
    assert_eq!(world.condition("Stalled"), "True/TooManyBrokers");
    // Notes that another Cluster of this name has left are not about these brokers.
    edit(&world, CONFIG, |config| {
        config["metadata"]["annotations"][names::BROKERS] = "7".into();
        config["metadata"]["ownerReferences"][0]["uid"] = "another".into();
    });
    world.server.0.lock().remove(SET);
    let _ = world.pass().await;
    let made = world.server.get(SET).map(|set| set["spec"]["replicas"].clone());
    assert!(made.is_none_or(|replicas| replicas == 2), "it is not this Cluster's");
}
