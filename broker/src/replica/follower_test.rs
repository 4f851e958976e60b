//! Answers of a leader, right and wrong ones, against a real log.

use klamm_log::{LogConfig, RealDisk, Recovery};
use klamm_protocol::Uuid;
use klamm_protocol::batch::BatchBuilder;

use super::*;

fn log() -> (tempfile::TempDir, Log) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    std::fs::create_dir(&path).unwrap();
    let log = Log::open(RealDisk::shared(), &path, Uuid([1; 16]), LogConfig::default(), Recovery::default(), 0);
    (dir, log.unwrap())
}

/// A batch of two records as the leader of `epoch` has it at `offset`.
fn batch(offset: i64, epoch: i32) -> Bytes {
    let mut builder = BatchBuilder::new(0);
    for _ in 0..2 {
        builder.push(0, None, Some(b"v"), &[]).unwrap();
    }
    let mut bytes = builder.build().unwrap().to_vec();
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
    bytes.into()
}

fn give(log: &mut Log, records: &[Bytes], high_watermark: i64) -> Result<(Outcome, i64), Unusable> {
    let fetched = Fetched { records: records.concat().into(), high_watermark, ..Fetched::default() };
    take(log, position(log), &fetched, 0, 0)
}

fn diverge(log: &mut Log, epoch: i32, end: i64) -> Result<(Outcome, i64), Unusable> {
    let fetched = Fetched { diverging: Some((epoch, end)), ..Fetched::default() };
    take(log, position(log), &fetched, 0, 0)
}

#[test]
fn what_comes_is_appended_and_the_high_watermark_follows_as_far_as_the_log_goes() {
    let (_dir, mut log) = log();
    let (outcome, high_watermark) = give(&mut log, &[batch(0, 1), batch(2, 1)], 3).unwrap();
    assert!(matches!(outcome, Outcome::Appended(bytes) if bytes > 0));
    assert_eq!((log.log_end_offset(), high_watermark), (4, 3));
    assert_eq!(give(&mut log, &[batch(4, 2)], 100).unwrap().1, 6);
    assert_eq!(position(&log), Position { fetch_offset: 6, last_fetched_epoch: 2, log_start: 0 });
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let (_dir, mut log) = log();
    give(&mut log, &[batch(0, 5), batch(2, 5)], 0).unwrap();
    let refused = |result: Result<(Outcome, i64), Unusable>| assert!(result.is_err(), "{result:?}");
    refused(give(&mut log, &[batch(2, 5)], 0));
    refused(give(&mut log, &[batch(4, 5), batch(5, 5)], 0));
    refused(give(&mut log, &[batch(4, 4)], 0));
    let mut torn = batch(4, 5).to_vec();
    *torn.last_mut().unwrap() ^= 1;
    refused(give(&mut log, &[torn.into()], 0));
    assert_eq!(log.log_end_offset(), 4, "nothing of it was kept");
    // An answer that was asked for before the log moved.
    let late = Position { fetch_offset: 2, ..position(&log) };
    refused(take(&mut log, late, &Fetched { records: batch(2, 5), ..Fetched::default() }, 0, 0));
    // Nothing to cut: the next fetch would be answered the same, for ever.
    refused(diverge(&mut log, 5, 10));
}

#[test]
fn logs_that_differ_are_cut_to_what_they_share() {
    let (_dir, mut log) = log();
    give(&mut log, &[batch(0, 1), batch(2, 3), batch(4, 3)], 0).unwrap();
    // The leader has epoch 3 as well, but less of it.
    assert_eq!(diverge(&mut log, 3, 4).unwrap().0, Outcome::Truncated(4));
    // It has epoch 2 where we have 3.
    assert_eq!(diverge(&mut log, 2, 8).unwrap().0, Outcome::Truncated(2));
    assert_eq!(position(&log).last_fetched_epoch, 1);
    // Of what is below the log's start it knows nothing.
    assert_eq!(diverge(&mut log, -1, -1).unwrap().0, Outcome::Truncated(0));
}

#[test]
fn a_leader_that_wrote_nothing_follows_as_if_it_had_not_led() {
    let (_dir, mut log) = log();
    give(&mut log, &[batch(0, 6), batch(2, 6)], 0).unwrap();
    log.assign_epoch(7).unwrap();
    assert_eq!(position(&log).last_fetched_epoch, 6);
    log.drop_empty_epochs();
    // The leader of epoch 8 has more of epoch 6 than we.
    give(&mut log, &[batch(4, 6), batch(6, 8)], 0).unwrap();
    assert_eq!(log.epoch_end_offset(5).map(|(_, end)| end), Some(0), "epoch 6 begins where it began");
    assert_eq!(log.epoch_end_offset(6), Some((6, 6)));
    assert_eq!(log.epoch_end_offset(7), Some((6, 6)));
}

#[test]
fn a_log_too_far_back_begins_anew_also_inside_a_batch() {
    let (_dir, mut log) = log();
    give(&mut log, &[batch(0, 1)], 0).unwrap();
    assert!(!out_of_range(&mut log, 1, 0).unwrap(), "still in reach");
    assert!(out_of_range(&mut log, 11, 0).unwrap());
    assert_eq!(position(&log), Position { fetch_offset: 11, last_fetched_epoch: -1, log_start: 11 });
    // The leader's log starts inside this batch.
    let fetched = Fetched { records: batch(10, 4), high_watermark: 12, log_start: 11, diverging: None };
    let asked = position(&log);
    take(&mut log, asked, &fetched, 11, 0).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (11, 12));
}

#[test]
fn records_that_the_leader_let_go_of_go_here_too() {
    let (_dir, mut log) = log();
    let records = [batch(0, 1), batch(2, 1)].concat().into();
    let fetched = Fetched { records, high_watermark: 1, log_start: 3, diverging: None };
    let asked = position(&log);
    let (_, high_watermark) = take(&mut log, asked, &fetched, 0, 0).unwrap();
    assert_eq!((log.log_start_offset(), high_watermark), (3, 3));
}
