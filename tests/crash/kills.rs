//! kill -9 at random moments under load, again and again on one data directory.
//!
//! `KLAMM_CRASH_ROUNDS` sets how often, `KLAMM_CRASH_SEED` when. Two topics side by side: one with flush.messages=1,
//! one with the defaults, where the page cache keeps what a dead process has written.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use klamm_tests::{Broker, Process, Tool, paths};

use crate::checker::{Report, check, entries};

const TOPICS: &str = "flushed:2,cached:3";
const GROUP: &str = "crash-group";

fn load(broker: &Broker, args: &[&str]) -> Tool {
    Tool::new(paths::cached("python/bin/python", "python.sh"))
        .arg(paths::tests_dir().join("crash/load.py"))
        .arg(broker.bootstrap())
        .args(args)
        .limit(180)
}

fn create(broker: &Broker, topic: &str, partitions: &str, configs: &[&str]) {
    Tool::new(paths::cached("python/bin/python", "python.sh"))
        .arg(paths::tests_dir().join("clients/python/admin.py"))
        .args([broker.bootstrap(), "create", topic, partitions])
        .args(configs)
        .ok();
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// A small generator of our own, so that a seed says it all.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn acked(producer: &Process) -> u64 {
    let out = producer.stdout();
    out.lines().rev().find_map(|l| l.strip_prefix("acked ")?.parse().ok()).unwrap_or(0)
}

/// The offsets on the last `committed` line.
fn committed(out: &str) -> HashMap<String, i64> {
    let whole = &out[..out.rfind('\n').map_or(0, |end| end)];
    let line = whole.lines().rev().find_map(|l| l.strip_prefix("committed "));
    let parse = |word: &str| {
        let (partition, offset) = word.rsplit_once(':')?;
        Some((partition.to_owned(), offset.parse().ok()?))
    };
    line.map(|l| l.split(' ').filter_map(parse).collect()).unwrap_or_default()
}

#[test]
fn nothing_acknowledged_is_lost_when_the_broker_is_killed_under_load() {
    let rounds = setting("KLAMM_CRASH_ROUNDS", 20);
    let seed = setting("KLAMM_CRASH_SEED", u64::from(std::process::id()));
    println!("{rounds} rounds, KLAMM_CRASH_SEED={seed}");
    let mut random = Random(seed);
    // Small segments, so that kills meet rolls, too.
    let mut broker = Broker::start(&[("log.segment.bytes", "1048576")]);
    create(&broker, "flushed", "2", &["flush.messages=1"]);
    create(&broker, "cached", "3", &[]);
    let dir = paths::scratch_dir("crash");
    let file = |name: &str| dir.join(name).display().to_string();
    let mut producer = load(&broker, &["produce", TOPICS, &file("acked")]).start();
    let mut consumer = load(&broker, &["consume", TOPICS, &file("seen"), GROUP]).start();
    producer.until("acknowledgements", 60, |out| out.contains("acked ").then_some(()));
    consumer.until("a commit", 60, |out| out.contains("committed ").then_some(()));

    let mut went_back = 0;
    let mut slowest = Duration::ZERO;
    for round in 1..=rounds {
        let before = acked(&producer);
        let moment = Instant::now() + Duration::from_millis(50 + random.below(900));
        // Under load: not before acknowledgements came after the last restart.
        klamm_tests::eventually("new acknowledgements", 90, || {
            (acked(&producer) > before && Instant::now() >= moment).then_some(())
        });
        let promised = committed(&consumer.stdout());
        broker.kill();
        let up = broker.restart();
        slowest = slowest.max(up);
        let kept = committed(&(load(&broker, &["committed", TOPICS, GROUP]).ok().out + "\n"));
        for (partition, offset) in &promised {
            let now = kept.get(partition).copied().unwrap_or(-1);
            if now < *offset {
                println!("round {round}: {partition} was committed at {offset} and is at {now}");
                went_back += 1;
            }
        }
    }
    // All must still be alive and well: what was under way gets through.
    let before = acked(&producer);
    klamm_tests::eventually("acknowledgements after the last round", 90, || (acked(&producer) > before).then_some(()));
    producer.signal("TERM");
    let sent = producer.finish().expect_ok();
    consumer.signal("TERM");
    consumer.finish().expect_ok().expect("done");
    load(&broker, &["read", TOPICS, &file("log")]).ok();

    let (acked, log, seen) = (entries(&dir.join("acked")), entries(&dir.join("log")), entries(&dir.join("seen")));
    let report = check(&acked, &log, &seen);
    println!(
        "{rounds} kills: {} acknowledged, {} in the log, {} handed to the group; {report:?}; {went_back} commits went \
         back; slowest restart {slowest:?}; {}",
        acked.len(),
        log.len(),
        seen.len(),
        sent.out.lines().last().unwrap_or_default()
    );
    assert_eq!(report, Report::default());
    assert_eq!(went_back, 0, "an acknowledged commit was forgotten");
    assert!(sent.out.contains("failed 0 left 0"), "{sent}");
}
