//! Lays a part of a pod's description over another, as Kubernetes' strategic merge does: objects are joined, lists of
//! named things by their names, other lists replaced; null takes away.

use serde_json::Value;

/// Lays `over` over `base`.
pub fn lay(base: &mut Value, over: &Value) {
    lay_field("", base, over);
}

fn lay_field(field: &str, base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match (base.get_mut(key), value) {
                    (_, Value::Null) => drop(base.remove(key)),
                    (Some(there), value) => lay_field(key, there, value),
                    (None, value) => drop(base.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Array(base), Value::Array(over)) => lay_list(field, base, over),
        (base, over) => *base = over.clone(),
    }
}

fn lay_list(field: &str, base: &mut Vec<Value>, over: &[Value]) {
    // Two mounts of one volume have one name.
    let key = if matches!(field, "volumeMounts" | "volumeDevices") { "mountPath" } else { "name" };
    let named = |all: &[Value]| all.iter().all(|one| one.get(key).is_some_and(Value::is_string));
    if !named(base) || !named(over) {
        base.clear();
        base.extend_from_slice(over);
        return;
    }
    for one in over {
        match base.iter_mut().find(|there| there[key] == one[key]) {
            Some(there) => lay_field("", there, one),
            None => base.push(one.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(base: Value, over: Value, expected: Value) {
        let mut result = base;
        lay(&mut result, &over);
        assert_eq!(result, expected);
    }

    #[test]
    fn objects_are_joined() {
        let base = json!({ "a": { "b": 1, "c": 2 }, "d": 3 });
        check(base, json!({ "a": { "c": 4, "e": null }, "d": null }), json!({ "a": { "b": 1, "c": 4 } }));
    }

    #[test]
    fn named_things_are_joined_by_their_names() {
        let base =
            json!({ "containers": [{ "name": "broker", "env": [{ "name": "A", "value": "1" }], "args": ["x"] }] });
        let over = json!({ "containers": [
            { "name": "side", "image": "s" },
            { "name": "broker", "env": [{ "name": "B", "value": "2" }, { "name": "A", "value": "3" }], "args": ["y", "z"] },
        ] });
        let expected = json!({ "containers": [
            { "name": "broker", "env": [{ "name": "A", "value": "3" }, { "name": "B", "value": "2" }], "args": ["y", "z"] },
            { "name": "side", "image": "s" },
        ] });
        check(base, over, expected);
    }

    #[test]
    fn mounts_are_told_apart_by_their_places() {
        let base = json!({ "volumeMounts": [{ "name": "data", "mountPath": "/a" }] });
        let over = json!({ "volumeMounts": [{ "name": "data", "mountPath": "/b" }] });
        let both =
            json!({ "volumeMounts": [{ "name": "data", "mountPath": "/a" }, { "name": "data", "mountPath": "/b" }] });
        check(base, over, both);
    }

    #[test]
    fn other_lists_are_replaced() {
        check(json!({ "tolerations": [{ "key": "a" }] }), json!({ "tolerations": [] }), json!({ "tolerations": [] }));
        let over = json!({ "tolerations": [{ "key": "b" }] });
        check(json!({ "tolerations": [{ "key": "a" }] }), over.clone(), over);
    }
}
