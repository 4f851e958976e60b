//! All committed offsets of one coordinator, by group, topic and partition. No level of the map is ever left empty.
//!
//! Offsets of open transactions will stand beside these, by producer, until their transaction ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::Uuid;
use klamm_protocol::messages::OffsetCommitValue;

/// One committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetEntry {
    /// The next offset to read.
    pub offset: i64,
    /// Leader epoch of the record before it; -1 when the client did not say.
    pub leader_epoch: i32,
    /// Free text of the client.
    pub metadata: Box<str>,
    /// When it was committed.
    pub commit_ms: i64,
    /// When it lapses, where the client set a retention time (OffsetCommit 2 to 4).
    pub expire_ms: Option<i64>,
    /// The topic it was committed for; zero in records of older brokers.
    pub topic_id: Uuid,
    /// How many partitions the topic had then, where its group is guarded; else 0. See [`guard`](super::guard).
    pub partitions: i32,
}

impl OffsetEntry {
    /// Whether it belongs to the topic with this id. Without an id on either side nothing speaks against it.
    pub fn is_of(&self, topic_id: Uuid) -> bool {
        self.topic_id.is_zero() || topic_id.is_zero() || self.topic_id == topic_id
    }
}

impl From<OffsetCommitValue> for OffsetEntry {
    fn from(value: OffsetCommitValue) -> Self {
        Self {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.into(),
            commit_ms: value.commit_timestamp,
            expire_ms: Some(value.expire_timestamp).filter(|&ms| ms != -1),
            topic_id: value.topic_id,
            partitions: value.klamm_partitions.max(0),
        }
    }
}

impl From<&OffsetEntry> for OffsetCommitValue {
    fn from(entry: &OffsetEntry) -> Self {
        Self {
            offset: entry.offset,
            leader_epoch: entry.leader_epoch,
            metadata: entry.metadata.to_string(),
            commit_timestamp: entry.commit_ms,
            expire_timestamp: entry.expire_ms.unwrap_or(-1),
            topic_id: entry.topic_id,
            klamm_partitions: entry.partitions,
        }
    }
}

/// The offsets of one topic, by partition. Sorted vectors, because most groups have committed a few partitions of a
/// topic or two: a tree's nodes would be mostly empty.
#[derive(Debug, Clone)]
pub(crate) struct TopicOffsets {
    pub topic: Arc<str>,
    partitions: Vec<(i32, OffsetEntry)>,
}

impl TopicOffsets {
    pub fn get(&self, partition: i32) -> Option<&OffsetEntry> {
        let at = self.find(partition).ok()?;
        self.partitions.get(at).map(|(_, entry)| entry)
    }

    pub fn iter(&self) -> impl Iterator<Item = (i32, &OffsetEntry)> {
        self.partitions.iter().map(|(p, entry)| (*p, entry))
    }

    fn find(&self, partition: i32) -> Result<usize, usize> {
        self.partitions.binary_search_by_key(&partition, |(p, _)| *p)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    groups: BTreeMap<Arc<str>, Vec<TopicOffsets>>,
    len: usize,
}

fn find(topics: &[TopicOffsets], topic: &str) -> Result<usize, usize> {
    topics.binary_search_by(|t| (*t.topic).cmp(topic))
}

impl Offsets {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&OffsetEntry> {
        self.of_group(group).find(topic)?.get(partition)
    }

    pub fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    pub fn put(&mut self, group: &Arc<str>, topic: &Arc<str>, partition: i32, entry: OffsetEntry) {
        let topics = match self.groups.get_mut(group) {
            Some(topics) => topics,
            None => self.groups.entry(group.clone()).or_default(),
        };
        match find(topics, topic) {
            Ok(at) => {
                let partitions = &mut topics[at].partitions;
                match partitions.binary_search_by_key(&partition, |(p, _)| *p) {
                    Ok(at) => {
                        partitions[at].1 = entry;
                        return;
                    }
                    Err(at) => partitions.insert(at, (partition, entry)),
                }
            }
            Err(at) => {
                topics.reserve_exact(1);
                topics.insert(at, TopicOffsets { topic: topic.clone(), partitions: vec![(partition, entry)] });
            }
        }
        self.len += 1;
    }

    pub fn remove(&mut self, group: &str, topic: &str, partition: i32) {
        let Some(topics) = self.groups.get_mut(group) else { return };
        let Ok(at) = find(topics, topic) else { return };
        let of_topic = &mut topics[at];
        let Ok(index) = of_topic.find(partition) else { return };
        of_topic.partitions.remove(index);
        self.len -= 1;
        if of_topic.partitions.is_empty() {
            topics.remove(at);
        }
        if topics.is_empty() {
            self.groups.remove(group);
        }
    }

    /// What a group has committed.
    pub fn of_group(&self, group: &str) -> GroupOffsets<'_> {
        GroupOffsets(self.groups.get(group).map(Vec::as_slice).unwrap_or_default())
    }

    /// The offsets of one topic in every group that has some.
    pub fn of_topic<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a TopicOffsets)> {
        self.groups.iter().filter_map(move |(group, topics)| Some((group, topics.get(find(topics, topic).ok()?)?)))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, i32, &OffsetEntry)> {
        self.groups.iter().flat_map(|(group, topics)| {
            topics.iter().flat_map(move |t| t.iter().map(move |(p, entry)| (&**group, &*t.topic, p, entry)))
        })
    }
}

/// The offsets of one group, by topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupOffsets<'a>(&'a [TopicOffsets]);

impl<'a> GroupOffsets<'a> {
    pub fn topics(self) -> impl Iterator<Item = &'a TopicOffsets> {
        self.0.iter()
    }

    pub fn find(self, topic: &str) -> Option<&'a TopicOffsets> {
        self.0.get(find(self.0, topic).ok()?)
    }

    pub fn iter(self) -> impl Iterator<Item = (&'a Arc<str>, i32, &'a OffsetEntry)> {
        self.0.iter().flat_map(|t| t.iter().map(move |(p, entry)| (&t.topic, p, entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_leaves_nothing_behind() {
        let mut offsets = Offsets::default();
        let entry = OffsetEntry::from(OffsetCommitValue::default());
        let (g, t): (Arc<str>, Arc<str>) = ("g".into(), "t".into());
        for p in [0, 1, 1] {
            offsets.put(&g, &t, p, entry.clone());
        }
        assert_eq!(offsets.len(), 2);
        assert_eq!(offsets.iter().map(|(_, _, p, _)| p).collect::<Vec<_>>(), [0, 1]);
        offsets.remove("g", "t", 7);
        offsets.remove("g", "t", 0);
        offsets.remove("g", "t", 1);
        assert_eq!(offsets.len(), 0);
        assert!(!offsets.has_group("g"));
    }
}
