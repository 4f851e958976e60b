//! A group as it was found.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::TopicPartition;

/// Topics, or partitions, that a message names at most.
const NAMED: usize = 4;

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

    /// What could not be seen, in plain words.
    pub fn unseen(&self) -> String {
        let named = |mut names: Vec<String>| {
            let more = names.len().saturating_sub(NAMED);
            names.truncate(NAMED);
            if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
        };
        let missing = named(self.missing.iter().cloned().collect());
        let unknown = named(self.unknown.iter().map(|at| format!("{}-{}", at.topic, at.partition)).collect());
        let missing = (!missing.is_empty()).then(|| format!("there is no topic {missing}"));
        let unknown = (!unknown.is_empty()).then(|| format!("without a leader: {unknown}"));
        missing.into_iter().chain(unknown).collect::<Vec<_>>().join("; ")
    }

    /// Partitions without a commit.
    pub fn uncommitted(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.iter().filter(|(_, partition)| partition.committed.is_none()).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_told_from_what_has_no_leader() {
        let names = |count: usize| (0..count).map(|n| format!("t{n}")).collect();
        let mut facts = Facts { missing: names(1), ..Facts::default() };
        assert_eq!(facts.unseen(), "there is no topic t0");
        facts.missing = names(6);
        facts.unknown.insert(TopicPartition::new("u", 3));
        assert_eq!(facts.unseen(), "there is no topic t0, t1, t2, t3 and 2 more; without a leader: u-3");
    }
}
