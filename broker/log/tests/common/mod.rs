//! What the suites share: batches to append, and reading a log back to the end.
#![allow(dead_code, reason = "each suite uses its part")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use klamm_log::{Disk, Log, LogConfig, LogError, RealDisk, Recovery};
use klamm_protocol::Uuid;
use klamm_protocol::batch::{BatchBuilder, BatchHeader, RecordBatch, batches};

pub const TOPIC: Uuid = Uuid([7; 16]);

/// A batch of `count` records with values of `len` bytes; record `i` has timestamp `time + i`.
pub fn batch(count: usize, len: usize, time: i64) -> Bytes {
    build(BatchBuilder::new(0), count, len, time)
}

/// The same from an idempotent producer.
pub fn batch_of(producer: i64, epoch: i16, sequence: i32, count: usize, time: i64) -> Bytes {
    build(BatchBuilder::new(0).producer(producer, epoch, sequence), count, 20, time)
}

pub fn build(mut builder: BatchBuilder, count: usize, len: usize, time: i64) -> Bytes {
    for i in 0..count {
        let key = format!("k{i}");
        let value = vec![(i as u8).wrapping_add(time as u8); len];
        builder.push(time + i as i64, Some(key.as_bytes()), Some(&value), &[]).unwrap();
    }
    builder.build().unwrap()
}

pub fn small() -> LogConfig {
    LogConfig { segment_bytes: 4_000, index_interval_bytes: 200, retention_ms: -1, ..LogConfig::default() }
}

pub fn open(dir: &Path, config: LogConfig) -> Log {
    open_with(RealDisk::shared(), dir, config, Recovery::default()).unwrap()
}

pub fn open_clean(dir: &Path, config: LogConfig) -> Log {
    open_with(RealDisk::shared(), dir, config, Recovery { clean: true, ..Recovery::default() }).unwrap()
}

pub fn open_with(disk: Arc<dyn Disk>, dir: &Path, config: LogConfig, recovery: Recovery) -> Result<Log, LogError> {
    Log::open(disk, dir, TOPIC, config, recovery, 0)
}

/// Bytes of a read range.
pub fn bytes_of(result: &klamm_log::ReadResult) -> Vec<u8> {
    let Some(range) = &result.range else { return Vec::new() };
    let mut bytes = vec![0; range.len as usize];
    std::os::unix::fs::FileExt::read_exact_at(&*range.file, &mut bytes, range.position).unwrap();
    bytes
}

/// All batches from an offset on, read in steps of `max_bytes`; checks that reads continue each other.
pub fn read_all(log: &mut Log, from: i64, max_bytes: usize) -> Vec<(BatchHeader, Bytes)> {
    let mut found = Vec::new();
    let mut offset = from;
    let end = log.log_end_offset();
    while offset < end {
        let result = log.read(offset, max_bytes, end, true).unwrap();
        if result.is_empty() {
            break;
        }
        let bytes = bytes_of(&result);
        let mut next = result.first_offset;
        for (i, batch) in batches(&bytes).enumerate() {
            let (header, bytes) = batch.unwrap();
            klamm_protocol::batch::verify_crc(bytes).unwrap();
            if i == 0 {
                assert!(header.base_offset >= result.first_offset);
                assert!(header.last_offset() >= offset);
            }
            assert!(header.base_offset >= next);
            next = header.next_offset();
            found.push((header, Bytes::copy_from_slice(bytes)));
        }
        assert!(next <= result.next_offset, "{next} {result:?}");
        assert!(result.next_offset > offset);
        offset = result.next_offset;
    }
    found
}

/// Offset and timestamp of every record.
pub fn records(log: &mut Log, from: i64) -> Vec<(i64, i64)> {
    let mut all = Vec::new();
    for (_, bytes) in read_all(log, from, 1_000) {
        for record in RecordBatch::new(bytes).unwrap().records(1 << 20) {
            let record = record.unwrap();
            all.push((record.offset, record.timestamp));
        }
    }
    all
}

/// Names of the files in a directory, sorted.
pub fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
