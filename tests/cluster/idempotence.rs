//! Idempotence with five requests in flight (librdkafka) while brokers are killed: each record once, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_tests::{Cluster, Plan, Random, Tool, paths};

use crate::checker::check;
use crate::history::{History, Outcome, Seen, Send, Value};
use crate::judge::{figure, seed};
use crate::kills::pass;
use crate::view::View;

const TOPIC: &str = "once";

fn load(cluster: &Cluster, args: &[&str]) -> Tool {
    Tool::new(paths::cached("python/bin/python", "python.sh"))
        .arg(paths::tests_dir().join("crash/load.py"))
        .arg(cluster.bootstrap())
        .args(args)
        .limit(figure(240, 1300))
}

/// Lines of `topic partition offset number`.
fn entries(path: &std::path::Path) -> Vec<(i32, i64, u32)> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let parse = |line: &str| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    text.lines().map(|l| parse(l).unwrap_or_else(|| panic!("{}: {l:?}", path.display()))).collect()
}

#[test]
fn a_producer_with_five_requests_in_flight_writes_each_record_once_through_restarts() {
    let (wanted, at_least) = (figure(200_000, 1_000_000), figure(4, 15));
    let seed = seed();
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start(Plan::default());
    let view = View::of(&cluster);
    view.create(&mut cluster, TOPIC, 3, &[]);
    let dir = paths::scratch_dir("once");
    let (acked, log) = (dir.join("acked"), dir.join("log"));
    let mut producer = load(&cluster, &["produce", "once:3", &acked.display().to_string()]).start();
    let count = |out: &str| out.lines().rev().find_map(|l| l.strip_prefix("acked ")?.parse::<u64>().ok()).unwrap_or(0);
    producer.until("acknowledgements", 60, |out| (count(out) > 0).then_some(()));
    let mut restarts = 0;
    while restarts < at_least || count(&producer.stdout()) < wanted {
        let before = count(&producer.stdout());
        pass(Duration::from_millis(random.between(500, 3000)));
        let victim = random.below(3) as usize;
        if random.chance(700) {
            cluster.kill(victim);
        } else {
            cluster.stop(victim);
        }
        cluster.launch(victim);
        restarts += 1;
        producer.until("acknowledgements after a restart", 90, |out| (count(out) > before + 5000).then_some(()));
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
    }
    producer.signal("TERM");
    let sent = producer.finish().expect_ok();
    load(&cluster, &["read", "once:3", &log.display().to_string()]).ok();

    let value = |number| Value { producer: 0, number };
    let sends = entries(&acked).into_iter().map(|(partition, offset, number)| Send {
        value: value(number),
        partition,
        outcome: Outcome::Acked { offset, leader: 0 },
        sent_ms: 0,
        done_ms: 0,
    });
    let mut logs: BTreeMap<i32, Vec<Seen>> = BTreeMap::new();
    for (partition, offset, number) in entries(&log) {
        logs.entry(partition).or_default().push(Seen { offset, value: value(number), epoch: 0 });
    }
    let history = History { topic: TOPIC.into(), sends: sends.collect(), log: logs, ..History::default() };
    let report = check(&history);
    // All numbers were acknowledged, so the log has all of them.
    let mut gaps = 0;
    for log in history.log.values() {
        gaps += log.windows(2).filter(|pair| pair[1].value.number != pair[0].value.number + 3).count();
    }
    let summary = sent.out.lines().last().unwrap_or_default().to_owned();
    println!(
        "figures R14 idempotence: {restarts} restarts, {} acked, {} in the log, {gaps} gaps; {report}; {summary}; seed {seed}",
        history.acked(),
        history.log.values().map(Vec::len).sum::<usize>()
    );
    assert!(report.is_clean(), "KLAMM_CLUSTER_SEED={seed}: {report}");
    assert_eq!(gaps, 0, "numbers are missing or out of order");
    assert!(sent.out.contains("failed 0 left 0"), "{sent}");
}
