//! What a plan is made from: the cluster as it is, and what is wanted of it.

use std::collections::{BTreeMap, BTreeSet};

/// A cluster as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its brokers. One that only a partition names counts as dead.
    pub brokers: Vec<Broker>,
    /// All of its partitions, also those that shall stay: they count for what brokers bear.
    pub partitions: Vec<Partition>,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// `node.id`.
    pub id: i32,
    /// `broker.rack`. A broker without one is a rack of its own.
    pub rack: Option<String>,
    /// Registered and not fenced. One that is not keeps what it has, since it may come back, and gets nothing.
    pub alive: bool,
    /// Keeps what it has and gets nothing.
    pub cordoned: bool,
    /// Gives everything away.
    pub draining: bool,
    /// In maintenance: it leads nothing for a while, so that no leader is elected there. What comes first there stays first.
    pub maintained: bool,
}

impl Broker {
    /// A broker that is alive, takes replicas, and has no rack.
    pub fn new(id: i32) -> Self {
        Self { id, rack: None, alive: true, cordoned: false, draining: false, maintained: false }
    }
}

/// A partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// Name of its topic.
    pub topic: String,
    /// Index within the topic.
    pub index: i32,
    /// All that have or get a copy, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Who leads it.
    pub leader: Option<i32>,
    /// Replicas in sync.
    pub isr: Vec<i32>,
    /// How much a copy takes.
    pub bytes: u64,
    /// The replicas that it is to have once a reassignment that goes on is complete.
    pub moving_to: Option<Vec<i32>>,
}

/// What is wanted of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Only partitions of these topics move; `None` for all.
    pub topics: Option<BTreeSet<String>>,
    /// Number of replicas that topics shall have; the others keep theirs.
    pub replication: BTreeMap<String, usize>,
    /// Whether brokers are made even. Otherwise only what must move does: off brokers that are drained, out of racks
    /// that hold two replicas, and to a new number of replicas.
    pub even: bool,
    /// How many partitions may be copied at a time: the size of a wave. `None` for a single wave.
    pub moves_max: Option<usize>,
    /// Brokers that differ by less than this share of their mean are even in bytes, in percent.
    pub bytes_slack_percent: u64,
    /// Nor is anything moved for a difference of fewer bytes than these.
    pub bytes_slack_min: u64,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            topics: None,
            replication: BTreeMap::new(),
            even: true,
            moves_max: None,
            bytes_slack_percent: 10,
            bytes_slack_min: 1 << 30,
        }
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fewer brokers may hold a partition than it shall have replicas.
    #[error("{topic}-{partition} shall have {wanted} replicas, and only {available} brokers may hold one")]
    TooFewBrokers {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Replicas that it shall have.
        wanted: usize,
        /// Brokers that hold one and keep it, or may get one.
        available: usize,
    },
    /// A topic is named that the facts lack.
    #[error("there is no topic {0}")]
    UnknownTopic(String),
    /// A topic shall have no replicas at all.
    #[error("topic {0} shall have no replicas")]
    NoReplicasWanted(String),
    /// A broker is named twice.
    #[error("broker {0} is named twice")]
    BrokerTwice(i32),
    /// A partition is named twice.
    #[error("{0}-{1} is named twice")]
    PartitionTwice(String, i32),
    /// A partition has no replicas, or two on one broker.
    #[error("the replicas of {0}-{1} are not distinct brokers")]
    BadReplicas(String, i32),
}
