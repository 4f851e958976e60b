//! Producing: records are gathered into batches by partition and sent by one task in the background.
//!
//! [`accumulator`](self) holds what is not yet acknowledged, `sender` is the task. One batch of a
//! partition is on its way at a time: that keeps order through every retry, and the next batch grows
//! meanwhile. With idempotence on, a repeated batch keeps its producer id and sequence, so the broker
//! knows it again; after a batch has failed for good the partition goes on under a new producer id,
//! since a gap in sequences would be refused.

mod accumulator;
mod lookout;
mod sender;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::compress::Compression;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::error::{ClientError, Result};
use accumulator::{Accumulator, Place};

/// Whose word a producer waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// Nobody's.
    None,
    /// The leader's.
    Leader,
    /// That of all replicas in sync.
    #[default]
    All,
}

/// How a producer behaves.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// When a record counts as written.
    pub acks: Acks,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a batch waits for more records.
    pub linger: Duration,
    /// Size at which a batch is closed, before compression.
    pub batch_bytes: usize,
    /// Bytes of records not yet acknowledged; [`Producer::send`] waits beyond them.
    pub buffer_bytes: usize,
    /// Whether the broker drops repeated batches. Needs [`Acks::All`].
    pub idempotent: bool,
    /// How long a record is tried, counted from [`Producer::send`].
    pub delivery_timeout: Duration,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            compression: Compression::None,
            linger: Duration::from_millis(5),
            batch_bytes: 256 << 10,
            buffer_bytes: 32 << 20,
            idempotent: true,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// A record to be written.
#[derive(Clone, Debug, Default)]
pub struct ProducerRecord {
    /// Topic.
    pub topic: String,
    /// Partition; chosen by the key's hash, or sticky without a key, when `None`.
    pub partition: Option<i32>,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; `None` deletes the key's value in a compacted topic.
    pub value: Option<Bytes>,
    /// Headers in order; keys may repeat.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Milliseconds since 1970; the time of sending when `None`.
    pub timestamp: Option<i64>,
}

impl ProducerRecord {
    /// What the record adds to a batch, at most.
    fn size(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(k, v)| 10 + k.len() + v.as_ref().map_or(0, Bytes::len)).sum();
        let key = self.key.as_ref().map_or(0, Bytes::len);
        // 32: length, attributes, deltas and lengths of key and value as varints.
        32 + key + self.value.as_ref().map_or(0, Bytes::len) + headers
    }
}

/// Where a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Partition.
    pub partition: i32,
    /// Offset; -1 when the broker didn't tell (acks=0, or a repeated batch it knew already).
    pub offset: i64,
    /// The broker that took it.
    pub leader: i32,
}

/// A record's way to the broker. Dropping it doesn't stop the record.
#[derive(Debug)]
pub struct Delivery {
    batch: watch::Receiver<Option<Result<Delivered>>>,
    /// The record's place in its batch.
    index: i64,
}

impl Delivery {
    /// Waits until the record is acknowledged or has failed.
    pub async fn wait(mut self) -> Result<Delivered> {
        let settled = self.batch.wait_for(Option::is_some).await;
        let first = match settled.as_deref() {
            Ok(Some(result)) => result.clone()?,
            _ => return Err(closed()),
        };
        let offset = if first.offset < 0 { -1 } else { first.offset + self.index };
        Ok(Delivered { offset, ..first })
    }
}

/// A producer. Dropping it abandons what is not yet acknowledged: [`flush`](Self::flush) first.
pub struct Producer {
    client: Client,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    options: ProducerOptions,
    accumulator: Mutex<Accumulator>,
    /// Free bytes of the buffer.
    room: Arc<Semaphore>,
    /// Wakes the sender.
    work: Notify,
}

impl Shared {
    fn accumulator(&self) -> MutexGuard<'_, Accumulator> {
        self.accumulator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Producer {
    /// Starts a producer over connections of its own.
    pub fn start(client: &Client, options: ProducerOptions) -> Result<Self> {
        if options.idempotent && options.acks != Acks::All {
            let reason = "an idempotent producer needs acks=all";
            return Err(ClientError::Invalid(reason.to_owned()));
        }
        let client = client.apart();
        let shared = Arc::new(Shared {
            accumulator: Mutex::new(Accumulator::new(options.batch_bytes)),
            room: Arc::new(Semaphore::new(options.buffer_bytes.min(u32::MAX as usize))),
            work: Notify::new(),
            options,
        });
        let task = tokio::spawn(sender::run(client.clone(), Arc::clone(&shared)));
        Ok(Self { client, shared, task })
    }

    /// Puts a record into its partition's batch; waits while the buffer is full. Records of one
    /// partition are written in the order of these calls.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery> {
        let count = match self.client.partition_count(&record.topic) {
            Some(count) => count,
            None => self.client.topic_or_create(&record.topic).await?.partitions.len() as i32,
        };
        if let Some(partition) = record.partition.filter(|p| !(0..count).contains(p)) {
            return Err(ClientError::Invalid(format!(
                "topic {} has no partition {partition}: it has {count} of them",
                record.topic
            )));
        }
        let size = record.size().min(self.shared.options.buffer_bytes);
        let room = Arc::clone(&self.shared.room);
        let room = room.acquire_many_owned(u32::try_from(size).unwrap_or(u32::MAX)).await;
        let room = room.map_err(|_| closed())?;
        let Place { batch, index, wake } = self.shared.accumulator().append(record, count, size, room);
        if wake {
            self.shared.work.notify_one();
        }
        Ok(Delivery { batch, index })
    }

    /// Sends what has been gathered and waits until all of it is acknowledged or has failed; returns
    /// the first failure.
    pub async fn flush(&self) -> Result<()> {
        let waiting = self.shared.accumulator().close_batches();
        self.shared.work.notify_one();
        let mut first = Ok(());
        for batch in waiting {
            let result = Delivery { batch, index: 0 }.wait().await;
            if first.is_ok() {
                first = result.map(|_| ());
            }
        }
        first
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn closed() -> ClientError {
    ClientError::Invalid("the producer is closed".to_owned())
}
