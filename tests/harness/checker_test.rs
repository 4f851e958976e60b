//! Plants each anomaly in a good history and sees it found, and nothing else with it where that can be.

use super::*;
use crate::history::{CommitLook, Seen, Send};

fn value(number: u32) -> Value {
    Value { producer: 1, number }
}

fn seen(offset: i64, number: u32) -> Seen {
    Seen { offset, value: value(number), epoch: 4 }
}

/// Five records of one producer in one partition, acknowledged by broker 2, read by everybody.
fn good() -> History {
    let log: Vec<Seen> = (0..5).map(|n| seen(i64::from(n), n)).collect();
    let send = |s: &Seen| Send {
        value: s.value,
        partition: 0,
        outcome: Outcome::Acked { offset: s.offset, leader: 2 },
        sent_ms: 0,
        done_ms: s.offset as u32 * 10,
    };
    let reader = |name: &str, seen: &[Seen]| {
        let mut reader = Reader::new(name);
        seen.iter().for_each(|s| reader.saw(0, *s));
        reader
    };
    History {
        topic: "t".into(),
        sends: log.iter().map(send).collect(),
        readers: vec![reader("reader", &log)],
        members: vec![reader("first", &log[..3]), reader("second", &log[2..])],
        commits: vec![CommitLook { partition: 0, promised: 3, found: 4 }],
        watermarks: vec![BTreeMap::from([(0, vec![0, 3, 3, 5])])],
        log: BTreeMap::from([(0, log)]),
    }
}

#[track_caller]
fn finds(history: &History, wanted: &[Anomaly]) {
    let report = check(history);
    let found: Vec<Anomaly> = report.found.keys().copied().collect();
    assert_eq!(found, wanted, "{report}");
}

fn without(history: &mut History, offset: i64) {
    history.log.get_mut(&0).expect("the log").retain(|s| s.offset != offset);
}

fn reads(history: &mut History) -> &mut Vec<Seen> {
    &mut history.readers[0].stretches.get_mut(&0).expect("the partition")[0]
}

#[test]
fn a_good_history_passes() {
    finds(&good(), &[]);
    assert_eq!(good().gaps(0), BTreeMap::from([(0, 10)]));
}

#[test]
fn what_was_not_acknowledged_may_be_there_or_not() {
    let mut history = good();
    history.sends[4].outcome = Outcome::Unknown;
    finds(&history, &[]);
    without(&mut history, 4);
    reads(&mut history).pop();
    history.members[1].stretches.get_mut(&0).expect("the partition")[0].pop();
    finds(&history, &[]);
}

#[test]
fn a_lost_write_is_found() {
    let mut history = good();
    without(&mut history, 4);
    // Somebody has read it, so that its offset is inconsistent, too.
    finds(&history, &[Anomaly::LostWrite, Anomaly::InconsistentOffsets]);
}

#[test]
fn an_unseen_record_is_found() {
    let mut history = good();
    reads(&mut history).pop();
    finds(&history, &[Anomaly::Unseen]);
    let mut history = good();
    history.members[1].stretches.get_mut(&0).expect("the partition")[0].pop();
    finds(&history, &[Anomaly::Unseen]);
}

#[test]
fn a_duplicate_is_found() {
    let mut history = good();
    history.log.get_mut(&0).expect("the log").push(seen(5, 4));
    reads(&mut history).push(seen(5, 4));
    let report = check(&history);
    assert_eq!(report.found.get(&Anomaly::Duplicate), Some(&1), "{report}");
}

#[test]
fn another_offset_than_acknowledged_is_found() {
    let mut history = good();
    history.sends[4].outcome = Outcome::Acked { offset: 9, leader: 2 };
    finds(&history, &[Anomaly::InconsistentOffsets]);
    // A retried batch whose place the broker has forgotten is none.
    history.sends[4].outcome = Outcome::Acked { offset: -1, leader: 2 };
    finds(&history, &[]);
    let mut history = good();
    reads(&mut history)[2].value = value(3);
    finds(&history, &[Anomaly::Unseen, Anomaly::InconsistentOffsets]);
}

#[test]
fn a_reordered_send_is_found() {
    let mut history = good();
    let log = history.log.get_mut(&0).expect("the log");
    (log[1].value, log[2].value) = (value(2), value(1));
    history.sends[1].outcome = Outcome::Acked { offset: 2, leader: 2 };
    history.sends[2].outcome = Outcome::Acked { offset: 1, leader: 2 };
    history.readers.clear();
    history.members.clear();
    finds(&history, &[Anomaly::NonmonotonicSend]);
}

#[test]
fn a_position_that_goes_back_is_found_but_not_after_a_rebalance() {
    let mut history = good();
    reads(&mut history).push(seen(3, 3));
    finds(&history, &[Anomaly::NonmonotonicPoll]);
    let mut history = good();
    history.readers[0].moved();
    history.readers[0].saw(0, seen(3, 3));
    finds(&history, &[]);
}

#[test]
fn a_skipped_record_is_found_but_a_gap_in_the_offsets_is_none() {
    let mut history = good();
    reads(&mut history).remove(2);
    finds(&history, &[Anomaly::Unseen, Anomaly::PollSkip]);
    let mut history = good();
    history.sends.remove(2);
    without(&mut history, 2);
    reads(&mut history).remove(2);
    history.members.clear();
    finds(&history, &[]);
}

#[test]
fn a_refused_record_and_one_that_nobody_sent_are_found() {
    let mut history = good();
    history.sends[2].outcome = Outcome::Failed;
    finds(&history, &[Anomaly::FailedRead]);
    history.sends.remove(2);
    finds(&history, &[Anomaly::Phantom]);
}

#[test]
fn a_watermark_or_a_commit_that_goes_back_is_found() {
    let mut history = good();
    history.watermarks[0].get_mut(&0).expect("the series").push(4);
    finds(&history, &[Anomaly::WatermarkBack]);
    let mut history = good();
    history.commits.push(CommitLook { partition: 0, promised: 4, found: 3 });
    finds(&history, &[Anomaly::CommitBack]);
}

#[test]
fn two_leaders_of_one_epoch_are_found() {
    let mut history = good();
    history.sends[3].outcome = Outcome::Acked { offset: 3, leader: 0 };
    finds(&history, &[Anomaly::TwoLeaders]);
    history.log.get_mut(&0).expect("the log")[3].epoch = 5;
    finds(&history, &[]);
    // A repeated batch is acknowledged by the next leader.
    let mut history = good();
    history.sends[1].outcome = Outcome::Acked { offset: 1, leader: 0 };
    history.sends[1].done_ms = 1000;
    finds(&history, &[]);
}

/// A batch with `last - base + 1` records and this byte as its contents.
fn batch(base: i64, last: i64, byte: u8) -> Vec<u8> {
    let mut batch = vec![byte; 80];
    batch[..8].copy_from_slice(&base.to_be_bytes());
    batch[8..12].copy_from_slice(&68u32.to_be_bytes());
    batch[23..27].copy_from_slice(&((last - base) as u32).to_be_bytes());
    batch
}

#[test]
fn replicas_that_differ_below_the_high_watermark_are_found() {
    let log = |third: u8| [batch(0, 1, 1), batch(2, 2, 2), batch(3, 5, third)].concat();
    let compared = |high_watermark, logs: [Vec<u8>; 2]| {
        let mut report = Report::default();
        replicas("t-0", high_watermark, &logs.into_iter().enumerate().collect::<Vec<_>>(), &mut report);
        report.found.get(&Anomaly::ReplicasDiffer).copied().unwrap_or(0)
    };
    assert_eq!(compared(6, [log(3), log(3)]), 0);
    assert_eq!(compared(6, [log(3), log(4)]), 1);
    // Above the high watermark a former leader may hold what nobody was told about.
    assert_eq!(compared(3, [log(3), log(4)]), 0);
    assert_eq!(compared(3, [log(3), log(3)[..160].to_vec()]), 0);
    assert_eq!(compared(6, [log(3), log(3)[..160].to_vec()]), 1);
}
