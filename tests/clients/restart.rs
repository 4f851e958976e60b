//! What survives a restart of the broker: records, topics, configs, commits of every kind, groups.

use klamm_tests::jvm::Java;
use klamm_tests::{Broker, assert_contains, unique};

use crate::tools::{TOPICS, create_on, java_on, kcat_on, produce_on, python_on, values};

fn consume(broker: &Broker, topic: &str, group: &str, mode: &str, reset: &str, count: u32) -> Vec<String> {
    let output =
        Java::new("Apps").args(["commit", broker.bootstrap(), topic, group, mode, reset, &count.to_string()]).ok();
    output.out.lines().filter_map(|l| l.strip_prefix("value ")).map(str::to_owned).collect()
}

fn commits_survive(kill: bool) {
    let mut broker = Broker::start(&[("num.partitions", "1")]);
    let topic = unique("survivor");
    create_on(&broker, &topic, 1);
    produce_on(&broker, &topic, 0, &values("v", 0..20));
    let modes = ["auto", "sync", "async"];
    for mode in modes {
        assert_eq!(consume(&broker, &topic, &format!("g-{mode}"), mode, "earliest", 7), values("v", 0..7), "{mode}");
    }
    python_on(&broker, "admin.py", &["commit", &topic, "simple", "0", "11"]).ok();
    java_on(&broker, TOPICS, "--create --topic configured --partitions 4 --config retention.ms=77777777").ok();

    if kill {
        broker.kill();
    } else {
        assert_eq!(broker.stop(), if broker.peer() == klamm_tests::Peer::Klamm { 0 } else { 143 });
    }
    broker.restart();

    for mode in modes {
        assert_eq!(consume(&broker, &topic, &format!("g-{mode}"), mode, "latest", 5), values("v", 7..12), "{mode}");
    }
    let committed = python_on(&broker, "admin.py", &["committed", &topic, "simple", "0"]).ok();
    assert_eq!(committed.out.trim(), "11");
    let all = kcat_on(&broker, &format!("-C -t {topic} -p 0 -o beginning -e -q")).ok();
    assert_eq!(all.lines(), values("v", 0..20));
    let described = java_on(&broker, TOPICS, "--describe --topic configured").ok();
    assert_contains(&described.out, "PartitionCount: 4");
    assert_contains(&described.out, "retention.ms=77777777");
    // A new group obeys auto.offset.reset; a committed one ignores it (above).
    assert_eq!(consume(&broker, &topic, "new-earliest", "sync", "earliest", 2), values("v", 0..2));
    let latest =
        Java::new("Apps").args(["commit", broker.bootstrap(), &topic, "new-latest", "sync", "latest", "0"]).ok();
    assert_contains(&latest.out, &format!("positions {{{topic}-0=20}}"));
}

#[test]
fn commits_records_and_configs_survive_a_clean_restart() {
    commits_survive(false);
}

#[test]
fn commits_records_and_configs_survive_a_kill() {
    commits_survive(true);
}

#[test]
fn a_running_group_and_an_idempotent_producer_ride_out_a_restart() {
    let mut broker = Broker::start(&[]);
    let topic = unique("ride");
    create_on(&broker, &topic, 2);
    let mut reader =
        python_on(&broker, "member.py", &["--group", "ride-g", "--topic", &topic, "--client", "r"]).start();
    reader.until("an assignment", 30, |out| out.contains("assigned").then_some(()));
    let mut writer = python_on(&broker, "records.py", &["trickle", &topic, "400"]).start();
    writer.until("a hundred acknowledgements", 30, |out| out.contains("acked 100").then_some(()));
    broker.restart();
    writer.until("all acknowledgements", 60, |out| out.contains("acked 400").then_some(()));
    reader.until("every record", 60, |out| {
        let seen: std::collections::BTreeSet<&str> = out.lines().filter(|l| l.starts_with("got ")).collect();
        (seen.len() >= 400).then_some(())
    });
    // Each record stands in the log once.
    let all = kcat_on(&broker, &format!("-C -t {topic} -o beginning -e -q")).ok();
    let mut lines = all.lines();
    lines.sort_unstable();
    let written = lines.len();
    lines.dedup();
    assert_eq!((written, lines.len()), (400, 400));
}
