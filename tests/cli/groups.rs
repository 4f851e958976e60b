//! `klamm groups`, and `klamm consume --group`.

use klamm_tests::wait::eventually;
use serde_json::{Value, json};

use crate::{json, klamm, refused, topic};

#[track_caller]
fn produce(name: &str, lines: &str) {
    klamm(&["produce", name, "-K", ":"]).stdin(lines).ok();
}

#[track_caller]
fn lines(count: usize) -> String {
    (0..count).map(|i| format!("key{i}:{i}\n")).collect()
}

/// Waits until the group's description satisfies `probe`.
#[track_caller]
fn until(group: &str, what: &str, probe: impl Fn(&Value) -> bool) -> Value {
    eventually(what, 40, || {
        let output = klamm(&["groups", "describe", group, "-o", "json"]).run();
        let described = serde_json::from_str::<Value>(&output.out).ok()?[0].clone();
        probe(&described).then_some(described)
    })
}

fn members(group: &Value) -> usize {
    group["members"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_group_goes_on_where_it_stopped() {
    let name = topic("cli-group", 3);
    produce(&name, &lines(20));
    let read = || klamm(&["consume", &name, "--group", &name, "--from-beginning", "--exit-at-end"]).ok();
    assert_eq!(read().lines().len(), 20);
    assert_eq!(read().lines().len(), 0);
    produce(&name, "key:new\n");
    assert_eq!(read().out, "new\n");

    let group = json(&["groups", "list"]);
    let listed = group.as_array().and_then(|all| all.iter().find(|g| g["group"] == json!(name)).cloned());
    let listed = listed.expect("the group is listed");
    assert_eq!((&listed["state"], &listed["type"]), (&json!("Empty"), &json!("classic")));
    let described = &json(&["groups", "describe", &name])[0];
    assert_eq!((&described["lag"], members(described)), (&json!(0), 0));
    let sum: i64 =
        described["partitions"].as_array().into_iter().flatten().filter_map(|p| p["current_offset"].as_i64()).sum();
    assert_eq!(sum, 21);
}

#[test]
fn only_what_was_printed_is_committed() {
    let name = topic("cli-group-max", 1);
    produce(&name, &lines(10));
    let read = |n: &str| klamm(&["consume", &name, "--group", &name, "--from-beginning", "-n", n]).ok().out;
    assert_eq!(read("3"), "0\n1\n2\n");
    assert_eq!(json(&["groups", "describe", &name])[0]["lag"], json!(7));
    assert_eq!(read("2"), "3\n4\n");
}

#[test]
fn members_share_the_partitions_and_take_over_from_each_other() {
    let name = topic("cli-share", 4);
    let mut one = klamm(&["consume", &name, "--group", &name, "--from-beginning"]).start();
    until(&name, "one member with four partitions", |g| {
        g["state"] == "Stable" && g["members"][0]["assignment"][&name] == json!([0, 1, 2, 3])
    });
    let mut two = klamm(&["consume", &name, "--group", &name, "--from-beginning"]).start();
    let shared = until(&name, "two members with two partitions each", |g| {
        let of = |i: usize| g["members"][i]["assignment"][&name].as_array().map(Vec::len);
        g["state"] == "Stable" && members(g) == 2 && (of(0), of(1)) == (Some(2), Some(2))
    });
    let row = &shared["partitions"][0];
    assert_eq!((&row["client_id"], &row["host"]), (&json!("klamm-cli"), &json!("127.0.0.1")));

    refused(&klamm(&["groups", "delete", &name]).run(), 1, "NON_EMPTY_GROUP");
    refused(
        &klamm(&["groups", "reset-offsets", &name, "--topic", &name, "--to-latest"]).run(),
        1,
        "stop the group's members",
    );

    // The first leaves in an orderly way, so the second need not wait for its session to end.
    one.signal("TERM");
    assert_eq!(one.finish().code, 0);
    until(&name, "one member left", |g| g["state"] == "Stable" && members(g) == 1);
    produce(&name, &lines(40));
    two.until("all records", 30, |out| (out.lines().count() == 40).then_some(()));
    two.signal("INT");
    assert_eq!(two.finish().code, 0);
    let left = until(&name, "nobody left", |g| g["state"] == "Empty");
    assert_eq!(left["lag"], json!(0));
    let table = klamm(&["groups", "describe", &name]).ok();
    assert!(table.out.contains("TOPIC"), "{table}");
    for header in ["PARTITION", "CURRENT", "END", "LAG", "MEMBER", "HOST", "CLIENT"] {
        assert!(table.out.contains(header), "{header} is missing:\n{table}");
    }
}

#[test]
fn new_partitions_of_a_topic_reach_a_running_group() {
    let name = topic("cli-grow", 1);
    let mut member = klamm(&["consume", &name, "--group", &name, "--from-beginning"]).start();
    until(&name, "a member", |g| g["state"] == "Stable");
    klamm(&["topics", "alter", &name, "--partitions", "2"]).ok();
    until(&name, "the member holding both partitions", |g| g["members"][0]["assignment"][&name] == json!([0, 1]));
    klamm(&["produce", &name, "--partition", "1"]).stdin("there\n").ok();
    member.until("the record", 30, |out| (out == "there\n").then_some(()));
}

#[test]
fn offsets_move_to_every_kind_of_target() {
    let name = topic("cli-reset", 2);
    for (partition, count) in [("0", 10), ("1", 4)] {
        let lines: String = (0..count).map(|i| format!("{{\"value\":\"{i}\",\"timestamp\":{}}}\n", 1000 + i)).collect();
        klamm(&["configs", "alter", "topic", &name, "--set", "retention.ms=-1"]).ok();
        klamm(&["produce", &name, "--json", "--partition", partition]).stdin(lines).ok();
    }
    let reset = |target: &[&str]| -> Vec<(Value, Value)> {
        let mut arguments = vec!["groups", "reset-offsets", &name];
        arguments.extend(target);
        let moved = json(&arguments);
        let rows = moved["partitions"].as_array().cloned().unwrap_or_default();
        rows.into_iter().map(|row| (row["old_offset"].clone(), row["new_offset"].clone())).collect()
    };
    let n = |old: i64, new: i64| (json!(old), json!(new));
    let none = klamm(&["groups", "reset-offsets", &name, "--all-topics", "--to-earliest"]).run();
    refused(&none, 1, "has committed no offsets");
    assert_eq!(reset(&["--topic", &name, "--to-latest"]), [(Value::Null, json!(10)), (Value::Null, json!(4))]);
    assert_eq!(reset(&["--all-topics", "--shift-by", "-3"]), [n(10, 7), n(4, 1)]);
    assert_eq!(reset(&["--all-topics", "--to-offset", "6", "--dry-run"]), [n(7, 6), n(1, 4)]);
    assert_eq!(reset(&["--topic", &format!("{name}:1"), "--to-earliest"]), [n(1, 0)]);
    assert_eq!(reset(&["--all-topics", "--to-timestamp", "1002"]), [n(7, 2), n(0, 2)]);
    assert_eq!(reset(&["--all-topics", "--to-timestamp", "1005"]), [n(2, 5), n(2, 4)]);
    let read = klamm(&["consume", &name, "--group", &name, "--exit-at-end"]).ok();
    assert_eq!(read.out, "5\n6\n7\n8\n9\n");
    refused(
        &klamm(&["groups", "reset-offsets", &name, "--topic", &format!("{name}:7"), "--to-latest"]).run(),
        1,
        "partition 7",
    );
}

#[test]
fn groups_are_deleted_and_unknown_ones_reported() {
    let name = topic("cli-group-delete", 1);
    klamm(&["groups", "reset-offsets", &name, "--topic", &name, "--to-latest"]).ok();
    let missing = klamm_tests::unique("cli-no-group");
    let both = klamm(&["groups", "delete", &missing, &name]).run();
    refused(&both, 1, "GROUP_ID_NOT_FOUND");
    assert!(both.out.contains(&format!("group {name} deleted")), "{both}");
    refused(&klamm(&["groups", "describe", &name]).run(), 1, "`klamm groups list`");
}
