//! What a repair takes out of a log is kept, and what is sound of it can be taken back: it may be the only copy.

mod common;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::*;
use klamm_log::faulty::FaultyDisk;
use klamm_log::{Disk, Log, RealDisk, Recovery};
use klamm_protocol::batch::{BatchHeader, batches};

/// A log of several segments; all its batches.
fn write(disk: Arc<dyn Disk>, dir: &Path) -> Vec<(BatchHeader, Bytes)> {
    let mut log = open_with(disk, dir, small(), Recovery::default()).unwrap();
    for i in 0..130 {
        log.append_as_leader(&batch_of(i % 3, 0, (i / 3 * 2) as i32, 2, 1_000 + i), (i / 25) as i32, 0).unwrap();
    }
    let all = read_all(&mut log, 0, 1_000);
    log.close(true).unwrap();
    all
}

fn reopen(disk: Arc<dyn Disk>, dir: &Path, refill: bool) -> Log {
    let clean = !refill;
    let recovery_point = if refill { 0 } else { 260 };
    open_with(disk, dir, small(), Recovery { clean, recovery_point, refill, ..Recovery::default() }).unwrap()
}

/// Checks all of a log as the scrub does, and has the first damage taken out. Whether there was any.
fn repair(log: &mut Log) -> bool {
    let mut base = 0;
    while let Some((at, unchecked)) = log.segment_to_check(base).unwrap() {
        log.checked(&unchecked.check().unwrap());
        base = at + 1;
    }
    log.take_out_damage(0).unwrap().is_some()
}

/// Fills the log again: from what is kept where that has it, from `all`, as a leader would give it, where it has not. The
/// batches that had to come from the leader.
fn refill(log: &mut Log, all: &[(BatchHeader, Bytes)]) -> Vec<usize> {
    let mut given = Vec::new();
    while log.log_end_offset() < 260 {
        let end = log.log_end_offset();
        let at = all.iter().position(|(header, _)| header.base_offset == end).expect("it ends between batches");
        let kept = log.kept().and_then(|kept| kept.read().unwrap());
        let records = kept.unwrap_or_else(|| {
            given.push(at);
            all[at].1.clone()
        });
        for (n, batch) in (at..).zip(batches(&records)) {
            assert_eq!(batch.unwrap().1, &all[n].1[..], "batch {n} is not what was written");
        }
        log.taking_kept();
        log.append_as_follower(&records, 0).unwrap().unwrap();
    }
    assert_eq!(read_all(log, 0, 1_000), all);
    given
}

fn kept_files(dir: &Path) -> Vec<String> {
    files(dir).into_iter().filter(|name| name.ends_with(".aside")).collect()
}

fn let_go(log: &mut Log) {
    if let Some(handle) = log.flush_handle() {
        handle.sync().unwrap();
        log.flushed(&handle, 0);
    }
    for file in log.let_go_of_kept(false) {
        std::fs::remove_file(file).unwrap();
    }
}

/// Of the second segment: its file, and the numbers of its batches.
fn second(log: &Log, dir: &Path, all: &[(BatchHeader, Bytes)]) -> (std::path::PathBuf, std::ops::Range<usize>) {
    let bases: Vec<i64> = log.segment_sizes().map(|(base, _)| base).collect();
    let of = |base: i64| all.iter().position(|(header, _)| header.base_offset == base).unwrap();
    (dir.join(format!("{:020}.log", bases[1])), of(bases[1])..of(bases[2]))
}

#[test]
fn all_but_the_damaged_batch_comes_back_from_what_was_kept() {
    let tmp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let long = std::env::var_os("KLAMM_LONG").is_some();
    let (mut at, mut tries, mut more) = (0, 0, 0);
    loop {
        let dir = tmp.path().join("t-0");
        let all = write(RealDisk::shared(), &dir);
        let log = reopen(RealDisk::shared(), &dir, false);
        let (file, numbers) = second(&log, &dir, &all);
        drop(log);
        let mut bytes = std::fs::read(&file).unwrap();
        if at >= bytes.len() {
            break;
        }
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&file, &bytes).unwrap();
        let mut damaged = numbers.start;
        let mut end = all[damaged].1.len();
        while end <= at {
            damaged += 1;
            end += all[damaged].1.len();
        }
        // Found by the scrub of a running broker, or by the start after a crash.
        let crashed = at % 2 == 1;
        let mut log = reopen(RealDisk::shared(), &dir, crashed);
        assert!(crashed || repair(&mut log), "byte {at} of batch {damaged} is not found");
        assert!(
            log.log_end_offset() <= all[damaged].0.base_offset && log.kept_bytes() > 0,
            "byte {at} of batch {damaged} ({} before its end): ends at {}, {} kept",
            end - at,
            log.log_end_offset(),
            log.kept_bytes()
        );
        // It is still there after a restart: one file for each segment, with offsets that follow each other.
        let kept = kept_files(&dir);
        let ends = |name: &String| (name[..20].parse::<i64>().unwrap(), name[21..41].parse::<i64>().unwrap());
        assert!(kept.windows(2).all(|two| ends(&two[0]).1 == ends(&two[1]).0), "byte {at}: {kept:?}");
        assert_eq!((ends(&kept[0]).0, ends(&kept[kept.len() - 1]).1), (log.log_end_offset(), 260), "byte {at}");
        drop(log);
        let mut log = reopen(RealDisk::shared(), &dir, true);
        assert_eq!(kept_files(&dir), kept, "byte {at}");
        let given = refill(&mut log, &all);
        assert!(given.contains(&damaged), "byte {at} of batch {damaged}: {given:?}");
        // Where a garbled offset or epoch stands at the end of a file, its only neighbour cannot be vouched for either.
        let others = given.iter().filter(|n| **n != damaged).count();
        assert!(
            others <= 1 && given.iter().all(|n| n.abs_diff(damaged) <= 1),
            "byte {at} of batch {damaged}: {given:?}"
        );
        more += others;
        let_go(&mut log);
        assert_eq!((log.kept_bytes(), kept_files(&dir).len()), (0, 0), "byte {at}");
        drop(log);
        std::fs::remove_dir_all(&dir).unwrap();
        tries += 1;
        at += if long { 1 } else { 41 };
    }
    println!("figures R8 kept: {tries} flipped bits, all other records taken back, but for {more} neighbours");
    assert!(tries > 50);
}

#[test]
fn a_crash_at_any_step_of_setting_aside_loses_nothing() {
    let (mut crashes, mut losses) = (0, 0);
    for step in 0..40 {
        for power in [None, Some(1), Some(2), Some(3)] {
            let tmp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
            let dir = tmp.path().join("t-0");
            let disk = FaultyDisk::new();
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let all = write(shared.clone(), &dir);
            let mut log = reopen(shared.clone(), &dir, false);
            let (file, numbers) = second(&log, &dir, &all);
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[70] ^= 4;
            std::fs::write(&file, &bytes).unwrap();
            let mut base = 0;
            while let Some((at, unchecked)) = log.segment_to_check(base).unwrap() {
                log.checked(&unchecked.check().unwrap());
                base = at + 1;
            }
            disk.stop_after(step);
            let done = log.take_out_damage(0).is_ok();
            drop(log);
            disk.heal();
            if let Some(seed) = power {
                disk.power_loss(seed, seed == 1).unwrap();
                losses += 1;
            }
            crashes += u32::from(!done);
            let recovery = Recovery { refill: true, machine_restarted: power.is_some(), ..Recovery::default() };
            let mut log = open_with(shared, &dir, small(), recovery).unwrap();
            let given = refill(&mut log, &all);
            // What the loss of power undid may be sound again.
            assert!(given.iter().all(|n| *n == numbers.start), "step {step}, {power:?}, done {done}: {given:?}");
        }
    }
    println!("figures R8 kept: {crashes} crashes and {losses} power losses while segments were set aside");
    assert!(crashes > 20);
}

#[test]
fn what_is_cut_again_and_again_does_not_fill_the_disk() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let all = write(RealDisk::shared(), &dir);
    let size = std::fs::metadata(dir.join(format!("{:020}.log", 0))).unwrap().len();
    for round in 0..10 {
        let mut log = reopen(RealDisk::shared(), &dir, false);
        let file = dir.join(format!("{:020}.log", 0));
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[100 + round] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        assert!(repair(&mut log));
        assert_eq!(log.log_end_offset(), 0);
        // The leader gives the first batches again, and the disk garbles them again.
        for (_, bytes) in all.iter().take(20) {
            log.append_as_follower(bytes, 0).unwrap();
        }
        log.close(true).unwrap();
    }
    let kept: u64 = kept_files(&dir).iter().map(|f| std::fs::metadata(dir.join(f)).unwrap().len()).sum();
    let whole: usize = all.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(
        kept >= whole as u64 && kept <= whole as u64 + 3 * size,
        "{kept} bytes of {whole} in {:?}",
        kept_files(&dir)
    );
    // The first ones are there still.
    let mut log = reopen(RealDisk::shared(), &dir, true);
    refill(&mut log, &all);
}

#[test]
fn what_the_leader_contradicts_is_not_taken_twice() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let all = write(RealDisk::shared(), &dir);
    let mut log = reopen(RealDisk::shared(), &dir, false);
    let (file, numbers) = second(&log, &dir, &all);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert!(repair(&mut log));
    let end = log.log_end_offset();
    assert_eq!(end, all[numbers.start].0.base_offset);
    let records = log.kept().unwrap().read().unwrap().expect("the batches before the damaged one");
    log.taking_kept();
    log.append_as_follower(&records, 0).unwrap();
    // The next fetch says that the leader's log parts from this one where it was before.
    log.truncate_to(end, 0).unwrap();
    assert!(log.kept().is_none(), "it would be taken and cut for ever");
    log.append_as_follower(&all[numbers.start].1, 0).unwrap();
    assert!(log.kept().is_some(), "what comes after may be the leader's");
}
