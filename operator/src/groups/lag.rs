//! How far behind a group is. Pure.
//!
//! Never negative, and never more than there is: records that retention has deleted are no lag. A partition without a
//! commit counts from its beginning if the group is to begin there, and else not at all; it is counted apart.

use std::collections::BTreeMap;

use klamm_client::TopicPartition;

use super::facts::{Facts, PartitionFacts};
use crate::crd::consumer_group::{Edge, Position};

/// Records that a group has not committed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lag {
    /// In all partitions.
    pub total: i64,
    /// The most in one.
    pub max: i64,
    /// Which one, if there is any lag.
    pub max_partition: Option<TopicPartition>,
    /// By topic: partitions and records.
    pub topics: BTreeMap<String, (i32, i64)>,
    /// Partitions without a commit.
    pub uncommitted: i32,
}

impl Lag {
    /// Whether it is none only because the group has not committed anything anywhere, though there are records.
    pub fn tells_nothing(&self, facts: &Facts) -> bool {
        let records = facts.partitions.values().any(|partition| partition.end > partition.start);
        self.total == 0 && records && facts.partitions.values().all(|partition| partition.committed.is_none())
    }
}

/// Counts.
pub fn lag(facts: &Facts, initial: Option<&Position>) -> Lag {
    let from_start = initial.is_some_and(|initial| initial.offset == Some(Edge::Earliest));
    let mut lag = Lag::default();
    for (at, partition) in &facts.partitions {
        let behind = behind(partition, from_start);
        lag.uncommitted += i32::from(partition.committed.is_none());
        lag.total = lag.total.saturating_add(behind);
        let topic = lag.topics.entry(at.topic.clone()).or_default();
        topic.0 += 1;
        topic.1 = topic.1.saturating_add(behind);
        if behind > lag.max {
            lag.max = behind;
            lag.max_partition = Some(at.clone());
        }
    }
    lag
}

/// Records in one partition.
pub fn behind(partition: &PartitionFacts, from_start: bool) -> i64 {
    match partition.committed {
        Some(committed) => partition.end.saturating_sub(committed.max(partition.start)).max(0),
        None if from_start => partition.end.saturating_sub(partition.start).max(0),
        None => 0,
    }
}

/// Ages worth telling apart, in seconds: each a quarter more than the one before, up to a year.
pub fn ages() -> Vec<i64> {
    let mut ages = vec![0_i64];
    while let Some(last) = ages.last().copied().filter(|last| *last < 31_536_000) {
        ages.push((last + 1).max(last + last / 4));
    }
    ages
}

/// Whether a status needs new numbers: a change of a tenth or more, or to or from nothing.
pub fn differs(before: i64, now: i64) -> bool {
    (before == 0) != (now == 0) || before.abs_diff(now).saturating_mul(10) > before.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(partitions: &[(Option<i64>, i64, i64)]) -> Facts {
        let numbered = partitions.iter().zip(0..).map(|(&(committed, start, end), number)| {
            (TopicPartition::new("t", number), PartitionFacts { committed, start, end })
        });
        Facts { partitions: numbered.collect(), ..Facts::default() }
    }

    #[test]
    fn what_is_gone_is_no_lag_and_none_is_negative() {
        let found = lag(&facts(&[(Some(5), 0, 9), (Some(5), 7, 9), (Some(12), 0, 9), (Some(9), 0, 9)]), None);
        assert_eq!((found.total, found.max, found.uncommitted), (6, 4, 0));
        assert_eq!(found.max_partition, Some(TopicPartition::new("t", 0)));
        assert_eq!(found.topics, [("t".to_owned(), (4, 6))].into());
        assert_eq!(lag(&facts(&[(Some(9), 0, 9)]), None).max_partition, None);
        let huge = lag(&facts(&[(Some(0), 0, i64::MAX), (Some(0), 0, i64::MAX), (Some(i64::MIN), 0, 1)]), None);
        assert_eq!((huge.total, huge.max), (i64::MAX, i64::MAX));
    }

    #[test]
    fn without_a_commit_it_counts_from_where_the_group_is_to_begin() {
        let found = facts(&[(None, 3, 9), (Some(8), 0, 9)]);
        let at = |offset| Position { offset: Some(offset), timestamp: None };
        for (initial, total) in [(None, 1), (Some(at(Edge::Latest)), 1), (Some(at(Edge::Earliest)), 7)] {
            let lag = lag(&found, initial.as_ref());
            assert_eq!((lag.total, lag.uncommitted), (total, 1), "{initial:?}");
        }
    }

    #[test]
    fn without_any_commit_no_lag_says_nothing() {
        for (partitions, nothing) in [
            (vec![(None, 3, 9), (None, 0, 0)], true),
            (vec![(None, 3, 9), (Some(0), 0, 0)], false),
            (vec![(None, 9, 9)], false),
            (vec![], false),
        ] {
            let found = facts(&partitions);
            assert_eq!(lag(&found, None).tells_nothing(&found), nothing, "{partitions:?}");
        }
        let found = facts(&[(None, 3, 9)]);
        let from_start = Position { offset: Some(Edge::Earliest), timestamp: None };
        assert!(!lag(&found, Some(&from_start)).tells_nothing(&found), "that is a lag of six");
    }

    #[test]
    fn small_changes_of_large_numbers_are_not_worth_a_write() {
        for (before, now, wanted) in [
            (0, 0, false),
            (0, 1, true),
            (1, 0, true),
            (100, 110, false),
            (100, 111, true),
            (100, 89, true),
            (i64::MAX, 0, true),
            (3, 4, true),
        ] {
            assert_eq!(differs(before, now), wanted, "{before} {now}");
        }
    }

    #[test]
    fn ages_grow() {
        let ages = ages();
        assert!(ages.windows(2).all(|pair| pair[0] < pair[1]) && ages.len() < 90, "{ages:?}");
    }
}
