//! What a log does in good times: append, read, look up, roll, delete, truncate, reopen.

mod common;

use bytes::Bytes;
use common::*;
use klamm_log::{LogConfig, LogError, RealDisk, Recovery};
use klamm_protocol::batch::{BatchBuilder, EndTxnMarker, end_txn_marker};
use klamm_protocol::compress::Compression;
use klamm_protocol::compress::Limits;

const CAP: usize = 1 << 20;

#[test]
fn appended_records_get_offsets_in_order_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    let mut log = open(&path, small());
    for i in 0..100 {
        let appended = log.append_as_leader(&batch(3, 50, 1_000 + i), 5, 0).unwrap();
        assert_eq!((appended.base_offset, appended.last_offset), (i * 3, i * 3 + 2));
        assert!(!appended.duplicate);
    }
    assert!(log.segment_count() > 3);
    assert_eq!(log.log_end_offset(), 300);
    for max in [1, 100, 700, 5_000, usize::MAX] {
        let all = read_all(&mut log, 0, max);
        assert_eq!(all.len(), 100);
        assert!(all.iter().all(|(h, _)| h.partition_leader_epoch == 5));
    }
    for offset in 0..300 {
        let result = log.read(offset, 1, i64::MAX, true).unwrap();
        assert_eq!(result.first_offset, offset / 3 * 3);
    }
}

#[test]
fn limits_of_a_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir.path().join("t-0"), LogConfig::default());
    let one = batch(2, 100, 0);
    for _ in 0..10 {
        log.append_as_leader(&one, 0, 0).unwrap();
    }
    let len = one.len();
    // Bytes: whole batches only.
    assert_eq!(log.read(0, len * 3 + 5, 20, false).unwrap().len(), len * 3);
    assert_eq!(log.read(0, len * 3 + 5, 20, false).unwrap().next_offset, 6);
    assert!(log.read(0, len - 1, 20, false).unwrap().is_empty());
    assert_eq!(log.read(0, len - 1, 20, true).unwrap().len(), len);
    assert_eq!(log.read(0, 0, 20, true).unwrap().len(), len);
    // Offsets: up to the bound, also when it isn't at a batch's edge.
    assert_eq!(log.read(4, CAP, 10, false).unwrap().len(), len * 3);
    assert_eq!(log.read(4, CAP, 11, false).unwrap().len(), len * 3);
    assert!(log.read(4, CAP, 5, false).unwrap().is_empty());
    assert!(log.read(4, CAP, 4, false).unwrap().is_empty());
    assert!(log.read(20, CAP, 20, true).unwrap().is_empty());
    for offset in [-1, 21] {
        assert!(matches!(log.read(offset, CAP, 20, true), Err(LogError::OffsetOutOfRange { .. })));
    }
}

#[test]
fn an_idle_partition_costs_one_small_file_and_no_handle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    let mut log = open(&path, LogConfig::default());
    assert_eq!(files(&path), ["partition.metadata"]);
    assert_eq!(log.open_segments(), 0);
    log.close(true).unwrap();
    assert_eq!(files(&path), ["partition.metadata"]);
    let text = std::fs::read_to_string(path.join("partition.metadata")).unwrap();
    assert_eq!(text, format!("version: 0\ntopic_id: {TOPIC}"));
    let other = klamm_protocol::Uuid([8; 16]);
    let refused = klamm_log::Log::open(RealDisk::shared(), &path, other, LogConfig::default(), Recovery::default(), 0);
    assert!(matches!(refused, Err(LogError::TopicIdMismatch { .. })));
}

#[test]
fn idle_files_close_after_two_rounds_and_open_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir.path().join("t-0"), small());
    for i in 0..60 {
        log.append_as_leader(&batch(3, 50, i), 0, 0).unwrap();
    }
    let before = read_all(&mut log, 0, 300);
    log.close_idle_files().unwrap();
    assert!(log.open_segments() > 0);
    log.close_idle_files().unwrap();
    assert_eq!(log.open_segments(), 0);
    assert_eq!(read_all(&mut log, 0, 300), before);
    log.append_as_leader(&batch(1, 50, 99), 0, 0).unwrap();
    assert_eq!(records(&mut log, 0).len(), 181);
}

#[test]
fn a_log_opens_again_as_it_was_clean_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    let mut log = open(&path, small());
    for i in 0..80i32 {
        log.append_as_leader(&batch_of(i64::from(i % 3), 0, i / 3 * 2, 2, i64::from(i)), i / 30, 0).unwrap();
    }
    let all = read_all(&mut log, 0, 1_000);
    let epochs = log.epochs().clone();
    log.close(true).unwrap();
    for clean in [true, false, true] {
        let recovery = Recovery { clean, ..Recovery::default() };
        let mut log = open_with(RealDisk::shared(), &path, small(), recovery).unwrap();
        assert_eq!(log.log_end_offset(), 160);
        assert_eq!(log.recovery_report().scanned_bytes > 0, !clean);
        assert_eq!(log.open_segments(), 0);
        assert_eq!(read_all(&mut log, 0, 1_000), all);
        assert_eq!(log.epochs(), &epochs);
        assert_eq!(log.producers().len(), 3);
        let again = log.append_as_leader(&batch_of(79 % 3, 0, 79 / 3 * 2, 2, 79), 3, 0).unwrap();
        assert_eq!((again.duplicate, again.base_offset), (true, 158));
        log.close(true).unwrap();
    }
}

#[test]
fn segments_roll_by_size_time_and_index() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_ms: 1_000, ..LogConfig::default() };
    let mut log = open(&dir.path().join("time-0"), config);
    log.append_as_leader(&batch(1, 10, 5_000), 0, 0).unwrap();
    log.append_as_leader(&batch(1, 10, 6_000), 0, 0).unwrap();
    assert_eq!(log.segment_count(), 1);
    log.append_as_leader(&batch(1, 10, 6_001), 0, 0).unwrap();
    assert_eq!(log.segment_count(), 2);
    // Without timestamps the broker's clock counts.
    let mut log = open(&dir.path().join("clock-0"), LogConfig { segment_ms: 1_000, ..LogConfig::default() });
    log.append_as_leader(&batch(1, 10, -1), 0, 10).unwrap();
    log.append_as_leader(&batch(1, 10, -1), 0, 1_000).unwrap();
    assert_eq!(log.segment_count(), 1);
    log.append_as_leader(&batch(1, 10, -1), 0, 1_011).unwrap();
    assert_eq!(log.segment_count(), 2);

    let config = LogConfig { segment_index_bytes: 48, index_interval_bytes: 10, ..LogConfig::default() };
    let mut log = open(&dir.path().join("index-0"), config);
    for i in 0..30 {
        log.append_as_leader(&batch(1, 10, i), 0, 0).unwrap();
    }
    assert!(log.segment_count() > 5);
    for name in files(&dir.path().join("index-0")).iter().filter(|n| n.ends_with("index")) {
        assert!(std::fs::metadata(dir.path().join("index-0").join(name)).unwrap().len() <= 48);
    }

    let mut log = open(&dir.path().join("size-0"), LogConfig { segment_bytes: 500, ..LogConfig::default() });
    assert!(matches!(
        log.append_as_leader(&batch(1, 600, 0), 0, 0),
        Err(LogError::RecordListTooLarge { segment_bytes: 500, .. })
    ));
    for _ in 0..10 {
        log.append_as_leader(&batch(1, 300, 0), 0, 0).unwrap();
    }
    assert_eq!(log.segment_count(), 10);
    assert!(log.segment_sizes().all(|(_, size)| size <= 500));
}

#[test]
fn offsets_too_far_for_a_segment_open_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir.path().join("t-0"), LogConfig::default());
    let at = |offset: i64| build(BatchBuilder::new(offset), 1, 10, 0);
    log.append_as_follower(&at(0), 0).unwrap();
    log.append_as_follower(&at(i64::from(i32::MAX)), 0).unwrap();
    assert_eq!(log.segment_count(), 1);
    log.append_as_follower(&at(i64::from(i32::MAX) + 5), 0).unwrap();
    assert_eq!(log.segment_count(), 2);
    let offsets: Vec<i64> = records(&mut log, 0).iter().map(|r| r.0).collect();
    assert_eq!(offsets, [0, i64::from(i32::MAX), i64::from(i32::MAX) + 5]);
    // Into an empty segment as well.
    let mut log = open(&dir.path().join("t-1"), LogConfig::default());
    log.append_as_follower(&at(1 << 40), 0).unwrap();
    assert_eq!(records(&mut log, 0), [(1 << 40, 0)]);
    // And all in one answer, together larger than a segment.
    let mut log = open(&dir.path().join("t-2"), LogConfig { segment_bytes: 1_000, ..LogConfig::default() });
    let offsets = [0, 5, 1 << 33, (1 << 33) + 7, 1 << 50];
    let all: Vec<u8> = offsets
        .iter()
        .flat_map(|o| build(BatchBuilder::new(*o), 1, 400, 0))
        .chain(batch(1, 400, 0).slice(..100))
        .collect();
    let done = log.append_as_follower(&all.into(), 0).unwrap().unwrap();
    assert_eq!((done.base_offset, done.last_offset), (0, 1 << 50));
    assert_eq!(log.segment_count(), 3);
    assert_eq!(records(&mut log, 0).iter().map(|r| r.0).collect::<Vec<_>>(), offsets);
    drop(log);
    let mut log = open(&dir.path().join("t-2"), LogConfig::default());
    assert_eq!(records(&mut log, 0).len(), 5);
    // A batch that the leader took is taken here, whatever this segment size says.
    log.set_config(LogConfig { segment_bytes: 100, ..LogConfig::default() });
    let large = build(BatchBuilder::new((1 << 50) + 1), 1, 400, 0);
    assert!(log.append_as_follower(&large, 0).unwrap().is_some());
}

#[test]
fn followers_take_whole_sound_batches_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut leader = open(&dir.path().join("t-0"), small());
    for i in 0..20 {
        leader.append_as_leader(&batch(2, 60, i), (i / 7) as i32, 0).unwrap();
    }
    let mut follower = open(&dir.path().join("t-1"), small());
    while follower.log_end_offset() < leader.log_end_offset() {
        let read = leader.read(follower.log_end_offset(), 1_000, i64::MAX, true).unwrap();
        let mut bytes = bytes_of(&read);
        bytes.extend_from_slice(&batch(1, 60, 0)[..40]);
        follower.append_as_follower(&bytes.into(), 0).unwrap().unwrap();
    }
    assert_eq!(read_all(&mut follower, 0, 500), read_all(&mut leader, 0, 900));
    assert_eq!(follower.epochs(), leader.epochs());
    assert_eq!(follower.epoch_end_offset(1), Some((1, 28)));

    let again: Bytes = bytes_of(&leader.read(0, 1, i64::MAX, true).unwrap()).into();
    assert!(matches!(follower.append_as_follower(&again, 0), Err(LogError::OffsetsOutOfOrder { first: 0, .. })));
    let mut bad = build(BatchBuilder::new(100), 1, 30, 0).to_vec();
    *bad.last_mut().unwrap() ^= 1;
    assert!(matches!(follower.append_as_follower(&bad.into(), 0), Err(LogError::BadBatch(_))));
    assert_eq!(follower.append_as_follower(&Bytes::new(), 0).unwrap(), None);
}

#[test]
fn timestamps_are_found_to_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    let mut log = open(&path, small());
    let mut all = Vec::new();
    for i in 0..120i64 {
        // Not in order: every seventh batch is from the past.
        let time = if i % 7 == 0 { i * 3 } else { 1_000 + i * 10 };
        let codec = [Compression::None, Compression::Lz4, Compression::Zstd][(i % 3) as usize];
        log.append_as_leader(&build(BatchBuilder::new(0).compression(codec, None), 4, 20, time), 2, 0).unwrap();
        all.extend((0..4).map(|r| (i * 4 + r, time + r)));
    }
    for reopen in [false, true] {
        if reopen {
            log.close(true).unwrap();
            log = open_clean(&path, small());
        }
        for target in (0..2_300).step_by(7) {
            let expected = all.iter().find(|(_, t)| *t >= target);
            let found = log.offset_for_timestamp(target, Limits::both(CAP)).unwrap();
            assert_eq!(found.map(|f| (f.offset, f.timestamp)), expected.copied(), "time {target}");
            assert!(found.is_none_or(|f| f.leader_epoch == 2));
        }
        let newest = all.iter().max_by_key(|(o, t)| (*t, -o)).copied();
        let found = log.max_timestamp_offset(Limits::both(CAP)).unwrap();
        assert_eq!(found.map(|f| (f.offset, f.timestamp)), newest);
    }
    log.delete_records(100, 0).unwrap();
    assert_eq!(log.offset_for_timestamp(0, Limits::both(CAP)).unwrap().unwrap().offset, 100);
}

#[test]
fn a_batch_too_large_to_look_into_answers_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir.path().join("t-0"), small());
    log.append_as_leader(&batch(4, 20, 1_000), 2, 0).unwrap();
    log.append_as_leader(&build(BatchBuilder::new(0).compression(Compression::Gzip, None), 4, 900, 2_000), 2, 0)
        .unwrap();
    let (enough, less) = (Limits::both(CAP), Limits::both(2_000));
    assert_eq!(log.offset_for_timestamp(2_002, enough).unwrap().map(|f| (f.offset, f.timestamp)), Some((6, 2_002)));
    assert_eq!(log.offset_for_timestamp(2_002, less).unwrap().map(|f| (f.offset, f.timestamp)), Some((4, 2_003)));
    assert_eq!(log.max_timestamp_offset(less).unwrap().map(|f| (f.offset, f.timestamp)), Some((7, 2_003)));
    log.delete_records(5, 0).unwrap();
    assert_eq!(log.offset_for_timestamp(2_000, less).unwrap().map(|f| f.offset), Some(5));
}

#[test]
fn retention_by_time_takes_whole_old_segments_below_the_high_watermark() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    let mut log = open(&path, LogConfig { retention_ms: 1_000, file_delete_delay_ms: 500, ..small() });
    for i in 0..100 {
        log.append_as_leader(&batch(2, 100, i * 10), 0, 0).unwrap();
    }
    let bases: Vec<i64> = log.segment_sizes().map(|s| s.0).collect();
    assert_eq!(log.apply_retention(bases[1] * 5 + 1_000 - 10, 200).unwrap(), 0);
    assert_eq!(log.apply_retention(1_500, 0).unwrap(), 0);
    assert_eq!(log.apply_retention(1_500, bases[2]).unwrap(), 2);
    assert_eq!(log.log_start_offset(), bases[2]);
    assert!(files(&path).contains(&format!("{:020}.log.deleted", 0)));
    assert_eq!(log.delete_expired_files(1_999).unwrap(), 0);
    assert_eq!(log.delete_expired_files(2_000).unwrap(), 2);
    assert!(!files(&path).iter().any(|n| n.ends_with(".deleted")));
    // Everything: the log goes on where it was.
    assert!(log.apply_retention(1_000_000, 200).unwrap() > 0);
    assert_eq!((log.log_start_offset(), log.log_end_offset(), log.size()), (200, 200, 0));
    log.close(true).unwrap();
    let mut log = open_clean(&path, small());
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (200, 200));
    assert_eq!(log.append_as_leader(&batch(1, 1, 0), 0, 0).unwrap().base_offset, 200);
}

#[test]
fn retention_by_size_keeps_at_least_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir.path().join("t-0"), LogConfig { retention_bytes: 10_000, ..small() });
    for i in 0..100 {
        log.append_as_leader(&batch(2, 100, i), 0, 0).unwrap();
    }
    let before = log.size();
    log.apply_retention(0, 200).unwrap();
    assert!(log.size() >= 10_000 && log.size() < 14_000, "{before} -> {}", log.size());
    let start = log.log_start_offset();
    assert_eq!(records(&mut log, start).len() as i64, 200 - start);
}

#[test]
fn deleted_records_stay_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    let mut log = open(&path, small());
    for i in 0..60 {
        log.append_as_leader(&batch(2, 100, i), (i / 20) as i32, 0).unwrap();
    }
    let segments = log.segment_count();
    assert_eq!(log.delete_records(45, 0).unwrap(), 45);
    assert!(log.segment_count() < segments);
    assert_eq!(log.delete_records(30, 0).unwrap(), 45);
    assert!(matches!(log.read(44, CAP, 120, true), Err(LogError::OffsetOutOfRange { log_start: 45, .. })));
    assert_eq!(log.read(45, CAP, 120, true).unwrap().first_offset, 44);
    assert_eq!(log.epochs().entries()[0].start_offset, 45);
    assert!(matches!(log.delete_records(121, 0), Err(LogError::OffsetOutOfRange { .. })));
    log.close(true).unwrap();
    let recovery = Recovery { clean: true, log_start_offset: 45, ..Recovery::default() };
    let mut log = open_with(RealDisk::shared(), &path, small(), recovery.clone()).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (45, 120));
    log.delete_records(120, 0).unwrap();
    assert!(log.read(120, CAP, 120, true).unwrap().is_empty());
    log.close(true).unwrap();
    let recovery = Recovery { log_start_offset: 120, ..recovery };
    let log = open_with(RealDisk::shared(), &path, small(), recovery).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (120, 120));
}

#[test]
fn truncation_cuts_at_batch_edges_and_appends_go_on() {
    let dir = tempfile::tempdir().unwrap();
    for (to, end) in [(119, 117), (117, 117), (60, 60), (61, 60), (1, 0), (0, 0), (500, 120)] {
        let path = dir.path().join(format!("t-{to}"));
        let mut log = open(&path, small());
        for i in 0..40i32 {
            log.append_as_leader(&batch_of(1, 0, i * 3, 3, i64::from(i)), i / 8, 0).unwrap();
        }
        log.truncate_to(to, 0).unwrap();
        assert_eq!(log.log_end_offset(), end);
        let expected: Vec<(i64, i64)> = (0..end).map(|o| (o, o / 3 + o % 3)).collect();
        assert_eq!(records(&mut log, 0), expected);
        assert!(log.epochs().entries().iter().all(|e| e.start_offset < end));
        let next = batch_of(1, 0, end as i32, 3, 999);
        assert_eq!(log.append_as_leader(&next, 9, 0).unwrap().base_offset, end);
        assert_eq!(log.max_timestamp_offset(Limits::both(CAP)).unwrap().unwrap().offset, end + 2);
        log.close(false).unwrap();
        let mut log = open(&path, small());
        assert_eq!(log.log_end_offset(), end + 3);
        assert_eq!(records(&mut log, 0).len() as i64, end + 3);
    }
    let path = dir.path().join("t-500");
    let mut log = open(&path, small());
    log.truncate_fully_and_start_at(1_000, 0).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset(), log.size()), (1_000, 1_000, 0));
    drop(log);
    let log = open(&path, small());
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (1_000, 1_000));
}

#[test]
fn duplicates_get_their_first_offsets_and_gaps_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&dir.path().join("t-0"), small());
    for i in 0..6 {
        log.append_as_leader(&batch_of(9, 0, i * 2, 2, 0), 0, 0).unwrap();
    }
    let size = log.size();
    let again = log.append_as_leader(&batch_of(9, 0, 4, 2, 0), 0, 0).unwrap();
    assert_eq!((again.duplicate, again.base_offset, again.last_offset), (true, 4, 5));
    for sequence in [0, 13, 11] {
        assert!(matches!(
            log.append_as_leader(&batch_of(9, 0, sequence, 2, 0), 0, 0),
            Err(LogError::OutOfOrderSequence { expected: 12, .. })
        ));
    }
    assert_eq!((log.size(), log.log_end_offset()), (size, 12));
    let two = [batch_of(9, 0, 12, 2, 0), batch_of(9, 0, 14, 2, 0)].concat();
    assert_eq!(log.append_as_leader(&two.into(), 0, 0).unwrap().last_offset, 15);
    let gap = [batch_of(9, 0, 16, 2, 0), batch_of(9, 0, 19, 2, 0)].concat();
    assert!(log.append_as_leader(&gap.into(), 0, 0).is_err());
    assert_eq!(log.log_end_offset(), 16);
}

#[test]
fn all_five_batches_in_flight_are_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    let mut log = open(&path, small());
    for i in 0..100i32 {
        log.append_as_leader(&batch_of(i64::from(i % 4), 0, i / 4 * 2, 2, 0), 0, 0).unwrap();
        if i == 95 {
            // The snapshot made here has one batch of each producer.
            log.roll(0).unwrap();
        }
    }
    log.close(true).unwrap();
    for clean in [true, false] {
        let recovery = Recovery { clean, recovery_point: 200, ..Recovery::default() };
        let mut log = open_with(RealDisk::shared(), &path, small(), recovery).unwrap();
        for i in 80..100i32 {
            let again = log.append_as_leader(&batch_of(i64::from(i % 4), 0, i / 4 * 2, 2, 0), 0, 0).unwrap();
            assert_eq!((again.duplicate, again.base_offset), (true, i64::from(i) * 2), "clean {clean}");
        }
        assert_eq!(log.log_end_offset(), 200);
        log.close(true).unwrap();
    }
}

#[test]
fn transactions_bound_the_stable_offset_and_aborts_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t-0");
    let mut log = open(&path, small());
    let txn = |id, sequence| build(BatchBuilder::new(0).producer(id, 0, sequence).transactional(), 5, 100, 0);
    let marker =
        |id, commit: bool| end_txn_marker(0, 0, 0, (id, 0), EndTxnMarker { commit, coordinator_epoch: 3 }).unwrap();
    let mut expected = Vec::new();
    for round in 0..30 {
        log.append_as_leader(&txn(1, round * 5), 0, 0).unwrap();
        log.append_as_leader(&txn(2, round * 5), 0, 0).unwrap();
        let first = log.log_end_offset() - 10;
        assert_eq!(log.last_stable_offset(log.log_end_offset()), first);
        let end = log.append_as_coordinator(&marker(1, false), 0, 0).unwrap().base_offset;
        expected.push((1, first, end));
        assert_eq!(log.first_unstable_offset(), Some(first));
        log.on_high_watermark(end + 1);
        assert_eq!(log.first_unstable_offset(), Some(first + 5));
        log.append_as_coordinator(&marker(2, round % 2 == 0), 0, 0).unwrap();
        if round % 2 == 1 {
            expected.push((2, first + 5, end + 1));
        }
        log.on_high_watermark(end + 2);
        assert_eq!(log.last_stable_offset(end + 2), end + 2);
    }
    assert!(log.segment_count() > 2);
    let end = log.log_end_offset();
    let check = |log: &mut klamm_log::Log| {
        for from in (0..end).step_by(13) {
            for to in [from + 1, from + 40, end] {
                let found = log.aborted_transactions(from, to).unwrap();
                let want: Vec<_> = expected.iter().filter(|(_, f, l)| *l >= from && *f < to).copied().collect();
                let found: Vec<_> = found.iter().map(|a| (a.producer_id, a.first_offset, a.last_offset)).collect();
                assert_eq!(found, want, "{from}..{to}");
            }
        }
    };
    check(&mut log);
    log.close(true).unwrap();
    check(&mut open_clean(&path, small()));
    // Unclean: the indexes of scanned segments are made anew.
    let aborts = files(&path).into_iter().filter(|n| n.ends_with(".txnindex")).collect::<Vec<_>>();
    assert!(aborts.len() > 2);
    for name in &aborts {
        std::fs::remove_file(path.join(name)).unwrap();
    }
    check(&mut open(&path, small()));
    // Garbled: made anew when asked for.
    for name in &aborts {
        std::fs::write(path.join(name), b"garbage").unwrap();
    }
    check(&mut open_clean(&path, small()));
    let mut log = open(&path, small());
    log.truncate_to(expected[20].2, 0).unwrap();
    let left = log.aborted_transactions(0, end).unwrap().len();
    assert_eq!(left, 20);
}

#[test]
fn flushing_moves_the_recovery_point_and_follows_the_settings() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { flush_messages: 10, flush_ms: 100, ..LogConfig::default() };
    let mut log = open(&dir.path().join("t-0"), config);
    assert!(!log.flush_due(1_000));
    log.append_as_leader(&batch(4, 10, 0), 0, 0).unwrap();
    assert!(!log.flush_due(99));
    assert!(log.flush_due(100));
    log.append_as_leader(&batch(6, 10, 0), 0, 0).unwrap();
    assert!(log.flush_due(0));
    let handle = log.flush_handle().unwrap();
    assert_eq!(handle.up_to(), 10);
    log.append_as_leader(&batch(1, 10, 0), 0, 0).unwrap();
    handle.sync().unwrap();
    log.flushed(&handle, 50);
    assert_eq!((log.recovery_point(), log.unflushed()), (10, 1));
    // A flush from before a truncation says nothing about what came after.
    let handle = log.flush_handle().unwrap();
    log.truncate_to(4, 0).unwrap();
    log.append_as_leader(&batch(20, 10, 0), 0, 0).unwrap();
    handle.sync().unwrap();
    log.flushed(&handle, 60);
    assert_eq!(log.recovery_point(), 4);
    log.flush(70).unwrap();
    assert!(log.flush_handle().is_none());
    // A finished segment asks for a flush by itself.
    log.set_config(LogConfig::default());
    log.append_as_leader(&batch(1, 10, 0), 0, 0).unwrap();
    assert!(!log.flush_due(1 << 40));
    log.roll(0).unwrap();
    assert!(log.flush_due(0));
}
