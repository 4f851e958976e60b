//! Apache Kafka and this log on each other's files: a directory that Apache 4.3.1 wrote (in `fixtures/`), and Apache's
//! own dump tool on what is written here (when it is installed, as `tests/run` does).

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use klamm_log::{CompactionLimits, Log, LogConfig, RealDisk, Recovery};
use klamm_protocol::Uuid;
use klamm_protocol::batch::{BatchBuilder, EndTxnMarker, RecordBatch, end_txn_marker};
use klamm_protocol::compress::Compression;
use klamm_protocol::compress::Limits;

fn copy_golden(to: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/apache-4.3.1/golden-0");
    let dir = to.join("golden-0");
    std::fs::create_dir(&dir).unwrap();
    for name in files(&from) {
        std::fs::copy(from.join(&name), dir.join(&name)).unwrap();
    }
    dir
}

fn config() -> LogConfig {
    LogConfig { index_interval_bytes: 200, ..LogConfig::default() }
}

fn open_golden(dir: &Path, clean: bool) -> Log {
    let recovery = Recovery { clean, recovery_point: if clean { 60 } else { 0 }, ..Recovery::default() };
    Log::open(RealDisk::shared(), dir, Uuid::ZERO, config(), recovery, 0).unwrap()
}

fn check_golden(log: &mut Log) {
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (0, 60));
    assert_eq!(log.topic_id().to_string(), "AA2im1_GRLWx09hezZldEw");
    assert_eq!(log.epochs().entries().len(), 1);
    for producer in 0..3 {
        let known = log.producers().get(producer).unwrap();
        assert_eq!((known.epoch, known.last_sequence()), (0, 19));
    }
    let mut values = Vec::new();
    let mut codecs = std::collections::BTreeSet::new();
    for (header, bytes) in read_all(log, 0, 300) {
        codecs.insert(header.compression().unwrap() as u8);
        for record in RecordBatch::new(bytes).unwrap().records(1 << 20) {
            let record = record.unwrap();
            values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            let found = log.offset_for_timestamp(record.timestamp, Limits::both(1 << 20)).unwrap().unwrap();
            assert_eq!(found.timestamp, record.timestamp);
            assert!(found.offset <= record.offset);
        }
    }
    assert_eq!(codecs.len(), 3);
    assert_eq!(values.len(), 60);
    assert!(values[59].starts_with("value-3-"), "{}", values[59]);
}

#[test]
fn a_directory_that_apache_wrote_opens_reads_and_grows() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = copy_golden(tmp.path());
    let mut log = open_golden(&dir, true);
    assert_eq!(log.recovery_report().scanned_bytes, 0);
    check_golden(&mut log);
    log.append_as_leader(&batch_of(2, 0, 20, 2, 1 << 42), 1, 0).unwrap();
    log.close(true).unwrap();
    assert_eq!(open_golden(&dir, true).log_end_offset(), 62);
}

#[test]
fn an_unclean_apache_directory_with_preallocated_indexes_opens() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = copy_golden(tmp.path());
    for suffix in ["index", "timeindex"] {
        let file = std::fs::OpenOptions::new().write(true).open(dir.join(format!("{:020}.{suffix}", 0))).unwrap();
        file.set_len(if suffix == "index" { 10 << 20 } else { 10_485_756 }).unwrap();
    }
    // Once taken for clean, which leaves finding the blank tails to the index; once scanned.
    for clean in [true, false] {
        check_golden(&mut open_golden(&dir, clean));
    }
}

#[test]
fn indexes_and_snapshots_made_here_have_apaches_bytes() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = copy_golden(tmp.path());
    let made = ["00000000000000000000.index", "00000000000000000000.timeindex", "00000000000000000060.snapshot"];
    let apaches: Vec<Vec<u8>> = made.iter().map(|n| std::fs::read(dir.join(n)).unwrap()).collect();
    for name in made {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    let mut log = open_golden(&dir, false);
    check_golden(&mut log);
    log.close(true).unwrap();
    for (name, expected) in made.iter().zip(apaches) {
        assert_eq!(std::fs::read(dir.join(name)).unwrap(), expected, "{name}");
    }
    assert_eq!(std::fs::read(dir.join("leader-epoch-checkpoint")).unwrap(), b"0\n1\n0 0\n");
}

/// Apache's dump tool, or `None` when it isn't installed.
fn dump_log() -> Option<PathBuf> {
    let home = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let tool = home.join("klamm/kafka/bin/kafka-dump-log");
    tool.exists().then_some(tool)
}

fn dump(tool: &Path, args: &[&str], files: &[PathBuf]) -> String {
    let names: Vec<&str> = files.iter().map(|f| f.to_str().unwrap()).collect();
    let output = Command::new(tool).args(args).arg("--files").arg(names.join(",")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn apaches_dump_tool_reads_every_file_written_here() {
    let Some(tool) = dump_log() else {
        println!("kafka-dump-log is not installed: skipped");
        return;
    };
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("t-0");
    let mut log = open(&dir, LogConfig { segment_bytes: 7_000, ..config() });
    for i in 0..120i32 {
        let codec = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        let builder = BatchBuilder::new(0)
            .compression(codec[i as usize % 5], None)
            .producer(i64::from(i % 4), 0, i / 4 * 3)
            .transactional();
        log.append_as_leader(&build(builder, 3, 200, 1_700_000_000_000 + i64::from(i)), i / 50, 0).unwrap();
        if i % 10 == 9 {
            let marker = EndTxnMarker { commit: i % 20 == 9, coordinator_epoch: 1 };
            for producer in 0..4 {
                let batch = end_txn_marker(0, 0, 1_700_000_000_000, (producer, 0), marker).unwrap();
                log.append_as_coordinator(&batch, i / 50, 0).unwrap();
            }
        }
    }
    assert!(log.segment_count() > 2);
    log.close(true).unwrap();
    let with = |suffix: &str| -> Vec<PathBuf> {
        files(&dir).iter().filter(|n| n.ends_with(suffix)).map(|n| dir.join(n)).collect()
    };
    let text = dump(&tool, &["--print-data-log", "--deep-iteration"], &with(".log"));
    assert_eq!(text.matches("isvalid: true").count(), 168, "{text}");
    assert_eq!(text.matches("key: k").count(), 360);
    assert!(!text.contains("isvalid: false"));
    for suffix in [".index", ".timeindex"] {
        for args in [&["--index-sanity-check"][..], &[]] {
            let text = dump(&tool, args, &with(suffix));
            for trouble in ["Mismatches", "mismatch", "Found timestamp", "out of order", "Exception"] {
                assert!(!text.contains(trouble), "{text}");
            }
            if args.is_empty() && suffix == ".index" {
                assert!(text.matches("position:").count() > 20, "{text}");
            } else if args.is_empty() {
                assert!(text.matches("timestamp:").count() > 10, "{text}");
            } else {
                assert_eq!(text.matches("passed sanity check").count(), with(suffix).len(), "{text}");
            }
        }
    }
    let text = dump(&tool, &[], &with(".txnindex"));
    assert_eq!(text.matches("lastStableOffset").count(), 24, "{text}");
    // And what compaction leaves: emptied batches, gaps, delete horizons.
    log.set_config(LogConfig { compact: true, min_cleanable_dirty_ratio: 0.0, ..config() });
    log.on_high_watermark(i64::MAX);
    log.flush(0).unwrap();
    let limits = CompactionLimits { keys: 1_000, max_decompressed: 1 << 20 };
    let work = log.begin_compaction(log.log_end_offset(), 1_700_000_001_000).unwrap().unwrap();
    assert!(log.finish_compaction(work.run(limits).unwrap(), i64::MIN).unwrap() > 1);
    log.close(true).unwrap();
    let text = dump(&tool, &["--print-data-log", "--deep-iteration"], &with(".log"));
    assert!(text.matches("isvalid: true").count() < 168 && !text.contains("isvalid: false"), "{text}");
    let text = dump(&tool, &[], &with(".snapshot"));
    assert!(text.matches("producerId:").count() >= 8, "{text}");
}
