//! The broker's configuration, typed. Built once at the start, and again when a dynamic change arrives; whoever needs a
//! value takes it from here and never by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klamm_metadata::controller::Policy;

use super::layers::Layers;
use super::listener::{self, HostPort, Listener, SecurityProtocol, Voter};
use super::settings::{ConfigError, ConfigErrors, Entries, Settings};
use super::tls::{ClientAuth, TlsSettings};
use super::topic::TopicConfig;

/// However early brokers that are cut off are to be noticed, heartbeats do not follow each other faster.
const HEARTBEAT_MS_MIN: u64 = 100;

/// A count of replicas for an internal topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InternalReplicas {
    /// As configured.
    pub wanted: i16,
    /// Whether somebody configured it; only then is it an error to have fewer brokers.
    pub explicit: bool,
}

impl InternalReplicas {
    /// How many replicas a topic gets when this many brokers are alive.
    pub fn with_brokers(self, alive: usize) -> i16 {
        if self.explicit { self.wanted } else { self.wanted.min(i16::try_from(alive).unwrap_or(i16::MAX)).max(1) }
    }
}

/// Limits and timers of group coordinators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i32,
    /// `group.max.size`.
    pub max_size: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i32,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: i32,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.topic.num.partitions`.
    pub offsets_partitions: i32,
    /// `offsets.topic.replication.factor`.
    pub offsets_replicas: InternalReplicas,
    /// `offsets.topic.segment.bytes`.
    pub offsets_segment_bytes: i32,
}

/// How replicas follow their leaders, and how leaders judge them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationSettings {
    /// `replica.lag.time.max.ms`.
    pub lag_time_max_ms: i64,
    /// `num.replica.fetchers`: connections to each leader.
    pub fetchers: usize,
    /// `replica.fetch.wait.max.ms`.
    pub fetch_wait_max_ms: i32,
    /// `replica.fetch.min.bytes`.
    pub fetch_min_bytes: i32,
    /// `replica.fetch.max.bytes`, of one partition.
    pub fetch_max_bytes: i32,
    /// `replica.fetch.response.max.bytes`, of all.
    pub fetch_response_max_bytes: i32,
    /// `replica.fetch.backoff.ms`.
    pub fetch_backoff_ms: u64,
    /// `replica.socket.timeout.ms`.
    pub socket_timeout_ms: u64,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub high_watermark_checkpoint_interval_ms: i64,
    /// `leader.replication.throttled.rate`, in bytes a second.
    pub leader_throttled_rate: i64,
    /// `follower.replication.throttled.rate`, in bytes a second.
    pub follower_throttled_rate: i64,
    /// `replica.selector.class` is Kafka's `RackAwareReplicaSelector`.
    pub rack_aware_reads: bool,
}

/// Membership in a cluster, and the controller's timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: u64,
    /// `broker.session.timeout.ms`.
    pub session_timeout_ms: i64,
    /// `klamm.broker.unreachable.ms`.
    pub unreachable_ms: u64,
    /// `controlled.shutdown.enable`.
    pub controlled_shutdown: bool,
    /// `auto.leader.rebalance.enable`.
    pub leader_rebalance: bool,
    /// `leader.imbalance.check.interval.seconds`.
    pub leader_rebalance_interval_s: u64,
    /// `klamm.quorum.seats`: most voters of the metadata quorum.
    pub seats: usize,
}

impl ClusterSettings {
    /// Time between two heartbeats. Where brokers that are cut off are to be noticed early, silence has to mean something
    /// before the session is half over.
    pub fn heartbeat_every_ms(&self) -> u64 {
        let soon = if self.unreachable_ms == 0 { u64::MAX } else { (self.unreachable_ms / 2).max(HEARTBEAT_MS_MIN) };
        self.heartbeat_interval_ms.max(1).min(soon)
    }
}

/// A broker's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// `node.id`.
    pub node_id: i32,
    /// `cluster.id`, for a new cluster.
    pub cluster_id: Option<String>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `process.roles` contains `controller`.
    pub controller: bool,
    /// `listeners`, those of the quorum included.
    pub listeners: Vec<Listener>,
    /// What is told to clients and brokers: one for each broker listener that is advertised. Port 0 stands for the
    /// port the listener got.
    pub advertised: Vec<Listener>,
    /// Name of the listener brokers use among themselves.
    pub inter_broker_listener: String,
    /// TLS by the name of the listener, for those of protocol SSL: listeners of this node, and that of the quorum on
    /// other nodes.
    pub tls: BTreeMap<String, TlsSettings>,
    /// `controller.listener.names`; the quorum uses the first.
    pub controller_listener_names: Vec<String>,
    /// `controller.quorum.voters`.
    pub voters: Vec<Voter>,
    /// `controller.quorum.bootstrap.servers`.
    pub bootstrap_servers: Vec<HostPort>,
    /// `klamm.admin.listener`; `None` when off.
    pub admin_listener: Option<HostPort>,
    /// `klamm.worker.threads`; 0 for one per core.
    pub worker_threads: usize,
    /// `klamm.log.format` is `json`.
    pub log_json: bool,
    /// `klamm.log.level`.
    pub log_level: String,

    /// `log.dirs`, or `log.dir`.
    pub log_dirs: Vec<PathBuf>,
    /// `metadata.log.dir`, or the first data directory.
    pub metadata_dir: PathBuf,
    /// `num.recovery.threads.per.data.dir`.
    pub recovery_threads_per_dir: usize,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval_ms: i64,
    /// `klamm.log.scrub.interval.ms`; 0 for never.
    pub scrub_interval_ms: i64,
    /// `klamm.log.scrub.bytes.per.second`.
    pub scrub_rate: i64,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub recovery_checkpoint_interval_ms: i64,

    /// `num.partitions`.
    pub num_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,

    /// `socket.request.max.bytes`.
    pub request_max_bytes: usize,
    /// `queued.max.request.bytes`; `None` for a share of the memory.
    pub requests_bytes_max: Option<usize>,
    /// `socket.listen.backlog.size`.
    pub listen_backlog: u32,
    /// `connections.max.idle.ms`; `None` for never.
    pub connections_max_idle_ms: Option<u64>,
    /// `max.connections`.
    pub max_connections: usize,
    /// `max.connections.per.ip`.
    pub max_connections_per_ip: usize,
    /// `fetch.max.bytes`.
    pub fetch_max_bytes: i32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_session_slots: usize,
    /// `max.request.partition.size.limit`.
    pub max_partitions_per_answer: i32,

    /// Replication.
    pub replication: ReplicationSettings,

    /// Groups and offsets.
    pub groups: GroupSettings,
    /// Membership and controller.
    pub cluster: ClusterSettings,

    /// Where all of this came from; for topics, DescribeConfigs and dynamic changes.
    pub layers: Layers,
}

/// A configuration, ready to start with.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: BrokerConfig,
    /// One line for each key without effect; to be logged once.
    pub warnings: Vec<String>,
}

impl BrokerConfig {
    /// Name of the listener of the metadata quorum: the first of `controller.listener.names`, or the one that
    /// brokers use among themselves.
    pub fn quorum_listener(&self) -> &str {
        self.controller_listener_names.first().unwrap_or(&self.inter_broker_listener)
    }

    /// Whether the brokers have this listener to themselves, because clients have another one.
    pub fn is_brokers_own(&self, name: &str) -> bool {
        let other = |l: &Listener| l.name != name && !self.controller_listener_names.contains(&l.name);
        name == self.inter_broker_listener && self.listeners.iter().any(other)
    }

    /// Reads file, environment and `--set` arguments, in this order of rising precedence.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &[String],
    ) -> Result<Loaded, ConfigErrors> {
        let mut settings = Settings::new();
        let env: BTreeMap<String, String> = env.into_iter().collect();
        if let Some(path) = file {
            settings.add_file(path)?;
            settings.expand(|name| env.get(name).cloned())?;
        }
        settings.add_env(env);
        for flag in flags {
            settings.add_flag(flag)?;
        }
        BrokerConfig::from_settings(&settings)
    }

    /// Checks and converts settings.
    pub fn from_settings(settings: &Settings) -> Result<Loaded, ConfigErrors> {
        let mut warnings = settings.check()?;
        let layers = Layers::new(settings.entries());
        let config = BrokerConfig::from_layers(layers, &mut warnings, &|key, reason| settings.error(key, reason))?;
        Ok(Loaded { config, warnings })
    }

    /// What the configuration becomes with these dynamic ones; refused when it would not be a legal whole.
    pub fn with_dynamic(&self, cluster: Entries, broker: Entries) -> Result<BrokerConfig, ConfigErrors> {
        let layers = self.layers.with_dynamic(cluster, broker);
        BrokerConfig::from_layers(layers, &mut Vec::new(), &|key, reason| ConfigError::new(key, reason))
    }

    /// Whether this data directory shall get no new replicas (KIP-1066).
    pub fn is_cordoned(&self, dir: &Path) -> bool {
        self.layers
            .list("cordoned.log.dirs")
            .iter()
            .any(|cordoned| cordoned == "*" || dir.as_os_str() == cordoned.as_str())
    }

    /// What decides about leaders of topics that have no configuration of their own.
    pub fn election_policy(&self) -> Policy {
        let topic = self.topic(&Entries::new());
        Policy { min_isr: topic.min_insync_replicas, unclean: topic.unclean_leader_election }
    }

    /// The configuration of a topic that has these entries of its own.
    pub fn topic(&self, own: &Entries) -> TopicConfig {
        TopicConfig::resolve(&self.layers, own)
    }

    fn from_layers(
        layers: Layers,
        warnings: &mut Vec<String>,
        error: &dyn Fn(&str, String) -> ConfigError,
    ) -> Result<BrokerConfig, ConfigErrors> {
        let net = Network::from_layers(&layers, warnings, error)?;
        let mut log_dirs: Vec<PathBuf> = layers.list("log.dirs").into_iter().map(PathBuf::from).collect();
        if log_dirs.is_empty() {
            log_dirs = layers.list("log.dir").into_iter().map(PathBuf::from).collect();
        }
        let Some(first_dir) = log_dirs.first().cloned() else {
            return Err(error("log.dirs", "at least one data directory is needed".to_owned()).into());
        };
        let admin_listener = match layers.text("klamm.admin.listener").as_deref() {
            None | Some("off") => None,
            Some(text) => Some(listener::address(text).map_err(|reason| error("klamm.admin.listener", reason))?),
        };
        let config = BrokerConfig {
            node_id: net.node_id,
            cluster_id: layers.text("cluster.id"),
            rack: layers.text("broker.rack"),
            controller: net.controller,
            listeners: net.listeners,
            advertised: net.advertised,
            inter_broker_listener: net.inter_broker,
            tls: net.tls,
            controller_listener_names: net.controller_names,
            voters: net.voters,
            bootstrap_servers: layers
                .list("controller.quorum.bootstrap.servers")
                .iter()
                .filter_map(|text| listener::host_port(text).ok())
                .collect(),
            admin_listener,
            worker_threads: layers.number("klamm.worker.threads"),
            log_json: layers.text("klamm.log.format").as_deref() == Some("json"),
            log_level: layers.text("klamm.log.level").unwrap_or_else(|| "info".to_owned()),
            metadata_dir: layers.text("metadata.log.dir").map_or(first_dir, PathBuf::from),
            log_dirs,
            recovery_threads_per_dir: layers.number("num.recovery.threads.per.data.dir"),
            retention_check_interval_ms: layers.number("log.retention.check.interval.ms"),
            scrub_interval_ms: layers.number("klamm.log.scrub.interval.ms"),
            scrub_rate: layers.number("klamm.log.scrub.bytes.per.second"),
            recovery_checkpoint_interval_ms: layers.number("log.flush.offset.checkpoint.interval.ms"),
            num_partitions: layers.number("num.partitions"),
            default_replication_factor: layers.number("default.replication.factor"),
            auto_create_topics: layers.flag("auto.create.topics.enable"),
            delete_topics: layers.flag("delete.topic.enable"),
            request_max_bytes: layers.number("socket.request.max.bytes"),
            requests_bytes_max: usize::try_from(layers.number::<i64>("queued.max.request.bytes"))
                .ok()
                .filter(|n| *n > 0),
            listen_backlog: layers.number("socket.listen.backlog.size"),
            connections_max_idle_ms: u64::try_from(layers.number::<i64>("connections.max.idle.ms")).ok(),
            max_connections: layers.number("max.connections"),
            max_connections_per_ip: layers.number("max.connections.per.ip"),
            fetch_max_bytes: layers.number("fetch.max.bytes"),
            fetch_session_slots: layers.number("max.incremental.fetch.session.cache.slots"),
            max_partitions_per_answer: layers.number("max.request.partition.size.limit"),
            replication: ReplicationSettings {
                lag_time_max_ms: layers.number("replica.lag.time.max.ms"),
                fetchers: layers.number::<usize>("num.replica.fetchers").max(1),
                fetch_wait_max_ms: layers.number("replica.fetch.wait.max.ms"),
                fetch_min_bytes: layers.number("replica.fetch.min.bytes"),
                fetch_max_bytes: layers.number("replica.fetch.max.bytes"),
                fetch_response_max_bytes: layers.number("replica.fetch.response.max.bytes"),
                fetch_backoff_ms: layers.number("replica.fetch.backoff.ms"),
                socket_timeout_ms: layers.number("replica.socket.timeout.ms"),
                high_watermark_checkpoint_interval_ms: layers.number("replica.high.watermark.checkpoint.interval.ms"),
                leader_throttled_rate: layers.number("leader.replication.throttled.rate"),
                follower_throttled_rate: layers.number("follower.replication.throttled.rate"),
                rack_aware_reads: layers
                    .text("replica.selector.class")
                    .is_some_and(|class| class.ends_with("RackAwareReplicaSelector")),
            },
            groups: GroupSettings {
                min_session_timeout_ms: layers.number("group.min.session.timeout.ms"),
                max_session_timeout_ms: layers.number("group.max.session.timeout.ms"),
                max_size: layers.number("group.max.size"),
                initial_rebalance_delay_ms: layers.number("group.initial.rebalance.delay.ms"),
                offset_metadata_max_bytes: layers.number("offset.metadata.max.bytes"),
                offsets_retention_ms: layers.number::<i64>("offsets.retention.minutes") * 60_000,
                offsets_retention_check_interval_ms: layers.number("offsets.retention.check.interval.ms"),
                offsets_partitions: layers.number("offsets.topic.num.partitions"),
                offsets_replicas: InternalReplicas {
                    wanted: layers.number("offsets.topic.replication.factor"),
                    explicit: layers.is_set("offsets.topic.replication.factor"),
                },
                offsets_segment_bytes: layers.number("offsets.topic.segment.bytes"),
            },
            cluster: ClusterSettings {
                heartbeat_interval_ms: layers.number("broker.heartbeat.interval.ms"),
                session_timeout_ms: layers.number("broker.session.timeout.ms"),
                unreachable_ms: layers.number("klamm.broker.unreachable.ms"),
                controlled_shutdown: layers.flag("controlled.shutdown.enable"),
                leader_rebalance: layers.flag("auto.leader.rebalance.enable"),
                leader_rebalance_interval_s: layers.number("leader.imbalance.check.interval.seconds"),
                seats: layers.number("klamm.quorum.seats"),
            },
            layers,
        };
        config.check_whole(error)?;
        let cluster = &config.cluster;
        if cluster.heartbeat_interval_ms.saturating_mul(2) > u64::try_from(cluster.session_timeout_ms).unwrap_or(0) {
            warnings.push(format!(
                "broker.heartbeat.interval.ms={} is more than half of broker.session.timeout.ms={}: a broker that lives may be fenced",
                cluster.heartbeat_interval_ms, cluster.session_timeout_ms
            ));
        }
        Ok(config)
    }

    /// Rules that no single key can tell.
    fn check_whole(&self, error: &dyn Fn(&str, String) -> ConfigError) -> Result<(), ConfigErrors> {
        let refuse = |key: &str, reason: &str| Err(error(key, reason.to_owned()).into());
        let topic = self.topic(&Entries::new());
        if topic.log.segment_ms < 1 {
            return refuse("log.roll.ms", "must be at least 1");
        }
        if topic.log.segment_jitter_ms < 0 {
            return refuse("log.roll.jitter.ms", "must be at least 0");
        }
        if topic.log.retention_ms == 0 {
            return refuse("log.retention.ms", "must be at least 1, or -1 to keep records for ever");
        }
        if topic.log.min_compaction_lag_ms > topic.log.max_compaction_lag_ms {
            return refuse(
                "log.cleaner.min.compaction.lag.ms",
                "must not be larger than log.cleaner.max.compaction.lag.ms",
            );
        }
        if self.max_connections_per_ip == 0 && self.layers.text("max.connections.per.ip.overrides").is_none() {
            return refuse("max.connections.per.ip", "can only be 0 with max.connections.per.ip.overrides");
        }
        if self.groups.min_session_timeout_ms > self.groups.max_session_timeout_ms {
            return refuse("group.min.session.timeout.ms", "must not be larger than group.max.session.timeout.ms");
        }
        if self.default_replication_factor < 1 {
            return refuse("default.replication.factor", "must be at least 1");
        }
        let cordoned = self.layers.list("cordoned.log.dirs");
        let known = |dir: &String| dir == "*" || self.log_dirs.iter().any(|known| known.as_os_str() == dir.as_str());
        if let Some(dir) = cordoned.iter().find(|dir| !known(dir)) {
            return Err(error("cordoned.log.dirs", format!("{dir} is none of the data directories")).into());
        }
        if self.log_dirs.iter().any(|dir| dir.as_os_str().is_empty()) {
            return refuse("log.dirs", "a directory must not be empty");
        }
        // `a`, `./a` and `a/` are one directory, and so are two names of one place on the disk.
        let places: Vec<PathBuf> = self.log_dirs.iter().map(|dir| place(dir)).collect();
        for (n, dir) in self.log_dirs.iter().enumerate() {
            if let Some(same) = places[..n].iter().position(|place| *place == places[n]) {
                let (dir, first) = (dir.display(), self.log_dirs[same].display());
                let why = format!("names one directory twice: {first} and {dir}; leave one of them out");
                return Err(error("log.dirs", why).into());
            }
        }
        Ok(())
    }
}

/// Where a directory is, whether it is there yet or not.
fn place(dir: &Path) -> PathBuf {
    std::fs::canonicalize(dir)
        .unwrap_or_else(|_| std::path::absolute(dir).unwrap_or_else(|_| dir.into()).components().collect())
}

/// Identity, listeners and quorum: the keys that must fit each other.
struct Network {
    node_id: i32,
    controller: bool,
    listeners: Vec<Listener>,
    advertised: Vec<Listener>,
    inter_broker: String,
    tls: BTreeMap<String, TlsSettings>,
    controller_names: Vec<String>,
    voters: Vec<Voter>,
}

impl Network {
    fn from_layers(
        layers: &Layers,
        warnings: &mut Vec<String>,
        error: &dyn Fn(&str, String) -> ConfigError,
    ) -> Result<Network, ConfigErrors> {
        let node_id: i32 = layers.number("node.id");
        if node_id < 0 {
            return Err(error("node.id", "must be at least 0".to_owned()).into());
        }
        if layers.number::<i32>("broker.id") != node_id && layers.is_set("broker.id") {
            return Err(error("broker.id", format!("must be the same as node.id, which is {node_id}")).into());
        }
        let roles = layers.list("process.roles");
        let controller = roles.iter().any(|role| role == "controller");
        if !roles.iter().any(|role| role == "broker") {
            let reason = "nodes that are only controllers are not available; use broker,controller";
            return Err(error("process.roles", reason.to_owned()).into());
        }
        let controller_names: Vec<String> =
            layers.list("controller.listener.names").iter().map(|name| name.to_ascii_uppercase()).collect();
        let protocols = protocols(layers, &controller_names, error)?;
        let listeners = parse_listeners(layers, "listeners", &protocols, error)?;
        if let Some(reason) = listener::conflict(&listeners) {
            return Err(error("listeners", reason).into());
        }
        let sasl = |l: &&Listener| matches!(l.protocol, SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl);
        if let Some(sasl) = listeners.iter().find(sasl) {
            // Falling back to no authentication would be worse than not starting.
            let reason = format!("{} is not available yet, only PLAINTEXT and SSL are", sasl.protocol.name());
            return Err(error("listeners", format!("{sasl}: {reason}")).into());
        }
        let has = |name: &String| listeners.iter().any(|l| l.name == *name);
        if let Some(name) = controller_names.iter().find(|name| controller && !has(name)) {
            return Err(error("controller.listener.names", format!("{name} is not among the listeners")).into());
        }
        let inter_broker = inter_broker(layers, &listeners, &controller_names, error)?;
        let quorum = controller_names.first().unwrap_or(&inter_broker);
        let tls = tls(layers, &protocols, &listeners, &inter_broker, quorum, warnings, error)?;
        let is_client = |l: &Listener| !controller_names.contains(&l.name) || l.name == inter_broker;
        if !listeners.iter().any(|l| !controller_names.contains(&l.name)) {
            let reason = "at least one listener must not be one of controller.listener.names";
            return Err(error("listeners", reason.to_owned()).into());
        }
        let mut advertised = if layers.list("advertised.listeners").is_empty() {
            listeners.clone()
        } else {
            parse_listeners(layers, "advertised.listeners", &protocols, error)?
        };
        advertised.retain(is_client);
        check_advertised(layers, &listeners, &advertised, &inter_broker, error)?;
        resolve_wildcards(&mut advertised, warnings);
        let voters: Vec<Voter> =
            layers.list("controller.quorum.voters").iter().filter_map(|text| listener::voter(text).ok()).collect();
        if controller && !voters.is_empty() && !voters.iter().any(|voter| voter.id == node_id) {
            let reason = format!("must hold this node, {node_id}, as long as process.roles holds controller");
            return Err(error("controller.quorum.voters", reason).into());
        }
        for (i, voter) in voters.iter().enumerate() {
            if voters[..i].iter().any(|other| other.id == voter.id || other.address == voter.address) {
                let reason = format!("{}@{} names an id or an address that is there already", voter.id, voter.address);
                return Err(error("controller.quorum.voters", reason).into());
            }
        }
        let seeds = layers.list("controller.quorum.bootstrap.servers");
        if !controller && voters.is_empty() && seeds.is_empty() {
            let reason = "a node that is only a broker has to name controllers: set this or controller.quorum.voters";
            return Err(error("controller.quorum.bootstrap.servers", reason.to_owned()).into());
        }
        Ok(Network { node_id, controller, listeners, advertised, inter_broker, tls, controller_names, voters })
    }
}

type Protocols = BTreeMap<String, SecurityProtocol>;

/// The protocol of each listener name. Unless configured, a controller listener speaks PLAINTEXT.
fn protocols(
    layers: &Layers,
    controller_names: &[String],
    error: &dyn Fn(&str, String) -> ConfigError,
) -> Result<Protocols, ConfigErrors> {
    const KEY: &str = "listener.security.protocol.map";
    let text = layers.text(KEY).unwrap_or_default();
    let mut protocols = listener::protocol_map(&text).map_err(|reason| error(KEY, reason))?;
    if !layers.is_set(KEY) {
        for name in controller_names {
            protocols.entry(name.clone()).or_insert(SecurityProtocol::Plaintext);
        }
    }
    Ok(protocols)
}

/// TLS of the listeners that speak it. Nodes open connections to two of them, `inter_broker` and `quorum`.
fn tls(
    layers: &Layers,
    protocols: &Protocols,
    listeners: &[Listener],
    inter_broker: &str,
    quorum: &str,
    warnings: &mut Vec<String>,
    error: &dyn Fn(&str, String) -> ConfigError,
) -> Result<BTreeMap<String, TlsSettings>, ConfigErrors> {
    let mut tls = BTreeMap::new();
    let ours = listeners.iter().map(|l| l.name.as_str());
    for name in ours.chain([quorum]).filter(|name| protocols.get(*name) == Some(&SecurityProtocol::Ssl)) {
        let settings = TlsSettings::of(layers, name).map_err(|(key, reason)| error(&key, reason))?;
        if settings.chain.is_none() && listeners.iter().any(|l| l.name == name) {
            let reason = format!(
                "{name} speaks SSL: name here the PEM file with its certificates and private key, and set ssl.keystore.type=PEM"
            );
            return Err(error("ssl.keystore.location", reason).into());
        }
        if name == inter_broker || name == quorum {
            if settings.trusted.is_none() {
                let reason = format!("nodes connect to {name}: name here who may sign their certificates");
                return Err(error("ssl.truststore.location", reason).into());
            }
            if settings.client_auth != ClientAuth::Required && !tls.contains_key(name) {
                let risk = "asks nobody for a certificate: whoever reaches it can pose as a node";
                warnings.push(format!("listener {name} {risk}; set ssl.client.auth=required"));
            }
        }
        tls.insert(name.to_owned(), settings);
    }
    if let Some(other @ (SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl)) = protocols.get(quorum) {
        let reason = format!("{quorum} is {}, which is not available yet; PLAINTEXT and SSL are", other.name());
        return Err(error("listener.security.protocol.map", reason).into());
    }
    Ok(tls)
}

fn parse_listeners(
    layers: &Layers,
    key: &str,
    protocols: &Protocols,
    error: &dyn Fn(&str, String) -> ConfigError,
) -> Result<Vec<Listener>, ConfigErrors> {
    let mut listeners = Vec::new();
    for text in layers.list(key) {
        let (name, address) = listener::split(&text).map_err(|reason| error(key, reason))?;
        let Some(&protocol) = protocols.get(&name) else {
            let reason = format!("listener.security.protocol.map names no protocol for {name}");
            return Err(error(key, reason).into());
        };
        listeners.push(Listener { name, address, protocol });
    }
    Ok(listeners)
}

fn inter_broker(
    layers: &Layers,
    listeners: &[Listener],
    controller_names: &[String],
    error: &dyn Fn(&str, String) -> ConfigError,
) -> Result<String, ConfigErrors> {
    const NAME: &str = "inter.broker.listener.name";
    const PROTOCOL: &str = "security.inter.broker.protocol";
    if let Some(name) = layers.text(NAME) {
        if layers.is_set(PROTOCOL) {
            return Err(error(NAME, format!("only one of {NAME} and {PROTOCOL} may be set")).into());
        }
        let name = name.to_ascii_uppercase();
        if !listeners.iter().any(|l| l.name == name) {
            let names: Vec<_> = listeners.iter().map(|l| l.name.as_str()).collect();
            return Err(error(NAME, format!("must be one of the listeners {}", names.join(", "))).into());
        }
        return Ok(name);
    }
    let protocol = layers.text(PROTOCOL).unwrap_or_default();
    let of_brokers = || listeners.iter().filter(|l| !controller_names.contains(&l.name));
    // Kafka insists on a listener named like the protocol. Any listener that speaks it does as well.
    let named = of_brokers().find(|l| l.name == protocol);
    let found = named.or_else(|| of_brokers().find(|l| l.protocol.name() == protocol)).or_else(|| of_brokers().next());
    Ok(found.map(|l| l.name.clone()).unwrap_or(protocol))
}

fn check_advertised(
    layers: &Layers,
    listeners: &[Listener],
    advertised: &[Listener],
    inter_broker: &str,
    error: &dyn Fn(&str, String) -> ConfigError,
) -> Result<(), ConfigErrors> {
    const KEY: &str = "advertised.listeners";
    for (i, l) in advertised.iter().enumerate() {
        if advertised[..i].iter().any(|other| other.name == l.name) {
            return Err(error(KEY, format!("{} comes twice", l.name)).into());
        }
        if !listeners.iter().any(|other| other.name == l.name) {
            return Err(error(KEY, format!("{} is not among the listeners", l.name)).into());
        }
        if layers.is_set(KEY) && matches!(l.address.host.as_str(), "0.0.0.0" | "::") {
            return Err(error(KEY, format!("{l}: nobody can connect to {}, name a host", l.address.host)).into());
        }
    }
    if !advertised.iter().any(|l| l.name == inter_broker) {
        return Err(error(KEY, format!("must hold {inter_broker}, the listener brokers use among themselves")).into());
    }
    Ok(())
}

/// A listener on every interface is advertised under the machine's name, as in Kafka.
fn resolve_wildcards(advertised: &mut [Listener], warnings: &mut Vec<String>) {
    for listener in advertised {
        if matches!(listener.address.host.as_str(), "" | "0.0.0.0" | "::") {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let name = if name.is_empty() { "localhost".to_owned() } else { name };
            listener.address.host = name.clone();
            warnings
                .push(format!("{} is advertised as {name}; set advertised.listeners if that is wrong", listener.name));
        }
    }
}
