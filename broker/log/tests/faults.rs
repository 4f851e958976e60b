//! Disks that fail: full at any write, short writes, failing fsyncs, crashes at every step, power loss.

mod common;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use common::*;
use klamm_log::faulty::{Fault, FaultyDisk, Op};
use klamm_log::{Log, LogConfig, LogError, Recovery};

fn open_on(disk: &FaultyDisk, dir: &Path, recovery: Recovery) -> Result<Log, LogError> {
    open_with(Arc::new(disk.clone()), dir, small(), recovery)
}

#[test]
fn a_disk_full_at_any_write_step_costs_only_that_append() {
    let mut met = 0;
    for step in 0..60 {
        for fault in [Fault::FullAfter(0), Fault::FullAfter(17), Fault::FullAfter(100), Fault::Short(23)] {
            let tmp = tempfile::tempdir().unwrap();
            let dir = tmp.path().join("t-0");
            let disk = FaultyDisk::new();
            let mut log = open_on(&disk, &dir, Recovery::default()).unwrap();
            let mut next = 0;
            disk.fail(Op::Write, step, fault);
            for i in 0..70 {
                let before = (log.log_end_offset(), log.size());
                match log.append_as_leader(&batch_of(1, 0, next, 2, i64::from(next)), i / 40, 0) {
                    Ok(a) => {
                        assert_eq!((a.base_offset, a.duplicate), (i64::from(next), false));
                        next += 2;
                    }
                    Err(LogError::DiskFull { .. }) => {
                        met += 1;
                        assert_eq!((log.log_end_offset(), log.size()), before);
                        assert_eq!(records(&mut log, 0).len() as i64, before.0);
                        disk.heal();
                    }
                    Err(e) => panic!("step {step}, {fault:?}: {e}"),
                }
            }
            assert!(next >= 138, "step {step}: {next}");
            assert_eq!(records(&mut log, 0).len() as i32, next);
            log.close(true).unwrap();
            for clean in [true, false] {
                let mut log = open_on(&disk, &dir, Recovery { clean, ..Recovery::default() }).unwrap();
                assert_eq!(records(&mut log, 0).len() as i32, next);
                assert_eq!(log.recovery_report().cut_bytes, 0);
            }
        }
    }
    println!("{met} appends met a full disk, none left a trace");
    assert!(met > 100);
}

#[test]
fn a_disk_that_stays_full_keeps_refusing_and_reading() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let disk = FaultyDisk::new();
    let mut log = open_on(&disk, &dir, Recovery::default()).unwrap();
    for i in 0..30 {
        log.append_as_leader(&batch(2, 100, i), 0, 0).unwrap();
    }
    disk.fail(Op::Write, 0, Fault::FullAfter(50));
    for _ in 0..20 {
        assert!(matches!(log.append_as_leader(&batch(2, 100, 0), 0, 0), Err(LogError::DiskFull { .. })));
        // Also when a new segment would be due.
        log.roll(0).ok();
        assert_eq!(records(&mut log, 0).len(), 60);
    }
    disk.heal();
    assert_eq!(log.append_as_leader(&batch(2, 100, 0), 0, 0).unwrap().base_offset, 60);
    drop(log);
    let mut log = open_on(&disk, &dir, Recovery::default()).unwrap();
    assert_eq!(records(&mut log, 0).len(), 62);
}

#[test]
fn a_write_that_cannot_be_undone_takes_the_log_offline() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let disk = FaultyDisk::new();
    let mut log = open_on(&disk, &dir, Recovery::default()).unwrap();
    log.append_as_leader(&batch(2, 100, 0), 0, 0).unwrap();
    disk.fail(Op::Write, 0, Fault::FullAfter(50));
    disk.fail(Op::SetLen, 0, Fault::Error(ErrorKind::Other));
    assert!(matches!(log.append_as_leader(&batch(2, 100, 0), 0, 0), Err(LogError::Offline { .. })));
    disk.heal();
    assert!(matches!(log.append_as_leader(&batch(2, 100, 0), 0, 0), Err(LogError::Offline { .. })));
    drop(log);
    let mut log = open_on(&disk, &dir, Recovery::default()).unwrap();
    assert_eq!(records(&mut log, 0).len(), 2);
}

#[test]
fn a_failed_fsync_is_final() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let disk = FaultyDisk::new();
    let mut log = open_on(&disk, &dir, Recovery::default()).unwrap();
    log.append_as_leader(&batch(2, 100, 0), 0, 0).unwrap();
    disk.fail(Op::Sync, 0, Fault::Error(ErrorKind::Other));
    let handle = log.flush_handle().unwrap();
    let syncs = disk.count(Op::Sync);
    assert!(matches!(handle.sync(), Err(LogError::Offline { .. })));
    assert!(matches!(handle.sync(), Err(LogError::Offline { .. })));
    assert!(matches!(log.flush(0), Err(LogError::Offline { .. })));
    assert_eq!(disk.count(Op::Sync), syncs + 1, "asked again");
    assert!(matches!(log.append_as_leader(&batch(2, 100, 0), 0, 0), Err(LogError::Offline { .. })));
    assert!(log.offline_reason().unwrap().contains("flushing"));
    assert_eq!(log.recovery_point(), 0);
    assert!(log.close(true).is_err());
}

#[test]
fn an_io_error_on_append_takes_the_log_offline() {
    let tmp = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let mut log = open_on(&disk, &tmp.path().join("t-0"), Recovery::default()).unwrap();
    log.append_as_leader(&batch(2, 100, 0), 0, 0).unwrap();
    disk.fail(Op::Write, 0, Fault::Error(ErrorKind::Other));
    assert!(matches!(log.append_as_leader(&batch(2, 100, 0), 0, 0), Err(LogError::Offline { .. })));
    assert_eq!(records(&mut log, 0).len(), 2);
}

/// Appends, rolls, truncates, deletes and flushes until the disk stops; returns the offset up to which records were
/// flushed or, without power loss, appended.
fn work(disk: &FaultyDisk, dir: &Path) -> (i64, i64) {
    let (mut flushed, mut appended) = (0, 0);
    let Ok(mut log) = open_on(disk, dir, Recovery::default()) else {
        return (0, 0);
    };
    let mut go = || -> Result<(), LogError> {
        for i in 0..45 {
            let sequence = log.log_end_offset() as i32;
            appended = log.append_as_leader(&batch_of(1, 0, sequence, 2, i64::from(i)), i / 12, 0)?.last_offset + 1;
            if i % 10 == 9 {
                log.flush(0)?;
                flushed = log.recovery_point();
            }
            if i == 25 {
                let to = log.log_end_offset() - 6;
                (appended, flushed) = (to.min(appended), flushed.min(to));
                log.truncate_to(to, 0)?;
            }
            if i == 32 {
                log.delete_records(8, 0)?;
                log.delete_expired_files(i64::MAX)?;
            }
        }
        log.close(true)
    };
    go().ok();
    (flushed, appended)
}

#[test]
fn a_crash_at_every_step_loses_nothing_appended() {
    let total = {
        let tmp = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new();
        work(&disk, &tmp.path().join("t-0"));
        disk.changes()
    };
    assert!(total > 100, "{total}");
    for stop in 0..total {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("t-0");
        let disk = FaultyDisk::new();
        disk.stop_after(stop);
        let (_, appended) = work(&disk, &dir);
        disk.heal();
        let mut log = open_on(&disk, &dir, Recovery::default()).unwrap_or_else(|e| panic!("stop {stop}: {e}"));
        assert!(log.log_end_offset() >= appended, "stop {stop}: {} < {appended}", log.log_end_offset());
        check_contiguous(&mut log, stop);
    }
    println!("crashed at each of {total} steps, nothing appended was lost");
}

#[test]
fn a_power_loss_at_every_step_loses_nothing_flushed() {
    let total = {
        let tmp = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new();
        work(&disk, &tmp.path().join("t-0"));
        disk.changes()
    };
    let seeds = if std::env::var_os("KLAMM_LONG").is_some() { 40 } else { 3 };
    for stop in 0..total {
        for seed in 0..seeds {
            let tmp = tempfile::tempdir().unwrap();
            let dir = tmp.path().join("t-0");
            let disk = FaultyDisk::new();
            disk.stop_after(stop);
            let (flushed, _) = work(&disk, &dir);
            disk.heal();
            disk.power_loss(seed * 1_000 + stop, seed % 2 == 0).unwrap();
            // The checkpoint is written after the flush, so it can be older, never newer.
            for recovery_point in [flushed, 0] {
                let recovery = Recovery { recovery_point, machine_restarted: true, ..Recovery::default() };
                let mut log =
                    open_on(&disk, &dir, recovery).unwrap_or_else(|e| panic!("stop {stop}, seed {seed}: {e}"));
                assert!(
                    log.log_end_offset() >= flushed,
                    "stop {stop}, seed {seed}: ends at {}, flushed {flushed}",
                    log.log_end_offset()
                );
                assert_eq!(log.recovery_report().lost_from, None);
                check_contiguous(&mut log, stop);
            }
        }
    }
    println!("power lost at each of {total} steps with {seeds} seeds, nothing flushed was lost");
}

/// All records from the log's start to its end, without gap, and the log takes more.
fn check_contiguous(log: &mut Log, stop: u64) {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    // A read starts with the batch that holds the offset.
    let offsets: Vec<i64> = records(log, start).iter().map(|r| r.0).filter(|o| *o >= start).collect();
    assert_eq!(offsets, (start..end).collect::<Vec<_>>(), "stop {stop}");
    for offset in start..end {
        assert!(log.read(offset, 1, end, true).unwrap().first_offset <= offset);
    }
    if end > 0 {
        let last = log.producers().get(1).map(|p| p.last_sequence());
        assert_eq!(last, Some(end as i32 - 1), "stop {stop}");
    }
    let epoch = log.latest_epoch().unwrap_or(0);
    assert_eq!(log.append_as_leader(&batch_of(1, 0, end as i32, 2, 77), epoch, 0).unwrap().base_offset, end);
    assert_eq!(log.read(end, 1 << 20, end + 2, true).unwrap().first_offset, end);
}

#[test]
fn small_writes_go_on_and_large_batches_are_written_in_pieces() {
    let tmp = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let config = LogConfig::default();
    let mut log = open_with(Arc::new(disk.clone()), &tmp.path().join("t-0"), config, Recovery::default()).unwrap();
    log.append_as_leader(&batch(1, 10, 0), 0, 0).unwrap();
    let before = disk.count(Op::Write);
    let large = batch(1, 300_000, 0);
    log.append_as_leader(&large, 0, 0).unwrap();
    assert_eq!(disk.count(Op::Write) - before, large.len().div_ceil(256 * 1024) as u64);
    let before = disk.count(Op::Write);
    log.append_as_leader(&batch(1, 15_000, 0), 0, 0).unwrap();
    assert_eq!(disk.count(Op::Write) - before, 1);
    disk.fail(Op::Write, 2, Fault::Short(1));
    log.append_as_leader(&large, 0, 0).unwrap();
    let reads = disk.count(Op::Read);
    let first = log.read(0, 1 << 20, i64::MAX, true).unwrap();
    let rest = log.read(first.next_offset, 1 << 20, i64::MAX, true).unwrap();
    assert_eq!(rest.next_offset, rest.first_offset.max(4));
    let sequential = disk.count(Op::Read);
    assert!(sequential - reads <= 3, "{} reads", sequential - reads);
}

#[test]
fn a_tail_reader_needs_no_system_call() {
    let tmp = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let config = LogConfig::default();
    let mut log = open_with(Arc::new(disk.clone()), &tmp.path().join("t-0"), config, Recovery::default()).unwrap();
    let mut offset = 0;
    for i in 0..50 {
        for _ in 0..3 {
            log.append_as_leader(&batch(2, 1_000, i), 0, 0).unwrap();
        }
        let reads = disk.count(Op::Read);
        // Bounded by the log's end, and by a high watermark two batches behind.
        for bound in [log.log_end_offset() - 4, log.log_end_offset()] {
            let result = log.read(offset, 1 << 20, bound, true).unwrap();
            assert_eq!(result.first_offset, offset);
            offset = result.next_offset;
            assert_eq!(offset, bound);
        }
        if i > 0 {
            assert_eq!(disk.count(Op::Read), reads);
        }
    }
}

#[test]
fn what_was_truncated_does_not_come_back_after_a_clean_stop_and_a_power_loss() {
    for (kept, seed) in [0, 2].into_iter().flat_map(|kept| (0..20).map(move |seed| (kept, seed))) {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("t-0");
        let disk = FaultyDisk::new();
        let mut log = open_on(&disk, &dir, Recovery::default()).unwrap();
        for epoch in 0..4 {
            log.append_as_leader(&batch(1, 10, i64::from(epoch)), epoch, 0).unwrap();
        }
        log.flush(0).unwrap();
        log.truncate_to(kept, 0).unwrap();
        log.close(true).unwrap();
        drop(log);
        disk.power_loss(seed, false).unwrap();
        let recovery = Recovery { clean: true, machine_restarted: true, ..Recovery::default() };
        let log = open_on(&disk, &dir, recovery).unwrap();
        assert_eq!(log.log_end_offset(), kept, "seed {seed}");
        assert_eq!(log.latest_epoch(), (kept > 0).then_some(1), "seed {seed}");
    }
}

#[test]
fn what_was_truncated_does_not_come_back_below_a_segment_that_was_begun_since() {
    for seed in 0..40 {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("t-0");
        let disk = FaultyDisk::new();
        let mut log = open_on(&disk, &dir, Recovery::default()).unwrap();
        for time in 0..3 {
            log.append_as_leader(&batch(1, 900, time), 0, 0).unwrap();
        }
        log.flush(0).unwrap();
        log.truncate_to(2, 0).unwrap();
        // It does not fit behind what is left.
        log.append_as_leader(&batch(1, 3_000, 9), 1, 0).unwrap();
        assert_eq!(log.segment_count(), 2);
        log.flush(0).unwrap();
        let recovery_point = log.recovery_point();
        drop(log);
        disk.power_loss(seed, false).unwrap();
        let recovery = Recovery { recovery_point, machine_restarted: true, ..Recovery::default() };
        let mut log = open_on(&disk, &dir, recovery).unwrap();
        let epochs: Vec<i32> =
            read_all(&mut log, 0, 10_000).iter().map(|(header, _)| header.partition_leader_epoch).collect();
        assert_eq!(epochs, [0, 0, 1], "seed {seed}");
    }
}
