//! Random histories against a plain list of batches: whatever is done in whatever order, the log and the list agree.

mod common;

use std::path::Path;

use common::*;
use klamm_log::{Log, LogConfig, LogError, RealDisk, Recovery};
use klamm_protocol::batch::{BatchBuilder, batches};
use klamm_protocol::compress::Limits;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Append {
        count: usize,
        len: usize,
        time: i64,
    },
    AppendTwo {
        count: usize,
    },
    /// As a follower, after a gap such as compaction leaves.
    AppendAfterGap {
        gap: i64,
        count: usize,
    },
    NextEpoch,
    Roll,
    /// Parts of a thousand of what is there.
    Truncate(i64),
    DeleteRecords(i64),
    Retain {
        bytes: i64,
    },
    StartOver {
        skip: i64,
    },
    CloseIdle,
    Flush,
    Reopen {
        clean: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (1usize..6, 0usize..700, 0i64..3_000).prop_map(|(count, len, time)| Step::Append { count, len, time }),
        3 => (1usize..4).prop_map(|count| Step::AppendTwo { count }),
        2 => (1i64..500, 1usize..4).prop_map(|(gap, count)| Step::AppendAfterGap { gap, count }),
        2 => Just(Step::NextEpoch),
        2 => Just(Step::Roll),
        2 => (0i64..1_000).prop_map(Step::Truncate),
        1 => (0i64..1_001).prop_map(Step::DeleteRecords),
        1 => (0i64..20_000).prop_map(|bytes| Step::Retain { bytes }),
        1 => (0i64..100).prop_map(|skip| Step::StartOver { skip }),
        2 => Just(Step::CloseIdle),
        2 => Just(Step::Flush),
        4 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Batch {
    base: i64,
    last: i64,
    /// Timestamp of the first record; the others follow by one.
    time: i64,
    epoch: i32,
}

#[derive(Debug, Default)]
struct Model {
    batches: Vec<Batch>,
    start: i64,
    end: i64,
    epoch: i32,
}

impl Model {
    fn push(&mut self, base: i64, count: usize, time: i64) {
        let last = base + count as i64 - 1;
        self.batches.push(Batch { base, last, time, epoch: self.epoch });
        self.end = last + 1;
    }

    fn part(&self, thousandth: i64) -> i64 {
        self.start + (self.end - self.start) * thousandth / 1_000
    }

    fn records(&self) -> impl Iterator<Item = (i64, i64)> {
        let start = self.start;
        self.batches
            .iter()
            .flat_map(|b| (b.base..=b.last).map(|o| (o, b.time + o - b.base)))
            .filter(move |r| r.0 >= start)
    }
}

fn config() -> LogConfig {
    LogConfig { file_delete_delay_ms: 5, ..small() }
}

fn run(dir: &Path, steps: Vec<Step>) {
    let path = dir.join("t-0");
    let mut log = open(&path, config());
    let mut model = Model::default();
    let mut now = 0;
    for step in steps {
        now += 1;
        match step.clone() {
            Step::Append { count, len, time } => {
                let done = log.append_as_leader(&batch(count, len, time), model.epoch, now).unwrap();
                assert_eq!(done.base_offset, model.end);
                model.push(model.end, count, time);
                assert_eq!(done.last_offset, model.end - 1);
            }
            Step::AppendTwo { count } => {
                let two = [batch(count, 10, 5), batch(1, 10, 9)].concat();
                log.append_as_leader(&two.into(), model.epoch, now).unwrap();
                model.push(model.end, count, 5);
                model.push(model.end, 1, 9);
            }
            Step::AppendAfterGap { gap, count } => {
                let base = model.end + gap;
                let records = build(BatchBuilder::new(base).leader_epoch(model.epoch), count, 30, now);
                log.append_as_follower(&records, now).unwrap();
                model.push(base, count, now);
            }
            Step::NextEpoch => {
                model.epoch += 1;
                log.assign_epoch(model.epoch).unwrap();
            }
            Step::Roll => {
                log.roll(now).unwrap();
            }
            Step::Truncate(part) => {
                let to = model.part(part);
                log.truncate_to(to, now).unwrap();
                model.batches.retain(|b| b.last < to);
                // Between the last batch left and the offset there may be a gap; the log may end anywhere in it.
                let end = log.log_end_offset();
                assert!(end <= model.end && end <= to.max(model.start));
                assert!(model.batches.last().is_none_or(|b| end > b.last), "{end} {model:?}");
                model.end = end;
                model.start = model.start.min(end);
            }
            Step::DeleteRecords(part) => {
                let to = model.part(part);
                model.start = model.start.max(to);
                assert_eq!(log.delete_records(to, now).unwrap(), model.start);
            }
            Step::Retain { bytes } => {
                log.set_config(LogConfig { retention_bytes: bytes, ..config() });
                log.apply_retention(now, model.end).unwrap();
                log.set_config(config());
                log.delete_expired_files(now).unwrap();
                assert!(log.log_start_offset() >= model.start);
                model.start = log.log_start_offset();
            }
            Step::StartOver { skip } => {
                let to = model.end + skip;
                log.truncate_fully_and_start_at(to, now).unwrap();
                model.batches.clear();
                (model.start, model.end) = (to, to);
            }
            Step::CloseIdle => log.close_idle_files().unwrap(),
            Step::Flush => log.flush(now).unwrap(),
            Step::Reopen { clean } => {
                let recovery = Recovery {
                    clean,
                    recovery_point: log.recovery_point(),
                    log_start_offset: model.start,
                    ..Recovery::default()
                };
                log.close(clean).unwrap();
                log = open_with(RealDisk::shared(), &path, config(), recovery).unwrap();
                assert_eq!(log.recovery_report().lost_from, None);
                assert_eq!(log.recovery_report().cut_bytes, 0);
            }
        }
        check(&mut log, &model, &step);
    }
}

fn check(log: &mut Log, model: &Model, step: &Step) {
    assert_eq!(log.log_start_offset(), model.start, "{step:?}");
    assert_eq!(log.log_end_offset(), model.end, "{step:?}");
    let (start, end) = (model.start, model.end);
    let found: Vec<(i64, i64)> = records(log, start).into_iter().filter(|r| r.0 >= start).collect();
    assert_eq!(found, model.records().collect::<Vec<_>>(), "{step:?}");
    for offset in [start, start + (end - start) / 3, (start + end) / 2, end - 1] {
        if offset < start || offset >= end {
            continue;
        }
        let first = model.batches.iter().find(|b| b.last >= offset);
        let result = log.read(offset, 1, end, true).unwrap();
        let bytes = bytes_of(&result);
        let found = batches(&bytes).next().map(|b| b.unwrap().0.base_offset);
        assert_eq!(found, first.map(|b| b.base), "{step:?} at {offset}");
        // A bound is kept to the batch.
        let bound = (offset + end) / 2;
        let below = log.read(offset, usize::MAX, bound, true).unwrap();
        assert!(below.range.is_none() || below.next_offset <= bound.max(offset), "{step:?} at {offset}, {below:?}");
        let time = first.map_or(0, |b| b.time);
        let expected = model.records().find(|r| r.1 >= time);
        let by_time = log.offset_for_timestamp(time, Limits::both(1 << 20)).unwrap();
        assert_eq!(by_time.map(|f| (f.offset, f.timestamp)), expected, "{step:?} time {time}");
    }
    for b in &model.batches {
        if b.base >= start {
            assert_eq!(log.epochs().at_offset(b.base), Some(b.epoch), "{step:?} {b:?} {:?}", log.epochs());
        }
    }
    assert!(matches!(log.read(end + 1, 1, end, true), Err(LogError::OffsetOutOfRange { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("KLAMM_LONG").is_some() { 3_000 } else { 150 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn log_and_model_agree(steps in prop::collection::vec(step(), 1..60)) {
        let tmp = tempfile::tempdir().unwrap();
        run(tmp.path(), steps);
    }
}
