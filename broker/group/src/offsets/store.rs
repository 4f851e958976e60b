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
    /// Leader epoch of the record before it; none when the client did not say.
    pub leader_epoch: Option<i32>,
    /// Free text of the client.
    pub metadata: Box<str>,
    /// When it was committed.
    pub commit_ms: i64,
    /// When it lapses, where the client set a retention time (OffsetCommit 2 to 4).
    pub expire_ms: Option<i64>,
    /// The topic it was committed for; zero in records of older brokers.
    pub topic_id: Uuid,
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
            leader_epoch: Some(value.leader_epoch).filter(|&e| e != -1),
            metadata: value.metadata.into(),
            commit_ms: value.commit_timestamp,
            expire_ms: Some(value.expire_timestamp).filter(|&ms| ms != -1),
            topic_id: value.topic_id,
        }
    }
}

impl From<&OffsetEntry> for OffsetCommitValue {
    fn from(entry: &OffsetEntry) -> Self {
        Self {
            offset: entry.offset,
            leader_epoch: entry.leader_epoch.unwrap_or(-1),
            metadata: entry.metadata.to_string(),
            commit_timestamp: entry.commit_ms,
            expire_timestamp: entry.expire_ms.unwrap_or(-1),
            topic_id: entry.topic_id,
        }
    }
}

type Partitions = BTreeMap<i32, OffsetEntry>;
type Topics = BTreeMap<Arc<str>, Partitions>;

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    groups: BTreeMap<Arc<str>, Topics>,
    len: usize,
}

impl Offsets {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&OffsetEntry> {
        self.groups.get(group)?.get(topic)?.get(&partition)
    }

    pub fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    pub fn put(&mut self, group: &Arc<str>, topic: &Arc<str>, partition: i32, entry: OffsetEntry) {
        let topics = match self.groups.get_mut(group) {
            Some(topics) => topics,
            None => self.groups.entry(group.clone()).or_default(),
        };
        let partitions = match topics.get_mut(topic) {
            Some(partitions) => partitions,
            None => topics.entry(topic.clone()).or_default(),
        };
        if partitions.insert(partition, entry).is_none() {
            self.len += 1;
        }
    }

    pub fn remove(&mut self, group: &str, topic: &str, partition: i32) {
        let Some(topics) = self.groups.get_mut(group) else { return };
        let Some(partitions) = topics.get_mut(topic) else { return };
        if partitions.remove(&partition).is_some() {
            self.len -= 1;
        }
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.groups.remove(group);
        }
    }

    pub fn topics(&self, group: &str) -> impl Iterator<Item = (&Arc<str>, &Partitions)> {
        self.groups.get(group).into_iter().flatten()
    }

    pub fn of_group(&self, group: &str) -> impl Iterator<Item = (&Arc<str>, i32, &OffsetEntry)> {
        self.topics(group).flat_map(|(topic, partitions)| partitions.iter().map(move |(p, e)| (topic, *p, e)))
    }

    /// The partitions of one topic that any group has committed.
    pub fn of_topic<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Partitions)> {
        self.groups.iter().filter_map(move |(group, topics)| Some((group, topics.get(topic)?)))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, i32, &OffsetEntry)> {
        self.groups.iter().flat_map(|(group, topics)| {
            topics.iter().flat_map(move |(topic, partitions)| {
                partitions.iter().map(move |(p, entry)| (&**group, &**topic, *p, entry))
            })
        })
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
        offsets.remove("g", "t", 7);
        offsets.remove("g", "t", 0);
        offsets.remove("g", "t", 1);
        assert_eq!(offsets.len(), 0);
        assert!(!offsets.has_group("g"));
    }
}
