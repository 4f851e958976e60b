//! What the API server refuses of a Topic, by the same rules run here.

use serde_json::{Value, json};

use super::Topic;

fn topic(spec: Value) -> Topic {
    let text =
        json!({ "apiVersion": "klamm.dev/v1alpha1", "kind": "Topic", "metadata": { "name": "orders" }, "spec": spec });
    serde_json::from_value(text).expect("a topic")
}

fn with_partitions(spec: Value, there: i32) -> Topic {
    let mut topic = topic(spec);
    topic.status = Some(super::TopicStatus { partitions: Some(there), ..Default::default() });
    topic
}

#[track_caller]
fn refused(result: Result<(), impl std::fmt::Display>, why: &str) {
    let error = result.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains(why), "{why:?} expected, found {error:?}");
}

#[test]
fn a_topic_belongs_to_one_cluster_for_good() {
    let here = topic(json!({ "clusterRef": { "name": "a" } }));
    assert!(here.validate_cel().is_ok());
    refused(topic(json!({})).validate_cel(), "exactly one of clusterRef and bootstrapServers");
    let both = json!({ "clusterRef": { "name": "a" }, "bootstrapServers": "b:9092" });
    refused(topic(both).validate_cel(), "exactly one of clusterRef and bootstrapServers");
    refused(topic(json!({ "clusterRef": { "name": "b" } })).validate_cel_update(&here), "clusterRef cannot change");
    let elsewhere = topic(json!({ "bootstrapServers": "b:9092" }));
    refused(elsewhere.validate_cel_update(&here), "clusterRef cannot change");
}

#[test]
fn a_topic_keeps_its_name() {
    let named = topic(json!({ "clusterRef": { "name": "a" }, "topicName": "Orders.v1" }));
    let other = topic(json!({ "clusterRef": { "name": "a" }, "topicName": "Orders.v2" }));
    let unnamed = topic(json!({ "clusterRef": { "name": "a" } }));
    refused(other.validate_cel_update(&named), "topicName cannot change");
    refused(unnamed.validate_cel_update(&named), "topicName cannot change");
    refused(named.validate_cel_update(&unnamed), "topicName cannot change");
    refused(topic(json!({ "clusterRef": { "name": "a" }, "topicName": ".." })).validate_cel(), "no topic names");
}

#[test]
fn the_brokers_own_topics_are_nobodys() {
    for own in ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"] {
        let named = topic(json!({ "clusterRef": { "name": "a" }, "topicName": own }));
        refused(named.validate_cel(), "the brokers' own");
    }
    assert!(topic(json!({ "clusterRef": { "name": "a" }, "topicName": "__connect" })).validate_cel().is_ok());
}

#[test]
fn a_long_name_needs_a_shorter_one() {
    let mut named = topic(json!({ "clusterRef": { "name": "a" } }));
    named.metadata.name = Some("x".repeat(250));
    refused(named.validate_cel(), "249 characters at most");
    named.spec.topic_name = Some("x".into());
    assert!(named.validate_cel().is_ok());
}

#[test]
fn an_address_has_a_host_and_a_port() {
    let at = |addresses: &str| topic(json!({ "bootstrapServers": addresses })).validate_cel();
    for fine in ["b:9092", "a.b-c.svc:1,10.0.0.1:65535", "[::1]:9092", "b:09092"] {
        assert!(at(fine).is_ok(), "{fine}: {:?}", at(fine));
    }
    for odd in ["b:0", "b:65536", "b:99999", "http://b:9092", "a:1:2", "b:9092,c:0", "::1:9092"] {
        refused(at(odd), "a port from 1 to 65535");
    }
}

#[test]
fn partitions_never_become_fewer_than_there_are() {
    let spec = |partitions: i32| json!({ "clusterRef": { "name": "a" }, "partitions": partitions });
    let old = with_partitions(spec(12), 12);
    refused(with_partitions(spec(11), 12).validate_cel_update(&old), "fewer than it has");
    assert!(with_partitions(spec(13), 12).validate_cel_update(&old).is_ok());
    // A slip on a topic that was never made may be corrected.
    assert!(topic(spec(3)).validate_cel_update(&topic(spec(30_000))).is_ok());
    // Somebody else has grown it: the status must still be writable.
    assert!(with_partitions(spec(12), 20).validate_cel_update(&with_partitions(spec(12), 20)).is_ok());
    // Without a wish there is nothing to refuse.
    let silent = with_partitions(json!({ "clusterRef": { "name": "a" } }), 12);
    assert!(silent.validate_cel_update(&old).is_ok());
}

#[test]
fn any_value_of_a_configuration_can_be_read() {
    let values = json!({ "a": 1, "b": "x", "c": true, "d": null, "e": [1], "f": { "g": 1 }, "h": 0.5 });
    let topic = topic(json!({ "clusterRef": { "name": "a" }, "config": values }));
    let text: Vec<_> = topic.spec.config.values().map(|value| value.text()).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(text, [some("1"), some("x"), some("true"), None, None, None, some("0.5")]);
    assert!(topic.spec.config["d"].is_null() && !topic.spec.config["e"].is_null());
}
