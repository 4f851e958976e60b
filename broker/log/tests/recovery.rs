//! What a crash leaves behind, and what opening makes of it: torn tails, damage, missing and garbled side files.

mod common;

use klamm_protocol::compress::Limits;
use std::path::{Path, PathBuf};

use common::*;
use klamm_log::{Log, LogConfig, LogError, RealDisk, Recovery};

fn unclean(recovery_point: i64) -> Recovery {
    Recovery { recovery_point, ..Recovery::default() }
}

fn reopen(dir: &Path, recovery: Recovery) -> Result<Log, LogError> {
    open_with(RealDisk::shared(), dir, small(), recovery)
}

/// A log of several segments, written to `dir` and left without closing; its batches' end positions in the last
/// segment, with the offsets after them.
fn write_log(dir: &Path, batches: i64) -> (PathBuf, Vec<(u64, i64)>) {
    let mut log = open(dir, small());
    for i in 0..batches {
        let records = batch_of(i % 3, 0, (i / 3 * 2) as i32, 2, 1_000 + i);
        log.append_as_leader(&records, (i / 25) as i32, 0).unwrap();
    }
    let (base, _) = log.segment_sizes().last().unwrap();
    let mut ends = vec![(0, base)];
    let mut position = 0;
    for (header, bytes) in read_all(&mut log, base, 1_000) {
        position += bytes.len() as u64;
        ends.push((position, header.next_offset()));
    }
    drop(log);
    (dir.join(format!("{base:020}.log")), ends)
}

/// Where the log must end when the last segment's bytes are good up to `good`.
fn end_for(ends: &[(u64, i64)], good: u64) -> i64 {
    ends.iter().rfind(|(position, _)| *position <= good).unwrap().1
}

/// Every byte in CI would be a minute of debug build; a prime step still meets all kinds of places.
fn step() -> usize {
    if std::env::var_os("KLAMM_LONG").is_some() { 1 } else { 37 }
}

#[test]
fn a_file_cut_at_any_byte_opens_and_only_the_torn_batch_goes() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let (file, ends) = write_log(&dir, 130);
    let whole = std::fs::read(&file).unwrap();
    assert!(whole.len() > 1_000, "{}", whole.len());
    for cut in (0..=whole.len()).step_by(step().min(11)) {
        std::fs::write(&file, &whole[..cut]).unwrap();
        let mut log = reopen(&dir, unclean(0)).unwrap();
        let end = end_for(&ends, cut as u64);
        assert_eq!(log.log_end_offset(), end, "cut at {cut}");
        assert_eq!(records(&mut log, 0).len() as i64, end);
        assert_eq!(log.recovery_report().lost_from, None);
        assert!(log.recovery_report().set_aside.is_empty());
        assert_eq!(std::fs::metadata(&file).unwrap().len(), end_position(&ends, end));
    }
}

fn end_position(ends: &[(u64, i64)], end: i64) -> u64 {
    ends.iter().find(|(_, o)| *o == end).unwrap().0
}

#[test]
fn a_tail_overwritten_from_any_byte_is_cut_there() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let (file, ends) = write_log(&dir, 130);
    let whole = std::fs::read(&file).unwrap();
    let noise: Vec<u8> = (0..whole.len() as u64).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
    for from in (0..whole.len()).step_by(step()) {
        for fill in [vec![0; whole.len() - from], noise[from..].to_vec(), vec![2; whole.len() - from]] {
            let mut bytes = whole[..from].to_vec();
            bytes.extend_from_slice(&fill);
            std::fs::write(&file, &bytes).unwrap();
            let mut log = reopen(&dir, unclean(0)).unwrap();
            let end = log.log_end_offset();
            // A filled byte may happen to be the right one.
            assert!(end >= end_for(&ends, from as u64) && end <= end_for(&ends, from as u64 + 8), "from {from}");
            assert_eq!(records(&mut log, 0).len() as i64, end);
        }
    }
}

#[test]
fn the_last_64_kib_of_a_large_segment_may_be_torn_anywhere() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let mut log = open(&dir, LogConfig::default());
    let mut ends = vec![(0, 0)];
    let mut position = 0;
    for i in 0..60 {
        let records = batch(3, 500 + i * 13, i as i64);
        position += records.len() as u64;
        ends.push((position, log.append_as_leader(&records, 0, 0).unwrap().last_offset + 1));
    }
    drop(log);
    let file = dir.join(format!("{:020}.log", 0));
    let whole = std::fs::read(&file).unwrap();
    assert!(whole.len() > 100 * 1024);
    let first = whole.len() - 64 * 1024;
    let long = step() == 1;
    for cut in (first..whole.len()).step_by(if long { 1 } else { 331 }) {
        std::fs::write(&file, &whole[..cut]).unwrap();
        let log = open(&dir, LogConfig::default());
        assert_eq!(log.log_end_offset(), end_for(&ends, cut as u64), "cut at {cut}");
    }
}

#[test]
fn after_a_clean_stop_a_torn_tail_is_found_as_well_and_reported() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let (file, ends) = write_log(&dir, 130);
    reopen(&dir, unclean(0)).unwrap().close(true).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for cut in (whole.len() - 400..whole.len()).step_by(7) {
        std::fs::write(&file, &whole[..cut]).unwrap();
        let recovery = Recovery { clean: true, recovery_point: 260, ..Recovery::default() };
        let mut log = reopen(&dir, recovery).unwrap();
        let end = end_for(&ends, cut as u64);
        assert_eq!(log.log_end_offset(), end, "cut at {cut}");
        assert_eq!(log.recovery_report().lost_from, Some(end));
        assert_eq!(records(&mut log, 0).len() as i64, end);
    }
}

fn flip(file: &Path, at: usize) -> Vec<u8> {
    let before = std::fs::read(file).unwrap();
    let mut bytes = before.clone();
    bytes[at] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
    before
}

#[test]
fn damage_with_sound_batches_behind_it_is_refused_and_changes_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let (last, ends) = write_log(&dir, 130);
    let first = dir.join(format!("{:020}.log", 0));
    // Anywhere in the last segment but in its last batch; and anywhere in an earlier segment.
    let in_last = (0..ends[ends.len() - 2].0 as usize).step_by(step()).map(|at| (&last, at));
    let in_first = (0..std::fs::metadata(&first).unwrap().len() as usize).step_by(step() * 2).map(|at| (&first, at));
    let mut refused = 0;
    for (file, at) in in_last.chain(in_first) {
        let before = flip(file, at);
        let names = files(&dir).len();
        match reopen(&dir, unclean(0)) {
            Err(LogError::Corrupt(damage)) => {
                refused += 1;
                assert_eq!(&damage.file, file);
                assert!(damage.position <= at as u64 || in_prefix(&before, at));
                assert!(damage.to_string().contains(&format!("is damaged at byte {}", damage.position)), "{damage}");
                assert_eq!(std::fs::read(file).unwrap().len(), before.len());
                assert_eq!(files(&dir).len(), names);
            }
            // Offset and leader epoch aren't under the CRC: a flip there can pass unseen, as it does in Kafka.
            Ok(_) => assert!(in_prefix(&before, at), "byte {at} of {}", file.display()),
            Err(e) => panic!("byte {at}: {e}"),
        }
        std::fs::write(file, before).unwrap();
    }
    assert!(refused > 20, "{refused}");
    assert_eq!(reopen(&dir, unclean(0)).unwrap().log_end_offset(), 260);
}

fn in_prefix(bytes: &[u8], at: usize) -> bool {
    let mut start = 0;
    for batch in klamm_protocol::batch::batches(bytes) {
        let len = batch.unwrap().1.len();
        if at < start + len {
            return at - start < 16;
        }
        start += len;
    }
    false
}

#[test]
fn what_a_power_loss_may_have_left_is_cut_and_set_aside() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let (_, _) = write_log(&dir, 130);
    let first = dir.join(format!("{:020}.log", 0));
    flip(&first, 300);
    // Below the recovery point it was flushed: refused whatever happened to the machine.
    let flushed = Recovery { machine_restarted: true, ..unclean(200) };
    let mut log = reopen(&dir, flushed).unwrap();
    assert!(matches!(log.read(0, 1 << 20, 260, true), Ok(r) if r.len() > 300));
    drop(log);
    assert!(matches!(reopen(&dir, unclean(0)), Err(LogError::Corrupt(_))));
    let mut log = reopen(&dir, Recovery { machine_restarted: true, ..unclean(0) }).unwrap();
    let end = log.log_end_offset();
    assert!(end > 0 && end < 10, "{end}");
    let report = log.recovery_report().clone();
    assert!(report.set_aside.len() > 2, "{report:?}");
    assert!(report.set_aside.iter().all(|f| f.exists()));
    assert_eq!(records(&mut log, 0).len() as i64, end);
    assert_eq!(log.append_as_leader(&batch(1, 1, 0), 9, 0).unwrap().base_offset, end);
    drop(log);
    // And it opens again, with the files set aside still there.
    let log = reopen(&dir, unclean(0)).unwrap();
    assert_eq!(log.log_end_offset(), end + 1);
    assert!(report.set_aside.iter().all(|f| f.exists()));
}

#[test]
fn a_replica_that_is_filled_again_opens_before_its_damage() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let (last, ends) = write_log(&dir, 130);
    flip(&last, ends[2].0 as usize + 70);
    let log = reopen(&dir, Recovery { refill: true, ..unclean(250) }).unwrap();
    let base: i64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(log.log_end_offset(), base, "the damaged segment goes as a whole");
    assert!(log.kept_bytes() > 0 && log.recovery_report().set_aside.is_empty());
}

#[test]
fn side_files_missing_or_garbled_change_no_read() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    write_log(&dir, 130);
    reopen(&dir, unclean(0)).unwrap().close(true).unwrap();
    let clean = Recovery { clean: true, recovery_point: 260, ..Recovery::default() };
    let all = |log: &mut Log| {
        let batches = read_all(log, 0, 700);
        let singles: Vec<_> = (0..260).map(|o| log.read(o, 1, 260, true).unwrap().first_offset).collect();
        let bounded: Vec<_> = (1..260).map(|o| log.read(0, 1 << 20, o, true).unwrap().next_offset).collect();
        let times: Vec<_> = (900..1_200).map(|t| log.offset_for_timestamp(t, Limits::both(1 << 20)).unwrap()).collect();
        let newest = log.max_timestamp_offset(Limits::both(1 << 20)).unwrap();
        let producers: Vec<_> = (0..3).map(|p| log.producers().get(p).map(|p| p.last_sequence())).collect();
        (batches, singles, bounded, times, newest, log.epochs().clone(), producers)
    };
    let expected = all(&mut reopen(&dir, clean.clone()).unwrap());
    let mut tried = 0;
    for name in files(&dir).into_iter().filter(|n| !n.ends_with(".log") && n != "partition.metadata") {
        let path = dir.join(&name);
        let good = std::fs::read(&path).unwrap();
        let mut harms: Vec<Option<Vec<u8>>> = vec![None, Some(Vec::new()), Some(vec![0; good.len()])];
        harms.push(Some(good.iter().map(|b| !b).collect()));
        harms.push(Some(good[..good.len() / 2].to_vec()));
        harms.push(Some(good[..good.len().saturating_sub(3)].to_vec()));
        harms.push(Some([&good[..], &[0; 4096]].concat()));
        for at in (0..good.len()).step_by(5) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x41;
            harms.push(Some(bytes));
        }
        for (n, harm) in harms.into_iter().enumerate() {
            match &harm {
                None => std::fs::remove_file(&path).unwrap(),
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            }
            for recovery in [clean.clone(), unclean(0), unclean(200)] {
                // Flipped digits of the epoch file can still be a valid file; a clean stop then has no reason to doubt it.
                if name == klamm_log::epochs::EPOCH_FILE
                    && harm.as_ref().is_some_and(|h| klamm_log::Epochs::parse(h).is_some())
                {
                    continue;
                }
                let mut log = reopen(&dir, recovery.clone()).unwrap();
                let found = all(&mut log);
                let what = format!("{name}, harm {n}, {recovery:?}");
                assert!(found.0 == expected.0, "batches: {what}");
                assert_eq!(found.1, expected.1, "{what}");
                assert_eq!(found.2, expected.2, "{what}");
                assert_eq!(found.3, expected.3, "{what}");
                assert_eq!((found.4, found.5, found.6), (expected.4, expected.5.clone(), expected.6.clone()), "{what}");
                tried += 1;
            }
            std::fs::write(&path, &good).unwrap();
        }
    }
    println!("{tried} reopenings with a harmed side file, all reads identical");
    assert!(tried > 300);
}

#[test]
fn all_side_files_gone_at_once() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    write_log(&dir, 130);
    reopen(&dir, unclean(0)).unwrap().close(true).unwrap();
    for name in files(&dir).into_iter().filter(|n| !n.ends_with(".log")) {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    let mut log = reopen(&dir, Recovery { clean: true, recovery_point: 260, ..Recovery::default() }).unwrap();
    assert_eq!(records(&mut log, 0).len(), 260);
    assert_eq!(log.producers().len(), 3);
    assert_eq!(log.latest_epoch(), Some(5));
    assert_eq!(log.epochs().entries().len(), 6);
}

#[test]
fn recovery_scans_only_from_the_recovery_points_segment() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let (last, _) = write_log(&dir, 130);
    let log = reopen(&dir, unclean(259)).unwrap();
    assert_eq!(log.recovery_report().scanned_bytes, std::fs::metadata(&last).unwrap().len());
    assert_eq!(log.recovery_point(), 259);
    assert_eq!(log.recovery_report().rebuilt, Vec::<&str>::new());
}

#[test]
fn leftovers_are_removed_and_strangers_left_alone() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    write_log(&dir, 130);
    for name in [
        "00000000000000000000.log.deleted",
        "00000000000000000000.log.cleaned",
        "leader-epoch-checkpoint.tmp",
        "00000000000000077777.index",
        "notes.txt",
    ] {
        std::fs::write(dir.join(name), "x").unwrap();
    }
    let log = reopen(&dir, unclean(0)).unwrap();
    assert_eq!(log.log_end_offset(), 260);
    let left = files(&dir);
    assert!(left.contains(&"notes.txt".to_owned()));
    assert!(!left.iter().any(|n| n.contains(".deleted") || n.contains(".cleaned") || n.contains("77777")));
}

#[test]
fn checkpoints_of_another_incarnation_do_no_harm() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let stale = Recovery {
        recovery_point: 5_000,
        log_start_offset: 1_000,
        clean: true,
        machine_restarted: true,
        ..Recovery::default()
    };
    let log = reopen(&dir, stale.clone()).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset(), log.recovery_point()), (0, 0, 0));
    assert_eq!(log.recovery_report().lost_from, None);
    drop(log);
    write_log(&dir, 130);
    for clean in [true, false] {
        let mut log = reopen(&dir, Recovery { clean, ..stale.clone() }).unwrap();
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (0, 260));
        assert_eq!(records(&mut log, 0).len(), 260);
    }
}

#[test]
fn a_thousand_flipped_bits_are_found_where_they_are() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let (_, _) = write_log(&dir, 130);
    let reports = klamm_log::verify(&RealDisk, &dir).unwrap();
    assert!(reports.iter().all(|r| r.damage.is_empty()));
    assert_eq!(reports.iter().map(|r| r.batches).sum::<u64>(), 130);
    assert_eq!(reports.iter().map(|r| r.records).sum::<u64>(), 260);
    assert_eq!(reports.last().unwrap().offsets.unwrap().1, 260);
    let logs: Vec<PathBuf> = reports.iter().map(|r| r.path.clone()).collect();
    let (mut found, mut unseen) = (0, 0);
    for n in 0..1_000usize {
        let file = &logs[n * 7 % logs.len()];
        let good = std::fs::read(file).unwrap();
        let at = n * 7_919 % good.len();
        let mut bad = good.clone();
        bad[at] ^= 1 << (n % 8);
        std::fs::write(file, &bad).unwrap();
        let damaged: Vec<_> =
            klamm_log::verify(&RealDisk, &dir).unwrap().into_iter().filter(|r| !r.damage.is_empty()).collect();
        match &damaged[..] {
            [one] => {
                found += 1;
                assert_eq!(&one.path, file);
                assert!(one.damage[0].position <= at as u64 || in_prefix(&good, at));
                assert!(one.batches >= 1, "{one:?}");
            }
            [] => {
                unseen += 1;
                assert!(in_prefix(&good, at));
            }
            more => panic!("{more:?}"),
        }
        std::fs::write(file, good).unwrap();
    }
    println!("{found} of 1000 flipped bits found, {unseen} changed only an offset or leader epoch");
    assert!(found > 900, "{found}");
}

#[test]
fn a_sealed_segment_whose_unflushed_end_never_reached_the_disk() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    write_log(&dir, 130);
    // Cut the first segment at a batch's edge: nothing looks wrong but the offsets.
    let first = dir.join(format!("{:020}.log", 0));
    let bytes = std::fs::read(&first).unwrap();
    let edge: usize = klamm_protocol::batch::batches(&bytes).take(5).map(|b| b.unwrap().1.len()).sum();
    std::fs::write(&first, &bytes[..edge]).unwrap();
    // The process crashed: it can't be that, so somebody cut the file. It opens, and the hole is reported.
    let mut log = reopen(&dir, unclean(0)).unwrap();
    let holes = log.recovery_report().holes.clone();
    assert!(holes.len() == 1 && holes[0].0 == 10, "{holes:?}");
    assert_eq!(records(&mut log, 0).len() as i64, 260 - (holes[0].1 - 10));
    drop(log);
    // The machine went down: what was written later is worth nothing without it, but kept.
    let recovery = Recovery { machine_restarted: true, ..unclean(0) };
    let mut log = reopen(&dir, recovery.clone()).unwrap();
    assert_eq!(log.log_end_offset(), 10);
    assert_eq!(records(&mut log, 0).len(), 10);
    assert!(log.recovery_report().set_aside.len() > 2);
    assert_eq!(log.append_as_leader(&batch(1, 1, 0), 9, 0).unwrap().base_offset, 10);
    drop(log);
    assert_eq!(reopen(&dir, recovery).unwrap().log_end_offset(), 11);
}
