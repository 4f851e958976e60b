//! Cluster metadata at this broker, and the way to change it when this broker is the active controller.
//!
//! A change is decided against the committed image, proposed, and answered once it has been applied: one
//! decision at a time, and only while this node leads the quorum in the term in which it decided, so no
//! decision rests on an image that another is about to replace.
//!
//! Two images: the committed one, which decisions read, and the published one, which clients see. The
//! published one follows as soon as this broker's partitions match it.

pub mod active;
pub mod elections;
pub mod machine;
mod quiet;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use klamm_metadata::controller::{ApiError, Decision, Progress};
use klamm_metadata::{Change, Image, record};
use klamm_protocol::ErrorCode;
use klamm_quorum::{Leadership, Quorum, QuorumConfig, QuorumError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use elections::Elections;
use machine::{Committed, Machine};

/// A broker as clients reach it on one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Broker id.
    pub id: i32,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: i32,
    /// Rack, if it has one.
    pub rack: Option<String>,
}

/// Cluster metadata, and the way to change it.
pub struct Controller {
    node_id: i32,
    committed: Arc<Mutex<Committed>>,
    changed: Arc<Notify>,
    published: RwLock<Arc<Image>>,
    published_offset: watch::Sender<u64>,
    deciding: Arc<tokio::sync::Mutex<()>>,
    leadership: watch::Receiver<Leadership>,
    quorum: Quorum,
    commits: AtomicU64,
    commit_micros: AtomicU64,
    elections: Elections,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("published_offset", &*self.published_offset.borrow()).finish_non_exhaustive()
    }
}

impl Controller {
    /// Opens the metadata log and replays it. The quorum's tasks stay on the runtime that calls this.
    ///
    /// # Errors
    /// The files cannot be read, belong to another cluster or node, or hold what this version does
    /// not understand.
    pub async fn open(config: QuorumConfig) -> Result<Self, QuorumError> {
        let node_id = config.node_id;
        let committed = Committed::new(&config.cluster_id);
        let image = committed.image.clone();
        let committed = Arc::new(Mutex::new(committed));
        let changed = Arc::new(Notify::new());
        let machine = Machine::new(committed.clone(), changed.clone());
        let quorum = Quorum::open(config, machine).await?;
        Ok(Self {
            node_id,
            committed,
            changed,
            published: RwLock::new(image),
            published_offset: watch::Sender::new(0),
            deciding: Arc::default(),
            leadership: quorum.leader(),
            quorum,
            commits: AtomicU64::new(0),
            commit_micros: AtomicU64::new(0),
            elections: Elections::default(),
        })
    }

    /// The image that clients see.
    pub fn image(&self) -> Arc<Image> {
        self.published.read().clone()
    }

    /// The image that decisions rest on, and its offset in the metadata log.
    pub fn committed_image(&self) -> (Arc<Image>, u64) {
        let committed = self.committed.lock();
        (committed.image.clone(), committed.offset)
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> Arc<str> {
        self.image().cluster_id().into()
    }

    /// The metadata log.
    pub fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    /// Who leads the quorum, and when that changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Whether this broker is the controller that decides.
    pub fn is_active(&self) -> bool {
        self.leadership.borrow().ready
    }

    /// Node id of the controller that decides, when known.
    pub fn leader_id(&self) -> Option<i32> {
        self.leadership.borrow().leader
    }

    /// Where the active controller takes requests, when that is another node.
    pub fn leader_address(&self) -> Option<String> {
        let leader = self.leader_id().filter(|id| *id != self.node_id)?;
        let voters = self.quorum.metrics().voters;
        let (_, voter) = voters.into_iter().find(|(id, _)| *id == leader)?;
        Some(crate::config::HostPort { host: voter.host, port: voter.port }.to_string())
    }

    /// Decides, proposes what was decided, and waits until it is published here.
    ///
    /// # Errors
    /// As for [`Controller::commit`].
    pub async fn change<T>(&self, decide: impl FnOnce(&Image, i64) -> Decision<T>) -> Result<T, ErrorCode> {
        let (response, offset) = self.commit(decide).await?;
        if let Some(offset) = offset {
            let mut published = self.published_offset.subscribe();
            published.wait_for(|published| *published >= offset).await.map_err(|_| ErrorCode::NotController)?;
        }
        Ok(response)
    }

    /// Decides, knowing the image and the offset it stands at; proposes what was decided, and waits until
    /// it is committed and applied. Answers with the offset it got, `None` when there was nothing to commit.
    ///
    /// # Errors
    /// `NotController`: this node does not lead, or no longer; then it is not known whether the records
    /// were committed. `KafkaStorageError`: the metadata log did not take them.
    pub async fn commit<T>(
        &self,
        decide: impl FnOnce(&Image, i64) -> Decision<T>,
    ) -> Result<(T, Option<u64>), ErrorCode> {
        let deciding = self.deciding.clone().lock_owned().await;
        let leadership = *self.leadership.borrow();
        if !leadership.ready {
            return Err(ErrorCode::NotController);
        }
        let (image, offset) = self.committed_image();
        let Decision { records, response } = decide(&image, i64::try_from(offset).unwrap_or(i64::MAX));
        if records.is_empty() {
            return Ok((response, None));
        }
        let elected = elections::of(&image, &records);
        let records = record::encode(&records).map_err(|error| {
            tracing::error!(%error, "a decision cannot be written as records");
            ErrorCode::UnknownServerError
        })?;
        // On a task of its own: a client that hangs up cancels its request, and the next decision must
        // still wait until this one is applied.
        let quorum = self.quorum.clone();
        let since = Instant::now();
        let proposed = tokio::spawn(async move {
            let offset = quorum.propose_at(leadership.term, records).await;
            drop(deciding);
            offset
        });
        let offset = proposed.await.map_err(|_| ErrorCode::UnknownServerError)?.map_err(|error| match error {
            QuorumError::NotLeader { .. } | QuorumError::Undecided => {
                tracing::info!(%error, "a change was not committed by this controller");
                ErrorCode::NotController
            }
            error => {
                tracing::error!(%error, "the metadata log refused a change");
                ErrorCode::KafkaStorageError
            }
        })?;
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.commit_micros.fetch_add(micros, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.elections.count(elected);
        Ok((response, Some(offset)))
    }

    /// How many changes were committed here, and how many seconds they took together.
    pub fn commits(&self) -> (u64, f64) {
        let seconds = self.commit_micros.load(Ordering::Relaxed) as f64 / 1e6;
        (self.commits.load(Ordering::Relaxed), seconds)
    }

    /// Elections beyond the in-sync replicas that were committed here.
    pub fn elections(&self) -> &Elections {
        &self.elections
    }

    /// Decides in as many steps as it takes, each committed before the next is decided.
    ///
    /// # Errors
    /// Inside, what the decision refused; outside, as for [`Controller::commit`].
    pub async fn commit_all<T>(
        &self,
        mut decide: impl FnMut(&Image, i64) -> Result<Decision<Progress<T>>, ApiError>,
    ) -> Result<Result<T, ApiError>, ErrorCode> {
        loop {
            let (step, _) = self.commit(|image, offset| Decision::or_refusal(decide(image, offset))).await?;
            match step {
                Ok(Progress::More) => {}
                Ok(Progress::Done(done)) => return Ok(Ok(done)),
                Err(refused) => return Ok(Err(refused)),
            }
        }
    }

    /// The offset that clients see, and when it rises.
    pub fn publications(&self) -> watch::Receiver<u64> {
        self.published_offset.subscribe()
    }

    /// Offset of the metadata log that clients see.
    pub fn published_offset(&self) -> u64 {
        *self.published_offset.borrow()
    }

    /// Waits, at most this long, until clients see the metadata log up to `offset`.
    pub async fn published(&self, offset: u64, limit: Duration) {
        let mut published = self.published_offset.subscribe();
        // A broker that lags behind answers late, not wrongly.
        let _ = tokio::time::timeout(limit, published.wait_for(|published| *published >= offset)).await;
    }

    /// Waits until this node knows the metadata log up to `offset`. Only for the start: nobody else may wait
    /// in [`Controller::committed`] meanwhile.
    pub async fn caught_up(&self, offset: u64) {
        while self.committed.lock().offset < offset {
            self.changed.notified().await;
        }
    }

    /// Resolves when something has been committed that is not published yet.
    pub async fn committed(&self) {
        self.changed.notified().await;
    }

    /// What is to be published next: the image, its offset, and what changed on the way to it.
    pub fn take_changes(&self) -> (Arc<Image>, u64, Vec<Change>) {
        let mut committed = self.committed.lock();
        let changes = std::mem::take(&mut committed.changes);
        (committed.image.clone(), committed.offset, changes)
    }

    /// Lets clients see `image`. This broker's partitions match it.
    pub fn publish(&self, image: Arc<Image>, offset: u64) {
        *self.published.write() = image;
        self.published_offset.send_replace(offset);
    }

    /// Brokers that can be reached on `listener`, by rising id.
    pub fn nodes(&self, listener: &str) -> Vec<Node> {
        let image = self.image();
        image.brokers().filter(|broker| !broker.fenced).filter_map(|broker| node(broker, listener)).collect()
    }

    /// All registered brokers with an address on `listener`, by rising id, and whether they are fenced.
    pub fn registered(&self, listener: &str) -> Vec<(Node, bool)> {
        let image = self.image();
        image.brokers().filter_map(|broker| Some((node(broker, listener)?, broker.fenced))).collect()
    }

    /// One broker as it can be reached on `listener`; `None` while it is fenced.
    pub fn node(&self, id: i32, listener: &str) -> Option<Node> {
        node(self.image().broker(id).filter(|broker| !broker.fenced)?, listener)
    }

    /// The broker that clients are told to send controller requests to: the controller, when it takes part
    /// as a broker, or else this one, which hands them on.
    pub fn node_to_ask(&self) -> i32 {
        self.leader_id().filter(|id| self.image().is_active(*id)).unwrap_or(self.node_id)
    }
}

fn node(broker: &klamm_metadata::Broker, listener: &str) -> Option<Node> {
    let endpoint = broker.endpoints.iter().find(|e| e.name == listener)?;
    Some(Node { id: broker.id, host: endpoint.host.clone(), port: i32::from(endpoint.port), rack: broker.rack.clone() })
}
