//! What a partition costs that nobody writes to: at most a directory and one small file, and no fsync, ever.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use klamm_log::faulty::{FaultyDisk, Op};
use klamm_log::{EpochEntry, LogConfig, Recovery};

fn counted(disk: &FaultyDisk, work: impl FnOnce()) -> [u64; 4] {
    let kinds = [Op::Open, Op::Sync, Op::SyncDir, Op::Rename];
    let before = kinds.map(|op| disk.count(op));
    work();
    let mut counts = kinds.map(|op| disk.count(op));
    counts.iter_mut().zip(before).for_each(|(now, before)| *now -= before);
    counts
}

fn reopen(disk: &FaultyDisk, dir: &Path, recovery: &Recovery) -> klamm_log::Log {
    open_with(Arc::new(disk.clone()), dir, LogConfig::default(), recovery.clone()).unwrap()
}

#[test]
fn a_partition_never_written_to_is_made_opened_and_closed_without_a_sync() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let disk = FaultyDisk::new();
    let made = counted(&disk, || {
        let mut log = reopen(&disk, &dir, &Recovery::default());
        log.assign_epoch(0).unwrap();
        assert!(log.flush_handle().is_none());
        log.close(true).unwrap();
    });
    // partition.metadata, and nothing else.
    assert_eq!(made, [1, 0, 0, 1]);
    assert_eq!(files(&dir), ["partition.metadata"]);
    for clean in [true, false] {
        let recovery = Recovery { clean, ..Recovery::default() };
        let opened = counted(&disk, || {
            let mut log = reopen(&disk, &dir, &recovery);
            log.assign_epoch(1).unwrap();
            assert_eq!(log.latest_epoch(), Some(1));
            assert_eq!(log.open_segments(), 0);
            log.close(true).unwrap();
        });
        assert_eq!(opened, [0; 4], "clean {clean}");
    }
    assert_eq!(files(&dir), ["partition.metadata"]);
}

#[test]
fn the_first_flush_makes_the_directory_itself_safe_whenever_it_was_made() {
    for clean in [true, false] {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("t-0");
        let disk = FaultyDisk::new();
        reopen(&disk, &dir, &Recovery::default()).close(true).unwrap();
        let mut log = reopen(&disk, &dir, &Recovery { clean, ..Recovery::default() });
        log.append_as_leader(&batch(1, 10, 1), 0, 1).unwrap();
        let [_, _, dirs, _] = counted(&disk, || log.flush(1).unwrap());
        // The partition's directory, and the one it stands in.
        assert_eq!(dirs, 2, "clean {clean}");
        log.append_as_leader(&batch(1, 10, 1), 0, 1).unwrap();
        let [_, _, dirs, _] = counted(&disk, || log.flush(1).unwrap());
        assert_eq!(dirs, 0);
    }
}

#[test]
fn what_a_crash_left_is_made_safe_by_the_next_flush() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let disk = FaultyDisk::new();
    let mut log = reopen(&disk, &dir, &Recovery::default());
    log.append_as_leader(&batch(1, 10, 1), 0, 1).unwrap();
    drop(log);
    let mut log = reopen(&disk, &dir, &Recovery::default());
    let [_, files, dirs, _] = counted(&disk, || log.flush(1).unwrap());
    assert!(files >= 1 && dirs == 2, "{files} files, {dirs} directories");
}

#[test]
fn a_partition_not_written_to_since_the_last_clean_stop_closes_for_free() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let disk = FaultyDisk::new();
    let mut log = reopen(&disk, &dir, &Recovery::default());
    log.append_as_leader(&batch_of(7, 0, 0, 3, 1), 0, 1).unwrap();
    log.close(true).unwrap();
    let clean = Recovery { clean: true, recovery_point: 3, ..Recovery::default() };
    let before = files(&dir);
    let mut log = reopen(&disk, &dir, &clean);
    log.assign_epoch(4).unwrap();
    assert_eq!(records(&mut log, 0).len(), 3);
    assert_eq!(counted(&disk, || log.close(true).unwrap()), [0; 4]);
    assert_eq!(files(&dir), before);

    // As soon as something changes, closing keeps it.
    let mut log = reopen(&disk, &dir, &clean);
    log.append_as_leader(&batch_of(7, 0, 3, 2, 1), 0, 1).unwrap();
    let [_, synced, _, _] = counted(&disk, || log.close(true).unwrap());
    assert!(synced > 0);
    let mut log = reopen(&disk, &dir, &Recovery { clean: true, recovery_point: 5, ..Recovery::default() });
    log.truncate_to(3, 1).unwrap();
    log.append_as_leader(&batch_of(7, 0, 3, 2, 9), 0, 1).unwrap();
    let [_, synced, _, _] = counted(&disk, || log.close(true).unwrap());
    assert!(synced > 0, "same end, other records");
}

#[test]
fn an_epoch_is_written_with_its_first_batch() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let mut log = open(&dir, small());
    log.assign_epoch(2).unwrap();
    log.append_as_leader(&batch(2, 10, 1), 2, 1).unwrap();
    log.assign_epoch(3).unwrap();
    assert_eq!(log.epoch_end_offset(3), Some((3, 2)));
    assert_eq!(std::fs::read_to_string(dir.join("leader-epoch-checkpoint")).unwrap(), "0\n1\n2 0\n");
    log.append_as_leader(&batch(2, 10, 1), 3, 1).unwrap();
    log.append_as_leader(&batch(2, 10, 1), 3, 1).unwrap();
    assert_eq!(std::fs::read_to_string(dir.join("leader-epoch-checkpoint")).unwrap(), "0\n2\n2 0\n3 2\n");
    log.close(true).unwrap();
    let log = open_clean(&dir, small());
    let entries = [EpochEntry { epoch: 2, start_offset: 0 }, EpochEntry { epoch: 3, start_offset: 2 }];
    assert_eq!(log.epochs().entries(), entries);
}

#[test]
fn a_stale_epoch_at_the_end_is_gone_from_the_file_before_anything_is_appended() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    open(&dir, small()).close(true).unwrap();
    std::fs::write(dir.join("leader-epoch-checkpoint"), "0\n1\n9 1\n").unwrap();
    let mut log = open_clean(&dir, small());
    log.append_as_leader(&batch(4, 10, 1), 2, 1).unwrap();
    drop(log);
    let log = open(&dir, small());
    assert_eq!(log.epochs().entries(), [EpochEntry { epoch: 2, start_offset: 0 }]);
}
