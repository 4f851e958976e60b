//! Judges a [`History`]: the anomalies of the Jepsen Kafka workload by their names, and some of our own.
//!
//! Pure. Every anomaly has a unit test that plants it and sees it found, and a good history passes.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{History, Outcome, Reader, Value};

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// Acknowledged and not in the log.
    LostWrite,
    /// In the log and never shown to a reader that has read to the end.
    Unseen,
    /// In the log more than once.
    Duplicate,
    /// One offset with two values, or one value at another offset than acknowledged or read before.
    InconsistentOffsets,
    /// A producer's later record of a partition stands before its earlier one, both acknowledged.
    NonmonotonicSend,
    /// A reader's position went back.
    NonmonotonicPoll,
    /// A reader passed over records.
    PollSkip,
    /// In the log, or shown, though its send was refused.
    FailedRead,
    /// Shown or in the log, but sent by nobody.
    Phantom,
    /// A high watermark went back.
    WatermarkBack,
    /// An acknowledged commit was forgotten.
    CommitBack,
    /// Two brokers acknowledged writes of one leader epoch.
    TwoLeaders,
    /// Two replicas differ below the high watermark.
    ReplicasDiffer,
}

/// How often each anomaly was found, with a few examples.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How often.
    pub found: BTreeMap<Anomaly, u64>,
    /// Some of them.
    pub examples: Vec<String>,
}

impl Report {
    /// Notes one.
    pub fn add(&mut self, anomaly: Anomaly, example: impl FnOnce() -> String) {
        let count = self.found.entry(anomaly).or_default();
        *count += 1;
        if *count <= 5 {
            self.examples.push(format!("{anomaly:?}: {}", example()));
        }
    }

    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.found.is_empty()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_clean() {
            return write!(f, "0 anomalies");
        }
        write!(f, "{:?}\n{}", self.found, self.examples.join("\n"))
    }
}

/// Everything that is wrong with a history.
pub fn check(history: &History) -> Report {
    let mut report = Report::default();
    let placed = log(history, &mut report);
    sends(history, &placed, &mut report);
    leaders(history, &mut report);
    for reader in &history.readers {
        stretches(history, reader, &mut report);
        unseen(history, &reader.name, std::slice::from_ref(reader), &mut report);
    }
    for member in &history.members {
        stretches(history, member, &mut report);
    }
    if !history.members.is_empty() {
        unseen(history, "the group", &history.members, &mut report);
    }
    for look in &history.commits {
        if look.found < look.promised {
            report.add(Anomaly::CommitBack, || {
                format!("{}: {} was committed, {} is", look.partition, look.promised, look.found)
            });
        }
    }
    for series in &history.watermarks {
        for (partition, values) in series {
            for pair in values.windows(2).filter(|pair| pair[1] < pair[0]) {
                report.add(Anomaly::WatermarkBack, || format!("{partition}: {} after {}", pair[1], pair[0]));
            }
        }
    }
    report
}

/// Where each value stands.
type Placed = HashMap<Value, (i32, i64)>;

fn log(history: &History, report: &mut Report) -> Placed {
    let outcomes: HashMap<Value, Outcome> = history.sends.iter().map(|s| (s.value, s.outcome)).collect();
    let mut placed = Placed::new();
    for (&partition, log) in &history.log {
        for seen in log {
            if let Some(before) = placed.insert(seen.value, (partition, seen.offset)) {
                report.add(Anomaly::Duplicate, || format!("{seen:?} of {partition}, before at {before:?}"));
            }
            match outcomes.get(&seen.value) {
                None => report.add(Anomaly::Phantom, || format!("{seen:?} of {partition}")),
                Some(Outcome::Failed) => report.add(Anomaly::FailedRead, || format!("{seen:?} of {partition}")),
                Some(_) => {}
            }
        }
    }
    placed
}

fn sends(history: &History, placed: &Placed, report: &mut Report) {
    // By producer and partition, in the order of sending.
    let mut last: HashMap<(u32, i32), (u32, i64)> = HashMap::new();
    let mut acked: Vec<_> = history
        .sends
        .iter()
        .filter_map(|s| match s.outcome {
            Outcome::Acked { offset, .. } => Some((s.value, s.partition, offset)),
            _ => None,
        })
        .collect();
    acked.sort_unstable();
    for (value, partition, promised) in acked {
        let Some(&(found_in, found_at)) = placed.get(&value) else {
            report.add(Anomaly::LostWrite, || format!("{value:?} of {partition} at {promised}"));
            continue;
        };
        if found_in != partition || (promised >= 0 && promised != found_at) {
            report.add(Anomaly::InconsistentOffsets, || {
                format!("{value:?} acknowledged at {promised} of {partition} is at {found_at} of {found_in}")
            });
        }
        match last.get(&(value.producer, partition)) {
            Some((number, offset)) if *offset > found_at => report.add(Anomaly::NonmonotonicSend, || {
                format!("{value:?} of {partition} at {found_at}, number {number} at {offset}")
            }),
            _ => {}
        }
        last.insert((value.producer, partition), (value.number, found_at));
    }
}

/// An epoch of a partition has one leader. Its records may be acknowledged by a later leader, too, when a producer
/// repeats a batch whose answer got lost; but then the first one has nothing left to say about that epoch.
fn leaders(history: &History, report: &mut Report) {
    let mut epochs: HashMap<(i32, i64), i32> = HashMap::new();
    for (&partition, log) in &history.log {
        epochs.extend(log.iter().map(|seen| ((partition, seen.offset), seen.epoch)));
    }
    // When each broker first and last acknowledged a record of the epoch.
    let mut spoke: BTreeMap<(i32, i32), BTreeMap<i32, (u32, u32)>> = BTreeMap::new();
    for send in &history.sends {
        let Outcome::Acked { offset, leader } = send.outcome else { continue };
        let Some(&epoch) = epochs.get(&(send.partition, offset)) else { continue };
        let brokers = spoke.entry((send.partition, epoch)).or_default();
        let (first, last) = brokers.entry(leader).or_insert((send.done_ms, send.done_ms));
        (*first, *last) = ((*first).min(send.done_ms), (*last).max(send.done_ms));
    }
    for ((partition, epoch), brokers) in spoke {
        for (a, (a_first, a_last)) in &brokers {
            for (b, (b_first, b_last)) in brokers.range(a + 1..) {
                if a_first < b_last && b_first < a_last {
                    report.add(Anomaly::TwoLeaders, || {
                        format!("epoch {epoch} of {partition}: broker {a} in {a_first}–{a_last} ms, {b} in {b_first}–{b_last}")
                    });
                }
            }
        }
    }
}

fn stretches(history: &History, reader: &Reader, report: &mut Report) {
    for (partition, stretches) in &reader.stretches {
        let log = history.log.get(partition).map(Vec::as_slice).unwrap_or_default();
        let by_offset = |offset: i64| log.binary_search_by_key(&offset, |seen| seen.offset);
        for stretch in stretches {
            for seen in stretch {
                match by_offset(seen.offset) {
                    Ok(at) if log[at].value == seen.value => {}
                    Ok(at) => report.add(Anomaly::InconsistentOffsets, || {
                        format!("{} read {seen:?} of {partition}, the log has {:?}", reader.name, log[at])
                    }),
                    Err(_) => report.add(Anomaly::InconsistentOffsets, || {
                        format!("{} read {seen:?} of {partition}, the log has nothing there", reader.name)
                    }),
                }
            }
            for pair in stretch.windows(2) {
                let (before, after) = (pair[0], pair[1]);
                if after.offset <= before.offset {
                    let what = || format!("{}: {partition}: {} after {}", reader.name, after.offset, before.offset);
                    report.add(Anomaly::NonmonotonicPoll, what);
                    continue;
                }
                let next = by_offset(before.offset + 1).unwrap_or_else(|at| at);
                if log.get(next).is_some_and(|skipped| skipped.offset < after.offset) {
                    report.add(Anomaly::PollSkip, || {
                        format!("{}: {partition}: from {} to {}", reader.name, before.offset, after.offset)
                    });
                }
            }
        }
    }
}

fn unseen(history: &History, who: &str, readers: &[Reader], report: &mut Report) {
    for (partition, log) in &history.log {
        let stretches = readers.iter().filter_map(|r| r.stretches.get(partition)).flatten().flatten();
        let seen: HashSet<Value> = stretches.map(|s| s.value).collect();
        for missed in log.iter().filter(|s| !seen.contains(&s.value)) {
            report.add(Anomaly::Unseen, || format!("{who}: {missed:?} of {partition}"));
        }
    }
}

/// Batches of a replica's log: base offset, last offset, and the bytes.
type Batches<'a> = Vec<(i64, i64, &'a [u8])>;

/// Cuts the bytes of a replica's segments into batches; what is cut off at the end does not count.
pub fn batches(log: &[u8]) -> Batches<'_> {
    let mut batches = Vec::new();
    let mut rest = log;
    while let (Some(base), Some(length)) = (number::<8>(rest, 0), number::<4>(rest, 8)) {
        let size = 12 + usize::try_from(length).unwrap_or(usize::MAX / 2);
        let (Some(batch), Some(delta)) = (rest.get(..size), number::<4>(rest, 23)) else { break };
        batches.push((base, base + delta, batch));
        rest = &rest[size..];
    }
    batches
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<i64> {
    Some(bytes.get(at..at + N)?.iter().fold(0, |n, byte| n << 8 | i64::from(*byte)))
}

/// Compares the replicas of a partition up to the high watermark, byte for byte.
pub fn replicas(partition: &str, high_watermark: i64, replicas: &[(usize, Vec<u8>)], report: &mut Report) {
    let below = |log| batches(log).into_iter().filter(|b| b.1 < high_watermark).collect::<Batches<'_>>();
    let mut first: Option<(usize, Batches<'_>)> = None;
    for (node, log) in replicas {
        let own = below(log);
        if own.last().map_or(0, |b| b.1 + 1) < high_watermark {
            let end = own.last().map_or(0, |b| b.1 + 1);
            report
                .add(Anomaly::ReplicasDiffer, || format!("{partition}: node {node} ends at {end} of {high_watermark}"));
        }
        let Some((other, model)) = &first else {
            first = Some((*node, own));
            continue;
        };
        if let Some((a, b)) = model.iter().zip(&own).find(|(a, b)| a.2 != b.2) {
            report.add(Anomaly::ReplicasDiffer, || {
                let place = a.2.iter().zip(b.2).position(|(a, b)| a != b);
                let bytes = place.map_or_else(String::new, |at| format!(", byte {at} is {} and {}", a.2[at], b.2[at]));
                format!("{partition}: nodes {other} and {node} at offsets {} and {}{bytes}", a.0, b.0)
            });
        }
    }
}

#[cfg(test)]
#[path = "checker_test.rs"]
mod tests;
