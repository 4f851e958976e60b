//! Bits that flip under a log that was opened after a clean stop, when nothing is scanned: no reader gets them.

mod common;

use std::path::{Path, PathBuf};

use common::*;
use klamm_log::{Damage, Log, LogError, Recovery};
use klamm_protocol::batch::batches;

/// Reads as the broker does: what has to be checked is checked first. The bytes, and the damage that was found.
fn read_checked(
    log: &mut Log,
    offset: i64,
    max_bytes: usize,
    found: &mut Vec<Damage>,
) -> Result<(Vec<u8>, i64), LogError> {
    loop {
        let end = log.log_end_offset();
        let read = log.read(offset, max_bytes, end, true)?;
        let Some(unchecked) = &read.unchecked else {
            return Ok((bytes_of(&read), read.next_offset));
        };
        let checked = unchecked.clone().check().unwrap();
        found.extend(log.checked(&checked));
    }
}

fn write(dir: &Path) -> (PathBuf, i64) {
    let mut log = open(dir, small());
    for i in 0..130 {
        log.append_as_leader(&batch_of(i % 3, 0, (i / 3 * 2) as i32, 2, 1_000 + i), (i / 25) as i32, 0).unwrap();
    }
    let (base, _) = log.segment_sizes().nth(1).unwrap();
    let end = log.log_end_offset();
    log.close(true).unwrap();
    (dir.join(format!("{base:020}.log")), end)
}

fn clean(end: i64) -> Recovery {
    Recovery { clean: true, recovery_point: end, ..Recovery::default() }
}

#[test]
fn a_flipped_bit_is_never_read_and_what_is_before_it_is() {
    let tmp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = tmp.path().join("t-0");
    let (file, end) = write(&dir);
    let good = std::fs::read(&file).unwrap();
    let whole = records(&mut open_with(klamm_log::RealDisk::shared(), &dir, small(), clean(end)).unwrap(), 0);
    let mut starts = vec![0];
    for batch in batches(&good) {
        starts.push(starts.last().unwrap() + batch.unwrap().1.len());
    }
    let long = std::env::var_os("KLAMM_LONG").is_some();
    let (mut found_once, mut tries) = (0, 0);
    for at in (0..good.len()).step_by(if long { 1 } else { 37 }) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&file, &bad).unwrap();
        let Ok(mut log) = open_with(klamm_log::RealDisk::shared(), &dir, small(), clean(end)) else {
            panic!("byte {at}: a clean stop reads nothing that could be damaged");
        };
        let (mut offset, mut read, mut found) = (0, Vec::new(), Vec::new());
        let error = loop {
            match read_checked(&mut log, offset, 600, &mut found) {
                Ok((bytes, next)) if !bytes.is_empty() => {
                    for batch in batches(&bytes) {
                        let (header, bytes) = batch.unwrap();
                        klamm_protocol::batch::verify_crc(bytes).unwrap();
                        read.extend(header.base_offset..header.next_offset());
                    }
                    offset = next;
                }
                Ok(_) => break None,
                Err(e) => {
                    if let LogError::Corrupt(damage) = &e {
                        log.note_damage(damage);
                    }
                    break Some(e);
                }
            }
        };
        tries += 1;
        // Up to the batch with the flipped bit, or one before whose neighbour it garbles; nothing is skipped.
        let damaged = starts.iter().rposition(|start| *start <= at).unwrap() as i64;
        let base = whole[0].0 + file.file_stem().unwrap().to_str().unwrap().parse::<i64>().unwrap();
        let first_bad = base + 2 * damaged;
        assert!(error.is_some(), "byte {at} of batch {damaged}: all {} records read", read.len());
        assert!(matches!(error, Some(LogError::Corrupt(_))), "byte {at}: {error:?}");
        assert!(read.iter().copied().eq(0..read.len() as i64), "byte {at}: {read:?}");
        assert!(read.len() as i64 <= first_bad, "byte {at}: read to {}, damaged at {first_bad}", read.len());
        assert!(
            read.len() as i64 + 2 >= first_bad,
            "byte {at}: read to {}, damaged at {first_bad}: {error:?}",
            read.len()
        );
        found_once += usize::from(!found.is_empty());
        // A replica that can take it from elsewhere goes back to before that segment, and on as if the rest had never been.
        let end = log.take_out_damage(0).unwrap().unwrap();
        assert_eq!(end, base, "byte {at}");
        assert_eq!(records(&mut log, 0).len() as i64, end, "byte {at}");
        assert_eq!(log.append_as_leader(&batch(2, 20, 7), 9, 0).unwrap().base_offset, end);
        drop(log);
        std::fs::remove_dir_all(&dir).unwrap();
        write(&dir);
    }
    println!(
        "figures R8 one log: {tries} flipped bits, none read; {found_once} found by a check, the others by their headers"
    );
}

#[test]
fn what_was_written_here_is_not_checked_until_it_was_out_of_the_cache() {
    let tmp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = tmp.path().join("t-0");
    let (_, end) = write(&dir);
    let mut log = open_with(klamm_log::RealDisk::shared(), &dir, small(), clean(end)).unwrap();
    let first = log.log_end_offset();
    log.append_as_leader(&batch(2, 20, 7), 9, 0).unwrap();
    let read = log.read(first, 1 << 20, first + 2, true).unwrap();
    assert!(read.unchecked.is_none(), "it came in checked");
    let old = log.read(0, 1 << 20, end, true).unwrap();
    let checked = old.unchecked.expect("it was found on disk").check().unwrap();
    assert_eq!(log.checked(&checked), None);
    let again = log.read(0, 1 << 20, end, true).unwrap();
    assert!(again.unchecked.is_none(), "once is enough");
    let cached = again.range.unwrap().cached.unwrap();
    assert!(!cached.is_stale());
    cached.note(0);
    assert!(log.read(0, 1 << 20, end, true).unwrap().unchecked.is_some());
    assert!(cached.is_stale(), "nor is it sent by who had it before");
}

#[test]
fn a_flipped_epoch_that_a_start_after_a_crash_has_read_is_not_shown() {
    let tmp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = tmp.path().join("t-0");
    let (file, _) = write(&dir);
    let mut bytes = std::fs::read(&file).unwrap();
    let second = batches(&bytes).next().unwrap().unwrap().1.len();
    bytes[second + 15] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    let mut log = open_with(klamm_log::RealDisk::shared(), &dir, small(), Recovery::default()).unwrap();
    let (mut offset, mut found) = (0, Vec::new());
    while let Ok((bytes, next)) = read_checked(&mut log, offset, 600, &mut found)
        && !bytes.is_empty()
    {
        offset = next;
    }
    assert!(!found.is_empty(), "all {offset} records were shown");
}

/// The epoch file is what would tell, and it is made again from the batches: from those that agree with each other.
#[test]
fn a_flipped_epoch_is_not_shown_though_the_epoch_file_is_garbled_as_well() {
    let tmp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = tmp.path().join("t-0");
    let mut log = open(&dir, small());
    for n in 0..120 {
        log.append_as_leader(&batch(1, 20, n), 0, 0).unwrap();
    }
    log.close(true).unwrap();
    drop(log);
    let file = dir.join(format!("{:020}.log", 0));
    let sound = std::fs::read(&file).unwrap();
    let len = batches(&sound).next().unwrap().unwrap().1.len();
    // The last of the segment, too.
    for at in [0, 1, 7, sound.len() / len - 1] {
        let mut bytes = sound.clone();
        bytes[at * len + 15] ^= 4;
        for recovery in [clean(120), Recovery::default()] {
            std::fs::write(&file, &bytes).unwrap();
            std::fs::write(dir.join("leader-epoch-checkpoint"), "garbled").unwrap();
            let mut log = open_with(klamm_log::RealDisk::shared(), &dir, small(), recovery).unwrap();
            let (mut offset, mut found) = (0, Vec::new());
            while let Ok((bytes, next)) = read_checked(&mut log, offset, 600, &mut found)
                && !bytes.is_empty()
            {
                offset = next;
            }
            let places: Vec<i64> = found.iter().map(|damage| damage.offset).collect();
            assert_eq!((places, offset), (vec![at as i64], at as i64));
        }
    }
}

#[test]
fn a_garbled_offset_does_not_make_what_follows_a_torn_tail() {
    let tmp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = tmp.path().join("t-0");
    let mut log = open(&dir, small());
    for n in 0..10 {
        log.append_as_leader(&batch(1, 20, n), 0, 0).unwrap();
    }
    log.close(true).unwrap();
    drop(log);
    let file = dir.join(format!("{:020}.log", 0));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[7] ^= 128;
    std::fs::write(&file, &bytes).unwrap();
    for recovery in [clean(10), Recovery::default()] {
        let opened = open_with(klamm_log::RealDisk::shared(), &dir, small(), recovery);
        // After a clean stop nothing is scanned, and readers find it.
        let end = opened.map(|log| log.log_end_offset());
        assert!(matches!(end, Err(LogError::Corrupt(_)) | Ok(10)), "{end:?}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing was cut off");
    }
}

#[test]
fn a_log_start_that_only_a_garbled_checkpoint_tells_deletes_nothing() {
    let tmp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = tmp.path().join("t-0");
    let (_, end) = write(&dir);
    let mut log = open_with(klamm_log::RealDisk::shared(), &dir, small(), clean(end)).unwrap();
    log.delete_records(7, 0).unwrap();
    log.close(true).unwrap();
    drop(log);
    for (told, start) in [(7, 7), (7 + 64, 7), (7 + 1024, 7)] {
        let log =
            open_with(klamm_log::RealDisk::shared(), &dir, small(), Recovery { log_start_offset: told, ..clean(end) });
        assert_eq!(log.unwrap().log_start_offset(), start, "the checkpoint says {told}");
    }
}
