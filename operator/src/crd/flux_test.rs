//! The expressions that docs/gitops.md gives Flux, evaluated on statuses as the operator writes them, in Flux's order:
//! another generation, in progress, failed, current; none of them is in progress.

use cel::{Context, Program, Value as Cel};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::Error;
use crate::status::Conditions;

const PAGE: &str = include_str!("../../../docs/gitops.md");

/// The expressions for a kind, in Flux's order.
fn expressions(kind: &str) -> [String; 3] {
    let own = PAGE.split(&format!("      kind: {kind}\n")).nth(1).unwrap_or_else(|| panic!("nothing for {kind}"));
    ["inProgress", "failed", "current"].map(|name| {
        let line = own.lines().find_map(|line| line.strip_prefix(&format!("      {name}: ")));
        line.unwrap_or_else(|| panic!("no {name} for {kind}")).trim_matches('"').to_owned()
    })
}

/// What Flux makes of an object. An expression that fails tells nothing: Flux asks again.
fn read(kind: &str, object: &Value) -> &'static str {
    let (observed, generation) = (&object["status"]["observedGeneration"], &object["metadata"]["generation"]);
    if observed.is_i64() && observed != generation {
        return "InProgress";
    }
    let mut context = Context::default();
    for (name, value) in object.as_object().unwrap() {
        context.add_variable(name, value.clone()).unwrap();
    }
    for (expression, status) in expressions(kind).iter().zip(["InProgress", "Failed", "Current"]) {
        match Program::compile(expression).unwrap().execute(&context) {
            Ok(Cel::Bool(true)) => return status,
            Ok(Cel::Bool(false)) => {}
            Ok(other) => panic!("{expression} is {other:?}"),
            Err(_) => return "Unknown",
        }
    }
    "InProgress"
}

/// An object whose status is of generation 2, which is also the last one unless said otherwise.
fn object(generation: i64, say: impl FnOnce(&mut Conditions) -> &mut Conditions) -> Value {
    let mut conditions = Conditions::new(&[], Some(2), Timestamp::UNIX_EPOCH);
    say(&mut conditions);
    json!({
        "apiVersion": "klamm.dev/v1alpha1", "kind": "Topic", "metadata": { "name": "x", "generation": generation },
        "spec": {}, "status": { "observedGeneration": 2, "conditions": conditions.finish() },
    })
}

fn ready(conditions: &mut Conditions) -> &mut Conditions {
    conditions.ready("AsDescribed", "")
}

fn stalled(conditions: &mut Conditions) -> &mut Conditions {
    conditions.stalled("InvalidConfig", "no.such.key")
}

#[test]
fn flux_reads_health_from_conditions() {
    let unreachable = Error::Other("nobody answers".into());
    let cases = [
        ("described", object(2, ready), "Current"),
        ("described anew", object(3, ready), "InProgress"),
        ("wrong", object(2, stalled), "Failed"),
        ("wrong, and mended", object(3, stalled), "InProgress"),
        ("waiting", object(2, |c| c.waiting("ClusterNotFound", "")), "InProgress"),
        ("going on", object(2, |c| c.ready("Ready", "").set("Reconciling", true, "Reassigning", "")), "InProgress"),
        ("unreachable", object(2, |c| c.failed(&unreachable)), "InProgress"),
        ("paused", object(2, |c| c.ready("R", "").paused(true)), "InProgress"),
        ("without conditions", json!({ "metadata": { "generation": 1 }, "status": { "partitions": 3 } }), "InProgress"),
        ("new", json!({ "metadata": { "generation": 1 }, "spec": {} }), "Unknown"),
    ];
    for kind in ["Cluster", "Topic", "ConsumerGroup"] {
        for (what, object, wanted) in &cases {
            assert_eq!(read(kind, object), *wanted, "{kind}, {what}: {object:#}");
        }
    }
}
