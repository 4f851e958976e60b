//! The embedded consumer protocol (subscription and assignment bytes) and the range assignor.
//!
//! The bytes are a version number and a message of that version; a reader of an older version may
//! read the front of a newer one, so unknown versions are read as the newest known.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use klamm_protocol::Message;
use klamm_protocol::messages::consumer_protocol_assignment::TopicPartition as AssignedTopic;
use klamm_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use klamm_protocol::wire::{DecodeError, EncodeError, Reader, Writer};

/// Partitions by topic.
pub type Assignment = BTreeMap<String, Vec<i32>>;

/// Version written. The oldest: nothing of the newer ones is needed, and everyone reads it.
const WRITTEN_VERSION: i16 = 0;

/// The bytes of a subscription to these topics.
pub fn encode_subscription(topics: &BTreeSet<String>) -> Result<Bytes, EncodeError> {
    let topics = topics.iter().cloned().collect();
    encode(&ConsumerProtocolSubscription { topics, ..Default::default() })
}

/// The topics of a subscription.
pub fn decode_subscription(bytes: Bytes) -> Result<BTreeSet<String>, DecodeError> {
    let subscription: ConsumerProtocolSubscription = decode(bytes)?;
    Ok(subscription.topics.into_iter().collect())
}

/// The bytes of an assignment.
pub fn encode_assignment(assignment: &Assignment) -> Result<Bytes, EncodeError> {
    let topics = assignment
        .iter()
        .map(|(topic, partitions)| AssignedTopic { topic: topic.clone(), partitions: partitions.clone() });
    let assigned_partitions = topics.collect();
    encode(&ConsumerProtocolAssignment { assigned_partitions, ..Default::default() })
}

/// The partitions of an assignment; none for empty bytes, which a member without any may get.
pub fn decode_assignment(bytes: Bytes) -> Result<Assignment, DecodeError> {
    if bytes.is_empty() {
        return Ok(Assignment::new());
    }
    let assignment: ConsumerProtocolAssignment = decode(bytes)?;
    Ok(assignment.assigned_partitions.into_iter().map(|t| (t.topic, t.partitions)).collect())
}

fn encode<M: Message>(message: &M) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    message.encode(&mut writer, WRITTEN_VERSION)?;
    let body = writer.finish().into_bytes()?;
    let mut bytes = BytesMut::with_capacity(2 + body.len());
    bytes.put_i16(WRITTEN_VERSION);
    bytes.put(body);
    Ok(bytes.freeze())
}

fn decode<M: Message>(bytes: Bytes) -> Result<M, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16("version")?.clamp(M::MIN_VERSION, M::MAX_VERSION);
    M::decode(&mut reader, version)
}

/// Kafka's range assignor without racks: each topic is split by itself into runs of consecutive
/// partitions among its subscribers in order of member id; the first ones get the remainder.
pub fn assign_ranges(
    subscriptions: &BTreeMap<String, BTreeSet<String>>,
    partition_counts: &BTreeMap<String, i32>,
) -> BTreeMap<String, Assignment> {
    let mut assigned: BTreeMap<String, Assignment> =
        subscriptions.keys().map(|member| (member.clone(), Assignment::new())).collect();
    for (topic, &count) in partition_counts {
        let subscribed = subscriptions.iter().filter(|(_, topics)| topics.contains(topic));
        let members: Vec<&String> = subscribed.map(|(member, _)| member).collect();
        let Ok(n) = i32::try_from(members.len()) else { continue };
        if n == 0 {
            continue;
        }
        let mut next = 0;
        for (i, member) in (0..n).zip(members) {
            let share = count / n + i32::from(i < count % n);
            if share > 0
                && let Some(assignment) = assigned.get_mut(member)
            {
                assignment.insert(topic.clone(), (next..next + share).collect());
            }
            next += share;
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn ranges_are_consecutive_and_complete() {
        let subscriptions = BTreeMap::from([
            ("m1".to_owned(), set(&["a", "b"])),
            ("m2".to_owned(), set(&["a"])),
            ("m3".to_owned(), set(&["a", "b"])),
        ]);
        let counts = BTreeMap::from([("a".to_owned(), 7), ("b".to_owned(), 1)]);
        let assigned = assign_ranges(&subscriptions, &counts);
        assert_eq!(assigned["m1"]["a"], [0, 1, 2]);
        assert_eq!(assigned["m2"]["a"], [3, 4]);
        assert_eq!(assigned["m3"]["a"], [5, 6]);
        assert_eq!(assigned["m1"]["b"], [0]);
        assert!(!assigned["m3"].contains_key("b"));
    }

    #[test]
    fn nobody_subscribed_means_nothing_assigned() {
        let assigned = assign_ranges(&BTreeMap::new(), &BTreeMap::from([("a".to_owned(), 3)]));
        assert!(assigned.is_empty());
    }

    #[test]
    fn protocol_bytes_round_trip() -> Result<(), Box<dyn std::error::Error>> {
        let topics = set(&["a", "b"]);
        assert_eq!(decode_subscription(encode_subscription(&topics)?)?, topics);
        let assignment = Assignment::from([("a".to_owned(), vec![0, 2])]);
        assert_eq!(decode_assignment(encode_assignment(&assignment)?)?, assignment);
        assert!(decode_assignment(Bytes::new())?.is_empty());
        assert!(decode_assignment(Bytes::from_static(b"\0")).is_err());
        Ok(())
    }
}
