//! What tools that deploy from Git make of a status: Argo CD by the script that is shipped, run by a Lua of its version.

use std::fmt::Write as _;

use klamm_tests::{Tool, assert_contains, paths};
use serde_json::{Value, json};

/// A value as Lua writes it.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        // JSON's escapes that occur here are Lua's.
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => format!("{{ {} }}", items.iter().map(lua).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            fields.iter().fold("{ ".to_owned(), |mut text, (key, value)| {
                let _ = write!(text, "[{key:?}] = {}, ", lua(value));
                text
            }) + "}"
        }
    }
}

/// What the script says of an object: status and message.
fn health(object: &Value) -> (String, String) {
    let script = paths::tests_dir().join("../examples/kubernetes/argocd-health.lua").display().to_string();
    let program =
        format!("obj = {}\nlocal hs = dofile({script:?})\nprint(hs.status)\nprint(hs.message)\n", lua(object));
    // Argo CD has 5.1, by another maker.
    let out = Tool::new("lua5.1").arg("-").stdin(program).ok().out;
    let (status, message) = out.split_once('\n').expect("two lines");
    (status.to_owned(), message.trim_end().to_owned())
}

fn object(generation: i64, observed: i64, conditions: &[(&str, &str, &str, &str)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(kind, status, reason, message)| {
            json!({ "type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": observed })
        })
        .collect();
    json!({
        "metadata": { "name": "x", "generation": generation },
        "status": { "observedGeneration": observed, "conditions": conditions },
    })
}

#[test]
fn argo_cd_reads_health_from_conditions() {
    let ready = [
        ("Ready", "True", "AsDescribed", "the topic is as described"),
        ("Reconciling", "False", "AsDescribed", ""),
        ("Stalled", "False", "AsDescribed", ""),
    ];
    let stalled = [
        ("Ready", "False", "InvalidConfig", "no.such.key"),
        ("Reconciling", "False", "InvalidConfig", ""),
        ("Stalled", "True", "InvalidConfig", "no.such.key"),
    ];
    let going = [
        ("Ready", "True", "Reassigning", "3 partitions do not have 2 replicas yet"),
        ("Reconciling", "True", "Reassigning", "3 partitions do not have 2 replicas yet"),
        ("Stalled", "False", "Reassigning", ""),
    ];
    let unreachable = [
        ("Ready", "Unknown", "ClusterUnreachable", "nobody answers"),
        ("Reconciling", "True", "ClusterUnreachable", "nobody answers"),
        ("Stalled", "False", "ClusterUnreachable", ""),
    ];
    let paused = [("Ready", "True", "Paused", "klamm.dev/paused is set"), ("Reconciling", "False", "Paused", "")];
    for (object, status, message) in [
        (json!({ "metadata": { "generation": 1 } }), "Progressing", "waiting for the operator"),
        (json!({ "metadata": { "generation": 1 }, "status": { "partitions": 3 } }), "Progressing", "waiting"),
        (object(1, 1, &ready), "Healthy", "as described"),
        // What was fine is not fine any more once something else is wanted, and what was wrong may be mended.
        (object(2, 1, &ready), "Progressing", "the last change"),
        (object(2, 1, &stalled), "Progressing", "the last change"),
        (object(3, 3, &stalled), "Degraded", "no.such.key"),
        (object(1, 1, &going), "Progressing", "3 partitions"),
        (object(1, 1, &unreachable), "Progressing", "nobody answers"),
        (object(1, 1, &paused), "Suspended", "klamm.dev/paused"),
        (object(1, 1, &ready[1..]), "Progressing", "waiting"),
    ] {
        let (is, told) = health(&object);
        assert_eq!(is, status, "{object:#}");
        assert_contains(&told, message);
    }
}

#[test]
fn the_page_has_the_script_as_it_is_tested() {
    let root = paths::tests_dir().join("..");
    let script = std::fs::read_to_string(root.join("examples/kubernetes/argocd-health.lua")).expect("the script");
    let page = std::fs::read_to_string(root.join("docs/gitops.md")).expect("the page");
    for kind in ["Cluster", "Topic", "ConsumerGroup"] {
        assert_contains(&page, &format!("resource.customizations.health.klamm.dev_{kind}: |"));
    }
    let indented: String = script.lines().map(|line| format!("    {line}").trim_end().to_owned() + "\n").collect();
    assert_eq!(page.matches(&indented).count(), 3, "docs/gitops.md has the script of examples/kubernetes three times");
}
