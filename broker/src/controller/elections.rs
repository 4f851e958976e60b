//! Counts elections of leaders that were not in sync: those out of the eligible leader replicas (KIP-966), which lose
//! nothing, and unclean ones, which may.

use std::sync::atomic::{AtomicU64, Ordering};

use klamm_metadata::Image;
use klamm_metadata::record::MetadataRecord;

/// What this node committed as the active controller since its start.
#[derive(Debug, Default)]
pub struct Elections {
    unclean: AtomicU64,
    eligible: AtomicU64,
}

impl Elections {
    /// Unclean ones.
    pub fn unclean(&self) -> u64 {
        self.unclean.load(Ordering::Relaxed)
    }

    /// Those out of the eligible leader replicas.
    pub fn eligible(&self) -> u64 {
        self.eligible.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, (unclean, eligible): (u64, u64)) {
        self.unclean.fetch_add(unclean, Ordering::Relaxed);
        self.eligible.fetch_add(eligible, Ordering::Relaxed);
    }
}

/// How many leaders `records` elect uncleanly, and how many out of the eligible replicas, from what `image` says.
pub(super) fn of(image: &Image, records: &[MetadataRecord]) -> (u64, u64) {
    let mut counts = (0, 0);
    for record in records {
        let MetadataRecord::PartitionChange(change) = record else { continue };
        if change.leader < 0 {
            continue;
        }
        let topic = image.topic_by_id(change.topic_id);
        let Some(before) = topic.and_then(|topic| topic.partition(change.partition_id)) else { continue };
        if before.isr.contains(&change.leader) {
            continue;
        }
        if before.elr.contains(&change.leader) {
            counts.1 += 1;
        } else if change.leader_recovery_state == 1 {
            counts.0 += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Uuid;
    use klamm_protocol::messages::{PartitionChangeRecord, PartitionRecord, TopicRecord};

    use super::*;

    #[test]
    fn leaders_are_told_apart_by_what_they_were() {
        let topic_id = Uuid([7; 16]);
        let topic = TopicRecord { name: "t".into(), topic_id, ..Default::default() };
        let partition = PartitionRecord {
            topic_id,
            partition_id: 0,
            replicas: vec![1, 2, 3],
            directories: vec![Uuid::ZERO; 3],
            isr: vec![1],
            eligible_leader_replicas: Some(vec![2]),
            leader: -1,
            ..Default::default()
        };
        let mut image = Image::new("c");
        image.apply_all(&[topic.into(), partition.into()]).expect("applied");
        let elects = |leader: i32, recovery: i8| {
            let change = PartitionChangeRecord {
                topic_id,
                partition_id: 0,
                leader,
                leader_recovery_state: recovery,
                ..Default::default()
            };
            of(&image, &[change.into()])
        };
        assert_eq!(elects(1, -1), (0, 0));
        assert_eq!(elects(2, -1), (0, 1));
        assert_eq!(elects(3, 1), (1, 0));
        assert_eq!(elects(-1, -1), (0, 0));
        assert_eq!(elects(-2, -1), (0, 0));
    }
}
