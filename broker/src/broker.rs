//! What runs inside a broker: the parts, and who owns them.
//!
//! One [`Broker`] is shared by all tasks. Its parts know nothing of each other beyond what their
//! functions are given; handlers in `api/` bring them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use klamm_log::LogError;
use klamm_metadata::Image;
use klamm_metadata::controller::{Context, Decision, Heartbeats, InternalTopics};
use klamm_protocol::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::cluster::forward::Forwarder;
use crate::cluster::health;
use crate::cluster::lifecycle::Lifecycle;
use crate::cluster::producer_ids::ProducerIds;
use crate::cluster::suspects::Suspects;
use crate::cluster::whereabouts::Whereabouts;
use crate::complaints::Complaints;
use crate::config::BrokerConfig;
use crate::controller::Controller;
use crate::coordinator::Groups;
use crate::memory;
use crate::metrics::Metrics;
use crate::net::budget::Budget;
use crate::net::listener::Connections;
use crate::random::Random;
use crate::replica::partition::Partition;
use crate::replica::replicas::Replicas;
use crate::replica::session::Sessions;
use crate::tls::Tls;

/// Beyond the interval of heartbeats, how long nothing is heard of other brokers before this one takes itself for cut off.
const CUT_OFF_MS: i64 = 2_000;

/// Why the broker stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It does not.
    No,
    /// Asked to, by a signal: exit code 0.
    Asked,
    /// The cluster does not take it: exit code 2.
    Refused(String),
    /// The storage failed: exit code 3.
    Storage(String),
    /// An invariant is broken; going on would make it worse: exit code 70.
    Broken(String),
}

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    /// Static configuration.
    pub config: BrokerConfig,
    /// Time.
    pub clock: Clock,
    /// Random numbers.
    pub random: Random,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Open connections.
    pub connections: Connections,
    /// Memory for requests that are being received.
    pub requests: Budget,
    /// Fetch sessions.
    pub sessions: Arc<Sessions>,
    /// Partitions on this broker.
    pub replicas: Replicas,
    /// Cluster metadata, and the way to change it.
    pub controller: Controller,
    /// The way to the active controller.
    pub forwarder: Forwarder,
    /// This broker's standing with it.
    pub lifecycle: Lifecycle,
    /// Brokers whose process may have ended; for the active controller.
    pub suspects: Suspects,
    /// Where they are, or were; for the active controller.
    pub whereabouts: Arc<Whereabouts>,
    /// When brokers were last heard of; means something on the active controller only.
    pub heartbeats: Mutex<Heartbeats>,
    /// Producer ids to hand out.
    pub producer_ids: ProducerIds,
    /// Consumer groups.
    pub groups: Groups,
    /// Certificates and keys.
    pub tls: Tls,
    /// What must not be logged with every request.
    pub complaints: Complaints,
    open: AtomicBool,
    opening: watch::Sender<()>,
    stop: watch::Sender<Stop>,
}

impl Broker {
    /// Puts the parts together.
    pub fn new(
        config: BrokerConfig,
        metrics: Arc<Metrics>,
        replicas: Replicas,
        controller: Controller,
        groups: Groups,
        tls: Tls,
    ) -> Self {
        let places = config.fetch_session_slots;
        let requests = config.requests_bytes_max.map_or_else(|| Budget::for_memory(memory::available()), Budget::new);
        let forwarder = Forwarder::new(config.node_id, tls.client(config.quorum_listener()));
        let session_ms = u64::try_from(config.cluster.session_timeout_ms).unwrap_or(0);
        Self {
            config,
            clock: Clock::default(),
            random: Random,
            metrics,
            connections: Connections::default(),
            requests,
            sessions: Arc::new(Sessions::new(places)),
            replicas,
            controller,
            forwarder,
            lifecycle: Lifecycle::default(),
            heartbeats: Mutex::new(Heartbeats::new(session_ms, &Image::new(""), 0)),
            suspects: Suspects::default(),
            whereabouts: Arc::default(),
            producer_ids: ProducerIds::default(),
            groups,
            tls,
            complaints: Complaints::default(),
            open: AtomicBool::new(false),
            opening: watch::Sender::new(()),
            stop: watch::Sender::new(Stop::No),
        }
    }

    /// Lets the controller decide, with what it needs to know of this broker; see [`Controller::change`].
    ///
    /// # Errors
    /// The metadata log did not take the records.
    pub async fn decide<T>(&self, decision: impl FnOnce(&Image, &Context<'_>) -> Decision<T>) -> Result<T, ErrorCode> {
        self.controller.change(|image, _| self.deciding(|cx| decision(image, cx))).await
    }

    fn deciding<T>(&self, decide: impl FnOnce(&Context<'_>) -> T) -> T {
        let config = self.replicas.config();
        decide(&Context {
            // The clock by which maintenance ends.
            now_ms: self.clock.wall_ms(),
            seed: self.random.seed(),
            new_id: &|| self.random.uuid(),
            rules: &*config,
            // No authorizer is configured.
            may: &|_, _| true,
            num_partitions: config.num_partitions,
            replication_factor: config.default_replication_factor,
            policy: config.election_policy(),
        })
    }

    /// Sizes of internal topics when `alive` brokers can hold them.
    pub fn internal_topics(&self, alive: usize) -> InternalTopics {
        let groups = &self.config.groups;
        InternalTopics {
            offsets_partitions: groups.offsets_partitions,
            offsets_replication: groups.offsets_replicas.with_brokers(alive),
            offsets_segment_bytes: groups.offsets_segment_bytes,
            ..InternalTopics::default()
        }
    }

    /// Whether this broker seems to be cut off from the others: neither has a controller acknowledged a heartbeat for a
    /// while, nor does anybody fetch as a follower.
    pub fn is_cut_off(&self) -> bool {
        let every_ms = i64::try_from(self.config.cluster.heartbeat_every_ms()).unwrap_or(i64::MAX);
        let heard_ms = self.lifecycle.acknowledged_ms().max(self.replicas.around.fetched_ms.load(Ordering::Acquire));
        self.clock.now_ms().saturating_sub(heard_ms) > every_ms.saturating_add(CUT_OFF_MS)
    }

    /// The start is over: recovery is done, the listeners accept.
    pub fn set_ready(&self) {
        self.open.store(true, Ordering::Release);
        self.opening.send_replace(());
    }

    /// Whether the start is over and no stop has begun.
    pub fn is_ready(&self) -> bool {
        self.is_open() && !self.is_stopping()
    }

    /// Whether a stop has begun.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow() != Stop::No
    }

    /// Whether the start is over: clients are served.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Waits until the start is over, or the broker stops.
    pub async fn opened(&self) {
        let mut opening = self.opening.subscribe();
        while !self.is_open() {
            tokio::select! {
                _ = opening.changed() => {}
                _ = self.stopping() => return,
            }
        }
    }

    /// Asks the broker to stop. The first reason stays.
    pub fn stop(&self, reason: Stop) {
        self.stop.send_if_modified(|stop| {
            let first = *stop == Stop::No;
            if first {
                *stop = reason;
            }
            first
        });
    }

    /// A log directory failed. With one directory nothing is left to serve.
    pub fn log_dir_failed(&self, error: &LogError) {
        tracing::error!(%error, "the log directory is offline");
        self.stop(Stop::Storage(error.to_string()));
    }

    /// A partition cannot be appended to here. When the disk has failed, all that lies on it goes offline. When that is for want of space, and other replicas can take the writes,
    /// the broker makes way for them. Where they can't, and for a single replica, it stays: what it holds can be read,
    /// and writing goes on as soon as there is room.
    pub fn append_failed(&self, partition: &Partition, error: &LogError) {
        if error.is_disk_failure() {
            self.log_dir_failed(error);
        }
        if matches!(error, LogError::DiskFull { .. }) && partition.is_better_led_elsewhere() {
            let partition = partition.dir_name();
            tracing::error!(partition, %error, "the disk is full; stopping, so that other replicas lead");
            self.stop(Stop::Storage(error.to_string()));
        }
    }

    /// There is no room for what a leader sends and, as this replica is in sync, waits for: so does everybody who writes with
    /// acks=all, until `replica.lag.time.max.ms` is over. The broker makes way where the others carry on without it. When
    /// it is started again it is out of sync, and nobody waits for it.
    pub fn replication_is_full(&self, partition: &Partition, error: &LogError) {
        if health::is_spared(self) {
            let partition = partition.dir_name();
            tracing::error!(partition, %error, "the disk is full; stopping, so that nobody waits for this replica");
            self.stop(Stop::Storage(error.to_string()));
        }
    }

    /// Resolves, with the reason, once the broker is to stop.
    pub async fn stopping(&self) -> Stop {
        let mut stop = self.stop.subscribe();
        let reason = stop.wait_for(|stop| *stop != Stop::No).await;
        reason.map_or(Stop::Asked, |reason| reason.clone())
    }
}
