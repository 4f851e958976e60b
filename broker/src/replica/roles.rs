//! A partition's role: becoming leader or follower as the controller says, and what the two do with each other.
//!
//! Everything here happens under the partition's lock and checks the leader epoch there, so that an answer that
//! belongs to an earlier epoch changes nothing. Times are those of the steady clock.

use std::sync::atomic::Ordering;

use klamm_log::{LogError, ReadResult};
use klamm_metadata::Partition as Registered;
use klamm_protocol::ErrorCode;

use super::follower::{self, Fetched, Outcome, Position, Unusable};
use super::leader::{After, Assigned, Leader, Progress, Proposal, Rules, Verdict};
use super::partition::{MANY, Offsets, Partition, Role, State};
use super::waiting::Reached;
use crate::config::TopicConfig;
use crate::planted::{Bug, planted};

/// What a new state of the partition means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The role and the epoch are as before.
    Same,
    /// It leads, in a new epoch.
    Leads,
    /// It follows this leader, in a new epoch.
    Follows(i32),
    /// Nobody leads.
    Idle,
}

/// A follower's fetch of one partition.
#[derive(Clone, Copy, Debug)]
pub struct FollowerFetch {
    /// Who, and how far it is.
    pub progress: Progress,
    /// Leader epoch it believes in.
    pub leader_epoch: i32,
    /// Epoch of its last record; −1 for none.
    pub last_fetched_epoch: i32,
    /// Bytes it takes.
    pub max_bytes: usize,
    /// Whether one batch may be larger than that.
    pub min_one: bool,
    /// Whether this is the first look at the request. A parked one says nothing new of the follower.
    pub fresh: bool,
}

/// What a follower is answered.
#[derive(Debug)]
pub enum FollowerRead {
    /// Records from its offset on.
    Records(ReadResult),
    /// Its log differs: the largest epoch not above its last, and where that ends here.
    Diverging(i32, i64),
}

/// Why a follower is refused.
#[derive(Debug)]
pub enum FollowerRefused {
    /// With this code.
    Code(ErrorCode),
    /// The log's reason.
    Log(LogError),
}

impl Partition {
    /// Takes over what the controller says of the partition. Older news changes nothing.
    pub fn follow(&self, wanted: &Registered, now_ms: i64) -> Turn {
        let assigned = Assigned {
            leader_epoch: wanted.leader_epoch,
            partition_epoch: wanted.partition_epoch,
            replicas: wanted.replicas.clone(),
            isr: wanted.isr.clone(),
            recovering: wanted.leader_recovery_state != 0,
        };
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let known = self.leader_epoch();
        if assigned.leader_epoch < known {
            return Turn::Same;
        }
        self.in_sync.store(assigned.isr.contains(&self.around.node_id), Ordering::Relaxed);
        if assigned.leader_epoch == known && self.leader() == wanted.leader {
            if let Role::Leader(leader) = &mut state.role {
                leader.assign(assigned, now_ms);
                self.move_on(guard);
            }
            return Turn::Same;
        }
        let turn = match wanted.leader {
            id if id == self.around.node_id => Turn::Leads,
            id if id >= 0 => Turn::Follows(id),
            _ => Turn::Idle,
        };
        state.refusals.clear();
        match turn {
            Turn::Leads => self.lead(state, assigned, now_ms),
            _ => {
                if turn != Turn::Idle {
                    state.role = Role::Follower;
                    state.log.drop_empty_epochs();
                    if planted(Bug::TruncatedToHighWatermark) {
                        let _ = state.log.truncate_to(self.high_watermark.load(Ordering::Acquire), now_ms);
                        self.publish_log(state);
                    }
                } else {
                    state.role = Role::Idle;
                }
                state.uncommitted.clear();
            }
        }
        self.leader_epoch.store(wanted.leader_epoch, Ordering::Release);
        self.leader.store(wanted.leader, Ordering::Release);
        self.bereft_at.store(-1, Ordering::Relaxed);
        if turn == Turn::Leads {
            self.move_on(guard);
            // Fetches parked under the old epoch have to be told of the new one.
            self.waiters().wake_all();
            self.follower_waiters().wake_all();
        } else {
            drop(guard);
            // Writes register under the lock: each was either seen here, or refused.
            self.wake_all(ErrorCode::NotLeaderOrFollower);
        }
        turn
    }

    /// As [`follow`](Self::follow), for a replica that the controller has written off: what is damaged is set aside before
    /// anything is fetched in the new epoch.
    pub fn follow_anew(&self, wanted: &Registered, now_ms: i64, wall_ms: i64) -> Turn {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if wanted.leader_epoch > self.leader_epoch() && state.log.damage().is_some() {
            // Neither this role nor any fetch under way may touch the log between the cut and the new epoch.
            state.role = Role::Idle;
            match state.log.take_out_damage(wall_ms) {
                Ok(end) => tracing::warn!(
                    partition = %self.dir_name(), ?end, leader = wanted.leader,
                    "a damaged replica is filled again from its leader"
                ),
                Err(error) => tracing::error!(partition = %self.dir_name(), %error, "a damaged log was not set aside"),
            }
            let end = state.log.log_end_offset();
            self.high_watermark.fetch_min(end, Ordering::AcqRel);
            self.publish_log(state);
            self.was_cut();
        }
        drop(guard);
        self.follow(wanted, now_ms)
    }

    fn lead(&self, state: &mut State, assigned: Assigned, now_ms: i64) {
        let end = state.log.log_end_offset();
        if let Err(error) = state.log.assign_epoch(assigned.leader_epoch) {
            // The batches carry the epoch as well.
            tracing::warn!(partition = %self.dir_name(), %error, "leader epoch not written");
        }
        let rules = Rules { min_isr: self.topic.config().min_insync_replicas, lag_max_ms: self.around.lag_max_ms };
        let high_watermark = self.high_watermark.load(Ordering::Acquire);
        state.counted = end;
        state.uncommitted.clear();
        let mut leader = Leader::new(self.around.node_id, assigned, rules, end, high_watermark, now_ms);
        let recovered = leader.recovered();
        state.role = Role::Leader(Box::new(leader));
        if recovered.is_some() {
            self.propose();
        }
    }

    /// Moves the high watermark as far as it may go by now, and wakes whom it concerns.
    fn move_on(&self, mut guard: parking_lot::MutexGuard<'_, State>) {
        let state = &mut *guard;
        let Role::Leader(leader) = &mut state.role else { return };
        let reached = leader.on_append(state.counted, &self.around.live.read());
        let low = leader.low_watermark(state.log.log_start_offset(), &self.around.live.read());
        self.confirm(leader.led_until());
        let visible = self.publish_high_watermark(state, reached, MANY);
        drop(guard);
        self.tell(visible);
        self.deletions.reached(low);
    }

    /// Whether its appends should be flushed, now that it leads or has fetched.
    pub fn wants_flush(&self) -> bool {
        let state = self.state.lock();
        state.log.unflushed() > 0 && state.log.unflushed() >= state.log.config().flush_messages
    }

    /// The topic has another configuration.
    pub fn configure(&self, config: &TopicConfig) {
        let mut guard = self.state.lock();
        guard.log.set_config(config.log.clone());
        if let Role::Leader(leader) = &mut guard.role {
            leader.set_min_isr(config.min_insync_replicas);
            self.move_on(guard);
        }
    }

    /// Other brokers may be in an ISR than before.
    pub fn on_brokers_changed(&self) {
        self.move_on(self.state.lock());
    }

    /// The epoch in which this replica leads, with the log's end when it began.
    pub fn leads_since(&self) -> Option<(i32, i64)> {
        match &self.state.lock().role {
            Role::Leader(leader) => Some((leader.epoch(), leader.epoch_start())),
            _ => None,
        }
    }

    /// Whether the high watermark has caught up with what earlier leaders acknowledged.
    pub fn knows_high_watermark(&self) -> bool {
        match &self.state.lock().role {
            Role::Leader(leader) => leader.high_watermark() >= leader.epoch_start(),
            _ => true,
        }
    }

    /// Resolves when everything below `offset` is committed; `None` when it is.
    ///
    /// # Errors
    /// `NotLeaderOrFollower`.
    pub fn when_committed(&self, offset: i64) -> Result<Option<Reached>, ErrorCode> {
        let state = self.state.lock();
        let Role::Leader(leader) = &state.role else { return Err(ErrorCode::NotLeaderOrFollower) };
        Ok((leader.high_watermark() < offset).then(|| self.commits.wait_for(offset)))
    }

    /// Resolves when it is certain that nobody else led before this call; `None` when that is certain by itself, as for
    /// the only replica in sync.
    ///
    /// A leader that is cut off or stood still may have been replaced without knowing it. Others who may be elected
    /// follow it until they hear of that, and they fetch all the time: who sends a fetch after this call, in this epoch,
    /// did not lead when it began. No clock has a part in it. A parked fetch is answered at once for the next one to come.
    ///
    /// # Errors
    /// `NotLeaderOrFollower`.
    pub fn when_confirmed(&self) -> Result<Option<Reached>, ErrorCode> {
        let state = self.state.lock();
        let Role::Leader(leader) = &state.role else { return Err(ErrorCode::NotLeaderOrFollower) };
        if leader.led_until() == u64::MAX || planted(Bug::CoordinatorUnconfirmed) {
            return Ok(None);
        }
        let moment = self.around.moment.fetch_add(1, Ordering::AcqRel) + 1;
        self.asked_at.fetch_max(moment, Ordering::AcqRel);
        let confirmed = self.confirmations.wait_for(i64::try_from(moment).unwrap_or(i64::MAX));
        drop(state);
        self.follower_waiters().wake_all();
        Ok(Some(confirmed))
    }

    /// Whether others are in sync, so that one of them may have been elected without this leader's knowing.
    pub fn may_be_replaced(&self) -> bool {
        matches!(&self.state.lock().role, Role::Leader(leader) if leader.led_until() != u64::MAX)
    }

    /// Whether somebody waits for a follower's fetch that was sent after a later moment than this.
    pub fn wants_fetch_after(&self, moment: u64) -> bool {
        self.asked_at.load(Ordering::Acquire) > moment
    }

    /// Under the lock: what was true of one epoch must not be said in another.
    fn confirm(&self, led_until: u64) {
        self.confirmations.reached(i64::try_from(led_until).unwrap_or(i64::MAX));
    }

    /// Whether this broker has the only replica.
    pub fn is_alone(&self) -> bool {
        matches!(&self.state.lock().role, Role::Leader(leader) if leader.is_alone())
    }

    /// Whether there are enough replicas in sync for acks=all.
    pub fn has_min_isr(&self) -> bool {
        match &self.state.lock().role {
            Role::Leader(leader) => leader.has_min_isr(),
            _ => false,
        }
    }

    /// A replica in the ISR among `candidates` that holds `offset` (KIP-392).
    pub fn read_replica(&self, offset: i64, candidates: &[i32]) -> Option<i32> {
        match &self.state.lock().role {
            Role::Leader(leader) => leader.read_replica(offset, candidates),
            _ => None,
        }
    }

    /// Deletes what is below `to` (DeleteRecords): the first offset that every live replica has let go of, and a
    /// receiver that resolves once that is `to`, unless it is.
    ///
    /// # Errors
    /// This is not the leader, or the log failed.
    pub fn delete_records(&self, to: i64, wall_ms: i64) -> Result<(i64, Option<Reached>), FollowerRefused> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Role::Leader(leader) = &state.role else {
            return Err(FollowerRefused::Code(ErrorCode::NotLeaderOrFollower));
        };
        let start = state.log.delete_records(to, wall_ms).map_err(FollowerRefused::Log)?;
        let low = leader.low_watermark(start, &self.around.live.read());
        let wait = (low < to).then(|| self.deletions.wait_for(to));
        self.publish_log(state);
        drop(guard);
        // Followers hear of the new start with their next answer, which a parked fetch would delay.
        self.follower_waiters().wake_all();
        Ok((low, wait))
    }

    /// The first offset that every live replica has let go of.
    pub fn low_watermark(&self) -> i64 {
        let state = self.state.lock();
        let start = state.log.log_start_offset();
        match &state.role {
            Role::Leader(leader) => leader.low_watermark(start, &self.around.live.read()),
            _ => start,
        }
    }

    /// Reads for a follower, up to the log's end, and takes note of what it has.
    ///
    /// # Errors
    /// It is refused; nothing was noted then.
    pub fn read_for_follower(
        &self,
        fetch: &FollowerFetch,
        now_ms: i64,
    ) -> Result<(FollowerRead, Offsets), FollowerRefused> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        self.check_leader_epoch(fetch.leader_epoch).map_err(FollowerRefused::Code)?;
        let Role::Leader(leader) = &mut state.role else {
            return Err(FollowerRefused::Code(ErrorCode::NotLeaderOrFollower));
        };
        let progress = fetch.progress;
        if !leader.is_follower(progress.follower) {
            // One that believes in our epoch may know of an assignment that we are about to hear of.
            let code = if fetch.leader_epoch >= 0 {
                ErrorCode::UnknownLeaderEpoch
            } else {
                ErrorCode::UnknownTopicOrPartition
            };
            return Err(FollowerRefused::Code(code));
        }
        let offset = progress.fetch_offset;
        let out_of_range = |log: &klamm_log::Log| {
            let (log_start, log_end) = (log.log_start_offset(), log.log_end_offset());
            FollowerRefused::Log(LogError::OffsetOutOfRange { offset, log_start, log_end })
        };
        if fetch.last_fetched_epoch >= 0 {
            let Some((epoch, end)) = state.log.epoch_end_offset(fetch.last_fetched_epoch) else {
                return Err(out_of_range(&state.log));
            };
            if epoch < fetch.last_fetched_epoch || end < offset {
                return Ok((FollowerRead::Diverging(epoch, end), self.offsets()));
            }
        }
        let end = state.log.log_end_offset();
        if offset < state.log.log_start_offset() || offset > end {
            return Err(out_of_range(&state.log));
        }
        let mut proposes = false;
        let mut low = None;
        let mut reached = leader.high_watermark();
        if fetch.fresh {
            let live = self.around.live.read().clone();
            leader.on_fetch(progress, end, now_ms, &live).map_err(FollowerRefused::Code)?;
            let log_start = state.log.log_start_offset();
            proposes = leader.expansion(progress.follower, log_start, &live).is_some();
            low = Some(leader.low_watermark(log_start, &live));
            reached = leader.high_watermark();
            self.confirm(leader.led_until());
        }
        let held_back = self.is_throttled_leader()
            && !leader.waits_for(progress.follower, &self.around.live.read())
            && self.around.throttles.leader.is_exceeded(now_ms);
        let (max_bytes, min_one) = if held_back { (0, false) } else { (fetch.max_bytes, fetch.min_one) };
        if fetch.fresh && state.told.was_sent(progress.follower, offset) {
            // It was sent this before and did not take it. What it got may not be what was written.
            state.log.distrust(offset);
        }
        let read = state.log.read(offset, max_bytes, end, min_one);
        if matches!(&read, Ok(read) if !read.is_empty()) {
            state.told.sent(progress.follower, offset);
        }
        let visible = self.publish_high_watermark(state, reached, MANY);
        let offsets = self.offsets();
        drop(guard);
        self.tell(visible);
        if let Some(low) = low {
            self.deletions.reached(low);
        }
        if proposes {
            self.propose();
        }
        Ok((FollowerRead::Records(read.map_err(FollowerRefused::Log)?), offsets))
    }

    /// Where this follower goes on fetching from `leader`, and under which epoch; `None` when it does not follow it.
    pub fn position(&self, leader: i32) -> Option<(i32, Position)> {
        let state = self.state.lock();
        let follows = matches!(state.role, Role::Follower) && self.leader() == leader;
        follows.then(|| (self.leader_epoch(), follower::position(&state.log)))
    }

    /// Takes over the leader's answer to a fetch from `asked` under `epoch`; `None` when that epoch is over.
    ///
    /// # Errors
    /// See [`follower::take`].
    pub fn take_fetched(
        &self,
        epoch: i32,
        asked: Position,
        fetched: &Fetched,
        wall_ms: i64,
    ) -> Result<Option<Outcome>, Unusable> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if !matches!(state.role, Role::Follower) || self.leader_epoch() != epoch {
            return Ok(None);
        }
        let before = self.high_watermark.load(Ordering::Acquire);
        let taken = follower::take(&mut state.log, asked, fetched, before, wall_ms);
        // Even a failed attempt may have changed the log.
        self.publish_log(state);
        let (outcome, high_watermark) = taken?;
        if outcome != Outcome::Appended(0) {
            self.bereft_at.store(-1, Ordering::Relaxed);
        }
        self.high_watermark.store(high_watermark, Ordering::Release);
        let end = state.log.log_end_offset();
        drop(guard);
        self.behind.store((fetched.high_watermark - end).max(0), Ordering::Relaxed);
        if high_watermark > before {
            self.waiters().offer(MANY);
        }
        Ok(Some(outcome))
    }

    /// The leader refused the offset asked for under `epoch`; its log starts at `leader_start`. Returns whether this
    /// log begins anew there.
    ///
    /// # Errors
    /// The log failed.
    pub fn out_of_range(&self, epoch: i32, leader_start: i64, wall_ms: i64) -> Result<bool, LogError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if !matches!(state.role, Role::Follower) || self.leader_epoch() != epoch {
            return Ok(false);
        }
        let anew = follower::out_of_range(&mut state.log, leader_start, wall_ms)?;
        self.publish_log(state);
        if anew {
            self.high_watermark.store(leader_start, Ordering::Release);
        }
        Ok(anew)
    }

    /// Looks for replicas that lag too long; there may be a proposal afterwards.
    pub fn check_lag(&self, now_ms: i64) {
        let mut state = self.state.lock();
        let end = state.log.log_end_offset();
        let Role::Leader(leader) = &mut state.role else { return };
        if leader.is_alone() {
            return;
        }
        let late = leader.shrinking(end, now_ms).is_some();
        drop(state);
        if late {
            self.propose();
        }
    }

    /// Tells that there is a proposal for the controller.
    fn propose(&self) {
        self.around.proposals.lock().insert((self.topic.id, self.index));
        self.around.proposed.notify_one();
    }

    /// The proposal under way, to be sent, with whether it makes the ISR larger, smaller or neither.
    pub fn proposal(&self) -> Option<(Proposal, std::cmp::Ordering)> {
        let mut state = self.state.lock();
        let Role::Leader(leader) = &mut state.role else { return None };
        let proposal = leader.send()?;
        let direction = proposal.isr.len().cmp(&leader.assigned().isr.len());
        Some((proposal, direction))
    }

    /// The controller answered a proposal. Returns whether that is to be sent again.
    pub fn on_verdict(&self, proposal: u64, verdict: Verdict) -> After {
        let mut guard = self.state.lock();
        let Role::Leader(leader) = &mut guard.role else { return After::Settled };
        let after = leader.on_verdict(proposal, verdict);
        self.move_on(guard);
        after
    }

    /// Which replicas are in sync, as this leader knows; `None` when it does not lead.
    pub fn in_sync(&self) -> Option<Vec<i32>> {
        match &self.state.lock().role {
            Role::Leader(leader) => Some(leader.assigned().isr.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "model_test.rs"]
mod model_test;
