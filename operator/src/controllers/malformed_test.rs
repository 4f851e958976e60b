//! What one object that cannot be read does to others, and what is said of it.

use super::*;
use crate::controllers::mock::{Server, brought, known};
use crate::controllers::owner::{Seen, heir, owner};
use crate::crd::Topic;

const ALL: &str = "/apis/klamm.dev/v1alpha1/topics";

fn topic(name: &str, created: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "klamm.dev/v1alpha1", "kind": "Topic", "spec": spec,
        "metadata": {
            "name": name, "namespace": "a", "uid": name, "generation": 2, "resourceVersion": "7",
            "creationTimestamp": format!("{created}T00:00:00Z"), "annotations": {},
        },
    })
}

fn path(name: &str) -> String {
    format!("/apis/klamm.dev/v1alpha1/namespaces/a/topics/{name}")
}

fn guarded(object: &Value) -> DeserializeGuard<Topic> {
    serde_json::from_value(object.clone()).expect("metadata at least")
}

/// A Topic whose number of partitions is a word.
fn slip(created: &str) -> Value {
    topic("slip", created, &json!({ "bootstrapServers": "b:9092", "topicName": "orders", "partitions": "three" }))
}

async fn look_at(object: &Value, context: &Context) -> Action {
    let guard = guarded(object);
    let unread = guard.0.as_ref().expect_err("it cannot be read").clone();
    look(&guard, &unread, context).await.expect("it is told")
}

#[tokio::test]
async fn what_is_wrong_is_said_once_and_with_the_field() {
    let (server, mut object) = (Server::default(), slip("2026-01-01"));
    object["status"] = json!({ "topicId": "x", "conditions": [] });
    server.put(&path("slip"), object.clone());
    let context = server.context();
    assert_eq!(look_at(&object, &context).await, Action::requeue(AGAIN));
    let writes = std::mem::take(&mut *server.writes.lock());
    let [(at, body)] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(at, &format!("{}/status", path("slip")));
    let conditions = body["status"]["conditions"].as_array().expect("conditions").clone();
    let stalled = conditions.iter().find(|condition| condition["type"] == "Stalled").expect("Stalled");
    assert_eq!((&stalled["status"], &stalled["reason"]), (&json!("True"), &json!("Malformed")));
    let message = stalled["message"].as_str().expect("a message");
    assert!(message.contains("spec.partitions: invalid type: string \"three\""), "{message}");
    let fields: Vec<&String> = body["status"].as_object().expect("a status").keys().collect();
    assert_eq!(fields, ["conditions", "observedGeneration"], "nothing else of the status is touched");

    object["status"]["conditions"] = conditions.into();
    server.put(&path("slip"), object.clone());
    look_at(&object, &context).await;
    assert!(server.writes.lock().is_empty(), "it is said already");
}

#[tokio::test]
async fn one_that_is_held_goes_when_that_is_asked_for() {
    let (server, mut object) = (Server::default(), slip("2026-01-01"));
    object["metadata"]["finalizers"] = json!(["klamm.dev/topic", "somebody.else/s"]);
    object["metadata"]["deletionTimestamp"] = "2026-02-01T00:00:00Z".into();
    server.put(&path("slip"), object.clone());
    let context = server.context();
    look_at(&object, &context).await;
    let said = std::mem::take(&mut *server.writes.lock())[0].1.to_string();
    assert!(said.contains("klamm.dev/force-finalize=true"), "{said}");
    object["metadata"]["annotations"] = json!({ "klamm.dev/force-finalize": "true" });
    look_at(&object, &context).await;
    let writes = server.writes.lock().clone();
    assert_eq!(writes[0].0, path("slip"));
    assert_eq!(writes[0].1["metadata"]["finalizers"], json!(["somebody.else/s"]));
}

#[tokio::test]
async fn it_is_in_nobodys_way_and_keeps_what_it_has() {
    let spec = |name: &str| json!({ "bootstrapServers": "b:9092", "topicName": name });
    let (same, other) = (topic("same", "2026-01-03", &spec("orders")), topic("other", "2026-01-03", &spec("bills")));
    let worse = topic("worse", "2026-01-01", &json!({ "bootstrapServers": 7 }));
    let server = Server::default();
    for object in [&slip("2026-01-02"), &worse, &same, &other] {
        let name = object["metadata"]["name"].as_str().expect("a name");
        server.put(&path(name), object.clone());
        server.put(&format!("{ALL}/{name}"), object.clone());
    }
    let context = server.context();
    let [same, other] = [same, other].map(|object| guarded(&object).0.expect("a Topic"));
    known(&context, [same.clone(), other.clone()]);
    brought(&context, [guarded(&slip("2026-01-02")), guarded(&worse)]);
    let seen = Seen::default();
    assert_eq!(owner(&other, &seen, &context).await.expect("an answer"), None);
    assert_eq!(heir(&other, &context).await.expect("an answer"), None, "others can be deleted");
    assert_eq!(owner(&same, &seen, &context).await.expect("an answer").as_deref(), Some("Topic a/slip"));
    assert_eq!(heir(&same, &context).await.expect("an answer").as_deref(), Some("Topic a/slip"));
}
