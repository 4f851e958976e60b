//! `klamm reassign` and `klamm cluster balance` on four brokers, of which one is empty at first.

use std::collections::BTreeMap;
use std::fs;

use klamm_client::Client;
use klamm_client::admin::topics::NewTopic;
use klamm_tests::{Cluster, Output, Plan, Tool, eventually, paths};
use serde_json::{Value, json};

use crate::view::View;
use crate::workload::options;

const RECORDS: usize = 20_000;

pub fn klamm(cluster: &Cluster, line: &str) -> Tool {
    Tool::new(paths::klamm()).args(line.split_whitespace()).env("KLAMM_BOOTSTRAP", cluster.bootstrap()).limit(120)
}

#[track_caller]
pub fn parsed(output: &Output) -> Value {
    serde_json::from_str(&output.out).unwrap_or_else(|e| panic!("{e}: {output}"))
}

/// What a field of `klamm cluster describe` counts for each broker.
#[track_caller]
pub fn counts(cluster: &Cluster, field: &str) -> BTreeMap<u64, u64> {
    let described = parsed(&klamm(cluster, "cluster describe -o json").ok());
    let brokers = described["brokers"].as_array().cloned().unwrap_or_default();
    brokers.iter().filter_map(|b| Some((b["id"].as_u64()?, b[field].as_u64()?))).collect()
}

pub fn spread(counts: &BTreeMap<u64, u64>) -> u64 {
    counts.values().max().unwrap_or(&0) - counts.values().min().unwrap_or(&0)
}

/// The replicas of each partition of a topic.
#[track_caller]
pub fn replicas(cluster: &Cluster, topic: &str) -> Vec<usize> {
    let described = parsed(&klamm(cluster, &format!("topics describe {topic} -o json")).ok());
    let partitions = described[0]["partitions"].as_array().cloned().unwrap_or_default();
    partitions.iter().map(|p| p["replicas"].as_array().map_or(0, Vec::len)).collect()
}

/// All records are there, each once.
#[track_caller]
fn whole(cluster: &Cluster, topic: &str) {
    let read = klamm(cluster, &format!("consume {topic} --from-beginning --exit-at-end")).ok();
    let mut numbers: Vec<usize> = read.out.lines().filter_map(|line| line.parse().ok()).collect();
    numbers.sort_unstable();
    assert!(numbers == (0..RECORDS).collect::<Vec<_>>(), "{} records", numbers.len());
}

#[test]
fn an_empty_broker_gets_its_share_and_a_drained_one_is_emptied() {
    let mut cluster = Cluster::start(Plan { nodes: 4, ..Plan::default() });
    let view = View::of(&cluster);
    // As on three brokers that one topic after the other was given to: the fourth is new.
    let assignments = vec![vec![0, 1, 2]; 12];
    view.run(async {
        let client = Client::connect(&cluster.bootstrap(), options()).await?;
        for name in ["orders", "payments"] {
            let topic = NewTopic { name: name.into(), assignments: assignments.clone(), ..Default::default() };
            client.create_topic(&topic).await?;
        }
        Ok::<_, klamm_client::ClientError>(())
    })
    .expect("the topics");
    let lines: String = (0..RECORDS).map(|n| format!("{n}\n")).collect();
    klamm(&cluster, "produce orders").stdin(lines).ok();
    assert_eq!(counts(&cluster, "replicas").get(&3), Some(&0));

    let shown = klamm(&cluster, "cluster balance --dry-run").ok();
    shown.expect("18 leaders to elect").expect("0 -> 18");
    let planned = parsed(&klamm(&cluster, "cluster balance --dry-run -o json").ok());
    let moves = planned["partitions"].as_array().map_or(0, Vec::len);
    assert!(moves >= 18, "18 of 72 replicas are the new broker's share: {planned}");
    let unasked = klamm(&cluster, "cluster balance").run();
    assert!(unasked.code == 2 && unasked.err.contains("--yes"), "{unasked}");
    assert_eq!(counts(&cluster, "replicas").get(&3), Some(&0), "nothing was asked for yet");

    let done = klamm(&cluster, "cluster balance --yes --max-moves 3").ok();
    assert!(
        done.out.contains(&format!("{moves} partitions moved, ")) && done.out.contains("leaders elected"),
        "{done}"
    );
    assert!(done.err.contains(&format!(" of {moves} partitions moved, ")), "progress in plain lines: {done}");
    for field in ["replicas", "leaders"] {
        let counts = counts(&cluster, field);
        assert!(spread(&counts) <= 1 && counts.len() == 4, "{field}: {counts:?}");
    }
    klamm(&cluster, "cluster balance --dry-run").ok().expect("nothing to move");
    klamm(&cluster, "cluster balance --yes").ok().expect("nothing to move");
    whole(&cluster, "orders");

    let refused = klamm(&cluster, "reassign plan --drain 0,1").run();
    assert!(refused.code == 1 && refused.err.contains("shall have 3 replicas, and only 2 brokers"), "{refused}");
    let refused = klamm(&cluster, "reassign plan --drain 9").run();
    assert!(refused.code == 1 && refused.err.contains("there is no broker 9"), "{refused}");
    klamm(&cluster, "reassign execute --drain 1 --yes --throttle 10000000").ok().expect("18 partitions moved");
    for resource in ["topic orders", "broker 0"] {
        let left = klamm(&cluster, &format!("configs describe {resource}")).ok();
        assert!(!left.out.contains("throttled"), "the throttle is taken off: {left}");
    }
    let drained = counts(&cluster, "replicas");
    assert_eq!(drained, BTreeMap::from([(0, 24), (1, 0), (2, 24), (3, 24)]));
    assert!(replicas(&cluster, "orders").iter().all(|n| *n == 3));
    whole(&cluster, "orders");

    klamm(&cluster, "reassign execute --topics payments --replication-factor 2 --yes")
        .ok()
        .expect("12 partitions moved");
    assert!(replicas(&cluster, "payments").iter().all(|n| *n == 2));
    klamm(&cluster, "reassign execute --topics payments --replication-factor 4 --yes")
        .ok()
        .expect("12 partitions moved");
    assert!(replicas(&cluster, "payments").iter().all(|n| *n == 4));
    assert!(replicas(&cluster, "orders").iter().all(|n| *n == 3), "another topic");
    view.until_in_sync(&mut cluster, std::time::Duration::from_secs(30));
}

#[test]
fn a_move_to_a_broker_that_is_down_waits_and_can_be_taken_back() {
    let mut cluster = Cluster::start(Plan { nodes: 4, ..Plan::default() }.set("broker.session.timeout.ms", "3000"));
    let view = View::of(&cluster);
    view.run(async {
        let client = Client::connect(&cluster.bootstrap(), options()).await?;
        let assignments = vec![vec![0, 1, 2]; 2];
        client.create_topic(&NewTopic { name: "stuck".into(), assignments, ..Default::default() }).await
    })
    .expect("the topic");
    let lines: String = (0..RECORDS).map(|n| format!("{n}\n")).collect();
    klamm(&cluster, "produce stuck -p 0").stdin(lines).ok();
    cluster.kill(3);
    let plan = json!({"version": 1, "partitions": [
        {"topic": "stuck", "partition": 0, "replicas": [3, 1, 2]},
        {"topic": "stuck", "partition": 1, "replicas": [1, 0, 2]},
    ]});
    let dir = paths::scratch_dir("stuck");
    let file = dir.join("plan.json");
    fs::write(&file, plan.to_string()).expect("the plan");
    let file = file.display();
    klamm(&cluster, &format!("reassign execute {file} --no-wait")).ok().expect("2 moves begun");
    // The order of replicas is changed at once.
    let ongoing = eventually("one of them goes on", 10, || {
        let ongoing = parsed(&klamm(&cluster, "reassign status -o json").ok());
        (ongoing.as_array().map(Vec::len) == Some(1)).then_some(ongoing)
    });
    let one = &ongoing[0];
    assert_eq!((&one["partition"], &one["replicas"], &one["adding"]), (&json!(0), &json!([3, 1, 2]), &json!([3])));
    assert_eq!(one["removing"], json!([0]));
    assert!(one["bytes"].as_u64() > Some(10_000) && one["bytes_left"] == one["bytes"], "{ongoing}");
    klamm(&cluster, "reassign status").ok().expect("1 partitions, ");

    klamm(&cluster, "reassign cancel --topic stuck:1").ok().expect("nothing is being moved");
    let taken_back = parsed(&klamm(&cluster, "reassign cancel --topic stuck -o json").ok());
    assert_eq!(taken_back, json!([{"topic": "stuck", "partition": 0, "result": "cancelled"}]));
    eventually("it is taken back", 10, || {
        klamm(&cluster, "reassign status").ok().out.contains("nothing is being moved").then_some(())
    });
    klamm(&cluster, "reassign cancel").ok().expect("nothing is being moved");

    // Begun again and watched, it is complete when the broker is back.
    klamm(&cluster, &format!("reassign execute {file} --no-wait")).ok().expect("1 moves begun");
    cluster.launch(3);
    klamm(&cluster, &format!("reassign execute {file}")).ok();
    let plan = parsed(&klamm(&cluster, "topics describe stuck -o json").ok());
    assert_eq!(plan[0]["partitions"][0]["replicas"], json!([3, 1, 2]), "{plan}");
    assert_eq!(plan[0]["partitions"][0]["leader"], json!(3), "the first replica was elected: {plan}");
    klamm(&cluster, &format!("reassign execute {file}")).ok().expect("nothing to move");
    whole(&cluster, "stuck");
    let wrong = klamm(&cluster, "reassign execute /nowhere/plan.json").run();
    assert!(wrong.code == 2 && wrong.err.contains("/nowhere/plan.json"), "{wrong}");
    let endless = klamm(&cluster, "reassign execute /dev/zero").run();
    assert!(endless.code == 2 && endless.err.contains("/dev/zero: it has more than"), "{endless}");
    let _ = fs::remove_dir_all(dir);
}

#[test]
fn a_cordoned_broker_gets_nothing_new_and_a_drained_one_gives_all_away() {
    let mut cluster = Cluster::start(Plan { nodes: 4, ..Plan::default() });
    let view = View::of(&cluster);
    let on_three = |topic: &str| {
        let described = klamm(&cluster, &format!("topics describe {topic} -o json")).ok();
        let topics = parsed(&described);
        let partitions = topics[0]["partitions"].as_array().cloned().unwrap_or_default();
        assert_eq!(partitions.len(), 12, "{described}");
        let holds = |p: &&serde_json::Value| p["replicas"].as_array().is_some_and(|r| r.contains(&json!(3)));
        partitions.iter().filter(holds).count()
    };
    klamm(&cluster, "topics create before --partitions 12 --replication-factor 3").ok();
    assert_eq!(on_three("before"), 9);
    klamm(&cluster, "brokers cordon 3").ok().expect("broker 3 cordoned");
    klamm(&cluster, "topics create cordoned --partitions 12 --replication-factor 3").ok();
    assert_eq!(on_three("cordoned"), 0, "the controller knows at once");
    assert_eq!(on_three("before"), 9, "what it has it keeps");
    let refused = klamm(&cluster, "topics create toomany --partitions 1 --replication-factor 4").run();
    assert!(refused.code == 1 && refused.err.contains("cordoned"), "{refused}");
    klamm(&cluster, "brokers uncordon 3").ok();
    let unasked = klamm(&cluster, "brokers drain 3").run();
    assert!(unasked.code == 2 && unasked.err.contains("--yes"), "{unasked}");
    let untouched = klamm(&cluster, "configs describe broker 3").ok();
    assert!(!untouched.out.contains("cordoned"), "nobody agreed: {untouched}");
    klamm(&cluster, "brokers drain 3 --yes").ok().expect("9 partitions moved");
    assert_eq!(on_three("before"), 0);
    klamm(&cluster, "brokers drain 3 --yes").ok().expect("nothing to move");
    klamm(&cluster, "brokers uncordon 3").ok().expect("broker 3 uncordoned");
    eventually("new replicas come again", 10, || {
        let topic = klamm_tests::unique("after");
        klamm(&cluster, &format!("topics create {topic} --partitions 12 --replication-factor 3")).ok();
        (on_three(&topic) == 9).then_some(())
    });
    let refused = klamm(&cluster, "brokers cordon 9").run();
    assert!(refused.code == 1, "{refused}");
    klamm(&cluster, "topics create everywhere --partitions 1 --replication-factor 4").ok();
    let refused = klamm(&cluster, "brokers drain 3 --yes").run();
    assert!(refused.code == 1 && refused.err.contains("--replication-factor"), "{refused}");
    let untouched = klamm(&cluster, "configs describe broker 3").ok();
    assert!(!untouched.out.contains("cordoned"), "what is refused leaves nothing behind: {untouched}");
    view.until_in_sync(&mut cluster, std::time::Duration::from_secs(30));
}
