//! A group as it was found.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::TopicPartition;

/// See the module's head.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// Kafka's name of its state; `Dead` for one that does not exist.
    pub state: String,
    /// How many members it has.
    pub members: usize,
    /// The partitions that it reads, as far as they are known.
    pub partitions: BTreeMap<TopicPartition, PartitionFacts>,
    /// What it has committed in partitions that are gone, or that end before: topics that were deleted, perhaps created
    /// again.
    pub stale: BTreeSet<TopicPartition>,
    /// Which reset moved an offset last, by the mark that it left there.
    pub marks: BTreeMap<TopicPartition, String>,
    /// Topics that it should read and that are not there.
    pub missing: BTreeSet<String>,
    /// Partitions that nobody could tell about: they have no leader.
    pub unknown: BTreeSet<TopicPartition>,
}

/// A partition that a group reads.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PartitionFacts {
    /// The offset that the group has committed; none where it is stale.
    pub committed: Option<i64>,
    /// The first offset that there is.
    pub start: i64,
    /// The offset behind the last record. Asked for after the commit: it is never too small.
    pub end: i64,
}

impl Facts {
    /// Whether offsets may be committed from outside.
    pub fn is_empty(&self) -> bool {
        self.members == 0 && matches!(self.state.as_str(), "Empty" | "Dead")
    }

    /// Partitions without a commit.
    pub fn uncommitted(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.iter().filter(|(_, partition)| partition.committed.is_none()).map(|(at, _)| at)
    }
}
