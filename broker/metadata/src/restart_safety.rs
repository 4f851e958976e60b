//! What would become of partitions if a broker stopped now: what a rolling restart has to ask before each step.

use std::sync::Arc;

use crate::controller::Policy;
use crate::controller::partition_change::can_lead;
use crate::image::{Image, NO_LEADER};

/// What a partition would suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// It would have fewer replicas in sync than `min.insync.replicas` wants: acks=all writes fail.
    BelowMinIsr,
    /// Nobody could lead it without losing records.
    Offline,
}

/// A partition that would suffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtRisk {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
    /// What would become of it.
    pub harm: Harm,
    /// Replicas in sync that would remain.
    pub in_sync_after: usize,
    /// What it needs: the smaller of `min.insync.replicas` and the number of its replicas.
    pub min_isr: usize,
    /// Whether that is so at any time, with all replicas in sync: waiting does not help.
    pub always: bool,
}

/// Partitions that would go offline or fall below min ISR if a broker stopped. A partition that the broker has
/// nothing to do with, or that is as badly off already, isn't its matter. A partition with a single replica always
/// goes offline with it, and one that needs all of its replicas falls below what it needs: those are marked as `always`.
pub fn restart_safety(image: &Image, broker: i32, policy: &Policy) -> Vec<AtRisk> {
    let mut at_risk = Vec::new();
    let mut rules = None;
    for (topic, number, partition) in image.partitions_of(broker) {
        let in_sync = partition.isr.contains(&broker);
        if !in_sync && partition.leader != broker && !partition.elr.contains(&broker) {
            continue;
        }
        let policy = match rules {
            Some((id, policy)) if id == topic.id => policy,
            _ => policy.of(image, &topic.name),
        };
        rules = Some((topic.id, policy));
        let after = partition.isr.iter().filter(|id| **id != broker && image.is_active(**id)).count();
        let eligible = || partition.elr.iter().any(|id| *id != broker && can_lead(image, partition, *id));
        let min_isr = policy.effective_min_isr(partition.replicas.len());
        let harm = match (in_sync, partition.leader) {
            // An offline partition waits for those who may lead it; one of them stopping prolongs that.
            (_, NO_LEADER) if partition.isr.is_empty() => Harm::Offline,
            // Whether an unclean election would give it a leader doesn't matter: records would be lost.
            (true, _) if after == 0 && !eligible() => Harm::Offline,
            (true, _) if after < min_isr => Harm::BelowMinIsr,
            _ => continue,
        };
        let replicas = partition.replicas.len();
        // As many as there can be without this one, and still too few.
        let always = in_sync && after + 1 >= replicas && after < min_isr;
        at_risk.push(AtRisk {
            topic: topic.name.clone(),
            partition: number,
            harm,
            in_sync_after: after,
            min_isr,
            always,
        });
    }
    at_risk.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    at_risk
}

#[cfg(test)]
#[path = "restart_safety_test.rs"]
mod tests;
