//! What must always hold, looked at after every step.
//!
//! Committed is what lies below any replica's high watermark, since readers may have seen it. It never changes and never
//! goes away; every replica agrees with it below its own high watermark; every member of the ISR, and every elected
//! leader, holds all of it; what was acknowledged is in it, once, and each producer's batches are there in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use klamm::replica::partition::Partition;
use klamm_protocol::batch::{BatchHeader, batches, verify_crc};

use crate::members::Generations;
use crate::message::Key;
use crate::node::Standing;
use crate::world::World;

/// What is known of each partition.
#[derive(Default)]
pub struct Oracle {
    pub partitions: BTreeMap<Key, Known>,
    /// What a node's replica was like when it was looked at last.
    seen: BTreeMap<(i32, Key), Seen>,
    /// What the group has been told is committed.
    pub group_offset: i64,
    /// What was to be committed for it, and nobody knows whether it is.
    pub group_doubtful: Vec<i64>,
    /// Questions answered by a coordinator that was the only one in sync, and fewer than have to be: it may have been
    /// replaced by one that was eligible, which decision 025 puts up with.
    pub group_lone: BTreeSet<u64>,
    pub generations: Generations,
}

/// What is known of a partition.
#[derive(Default)]
pub struct Known {
    /// Batches by base offset.
    pub committed: BTreeMap<i64, Bytes>,
    pub end: i64,
    /// The next sequence number of each producer.
    sequences: BTreeMap<i64, i32>,
    /// Who led each epoch.
    leaders: BTreeMap<i32, i32>,
    pub acknowledged: u64,
    /// Everything below may have been deleted.
    pub deleted_to: i64,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    boot: u32,
    /// It agrees with what is committed up to here.
    agrees_to: i64,
    log_end: i64,
    epoch: i32,
    led: bool,
    high_watermark: i64,
}

/// Bytes after those that each leader makes anew: offset, length, leader epoch.
const OWN_BYTES: usize = 16;

/// Whole batches from `from` on, up to `to`.
fn content(partition: &Partition, from: i64, to: i64) -> Vec<(BatchHeader, Bytes)> {
    let mut found = Vec::new();
    partition.with_log(|log| {
        let mut offset = from.max(log.log_start_offset());
        while offset < to {
            let read = log.read(offset, 1 << 20, to, true).unwrap_or_else(|e| panic!("a log cannot be read: {e}"));
            if read.is_empty() {
                let end = log.log_end_offset();
                assert!(offset >= end, "nothing is read at {offset} of a log that ends at {end}: {read:?}, {log:?}");
                break;
            }
            offset = read.next_offset;
            let bytes = read.bytes().expect("a file can be read");
            let mut at = 0;
            for batch in batches(&bytes) {
                let (header, batch) = batch.unwrap_or_else(|e| panic!("no batch: {e}"));
                verify_crc(batch).unwrap_or_else(|e| panic!("a damaged batch at {}: {e}", header.base_offset));
                found.push((header, bytes.slice(at..at + batch.len())));
                at += batch.len();
            }
        }
    });
    found
}

impl Known {
    /// Takes a batch that lies below a high watermark: it is known, or it is the next.
    fn take(&mut self, node: i32, header: &BatchHeader, bytes: &Bytes) {
        if header.base_offset < self.end {
            let known = self.committed.get(&header.base_offset);
            let known = known
                .unwrap_or_else(|| panic!("node {node} has a batch at {} across committed ones", header.base_offset));
            assert!(
                known == bytes,
                "node {node} has another batch at {} than was committed: {:?}, not {:?}",
                header.base_offset,
                header,
                BatchHeader::parse(known)
            );
            return;
        }
        assert!(header.base_offset == self.end, "node {node} has a hole from {} to {}", self.end, header.base_offset);
        self.end = header.next_offset();
        self.committed.insert(header.base_offset, bytes.clone());
        if header.has_producer_id() {
            let next = self.sequences.entry(header.producer_id).or_insert(0);
            assert!(
                header.base_sequence == *next,
                "producer {}'s batch at {} has sequence {} where {next} comes next",
                header.producer_id,
                header.base_offset,
                header.base_sequence
            );
            *next = header.last_sequence() + 1;
        }
    }
}

impl World {
    /// Looks at a node's replicas after something has happened there.
    pub fn check_node(&mut self, id: i32) {
        let node = &self.nodes[id as usize];
        let boot = node.boot;
        let Some(up) = node.up.as_ref().filter(|up| up.standing == Standing::Open) else { return };
        let mut grown = Vec::new();
        for partition in &up.partitions {
            let key = (partition.topic.id, partition.index);
            let offsets = partition.offsets();
            let known = self.oracle.partitions.entry(key).or_default();
            let seen = self.oracle.seen.entry((id, key)).or_default();
            if seen.boot != boot {
                *seen = Seen { boot, ..Seen::default() };
            }
            let (led, epoch) = (partition.is_led_here(), partition.leader_epoch());
            if led && seen.led && seen.epoch == epoch {
                assert!(offsets.log_end >= seen.log_end, "leader {id} of {} lost its end", key.1);
            }
            if seen.epoch == epoch {
                let cut = offsets.log_end < seen.high_watermark;
                assert!(
                    offsets.high_watermark >= seen.high_watermark || cut,
                    "the high watermark of {} on {id} went back",
                    key.1
                );
            }
            (seen.led, seen.epoch, seen.high_watermark) = (led, epoch, offsets.high_watermark);
            if offsets.log_end < seen.log_end {
                seen.agrees_to = seen.agrees_to.min(offsets.log_end);
            }
            seen.log_end = offsets.log_end;
            if offsets.high_watermark > seen.agrees_to {
                let before = known.end;
                for (header, bytes) in content(partition, seen.agrees_to, offsets.high_watermark) {
                    known.take(id, &header, &bytes);
                    seen.agrees_to = header.next_offset();
                }
                if known.end > before {
                    grown.push(key);
                }
            }
        }
        for key in grown {
            let members = self.members(key);
            members.into_iter().for_each(|member| self.check_holds(member, key));
        }
        let keys: Vec<Key> =
            self.nodes[id as usize].up.iter().flat_map(|up| &up.partitions).map(|p| (p.topic.id, p.index)).collect();
        for key in keys {
            if self.members(key).contains(&id) {
                self.check_holds(id, key);
            }
        }
    }

    /// Who is in sync, according to the newest metadata.
    fn members(&self, key: Key) -> Vec<i32> {
        let topic = self.meta.image.topic_by_id(key.0);
        topic.and_then(|t| t.partition(key.1)).map(|p| p.isr.clone()).unwrap_or_default()
    }

    /// A member of the ISR holds all that is committed.
    fn check_holds(&self, id: i32, key: Key) {
        let Some(up) = self.node(id).up.as_ref().filter(|up| up.standing == Standing::Open) else { return };
        if self.meta.image.broker(id).is_none_or(|b| b.epoch != up.epoch) {
            return;
        }
        let Some(partition) = up.partition(key) else { return };
        let (end, committed) = (partition.offsets().log_end, self.oracle.partitions.get(&key).map_or(0, |k| k.end));
        assert!(end >= committed, "node {id} is in sync with {} but ends at {end}, {committed} is committed", key.1);
    }

    /// After each entry of the metadata log.
    pub fn check_metadata(&self) {
        for key in self.oracle.partitions.keys() {
            self.members(*key).into_iter().for_each(|id| self.check_holds(id, *key));
        }
    }

    /// A node has begun to lead: it holds what is committed, and nobody else has led in this epoch.
    pub fn check_leads(&mut self, id: i32, key: Key) {
        let Some(partition) = self.node(id).up.as_ref().and_then(|up| up.partition(key)) else { return };
        let epoch = partition.leader_epoch();
        self.note(|| format!("node {id} leads {} in epoch {epoch}", key.1));
        self.count("leaders");
        let known = self.oracle.partitions.entry(key).or_default();
        let first = *known.leaders.entry(epoch).or_insert(id);
        assert!(first == id, "{first} and {id} lead {} in epoch {epoch}", key.1);
        let current = self.meta.image.topic_by_id(key.0).and_then(|t| t.partition(key.1).cloned());
        if current.is_some_and(|p| p.leader == id && p.leader_epoch == epoch) {
            check_whole(&partition, known, id);
        }
    }

    /// The partitions of a node are open. Only a power loss while it ran may leave one that has to be repaired.
    pub fn check_opened(&mut self, id: i32, offline: usize) {
        let excused = std::mem::take(&mut self.node_mut(id).lost_power_running);
        assert!(offline == 0 || excused, "node {id} cannot open {offline} partitions");
        *self.counts.entry("damaged").or_default() += offline as u64;
        let partitions = self.node(id).up.iter().flat_map(|up| &up.partitions).cloned().collect::<Vec<_>>();
        for partition in partitions {
            self.note(|| {
                partition.with_log(|log| {
                    let (start, end, safe) = (log.log_start_offset(), log.log_end_offset(), log.recovery_point());
                    let segments: Vec<_> = log.segment_sizes().collect();
                    let (epochs, report) = (log.epochs().entries(), log.recovery_report());
                    format!(
                        "  {} {start}..{end} safe to {safe} {segments:?} {epochs:?} {report:?}",
                        partition.dir_name()
                    )
                })
            });
        }
    }

    /// A leader is about to acknowledge a batch to a producer that waits for all.
    pub fn check_acknowledged(&mut self, id: i32, key: Key, base: i64, batch: &Bytes) {
        let known = self.oracle.partitions.entry(key).or_default();
        known.acknowledged += 1;
        let kept = known.committed.get(&base);
        let kept = kept
            .unwrap_or_else(|| panic!("node {id} acknowledges what is at {base} of {}, which is not committed", key.1));
        assert!(
            kept[OWN_BYTES..] == batch[OWN_BYTES..],
            "node {id} acknowledges another batch than is at {base} of {}",
            key.1
        );
        self.count("acknowledged");
    }

    /// A reader was given these bytes for an offset; where it goes on.
    pub fn check_read(&mut self, key: Key, offset: i64, bytes: &Bytes) -> i64 {
        let known = self.oracle.partitions.entry(key).or_default();
        let mut next = offset;
        for batch in batches(bytes) {
            let (header, batch) = batch.expect("a reader gets whole batches");
            verify_crc(batch).unwrap_or_else(|e| panic!("a reader got a damaged batch: {e}"));
            let same = known.committed.get(&header.base_offset).is_some_and(|kept| *kept == batch);
            assert!(same, "a reader got another batch at {} than was committed", header.base_offset);
            next = header.next_offset();
        }
        next
    }

    /// At the very end: all replicas are the same, up to their ends.
    pub fn check_same(&self) {
        for (key, known) in &self.oracle.partitions {
            for node in &self.nodes {
                let Some(partition) = node.up.as_ref().and_then(|up| up.partition(*key)) else { continue };
                check_whole(&partition, known, node.id);
            }
        }
    }
}

/// A log holds everything that is committed, but for what was deleted.
fn check_whole(partition: &Arc<Partition>, known: &Known, id: i32) {
    let (start, at) = (partition.offsets().log_start, partition.index);
    assert!(
        start <= known.deleted_to,
        "node {id} begins {at} at {start}, though only {} was to be deleted",
        known.deleted_to
    );
    let held: BTreeMap<i64, Bytes> =
        content(partition, start, known.end).into_iter().map(|(header, bytes)| (header.base_offset, bytes)).collect();
    let mut ends = known.committed.keys().skip(1).copied().chain([known.end]);
    for (base, bytes) in &known.committed {
        if ends.next().is_some_and(|end| end <= start) {
            continue;
        }
        match held.get(base) {
            None => panic!("node {id} lost what was committed at {base} of {at}: it has {:?}", held.keys()),
            Some(held) => assert!(held == bytes, "node {id} has another batch at {base} of {at} than was committed"),
        }
    }
}
