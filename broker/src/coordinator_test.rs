//! Loading from a log with bits that flipped while nobody looked.

use std::path::Path;

use klamm_log::{Log, RealDisk, Recovery};
use klamm_protocol::batch::BatchBuilder;

use super::*;
use crate::config::{Entries, Layers, TopicConfig};
use crate::metrics::Metrics;
use crate::replica::partition::{Around, Topic};

const TOPIC: Uuid = Uuid([3; 16]);

fn open(dir: &Path, recovery: Recovery) -> Result<Log, LogError> {
    let config = TopicConfig::resolve(&Layers::default(), &Entries::new());
    Log::open(RealDisk::shared(), dir, TOPIC, config.log, recovery, 0)
}

fn partition(log: Log) -> Partition {
    let config = Arc::new(TopicConfig::resolve(&Layers::default(), &Entries::new()));
    let topic = Topic::new(OFFSETS_TOPIC.into(), TOPIC, Metrics::new().topic(OFFSETS_TOPIC), config);
    let end = log.log_end_offset();
    Partition::new(Arc::new(topic), 0, log, end, Around::new(0, 30_000))
}

#[test]
fn a_coordinator_is_not_made_of_damaged_records() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("__consumer_offsets-0");
    let mut log = open(&dir, Recovery::default()).unwrap();
    for n in 0..20u8 {
        let mut builder = BatchBuilder::new(0);
        // Of a type that coordinators do not know: they are only read.
        builder.push(0, Some(&[0, 99, n]), Some(&[0, 0, n]), &[]).unwrap();
        log.append_as_leader(&builder.build().unwrap(), 0, 0).unwrap();
    }
    log.close(true).unwrap();
    let end = log.log_end_offset();
    drop(log);
    let clean = Recovery { clean: true, recovery_point: end, ..Recovery::default() };
    assert!(load(&partition(open(&dir, clean.clone()).unwrap()), Config::default()).is_ok());

    let file = dir.join("00000000000000000000.log");
    let good = std::fs::read(&file).unwrap();
    let mut tried = 0;
    // The offset of the last batch has no neighbour behind it that would give it away.
    for at in (0..good.len() - good.len() / 20).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&file, &bad).unwrap();
        let damaged = match open(&dir, clean.clone()) {
            Ok(log) => partition(log),
            // Seen even sooner.
            Err(LogError::Corrupt(_)) => continue,
            Err(other) => panic!("byte {at}: {other}"),
        };
        tried += 1;
        let loaded = load(&damaged, Config::default());
        assert!(matches!(loaded, Err(NotLoaded::Damaged(_, true))), "byte {at}: {loaded:?}");
        assert!(damaged.with_log(|log| log.damage().is_some()), "byte {at}: not remembered");
        let again = load(&damaged, Config::default());
        assert!(matches!(again, Err(NotLoaded::Damaged(_, false))), "byte {at}: {again:?}");
    }
    assert!(tried > 100, "{tried}");
}
