//! What the log remembers of each idempotent or transactional producer: epoch, the last five batches, its open
//! transaction. This is what makes retries harmless and holds back unfinished transactions.
//!
//! A batch is checked before it is written ([`Producers::check`]) and noted after ([`Producers::note`]), so a failed
//! write changes nothing. Rebuilding after a crash notes the same batches in the same order.

use std::collections::{BTreeMap, HashMap};

use klamm_protocol::batch::{BatchHeader, BatchView, EndTxnMarker};

use crate::error::LogError;

/// Batches remembered per producer; clients keep at most this many in flight.
const WINDOW: usize = 5;

/// A batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchMeta {
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Last offset minus first.
    pub offset_delta: i32,
    /// Its largest timestamp.
    pub timestamp: i64,
}

impl BatchMeta {
    /// Offset of the first record.
    pub fn first_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }

    /// Sequence number of the first record; counting wraps from `i32::MAX` to 0.
    pub fn first_sequence(&self) -> i32 {
        if self.last_sequence < 0 {
            return self.last_sequence;
        }
        let first = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        (first & i64::from(i32::MAX)) as i32
    }
}

/// A producer that has been heard of since somebody looked last.
const HEARD: i64 = i64::MIN;

/// State of one producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// Newest epoch.
    pub epoch: i16,
    /// Epoch of the coordinator that wrote the last marker, or -1.
    pub coordinator_epoch: i32,
    /// Timestamp of the last batch or marker.
    pub last_timestamp: i64,
    /// Where its open transaction began in this partition.
    pub txn_start: Option<i64>,
    /// When it was first found to have been silent since the look before; [`HEARD`] when it has not.
    silent_since_ms: i64,
    count: u8,
    batches: [BatchMeta; WINDOW],
}

impl Producer {
    fn new(epoch: i16) -> Producer {
        let none = BatchMeta { last_sequence: -1, last_offset: -1, offset_delta: 0, timestamp: -1 };
        Producer {
            epoch,
            coordinator_epoch: -1,
            last_timestamp: -1,
            txn_start: None,
            silent_since_ms: HEARD,
            count: 0,
            batches: [none; WINDOW],
        }
    }

    /// The remembered batches, oldest first.
    pub fn batches(&self) -> &[BatchMeta] {
        &self.batches[..usize::from(self.count)]
    }

    /// The newest batch.
    pub fn last_batch(&self) -> Option<&BatchMeta> {
        self.batches().last()
    }

    /// Sequence number of the last record, or -1 when none of this epoch is known.
    pub fn last_sequence(&self) -> i32 {
        self.last_batch().map_or(-1, |b| b.last_sequence)
    }

    fn set_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.count = 0;
        }
    }

    fn push(&mut self, batch: BatchMeta) {
        if usize::from(self.count) == WINDOW {
            self.batches.rotate_left(1);
        } else {
            self.count += 1;
        }
        self.batches[usize::from(self.count) - 1] = batch;
    }
}

/// A transaction that a marker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompletedTxn {
    /// Producer id.
    pub producer_id: i64,
    /// Offset of its first batch here.
    pub first_offset: i64,
    /// Offset of the marker.
    pub last_offset: i64,
    /// Whether the marker says abort.
    pub aborted: bool,
}

/// The end-transaction marker in a control batch; `None` for other control records, and for a control batch that
/// compaction emptied.
pub(crate) fn marker_of(batch: &[u8]) -> Option<EndTxnMarker> {
    // Control batches are not compressed, so this copies nothing.
    let mut scratch = Vec::new();
    let view = BatchView::parse(batch).ok()?;
    let record = view.walk(&mut scratch, 1 << 16).ok()?.next()?.ok()?;
    EndTxnMarker::of(&record)
}

/// Who wants to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client's produce request: sequence numbers are checked.
    Client,
    /// A coordinator writing its own records or markers: epochs are checked.
    Coordinator,
    /// Replication or recovery: the leader has checked, all is taken.
    Replication,
}

/// The answer to a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on and append.
    Fresh,
    /// The batch is already in the log, there.
    Duplicate(BatchMeta),
}

/// All producers of a partition.
#[derive(Debug, Clone, Default)]
pub struct Producers {
    producers: HashMap<i64, Producer>,
    /// First offset -> producer, of transactions without a marker.
    ongoing: BTreeMap<i64, i64>,
    /// First offset -> marker offset, of ended transactions whose marker the high watermark hasn't passed.
    unreplicated: BTreeMap<i64, i64>,
}

/// Whether `next` may follow `last`.
fn in_sequence(last: i32, next: i32) -> bool {
    i64::from(next) == i64::from(last) + 1 || (next == 0 && last == i32::MAX)
}

impl Producers {
    /// Number of producers known.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// The state of a producer.
    pub fn get(&self, producer_id: i64) -> Option<&Producer> {
        self.producers.get(&producer_id)
    }

    /// All producers, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.producers.iter().map(|(id, p)| (*id, p))
    }

    /// Whether a batch may be appended; changes nothing. Batches without a producer id are always fresh.
    pub fn check(&self, batch: &BatchHeader, origin: Origin) -> Result<Verdict, LogError> {
        if !batch.has_producer_id() || origin == Origin::Replication {
            return Ok(Verdict::Fresh);
        }
        let Some(known) = self.producers.get(&batch.producer_id) else {
            // All its records may have been deleted: any sequence number will do.
            return Ok(Verdict::Fresh);
        };
        let epoch = batch.producer_epoch;
        if origin == Origin::Client && epoch == known.epoch && !batch.is_control() {
            let range = (batch.base_sequence, batch.last_sequence());
            let same = |b: &&BatchMeta| (b.first_sequence(), b.last_sequence) == range;
            if let Some(found) = known.batches().iter().find(same) {
                return Ok(Verdict::Duplicate(*found));
            }
        }
        if epoch < known.epoch {
            return Err(LogError::InvalidProducerEpoch { producer_id: batch.producer_id, epoch, current: known.epoch });
        }
        if batch.is_control() {
            return Ok(Verdict::Fresh);
        }
        if origin == Origin::Client {
            let last = if epoch == known.epoch { known.last_sequence() } else { -1 };
            if !in_sequence(last, batch.base_sequence) {
                return Err(LogError::OutOfOrderSequence {
                    producer_id: batch.producer_id,
                    epoch,
                    sequence: batch.base_sequence,
                    expected: last.wrapping_add(1).max(0),
                });
            }
        }
        if known.txn_start.is_some() && !batch.is_transactional() {
            return Err(LogError::InvalidTxnState { producer_id: batch.producer_id });
        }
        Ok(Verdict::Fresh)
    }

    /// Whether a marker may be appended, beyond what [`check`](Self::check) says.
    pub fn check_marker(&self, producer_id: i64, marker: &EndTxnMarker) -> Result<(), LogError> {
        match self.producers.get(&producer_id) {
            Some(known) if known.coordinator_epoch > marker.coordinator_epoch => Err(LogError::CoordinatorFenced {
                producer_id,
                epoch: marker.coordinator_epoch,
                current: known.coordinator_epoch,
            }),
            _ => Ok(()),
        }
    }

    /// Takes in a data batch that is now in the log, with its final offsets.
    pub fn note(&mut self, batch: &BatchHeader) {
        if !batch.has_producer_id() || batch.is_control() {
            return;
        }
        let producer = self.producers.entry(batch.producer_id).or_insert_with(|| Producer::new(batch.producer_epoch));
        producer.set_epoch(batch.producer_epoch);
        producer.push(BatchMeta {
            last_sequence: batch.last_sequence(),
            last_offset: batch.last_offset(),
            offset_delta: batch.last_offset_delta,
            timestamp: batch.max_timestamp,
        });
        producer.last_timestamp = batch.max_timestamp;
        producer.silent_since_ms = HEARD;
        if batch.is_transactional() && producer.txn_start.is_none() {
            producer.txn_start = Some(batch.base_offset);
            self.ongoing.insert(batch.base_offset, batch.producer_id);
        }
    }

    /// Takes in a marker that is now in the log. Returns the transaction it ended, with the last stable offset that
    /// holds after it, if there was one.
    pub fn note_marker(&mut self, batch: &BatchHeader, marker: &EndTxnMarker) -> Option<(CompletedTxn, i64)> {
        let producer = self.producers.entry(batch.producer_id).or_insert_with(|| Producer::new(batch.producer_epoch));
        producer.set_epoch(batch.producer_epoch);
        producer.coordinator_epoch = marker.coordinator_epoch;
        producer.last_timestamp = batch.max_timestamp;
        producer.silent_since_ms = HEARD;
        let first_offset = producer.txn_start.take()?;
        let completed = CompletedTxn {
            producer_id: batch.producer_id,
            first_offset,
            last_offset: batch.base_offset,
            aborted: !marker.commit,
        };
        self.ongoing.remove(&first_offset);
        self.unreplicated.insert(first_offset, batch.base_offset);
        let stable = self.ongoing.keys().next().copied().unwrap_or(completed.last_offset + 1);
        Some((completed, stable))
    }

    /// The first offset that belongs to a transaction whose end isn't known to be replicated.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        let ongoing = self.ongoing.keys().next();
        let unreplicated = self.unreplicated.keys().next();
        match (ongoing, unreplicated) {
            (Some(a), Some(b)) => Some(*a.min(b)),
            (a, b) => a.or(b).copied(),
        }
    }

    /// First offset and producer of every open transaction.
    pub fn ongoing(&self) -> impl Iterator<Item = (i64, i64)> {
        self.ongoing.iter().map(|(first, id)| (*first, *id))
    }

    /// Forgets ended transactions whose marker is below the high watermark (or the log start).
    pub fn on_high_watermark(&mut self, offset: i64) {
        if !self.unreplicated.is_empty() {
            self.unreplicated.retain(|_, marker| *marker >= offset);
        }
    }

    /// Forgets producers that have been silent for too long by a clock that cannot jump, and have no open transaction.
    /// The wall clock counts at twice the time only, for those that were silent before this process began: if it is
    /// wrong by less, nobody is forgotten who may yet send a batch again.
    pub fn expire(&mut self, now_ms: i64, wall_ms: i64, expiration_ms: i64) {
        self.producers.retain(|_, p| {
            if p.txn_start.is_some() {
                return true;
            }
            if p.silent_since_ms == HEARD {
                p.silent_since_ms = now_ms;
                return true;
            }
            let ancient = wall_ms.saturating_sub(p.last_timestamp) >= expiration_ms.saturating_mul(2);
            now_ms.saturating_sub(p.silent_since_ms) < expiration_ms && !(ancient && p.last_timestamp >= 0)
        });
        if self.producers.is_empty() {
            self.producers = HashMap::new();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Producers::default();
    }

    /// Takes over the batches of producers that `recent`, made from the end of the same log, knows more of.
    pub(crate) fn recall(&mut self, recent: &Producers) {
        for (id, known) in &mut self.producers {
            if let Some(found) = recent.producers.get(id)
                && found.epoch == known.epoch
                && found.count > known.count
                && found.last_batch().map(|b| b.last_offset) == known.last_batch().map(|b| b.last_offset)
            {
                known.batches = found.batches;
                known.count = found.count;
            }
        }
    }

    /// Takes in a producer from a snapshot.
    pub(crate) fn restore(&mut self, entry: &crate::snapshot::SnapshotEntry) {
        let mut producer = Producer::new(entry.epoch);
        producer.coordinator_epoch = entry.coordinator_epoch;
        producer.last_timestamp = entry.timestamp;
        if entry.last_offset >= 0 {
            producer.push(BatchMeta {
                last_sequence: entry.last_sequence,
                last_offset: entry.last_offset,
                offset_delta: entry.offset_delta,
                timestamp: entry.timestamp,
            });
        }
        if entry.txn_start >= 0 {
            producer.txn_start = Some(entry.txn_start);
            self.ongoing.insert(entry.txn_start, entry.producer_id);
        }
        self.producers.insert(entry.producer_id, producer);
    }
}

#[cfg(test)]
#[path = "producers_test.rs"]
mod tests;
