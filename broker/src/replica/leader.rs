//! What a partition's leader knows of its followers, and what follows from it: the high watermark and the ISR.
//!
//! Pure: offsets, times and answers of the controller come in as arguments, decisions come out. The rules are Kafka's
//! (KIP-497, KIP-903, KIP-966). Invariants: the high watermark never goes back; it does not advance while fewer than
//! `min.insync.replicas` are in sync; it is never above what each member of the ISR has, nor of the ISR that the
//! controller may have agreed to already. So whoever is elected out of the ISR holds everything below it.

use std::collections::BTreeMap;

use klamm_protocol::ErrorCode;

use crate::planted::{Bug, planted};

/// The brokers that may join an ISR, with the epochs of their registrations.
pub type LiveBrokers = BTreeMap<i32, i64>;

/// What the controller says of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Rises with each change of leader.
    pub leader_epoch: i32,
    /// Rises with each change of the partition.
    pub partition_epoch: i32,
    /// Brokers that hold it.
    pub replicas: Vec<i32>,
    /// Replicas in sync.
    pub isr: Vec<i32>,
    /// The leader was elected out of sync, and has to say when it has recovered.
    pub recovering: bool,
}

/// A follower's fetch, as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Who fetches.
    pub follower: i32,
    /// Epoch of its registration; −1 when it does not say, which does not count.
    pub broker_epoch: i64,
    /// It holds everything below.
    pub fetch_offset: i64,
    /// First offset it keeps.
    pub log_start: i64,
    /// A moment of this broker's after which the fetch was certainly sent; 0 when nothing is known.
    pub sent_after: u64,
}

/// Another replica, as this leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Follower {
    id: i32,
    /// Epoch it fetched under last; −1 for none.
    broker_epoch: i64,
    /// It holds everything below; −1 as long as it has not fetched.
    log_end: i64,
    log_start: i64,
    /// When it fetched last, and where this log ended then.
    last_fetch_ms: i64,
    leader_end_at_fetch: i64,
    /// The last time it was known to hold all that there was.
    last_caught_up_ms: Option<i64>,
    /// It followed this leader, in this epoch, at some time after this moment.
    followed_after: u64,
}

impl Follower {
    fn new(id: i32, in_sync: bool, now_ms: i64) -> Self {
        Self {
            id,
            broker_epoch: -1,
            log_end: -1,
            log_start: -1,
            last_fetch_ms: now_ms,
            leader_end_at_fetch: i64::MAX,
            // Who was in sync at the election is given the time to say so.
            last_caught_up_ms: in_sync.then_some(now_ms),
            followed_after: 0,
        }
    }

    fn is_caught_up(&self, leader_end: i64, now_ms: i64, lag_max_ms: i64) -> bool {
        self.log_end == leader_end || self.last_caught_up_ms.is_some_and(|at| now_ms - at <= lag_max_ms)
    }
}

/// A change of the ISR that the controller is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Tells the answer apart from those to other proposals.
    pub id: u64,
    /// Under which epoch.
    pub leader_epoch: i32,
    /// The change is to be made to this version of the partition.
    pub partition_epoch: i32,
    /// The replicas in sync and the epochs of their registrations, −1 where not known.
    pub isr: Vec<(i32, i64)>,
    /// Whether the leader still recovers.
    pub recovering: bool,
}

/// What the controller made of a [`Proposal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The partition is this now.
    Done {
        /// Epoch of the leader.
        leader_epoch: i32,
        /// Version of the partition.
        partition_epoch: i32,
        /// Replicas in sync.
        isr: Vec<i32>,
        /// Whether the leader recovers.
        recovering: bool,
    },
    /// It refused, and why.
    Refused(ErrorCode),
}

/// What to do after a [`Verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Settled,
    /// Send the same proposal again.
    Again,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    id: u64,
    /// With the epochs under which they had caught up. A member that comes back meanwhile may hold less, and the same
    /// proposal, sent again, must not speak for it.
    isr: Vec<(i32, i64)>,
    recovering: bool,
    /// How often it was sent. Each time but the last may still be on its way to the controller.
    sent: u32,
    /// It has been given up: the controller is asked to confirm what there is instead, under a new version of the partition,
    /// so that what is still on its way comes to nothing. Until it has, the members count.
    withdrawn: bool,
}

/// What the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `min.insync.replicas`.
    pub min_isr: i32,
    /// `replica.lag.time.max.ms`.
    pub lag_max_ms: i64,
}

/// A led partition's replication state.
#[derive(Clone, Debug)]
pub struct Leader {
    id: i32,
    assigned: Assigned,
    /// Where the log ended when this epoch began.
    epoch_start: i64,
    min_isr: usize,
    followers: Vec<Follower>,
    pending: Option<Pending>,
    next_proposal: u64,
    /// Everything below counts as held here.
    log_end: i64,
    high_watermark: i64,
    /// `replica.lag.time.max.ms`.
    lag_max_ms: i64,
    /// The latest time heard of; what an append goes by.
    now_ms: i64,
}

impl Leader {
    /// The leader of a new epoch. `high_watermark` is what this replica knew of it before.
    pub fn new(id: i32, assigned: Assigned, rules: Rules, log_end: i64, high_watermark: i64, now_ms: i64) -> Self {
        let mut leader = Self {
            id,
            assigned: Assigned { leader_epoch: assigned.leader_epoch, ..Assigned::default() },
            epoch_start: log_end,
            min_isr: 1,
            followers: Vec::new(),
            pending: None,
            next_proposal: 1,
            log_end,
            high_watermark: high_watermark.min(log_end),
            lag_max_ms: rules.lag_max_ms,
            now_ms,
        };
        leader.set_min_isr(rules.min_isr);
        leader.take(assigned, now_ms);
        leader
    }

    /// The controller tells of a change within this epoch. Older news than ours changes nothing.
    pub fn assign(&mut self, assigned: Assigned, now_ms: i64) {
        let ours = &self.assigned;
        if assigned.leader_epoch == ours.leader_epoch && assigned.partition_epoch > ours.partition_epoch {
            self.take(assigned, now_ms);
        }
    }

    fn take(&mut self, assigned: Assigned, now_ms: i64) {
        let others = assigned.replicas.iter().copied().filter(|id| *id != self.id);
        let known = std::mem::take(&mut self.followers);
        let follower = |id: i32| {
            let found = known.iter().find(|f| f.id == id).cloned();
            found.unwrap_or_else(|| Follower::new(id, assigned.isr.contains(&id), now_ms))
        };
        self.followers = others.map(follower).collect();
        self.assigned = assigned;
        // Whatever was asked for, it was either done by now, or is refused since the partition changed.
        self.pending = None;
    }

    /// `min.insync.replicas` as configured.
    pub fn set_min_isr(&mut self, min_isr: i32) {
        self.min_isr = usize::try_from(min_isr).unwrap_or(1).max(1);
    }

    /// The epoch led under.
    pub fn epoch(&self) -> i32 {
        self.assigned.leader_epoch
    }

    /// What the controller said last.
    pub fn assigned(&self) -> &Assigned {
        &self.assigned
    }

    /// Where the log ended when this epoch began. Below that, the high watermark may still have to catch up with
    /// what earlier leaders acknowledged.
    pub fn epoch_start(&self) -> i64 {
        self.epoch_start
    }

    /// Whether this is the only replica.
    pub fn is_alone(&self) -> bool {
        self.followers.is_empty()
    }

    /// Everything below is held by all that must hold it.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Whether writes with acks=all can be taken.
    pub fn has_min_isr(&self) -> bool {
        self.assigned.isr.len() >= self.effective_min_isr() || planted(Bug::AckedBelowMinIsr)
    }

    /// Whether the other replicas in sync are enough to take writes with acks=all.
    pub fn is_dispensable(&self) -> bool {
        self.assigned.isr.len() > self.effective_min_isr().max(1)
    }

    fn effective_min_isr(&self) -> usize {
        self.min_isr.min(self.followers.len() + 1)
    }

    /// This replica's log counts up to `log_end` now. Returns the high watermark.
    pub fn on_append(&mut self, log_end: i64, live: &LiveBrokers) -> i64 {
        self.log_end = self.log_end.max(log_end);
        if self.followers.is_empty() {
            self.high_watermark = self.high_watermark.max(self.log_end);
        } else {
            self.advance(live);
        }
        self.high_watermark
    }

    /// Whether `id` is one of the other replicas.
    pub fn is_follower(&self, id: i32) -> bool {
        self.followers.iter().any(|f| f.id == id)
    }

    /// Takes note of a follower's fetch: the caller has checked that its log agrees with ours up to the offset.
    /// `leader_end` is where our log ends, counted or not. The high watermark may have moved.
    pub fn on_fetch(
        &mut self,
        fetch: Progress,
        leader_end: i64,
        now_ms: i64,
        live: &LiveBrokers,
    ) -> Result<(), ErrorCode> {
        let Some(follower) = self.followers.iter_mut().find(|f| f.id == fetch.follower) else {
            return Err(ErrorCode::UnknownLeaderEpoch);
        };
        self.now_ms = self.now_ms.max(now_ms);
        let known = live.get(&fetch.follower).copied().unwrap_or(-1).max(follower.broker_epoch);
        if fetch.broker_epoch < known {
            // From a life that is over, and what it held may be gone; or from who does not say.
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if fetch.fetch_offset >= leader_end {
            follower.last_caught_up_ms = follower.last_caught_up_ms.max(Some(now_ms));
        } else if fetch.fetch_offset >= follower.leader_end_at_fetch {
            follower.last_caught_up_ms = follower.last_caught_up_ms.max(Some(follower.last_fetch_ms));
        }
        follower.broker_epoch = fetch.broker_epoch;
        follower.log_end = fetch.fetch_offset;
        follower.log_start = fetch.log_start;
        follower.last_fetch_ms = now_ms;
        follower.leader_end_at_fetch = leader_end;
        follower.followed_after = follower.followed_after.max(fetch.sent_after);
        self.advance(live);
        Ok(())
    }

    /// Moves the high watermark as far as it may go. Returns it.
    pub fn advance(&mut self, live: &LiveBrokers) -> i64 {
        if planted(Bug::HighWatermarkFromLogEnd) {
            self.high_watermark = self.high_watermark.max(self.log_end);
        }
        if !self.has_min_isr() {
            return self.high_watermark;
        }
        let mut safe = self.log_end;
        for follower in &self.followers {
            if follower.log_end >= safe {
                continue;
            }
            if self.is_in_maximal_isr(follower.id) || self.is_about_to_join(follower, live) {
                safe = follower.log_end;
            }
        }
        self.high_watermark = self.high_watermark.max(safe);
        self.high_watermark
    }

    /// The moment up to which nobody else led: each of those that may be elected followed this leader at some time after
    /// it. `u64::MAX` when there is nobody else.
    pub fn led_until(&self) -> u64 {
        let members = self.followers.iter().filter(|f| self.is_in_maximal_isr(f.id));
        members.map(|f| f.followed_after).min().unwrap_or(u64::MAX)
    }

    /// One that is about to join is waited for, or under load it never reaches the high watermark.
    fn is_about_to_join(&self, follower: &Follower, live: &LiveBrokers) -> bool {
        follower.is_caught_up(self.log_end, self.now_ms, self.lag_max_ms) && may_join(follower, live)
    }

    /// Whether the high watermark waits for this follower. What is waited for must not be throttled.
    pub fn waits_for(&self, id: i32, live: &LiveBrokers) -> bool {
        let joins = |f: &Follower| f.id == id && self.is_about_to_join(f, live);
        self.is_in_maximal_isr(id) || self.followers.iter().any(joins)
    }

    fn is_in_maximal_isr(&self, id: i32) -> bool {
        self.assigned.isr.contains(&id)
            || self.pending.as_ref().is_some_and(|pending| pending.isr.iter().any(|(member, _)| *member == id))
    }

    /// The first offset that every live replica has let go of.
    pub fn low_watermark(&self, own_log_start: i64, live: &LiveBrokers) -> i64 {
        let others = self.followers.iter().filter(|f| live.contains_key(&f.id)).map(|f| f.log_start);
        others.fold(own_log_start, i64::min)
    }

    /// How far the slowest other replica is behind, in records.
    pub fn lag_max(&self) -> i64 {
        self.followers.iter().map(|f| self.log_end - f.log_end.max(0)).max().unwrap_or(0).max(0)
    }

    /// A follower in sync that holds `offset`, among those on `candidates`; the one that is furthest.
    pub fn read_replica(&self, offset: i64, candidates: &[i32]) -> Option<i32> {
        let holds = |f: &&Follower| {
            candidates.contains(&f.id)
                && self.assigned.isr.contains(&f.id)
                && f.log_start <= offset
                && offset <= f.log_end
        };
        self.followers.iter().filter(holds).max_by_key(|f| (f.log_end, -f.id)).map(|f| f.id)
    }

    /// Proposes to take `id` into the ISR if it has caught up: with what was written, and with what was deleted, or
    /// deleted records would be back when it leads. This log starts at `log_start`.
    pub fn expansion(&mut self, id: i32, log_start: i64, live: &LiveBrokers) -> Option<Proposal> {
        if self.pending.is_some() || self.assigned.isr.contains(&id) {
            return None;
        }
        let follower = self.followers.iter().find(|f| f.id == id)?;
        let in_sync = follower.log_end >= self.high_watermark && follower.log_end >= self.epoch_start;
        if !in_sync || follower.log_start < log_start || !may_join(follower, live) {
            return None;
        }
        let mut isr = self.assigned.isr.clone();
        isr.push(id);
        Some(self.propose(isr))
    }

    /// Proposes to drop those from the ISR that have not caught up for too long; `leader_end` as for
    /// [`on_fetch`](Self::on_fetch).
    pub fn shrinking(&mut self, leader_end: i64, now_ms: i64) -> Option<Proposal> {
        self.now_ms = self.now_ms.max(now_ms);
        if self.pending.is_some() {
            return None;
        }
        let late = |id: i32| {
            let follower = self.followers.iter().find(|f| f.id == id);
            follower.is_some_and(|f| !f.is_caught_up(leader_end, now_ms, self.lag_max_ms))
        };
        let isr: Vec<i32> = self.assigned.isr.iter().copied().filter(|id| !late(*id)).collect();
        if planted(Bug::IsrShrunkAlone) {
            self.assigned.isr = isr;
            return None;
        }
        (isr.len() < self.assigned.isr.len()).then(|| self.propose(isr))
    }

    /// Tells the controller that a leader elected out of sync has recovered: it has nothing to recover from but its
    /// own log.
    pub fn recovered(&mut self) -> Option<Proposal> {
        let due = self.assigned.recovering && self.pending.is_none();
        due.then(|| self.propose(self.assigned.isr.clone()))
    }

    fn propose(&mut self, isr: Vec<i32>) -> Proposal {
        let isr = isr.into_iter().map(|id| (id, self.epoch_of(id))).collect();
        let pending = Pending { id: self.next_proposal, isr, recovering: false, sent: 0, withdrawn: false };
        self.next_proposal += 1;
        let proposal = self.proposal(&pending);
        self.pending = Some(pending);
        proposal
    }

    fn epoch_of(&self, id: i32) -> i64 {
        self.followers.iter().find(|f| f.id == id).map_or(-1, |f| f.broker_epoch)
    }

    fn proposal(&self, pending: &Pending) -> Proposal {
        let (isr, recovering) = match pending.withdrawn {
            true => (self.assigned.isr.iter().map(|id| (*id, self.epoch_of(*id))).collect(), self.assigned.recovering),
            false => (pending.isr.clone(), pending.recovering),
        };
        Proposal {
            id: pending.id,
            leader_epoch: self.assigned.leader_epoch,
            partition_epoch: self.assigned.partition_epoch,
            isr,
            recovering,
        }
    }

    /// The proposal under way, to be sent.
    pub fn send(&mut self) -> Option<Proposal> {
        let pending = self.pending.as_mut()?;
        pending.sent = pending.sent.saturating_add(1);
        self.pending()
    }

    /// The proposal under way.
    pub fn pending(&self) -> Option<Proposal> {
        self.pending.as_ref().map(|pending| self.proposal(pending))
    }

    /// The controller has answered `proposal`. The caller advances the high watermark afterwards.
    pub fn on_verdict(&mut self, proposal: u64, verdict: Verdict) -> After {
        if self.pending.as_ref().is_none_or(|pending| pending.id != proposal) {
            // Something else has happened to the partition meanwhile.
            return After::Settled;
        }
        match verdict {
            Verdict::Done { leader_epoch, partition_epoch, isr, recovering } => {
                if leader_epoch == self.assigned.leader_epoch && partition_epoch >= self.assigned.partition_epoch {
                    self.assigned.partition_epoch = partition_epoch;
                    self.assigned.isr = isr;
                    self.assigned.recovering = recovering;
                    self.pending = None;
                }
                After::Settled
            }
            // It was certainly not done this time. If it was sent before, and nobody knows what became of that, it may be
            // yet: by a controller to whom the same looks right a moment later.
            Verdict::Refused(code) if is_premature(code) => match &mut self.pending {
                Some(pending) if pending.sent > 1 || pending.withdrawn => {
                    pending.withdrawn = true;
                    After::Again
                }
                _ => {
                    self.pending = None;
                    After::Settled
                }
            },
            // The controller knows more than we do and is about to tell us. Until then the proposal counts: it may
            // be what changed the partition.
            Verdict::Refused(
                ErrorCode::UnknownTopicOrPartition
                | ErrorCode::UnknownTopicId
                | ErrorCode::FencedLeaderEpoch
                | ErrorCode::InvalidUpdateVersion
                | ErrorCode::InvalidRequest
                | ErrorCode::NewLeaderElected,
            ) => After::Settled,
            Verdict::Refused(_) => After::Again,
        }
    }
}

/// Whether a refusal means that nothing was done, and that the same may be asked for again later.
pub fn is_premature(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::OperationNotAttempted | ErrorCode::IneligibleReplica)
}

/// Whether the controller would take it into the ISR: alive, and in the life that it fetched in (KIP-903).
fn may_join(follower: &Follower, live: &LiveBrokers) -> bool {
    let fetched = follower.log_end >= 0;
    fetched && live.get(&follower.id) == Some(&follower.broker_epoch)
}

#[cfg(test)]
#[path = "leader_test.rs"]
mod tests;
