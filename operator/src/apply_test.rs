//! What counts as being there.

use serde_json::json;

use super::*;

#[track_caller]
fn check(there: Value, wanted: Value, expected: bool) {
    assert_eq!(covers(&there, &wanted), expected, "{there} against {wanted}");
}

#[test]
fn defaults_of_the_api_server_are_no_difference() {
    let there = json!({ "a": 1, "clusterIP": "10.0.0.1", "ports": [{ "name": "x", "port": 1, "nodePort": 30000 }] });
    check(there.clone(), json!({ "a": 1, "ports": [{ "name": "x", "port": 1 }] }), true);
    check(there.clone(), json!({ "a": 2 }), false);
    check(there.clone(), json!({ "ports": [{ "name": "x", "port": 2 }] }), false);
    check(there.clone(), json!({ "ports": [{ "name": "y", "port": 1 }] }), false);
    check(there, json!({ "b": {}, "c": [], "d": null, "e": false }), true);
}

#[test]
fn lists_without_names_are_compared_whole() {
    check(json!({ "args": ["a", "b"] }), json!({ "args": ["a"] }), false);
    check(json!({ "args": ["a", "b"] }), json!({ "args": ["a", "b"] }), true);
    check(json!({ "rules": [{ "port": 1, "x": 2 }] }), json!({ "rules": [{ "port": 1 }] }), true);
    check(json!({ "args": ["a"] }), json!({ "args": [] }), false);
}

#[test]
fn containers_that_others_add_are_left() {
    let there = json!([{ "name": "broker", "image": "a" }, { "name": "mesh", "image": "b" }]);
    check(there, json!([{ "name": "broker", "image": "a" }]), true);
}

#[test]
fn quantities_are_compared_by_what_they_are_worth() {
    check(json!({ "cpu": "500m" }), json!({ "cpu": "0.5" }), true);
    check(json!({ "cpu": "500m" }), json!({ "cpu": "0.6" }), false);
    check(json!({ "x": "abc" }), json!({ "x": "abd" }), false);
}

#[test]
fn a_field_that_has_no_place_is_refused_and_not_tried_again_as_a_fault() {
    let status =
        |code, message: &str| kube::Error::Api(Box::new(kube::core::Status::failure(message, "").with_code(code)));
    let mistyped = "failed to create typed patch object (default/demo; apps/v1, Kind=StatefulSet): \
                    .spec.template.spec.nodeSeletor: field not declared in schema";
    assert!(matches!(refusal(status(500, mistyped), "StatefulSet demo"), ApplyError::Refused { .. }));
    assert!(matches!(refusal(status(500, "etcdserver: request timed out"), "StatefulSet demo"), ApplyError::Kube(_)));
}
