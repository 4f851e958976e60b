//! A log whose last write was torn: the broker starts, keeps every whole batch before the tear and goes on from there.
//!
//! Every byte of the last 64 KiB is tried in the log package's own tests; here a sample goes through the real binary.

use std::path::{Path, PathBuf};

use klamm_tests::{Broker, Output, Peer, Tool};

const TAIL: usize = 64 * 1024;
const TOPIC: &str = "torn";

fn kcat(broker: &Broker, line: &str) -> Tool {
    Tool::new("kcat").args(["-b", broker.bootstrap()]).args(line.split_whitespace())
}

fn segment(data: &Path) -> PathBuf {
    data.join(format!("{TOPIC}-0/00000000000000000000.log"))
}

/// Where each batch of a segment ends.
fn ends(log: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(length) = log.get(at + 8..at + 12) {
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        at += 12 + length as usize;
        ends.push(at);
    }
    assert_eq!(at, log.len(), "the segment ends with a whole batch");
    ends
}

/// Puts a copy of `saved` in the place of the broker's data.
fn put_back(saved: &Path, data: &Path) {
    std::fs::remove_dir_all(data).expect("the old data goes");
    Tool::new("cp").arg("-a").args([saved, data]).ok();
}

#[track_caller]
fn holds(broker: &Broker, expected: usize, what: &str) {
    let read: Output = kcat(broker, &format!("-C -t {TOPIC} -p 0 -o beginning -e -q -f %o:%s\\n")).ok();
    let numbers: Vec<&str> = read.out.lines().map(|l| l.split(' ').next().unwrap_or_default()).collect();
    let wanted: Vec<String> = (0..expected).map(|i| format!("{i}:{i}")).collect();
    assert!(numbers == wanted, "{what}: {} records, not {expected}: last {:?}", numbers.len(), numbers.last());
}

#[test]
fn a_torn_tail_goes_and_everything_before_it_stays() {
    let mut broker = Broker::start(&[]);
    // One record a batch, about 600 bytes each.
    let lines: Vec<String> = (0..300).map(|i| format!("{i} {}", "x".repeat(500))).collect();
    Tool::new(klamm_tests::paths::cached("python/bin/python", "python.sh"))
        .arg(klamm_tests::paths::tests_dir().join("clients/python/admin.py"))
        .args([broker.bootstrap(), "create", TOPIC, "1"])
        .ok();
    kcat(&broker, &format!("-P -t {TOPIC} -p 0 -X acks=all -X batch.num.messages=1 -X linger.ms=0"))
        .stdin(lines.join("\n"))
        .ok();
    let data = broker.data();
    broker.kill();
    let saved = klamm_tests::paths::scratch_dir("saved");
    std::fs::remove_dir(&saved).expect("an empty folder goes");
    Tool::new("cp").arg("-a").args([&data, &saved]).ok();
    let log = std::fs::read(segment(&saved)).expect("the segment");
    let ends = ends(&log);
    assert_eq!(ends.len(), 300);
    assert!(log.len() > TAIL);

    let samples = if broker.peer() == Peer::Klamm { 24 } else { 2 };
    let mut cuts = vec![log.len() - 1, ends[298] + 1, ends[298], ends[200] + 11, ends[200] + 60];
    cuts.extend((0..samples).map(|i| log.len() - TAIL + i * TAIL / samples + i));
    cuts.truncate(samples + 5);
    for cut in cuts {
        for zeros in [false, true] {
            put_back(&saved, &data);
            let mut torn = log[..cut].to_vec();
            if zeros {
                // The file had its new length, the data did not reach the disk.
                torn.resize(log.len(), 0);
            }
            // A record may end in zeros itself.
            let same = torn.iter().zip(&log).take_while(|(a, b)| a == b).count();
            let whole = ends.iter().filter(|e| **e <= same).count();
            std::fs::write(segment(&data), torn).expect("the torn segment");
            broker.restart();
            let what = format!("cut at {cut}, zeros behind: {zeros}");
            holds(&broker, whole, &what);
            kcat(&broker, &format!("-P -t {TOPIC} -p 0 -X acks=all")).stdin(format!("{whole} again\n")).ok();
            holds(&broker, whole + 1, &what);
            broker.kill();
        }
    }
    println!("{} tears: every whole batch stayed, writing went on", (samples + 5) * 2);
}
