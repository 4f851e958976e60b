//! New partitions out of replica lists, chosen by hand or by placement.

use std::collections::BTreeSet;

use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;

use super::ApiError;
use crate::image::{Image, Partition};

/// Checks a replica list that the requester chose. A broker whose directories are all cordoned (KIP-1066) gets nothing;
/// what is on one may stay there, as `kept` says. Kafka refuses that, too, so that nothing else of a partition that has
/// a replica there could be moved.
pub fn check_manual(image: &Image, replicas: &[i32], kept: &[i32], factor: Option<usize>) -> Result<(), ApiError> {
    let refuse = |text: String| Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, text));
    if replicas.is_empty() {
        return refuse("The manual partition assignment includes an empty replica list.".into());
    }
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    let mut seen = BTreeSet::new();
    for id in &sorted {
        let Some(broker) = image.broker(*id) else {
            return refuse(format!(
                "The manual partition assignment includes broker {id}, but no such broker is registered."
            ));
        };
        if broker.is_cordoned() && !kept.contains(id) {
            return refuse(format!(
                "The manual partition assignment includes broker {id}, but all its log directories are cordoned."
            ));
        }
        if !seen.insert(*id) {
            return refuse(format!("The manual partition assignment includes the broker {id} more than once."));
        }
    }
    match factor {
        Some(factor) if factor != replicas.len() => refuse(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent \
             with previous partitions, which have {factor} replica(s).",
            replicas.len()
        )),
        _ => Ok(()),
    }
}

/// A new partition, led by its first active replica that is not in maintenance, or else the first active one; None when
/// no replica is active.
pub fn new_partition(image: &Image, replicas: Vec<i32>) -> Option<Partition> {
    let isr: Vec<i32> = replicas.iter().copied().filter(|id| image.is_active(*id)).collect();
    let free = isr.iter().find(|id| !image.maintenance().contains_key(id));
    let leader = *free.or(isr.first())?;
    let directory = |id: &i32| image.broker(*id).map_or(Uuid::ZERO, |b| b.default_directory());
    Some(Partition {
        directories: replicas.iter().map(directory).collect(),
        replicas,
        isr,
        removing_replicas: Vec::new(),
        adding_replicas: Vec::new(),
        leader,
        leader_epoch: 0,
        partition_epoch: 0,
        leader_recovery_state: 0,
        elr: Vec::new(),
        last_known_elr: Vec::new(),
    })
}

/// Partitions out of the replica lists of a manual assignment.
pub fn manual(image: &Image, number: i32, replicas: &[i32]) -> Result<Partition, ApiError> {
    new_partition(image, replicas.to_vec()).ok_or_else(|| {
        let text = format!(
            "All brokers specified in the manual partition assignment for partition {number} are fenced or in \
             controlled shutdown."
        );
        ApiError::new(ErrorCode::InvalidReplicaAssignment, text)
    })
}

/// Partitions out of placed replica lists.
pub fn placed(image: &Image, replicas: Vec<i32>) -> Result<Partition, ApiError> {
    let factor = replicas.len();
    new_partition(image, replicas).ok_or_else(|| {
        let text = format!(
            "Unable to replicate the partition {factor} time(s): All brokers are currently fenced or in controlled \
             shutdown."
        );
        ApiError::new(ErrorCode::InvalidReplicationFactor, text)
    })
}
