//! What becomes of one partition when something about it or its brokers changes: the leader, the ISR, the ELR and
//! a reassignment's completion, decided together and written as one record that names only what differs.
//!
//! Invariants. A clean leader comes from the ISR, or from the ELR while the ISR is empty: it holds everything
//! committed. One in maintenance is it only where no other can be. A replica that leaves the ISR while fewer than min ISR remain enters the ELR, because the high
//! watermark stands still from then on; with min ISR met again the ELR is void. Only an unclean election loses
//! records; the leader then recovers alone.

use std::collections::BTreeMap;

use klamm_protocol::Uuid;
use klamm_protocol::messages::PartitionChangeRecord;

use super::mistakes::{Mistake, made};
use super::policy::Policy;
use crate::image::{Broker, Image, NO_LEADER, Partition};

/// Leader field of a record that leaves the leader and its epoch alone.
const SAME_LEADER: i32 = -2;
/// The leader holds everything.
pub const RECOVERED: i8 = 0;
/// The leader was elected uncleanly and has not said yet that it is done with it.
pub const RECOVERING: i8 = 1;

/// Who is elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The preferred replica when it may lead, else the present leader, else any that may.
    Preferred,
    /// The present leader when it may lead, else any that may.
    Online,
    /// As before, and when none may lead, any replica that lives.
    Unclean,
}

/// Who is alive and has its disk.
pub type Acceptable<'a> = &'a dyn Fn(i32) -> bool;

/// Whether a replica's broker is active and its log directory works.
pub fn can_lead(image: &Image, partition: &Partition, broker: i32) -> bool {
    let directory = partition.directory(broker);
    let has = |b: &Broker| b.has_directory(directory) || made(Mistake::NewDiskTrusted);
    image.broker(broker).is_some_and(|b| b.is_active() && has(b))
}

/// A change of a partition in the making: set what should be, then [`build`](Self::build).
#[derive(Clone, Debug)]
pub struct PartitionChange<'a> {
    before: &'a Partition,
    topic: Uuid,
    number: i32,
    policy: Policy,
    /// Brokers in maintenance.
    spared: &'a BTreeMap<i32, i64>,
    /// The ISR to be.
    pub isr: Vec<i32>,
    /// The replicas to be.
    pub replicas: Vec<i32>,
    /// Replicas to be dropped.
    pub removing: Vec<i32>,
    /// Replicas to be brought.
    pub adding: Vec<i32>,
    /// Directories that differ from what the partition has.
    pub directories: Vec<(i32, Uuid)>,
    /// Recovery state to be.
    pub recovery: i8,
    /// Replicas that may have lost committed records: never in the ELR.
    pub unclean_shutdown: Vec<i32>,
    /// Replicas whose log is gone: not even the last known leader.
    pub emptied: Vec<i32>,
    /// Who is elected.
    pub election: Election,
    /// Gives the present leader a new epoch.
    pub new_epoch: bool,
}

impl<'a> PartitionChange<'a> {
    /// Nothing changes yet. `policy` is the topic's.
    pub fn new(image: &'a Image, before: &'a Partition, topic: Uuid, number: i32, policy: Policy) -> Self {
        Self {
            before,
            topic,
            number,
            policy,
            spared: image.maintenance(),
            isr: before.isr.clone(),
            replicas: before.replicas.clone(),
            removing: before.removing_replicas.clone(),
            adding: before.adding_replicas.clone(),
            directories: Vec::new(),
            recovery: before.leader_recovery_state,
            unclean_shutdown: Vec::new(),
            emptied: Vec::new(),
            election: if policy.unclean { Election::Unclean } else { Election::Online },
            new_epoch: false,
        }
    }

    /// The partition as it is.
    pub fn before(&self) -> &'a Partition {
        self.before
    }

    /// Takes a replica out of the ISR.
    pub fn without(mut self, broker: i32) -> Self {
        self.isr.retain(|id| *id != broker);
        self
    }

    /// Takes a replica out of the ISR and the ELR: it may have lost records.
    pub fn distrust(mut self, broker: i32) -> Self {
        self.unclean_shutdown.push(broker);
        self.without(broker)
    }

    /// Distrusts a replica whose log is gone for good.
    pub fn forget(mut self, broker: i32) -> Self {
        self.emptied.push(broker);
        self.distrust(broker)
    }

    /// The record, when anything differs.
    pub fn build(mut self, acceptable: Acceptable<'_>) -> Option<PartitionChangeRecord> {
        let before = self.before;
        self.complete_reassignment();
        let mut elr = self.elr();
        let (leader, unclean) = self.elect(&elr, acceptable);
        let mut recovery = self.recovery;
        let alone = leader != NO_LEADER && !self.isr.contains(&leader);
        if alone {
            // Out of the ELR, or uncleanly: whoever else was in sync is so no longer.
            self.isr = vec![leader];
            elr.retain(|id| *id != leader);
            // min ISR may have become smaller while nobody led.
            if unclean || self.is_enough() {
                elr.clear();
            }
            if unclean {
                // The only copy there is has nothing to recover from.
                recovery = if self.replicas.len() > 1 { RECOVERING } else { RECOVERED };
            }
        }
        let dropped = before.replicas.iter().any(|id| !self.replicas.contains(id));
        let bump = leader != before.leader || alone || dropped || (self.new_epoch && leader != NO_LEADER);
        let last_known = self.last_known(leader);
        let directories = self.directories();
        let differs = |new: Vec<i32>, old: &Vec<i32>| (new != *old).then_some(new);
        let record = PartitionChangeRecord {
            partition_id: self.number,
            topic_id: self.topic,
            leader: if bump { leader } else { SAME_LEADER },
            isr: differs(self.isr, &before.isr),
            eligible_leader_replicas: differs(elr, &before.elr),
            last_known_elr: differs(last_known, &before.last_known_elr),
            replicas: differs(self.replicas, &before.replicas),
            removing_replicas: differs(self.removing, &before.removing_replicas),
            adding_replicas: differs(self.adding, &before.adding_replicas),
            leader_recovery_state: if recovery == before.leader_recovery_state { -1 } else { recovery },
            directories: (directories != before.directories).then_some(directories),
        };
        let unchanged = PartitionChangeRecord { partition_id: self.number, topic_id: self.topic, ..Default::default() };
        (record != unchanged).then_some(record)
    }

    /// Ends a reassignment when all that it brings is in sync and something in sync remains.
    fn complete_reassignment(&mut self) {
        if self.adding.is_empty() && self.removing.is_empty() {
            return;
        }
        let stays =
            |list: &[i32]| -> Vec<i32> { list.iter().copied().filter(|id| !self.removing.contains(id)).collect() };
        let (isr, replicas) = (stays(&self.isr), stays(&self.replicas));
        let shrinks = self.adding.len() < self.removing.len();
        let all_in = |wanted: &[i32]| wanted.iter().all(|id| isr.contains(id));
        // Something that was to be brought and has been replaced since is both.
        let brings = stays(&self.adding);
        // When replicas become fewer, dropping some must not leave less in sync than staying would.
        if isr.is_empty() || replicas.is_empty() || !all_in(&brings) || (shrinks && !all_in(&replicas)) {
            return;
        }
        (self.isr, self.replicas) = (isr, replicas);
        self.removing.clear();
        self.adding.clear();
    }

    /// Whether the high watermark can move with the ISR to be.
    fn is_enough(&self) -> bool {
        self.isr.len() >= self.policy.effective_min_isr(self.replicas.len())
    }

    /// The ELR to be, in order.
    fn elr(&self) -> Vec<i32> {
        if self.is_enough() && !made(Mistake::ElrNeverVoid) {
            return Vec::new();
        }
        let clean = |id: &i32| !self.unclean_shutdown.contains(id) || made(Mistake::UncleanShutdownTrusted);
        let outside = |id: &i32| !self.isr.contains(id) || made(Mistake::ElrOverlaps);
        let left = self.before.elr.iter().chain(&self.before.isr).copied();
        let mut elr: Vec<i32> = left.filter(|id| outside(id) && clean(id) && self.replicas.contains(id)).collect();
        elr.sort_unstable();
        elr.dedup();
        elr
    }

    /// The leader, and whether it may lack committed records.
    fn elect(&self, elr: &[i32], acceptable: Acceptable<'_>) -> (i32, bool) {
        let clean = |id: &i32| {
            let holds = self.isr.contains(id) || (self.isr.is_empty() && elr.contains(id));
            holds && acceptable(*id)
        };
        let preferred = self.replicas.first().copied().filter(|_| self.election == Election::Preferred);
        let present = Some(self.before.leader).filter(|id| self.replicas.contains(id));
        let spared = |id: &i32| self.spared.contains_key(id) && !made(Mistake::MaintenanceIgnored);
        let free = |id: &i32| clean(id) && !spared(id);
        let any_of = |allowed: &dyn Fn(&i32) -> bool| {
            let first = || self.replicas.iter().copied().find(allowed);
            preferred.filter(allowed).or(present.filter(allowed)).or_else(first)
        };
        if let Some(id) = any_of(&free).or_else(|| any_of(&clean)) {
            return (id, false);
        }
        // Every in-sync replica went down in disorder. The last leader is the best there can be: what was
        // acknowledged had to be written there, if perhaps not yet to its disk.
        if let [last] = self.before.last_known_elr[..]
            && self.isr.is_empty()
            && elr.is_empty()
            && self.replicas.contains(&last)
            && !self.emptied.contains(&last)
            && acceptable(last)
        {
            return (last, true);
        }
        match self.replicas.iter().copied().find(|id| acceptable(*id)) {
            Some(id) if self.election == Election::Unclean || made(Mistake::AlwaysUnclean) => (id, true),
            _ => (NO_LEADER, false),
        }
    }

    /// The last leader, while there is none.
    fn last_known(&self, leader: i32) -> Vec<i32> {
        let before = self.before;
        let known = match leader {
            NO_LEADER if before.last_known_elr.is_empty() && before.leader != NO_LEADER => vec![before.leader],
            NO_LEADER => before.last_known_elr.clone(),
            _ => Vec::new(),
        };
        known.into_iter().filter(|id| self.replicas.contains(id) && !self.emptied.contains(id)).collect()
    }

    /// Directories of the replicas to be.
    fn directories(&self) -> Vec<Uuid> {
        let of = |id: &i32| match self.directories.iter().find(|(broker, _)| broker == id) {
            Some((_, directory)) => *directory,
            None => self.before.directory(*id),
        };
        self.replicas.iter().map(of).collect()
    }
}

#[cfg(test)]
#[path = "partition_change_test.rs"]
pub(crate) mod tests;
