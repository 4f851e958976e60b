//! Runs the metadata state machine on the quorum: the one way to change topics and configurations.
//!
//! A change is decided against the committed image, proposed, and answered once it has been applied
//! here: the records committed, the image rebuilt, the logs of new partitions open. One change is
//! decided at a time, so no decision rests on an image that another is about to replace.
//!
//! Two images: the committed one, which decisions read, and the published one, which clients see.
//! The published one follows as soon as this broker's partitions match it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use klamm_metadata::controller::{Decision, allocate_producer_ids, create_topics, internal_topic};
use klamm_metadata::{Change, Image, record};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::CreateTopicsRequest;
use klamm_quorum::{Freeze, MachineError, Quorum, QuorumConfig, QuorumError, StateMachine};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::broker::Broker;

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

/// The committed image and what changed since it was last published.
#[derive(Debug)]
struct Committed {
    image: Arc<Image>,
    offset: u64,
    changes: Vec<Change>,
}

/// The state machine that the quorum drives.
struct Machine {
    committed: Arc<Mutex<Committed>>,
    changed: Arc<Notify>,
}

impl StateMachine for Machine {
    fn apply(&mut self, offset: u64, records: &[Bytes]) -> Result<(), MachineError> {
        let mut committed = self.committed.lock();
        let mut image = (*committed.image).clone();
        for record in record::decode(records)? {
            let change = image.apply(&record)?;
            committed.changes.push(change);
        }
        committed.image = Arc::new(image);
        committed.offset = offset;
        drop(committed);
        self.changed.notify_one();
        Ok(())
    }

    fn snapshot(&self) -> Freeze {
        let image = self.committed.lock().image.clone();
        Box::new(move || {
            record::encode(&image.to_records()).unwrap_or_else(|error| {
                // Every record of an image was decoded from bytes once, so it can be encoded again.
                tracing::error!(%error, "the metadata image cannot be written as a snapshot");
                Vec::new()
            })
        })
    }

    fn restore(&mut self, offset: u64, records: &[Bytes]) -> Result<(), MachineError> {
        {
            let mut committed = self.committed.lock();
            committed.image = Arc::new(Image::new(committed.image.cluster_id()));
        }
        self.apply(offset, records)
    }
}

/// Cluster metadata, and the way to change it.
pub struct Controller {
    committed: Arc<Mutex<Committed>>,
    changed: Arc<Notify>,
    published: RwLock<Arc<Image>>,
    published_offset: watch::Sender<u64>,
    deciding: Arc<tokio::sync::Mutex<()>>,
    producer_ids: ProducerIds,
    quorum: Quorum,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("published_offset", &*self.published_offset.borrow()).finish_non_exhaustive()
    }
}

impl Controller {
    /// Opens the metadata log in `dir` and replays it. The quorum's tasks stay on the runtime that
    /// calls this.
    ///
    /// # Errors
    /// The files cannot be read, belong to another cluster or node, or hold what this version does
    /// not understand.
    pub async fn open(dir: PathBuf, node_id: i32, cluster_id: String) -> Result<Self, QuorumError> {
        let image = Arc::new(Image::new(&cluster_id));
        let committed = Arc::new(Mutex::new(Committed { image: image.clone(), offset: 0, changes: Vec::new() }));
        let changed = Arc::new(Notify::new());
        let machine = Machine { committed: committed.clone(), changed: changed.clone() };
        let quorum = Quorum::open(QuorumConfig::new(dir, node_id, cluster_id), machine).await?;
        Ok(Self {
            committed,
            changed,
            published: RwLock::new(image),
            published_offset: watch::Sender::new(0),
            deciding: Arc::default(),
            producer_ids: ProducerIds::default(),
            quorum,
        })
    }

    /// The image that clients see.
    pub fn image(&self) -> Arc<Image> {
        self.published.read().clone()
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> Arc<str> {
        self.image().cluster_id().into()
    }

    /// The metadata log, for status and metrics.
    pub fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    /// Decides, proposes what was decided, and waits until it is published.
    ///
    /// # Errors
    /// The metadata log did not take the records; nothing changed, or it is not known whether it did.
    pub async fn change<T>(&self, decide: impl FnOnce(&Image) -> Decision<T>) -> Result<T, ErrorCode> {
        let deciding = self.deciding.clone().lock_owned().await;
        let image = self.committed.lock().image.clone();
        let Decision { records, response } = decide(&image);
        if records.is_empty() {
            return Ok(response);
        }
        let records = record::encode(&records).map_err(|error| {
            tracing::error!(%error, "a decision cannot be written as records");
            ErrorCode::UnknownServerError
        })?;
        // On a task of its own: a client that hangs up cancels its request, and the next decision must
        // still wait until this one is applied.
        let quorum = self.quorum.clone();
        let proposed = tokio::spawn(async move {
            let offset = quorum.propose(records).await;
            drop(deciding);
            offset
        });
        let offset = proposed.await.map_err(|_| ErrorCode::UnknownServerError)?.map_err(|error| {
            tracing::error!(%error, "the metadata log refused a change");
            ErrorCode::KafkaStorageError
        })?;
        let mut published = self.published_offset.subscribe();
        match published.wait_for(|published| *published >= offset).await {
            Ok(_) => Ok(response),
            Err(_) => Err(ErrorCode::NotController),
        }
    }

    /// The epoch that a broker registering now gets: above all given before.
    pub fn next_broker_epoch(&self) -> i64 {
        i64::try_from(self.committed.lock().offset).unwrap_or(i64::MAX - 1) + 1
    }

    /// Makes an internal topic unless it exists.
    ///
    /// # Errors
    /// `CoordinatorNotAvailable` when it cannot be made now.
    pub async fn create_internal_topic(&self, broker: &Broker, name: &str) -> Result<(), ErrorCode> {
        let sizes = broker.internal_topics(self.image().brokers().count());
        let topic = internal_topic(name, &sizes).ok_or(ErrorCode::InvalidRequest)?;
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let response = broker.decide(|image, cx| create_topics(image, &request, cx)).await?;
        match response.topics.first().map(|topic| ErrorCode::from_code(topic.error_code)) {
            None | Some(ErrorCode::None | ErrorCode::TopicAlreadyExists) => Ok(()),
            Some(code) => {
                let why = response.topics.into_iter().find_map(|topic| topic.error_message).unwrap_or_default();
                tracing::error!(topic = name, code = code.name(), why, "internal topic not created");
                Err(ErrorCode::CoordinatorNotAvailable)
            }
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

    /// One broker as it can be reached on `listener`.
    pub fn node(&self, id: i32, listener: &str) -> Option<Node> {
        node(self.image().broker(id)?, listener)
    }
}

fn node(broker: &klamm_metadata::Broker, listener: &str) -> Option<Node> {
    let endpoint = broker.endpoints.iter().find(|e| e.name == listener)?;
    Some(Node { id: broker.id, host: endpoint.host.clone(), port: i32::from(endpoint.port), rack: broker.rack.clone() })
}

/// Producer ids that the controller gave to this broker and that no producer has yet.
#[derive(Debug, Default)]
struct ProducerIds(tokio::sync::Mutex<std::ops::Range<i64>>);

impl Controller {
    /// A producer id that nobody else has or will have.
    ///
    /// # Errors
    /// The metadata log did not take the allocation of the next block.
    pub async fn next_producer_id(&self, node_id: i32) -> Result<i64, ErrorCode> {
        let mut block = self.producer_ids.0.lock().await;
        if let Some(id) = block.next() {
            return Ok(id);
        }
        let given = self.change(|image| {
            let epoch = image.broker(node_id).map_or(-1, |broker| broker.epoch);
            match allocate_producer_ids(image, node_id, epoch) {
                Ok(Decision { records, response }) => Decision { records, response: Ok(response) },
                Err(error) => Decision { records: Vec::new(), response: Err(error.code) },
            }
        });
        *block = given.await??;
        block.next().ok_or(ErrorCode::UnknownServerError)
    }
}
