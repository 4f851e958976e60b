//! Kafka's file of a reassignment: `{"version":1,"partitions":[{"topic":…,"partition":…,"replicas":[…]}]}`.
//!
//! kafka-reassign-partitions writes and reads it, so that plans are interchangeable. Fields that it does not know it
//! leaves alone, as does this; ours come with where a partition comes from and what is copied.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// The version of the format.
const VERSION: i64 = 1;

/// Leaves it to the broker where it keeps a replica.
const ANY: &str = "any";

/// The replicas that a partition is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Replicas, the preferred leader first.
    pub replicas: Vec<i32>,
    /// The log directory that each of them is to lie in, in the same order; `None` leaves it to the broker.
    pub log_dirs: Vec<Option<String>>,
}

/// Why a file is not understood.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not JSON, or not of this form.
    #[error("not a reassignment file: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Another version of the format.
    #[error("version {0} of the format is not known")]
    Version(i64),
    /// A partition occurs twice.
    #[error("{0}-{1} is named twice")]
    Twice(String, i32),
    /// A partition without replicas, or with one that occurs twice or is no broker id.
    #[error("the replicas of {0}-{1} are not distinct broker ids")]
    BadReplicas(String, i32),
    /// A partition's number is negative.
    #[error("{0} has no partition {1}")]
    BadPartition(String, i32),
    /// Not as many directories as replicas.
    #[error("{0}-{1} names {2} log directories for {3} replicas")]
    Directories(String, i32, usize, usize),
}

#[derive(Serialize, Deserialize)]
struct File {
    version: i64,
    partitions: Vec<Entry>,
    #[serde(default)]
    elections: Vec<Led>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    topic: String,
    partition: i32,
    replicas: Vec<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log_dirs: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Vec<i32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Led {
    topic: String,
    partition: i32,
    leader: i32,
}

/// The file of a plan.
pub fn write(plan: &Plan) -> String {
    let entry = |one: &crate::Move| Entry {
        topic: one.topic.clone(),
        partition: one.partition,
        replicas: one.to.clone(),
        log_dirs: Some(vec![ANY.to_owned(); one.to.len()]),
        from: Some(one.from.clone()),
        bytes: Some(one.bytes),
    };
    let led = |one: &crate::Election| Led { topic: one.topic.clone(), partition: one.partition, leader: one.leader };
    let file = File {
        version: VERSION,
        partitions: plan.moves.iter().map(entry).collect(),
        elections: plan.elections.iter().map(led).collect(),
    };
    // Strings and numbers can always be written.
    serde_json::to_string(&file).unwrap_or_default()
}

/// What a file says, whoever wrote it.
pub fn read(text: &str) -> Result<Vec<Assignment>, FileError> {
    let file: File = serde_json::from_str(text)?;
    if file.version != VERSION {
        return Err(FileError::Version(file.version));
    }
    let mut seen = BTreeSet::new();
    let mut assignments = Vec::with_capacity(file.partitions.len());
    for Entry { topic, partition, replicas, log_dirs, .. } in file.partitions {
        if partition < 0 {
            return Err(FileError::BadPartition(topic, partition));
        }
        let distinct: BTreeSet<&i32> = replicas.iter().collect();
        if replicas.is_empty() || distinct.len() != replicas.len() || replicas.iter().any(|id| *id < 0) {
            return Err(FileError::BadReplicas(topic, partition));
        }
        let log_dirs = match log_dirs {
            None => vec![None; replicas.len()],
            Some(dirs) if dirs.len() != replicas.len() => {
                return Err(FileError::Directories(topic, partition, dirs.len(), replicas.len()));
            }
            Some(dirs) => dirs.into_iter().map(|dir| Some(dir).filter(|dir| dir != ANY)).collect(),
        };
        if !seen.insert((topic.clone(), partition)) {
            return Err(FileError::Twice(topic, partition));
        }
        assignments.push(Assignment { topic, partition, replicas, log_dirs });
    }
    Ok(assignments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Election, Move, Reason};

    #[test]
    fn what_is_written_can_be_read_by_us_and_has_what_kafka_reads() {
        let one = Move {
            topic: "a \"quoted\" topic".to_owned(),
            partition: 3,
            from: vec![0, 1],
            to: vec![2, 1],
            bytes: 10,
            reason: Reason::Drain,
        };
        let election = Election { topic: "t".to_owned(), partition: 0, leader: 2 };
        let plan = Plan { moves: vec![one.clone()], elections: vec![election], ..Plan::default() };
        let text = write(&plan);
        let expected = r#"{"version":1,"partitions":[{"topic":"a \"quoted\" topic","partition":3,"replicas":[2,1],"log_dirs":["any","any"],"from":[0,1],"bytes":10}],"elections":[{"topic":"t","partition":0,"leader":2}]}"#;
        assert_eq!(text, expected);
        let read = read(&text).expect("our own file");
        assert_eq!(
            read,
            [Assignment { topic: one.topic, partition: 3, replicas: vec![2, 1], log_dirs: vec![None, None] }]
        );
    }

    #[test]
    fn a_file_of_kafkas_is_read() {
        let text = r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,2],"log_dirs":["any","any"]},{"topic":"t","partition":1,"replicas":[2]}]}"#;
        let replicas: Vec<_> = read(text).expect("a file of Kafka's").into_iter().map(|a| a.replicas).collect();
        assert_eq!(replicas, [vec![1, 2], vec![2]]);
    }

    #[test]
    fn the_way_back_that_kafka_prints_names_directories() {
        let text =
            r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,2],"log_dirs":["/d/1","any"]}]}"#;
        let read = read(text).expect("a file of Kafka's");
        assert_eq!(read[0].log_dirs, [Some("/d/1".to_owned()), None]);
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        let one = |entry: &str| format!(r#"{{"version":1,"partitions":[{entry}]}}"#);
        let good = r#"{"topic":"t","partition":0,"replicas":[1]}"#;
        for (text, why) in [
            (String::new(), "not a reassignment file"),
            (r#"{"partitions":[]}"#.to_owned(), "version"),
            (r#"{"version":2,"partitions":[]}"#.to_owned(), "version 2"),
            (one(r#"{"topic":"t","partition":0}"#), "replicas"),
            (one(r#"{"topic":"t","partition":0,"replicas":[]}"#), "t-0 are not distinct"),
            (one(r#"{"topic":"t","partition":0,"replicas":[1,1]}"#), "t-0 are not distinct"),
            (one(r#"{"topic":"t","partition":0,"replicas":[-1]}"#), "t-0 are not distinct"),
            (one(r#"{"topic":"t","partition":-1,"replicas":[1]}"#), "no partition -1"),
            (one(r#"{"topic":"t","partition":0,"replicas":[1],"log_dirs":["/d","any"]}"#), "2 log directories for 1"),
            (one(&format!("{good},{good}")), "named twice"),
        ] {
            let refused = read(&text).expect_err(&text).to_string();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
