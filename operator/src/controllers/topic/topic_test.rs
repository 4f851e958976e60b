//! When a Topic holds, and lets go of, what it stands for; nobody answers where its brokers should be.

use serde_json::{Value, json};

use super::leave::{self, FINALIZER};
use super::*;
use crate::controllers::mock::Server;

const PATH: &str = "/apis/klamm.dev/v1alpha1/namespaces/a/topics/t";

fn topic(more: Value, status: Value) -> Topic {
    let mut meta = json!({ "name": "t", "namespace": "a", "uid": "1", "generation": 1 });
    meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let spec = json!({ "bootstrapServers": "127.0.0.1:1" });
    serde_json::from_value(json!({ "metadata": meta, "spec": spec, "status": status })).unwrap()
}

fn leaving(status: Value) -> Topic {
    topic(json!({ "finalizers": [FINALIZER], "deletionTimestamp": "2026-10-01T00:00:00Z" }), status)
}

#[tokio::test]
async fn nothing_holds_a_topic_that_nothing_was_done_for() {
    let server = Server::default();
    let context = server.context();
    let error = Topic::reconcile(&topic(json!({}), json!({})), &context).await.unwrap_err();
    assert_eq!(error.reason(), "ClusterUnreachable");
    let paths: Vec<String> = server.writes.lock().drain(..).map(|(path, _)| path).collect();
    assert_eq!(paths, [format!("{PATH}/status")], "no finalizer: there is nothing to undo");

    // One that has it from before goes, too: what it describes may be somebody else's.
    leave::leave(&leaving(json!({ "partitions": 12 })), &context).await.expect("it goes");
    let writes = server.writes.lock().clone();
    let [(path, body)] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!((path.as_str(), &body["metadata"]["finalizers"]), (PATH, &json!([])));
}

#[tokio::test]
async fn one_that_is_held_says_how_to_let_it_go() {
    let server = Server::default();
    let context = server.context();
    let held = leave::leave(&leaving(json!({ "topicId": "x" })), &context).await;
    assert_eq!(held.unwrap_err().reason(), "ClusterUnreachable");
    let writes = server.writes.lock().clone();
    let [(path, body)] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(path, &format!("{PATH}/status"));
    let said = body["status"]["conditions"].to_string();
    assert!(said.contains("kubectl annotate topic t --namespace=a klamm.dev/force-finalize=true"), "{said}");
    assert_eq!(body["status"]["topicId"], "x");
}

#[tokio::test]
async fn one_that_was_paused_before_its_topic_was_made_says_so() {
    let server = Server::default();
    let context = server.context();
    let mut paused = topic(json!({ "annotations": { "klamm.dev/paused": "true" } }), json!({}));
    let said = async |topic: &Topic| {
        Topic::reconcile(topic, &context).await.expect("nobody is asked about it");
        let status = server.writes.lock().pop().expect("a status").1["status"].clone();
        let ready = status["conditions"].as_array().unwrap().iter().find(|is| is["type"] == "Ready").unwrap().clone();
        format!("{}/{}: {}", ready["status"], ready["reason"], ready["message"]).replace('"', "")
    };
    let never = "klamm.dev/paused is set: nothing is done, and nothing has been done for this resource so far";
    assert_eq!(said(&paused).await, format!("False/Paused: {never}"));
    // One that was as described stays so.
    let at = "2026-10-01T00:00:00Z";
    let ready =
        json!({ "type": "Ready", "status": "True", "reason": "AsDescribed", "message": "", "lastTransitionTime": at });
    paused.status = Some(serde_json::from_value(json!({ "topicId": "x", "conditions": [ready] })).unwrap());
    assert_eq!(said(&paused).await, "True/Paused: klamm.dev/paused is set: nothing is done");
}

#[tokio::test]
async fn one_whose_addresses_are_those_of_a_cluster_that_goes_is_let_go() {
    let server = Server::default();
    let context = server.context();
    let mut held = leaving(json!({ "topicId": "x" }));
    held.spec.bootstrap_servers = Some("prod-bootstrap.a.svc:1".into());
    let cluster = "/apis/klamm.dev/v1alpha1/namespaces/a/clusters/prod";
    server.put(cluster, json!({ "metadata": { "name": "prod" } }));
    let error = leave::leave(&held, &context).await;
    assert_eq!(error.unwrap_err().reason(), "ClusterUnreachable", "that one is there, and does not answer");
    server.writes.lock().clear();
    server.put(cluster, json!({ "metadata": { "name": "prod", "deletionTimestamp": "2026-10-01T00:00:00Z" } }));
    leave::leave(&held, &context).await.expect("it goes");
    let writes = server.writes.lock().clone();
    let [(path, body)] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!((path.as_str(), &body["metadata"]["finalizers"]), (PATH, &json!([])));
}

/// Killed after it had made the topic, and before it had noted its id.
#[tokio::test]
async fn one_whose_topic_may_have_been_made_is_held_until_its_brokers_say_so() {
    let server = Server::default();
    let context = server.context();
    let mut making = leaving(json!({}));
    making.metadata.annotations = Some([("klamm.dev/makes-topic".to_owned(), "t".to_owned())].into());
    let held = leave::leave(&making, &context).await;
    assert_eq!(held.unwrap_err().reason(), "ClusterUnreachable");
    let paths: Vec<String> = server.writes.lock().drain(..).map(|(path, _)| path).collect();
    assert_eq!(paths, [format!("{PATH}/status")], "the finalizer stays");
    // A note of another topic says nothing of this one.
    making.metadata.annotations = Some([("klamm.dev/makes-topic".to_owned(), "u".to_owned())].into());
    leave::leave(&making, &context).await.expect("it goes");
}

#[tokio::test]
async fn the_brokers_own_topics_are_left_alone() {
    let server = Server::default();
    let context = server.context();
    let mut own = leaving(json!({ "topicId": "x" }));
    own.spec.topic_name = Some("__consumer_offsets".into());
    leave::leave(&own, &context).await.expect("it goes, and nobody is asked to delete anything");
    own.metadata.deletion_timestamp = None;
    Topic::reconcile(&own, &context).await.expect("nobody is asked about it");
    let said = server.writes.lock().last().expect("a status").1.to_string();
    assert!(said.contains("InternalTopic"), "{said}");
}
