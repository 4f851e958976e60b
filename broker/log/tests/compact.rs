//! Compaction: the last value of each key stays readable through runs, restarts, crashes and transactions.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::*;
use klamm_log::faulty::{Fault, FaultyDisk, Op};
use klamm_log::{CompactionLimits, Disk, Log, LogConfig, LogError, RealDisk, Recovery};
use klamm_protocol::batch::{BatchBuilder, EndTxnMarker, RecordBatch, end_txn_marker};
use klamm_protocol::compress::Compression;
use proptest::prelude::*;

const LIMITS: CompactionLimits = CompactionLimits { keys: 10_000, max_decompressed: 1 << 20 };

fn config() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        segment_bytes: 2_000,
        index_interval_bytes: 200,
        delete_retention_ms: 100,
        min_cleanable_dirty_ratio: 0.0,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

fn open_log(disk: Arc<dyn Disk>, dir: &Path, clean: bool) -> Log {
    open_with(disk, dir, config(), Recovery { clean, ..Recovery::default() }).unwrap()
}

/// Keys and values (`None` for a tombstone) in one batch.
fn pairs(builder: BatchBuilder, pairs: &[(u32, Option<u32>)], time: i64) -> Bytes {
    let mut builder = builder;
    for (key, value) in pairs {
        let value = value.map(|v| format!("value-{v}-{}", "x".repeat(60)));
        let header = (Bytes::from_static(b"h"), Some(Bytes::from_static(b"twice")));
        builder
            .push(
                time,
                Some(format!("key-{key}").as_bytes()),
                value.as_ref().map(String::as_bytes),
                &[header.clone(), header],
            )
            .unwrap();
    }
    builder.build().unwrap()
}

/// Compacts once; returns the number of segments replaced.
fn compact(log: &mut Log, limits: CompactionLimits, now: i64) -> usize {
    let end = log.log_end_offset();
    log.on_high_watermark(end);
    log.flush(now).unwrap();
    match log.begin_compaction(end, now).unwrap() {
        None => 0,
        Some(work) => {
            let done = work.run(limits).unwrap();
            let replaced = log.finish_compaction(done, now).unwrap();
            log.delete_expired_files(i64::MAX).unwrap();
            replaced
        }
    }
}

type Records = Vec<(i64, String, Option<String>)>;

/// All records that a `read_committed` consumer sees.
fn committed(log: &mut Log) -> Records {
    let aborted = log.aborted_transactions(0, i64::MAX).unwrap();
    let mut seen = Vec::new();
    let start = log.log_start_offset();
    for (header, bytes) in read_all(log, start, 900) {
        let is_aborted = header.is_transactional()
            && aborted.iter().any(|a| {
                a.producer_id == header.producer_id && (a.first_offset..=a.last_offset).contains(&header.last_offset())
            });
        if header.is_control() || is_aborted {
            continue;
        }
        for record in RecordBatch::new(bytes).unwrap().records(1 << 20) {
            let record = record.unwrap();
            assert_eq!(record.headers.len(), 2);
            let text = |b: Bytes| String::from_utf8(b.to_vec()).unwrap();
            seen.push((record.offset, text(record.key.unwrap()), record.value.map(text)));
        }
    }
    seen
}

/// Last value by key; keys whose last record is a tombstone are left out.
fn table(records: &Records) -> BTreeMap<String, String> {
    let mut table = BTreeMap::new();
    for (_, key, value) in records {
        match value {
            Some(value) => table.insert(key.clone(), value.clone()),
            None => table.remove(key),
        };
    }
    table
}

#[test]
fn only_the_last_of_each_key_stays_where_it_was() {
    let tmp = tempfile::tempdir().unwrap();
    let mut log = open_log(RealDisk::shared(), &tmp.path().join("t-0"), false);
    for i in 0..200u32 {
        let codec = [Compression::None, Compression::Gzip, Compression::Lz4, Compression::Zstd][i as usize % 4];
        let batch = pairs(
            BatchBuilder::new(0).compression(codec, None),
            &[(i % 7, Some(i)), (i, Some(i)), (i % 3, Some(i + 1_000))],
            1_000,
        );
        log.append_as_leader(&batch, (i / 80) as i32, 0).unwrap();
    }
    let before = committed(&mut log);
    let size = log.size();
    let active = log.segment_sizes().last().unwrap().0;
    assert!(compact(&mut log, LIMITS, 0) > 5);
    assert_eq!(log.cleaned_to(), active);
    assert!(log.size() < size * 7 / 10, "{size} -> {}", log.size());
    let after = committed(&mut log);
    assert_eq!(table(&after), table(&before));
    assert!(after.iter().all(|r| before.contains(r)));
    let below: Vec<_> = after.iter().filter(|r| r.0 < active).collect();
    let keys: std::collections::BTreeSet<_> = below.iter().map(|r| &r.1).collect();
    assert_eq!(keys.len(), below.len());
    // Nothing more to do until there is more.
    assert_eq!(compact(&mut log, LIMITS, 0), 0);
    for clean in [true, false] {
        log.close(clean).unwrap();
        log = open_log(RealDisk::shared(), &tmp.path().join("t-0"), clean);
        assert_eq!(committed(&mut log), after);
        assert_eq!(log.log_end_offset(), 600);
    }
    // What one run made small the next one puts together.
    for i in 0..40 {
        log.append_as_leader(&pairs(BatchBuilder::new(0), &[(i % 3, Some(i))], 2_000), 3, 0).unwrap();
    }
    let grown = log.segment_count();
    assert!(compact(&mut log, LIMITS, 0) > 5);
    assert!(log.segment_count() < grown, "{grown} -> {}", log.segment_count());
    let after = committed(&mut log);
    for offset in 0..640 {
        let next = after.iter().find(|r| r.0 >= offset).unwrap().0;
        let result = log.read(offset, 1, 640, true).unwrap();
        assert!(result.first_offset <= next && result.next_offset > offset);
    }
}

#[test]
fn one_run_leaves_neither_empty_segments_nor_small_ones() {
    let tmp = tempfile::tempdir().unwrap();
    let mut log = open_log(RealDisk::shared(), &tmp.path().join("t-0"), false);
    // Segments whose keys are all written again later, between some whose keys are not.
    for i in 0..400u32 {
        let key = if (120..140).contains(&i) { 1_000 + i } else { i % 5 };
        log.append_as_leader(&pairs(BatchBuilder::new(0), &[(key, Some(i))], 5), 0, 0).unwrap();
    }
    let before = committed(&mut log);
    let segments = log.segment_count();
    assert!(segments > 20, "{segments}");
    assert!(compact(&mut log, LIMITS, 0) > 20);
    let after = committed(&mut log);
    assert_eq!(table(&after), table(&before));
    assert!(after.iter().all(|r| before.contains(r)));
    let sizes: Vec<_> = log.segment_sizes().collect();
    assert!(sizes.iter().all(|(_, size)| *size > 0 && *size <= 2_000), "{sizes:?}");
    for pair in sizes[..sizes.len() - 1].windows(2) {
        assert!(pair[0].1 + pair[1].1 > 2_000, "two that fit into one: {sizes:?}");
    }
    for clean in [true, false] {
        log.close(clean).unwrap();
        log = open_log(RealDisk::shared(), &tmp.path().join("t-0"), clean);
        assert_eq!(committed(&mut log), after);
        assert_eq!(log.segment_sizes().collect::<Vec<_>>(), sizes);
    }
    for offset in 0..400 {
        let next = after.iter().find(|r| r.0 >= offset).unwrap().0;
        assert!(log.read(offset, 1, 400, true).unwrap().first_offset <= next);
    }
}

#[test]
fn a_full_index_ends_a_joined_segment() {
    let tmp = tempfile::tempdir().unwrap();
    let mut log = open_log(RealDisk::shared(), &tmp.path().join("t-0"), false);
    for i in 0..200u32 {
        log.append_as_leader(&pairs(BatchBuilder::new(0), &[(i, Some(i))], i64::from(i)), 0, 0).unwrap();
    }
    let count = log.segment_count();
    log.set_config(LogConfig { segment_bytes: 1 << 20, segment_index_bytes: 200, ..config() });
    assert!(compact(&mut log, LIMITS, 0) > 5);
    let now = log.segment_count();
    assert!(now > 3 && now < count, "{count} -> {now}");
    assert_eq!(committed(&mut log).len(), 200);
}

#[test]
fn tombstones_go_after_their_retention_and_not_before() {
    let tmp = tempfile::tempdir().unwrap();
    let mut log = open_log(RealDisk::shared(), &tmp.path().join("t-0"), false);
    let mut time = 0;
    let mut more = |log: &mut Log| {
        time += 1;
        for i in 0..60 {
            log.append_as_leader(&pairs(BatchBuilder::new(0), &[(100 + i, Some(time))], 5), 0, 0).unwrap();
        }
    };
    log.append_as_leader(&pairs(BatchBuilder::new(0), &[(1, Some(1)), (2, Some(2))], 5), 0, 0).unwrap();
    log.append_as_leader(&pairs(BatchBuilder::new(0), &[(1, None)], 5), 0, 0).unwrap();
    let is_there = |log: &mut Log| committed(log).iter().any(|r| r.1 == "key-1" && r.2.is_none());
    for (now, there) in [(0, true), (50, true), (99, true), (101, false)] {
        more(&mut log);
        assert!(compact(&mut log, LIMITS, now) > 0);
        assert_eq!(is_there(&mut log), there, "at {now}");
        assert_eq!(table(&committed(&mut log)).get("key-1"), None);
        assert!(table(&committed(&mut log)).contains_key("key-2"));
    }
}

#[test]
fn more_keys_than_fit_take_several_runs() {
    let tmp = tempfile::tempdir().unwrap();
    let mut log = open_log(RealDisk::shared(), &tmp.path().join("t-0"), false);
    for i in 0..200 {
        log.append_as_leader(&pairs(BatchBuilder::new(0), &[(i % 50, Some(i))], 5), 0, 0).unwrap();
    }
    let before = table(&committed(&mut log));
    let few = CompactionLimits { keys: 15, ..LIMITS };
    let mut runs = 0;
    while compact(&mut log, few, 0) > 0 {
        runs += 1;
        assert_eq!(table(&committed(&mut log)), before);
        assert!(runs < 50);
    }
    assert!(runs > 3, "{runs}");
    assert!(committed(&mut log).len() < 120);
}

#[test]
fn sequence_numbers_survive() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let mut log = open_log(RealDisk::shared(), &dir, false);
    let of = |producer, sequence| pairs(BatchBuilder::new(0).producer(producer, 0, sequence), &[(1, Some(1))], 5);
    for i in 0..30 {
        log.append_as_leader(&of(1, i), 0, 0).unwrap();
    }
    for i in 0..60 {
        log.append_as_leader(&of(2, i), 0, 0).unwrap();
    }
    assert!(compact(&mut log, LIMITS, 0) > 0);
    log.close(false).unwrap();
    // Without snapshots all is read from what compaction left.
    for name in files(&dir).iter().filter(|n| n.ends_with(".snapshot")) {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    let mut log = open_log(RealDisk::shared(), &dir, false);
    assert!(log.append_as_leader(&of(1, 29), 0, 0).unwrap().duplicate);
    assert!(log.append_as_leader(&of(1, 31), 0, 0).is_err());
    assert!(!log.append_as_leader(&of(1, 30), 0, 0).unwrap().duplicate);
    assert!(!log.append_as_leader(&of(2, 60), 0, 0).unwrap().duplicate);
}

#[test]
fn truncation_and_retention_meanwhile_throw_the_work_away() {
    let tmp = tempfile::tempdir().unwrap();
    let mut log = open_log(RealDisk::shared(), &tmp.path().join("t-0"), false);
    for i in 0..100 {
        log.append_as_leader(&pairs(BatchBuilder::new(0), &[(i % 5, Some(i))], 5), 0, 0).unwrap();
    }
    log.flush(0).unwrap();
    let done = log.begin_compaction(100, 0).unwrap().unwrap().run(LIMITS).unwrap();
    log.truncate_to(40, 0).unwrap();
    assert_eq!(log.finish_compaction(done, 0).unwrap(), 0);
    assert_eq!(committed(&mut log).len(), 40);
    let done = log.begin_compaction(40, 0).unwrap().unwrap().run(LIMITS).unwrap();
    log.delete_records(20, 0).unwrap();
    log.finish_compaction(done, 0).unwrap();
    assert_eq!(log.log_start_offset(), 20);
    let left = table(&committed(&mut log));
    assert_eq!(left.len(), 5);
    assert!((35..40).all(|v| left[&format!("key-{}", v % 5)].starts_with(&format!("value-{v}-"))));
}

#[test]
fn nothing_beyond_the_stable_offset_or_too_young_is_touched() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let mut log = open_log(RealDisk::shared(), &dir, false);
    let txn = pairs(BatchBuilder::new(0).producer(9, 0, 0).transactional(), &[(1, Some(1))], 5);
    log.append_as_leader(&txn, 0, 0).unwrap();
    for i in 0..100 {
        log.append_as_leader(&pairs(BatchBuilder::new(0), &[(i % 5, Some(i))], 5), 0, 0).unwrap();
    }
    log.flush(0).unwrap();
    assert!(log.begin_compaction(101, 0).unwrap().is_none());
    let mut log = open_log(RealDisk::shared(), &tmp.path().join("t-1"), false);
    log.set_config(LogConfig { min_compaction_lag_ms: 50, ..config() });
    for i in 0..100 {
        log.append_as_leader(&pairs(BatchBuilder::new(0), &[(i % 5, Some(i))], i64::from(i)), 0, 0).unwrap();
    }
    assert!(log.begin_compaction(100, 120).unwrap().is_none());
    log.flush(0).unwrap();
    assert!(log.begin_compaction(100, 60).unwrap().is_none());
    assert!(log.begin_compaction(0, 1_000).unwrap().is_none());
    let (first, end) = log.begin_compaction(100, 120).unwrap().unwrap().range();
    assert!(first == 0 && end > 0 && end <= 71, "{end}");
    log.set_config(LogConfig { min_cleanable_dirty_ratio: 0.9, ..config() });
    assert!(log.begin_compaction(100, 60).unwrap().is_some());
    log.set_cleaned_to(60);
    assert!(log.begin_compaction(100, 60).unwrap().is_none());
    log.set_config(LogConfig { min_cleanable_dirty_ratio: 0.9, max_compaction_lag_ms: 10, ..config() });
    assert!(log.begin_compaction(100, 120).unwrap().is_some());
}

#[test]
fn a_crash_at_every_step_of_a_compaction_loses_no_key() {
    let run = |disk: &FaultyDisk, dir: &Path, stop: Option<u64>| {
        let mut log = open_log(Arc::new(disk.clone()), dir, false);
        for i in 0..70u32 {
            let batch = pairs(BatchBuilder::new(0).producer(1, 0, i as i32), &[(i % 20, Some(i))], 5);
            log.append_as_leader(&batch, 0, 0).unwrap();
        }
        log.flush(0).unwrap();
        let before = table(&committed(&mut log));
        let changes = disk.changes();
        if let Some(stop) = stop {
            disk.stop_after(stop);
        }
        let outcome = log
            .begin_compaction(70, 0)
            .and_then(|work| work.unwrap().run(LIMITS))
            .and_then(|done| log.finish_compaction(done, 0));
        assert_eq!(outcome.is_ok(), stop.is_none_or(|s| s >= disk.changes() - changes), "{outcome:?}");
        (before, disk.changes() - changes)
    };
    let tmp = tempfile::tempdir().unwrap();
    let (_, total) = run(&FaultyDisk::new(), &tmp.path().join("t-0"), None);
    assert!(total > 20, "{total}");
    for stop in 0..total {
        for power in [false, true] {
            let tmp = tempfile::tempdir().unwrap();
            let dir = tmp.path().join("t-0");
            let disk = FaultyDisk::new();
            let (before, _) = run(&disk, &dir, Some(stop));
            disk.heal();
            if power {
                disk.power_loss(stop, true).unwrap();
            }
            let mut log = open_log(Arc::new(disk.clone()), &dir, false);
            assert_eq!(table(&committed(&mut log)), before, "stop {stop}");
            assert_eq!(log.log_end_offset(), 70);
            assert!(!files(&dir).iter().any(|n| n == "compact" || n.contains("swap")));
            compact(&mut log, LIMITS, 0);
            assert_eq!(table(&committed(&mut log)), before, "stop {stop}");
        }
    }
    println!("compaction stopped at each of {total} steps, no key lost");
}

#[test]
fn a_full_disk_stops_a_compaction_and_nothing_else() {
    let mut met = 0;
    for step in 0..40 {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("t-0");
        let disk = FaultyDisk::new();
        let mut log = open_log(Arc::new(disk.clone()), &dir, false);
        for i in 0..70u32 {
            log.append_as_leader(&pairs(BatchBuilder::new(0), &[(i % 20, Some(i))], 5), 0, 0).unwrap();
        }
        log.flush(0).unwrap();
        let before = table(&committed(&mut log));
        disk.fail(Op::Write, step, Fault::FullAfter(30));
        match log.begin_compaction(70, 0).unwrap().unwrap().run(LIMITS) {
            Err(LogError::DiskFull { .. }) => met += 1,
            Err(e) => panic!("step {step}: {e}"),
            Ok(done) => assert!(log.finish_compaction(done, 0).unwrap() > 0),
        }
        disk.heal();
        assert_eq!(table(&committed(&mut log)), before);
        log.append_as_leader(&pairs(BatchBuilder::new(0), &[(1, Some(1))], 5), 0, 0).unwrap();
        compact(&mut log, LIMITS, 0);
        assert_eq!(table(&committed(&mut log)).len(), before.len());
    }
    assert!(met > 5, "{met}");
}

#[derive(Debug, Clone)]
enum Step {
    Plain(Vec<(u32, Option<u32>)>),
    Txn { producer: i64, pairs: Vec<(u32, Option<u32>)> },
    End { producer: i64, commit: bool },
    Compact,
    Reopen { clean: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let pair = || (0u32..12, prop::option::weighted(0.8, 0u32..1_000));
    let some = || prop::collection::vec(pair(), 1..5);
    prop_oneof![
        10 => some().prop_map(Step::Plain),
        6 => (0i64..3, some()).prop_map(|(producer, pairs)| Step::Txn { producer, pairs }),
        4 => (0i64..3, any::<bool>()).prop_map(|(producer, commit)| Step::End { producer, commit }),
        2 => Just(Step::Compact),
        1 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("KLAMM_LONG").is_some() { 2_000 } else { 80 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_table_never_changes(steps in prop::collection::vec(step(), 1..150)) {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("t-0");
        let mut log = open_log(RealDisk::shared(), &dir, false);
        let mut sequences = [0i32; 3];
        let mut is_open = [false; 3];
        let mut now = 0;
        for step in steps {
            now += 30;
            match step {
                Step::Plain(list) => {
                    log.append_as_leader(&pairs(BatchBuilder::new(0), &list, now), 0, now).unwrap();
                }
                Step::Txn { producer, pairs: list } => {
                    let sequence = &mut sequences[producer as usize];
                    let builder = BatchBuilder::new(0).producer(producer, 0, *sequence).transactional();
                    *sequence += list.len() as i32;
                    is_open[producer as usize] = true;
                    log.append_as_leader(&pairs(builder, &list, now), 0, now).unwrap();
                }
                Step::End { producer, commit } => {
                    is_open[producer as usize] = false;
                    // As a coordinator, which bumps the epoch only with transaction version 2.
                    let marker = EndTxnMarker { commit, coordinator_epoch: 0 };
                    sequences[producer as usize] = sequences[producer as usize].max(0);
                    log.append_as_coordinator(&end_txn_marker(0, 0, now, (producer, 0), marker).unwrap(), 0, now).unwrap();
                }
                Step::Compact => {
                    let before = table(&committed(&mut log));
                    compact(&mut log, LIMITS, now);
                    prop_assert_eq!(table(&committed(&mut log)), before);
                }
                Step::Reopen { clean } => {
                    let before = committed(&mut log);
                    let end = log.log_end_offset();
                    log.close(clean).unwrap();
                    log = open_log(RealDisk::shared(), &dir, clean);
                    prop_assert_eq!(log.log_end_offset(), end);
                    prop_assert_eq!(committed(&mut log), before);
                    let open = log.producers().ongoing().count();
                    prop_assert_eq!(open, is_open.iter().filter(|o| **o).count());
                }
            }
        }
    }
}
