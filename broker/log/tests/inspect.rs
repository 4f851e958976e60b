//! Looking at files without opening the log: sound ones are shown, unsound ones are complained about, by name.

mod common;

use std::path::{Path, PathBuf};

use common::*;
use klamm_log::inspect::side_file;
use klamm_log::{RealDisk, verify, verify_segment};

/// A closed log of several segments, with a producer and two epochs.
fn made(dir: &Path) {
    let mut log = open(dir, small());
    for i in 0..80 {
        log.append_as_leader(&batch_of(7, 0, 3 * i, 3, 1_000 + i64::from(i)), i / 50, 1).unwrap();
    }
    log.close(true).unwrap();
}

fn named(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    files(dir).iter().filter(|n| n.ends_with(suffix)).map(|n| dir.join(n)).collect()
}

#[test]
fn a_sound_log_is_shown_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    made(&dir);
    let reports = verify(&RealDisk, &dir).unwrap();
    assert!(reports.len() > 2);
    assert!(reports.iter().all(|r| r.damage.is_empty() && r.index_problems.is_empty()), "{reports:?}");
    let mut offsets = Vec::new();
    for path in named(&dir, ".log") {
        let base = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let content = std::fs::read(&path).unwrap();
        verify_segment(&RealDisk, &dir, base, |batch| {
            offsets.extend(batch.header.base_offset..batch.header.next_offset());
            assert_eq!(batch.bytes, &content[batch.position as usize..][..batch.header.total_len()]);
        })
        .unwrap();
    }
    assert_eq!(offsets, (0..240).collect::<Vec<_>>());

    let read = |name: &Path| side_file(&RealDisk, name).unwrap().unwrap();
    for (suffix, rows) in [(".index", 2), (".timeindex", 2), (".snapshot", 1)] {
        let file = read(&named(&dir, suffix)[0]);
        assert!(file.problems.is_empty() && file.rows.len() >= rows, "{file:?}");
        assert!(file.rows.iter().all(|row| row.len() == file.fields.len()));
    }
    assert_eq!(read(&dir.join("leader-epoch-checkpoint")).rows, [["0", "0"], ["1", "150"]]);
    assert_eq!(read(&dir.join("partition.metadata")).rows, [[TOPIC.to_string()]]);
    assert_eq!(side_file(&RealDisk, &named(&dir, ".log")[0]).unwrap(), None);
    let snapshot = read(named(&dir, ".snapshot").last().unwrap());
    assert_eq!(snapshot.rows[0][..4], ["7", "0", "239", "239"]);
}

#[test]
fn a_file_larger_than_any_index_is_not_read_into_memory() {
    let tmp = tempfile::tempdir().unwrap();
    for (name, refused) in [("00000000000000000000.index", true), ("00000000000000000000.log", false)] {
        let file = tmp.path().join(name);
        // A hole: it takes no room on disk.
        std::fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
        let read = side_file(&RealDisk, &file);
        assert_eq!(read.as_ref().is_err_and(|e| e.to_string().contains("more than")), refused, "{read:?}");
    }
}

#[test]
fn every_index_entry_that_leads_astray_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    made(&dir);
    let index = named(&dir, ".index")[0].clone();
    let times = named(&dir, ".timeindex")[0].clone();
    for (file, at, bit) in [(&index, 7, 1), (&index, 5, 1), (&index, 3, 4), (&times, 11, 128), (&times, 4, 1)] {
        let good = std::fs::read(file).unwrap();
        let mut bad = good.clone();
        bad[at] ^= bit;
        std::fs::write(file, &bad).unwrap();
        let report = verify(&RealDisk, &dir).unwrap().remove(0);
        let entries = side_file(&RealDisk, file).unwrap().unwrap().problems;
        let named = report.index_problems.iter().any(|(path, _)| path == file) || !entries.is_empty();
        // An offset beyond its batch is what older versions of Kafka wrote.
        assert!(named || (file == &index && at == 3), "{file:?} byte {at}: {report:?} {entries:?}");
        assert!(report.damage.is_empty());
        std::fs::write(file, good).unwrap();
    }
}

#[test]
fn garbled_files_are_complained_about_and_never_trusted() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    made(&dir);
    std::fs::write(dir.join("recovery-point-offset-checkpoint"), "0\n1\nt 0 5\n").unwrap();
    std::fs::write(dir.join("00000000000000000000.txnindex"), [0; 34]).unwrap();
    for name in files(&dir).iter().filter(|n| !n.ends_with(".log")) {
        let path = dir.join(name);
        assert_eq!(side_file(&RealDisk, &path).unwrap().unwrap().problems, [""; 0], "{name}");
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, [b"\x7f", &good[..good.len() - 1]].concat()).unwrap();
        let bad = side_file(&RealDisk, &path).unwrap().unwrap();
        // A shifted index entry may still look like one; then its place in the segment gives it away.
        let astray = verify(&RealDisk, &dir).unwrap().iter().any(|r| !r.index_problems.is_empty());
        assert!(!bad.problems.is_empty() || astray, "{name}: {bad:?}");
        std::fs::write(&path, good).unwrap();
    }
}
