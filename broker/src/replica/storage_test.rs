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

fn open_dir(path: &Path, boot: &str) -> Storage {
    Storage::open_on(Arc::new(RealDisk), path.into(), boot, 1, Some("c"), || ID).expect("a directory")
}

fn open(path: &Path, boot: &str) -> (Storage, Arc<Partition>) {
    let storage = open_dir(path, boot);
    let partition = storage.open_partition(&topic(), 0, &Around::new(1, 1_000), 0, false).expect("a log");
    storage.all_opened();
    (storage, Arc::new(partition))
}

#[test]
fn a_stop_before_the_logs_were_opened_leaves_no_mark_of_a_clean_one() {
    let tmp = tempfile::tempdir().expect("a directory");
    let path = tmp.path().join("data");
    // Killed; then the machine goes down, and the broker is stopped again before it has looked at its logs.
    drop(open(&path, "one"));
    open_dir(&path, "two").close_clean(7).expect("closed");
    let storage = open_dir(&path, "two");
    assert!(!storage.was_clean());
    drop(storage);
    // With the logs opened it is a stop in order, and stays one when it is stopped at once again.
    let (storage, partition) = open(&path, "two");
    partition.close().expect("closed");
    storage.close_clean(8).expect("closed");
    open_dir(&path, "three").close_clean(9).expect("closed");
    let storage = open_dir(&path, "three");
    assert!(storage.was_clean());
    assert_eq!(storage.previous_epoch(), 9);
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

#[test]
fn a_partition_that_moved_away_meanwhile_is_set_aside() {
    use klamm_protocol::messages::{PartitionRecord, TopicRecord};
    let tmp = tempfile::tempdir().expect("a directory");
    let path = tmp.path().join("data");
    drop(open(&path, "one"));
    let storage = open_dir(&path, "one");
    let image = |replicas: Vec<i32>| {
        let mut image = Image::new("c");
        let topic = TopicRecord { name: "t".into(), topic_id: ID, ..Default::default() };
        let isr = replicas.clone();
        let partition = PartitionRecord {
            partition_id: 0,
            topic_id: ID,
            directories: vec![Uuid::ZERO; replicas.len()],
            replicas,
            isr,
            leader: 2,
            ..Default::default()
        };
        image.apply_all(&[topic.into(), partition.into()]).expect("applied");
        image
    };
    storage.set_strays_aside(&image(vec![1, 2]), || ID).expect("looked");
    assert!(path.join("t-0").exists());
    storage.set_strays_aside(&image(vec![2, 3]), || ID).expect("set aside");
    assert!(!path.join("t-0").exists());
    let strays = storage.dir.lock().as_ref().map(|dir| dir.strays().expect("listed"));
    assert!(matches!(strays.as_deref(), Some([one]) if one.starts_with("t-0.")), "{strays:?}");
}
