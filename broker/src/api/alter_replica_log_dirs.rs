//! AlterReplicaLogDirs: versions 1 to 2. In which of a broker's log directories replicas are to lie.
//!
//! A broker has one directory, so that nothing moves. But kafka-reassign-partitions asks for it wherever its file names a
//! directory, as the file for the way back does, and asks again until the replica has come.

use std::collections::BTreeMap;
use std::path::Path;

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use klamm_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};

use super::{Context, Refusal};

/// Says of each replica whether it is, or can be, where it is wanted.
pub async fn handle(
    cx: &Context<'_>,
    request: AlterReplicaLogDirsRequest,
) -> Result<AlterReplicaLogDirsResponse, Refusal> {
    let replicas = &cx.broker.replicas;
    let image = cx.broker.controller.image();
    let dir = replicas.storage().path();
    let cordoned = replicas.config().is_cordoned(dir);
    let judge = |topic: &str, index: i32, path: &str| {
        let here = replicas.by_name(topic, index).is_ok();
        let exists = image.partition(topic, index).is_some();
        judge(is_same(Path::new(path), dir), here, exists, cordoned)
    };
    // Where a partition is named twice the last one counts, as in Kafka.
    let mut results: BTreeMap<&str, BTreeMap<i32, ErrorCode>> = BTreeMap::new();
    for wanted in &request.dirs {
        for topic in &wanted.topics {
            let partitions = results.entry(&topic.name).or_default();
            partitions.extend(topic.partitions.iter().map(|index| (*index, judge(&topic.name, *index, &wanted.path))));
        }
    }
    let partition = |(partition_index, code): (i32, ErrorCode)| AlterReplicaLogDirPartitionResult {
        partition_index,
        error_code: code.code(),
        ..Default::default()
    };
    let topic = |(name, partitions): (&str, BTreeMap<i32, ErrorCode>)| AlterReplicaLogDirTopicResult {
        topic_name: name.to_owned(),
        partitions: partitions.into_iter().map(partition).collect(),
        ..Default::default()
    };
    Ok(AlterReplicaLogDirsResponse { results: results.into_iter().map(topic).collect(), ..Default::default() })
}

/// Whether a client means this directory: by the path that DescribeLogDirs shows, or as it is configured.
fn is_same(wanted: &Path, dir: &Path) -> bool {
    wanted == dir || (wanted.is_absolute() && std::path::absolute(dir).is_ok_and(|dir| wanted == dir))
}

fn judge(same_dir: bool, here: bool, exists: bool, cordoned: bool) -> ErrorCode {
    match (same_dir, here) {
        (false, _) => ErrorCode::LogDirNotFound,
        (true, true) => ErrorCode::None,
        (true, false) if cordoned => ErrorCode::InvalidReplicaAssignment,
        // There is but one directory for it when it comes.
        (true, false) if exists => ErrorCode::ReplicaNotAvailable,
        (true, false) => ErrorCode::UnknownTopicOrPartition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_directory_will_do() {
        assert!(is_same(Path::new("data"), Path::new("data")) && is_same(Path::new("/d/"), Path::new("/d")));
        let absolute = std::path::absolute("data").unwrap_or_default();
        assert!(is_same(&absolute, Path::new("./data")));
        assert!(!is_same(Path::new("other"), Path::new("data")) && !is_same(Path::new(""), Path::new("data")));
        assert!(!is_same(Path::new("/d"), Path::new("/d/e")));
    }

    #[test]
    fn who_is_not_here_yet_may_be_asked_for_again() {
        assert_eq!(judge(false, true, true, false), ErrorCode::LogDirNotFound);
        assert_eq!(judge(true, true, true, true), ErrorCode::None, "it is there: nothing new lands");
        assert_eq!(judge(true, false, true, false), ErrorCode::ReplicaNotAvailable);
        assert_eq!(judge(true, false, true, true), ErrorCode::InvalidReplicaAssignment);
        assert_eq!(judge(true, false, false, false), ErrorCode::UnknownTopicOrPartition);
    }
}
