//! `klamm cluster` and `klamm quorum` on one node; on three they are tested beside Apache's tools.

use serde_json::json;

use crate::{json, klamm, refused, topic};

#[test]
fn the_cluster_and_its_quorum_are_described() {
    let name = topic("cli-cluster", 2);
    let cluster = json(&["cluster", "describe"]);
    let brokers = cluster["brokers"].as_array().cloned().unwrap_or_default();
    assert_eq!(brokers.len(), 1, "{cluster}");
    assert_eq!((&brokers[0]["id"], &brokers[0]["state"]), (&cluster["controller"], &json!("active")));
    assert!(brokers[0]["leaders"].as_u64() >= Some(2) && brokers[0]["out_of_sync"] == json!(0), "{cluster}");
    assert_eq!(cluster["cluster_id"].as_str().map(str::len), Some(22), "{cluster}");

    let quorum = json(&["quorum", "describe"]);
    assert_eq!((&quorum["nodes"][0]["role"], &quorum["nodes"][0]["lag"]), (&json!("leader"), &json!(0)), "{quorum}");
    assert_eq!(quorum["leader"], quorum["nodes"][0]["id"]);
    klamm(&["cluster", "describe"]).ok().expect("BROKER   ADDRESS");
    klamm(&["quorum", "describe"]).ok().expect("NODE   ROLE");

    klamm(&["cluster", "elect", "--topic", &name]).ok().expect("nothing to change");
    let elected = json(&["cluster", "elect", "--topic", &format!("{name}:1")]);
    assert_eq!(elected, json!([{"topic": name, "partition": 1, "result": "unchanged"}]));
}

#[test]
fn what_cannot_be_done_says_what_to_do() {
    refused(&klamm(&["cluster", "unregister", "77"]).run(), 1, "hint: `klamm cluster describe` shows the brokers");
    refused(&klamm(&["quorum", "remove", "77"]).run(), 1, "hint: `klamm quorum describe` shows who does");
    refused(&klamm(&["quorum", "add", "77", "--address", "h:1"]).run(), 1, "hint: start it with");
    refused(&klamm(&["cluster", "elect", "--topic", "no-such-topic"]).run(), 1, "UNKNOWN_TOPIC_OR_PARTITION");
    refused(&klamm(&["cluster", "elect", "--unclean"]).run(), 2, "--topic");
}
