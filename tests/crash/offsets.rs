//! Committed offsets when the topic that holds them is damaged, or deleted under a running broker.
//!
//! Both cases once lost commits silently: groups were spread over the partitions that could be opened instead of all,
//! and coordinators went on writing to a deleted topic.

use std::path::PathBuf;

use klamm_tests::{Broker, Peer, Tool, eventually, paths};

const OFFSETS_TOPIC: &str = "__consumer_offsets";

fn klamm(broker: &Broker, line: &str) -> Tool {
    Tool::new(paths::klamm()).args(line.split_whitespace()).env("KLAMM_BOOTSTRAP", broker.bootstrap()).limit(60)
}

fn fill(broker: &Broker) {
    klamm(broker, "topics create read --partitions 1").ok();
    klamm(broker, "produce read").stdin("1\n2\n3\n4\n5\n").ok();
}

/// Records that the group reads from where it stands; it commits behind them.
fn read(broker: &Broker, group: &str, most: u32) -> Vec<String> {
    let line = format!("consume read --group {group} --from-beginning --max-messages {most} --exit-at-end");
    klamm(broker, &line).ok().out.lines().map(str::to_owned).collect()
}

/// The directory of the topic's last partition.
fn highest(broker: &Broker) -> PathBuf {
    let dirs = (0..).map(|i| broker.data().join(format!("{OFFSETS_TOPIC}-{i}"))).take_while(|dir| dir.is_dir());
    dirs.last().expect("the topic has partitions")
}

#[test]
fn groups_stay_where_they_are_when_a_partition_of_theirs_cannot_be_opened() {
    if Peer::chosen() != Peer::Klamm {
        return;
    }
    let mut broker = Broker::start(&[]);
    fill(&broker);
    let groups: Vec<String> = (0..12).map(|i| format!("g{i}")).collect();
    for group in &groups {
        assert_eq!(read(&broker, group, 3), ["1", "2", "3"], "{group}");
    }
    assert_eq!(broker.stop(), 0);
    // A file in the place of the directory: the partition cannot be opened.
    let (dir, aside) = (highest(&broker), broker.data().join("aside"));
    std::fs::rename(&dir, &aside).expect("moved away");
    std::fs::write(&dir, "").expect("in its place");
    broker.restart();
    let described = klamm(&broker, &format!("topics describe {OFFSETS_TOPIC} -o json")).ok();
    assert!(
        described.out.contains("\"leader\": -1")
            || described.out.contains("\"leader\":-1")
            || described.out.contains("\"leader\": null"),
        "{described}"
    );
    // A group of that partition gets no answer; nobody is sent to another partition and begins anew.
    let mut unanswered = Vec::new();
    for group in &groups {
        match klamm(&broker, &format!("--timeout 2 groups describe {group}")).run().code {
            0 => assert_eq!(read(&broker, group, 1), ["4"], "{group} goes on where it was"),
            _ => unanswered.push(group),
        }
    }
    assert!(!unanswered.is_empty() && unanswered.len() < groups.len(), "{unanswered:?}");
    // Mended while the broker runs: it is found within seconds.
    std::fs::remove_file(&dir).expect("removed");
    std::fs::rename(&aside, &dir).expect("put back");
    eventually("the partition is online again", 30, || broker.log().contains("online again").then_some(()));
    for group in &groups {
        let next = if unanswered.contains(&group) { "4" } else { "5" };
        assert_eq!(read(&broker, group, 1), [next], "{group} goes on where it was");
    }
}

#[test]
fn groups_go_on_when_the_offsets_topic_is_deleted_under_them() {
    if Peer::chosen() != Peer::Klamm {
        return;
    }
    let mut broker = Broker::start(&[]);
    fill(&broker);
    assert_eq!(read(&broker, "before", 3), ["1", "2", "3"]);
    klamm(&broker, &format!("topics delete {OFFSETS_TOPIC}")).ok();
    // What was committed went with the topic; what is committed now must stay.
    assert_eq!(read(&broker, "before", 2), ["1", "2"]);
    assert_eq!(read(&broker, "after", 4), ["1", "2", "3", "4"]);
    broker.kill();
    broker.restart();
    assert_eq!(read(&broker, "before", 1), ["3"]);
    assert_eq!(read(&broker, "after", 1), ["5"]);
    assert!(!broker.log().contains("not appended"), "{}", broker.log());
}
