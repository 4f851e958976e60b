//! The rebalance: begin it, wait for members, elect a leader, open the next generation.

use bytes::Bytes;
use klamm_protocol::error::ErrorCode;

use super::group::{Group, State};
use super::timers::JoinTimer;
use crate::config::Config;
use crate::records;
use crate::refuse;
use crate::step::{Effect, Step};

impl Group {
    /// Begins a rebalance, or, when one is under way, looks whether it can go on.
    pub fn rebalance_or_complete(&mut self, now_ms: i64, config: &Config, step: &mut Step) {
        if self.is(State::PreparingRebalance) {
            self.complete_if_all_joined(now_ms, step);
        } else {
            self.prepare_rebalance(now_ms, config, step);
        }
    }

    /// Begins a rebalance.
    pub fn prepare_rebalance(&mut self, now_ms: i64, config: &Config, step: &mut Step) {
        if self.is(State::CompletingRebalance) {
            // Whoever waits for the assignment has to join again instead.
            self.clear_assignments();
            self.answer_syncs(now_ms, step, |_| refuse::syncing(ErrorCode::RebalanceInProgress));
        }
        self.members_mut().for_each(|m| m.owes_sync = false);
        self.sync_deadline_ms = None;
        self.rewrite_ms = None;
        let (generation, members) = (self.generation, self.members().len());
        tracing::info!(group = &*self.id, generation, members, "rebalance begins");

        if !self.is(State::Empty) {
            self.enter(State::PreparingRebalance, now_ms);
            if self.all_joined() {
                self.complete_join(now_ms, step);
            } else {
                self.wait_for_joins(now_ms);
            }
            return;
        }
        // The group's first members rarely come at once: give the others a moment, so that they share one rebalance.
        let delay_ms = i64::from(config.initial_rebalance_delay_ms.max(0));
        self.joined_during_delay = false;
        self.enter(State::PreparingRebalance, now_ms);
        if delay_ms == 0 {
            self.complete_join(now_ms, step);
            return;
        }
        let left_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
        self.set_join_timer(JoinTimer::Initial { deadline_ms: now_ms.saturating_add(delay_ms), delay_ms, left_ms });
    }

    fn wait_for_joins(&mut self, now_ms: i64) {
        // At least a millisecond: a timeout of 0 must not fire again and again within one tick.
        let deadline_ms = now_ms.saturating_add(self.rebalance_timeout_ms().max(1));
        self.set_join_timer(JoinTimer::Rebalance { deadline_ms });
    }

    /// Completes the rebalance when everybody is there. The first one of a group waits out its delay instead.
    pub fn complete_if_all_joined(&mut self, now_ms: i64, step: &mut Step) {
        let initial = matches!(self.join_timer, Some(JoinTimer::Initial { .. }));
        if self.is(State::PreparingRebalance) && !initial && self.all_joined() {
            self.complete_join(now_ms, step);
        }
    }

    /// The initial delay is over: extend it if someone joined meanwhile and the rebalance timeout leaves room.
    pub fn initial_delay_over(&mut self, now_ms: i64, delay_ms: i64, left_ms: i64, config: &Config, step: &mut Step) {
        if !self.joined_during_delay || left_ms == 0 {
            self.complete_join(now_ms, step);
            return;
        }
        self.joined_during_delay = false;
        let next_ms = i64::from(config.initial_rebalance_delay_ms.max(1)).min(left_ms);
        self.set_join_timer(JoinTimer::Initial {
            deadline_ms: now_ms.saturating_add(next_ms),
            delay_ms: next_ms,
            left_ms: (left_ms - delay_ms).max(0),
        });
    }

    /// Ends the wait for members and opens the next generation. Dynamic members that did not join are out; static
    /// ones stay until their session ends.
    pub fn complete_join(&mut self, now_ms: i64, step: &mut Step) {
        self.join_timer = None;
        for id in self.member_ids(|m| m.join.is_none() && m.instance_id.is_none()) {
            self.remove(&id, step);
        }
        if !self.elect_joined_leader() && self.members().len() > 0 {
            // Only absent static members are left; their sessions will end this.
            self.wait_for_joins(now_ms);
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members().len() == 0 {
            self.become_empty(now_ms, step);
        } else {
            self.open_generation(now_ms, step);
        }
    }

    /// Keeps a leader that joined, else names a member that did. False when none did.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &String| self.member(id).is_some_and(|m| m.join.is_some());
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let Some(id) = self.members().find(|m| m.join.is_some()).map(|m| m.id.clone()) else { return false };
        self.leader = Some(id);
        true
    }

    fn become_empty(&mut self, now_ms: i64, step: &mut Step) {
        self.protocol_name = None;
        self.refresh_subscriptions();
        self.enter(State::Empty, now_ms);
        tracing::info!(group = &*self.id, generation = self.generation, "no members left");
        self.write_empty(step);
    }

    /// Writes that the group has no members. Until that is in the log, a restart would bring back the generation
    /// before, whose members would then time out: no harm, so memory goes ahead and the write is tried again.
    pub fn write_empty(&mut self, step: &mut Step) {
        self.rewrite_ms = None;
        if let Ok(record) = records::group(&self.id, &self.to_value(|_| Bytes::new())) {
            step.records.push(record);
            step.effects.push(Effect::Emptied(self.id.clone()));
        }
    }

    fn open_generation(&mut self, now_ms: i64, step: &mut Step) {
        self.protocol_name = self.vote();
        self.refresh_subscriptions();
        self.enter(State::CompletingRebalance, now_ms);
        let (generation, members) = (self.generation, self.members().len());
        tracing::info!(group = &*self.id, generation, members, "everybody joined; the leader assigns");
        for id in self.member_ids(|_| true) {
            self.answer_join(&id, step, |group, version| group.joined(&id, version));
            self.refresh_session(&id, now_ms);
            if let Some(member) = self.member_mut(&id) {
                member.is_new = false;
                member.owes_sync = true;
            }
        }
        let deadline_ms = now_ms.saturating_add(self.rebalance_timeout_ms().max(1));
        self.sync_deadline_ms = Some(deadline_ms);
        self.wake_by(deadline_ms);
    }

    /// The members had the rebalance timeout to send SyncGroup: those that did not are out.
    pub fn sync_overdue(&mut self, now_ms: i64, config: &Config, step: &mut Step) {
        self.sync_deadline_ms = None;
        let late = self.member_ids(|m| m.owes_sync);
        if late.is_empty() || !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        for id in &late {
            self.remove(id, step);
        }
        tracing::debug!(
            group = &*self.id,
            generation = self.generation,
            late = late.len(),
            "removed members that sent no SyncGroup"
        );
        self.prepare_rebalance(now_ms, config, step);
    }

    /// A member left or died: the others share its partitions.
    pub fn after_removal(&mut self, now_ms: i64, config: &Config, step: &mut Step) {
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(now_ms, config, step),
            State::PreparingRebalance => self.complete_if_all_joined(now_ms, step),
            State::Empty => {}
        }
    }
}
