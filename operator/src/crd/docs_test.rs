//! `crds/*.yaml` and `docs/crds.md` are made from the types: compared here, rewritten with `UPDATE=1`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::{definitions, manifest};

const HEAD: &str = "# Resource types\n\n\
    What users write (`spec`) and read (`status`) of the three resource types. `kubectl explain cluster.spec.storage` \
    says the same. Rules are checked by the API server: what breaks one is refused when it is applied.\n\n\
    The definitions are in `crds/`, and `klamm-operator crds` prints them.\n\n\
    This file is generated: `UPDATE=1 cargo test -p klamm-operator` rewrites it from the types in code.\n";

/// Compares a file of the repository, or writes it.
pub(crate) fn check(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    if std::env::var_os("UPDATE").is_some_and(|v| v == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{file} is out of date: UPDATE=1 cargo test -p klamm-operator rewrites it");
}

/// Fields below this depth are Kubernetes' own.
const FOREIGN: &[&str] =
    &["selector", "resources", "allowedPeers", "conditions", "matchExpressions", "matchLabels", "podSelector"];

fn kind(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).map(|v| format!("`{v}`")).collect();
        return values.join(", ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => "map".into(),
        Some("string") if schema["format"] == "date-time" => "time".into(),
        Some(kind) => kind.to_owned(),
        None => "any".into(),
    }
}

fn plain(schema: &Value) -> Option<String> {
    let default = schema.get("default")?;
    match default {
        Value::Object(_) | Value::Array(_) => None,
        Value::String(text) => Some(format!("`{text}`")),
        other => Some(format!("`{other}`")),
    }
}

fn rules(text: &mut String, path: &str, schema: &Value) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let message = rule["message"].as_str().unwrap_or_default();
        let place = if path.is_empty() { String::new() } else { format!("`{path}`: ") };
        let _ = writeln!(text, "- {place}{message}");
    }
}

fn walk(path: &str, schema: &Value, text: &mut String, kept: &mut String) {
    rules(kept, path, schema);
    let Some(fields) = schema["properties"].as_object() else { return };
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in fields {
        let own = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let doc = field["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let default = match plain(field) {
            Some(default) => default,
            None if required.contains(&name.as_str()) => "required".into(),
            None => String::new(),
        };
        let _ = writeln!(text, "| `{own}` | {} | {default} | {doc} |", kind(field));
        if FOREIGN.contains(&name.as_str()) {
            continue;
        }
        if field["type"] == "array" {
            rules(kept, &own, field);
            walk(&format!("{own}[]"), &field["items"], text, kept);
        } else {
            walk(&own, field, text, kept);
        }
    }
}

#[test]
fn the_printed_definitions_and_their_page_are_up_to_date() {
    let mut text = HEAD.to_owned();
    for (file, definition) in definitions() {
        let yaml = manifest(&definition).unwrap();
        check(&format!("crds/{file}"), &yaml);
        check(&format!("charts/klamm-operator/files/crds/{file}"), &yaml);
        let names = &definition.spec.names;
        let version = serde_json::to_value(&definition.spec.versions[0]).unwrap();
        let root = &version["schema"]["openAPIV3Schema"];
        let short = names.short_names.iter().flatten().next().unwrap();
        let _ =
            writeln!(text, "\n## {}\n\n{} Short name `{short}`.", names.kind, root["description"].as_str().unwrap());
        let mut kept = String::new();
        rules(&mut kept, "", root);
        for part in ["spec", "status"] {
            let _ = writeln!(
                text,
                "\n### {} {part}\n\n| Field | Type | Default | |\n| --- | --- | --- | --- |",
                names.kind
            );
            walk(part, &root["properties"][part], &mut text, &mut kept);
        }
        // The root's own parts are named in full, fields as one writes them in the part.
        text = text.replace("| `spec.", "| `").replace("| `status.", "| `");
        let _ = writeln!(text, "\n### {} rules\n\n{kept}", names.kind);
    }
    check("docs/crds.md", &format!("{}\n", text.trim_end()));
}

#[test]
fn every_field_says_what_it_is() {
    fn look(path: &str, schema: &Value, silent: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let own = format!("{path}.{name}");
            if field["description"].as_str().unwrap_or_default().is_empty() {
                silent.push(own.clone());
            }
            look(&own, if field["type"] == "array" { &field["items"] } else { field }, silent);
        }
    }
    let mut silent = Vec::new();
    for (_, definition) in definitions() {
        let version = serde_json::to_value(&definition.spec.versions[0]).unwrap();
        for part in ["spec", "status"] {
            let path = format!("{}.{part}", definition.spec.names.kind);
            look(&path, &version["schema"]["openAPIV3Schema"]["properties"][part], &mut silent);
        }
    }
    assert!(silent.is_empty(), "without a description: {silent:?}");
}
