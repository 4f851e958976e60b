//! That nothing but [`Next::replicas`](super::Next::replicas) decides how many brokers a StatefulSet has.

use std::path::Path;

use super::Next;
use crate::crd::cluster::Cluster;
use crate::render::{self, Facts};

/// All lines of the operator's own code, with the file they are in.
fn lines(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("the sources").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            lines(&path, found);
        } else if name.ends_with(".rs") && !name.ends_with("_test.rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let own = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let at = path.display().to_string();
            let at = at.rsplit_once("/src/").map_or(at.clone(), |(_, rest)| rest.to_owned());
            found.extend(own.lines().map(|line| (at.clone(), line.trim().to_owned())));
        }
    }
}

#[test]
fn one_place_decides_and_one_place_writes() {
    let mut all = Vec::new();
    lines(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    assert!(all.len() > 3000, "{} lines are not all", all.len());
    let with = |what: &str| -> Vec<&str> {
        let code = all.iter().filter(|(_, line)| !line.starts_with("//") && line.contains(what));
        let mut files: Vec<&str> = code.map(|(file, _)| file.as_str()).collect();
        files.sort_unstable();
        files
    };
    // Who renders the field, who asks for the number to render, and who patches a scale: that of consumers, never of
    // brokers, as its own tests show.
    let consumers = "controllers/group/target.rs";
    assert_eq!(with("\"replicas\":"), [consumers, "render/statefulset.rs"]);
    assert_eq!(with("[\"replicas\"]"), [""; 0]);
    assert_eq!(with("next.replicas("), ["render/mod.rs"]);
    assert_eq!(with("patch_scale"), [consumers]);
    assert_eq!(with("replace_scale"), [""; 0]);
    // A typed StatefulSet is read, never sent.
    assert_eq!(with("Patch::Apply"), ["apply.rs", "status.rs"]);
}

#[test]
fn what_is_rendered_is_what_was_decided() {
    let object = serde_json::json!({
        "apiVersion": "klamm.dev/v1alpha1", "kind": "Cluster",
        "metadata": { "name": "prod", "namespace": "x", "uid": "u" }, "spec": { "replicas": 7 },
    });
    let cluster: Cluster = serde_json::from_value(object).expect("a Cluster");
    let checked = render::check(&cluster, &render::golden_settings()).expect("it makes sense");
    let rendered = |facts: &Facts| {
        let all = render::brokers(&checked, facts).expect("objects");
        let set = all.into_iter().find(|object| object["kind"] == "StatefulSet").expect("a StatefulSet");
        set["spec"]["replicas"].as_i64()
    };
    assert_eq!(rendered(&Facts::default()), Some(7), "before there is one, what is asked for");
    for (next, expected) in [
        (Next::Nothing, 5),
        (Next::Remove(4), 4),
        (Next::Remove(0), 4),
        (Next::Add(9), 9),
        (Next::Add(1), 5),
        (Next::Cordon(4), 5),
        (Next::Drain(4), 5),
    ] {
        let facts = Facts { replicas: Some(5), next: next.clone(), ..Facts::default() };
        assert_eq!(rendered(&facts), Some(expected), "{next:?}");
    }
}
