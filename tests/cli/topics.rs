//! `klamm topics`.

use klamm_tests::wait::eventually;
use serde_json::json;

use crate::{json, klamm, refused, topic};

#[test]
fn a_topic_is_created_listed_described_altered_and_deleted() {
    let name = klamm_tests::unique("cli-topic");
    let created = json(&["topics", "create", &name, "--partitions", "2", "--config", "retention.ms=3600000"]);
    assert_eq!((&created["name"], &created["result"]), (&json!(name), &json!("created")));
    assert_eq!(
        (&created["partitions"], &created["replication_factor"]),
        (&json!(2), &json!(klamm_tests::broker::nodes()))
    );

    let listed = json(&["topics", "list"]);
    let listed = listed.as_array().and_then(|all| all.iter().find(|t| t["name"] == json!(name)).cloned());
    let listed = listed.expect("the topic is listed");
    assert_eq!((&listed["partitions"], &listed["offline_partitions"]), (&json!(2), &json!(0)));

    let described = &json(&["topics", "describe", &name])[0];
    assert_eq!(described["id"], created["id"]);
    assert_eq!(described["configs"], json!({"retention.ms": "3600000"}));
    let first = &described["partitions"][0];
    assert_eq!((&first["partition"], &first["start_offset"], &first["end_offset"]), (&json!(0), &json!(0), &json!(0)));
    assert_eq!(first["isr"], first["replicas"]);

    klamm(&["topics", "alter", &name, "--partitions", "3", "--config", "segment.ms=60000", "--delete-config"])
        .arg("retention.ms")
        .ok()
        .expect(&format!("topic {name} altered"));
    eventually("the changes are shown", 10, || {
        let described = &json(&["topics", "describe", &name])[0];
        let grown = described["partitions"].as_array().map(Vec::len) == Some(3);
        (grown && described["configs"] == json!({"segment.ms": "60000"})).then_some(())
    });

    klamm(&["topics", "delete", &name]).ok().expect(&format!("topic {name} deleted"));
    refused(&klamm(&["topics", "describe", &name]).run(), 1, "UNKNOWN_TOPIC_OR_PARTITION");
}

#[test]
fn tables_have_aligned_columns() {
    let name = topic("cli-table", 2);
    let table = klamm(&["topics", "list"]).ok();
    let header = table.lines()[0];
    assert_eq!(
        header.split_whitespace().collect::<Vec<_>>(),
        ["NAME", "PARTITIONS", "REPLICAS", "UNDER-REPLICATED", "OFFLINE"]
    );
    let row = table.lines().into_iter().find(|l| l.starts_with(&name)).expect("a row").to_owned();
    let column = header.find("PARTITIONS").expect("a column");
    assert_eq!(&row[column..=column], "2");

    let described = klamm(&["topics", "describe", &name]).ok();
    assert!(described.out.contains(&format!("Name:        {name}")), "{described}");
    let header = described.lines().into_iter().find(|l| l.starts_with("PARTITION")).unwrap_or_default().to_owned();
    assert_eq!(
        header.split_whitespace().collect::<Vec<_>>(),
        ["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "OFFLINE", "START", "END"]
    );
    // Every column begins where its values do, however long those are.
    let row = described.lines().into_iter().find(|l| l.starts_with('0')).unwrap_or_default().to_owned();
    let column = header.find("OFFLINE").expect("a column");
    assert_eq!(&row[column..=column], "-", "{described}");
    klamm(&["topics", "list", "-o", "yaml"]).ok().expect(&format!("name: {name}"));
}

#[test]
fn existing_and_missing_topics_are_accepted_on_request() {
    let name = topic("cli-exists", 1);
    refused(&klamm(&["topics", "create", &name]).run(), 1, "--if-not-exists");
    let again = json(&["topics", "create", &name, "--if-not-exists"]);
    assert_eq!(again["result"], json!("exists"));

    let missing = klamm_tests::unique("cli-missing");
    let both = klamm(&["topics", "delete", &missing, &name]).run();
    refused(&both, 1, "UNKNOWN_TOPIC_OR_PARTITION");
    assert!(both.out.contains(&format!("topic {name} deleted")), "the other one is deleted all the same:\n{both}");
    let absent = json(&["topics", "delete", &missing, "--if-exists"]);
    assert_eq!(absent[0]["result"], json!("absent"));
}

#[test]
fn a_dry_run_changes_nothing() {
    let name = klamm_tests::unique("cli-dry");
    klamm(&["topics", "create", &name, "--dry-run"]).ok().expect("(dry run)");
    refused(&klamm(&["topics", "describe", &name]).run(), 1, "UNKNOWN_TOPIC_OR_PARTITION");
    let name = topic("cli-dry-alter", 1);
    klamm(&["topics", "alter", &name, "--partitions", "4", "--config", "retention.ms=1", "--dry-run"]).ok();
    let described = &json(&["topics", "describe", &name])[0];
    assert_eq!((&described["configs"], described["partitions"].as_array().map(Vec::len)), (&json!({}), Some(1)));
}

#[test]
fn the_clusters_own_topics_are_shown_with_all() {
    let name = topic("cli-internal", 1);
    klamm(&["consume", &name, "--group", &name, "--exit-at-end"]).ok();
    assert!(!klamm(&["topics", "list"]).ok().out.contains("__consumer_offsets"));
    klamm(&["topics", "list", "--all"]).ok().expect("__consumer_offsets");
}
