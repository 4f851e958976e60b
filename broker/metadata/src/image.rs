//! The cluster as the metadata log describes it at one offset.
//!
//! Readers hold an `Arc<Image>`; the one writer clones it, applies records ([`crate::apply`]) and publishes the
//! clone. Cloning is cheap because everything large sits behind `Arc`s. Only [`Image::apply`] changes an image.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use klamm_protocol::Uuid;
use klamm_protocol::messages::PartitionChangeRecord;

use crate::index::Index;
use crate::ordered::OrderedMap;

/// A partition without a leader.
pub const NO_LEADER: i32 = -1;

/// Values of configuration keys, by key.
pub type Entries = BTreeMap<String, String>;

/// What a configuration belongs to, numbered as in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum ResourceType {
    /// A topic.
    Topic = 2,
    /// A broker, or all of them under the empty name.
    Broker = 4,
    /// A broker's log levels; never stored.
    BrokerLogger = 8,
    /// A client-metrics subscription.
    ClientMetrics = 16,
    /// A group.
    Group = 32,
}

impl ResourceType {
    /// The type of a protocol number.
    pub fn from_number(number: i8) -> Option<Self> {
        [Self::Topic, Self::Broker, Self::BrokerLogger, Self::ClientMetrics, Self::Group]
            .into_iter()
            .find(|t| *t as i8 == number)
    }
}

/// A thing that has a configuration of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Its type.
    pub kind: ResourceType,
    /// Its name; empty for all brokers.
    pub name: Arc<str>,
}

impl Resource {
    /// The configuration of a topic.
    pub fn topic(name: &str) -> Self {
        Self { kind: ResourceType::Topic, name: name.into() }
    }

    /// The configuration of one broker.
    pub fn broker(id: i32) -> Self {
        Self { kind: ResourceType::Broker, name: id.to_string().into() }
    }

    /// The configuration of all brokers.
    pub fn all_brokers() -> Self {
        Self { kind: ResourceType::Broker, name: "".into() }
    }

    /// The configuration of a group.
    pub fn group(name: &str) -> Self {
        Self { kind: ResourceType::Group, name: name.into() }
    }
}

/// A partition: who holds it and who leads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Brokers that hold it; the first is the preferred leader.
    pub replicas: Vec<i32>,
    /// Log directory of each replica, all zeros when not assigned.
    pub directories: Vec<Uuid>,
    /// Replicas in sync.
    pub isr: Vec<i32>,
    /// Replicas that a reassignment will drop.
    pub removing_replicas: Vec<i32>,
    /// Replicas that a reassignment brings.
    pub adding_replicas: Vec<i32>,
    /// The leader or [`NO_LEADER`].
    pub leader: i32,
    /// Rises with each change of leader.
    pub leader_epoch: i32,
    /// Rises with each change of the partition.
    pub partition_epoch: i32,
    /// 0 recovered, 1 the leader was elected uncleanly and is recovering.
    pub leader_recovery_state: i8,
    /// Replicas that left the ISR but still hold everything committed (KIP-966).
    pub elr: Vec<i32>,
    /// The last leader of a partition that has none, as Kafka keeps it by default.
    pub last_known_elr: Vec<i32>,
}

impl Partition {
    /// Whether replicas are being brought or dropped.
    pub fn is_reassigning(&self) -> bool {
        !self.adding_replicas.is_empty() || !self.removing_replicas.is_empty()
    }

    /// Whether a replica on that broker is missed: it is not in sync. One that a reassignment brings is not yet, since those
    /// from before are there until it is.
    pub fn misses(&self, broker: i32) -> bool {
        self.replicas.contains(&broker) && !self.isr.contains(&broker) && !self.adding_replicas.contains(&broker)
    }

    /// The log directory of a replica; zero when it isn't assigned or there is no such replica.
    pub fn directory(&self, broker: i32) -> Uuid {
        let at = self.replicas.iter().position(|id| *id == broker);
        at.and_then(|at| self.directories.get(at).copied()).unwrap_or(Uuid::ZERO)
    }

    /// Changes what a record names, and the epochs with it.
    pub fn merge(&mut self, r: &PartitionChangeRecord) {
        let replace = |list: &mut Vec<i32>, new: &Option<Vec<i32>>| {
            if let Some(new) = new {
                list.clone_from(new);
            }
        };
        replace(&mut self.replicas, &r.replicas);
        replace(&mut self.isr, &r.isr);
        replace(&mut self.removing_replicas, &r.removing_replicas);
        replace(&mut self.adding_replicas, &r.adding_replicas);
        replace(&mut self.elr, &r.eligible_leader_replicas);
        replace(&mut self.last_known_elr, &r.last_known_elr);
        if let Some(directories) = &r.directories {
            self.directories.clone_from(directories);
        }
        self.directories.resize(self.replicas.len(), Uuid::ZERO);
        // -2 leaves the leader as it is; naming it again starts a new epoch.
        if r.leader >= NO_LEADER {
            self.leader = r.leader;
            self.leader_epoch += 1;
        }
        if r.leader_recovery_state >= 0 {
            self.leader_recovery_state = r.leader_recovery_state;
        }
        self.partition_epoch += 1;
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id: never zero, the same for the topic's whole life, another one after deletion and re-creation.
    pub id: Uuid,
    /// Its partitions by number.
    pub partitions: Vec<Arc<Partition>>,
}

impl Topic {
    /// A partition by its number.
    pub fn partition(&self, number: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(number).ok()?)
    }

    /// Replicas of each partition as the first one has them.
    pub fn replication_factor(&self) -> i16 {
        self.partitions.first().map_or(0, |p| i16::try_from(p.replicas.len()).unwrap_or(i16::MAX))
    }
}

/// An address of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name.
    pub name: String,
    /// Host to connect to.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// A feature and the levels a broker can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportedFeature {
    /// Its name.
    pub name: String,
    /// Lowest level.
    pub min: i16,
    /// Highest level.
    pub max: i16,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: i32,
    /// Epoch of its registration.
    pub epoch: i64,
    /// Drawn anew at each start of the process.
    pub incarnation: Uuid,
    /// Where it listens.
    pub endpoints: Vec<Endpoint>,
    /// What it supports.
    pub features: Vec<SupportedFeature>,
    /// Its rack.
    pub rack: Option<String>,
    /// Shut out: not to lead or be in an ISR.
    pub fenced: bool,
    /// On its way out.
    pub in_controlled_shutdown: bool,
    /// Its log directories that work.
    pub log_dirs: Vec<Uuid>,
    /// Log directories that take no new partitions; None when the broker doesn't say.
    pub cordoned_log_dirs: Option<Vec<Uuid>>,
}

impl Broker {
    /// Whether it can lead and be in an ISR.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// Whether a log directory works: one that isn't assigned yet counts while any does.
    pub fn has_directory(&self, directory: Uuid) -> bool {
        directory.is_zero() || self.log_dirs.contains(&directory)
    }

    /// Whether it takes no new replicas: all its log directories are cordoned (KIP-1066).
    pub fn is_cordoned(&self) -> bool {
        let cordoned = self.cordoned_log_dirs.as_deref().unwrap_or_default();
        !cordoned.is_empty() && self.log_dirs.iter().all(|dir| cordoned.contains(dir))
    }

    /// Where a new replica goes: the directory when there is only one, else the broker chooses.
    pub fn default_directory(&self) -> Uuid {
        match self.log_dirs[..] {
            [only] => only,
            _ => Uuid::ZERO,
        }
    }
}

/// See the module's head.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pub(crate) cluster_id: Arc<str>,
    pub(crate) topics: OrderedMap<Arc<str>, Arc<Topic>>,
    pub(crate) names: OrderedMap<Uuid, Arc<str>>,
    /// Names with `.` or `_`, by their name in metrics, to find collisions.
    pub(crate) metric_names: OrderedMap<String, Arc<Vec<Arc<str>>>>,
    pub(crate) partitions: usize,
    pub(crate) configs: OrderedMap<Resource, Arc<Entries>>,
    pub(crate) brokers: Arc<BTreeMap<i32, Arc<Broker>>>,
    pub(crate) features: Arc<BTreeMap<String, i16>>,
    pub(crate) next_producer_id: i64,
    /// Brokers in maintenance and until when, as their configurations say.
    pub(crate) maintenance: Arc<BTreeMap<i32, i64>>,
    pub(crate) index: Index,
}

impl Image {
    /// The image of an empty metadata log.
    pub fn new(cluster_id: &str) -> Self {
        Self {
            cluster_id: cluster_id.into(),
            topics: OrderedMap::default(),
            names: OrderedMap::default(),
            metric_names: OrderedMap::default(),
            partitions: 0,
            configs: OrderedMap::default(),
            brokers: Arc::default(),
            features: Arc::default(),
            next_producer_id: 0,
            maintenance: Arc::default(),
            index: Index::default(),
        }
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// All topics by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.iter().map(|(_, topic)| topic)
    }

    /// Topics by name, from `start` on.
    pub fn topics_from(&self, start: Bound<&str>) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.range_from(start).map(|(_, topic)| topic)
    }

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// A topic by id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.topics.get(&**self.names.get(&id)?)
    }

    /// A partition.
    pub fn partition(&self, topic: &str, number: i32) -> Option<&Arc<Partition>> {
        self.topic(topic)?.partition(number)
    }

    /// Number of topics.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Number of partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// All registered brokers by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }

    /// A registered broker.
    pub fn broker(&self, id: i32) -> Option<&Arc<Broker>> {
        self.brokers.get(&id)
    }

    /// Whether a broker is registered and can lead.
    pub fn is_active(&self, id: i32) -> bool {
        self.broker(id).is_some_and(|b| b.is_active())
    }

    /// Brokers in maintenance, and until when in milliseconds since 1970: they lead nothing that others can lead.
    pub fn maintenance(&self) -> &BTreeMap<i32, i64> {
        &self.maintenance
    }

    /// What was configured for a resource while the cluster ran.
    pub fn config(&self, resource: &Resource) -> Option<&Arc<Entries>> {
        self.configs.get(resource)
    }

    /// All resources with a configuration, topics first, then brokers, then groups.
    pub fn configs(&self) -> impl Iterator<Item = (&Resource, &Arc<Entries>)> {
        self.configs.iter()
    }

    /// Groups with a configuration.
    pub fn group_configs(&self) -> impl Iterator<Item = (&str, &Arc<Entries>)> {
        let first = Resource::group("");
        let from = self.configs.range_from(Bound::Included(&first));
        from.take_while(|(resource, _)| resource.kind == ResourceType::Group)
            .map(|(resource, own)| (&*resource.name, own))
    }

    /// Finalized features and their levels.
    pub fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }

    /// The first producer id that no broker has been given.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// An existing topic whose name is the same as `name` in metrics.
    pub fn colliding_topic(&self, name: &str) -> Option<&str> {
        let found = self.metric_names.get(&crate::names::metric_name(name)?)?;
        found.first().map(|name| &**name)
    }
}
