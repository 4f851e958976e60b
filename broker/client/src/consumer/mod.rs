//! Consuming: a set of partitions with positions, and long-polling fetches to their leaders.
//!
//! At most one fetch per leader is under way; it goes on between calls of [`Consumer::poll`], which
//! can be cancelled at any point without losing records. A fetch whose partition was moved meanwhile
//! (sought, unassigned) is dropped by comparing `Position::term`.

mod fetch;
mod records;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::error::ErrorCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::admin::offsets::OffsetSpec;
use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::{Isolation, TopicPartition};
use fetch::{Fetched, Part};

/// What to do when a position lies outside of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutOfRange {
    /// Go on at the log start.
    #[default]
    Earliest,
    /// Go on at the end.
    Latest,
    /// Fail.
    Fail,
}

/// How a consumer behaves.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Whether records of open and aborted transactions are shown.
    pub isolation: Isolation,
    /// How long a broker may wait for records.
    pub max_wait: Duration,
    /// A broker answers as soon as it has this much.
    pub min_bytes: i32,
    /// Bound on one answer.
    pub max_bytes: i32,
    /// Bound on one partition's share of an answer.
    pub partition_max_bytes: i32,
    /// Bound on what one batch may grow to when decompressed.
    pub decompressed_bytes_max: usize,
    /// What to do when a position lies outside of the log.
    pub out_of_range: OutOfRange,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::ReadUncommitted,
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            decompressed_bytes_max: 128 << 20,
            out_of_range: OutOfRange::Earliest,
        }
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Leader epoch of its batch.
    pub leader_epoch: i32,
    /// Milliseconds since 1970, set by the producer or (see `log_append_time`) by the broker.
    pub timestamp: i64,
    /// Whether the broker set the timestamp.
    pub log_append_time: bool,
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
    /// Headers in order; keys may repeat.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

struct Position {
    topic: Arc<str>,
    /// Next offset to fetch.
    fetch: i64,
    /// Next offset the caller has not seen.
    next: i64,
    /// Changes whenever the position is set from outside.
    term: u64,
    busy: bool,
    not_before: Instant,
    failing_since: Option<Instant>,
}

/// Reads assigned partitions.
pub struct Consumer {
    client: Client,
    options: ConsumerOptions,
    positions: BTreeMap<TopicPartition, Position>,
    fetches: JoinSet<Fetched>,
    busy_leaders: BTreeSet<i32>,
    ready: VecDeque<ConsumedRecord>,
    term: u64,
}

impl Consumer {
    /// A consumer without partitions, over connections of its own.
    pub fn new(client: &Client, options: ConsumerOptions) -> Self {
        Self {
            client: client.apart(),
            options,
            positions: BTreeMap::new(),
            fetches: JoinSet::new(),
            busy_leaders: BTreeSet::new(),
            ready: VecDeque::new(),
            term: 0,
        }
    }

    /// Reads these partitions from these offsets on, and no others.
    pub fn assign(&mut self, offsets: impl IntoIterator<Item = (TopicPartition, i64)>) {
        self.positions.clear();
        self.ready.clear();
        for (at, offset) in offsets {
            self.seek(at, offset);
        }
    }

    /// Adds a partition, or moves it to another offset.
    pub fn seek(&mut self, at: TopicPartition, offset: i64) {
        self.ready.retain(|r| r.partition != at.partition || *r.topic != *at.topic);
        self.term += 1;
        let position = Position {
            topic: Arc::from(at.topic.as_str()),
            fetch: offset,
            next: offset,
            term: self.term,
            busy: false,
            not_before: Instant::now(),
            failing_since: None,
        };
        self.positions.insert(at, position);
    }

    /// Stops reading a partition.
    pub fn unassign(&mut self, at: &TopicPartition) {
        self.positions.remove(at);
        self.ready.retain(|r| r.partition != at.partition || *r.topic != *at.topic);
    }

    /// For each partition the offset of the next record that [`poll`](Self::poll) will return.
    pub fn positions(&self) -> BTreeMap<TopicPartition, i64> {
        self.positions.iter().map(|(at, p)| (at.clone(), p.next)).collect()
    }

    /// The next records, at most `max`; those of one partition come in order. Empty after about
    /// [`ConsumerOptions::max_wait`] without any, or when only positions have moved.
    pub async fn poll(&mut self, max: usize) -> Result<Vec<ConsumedRecord>> {
        if self.ready.is_empty() {
            self.fill().await?;
        }
        let count = self.ready.len().min(max.max(1));
        let records: Vec<ConsumedRecord> = self.ready.drain(..count).collect();
        for record in &records {
            if let Some(position) = self.position_of(&record.topic, record.partition) {
                position.next = record.offset + 1;
            }
        }
        if self.ready.is_empty() {
            // Past markers and offsets that compaction removed there is nothing left to show.
            for position in self.positions.values_mut() {
                position.next = position.fetch;
            }
        }
        Ok(records)
    }

    fn position_of(&mut self, topic: &str, partition: i32) -> Option<&mut Position> {
        self.positions.get_mut(&TopicPartition::new(topic, partition))
    }

    /// Waits for one fetch, or until there is nothing to wait for.
    async fn fill(&mut self) -> Result<()> {
        let give_up = Instant::now() + self.options.max_wait;
        let wake = self.launch().map_or(give_up, |at| at.min(give_up));
        tokio::select! {
            Some(fetched) = self.fetches.join_next(), if !self.fetches.is_empty() => match fetched {
                Ok(fetched) => self.take(fetched).await,
                Err(error) => Err(ClientError::Invalid(format!("a fetch was stopped: {error}"))),
            },
            () = sleep_until(wake) => Ok(()),
        }
    }

    /// Starts a fetch at each leader that has none under way. Returns when to look again for
    /// partitions that pause after an error.
    fn launch(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let cluster = self.client.cluster();
        let mut parts: BTreeMap<i32, Vec<Part>> = BTreeMap::new();
        let mut look_again: Option<Instant> = None;
        for (at, position) in &mut self.positions {
            if position.busy {
                continue;
            }
            if position.not_before > now {
                let at = position.not_before;
                look_again = Some(look_again.map_or(at, |before| before.min(at)));
                continue;
            }
            let known = cluster.partition(&at.topic, at.partition);
            let leader = known.map_or(-1, |p| p.leader);
            if self.busy_leaders.contains(&leader) {
                continue;
            }
            position.busy = true;
            parts.entry(leader).or_default().push(Part {
                at: at.clone(),
                topic: Arc::clone(&position.topic),
                offset: position.fetch,
                leader_epoch: known.map_or(-1, |p| p.leader_epoch),
                term: position.term,
            });
        }
        for (leader, mut parts) in parts {
            // The broker fills its answer in the order of the request: give everyone a turn.
            let turn = usize::try_from(self.term).unwrap_or(0) % parts.len();
            parts.rotate_left(turn);
            self.term += 1;
            self.busy_leaders.insert(leader);
            let (client, options) = (self.client.clone(), self.options.clone());
            self.fetches.spawn(fetch::fetch(client, options, leader, parts));
        }
        look_again
    }

    /// Takes in what a fetch brought.
    async fn take(&mut self, fetched: Fetched) -> Result<()> {
        self.busy_leaders.remove(&fetched.leader);
        let mut lost = Vec::new();
        let mut failed = Ok(());
        for (part, result) in fetched.parts {
            let Some(position) = self.positions.get_mut(&part.at) else { continue };
            if position.term != part.term {
                continue;
            }
            position.busy = false;
            match result {
                Ok(read) => {
                    position.fetch = read.next_offset;
                    position.failing_since = None;
                    self.ready.extend(read.records);
                }
                Err(error) if error.code() == Some(ErrorCode::OffsetOutOfRange) => lost.push(part.at),
                Err(error) => {
                    let now = Instant::now();
                    let since = *position.failing_since.get_or_insert(now);
                    let patience = self.client.options().api_timeout;
                    if error.is_retriable() && now.duration_since(since) < patience {
                        position.not_before = now + self.client.pause_after(now.duration_since(since));
                    } else {
                        failed = Err(error);
                    }
                }
            }
        }
        for at in lost {
            self.reset(at).await?;
        }
        failed
    }

    async fn reset(&mut self, at: TopicPartition) -> Result<()> {
        let spec = match self.options.out_of_range {
            OutOfRange::Earliest => OffsetSpec::Earliest,
            OutOfRange::Latest => OffsetSpec::Latest,
            OutOfRange::Fail => {
                let code = ErrorCode::OffsetOutOfRange.code();
                return ClientError::check(format!("reading {at}"), code, None);
            }
        };
        let asked = BTreeSet::from([at.clone()]);
        let mut found = self.client.list_offsets(&asked, spec, self.options.isolation).await?;
        let found = found.remove(&at).unwrap_or_else(|| Err(ClientError::missing(at.to_string())));
        let offset = found?.offset;
        tracing::warn!(partition = %at, offset, "position was outside of the log, reading on from here");
        self.seek(at, offset);
        Ok(())
    }
}
