//! What the API server was asked about our kinds, and what operators have written: its audit log, one line of JSON for each
//! request that was answered.
//!
//! Its metrics count the requests of all tests that run at that time; a line here names the namespace.

use serde_json::Value;

use super::machine::{HOME, Machine};

/// Requests that change something.
pub const WRITES: [&str; 5] = ["create", "patch", "update", "delete", "deletecollection"];

/// Writes the policy, and gives the flags that make an API server follow it.
pub fn flags(machine: &Machine) -> [(&'static str, String); 2] {
    let policy = serde_json::json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            { "level": "Metadata", "resources": [{ "group": "klamm.dev" }] },
            // Kubernetes' own controllers.
            { "level": "None", "userGroups": ["system:serviceaccounts:kube-system"] },
            { "level": "Metadata", "userGroups": ["system:serviceaccounts"], "verbs": WRITES },
            { "level": "None" },
        ],
    });
    machine.write("audit.json", policy.to_string());
    [("audit-policy-file", format!("{HOME}/audit.json")), ("audit-log-path", log())]
}

fn log() -> String {
    format!("{HOME}/audit.log")
}

fn all() -> Vec<Value> {
    let text = std::fs::read_to_string(log()).expect("the API server's audit log");
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What a service account has written so far, but for Leases: verb, kind, namespace and name. For the inside.
pub fn written_by(user: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let theirs = all().into_iter().filter(|event| {
        event["user"]["username"] == user
            && event["verb"].as_str().is_some_and(|verb| WRITES.contains(&verb))
            && event["objectRef"]["resource"] != "leases"
    });
    let told = |event: Value| {
        let (verb, object) = (text(&event["verb"]), &event["objectRef"]);
        let [kind, part, space, name] =
            ["resource", "subresource", "namespace", "name"].map(|field| text(&object[field]));
        format!("{verb} {kind}{}{part} {space}/{name}", if part.is_empty() { "" } else { "/" })
    };
    theirs.map(told).collect()
}

/// How many requests with one of these verbs have been answered for a kind in a namespace. For the inside.
pub fn requests(plural: &str, namespace: &str, verbs: &[&str]) -> usize {
    all()
        .into_iter()
        .filter(|event| {
            let object = &event["objectRef"];
            object["resource"] == plural
                && object["namespace"] == namespace
                && event["verb"].as_str().is_some_and(|verb| verbs.contains(&verb))
        })
        .count()
}
