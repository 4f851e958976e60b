//! Power lost under a whole log directory: its identity, its checkpoints and two partitions, as the broker uses them.
//!
//! After each loss the directory is opened as after a start of the machine. What had been flushed must be there, with
//! its producers' state; what was deleted before a checkpoint stays deleted; a clean mark stands for complete logs.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use klamm_log::checkpoint::Offsets;
use klamm_log::faulty::FaultyDisk;
use klamm_log::{Log, LogDir, LogError};
use klamm_protocol::Uuid;

const TOPICS: [&str; 2] = ["one", "two"];

/// What was promised before the power went.
#[derive(Debug, Default, Clone)]
struct Promised {
    formatted: bool,
    /// Log ends that a flush made safe.
    flushed: [i64; 2],
    /// Log starts in a written checkpoint, and the highest ever asked for.
    started: [i64; 2],
    asked: [i64; 2],
    /// The log ends at the last clean stop that was marked, unless something was begun after it.
    clean: Option<[i64; 2]>,
}

fn open_log(disk: &FaultyDisk, dir: &LogDir, topic: &str) -> Result<Log, LogError> {
    let (path, recovery) = (dir.partition_path(topic, 0), dir.recovery(topic, 0));
    Log::open(Arc::new(disk.clone()), &path, TOPIC, small(), recovery, 0)
}

/// Two lives of a broker, until the disk stops.
fn work(disk: &FaultyDisk, path: &Path) -> Promised {
    let mut promised = Promised::default();
    let _: Result<(), Box<dyn std::error::Error>> = (|| {
        for life in 0..2 {
            let boot = "first";
            promised.clean = None;
            let dir = LogDir::open(Arc::new(disk.clone()), path, boot)?;
            dir.check_or_format("cluster", 1, Uuid([3; 16]))?;
            promised.formatted = true;
            let mut logs = Vec::new();
            for topic in TOPICS {
                logs.push(open_log(disk, &dir, topic)?);
            }
            for round in 0..6 {
                for (n, log) in logs.iter_mut().enumerate() {
                    for _ in 0..8 + n {
                        let at = log.log_end_offset();
                        log.append_as_leader(&batch_of(1, 0, at as i32, 2, at), life * 3 + round / 2, 0)?;
                    }
                    if round % 2 == n as i32 {
                        log.flush(0)?;
                        promised.flushed[n] = log.recovery_point();
                    }
                }
                if round == 3 {
                    promised.asked[0] = logs[0].log_end_offset() - 20;
                    logs[0].delete_records(promised.asked[0], 0)?;
                    logs[0].delete_expired_files(i64::MAX)?;
                }
                if round % 2 == 1 {
                    let of = |f: fn(&Log) -> i64| -> Offsets {
                        TOPICS.iter().zip(&logs).map(|(t, log)| ((t.to_string(), 0), f(log))).collect()
                    };
                    dir.write_recovery_points(&of(Log::recovery_point))?;
                    dir.write_log_starts(&of(Log::log_start_offset))?;
                    promised.started = promised.asked;
                }
            }
            for (n, log) in logs.iter_mut().enumerate() {
                log.close(true)?;
                promised.flushed[n] = log.log_end_offset();
            }
            let points: Offsets =
                TOPICS.iter().zip(&logs).map(|(t, log)| ((t.to_string(), 0), log.recovery_point())).collect();
            dir.write_recovery_points(&points)?;
            dir.close_clean(7)?;
            promised.clean = Some(promised.flushed);
        }
        Ok(())
    })();
    promised
}

fn check(disk: &FaultyDisk, path: &Path, promised: &Promised, what: &str) {
    let dir = LogDir::open(Arc::new(disk.clone()), path, "second").unwrap_or_else(|e| panic!("{what}: {e}"));
    let meta = dir.check_or_format("cluster", 1, Uuid([9; 16])).unwrap_or_else(|e| panic!("{what}: {e}"));
    if promised.formatted {
        assert_eq!(meta.directory_id, Uuid([3; 16]), "{what}: it has lost its identity");
    }
    if promised.clean.is_some() {
        assert!(dir.was_clean(), "{what}: the clean mark is lost");
    }
    for (n, topic) in TOPICS.iter().enumerate() {
        let mut log = open_log(disk, &dir, topic).unwrap_or_else(|e| panic!("{what}, {topic}: {e}"));
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        assert!(end >= promised.flushed[n], "{what}, {topic}: ends at {end}, flushed {}", promised.flushed[n]);
        assert_eq!(log.recovery_report().lost_from, None, "{what}, {topic}");
        assert!((promised.started[n]..=promised.asked[n]).contains(&start), "{what}, {topic}: starts at {start}");
        if let Some(clean) = promised.clean {
            assert_eq!(end, clean[n], "{what}, {topic}");
        }
        let offsets: Vec<i64> = records(&mut log, start).iter().map(|r| r.0).filter(|o| *o >= start).collect();
        assert_eq!(offsets, (start..end).collect::<Vec<_>>(), "{what}, {topic}");
        if end > start {
            let last = log.producers().get(1).map(|p| p.last_sequence());
            assert_eq!(last, Some(end as i32 - 1), "{what}, {topic}");
        }
        let epoch = log.latest_epoch().unwrap_or(0);
        let more = batch_of(1, 0, end as i32, 2, 5);
        assert_eq!(log.append_as_leader(&more, epoch, 0).unwrap().base_offset, end, "{what}, {topic}");
    }
}

#[test]
fn a_power_loss_at_every_step_of_a_directory_keeps_what_was_flushed() {
    let total = {
        let tmp = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new();
        let promised = work(&disk, &tmp.path().join("d"));
        assert!(promised.clean.is_some_and(|ends| ends[0] > 150), "{promised:?}");
        disk.changes()
    };
    let long = std::env::var_os("KLAMM_LONG").is_some();
    let (seeds, step) = if long { (10, 1) } else { (2, 7) };
    let mut losses = 0;
    for stop in (0..=total).step_by(step) {
        for seed in 0..seeds {
            // Memory where there is any: what a loss leaves is made up by the disk in between.
            let tmp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
            let path = tmp.path().join("d");
            let disk = FaultyDisk::new();
            disk.stop_after(stop);
            let promised = work(&disk, &path);
            disk.heal();
            disk.power_loss(seed * 10_000 + stop, seed % 2 == 0).unwrap();
            check(&disk, &path, &promised, &format!("stop {stop}, seed {seed}"));
            losses += 1;
        }
    }
    println!("figures R6 power loss: {losses} losses at {total} steps of a log directory, nothing flushed was lost");
}
