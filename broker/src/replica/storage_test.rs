//! What a partition is taken for when its directory is opened again.

use klamm_protocol::batch::BatchBuilder;

use super::*;
use crate::config::{Entries, Layers, TopicConfig};
use crate::metrics::Metrics;
use crate::replica::partition::{Acks, Origin};

const ID: Uuid = Uuid([7; 16]);

fn topic() -> Arc<Topic> {
    let config = TopicConfig::resolve(&Layers::default(), &Entries::new());
    Arc::new(Topic::new("t".into(), ID, Metrics::new().topic("t"), Arc::new(config)))
}

fn open(path: &Path, boot: &str) -> (Storage, Arc<Partition>) {
    let storage = Storage::open_on(Arc::new(RealDisk), path.into(), boot, 1, Some("c"), || ID).expect("a directory");
    let partition = storage.open_partition(&topic(), 0, &Around::new(1, 1_000), 0, false).expect("a log");
    (storage, Arc::new(partition))
}

#[test]
fn after_a_power_loss_nobody_believes_the_high_watermark_that_was_written_down() {
    let tmp = tempfile::tempdir().expect("a directory");
    let path = tmp.path().join("data");
    let (storage, partition) = open(&path, "one");
    let alone = klamm_metadata::Partition {
        replicas: vec![1],
        directories: vec![Uuid::ZERO],
        isr: vec![1],
        removing_replicas: Vec::new(),
        adding_replicas: Vec::new(),
        leader: 1,
        leader_epoch: 0,
        partition_epoch: 0,
        leader_recovery_state: 0,
        elr: Vec::new(),
        last_known_elr: Vec::new(),
    };
    partition.follow(&alone, 0);
    let mut batch = BatchBuilder::new(0);
    batch.push(0, None, Some(b"v"), &[]).expect("a record");
    partition.append(&batch.build().expect("a batch"), Origin::Client, Acks::All, 0).expect("appended");
    assert_eq!(partition.offsets().high_watermark, 1);
    storage.write_high_watermarks(&[partition]).expect("written");
    drop(storage);

    // The process was killed: the page cache has what it wrote.
    let (storage, partition) = open(&path, "one");
    assert_eq!(partition.offsets().high_watermark, 1);
    drop((storage, partition));
    // The machine went down: what stands in the log need not be what was committed.
    let (storage, partition) = open(&path, "two");
    assert_eq!((partition.offsets().high_watermark, partition.offsets().log_end), (0, 1));
    partition.follow(&klamm_metadata::Partition { leader_epoch: 1, partition_epoch: 1, ..alone }, 0);
    assert_eq!(partition.offsets().high_watermark, 1, "the only replica has nobody to ask");
    drop(storage);
}
