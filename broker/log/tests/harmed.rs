//! Directories that no honest writer leaves: mutated files of every kind. Whatever comes back, it is no panic and no
//! endless loop, and what an unclean start scanned is served sound.

mod common;

use std::path::Path;

use common::*;
use klamm_log::{CompactionLimits, LogConfig, RealDisk, Recovery};
use klamm_protocol::batch::{BatchBuilder, BatchHeader, EndTxnMarker, batches, end_txn_marker, verify_crc};
use klamm_protocol::compress::Limits;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Harm {
    Flip {
        at: usize,
        bit: u8,
    },
    Cut {
        at: usize,
    },
    Zero {
        at: usize,
        len: usize,
    },
    Noise {
        at: usize,
        bytes: Vec<u8>,
    },
    Insert {
        at: usize,
        bytes: Vec<u8>,
    },
    Remove,
    /// Overwrites the header fields of the batch at or after a place, with a CRC that is right again.
    Header {
        at: usize,
        base_offset: i64,
        delta: i32,
        count: i32,
        producer: i64,
    },
    /// Flips a bit in the lowest byte of a batch's own offset, which no CRC covers.
    Offset {
        at: usize,
        bit: u8,
    },
    /// A name that looks like a segment's.
    Rename {
        to: i64,
        suffix: &'static str,
    },
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = || 0usize..5_000;
    let bytes = || prop::collection::vec(any::<u8>(), 1..80);
    let number = || prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(-1), 0i64..400, any::<i64>()];
    let small = || prop_oneof![Just(i32::MAX), Just(0), 0i32..5, any::<i32>()];
    let suffix =
        prop::sample::select(vec!["log", "index", "timeindex", "txnindex", "snapshot", "log.swap", "log.deleted"]);
    prop_oneof![
        4 => (at(), 0u8..8).prop_map(|(at, bit)| Harm::Flip { at, bit }),
        2 => at().prop_map(|at| Harm::Cut { at }),
        1 => (at(), 1usize..3_000).prop_map(|(at, len)| Harm::Zero { at, len }),
        2 => (at(), bytes()).prop_map(|(at, bytes)| Harm::Noise { at, bytes }),
        1 => (at(), bytes()).prop_map(|(at, bytes)| Harm::Insert { at, bytes }),
        1 => Just(Harm::Remove),
        3 => (at(), number(), small(), small(), number())
            .prop_map(|(at, base_offset, delta, count, producer)| Harm::Header { at, base_offset, delta, count, producer }),
        1 => (at(), 0u8..8).prop_map(|(at, bit)| Harm::Offset { at, bit }),
        2 => (number(), suffix).prop_map(|(to, suffix)| Harm::Rename { to: to.unsigned_abs().min(i64::MAX as u64) as i64, suffix }),
    ]
}

fn inflict(dir: &Path, which: usize, harm: &Harm) {
    let names = files(dir);
    let path = dir.join(&names[which % names.len()]);
    let mut bytes = std::fs::read(&path).unwrap();
    let len = bytes.len();
    match harm {
        Harm::Remove => return std::fs::remove_file(path).unwrap(),
        Harm::Rename { to, suffix } => {
            return std::fs::rename(&path, dir.join(format!("{to:020}.{suffix}"))).unwrap();
        }
        Harm::Flip { at, bit } if len > 0 => bytes[at % len] ^= 1 << bit,
        Harm::Cut { at } => bytes.truncate(at % (len + 1)),
        Harm::Zero { at, len: count } if len > 0 => {
            let at = at % len;
            let end = (at + count).min(len);
            bytes[at..end].fill(0);
        }
        Harm::Noise { at, bytes: noise } if len > 0 => {
            for (i, b) in noise.iter().enumerate() {
                bytes[(at + i) % len] = *b;
            }
        }
        Harm::Insert { at, bytes: more } => {
            let at = at % (len + 1);
            bytes.splice(at..at, more.iter().copied());
        }
        Harm::Header { at, base_offset, delta, count, producer } if len > 0 => {
            let Some(start) = batch_start(&bytes, *at) else { return };
            let mut header = BatchHeader::parse(&bytes[start..]).unwrap();
            let end = start + header.total_len();
            header.base_offset = *base_offset;
            header.last_offset_delta = *delta;
            header.records_count = *count;
            header.producer_id = *producer;
            bytes[start..start + 61].copy_from_slice(&header.to_bytes());
            // The CRC is found by asking what it should have been.
            if let Err(klamm_protocol::batch::BatchError::BadCrc { computed, .. }) = verify_crc(&bytes[start..end]) {
                header.crc = computed;
                bytes[start..start + 61].copy_from_slice(&header.to_bytes());
            }
        }
        Harm::Offset { at, bit } => {
            let Some(start) = batch_start(&bytes, *at) else { return };
            bytes[start + 7] ^= 1 << bit;
        }
        _ => {}
    }
    std::fs::write(path, bytes).unwrap();
}

/// Where the batch of this number begins, counted on from the first after the last.
fn batch_start(bytes: &[u8], number: usize) -> Option<usize> {
    let lengths = batches(bytes).map_while(Result::ok).map(|(_, batch)| batch.len());
    let starts: Vec<usize> = lengths
        .scan(0, |at, len| {
            *at += len;
            Some(*at - len)
        })
        .collect();
    starts.get(number % starts.len().max(1)).copied()
}

fn write(dir: &Path) {
    let mut log = open(dir, LogConfig { segment_bytes: 2_500, ..small() });
    for i in 0..50i32 {
        let builder = BatchBuilder::new(0).producer(i64::from(i % 3), 0, i / 3 * 2).transactional();
        log.append_as_leader(&build(builder, 2, 50, 1_000 + i64::from(i)), i / 20, 0).unwrap();
        if i % 7 == 6 {
            let marker = EndTxnMarker { commit: i % 2 == 0, coordinator_epoch: 0 };
            log.append_as_coordinator(&end_txn_marker(0, 0, 5, (i64::from(i % 3), 0), marker).unwrap(), i / 20, 0)
                .unwrap();
        }
    }
    log.close(true).unwrap();
}

/// Uses everything; errors are fine.
fn use_it(dir: &Path, recovery: &Recovery) {
    let config = LogConfig { compact: true, min_cleanable_dirty_ratio: 0.0, segment_bytes: 2_500, ..small() };
    let Ok(mut log) = open_with(RealDisk::shared(), dir, config, recovery.clone()) else { return };
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    assert!(start <= end);
    let mut offset = start;
    for _ in 0..300 {
        let Ok(result) = log.read(offset, 400, end, true) else { break };
        if result.is_empty() {
            break;
        }
        assert!(result.next_offset > offset, "{result:?}");
        offset = result.next_offset;
        if recovery.recovery_point == 0 && !recovery.clean {
            for batch in batches(&bytes_of(&result)) {
                verify_crc(batch.unwrap().1).unwrap();
            }
        }
    }
    for at in [start, start.saturating_add(1), start + (end - start) / 2, end - 1, end] {
        log.read(at, 1, end, true).ok();
        log.read(at, 1 << 20, at / 2 + end / 2, false).ok();
    }
    for time in [0, 1_000, 1_025, 2_000, i64::MAX] {
        log.offset_for_timestamp(time, Limits::both(1 << 16)).ok();
    }
    log.max_timestamp_offset(Limits::both(1 << 16)).ok();
    log.aborted_transactions(start, end).ok();
    log.append_as_leader(&batch(2, 30, 5), 9, 0).ok();
    let high_watermark = log.log_end_offset();
    log.on_high_watermark(high_watermark);
    log.flush(0).ok();
    if let Ok(Some(work)) = log.begin_compaction(high_watermark, 0)
        && let Ok(done) = work.run(CompactionLimits { keys: 100, max_decompressed: 1 << 16 })
    {
        log.finish_compaction(done, 0).ok();
    }
    log.apply_retention(1 << 40, start + (end - start) / 3).ok();
    log.delete_records(start + (end - start) / 4, 0).ok();
    log.truncate_to(start + (end - start) / 2, 0).ok();
    log.roll(0).ok();
    log.append_as_leader(&batch(2, 30, 5), 9, 0).ok();
    log.close_idle_files().ok();
    log.close(true).ok();
}

/// Each segment in turn gets the last name there is, with its indexes or with those of another. (A random case once
/// added an index entry to the largest base offset.)
#[test]
fn a_segment_of_the_largest_base_offset_never_breaks_the_process() {
    for which in 0..4 {
        for (suffix, of) in [("index", 0), ("index", 1), ("timeindex", 0), ("timeindex", 1), ("log.swap", 0)] {
            for largest in [i64::MAX, i64::MAX - 1, i64::MAX - 3] {
                for clean in [true, false] {
                    let tmp = tempfile::tempdir().unwrap();
                    let dir = tmp.path().join("t-0");
                    write(&dir);
                    let segments: Vec<_> = files(&dir).into_iter().filter(|n| n.ends_with(".log")).collect();
                    let rename = |n: usize, from: &str, to: &str| {
                        let old = dir.join(segments[n % segments.len()].replace(".log", &format!(".{from}")));
                        std::fs::rename(old, dir.join(format!("{largest:020}.{to}"))).unwrap();
                    };
                    match suffix {
                        "log.swap" => rename(which, "log", suffix),
                        _ => {
                            rename(which + of, suffix, suffix);
                            rename(which, "log", "log");
                        }
                    }
                    use_it(&dir, &Recovery { clean, ..Recovery::default() });
                    use_it(&dir, &Recovery { clean: !clean, ..Recovery::default() });
                }
            }
        }
    }
}

/// A batch says that it ends where the next but one does; who reads on from there must not go back. (A random case.)
#[test]
fn a_batch_with_the_offset_of_a_later_one_sends_no_reader_back() {
    for bit in 0..7 {
        for at in 0..15 {
            let tmp = tempfile::tempdir().unwrap();
            let dir = tmp.path().join("t-0");
            write(&dir);
            let segment = files(&dir).iter().position(|n| n.ends_with("027.log")).expect("a segment");
            inflict(&dir, segment, &Harm::Offset { at, bit });
            use_it(&dir, &Recovery { clean: true, ..Recovery::default() });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("KLAMM_LONG").is_some() { 5_000 } else { 600 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn harmed_directories_never_break_the_process(
        harms in prop::collection::vec((0usize..40, harm()), 1..5),
        clean: bool,
        recovery_point in prop_oneof![Just(0i64), 0i64..130, Just(i64::MAX), Just(-5)],
        log_start_offset in prop_oneof![4 => Just(0i64), 1 => 0i64..150, 1 => Just(i64::MAX), 1 => Just(i64::MIN)],
        machine_restarted: bool,
        refill: bool,
    ) {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("t-0");
        write(&dir);
        for (which, harm) in &harms {
            inflict(&dir, *which, harm);
        }
        let recovery = Recovery { clean, recovery_point, log_start_offset, machine_restarted, refill, ..Recovery::default() };
        use_it(&dir, &recovery);
        // What the first start made of it opens as well.
        use_it(&dir, &Recovery { clean: !clean, recovery_point: 0, ..recovery });
    }
}
