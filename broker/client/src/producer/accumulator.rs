//! Records that wait to be sent or acknowledged, by partition. Pure state behind the producer's lock.
//!
//! Invariant: of each partition at most one batch is out (`Queue::out`), and batches leave and come
//! back for a retry in order.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::{Delivered, ProducerOptions, ProducerRecord};
use crate::TopicPartition;
use crate::error::Result;
use crate::partitioner::{Sticky, partition_of_key};

/// A producer id and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// A batch: its records and who waits for it.
pub(super) struct Batch {
    pub(super) records: Vec<ProducerRecord>,
    pub(super) created: Instant,
    /// Fixed when the batch is first sent, so that the broker knows a repetition.
    pub(super) sequence: Option<(Identity, i32)>,
    size: usize,
    settled: watch::Sender<Option<Result<Delivered>>>,
    /// The batch's share of the buffer; given back when the batch is dropped.
    _room: OwnedSemaphorePermit,
}

impl Batch {
    /// Tells everyone how it went: `Ok` holds the first record's place.
    pub(super) fn settle(self, result: Result<Delivered>) {
        self.settled.send_replace(Some(result));
    }
}

/// Where a record went.
pub(super) struct Place {
    pub(super) batch: watch::Receiver<Option<Result<Delivered>>>,
    pub(super) index: i64,
    /// Whether the sender must look: a batch is full, or has just begun to linger.
    pub(super) wake: bool,
}

#[derive(Default)]
struct Queue {
    open: Option<Batch>,
    closed: VecDeque<Batch>,
    /// Who waits for the batch that is on its way.
    out: Option<watch::Receiver<Option<Result<Delivered>>>>,
    not_before: Option<Instant>,
    /// This partition's identity and its next sequence.
    identity: Option<(Identity, i32)>,
}

/// All partitions' queues.
pub(super) struct Accumulator {
    batch_bytes: usize,
    queues: BTreeMap<TopicPartition, Queue>,
    sticky: Sticky,
    /// Identity that partitions without one take on.
    pub(super) identity: Option<Identity>,
}

/// What the sender can do now, and when to look again.
pub(super) struct Ready {
    pub(super) batches: Vec<(TopicPartition, Batch)>,
    pub(super) look_again: Option<Instant>,
    /// A partition has something to send but no producer id.
    pub(super) needs_identity: bool,
}

impl Accumulator {
    pub(super) fn new(batch_bytes: usize) -> Self {
        Self { batch_bytes, queues: BTreeMap::new(), sticky: Sticky::default(), identity: None }
    }

    /// Adds a record of `size` bytes to the batch of its partition.
    pub(super) fn append(
        &mut self,
        record: ProducerRecord,
        partitions: i32,
        size: usize,
        room: OwnedSemaphorePermit,
    ) -> Place {
        let sticky = record.partition.is_none() && record.key.is_none();
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of_key(key, partitions),
            (None, None) => self.sticky.partition(&record.topic, partitions),
        };
        let mut at = TopicPartition { topic: record.topic.clone(), partition };
        let mut wake = false;
        let overflows = |open: &Batch| open.size + size > self.batch_bytes;
        if let Some(queue) = self.queues.get_mut(&at)
            && let Some(full) = queue.open.take_if(|open| overflows(open))
        {
            queue.closed.push_back(full);
            wake = true;
            if sticky {
                at.partition = self.sticky.advance(&at.topic, partitions);
            }
        }
        let queue = self.queues.entry(at).or_default();
        let (batch, index) = match &mut queue.open {
            Some(open) => {
                open.records.push(record);
                open.size += size;
                open._room.merge(room);
                (open.settled.subscribe(), open.records.len() as i64 - 1)
            }
            none => {
                wake = true;
                let (settled, batch) = watch::channel(None);
                *none = Some(Batch {
                    records: vec![record],
                    created: Instant::now(),
                    sequence: None,
                    size,
                    settled,
                    _room: room,
                });
                (batch, 0)
            }
        };
        Place { batch, index, wake }
    }

    /// Ends the gathering of all open batches; returns everyone that isn't settled yet.
    pub(super) fn close_batches(&mut self) -> Vec<watch::Receiver<Option<Result<Delivered>>>> {
        let mut waiting = Vec::new();
        for queue in self.queues.values_mut() {
            queue.closed.extend(queue.open.take());
            waiting.extend(queue.out.clone());
            waiting.extend(queue.closed.iter().map(|batch| batch.settled.subscribe()));
        }
        waiting
    }

    /// Takes one batch of each partition that may send now.
    pub(super) fn take_ready(&mut self, now: Instant, options: &ProducerOptions) -> Ready {
        let mut ready = Ready { batches: Vec::new(), look_again: None, needs_identity: false };
        let mut later = |at: Instant| {
            ready.look_again = Some(ready.look_again.map_or(at, |before| before.min(at)));
        };
        for (at, queue) in &mut self.queues {
            if queue.out.is_some() {
                continue;
            }
            if let Some(not_before) = queue.not_before.filter(|t| *t > now) {
                later(not_before);
                continue;
            }
            if queue.closed.is_empty()
                && let Some(open) = &queue.open
            {
                let due = open.created + options.linger;
                if due > now {
                    later(due);
                    continue;
                }
                queue.closed.extend(queue.open.take());
            }
            let Some(first) = queue.closed.front_mut() else { continue };
            if options.idempotent && first.sequence.is_none() {
                let own = queue.identity.or_else(|| self.identity.map(|identity| (identity, 0)));
                let Some((identity, sequence)) = own else {
                    ready.needs_identity = true;
                    continue;
                };
                first.sequence = Some((identity, sequence));
                let next = sequence.wrapping_add(first.records.len() as i32) & i32::MAX;
                queue.identity = Some((identity, next));
            }
            if let Some(batch) = queue.closed.pop_front() {
                queue.out = Some(batch.settled.subscribe());
                ready.batches.push((at.clone(), batch));
            }
        }
        ready
    }

    /// A batch is settled. After a failure the partition's sequence has a gap, so it starts afresh.
    pub(super) fn settled(&mut self, at: &TopicPartition, failed: bool) {
        if let Some(queue) = self.queues.get_mut(at) {
            queue.out = None;
            if failed && queue.identity.take().is_some() {
                self.identity = None;
            }
        }
    }

    /// A batch goes back to the front, for another try at `not_before`.
    pub(super) fn give_back(&mut self, at: &TopicPartition, batch: Batch, not_before: Instant) {
        let queue = self.queues.entry(at.clone()).or_default();
        queue.out = None;
        queue.not_before = Some(not_before);
        queue.closed.push_front(batch);
    }

    /// Fails everything that waits for a producer id, which can't be had.
    pub(super) fn take_waiting(&mut self) -> Vec<Batch> {
        let mut waiting = Vec::new();
        for queue in self.queues.values_mut().filter(|q| q.out.is_none() && q.identity.is_none()) {
            waiting.extend(queue.closed.drain(..));
            waiting.extend(queue.open.take());
        }
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, LazyLock};
    use std::time::Duration;
    use tokio::sync::Semaphore;

    static ROOM: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(10_000)));

    fn record(partition: Option<i32>) -> ProducerRecord {
        ProducerRecord { topic: "t".to_owned(), partition, ..Default::default() }
    }

    fn append(accumulator: &mut Accumulator, partition: Option<i32>) -> Place {
        let room = Arc::clone(&ROOM).try_acquire_many_owned(10);
        accumulator.append(record(partition), 4, 10, room.expect("room"))
    }

    fn options(idempotent: bool) -> ProducerOptions {
        ProducerOptions { idempotent, ..Default::default() }
    }

    #[test]
    fn one_batch_of_a_partition_is_out_at_a_time_and_a_retry_keeps_its_sequence() {
        let mut accumulator = Accumulator::new(25);
        accumulator.identity = Some(Identity { id: 7, epoch: 0 });
        let options = options(true);
        for _ in 0..5 {
            append(&mut accumulator, Some(0));
        }
        let now = Instant::now();
        let mut first = accumulator.take_ready(now, &options).batches;
        assert_eq!(first.len(), 1);
        let (at, batch) = first.remove(0);
        assert_eq!((batch.records.len(), batch.sequence.map(|s| s.1)), (2, Some(0)));
        assert!(accumulator.take_ready(now, &options).batches.is_empty());

        accumulator.give_back(&at, batch, now + Duration::from_secs(1));
        let waiting = accumulator.take_ready(now, &options);
        assert!(waiting.batches.is_empty() && waiting.look_again == Some(now + Duration::from_secs(1)));
        let later = now + Duration::from_secs(2);
        let (_, batch) = accumulator.take_ready(later, &options).batches.remove(0);
        assert_eq!(batch.sequence.map(|s| s.1), Some(0));

        accumulator.settled(&at, false);
        let (_, batch) = accumulator.take_ready(later, &options).batches.remove(0);
        assert_eq!(batch.sequence.map(|s| s.1), Some(2));
    }

    #[test]
    fn after_a_failure_a_partition_needs_a_new_identity() {
        let mut accumulator = Accumulator::new(25);
        accumulator.identity = Some(Identity { id: 7, epoch: 0 });
        let options = options(true);
        append(&mut accumulator, Some(0));
        let later = Instant::now() + Duration::from_secs(1);
        let (at, batch) = accumulator.take_ready(later, &options).batches.remove(0);
        batch.settle(Err(super::super::closed()));
        accumulator.settled(&at, true);
        append(&mut accumulator, Some(0));
        assert!(accumulator.take_ready(later, &options).needs_identity);
        accumulator.identity = Some(Identity { id: 8, epoch: 0 });
        let (_, batch) = accumulator.take_ready(later, &options).batches.remove(0);
        assert_eq!(batch.sequence, Some((Identity { id: 8, epoch: 0 }, 0)));
    }

    #[test]
    fn keyless_records_stay_together_until_the_batch_is_full() {
        let mut accumulator = Accumulator::new(30);
        let indexes: Vec<i64> = (0..4).map(|_| append(&mut accumulator, None).index).collect();
        assert_eq!(indexes, [0, 1, 2, 0]);
        assert_eq!(accumulator.queues.len(), 2);
    }
}
