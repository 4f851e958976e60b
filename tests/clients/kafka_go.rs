//! segmentio/kafka-go: produce, administer, and a group with several members.

use klamm_tests::{Broker, Process, Tool, eventually, paths, unique};

use crate::tools::create;

fn go(args: &[&str]) -> Tool {
    Tool::new(paths::cached("bin/kafka-go-client", "go.sh")).arg(Broker::shared().bootstrap_one()).args(args)
}

#[test]
fn it_produces_in_every_codec_and_reads_back() {
    let topic = unique("go-codec");
    create(&topic, 1);
    go(&["codecs", &topic]).ok().expect("codecs ok");
}

#[test]
fn it_administers() {
    go(&["admin", &unique("go-admin")]).ok().expect("admin ok");
}

/// The partitions of the newest assignment that a member printed.
fn assigned(member: &Process) -> Option<Vec<u32>> {
    let out = member.stdout();
    let line = out.lines().rev().find_map(|l| l.strip_prefix("assigned"))?;
    let mut partitions: Vec<u32> = line.split_whitespace().filter_map(|p| p.parse().ok()).collect();
    partitions.sort_unstable();
    Some(partitions)
}

#[test]
fn three_members_share_a_topic_and_take_over_from_one_that_is_killed() {
    let (topic, group) = (unique("go-group"), unique("go-g"));
    create(&topic, 6);
    let start = || go(&["member", &topic, &group]).start();
    let mut members = vec![start(), start(), start()];
    let shared = |members: &[Process], each: usize| {
        let parts: Vec<Vec<u32>> = members.iter().map(assigned).collect::<Option<_>>()?;
        let mut all: Vec<u32> = parts.concat();
        all.sort_unstable();
        (all == [0, 1, 2, 3, 4, 5] && parts.iter().all(|p| p.len() == each)).then_some(())
    };
    eventually("six partitions over three members, two each", 60, || shared(&members, 2));
    go(&["produce", &topic, "600"]).ok();
    let values = |members: &[Process]| {
        let mut values: Vec<String> = Vec::new();
        for member in members {
            values.extend(member.stdout().lines().filter(|l| l.starts_with("got ")).map(str::to_owned));
        }
        values.sort();
        values.dedup();
        values.len()
    };
    eventually("600 records by three members", 60, || (values(&members) == 600).then_some(()));
    let mut killed = members.pop().expect("three members");
    killed.kill();
    eventually("six partitions over the two that are left", 60, || shared(&members, 3));
}
