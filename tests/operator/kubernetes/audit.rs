//! What the API server was asked about our kinds: its audit log, one line of JSON for each request that was answered.
//!
//! Its metrics count the requests of all tests that run at that time; a line here names the namespace.

use serde_json::Value;

use super::machine::{HOME, Machine};

/// Writes the policy, and gives the flags that make an API server follow it.
pub fn flags(machine: &Machine) -> [(&'static str, String); 2] {
    let policy = serde_json::json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [{ "level": "Metadata", "resources": [{ "group": "klamm.dev" }] }, { "level": "None" }],
    });
    machine.write("audit.json", policy.to_string());
    [("audit-policy-file", format!("{HOME}/audit.json")), ("audit-log-path", log())]
}

fn log() -> String {
    format!("{HOME}/audit.log")
}

/// How many requests with one of these verbs have been answered for a kind in a namespace. For the inside.
pub fn requests(plural: &str, namespace: &str, verbs: &[&str]) -> usize {
    let text = std::fs::read_to_string(log()).expect("the API server's audit log");
    let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|event| {
        let object = &event["objectRef"];
        object["resource"] == plural
            && object["namespace"] == namespace
            && event["verb"].as_str().is_some_and(|verb| verbs.contains(&verb))
    })
    .count()
}
