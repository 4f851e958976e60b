//! Log directories that a reassignment file names, as Kafka's tools write them for the way back.
//!
//! Where a broker has one directory there is nothing to choose: the file may name it, and nothing else. A broker of
//! Kafka may have several; putting a replica into one of them is left to Kafka's tool.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::admin::reassignments::LogDir;
use klamm_client::{Client, TopicPartition};
use klamm_planner::Assignment;

use crate::cli::{CliError, Result};

/// Refuses directories that are not there, or would have to be chosen. To be asked before anything moves.
pub(super) async fn check(client: &Client, asked: &[Assignment]) -> Result {
    let named = asked.iter().flat_map(|one| {
        let at = TopicPartition::new(&one.topic, one.partition);
        let dirs = one.replicas.iter().zip(&one.log_dirs);
        dirs.filter_map(move |(id, dir)| Some((*id, at.clone(), dir.as_deref()?)))
    });
    let named: Vec<(i32, TopicPartition, &str)> = named.collect();
    let brokers: BTreeSet<i32> = named.iter().map(|(id, ..)| *id).collect();
    let known = if brokers.is_empty() { BTreeMap::new() } else { client.log_dirs_of(&brokers).await };
    named.iter().try_for_each(|(id, at, dir)| fits(*id, at, dir, known.get(id).map(Vec::as_slice)))
}

fn fits(id: i32, at: &TopicPartition, dir: &str, known: Option<&[LogDir]>) -> Result {
    // Who does not answer now says later where it keeps what.
    let Some(known) = known else { return Ok(()) };
    let Some(found) = known.iter().find(|known| known.path == dir) else {
        let paths: Vec<&str> = known.iter().map(|dir| dir.path.as_str()).collect();
        let hint = "`\"any\"` leaves it to the broker";
        return Err(CliError::new(format!(
            "{at}: broker {id} has no log directory {dir}, it has {}",
            paths.join(", ")
        ))
        .hint(hint));
    };
    if known.len() == 1 || found.partitions.contains_key(at) {
        return Ok(());
    }
    let why =
        format!("{at}: broker {id} has several log directories, and {dir} is not where it would keep the replica");
    Err(CliError::new(why).hint("kafka-reassign-partitions.sh puts replicas into a certain directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_must_be_the_only_one_or_hold_the_replica_already() {
        let at = TopicPartition::new("t", 0);
        let dir = |path: &str, holds: bool| LogDir {
            path: path.to_owned(),
            cordoned: false,
            partitions: holds.then(|| (at.clone(), 1)).into_iter().collect(),
        };
        assert!(fits(1, &at, "/a", Some(&[dir("/a", false)])).is_ok());
        assert!(fits(1, &at, "/b", Some(&[dir("/a", true)])).is_err());
        assert!(fits(1, &at, "/b", Some(&[dir("/a", false), dir("/b", true)])).is_ok());
        assert!(fits(1, &at, "/b", Some(&[dir("/a", true), dir("/b", false)])).is_err());
        assert!(fits(1, &at, "/b", None).is_ok());
    }
}
