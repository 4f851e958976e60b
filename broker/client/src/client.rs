//! A client of one cluster: bootstrap list, cached metadata, a connection per broker, retries.
//!
//! Retrying lives here and only here ([`Client::retry`]): a call is repeated while its error says
//! that time or another leader may help, with growing pauses, until [`ClientOptions::api_timeout`].
//! Everything above (admin, producer, consumer) is built from `retry` and the routing calls.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use klamm_protocol::Request;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::{FindCoordinatorRequest, MetadataRequest, MetadataResponse};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::{Broker, Cluster, Topic};
use crate::connection::{Connection, ConnectionOptions};
use crate::error::{ClientError, Result};
use crate::standing::Standing;

/// How long a topic that was asked for may take to come into being.
const CREATION_PATIENCE: Duration = Duration::from_secs(5);

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Applies to each connection.
    pub connection: ConnectionOptions,
    /// Bound on a whole call with all its retries.
    pub api_timeout: Duration,
    /// First pause between tries; doubles up to `backoff_max`.
    pub backoff: Duration,
    /// Longest pause between tries.
    pub backoff_max: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connection: ConnectionOptions::default(),
            api_timeout: Duration::from_secs(30),
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
        }
    }
}

/// A client of one cluster. Clones share connections and metadata.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    connections: Arc<Mutex<HashMap<String, Connection>>>,
}

struct Shared {
    bootstrap: Vec<String>,
    options: ClientOptions,
    cluster: RwLock<Arc<Cluster>>,
    standing: std::sync::Mutex<Standing>,
}

impl Client {
    /// Connects to the first broker of `host:port[,host:port…]` that answers and learns the brokers.
    pub async fn connect(bootstrap: &str, options: ClientOptions) -> Result<Self> {
        let client = Self {
            shared: Arc::new(Shared {
                bootstrap: parse_bootstrap(bootstrap)?,
                options,
                cluster: RwLock::default(),
                standing: std::sync::Mutex::default(),
            }),
            connections: Arc::default(),
        };
        client.refresh(Some(&[])).await?;
        Ok(client)
    }

    /// A client that shares this one's metadata but has connections of its own. Brokers answer each
    /// connection in order, so whoever sends requests that are parked needs its own.
    pub fn apart(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), connections: Arc::default() }
    }

    /// The options given to [`connect`](Self::connect).
    pub fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    /// The cached picture of the cluster.
    pub fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.shared.cluster.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks for these topics (`None`: all) and returns the new picture. Never creates topics.
    pub async fn refresh(&self, topics: Option<&[&str]>) -> Result<Arc<Cluster>> {
        self.refresh_with(topics, false).await
    }

    async fn refresh_with(&self, topics: Option<&[&str]>, create: bool) -> Result<Arc<Cluster>> {
        let answer = self.ask_any(&about(topics, create)).await?;
        self.learn(answer, topics.is_none())
    }

    fn learn(&self, answer: MetadataResponse, all: bool) -> Result<Arc<Cluster>> {
        ClientError::check("metadata", answer.error_code, None)?;
        let mut slot = self.shared.cluster.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut slot).update(answer, all);
        Ok(Arc::clone(&slot))
    }

    /// The topic from the cache, or asked for; an error when there is no such topic.
    pub async fn topic(&self, name: &str) -> Result<Topic> {
        if let Some(topic) = self.cached_topic(name) {
            return Ok(topic);
        }
        self.fresh_topic(name, false).await
    }

    /// As [`topic`](Self::topic), but the broker may create it if it is set up to do so.
    /// Waits until the new topic is usable.
    pub async fn topic_or_create(&self, name: &str) -> Result<Topic> {
        if let Some(topic) = self.cached_topic(name) {
            return Ok(topic);
        }
        // Auto-creation takes a moment; where it is off, waiting longer would not help.
        let give_up = Instant::now() + CREATION_PATIENCE;
        let found = self.retry(|| async {
            match self.fresh_topic(name, true).await {
                Err(e) if e.is_retriable() && Instant::now() > give_up => Ok(Err(e)),
                other => other.map(Ok),
            }
        });
        found.await?
    }

    /// Number of partitions of a topic that is known and usable.
    pub(crate) fn partition_count(&self, topic: &str) -> Option<i32> {
        let count = self.cluster().topics.get(topic)?.partitions.len();
        i32::try_from(count).ok().filter(|count| *count > 0)
    }

    fn cached_topic(&self, name: &str) -> Option<Topic> {
        let cluster = self.cluster();
        let topic = cluster.topics.get(name)?;
        let usable = topic.error.is_none() && !topic.partitions.is_empty();
        usable.then(|| topic.clone())
    }

    async fn fresh_topic(&self, name: &str, create: bool) -> Result<Topic> {
        let cluster = self.refresh_with(Some(&[name]), create).await?;
        let topic = cluster.topics.get(name);
        let topic = topic.ok_or_else(|| ClientError::missing(format!("topic {name}")))?;
        ClientError::check(format!("topic {name}"), topic.error.code(), None)?;
        Ok(topic.clone())
    }

    /// A connection to any broker, the first of [`candidates`](Self::candidates) that takes one.
    pub async fn any(&self) -> Result<Connection> {
        let addresses = self.candidates().await;
        let mut last = None;
        for address in &addresses {
            match self.connection(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(nobody(&addresses, last))
    }

    /// Where to ask: known live brokers, then the bootstrap list, in each first where a connection is open; and see
    /// [`Standing::sort`].
    async fn candidates(&self) -> Vec<String> {
        let mut addresses: Vec<String> = {
            let connections = self.connections.lock().await;
            connections.iter().filter(|(_, c)| !c.is_closed()).map(|(address, _)| address.clone()).collect()
        };
        let cluster = self.cluster();
        let known = cluster.brokers.values().map(Broker::address);
        for address in known.chain(self.shared.bootstrap.iter().cloned()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let is_broker = |address: &str| cluster.brokers.values().any(|broker| broker.address() == address);
        self.standing().sort(&mut addresses, is_broker);
        addresses
    }

    /// Calls any broker once, and remembers when it did not answer.
    pub(crate) async fn ask_any<R: Request>(&self, request: &R) -> Result<R::Response> {
        let connection = self.any().await?;
        let answer = connection.call(request).await;
        if let Err(error) = &answer
            && error.code().is_none()
            && error.is_retriable()
        {
            self.standing().failed(connection.address());
        }
        answer
    }

    /// Asks other brokers before this one for a while: what it says of the cluster may be old.
    pub(crate) fn doubt(&self, id: i32) {
        if let Some(broker) = self.cluster().brokers.get(&id) {
            self.standing().doubted(&broker.address());
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.shared.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to a partition's leader as metadata names it; -1, or one that metadata no longer lists, means
    /// that there is none for the moment.
    pub(crate) async fn to_leader(&self, id: i32) -> Result<Connection> {
        if !self.cluster().brokers.contains_key(&id) {
            ClientError::check("the leader", ErrorCode::LeaderNotAvailable.code(), None)?;
        }
        self.broker(id).await
    }

    /// A connection to this broker.
    pub async fn broker(&self, id: i32) -> Result<Connection> {
        let cluster = self.cluster();
        let broker = cluster.brokers.get(&id).ok_or(ClientError::UnknownBroker { id })?;
        self.connection(&broker.address()).await
    }

    /// A connection that takes controller requests.
    pub async fn controller(&self) -> Result<Connection> {
        let controller = self.cluster().controller;
        if self.cluster().brokers.contains_key(&controller) { self.broker(controller).await } else { self.any().await }
    }

    /// The group's coordinator.
    pub async fn coordinator(&self, group: &str) -> Result<Connection> {
        let request = FindCoordinatorRequest { coordinator_keys: vec![group.to_owned()], ..Default::default() };
        let answer = self.ask_any(&request).await?;
        let what = || format!("coordinator of group {group}");
        let found = answer.coordinators.into_iter().next();
        let found = found.ok_or_else(|| ClientError::missing(what()))?;
        ClientError::check(what(), found.error_code, found.error_message.as_deref())?;
        let (id, host, port) = (found.node_id, found.host, found.port);
        self.connection(&Broker { id, host, port, rack: None }.address()).await
    }

    /// The cached or a new connection to an address.
    pub async fn connection(&self, address: &str) -> Result<Connection> {
        if let Some(open) = self.connections.lock().await.get(address)
            && !open.is_closed()
        {
            return Ok(open.clone());
        }
        // Opened outside the lock: one dead broker must not hold up calls to the others. Two calls
        // may open one each; the first stays in the cache.
        let opened = Connection::open(address, self.shared.options.connection.clone()).await;
        let opened = opened.inspect_err(|_| self.standing().failed(address))?;
        let mut connections = self.connections.lock().await;
        connections.retain(|_, c| !c.is_closed());
        Ok(connections.entry(address.to_owned()).or_insert(opened).clone())
    }

    /// Calls the controller, with retries.
    pub async fn call_controller<R: Request>(&self, request: &R) -> Result<R::Response> {
        self.retry(|| async { self.controller().await?.call(request).await }).await
    }

    /// Calls any broker, with retries.
    pub async fn call_any<R: Request>(&self, request: &R) -> Result<R::Response> {
        self.retry(|| self.ask_any(request)).await
    }

    /// Repeats `attempt` while its error is retriable and time is left, refreshing the known topics
    /// and brokers when the error says that they are out of date.
    pub async fn retry<T, F, Fut>(&self, mut attempt: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let deadline = Instant::now() + self.shared.options.api_timeout;
        let mut pause = self.backoff();
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let wait = pause.next_pause();
            if !error.is_retriable() || Instant::now() + wait >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, ?wait, "trying again");
            sleep(wait).await;
            if error.is_stale_metadata() {
                // If nobody answers now, the next attempt says so itself.
                let _ = self.refresh_known().await;
            }
        }
    }

    /// Asks again for the topics in the cache.
    pub async fn refresh_known(&self) -> Result<Arc<Cluster>> {
        self.refresh_known_and(BTreeSet::new()).await
    }

    /// Asks for the topics in the cache, one broker after the other until one answers within `patience`. A connection may
    /// lead nowhere and never say so, be it there or about to be made: to a host that is gone, or a pod behind an address
    /// that is another one's by now.
    pub(crate) async fn refresh_known_soon(&self, patience: Duration) -> Result<Arc<Cluster>> {
        let cluster = self.cluster();
        let names: Vec<&str> = cluster.topics.keys().map(String::as_str).collect();
        let request = about(Some(&names), false);
        let addresses = self.candidates().await;
        let mut last = None;
        for address in &addresses {
            let answer = timeout(patience, async { self.connection(address).await?.call(&request).await }).await;
            match answer {
                Ok(Ok(answer)) => return self.learn(answer, false),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {
                    let what = format!("metadata from {address}");
                    last = Some(ClientError::Timeout { what, after: patience });
                }
            }
            // It may only be slow: what others have asked of it goes on.
            self.standing().failed(address);
        }
        Err(nobody(&addresses, last))
    }

    /// Asks for the topics in the cache and for these: partitions can be given out (by a group) without their topic
    /// having been asked for.
    pub(crate) async fn refresh_known_and(&self, topics: BTreeSet<String>) -> Result<Arc<Cluster>> {
        let cluster = self.cluster();
        let names: BTreeSet<&str> = cluster.topics.keys().chain(&topics).map(String::as_str).collect();
        self.refresh(Some(&names.into_iter().collect::<Vec<_>>())).await
    }

    /// The pause before the next try at something that has been failing for `failing`.
    pub(crate) fn pause_after(&self, failing: Duration) -> Duration {
        let options = &self.shared.options;
        (failing / 4).clamp(options.backoff.min(options.backoff_max), options.backoff_max)
    }

    /// Pauses for one chain of retries.
    pub(crate) fn backoff(&self) -> Backoff {
        let options = &self.shared.options;
        Backoff { next: options.backoff, max: options.backoff_max }
    }
}

/// The error when none of these answered.
fn nobody(addresses: &[String], last: Option<ClientError>) -> ClientError {
    match last {
        Some(only) if addresses.len() == 1 => only,
        Some(last) => ClientError::NoBroker { addresses: addresses.join(", "), last: Box::new(last) },
        None => ClientError::BadAddress { address: String::new() },
    }
}

/// Doubling pauses, each shortened by up to a fifth at random so that clients spread out.
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause.mul_f64(1.0 - f64::from(random_u32() % 1000) / 5000.0)
    }
}

/// A random number from the standard library's per-process hash seed: good enough to spread
/// retries and to pick partitions, and needs no further package.
pub(crate) fn random_u32() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    (RandomState::new().build_hasher().finish() >> 32) as u32
}

/// A request for what there is to know of these topics, or of all of them.
fn about(topics: Option<&[&str]>, create: bool) -> MetadataRequest {
    let named = |name: &&str| MetadataRequestTopic { name: Some((*name).to_owned()), ..Default::default() };
    MetadataRequest {
        topics: topics.map(|names| names.iter().map(named).collect()),
        allow_auto_topic_creation: create,
        ..Default::default()
    }
}

fn parse_bootstrap(list: &str) -> Result<Vec<String>> {
    let addresses: Vec<String> = list.split(',').map(str::trim).filter(|a| !a.is_empty()).map(str::to_owned).collect();
    for address in &addresses {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
            return Err(ClientError::BadAddress { address: address.clone() });
        }
    }
    if addresses.is_empty() {
        return Err(ClientError::BadAddress { address: list.to_owned() });
    }
    Ok(addresses)
}

#[cfg(test)]
#[path = "client_test.rs"]
pub(crate) mod tests;
