//! A simulated machine and the broker process on it: the disk and the clock stay, the process comes and goes.
//!
//! The process is the broker's own code without its tasks: storage, partitions, metadata image, coordinator. What its
//! tasks would do is done by the events of `lifecycle.rs` and `replication.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use klamm::clock::{Clock, Hands};
use klamm::config::{BrokerConfig, Origin, Settings};
use klamm::controller::machine::{Committed, Machine};
use klamm::metrics::Metrics;
use klamm::replica::partition::Partition;
use klamm::replica::replicas::Replicas;
use klamm::replica::storage::Storage;
use klamm_metadata::Image;
use klamm_protocol::Uuid;
use klamm_quorum::StateMachine;
use parking_lot::Mutex;

use crate::coordinator::Groups;
use crate::disk::MemDisk;
use crate::message::{Key, Stamp};
use crate::metalog::Meta;
use crate::plan::Plan;
use crate::random::Random;
use crate::waiting::Waiting;

pub const CLUSTER: &str = "sim";
/// `replica.lag.time.max.ms`.
pub const LAG_MS: i64 = 150;
/// What the wall clocks show when a run begins.
pub const EPOCH_MS: i64 = 1_700_000_000_000;

/// A machine.
pub struct Node {
    pub id: i32,
    pub disk: MemDisk,
    pub hands: Arc<Hands>,
    /// How far its wall clock is off.
    pub wall_shift_ms: i64,
    /// Which start of the machine this is.
    machine_boot: u32,
    /// Which start of the process this is.
    pub boot: u32,
    pub up: Option<Process>,
    pub paused_until_us: Option<i64>,
    /// Metadata it will surely find again on its disk.
    known_offset: u64,
    /// It lost power while the process ran, and has not opened its logs since.
    pub lost_power_running: bool,
    /// How far it is deaf to new metadata.
    pub deaf_until_us: i64,
}

/// How the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Unregistered,
    /// It waits to hear of its own registration.
    CatchingUp,
    Open,
}

/// A follower's way to a leader.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Only an answer to the last round counts.
    pub round: u64,
    pub asked: Option<u64>,
    /// Of the last answer.
    pub stamp: Stamp,
}

/// A broker process.
pub struct Process {
    pub replicas: Replicas,
    pub clock: Clock,
    machine: Machine,
    committed: Arc<Mutex<Committed>>,
    pub published: (Arc<Image>, u64),
    pub standing: Standing,
    pub incarnation: Uuid,
    pub directory: Uuid,
    pub epoch: i64,
    pub previous_epoch: i64,
    pub links: BTreeMap<i32, Link>,
    /// The question to the controller about its registration or its standing, and when it was asked.
    pub beat: Option<u64>,
    pub beat_round: u64,
    pub leaving: bool,
    pub isr_asked: Option<(u64, Vec<(Key, u64)>)>,
    pub isr_scheduled: bool,
    pub flush_scheduled: bool,
    pub publish_scheduled: bool,
    pub waiting: Vec<Waiting>,
    pub groups: Groups,
    /// Which node it takes for the controller.
    pub controller: i32,
    pub partitions: Vec<Arc<Partition>>,
}

impl Process {
    /// The image that decisions rest on, and its offset.
    pub fn committed(&self) -> (Arc<Image>, u64) {
        let committed = self.committed.lock();
        (committed.image.clone(), committed.offset)
    }

    pub fn offset(&self) -> u64 {
        self.committed.lock().offset
    }

    /// Applies the metadata log up to `offset`.
    pub fn apply(&mut self, meta: &Meta, offset: u64) {
        for at in self.offset()..offset {
            let entry = &meta.entries[at as usize];
            self.machine
                .apply(at + 1, &entry.records)
                .unwrap_or_else(|e| panic!("metadata {} does not apply: {e}", at + 1));
            assert!(
                klamm_metadata::state_hash(&self.committed.lock().image) == entry.hash,
                "the images at {} differ",
                at + 1
            );
        }
    }

    /// What is to be published next.
    pub fn take_changes(&self) -> (Arc<Image>, u64, Vec<klamm_metadata::Change>) {
        let mut committed = self.committed.lock();
        let changes = std::mem::take(&mut committed.changes);
        (committed.image.clone(), committed.offset, changes)
    }

    /// A partition that lives here.
    pub fn partition(&self, key: Key) -> Option<Arc<Partition>> {
        self.replicas.by_id(key.0, key.1).ok()
    }

    /// Looks up anew which partitions live here.
    pub fn list(&mut self) {
        self.partitions = self.replicas.partitions();
    }
}

/// The configuration of a node of this plan.
pub fn config(id: i32, plan: &Plan) -> BrokerConfig {
    let mut settings = Settings::new();
    let mut set = |key: &str, value: String| settings.set(key, &value, Origin::Flag);
    set("node.id", id.to_string());
    set("log.dirs", "/data".into());
    set("num.recovery.threads.per.data.dir", "1".into());
    set("replica.lag.time.max.ms", LAG_MS.to_string());
    set("min.insync.replicas", plan.min_isr.to_string());
    if plan.synced {
        set("log.flush.interval.messages", "1".into());
    }
    BrokerConfig::from_settings(&settings).expect("a configuration").config
}

impl Node {
    pub fn new(id: i32) -> Self {
        let hands = Hands { wall_ms: AtomicI64::new(0), now_ms: AtomicI64::new(0) };
        Self {
            id,
            disk: MemDisk::default(),
            hands: Arc::new(hands),
            wall_shift_ms: EPOCH_MS,
            machine_boot: 1,
            boot: 0,
            up: None,
            paused_until_us: None,
            known_offset: 0,
            lost_power_running: false,
            deaf_until_us: 0,
        }
    }

    /// Sets the machine's clocks.
    pub fn set_clock(&self, now_us: i64) {
        let ms = now_us / 1_000;
        self.hands.now_ms.store(ms, Ordering::Relaxed);
        self.hands.wall_ms.store(ms + self.wall_shift_ms, Ordering::Relaxed);
    }

    /// A process starts.
    pub fn start(&mut self, meta: &Meta, config: &BrokerConfig, metrics: &Arc<Metrics>, random: &mut Random) {
        self.boot += 1;
        let (fresh, incarnation) = (random.uuid(), random.uuid());
        let boot_id = format!("boot {}", self.machine_boot);
        let disk = Arc::new(self.disk.clone());
        let storage = Storage::open_on(disk, PathBuf::from("/data"), &boot_id, self.id, Some(CLUSTER), || fresh)
            .unwrap_or_else(|e| panic!("node {} cannot open its directory: {e}", self.id));
        // A snapshot from some time ago; the rest of the log is heard of again.
        let from = random.below(self.known_offset + 1);
        let committed = Arc::new(Mutex::new(Committed::new(CLUSTER)));
        let mut machine = Machine::new(committed.clone(), Arc::default());
        if let Some(at) = from.checked_sub(1) {
            let records = klamm_metadata::record::encode(&meta.entries[at as usize].image.to_records());
            machine
                .restore(from, &records.expect("a snapshot"))
                .unwrap_or_else(|e| panic!("a snapshot does not apply: {e}"));
            assert!(
                klamm_metadata::state_hash(&committed.lock().image) == meta.entries[at as usize].hash,
                "the snapshot at {from} differs"
            );
        }
        let empty = Arc::new(Image::new(CLUSTER));
        self.up = Some(Process {
            directory: storage.meta().directory_id,
            previous_epoch: storage.previous_epoch(),
            replicas: Replicas::new(storage, config.clone(), metrics.clone()),
            clock: Clock::by_hand(self.hands.clone()),
            machine,
            committed,
            published: (empty, 0),
            standing: Standing::Unregistered,
            incarnation,
            epoch: -1,
            links: BTreeMap::new(),
            beat: None,
            beat_round: 0,
            leaving: false,
            isr_asked: None,
            isr_scheduled: false,
            flush_scheduled: false,
            publish_scheduled: false,
            waiting: Vec::new(),
            groups: Groups::default(),
            controller: random.below(3) as i32,
            partitions: Vec::new(),
        });
    }

    /// The process is gone, whatever it was at.
    pub fn kill(&mut self) {
        if let Some(up) = self.up.take() {
            self.known_offset = self.known_offset.max(up.offset());
        }
        self.boot += 1;
        self.paused_until_us = None;
    }

    /// The machine loses power.
    pub fn power_loss(&mut self, random: &mut Random) {
        self.lost_power_running |= self.up.is_some();
        self.kill();
        self.disk.power_loss(random);
        self.machine_boot += 1;
    }

    /// The process stops in order.
    pub fn close(&mut self) {
        if let Some(up) = &self.up {
            up.replicas.close(up.epoch).unwrap_or_else(|e| panic!("node {} cannot close its logs: {e}", self.id));
        }
        self.kill();
    }
}
