//! Side files cut at every byte of their last 64 KiB: the log opens, and every read gives what it gave before.
//!
//! Segments are cut in `recovery.rs`. CI takes a sample of the bytes with a prime step; `KLAMM_LONG=1` takes them all.

mod common;

use std::path::Path;

use common::*;
use klamm_log::checkpoint::Offsets;
use klamm_log::{LogConfig, LogDir, RealDisk, Recovery, dirs};
use klamm_protocol::Uuid;
use klamm_protocol::batch::{BatchBuilder, EndTxnMarker, end_txn_marker};
use klamm_protocol::compress::Limits;

const TAIL: usize = 64 * 1024;

fn long() -> bool {
    std::env::var_os("KLAMM_LONG").is_some()
}

/// Every batch gets an index entry, so that indexes are large beside their segments.
fn config() -> LogConfig {
    LogConfig { segment_bytes: 1 << 30, index_interval_bytes: 1, ..LogConfig::default() }
}

/// One segment with ordinary producers, transactions (every other one aborted) and many epochs.
fn write(dir: &Path, batches: i64) {
    let mut log = open(dir, config());
    for i in 0..batches {
        let epoch = (i / 10) as i32;
        if i % 4 == 0 {
            let txn = BatchBuilder::new(0).producer(900 + i, 0, 0).transactional();
            log.append_as_leader(&build(txn, 1, 5, i), epoch, 0).unwrap();
            let marker = EndTxnMarker { commit: i % 8 == 0, coordinator_epoch: 1 };
            log.append_as_coordinator(&end_txn_marker(0, i as i32, 0, (900 + i, 0), marker).unwrap(), epoch, 0)
                .unwrap();
        } else {
            log.append_as_leader(&batch_of(i % 3, 0, (i / 4) as i32 * 100 + i as i32 % 4, 1, i), epoch, 0).ok();
            log.append_as_leader(&batch(1, 5, i), epoch, 0).unwrap();
        }
    }
    log.close(true).unwrap();
}

/// What readers see, by a sample of offsets and times.
fn seen(dir: &Path, recovery: Recovery) -> Vec<String> {
    let mut log = open_with(RealDisk::shared(), dir, config(), recovery).unwrap();
    let end = log.log_end_offset();
    let mut seen = vec![format!("{end} {:?}", log.epochs())];
    for at in (0..24).map(|n| end * n / 24 + n % 3).filter(|at| *at < end) {
        let read = log.read(at, 700, end, true).unwrap();
        seen.push(format!("{at} {} {} {}", read.first_offset, read.next_offset, read.len()));
        let found = log.offset_for_timestamp(at / 2, Limits::both(1 << 20)).unwrap();
        seen.push(format!("{:?} {:?}", found, log.aborted_transactions(at, at + 40).unwrap()));
    }
    // Not the times of their batches: a snapshot has room for one time, the marker's.
    let of = |(id, p): (i64, &klamm_log::producers::Producer)| {
        format!("{id} {} {} {:?} {:?}", p.epoch, p.last_sequence(), p.txn_start, p.last_batch().map(|b| b.last_offset))
    };
    let mut producers: Vec<String> = log.producers().iter().map(of).collect();
    producers.sort();
    seen.extend(producers);
    seen
}

#[test]
fn indexes_snapshots_and_epochs_cut_anywhere_change_no_read() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    write(&dir, if long() { 4_000 } else { 400 });
    let end = open_clean(&dir, config()).log_end_offset();
    let clean = Recovery { clean: true, recovery_point: end, ..Recovery::default() };
    let crashed = Recovery { recovery_point: end / 2, ..Recovery::default() };
    let restarted = Recovery { machine_restarted: true, ..Recovery::default() };
    let expected = seen(&dir, clean.clone());
    let mut tried = 0;
    let names = files(&dir).into_iter().filter(|n| !n.ends_with(".log"));
    for name in names {
        let path = dir.join(&name);
        let whole = std::fs::read(&path).unwrap();
        let step = if long() { 13 } else { (whole.len().min(TAIL) / 12).max(1) | 1 };
        for cut in (whole.len().saturating_sub(TAIL)..whole.len()).step_by(step) {
            for recovery in [&clean, &crashed, &restarted] {
                // Between two entries a transaction index looks whole, and a clean stop gives no reason to doubt it: 005.
                if name.ends_with("txnindex") && cut % 34 == 0 && recovery.clean {
                    continue;
                }
                std::fs::write(&path, &whole[..cut]).unwrap();
                let found = seen(&dir, recovery.clone());
                let other: Vec<_> = found.iter().zip(&expected).filter(|(a, b)| a != b).collect();
                let what = format!("{name} of {} bytes cut at {cut}, {recovery:?}", whole.len());
                assert!(other.is_empty() && found.len() == expected.len(), "{what}: {other:?}");
                tried += 1;
            }
        }
        std::fs::write(&path, &whole).unwrap();
    }
    println!("figures R7 side files: {tried} reopenings with a file cut, all reads identical");
    assert!(tried > 150, "{tried}");
}

/// The directory's own files, cut at every byte: it opens, or says what is wrong and what to do.
#[test]
fn files_of_the_directory_cut_anywhere() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("d");
    let lock = |boot: &str| LogDir::open(RealDisk::shared(), &path, boot);
    {
        let dir = lock("boot").unwrap();
        dir.check_or_format("some-cluster-of-22-chars", 12, Uuid([3; 16])).unwrap();
        let mut log = open(&dir.partition_path("t", 0), small());
        for i in 0..80 {
            log.append_as_leader(&batch(2, 100, i), (i / 30) as i32, 0).unwrap();
        }
        log.delete_records(75, 0).unwrap();
        log.close(true).unwrap();
        let of = |offset: i64| Offsets::from([(("t".to_owned(), 0), offset), (("u".to_owned(), 3), 12)]);
        dir.write_recovery_points(&of(160)).unwrap();
        dir.write_log_starts(&of(75)).unwrap();
        dir.write_high_watermarks(&of(150)).unwrap();
        dir.write_cleaner_offsets(&of(0)).unwrap();
        dir.close_clean(41).unwrap();
    }
    let names: Vec<String> = files(&path).into_iter().filter(|n| n != "t-0" && n != ".lock").collect();
    assert!(names.len() >= 6, "{names:?}");
    let all: Vec<(String, Vec<u8>)> = names.iter().map(|n| (n.clone(), std::fs::read(path.join(n)).unwrap())).collect();
    let (mut opened, mut refused) = (0, 0);
    for (name, whole) in &all {
        // Cut, and also gone.
        for cut in (0..whole.len()).map(Some).chain([None]) {
            for (name, bytes) in &all {
                std::fs::write(path.join(name), bytes).unwrap();
            }
            match cut {
                Some(cut) => std::fs::write(path.join(name), &whole[..cut]).unwrap(),
                None => std::fs::remove_file(path.join(name)).unwrap(),
            }
            let what = format!("{name} cut at {cut:?}");
            let dir = lock("boot").unwrap_or_else(|e| panic!("{what}: {e}"));
            match dir.check_or_format("some-cluster-of-22-chars", 12, Uuid([9; 16])) {
                Ok(meta) => assert_eq!(meta.directory_id, Uuid([3; 16]), "{what}"),
                Err(e) => {
                    assert_eq!(name, "meta.properties", "{what}: {e}");
                    assert!(e.to_string().contains("directory"), "{what}: {e}");
                    assert!(matches!(e, dirs::DirError::BadMeta(..) | dirs::DirError::Unmarked(_)), "{what}: {e}");
                    refused += 1;
                    continue;
                }
            }
            if name == ".kafka_cleanshutdown" && cut.is_none_or(|cut| cut + 3 < whole.len()) {
                assert!(dir.clean_epoch().is_none_or(|epoch| epoch == 41), "{what}");
            }
            let high_watermark = dir.high_watermarks().unwrap().get(&("t".to_owned(), 0)).copied();
            assert!(high_watermark.is_none_or(|h| h == 150), "{what}");
            let log_path = dir.partition_path("t", 0);
            let mut log = open_with(RealDisk::shared(), &log_path, small(), dir.recovery("t", 0)).unwrap();
            // What was deleted stays so, also when only the checkpoint knew exactly from where.
            assert_eq!((log.log_start_offset(), log.log_end_offset()), (75, 160), "{what}");
            assert_eq!(log.recovery_report().lost_from, None, "{what}");
            let offsets: Vec<i64> = records(&mut log, 75).iter().map(|r| r.0).filter(|o| *o >= 75).collect();
            assert_eq!(offsets, (75..160).collect::<Vec<_>>(), "{what}");
            opened += 1;
        }
    }
    println!(
        "figures R7 directory files: {opened} starts with a file cut or gone, {refused} refused without a meta.properties"
    );
    assert!(opened > 100 && refused > 40, "{opened}, {refused}");
}

/// Neither of the files that Kafka's format has for it tells where the log starts: the copy does. The epoch file alone can
/// bring deleted records back; nothing hides any.
#[test]
fn a_log_start_outlives_the_checkpoint_and_the_epoch_file() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("d");
    let lock = || LogDir::open(RealDisk::shared(), &path, "boot").unwrap();
    let dir = lock();
    let mut log = open(&dir.partition_path("t", 0), config());
    for i in 0..80 {
        log.append_as_leader(&batch(2, 100, i), (i / 30) as i32, 0).unwrap();
    }
    log.delete_records(75, 0).unwrap();
    log.close(true).unwrap();
    drop(log);
    dir.write_recovery_points(&Offsets::from([(("t".to_owned(), 0), 160)])).unwrap();
    dir.write_log_starts(&Offsets::from([(("t".to_owned(), 0), 75)])).unwrap();
    dir.recovered().unwrap();
    dir.close_clean(41).unwrap();
    let files = ["log-start-offset-checkpoint", "t-0/leader-epoch-checkpoint", ".kafka_cleanshutdown"];
    let whole = files.map(|name| std::fs::read_to_string(path.join(name)).unwrap());
    assert!(whole[0].ends_with("t 0 75\n") && whole[1].contains("1 75\n"), "{whole:?}");
    let put = |name: &str, text: Option<String>| match text {
        Some(text) => std::fs::write(path.join(name), text).unwrap(),
        None => std::fs::remove_file(path.join(name)).unwrap(),
    };
    let checkpoints =
        [None, Some("nothing".into()), Some(whole[0].replace("75", "95")), Some(whole[0].replace("75", "5"))];
    let epochs = |start: &str| Some(whole[1].replace("1 75\n", &format!("1 {start}\n")));
    for clean in [true, false] {
        for checkpoint in &checkpoints {
            for (epochs, start) in [(None, 75), (Some("nothing".into()), 75), (epochs("99"), 75), (epochs("65"), 65)] {
                put(files[0], checkpoint.clone().or_else(|| Some(String::new())));
                put(files[1], Some(epochs.clone().unwrap_or_default()));
                put(files[2], Some(whole[2].clone()));
                if !clean {
                    put(files[2], None);
                }
                let dir = lock();
                let log_path = dir.partition_path("t", 0);
                let log = open_with(RealDisk::shared(), &log_path, config(), dir.recovery("t", 0)).unwrap();
                let what = format!("clean: {clean}, {checkpoint:?}, {epochs:?}");
                assert_eq!((log.log_start_offset(), log.log_end_offset()), (start, 160), "{what}");
            }
        }
    }
    // Who writes both and knows no copy is believed.
    put(files[0], Some(whole[0].replace("75", "77")));
    put(files[1], epochs("77"));
    let dir = lock();
    let log = open_with(RealDisk::shared(), &dir.partition_path("t", 0), config(), dir.recovery("t", 0)).unwrap();
    assert_eq!(log.log_start_offset(), 77);
}
