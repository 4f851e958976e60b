//! A disk whose fsync fails once: the broker stops with the exit code for storage, and acknowledges nothing after it.
//!
//! `strace` makes one `fdatasync` fail that is about a file of the data directory. What the disk has after that nobody
//! knows, so trying again would be a guess.

use std::time::Duration;

use klamm_tests::{Broker, Peer, Tool, strace, wait_for};

const TOPIC: &str = "flushed";

fn kcat(broker: &Broker, line: &str) -> Tool {
    Tool::new("kcat").args(["-b", broker.bootstrap()]).args(line.split_whitespace())
}

#[test]
fn a_failed_fsync_stops_the_broker_and_nothing_is_acknowledged_after_it() {
    if !strace::is_installed() || Peer::chosen() != Peer::Klamm {
        println!("figures R11 failed fsync: skipped, strace is not installed");
        return;
    }
    if klamm_tests::broker::nodes() > 1 {
        return;
    }
    let mut broker = Broker::start(&[]);
    let klamm = |broker: &Broker, line: &str| {
        Tool::new(klamm_tests::paths::klamm()).args(["-b", broker.bootstrap()]).args(line.split_whitespace()).ok()
    };
    // A file of the log with flush.messages=1, and one of the checkpoints, which are written by themselves.
    let of_log = (format!("{TOPIC}-0/00000000000000000000.log"), true);
    for (n, (file, by_produce)) in
        [of_log, ("recovery-point-offset-checkpoint.tmp".to_owned(), false)].iter().enumerate()
    {
        if n == 0 {
            klamm(&broker, &format!("topics create {TOPIC} --partitions 1 --config flush.messages=1"));
        } else {
            broker.set("log.flush.offset.checkpoint.interval.ms", "1000");
            broker.restart();
        }
        let lines = |from: usize| (from..from + 50).map(|i| format!("{i}")).collect::<Vec<_>>().join("\n");
        let produce = format!("-P -t {TOPIC} -p 0 -X acks=all -X message.timeout.ms=4000 -X linger.ms=0");
        kcat(&broker, &produce).stdin(lines(n * 50)).ok();
        let harmed = broker.data().join(file);
        let Some(mut strace) = strace::inject(broker.pid(), "fdatasync,fsync", "error=EIO", Some(&harmed)) else {
            println!("figures R11 failed fsync: skipped, strace may not attach here");
            return;
        };
        if *by_produce {
            let refused = kcat(&broker, &produce).stdin("never acknowledged").run();
            assert_ne!(refused.code, 0, "acknowledged although it was not made safe: {refused}");
        }
        let ended = wait_for(Duration::from_secs(20), || (!broker.alive()).then_some(()));
        assert!(ended.is_some(), "it goes on with a disk that has failed: {}", broker.log());
        strace.kill();
        let said = broker.log();
        assert_eq!(broker.stop(), 3, "{said}");
        assert!(said.contains("the log directory is offline"), "{said}");
        broker.restart();
        let read = kcat(&broker, &format!("-C -t {TOPIC} -p 0 -o beginning -e -q")).ok();
        let numbers: Vec<String> = read.lines().into_iter().map(str::to_owned).collect();
        let wanted: Vec<String> = (0..(n + 1) * 50).map(|i| i.to_string()).collect();
        let known: Vec<&String> = numbers.iter().filter(|line| *line != "never acknowledged").collect();
        assert!(known.iter().copied().eq(wanted.iter()), "{numbers:?}");
        println!(
            "figures R11 failed fsync of {file}: exit code 3, nothing acknowledged after it, {} acked all there",
            wanted.len()
        );
        broker.stop();
    }
}
