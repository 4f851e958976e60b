//! `klamm cluster` and `klamm quorum`; what they change of several nodes is tested beside Apache's tools.

use klamm_tests::broker;
use serde_json::json;

use crate::{json, klamm, refused, topic};

#[test]
fn the_cluster_and_its_quorum_are_described() {
    let name = topic("cli-cluster", 2);
    let cluster = json(&["cluster", "describe"]);
    let brokers = cluster["brokers"].as_array().cloned().unwrap_or_default();
    assert_eq!(brokers.len(), broker::nodes(), "{cluster}");
    assert!(brokers.iter().any(|b| b["id"] == cluster["controller"]), "{cluster}");
    assert!(brokers.iter().all(|b| b["state"] == json!("active") && b["out_of_sync"] == json!(0)), "{cluster}");
    assert!(brokers.iter().filter_map(|b| b["leaders"].as_u64()).sum::<u64>() >= 2, "{cluster}");
    assert_eq!(cluster["cluster_id"].as_str().map(str::len), Some(22), "{cluster}");

    let quorum = json(&["quorum", "describe"]);
    let nodes = quorum["nodes"].as_array().cloned().unwrap_or_default();
    let leaders: Vec<_> = nodes.iter().filter(|n| n["role"] == json!("leader")).collect();
    assert_eq!((nodes.len(), leaders.len()), (broker::nodes(), 1), "{quorum}");
    assert_eq!((&leaders[0]["lag"], &leaders[0]["id"]), (&json!(0), &quorum["leader"]), "{quorum}");
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
