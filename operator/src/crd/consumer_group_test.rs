//! What the API server refuses of a ConsumerGroup, by the same rules run here.

use serde_json::{Value, json};

use super::ConsumerGroup;

fn group(more: Value) -> ConsumerGroup {
    let mut spec = json!({ "clusterRef": { "name": "a" } });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let meta = json!({ "name": "billing" });
    let text = json!({ "apiVersion": "klamm.dev/v1alpha1", "kind": "ConsumerGroup", "metadata": meta, "spec": spec });
    serde_json::from_value(text).expect("a group")
}

#[track_caller]
fn refused(result: Result<(), impl std::fmt::Display>, why: &str) {
    let error = result.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains(why), "{why:?} expected, found {error:?}");
}

#[test]
fn a_group_stays_what_it_is() {
    let old = group(json!({ "groupId": "billing.v1" }));
    assert!(group(json!({ "groupId": "billing.v1", "topics": ["t"] })).validate_cel_update(&old).is_ok());
    refused(group(json!({ "groupId": "billing.v2" })).validate_cel_update(&old), "groupId cannot change");
    refused(group(json!({})).validate_cel_update(&old), "groupId cannot change");
    refused(group(json!({ "bootstrapServers": "b:9092" })).validate_cel(), "exactly one of clusterRef");
}

#[test]
fn a_place_is_said_in_one_way() {
    let reset = |to: Value| group(json!({ "reset": { "id": "1", "to": to } }));
    assert!(reset(json!({ "offset": "Earliest" })).validate_cel().is_ok());
    assert!(reset(json!({ "timestamp": "2026-10-01T00:00:00Z" })).validate_cel().is_ok());
    assert!(reset(json!({ "offsets": { "t-0": 5 } })).validate_cel().is_ok());
    refused(reset(json!({})).validate_cel(), "exactly one of offset, timestamp, shiftBy and offsets");
    refused(reset(json!({ "offset": "Latest", "shiftBy": -5 })).validate_cel(), "exactly one of offset, timestamp");
}

#[test]
fn a_beginning_needs_topics() {
    let begins = json!({ "initialOffsets": { "offset": "Earliest" }, "topics": ["t"] });
    assert!(group(begins).validate_cel().is_ok());
    refused(group(json!({ "initialOffsets": { "offset": "Earliest" } })).validate_cel(), "initialOffsets need topics");
    refused(
        group(json!({ "initialOffsets": {}, "topics": ["t"] })).validate_cel(),
        "exactly one of offset and timestamp",
    );
    refused(group(json!({ "lagPolicy": {} })).validate_cel(), "maxLag, maxLagTime or both");
}

#[test]
fn consumers_are_scaled_within_bounds() {
    let scale = |more: Value| {
        let mut scale = json!({ "targetRef": { "name": "billing" } });
        scale.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        group(json!({ "scale": scale }))
    };
    assert!(scale(json!({ "maxReplicas": 1 })).validate_cel().is_ok());
    assert!(scale(json!({ "minReplicas": 0, "maxReplicas": 12 })).validate_cel().is_ok());
    assert!(scale(json!({ "mode": "Manual" })).validate_cel().is_ok());
    refused(scale(json!({})).validate_cel(), "maxReplicas is needed");
    refused(scale(json!({ "minReplicas": 5, "maxReplicas": 4 })).validate_cel(), "is minReplicas or more");
}

#[test]
fn who_stops_consumers_says_which() {
    let reset = json!({ "id": "1", "to": { "offset": "Earliest" }, "whenActive": "PauseTarget" });
    refused(group(json!({ "reset": reset })).validate_cel(), "PauseTarget needs scale.targetRef");
    let scale = json!({ "targetRef": { "name": "billing" }, "mode": "Manual" });
    assert!(group(json!({ "reset": reset, "scale": scale })).validate_cel().is_ok());
}
