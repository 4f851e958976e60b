//! The timers of a group. Deadlines lie where they belong (member, pending id, group); `wake_ms` is a lower bound of
//! them all, so that a heartbeat only writes its own deadline and a tick finds out what is really due.

use super::group::{Group, State};
use crate::config::Config;
use crate::step::Step;

/// What ends the wait for members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinTimer {
    /// The delay of a group's first rebalance.
    Initial {
        deadline_ms: i64,
        /// How long this delay is.
        delay_ms: i64,
        /// How much further it may be extended.
        left_ms: i64,
    },
    /// The members' rebalance timeout.
    Rebalance { deadline_ms: i64 },
}

impl JoinTimer {
    fn deadline_ms(self) -> i64 {
        match self {
            JoinTimer::Initial { deadline_ms, .. } | JoinTimer::Rebalance { deadline_ms } => deadline_ms,
        }
    }
}

/// One timer of a group. The order is that in which timers due at the same moment fire: departures before the
/// rebalance they may complete.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Session(String),
    Pending(String),
    Join,
    Sync,
    Rewrite,
}

impl Group {
    /// Notes a deadline.
    pub fn wake_by(&mut self, deadline_ms: i64) {
        self.wake_ms = self.wake_ms.min(deadline_ms);
    }

    pub fn set_join_timer(&mut self, timer: JoinTimer) {
        self.join_timer = Some(timer);
        self.wake_by(timer.deadline_ms());
    }

    /// The member has shown that it lives.
    pub fn refresh_session(&mut self, id: &str, now_ms: i64) {
        if let Some(timeout_ms) = self.member(id).map(|m| m.session_timeout_ms) {
            self.set_session(id, now_ms.saturating_add(i64::from(timeout_ms)));
        }
    }

    pub fn set_session(&mut self, id: &str, deadline_ms: i64) {
        if let Some(member) = self.member_mut(id) {
            member.session_deadline_ms = Some(deadline_ms);
            self.wake_by(deadline_ms);
        }
    }

    pub fn set_rewrite(&mut self, deadline_ms: i64) {
        self.rewrite_ms = Some(deadline_ms);
        self.wake_by(deadline_ms);
    }

    fn earliest(&self) -> Option<(i64, Timer)> {
        let sessions = self.members().filter_map(|m| Some((m.session_deadline_ms?, &m.id)));
        let session = sessions.min().map(|(at, id)| (at, Timer::Session(id.clone())));
        let pending =
            self.pending.iter().map(|(id, at)| (*at, id)).min().map(|(at, id)| (at, Timer::Pending(id.clone())));
        let join = self.join_timer.map(|t| (t.deadline_ms(), Timer::Join));
        let sync = self.sync_deadline_ms.map(|at| (at, Timer::Sync));
        let rewrite = self.rewrite_ms.map(|at| (at, Timer::Rewrite));
        [session, pending, join, sync, rewrite].into_iter().flatten().min()
    }

    #[cfg(test)]
    pub fn earliest_ms(&self) -> Option<i64> {
        self.earliest().map(|(at, _)| at)
    }

    /// Lets everything that is due happen, in order of time, and sets `wake_ms` anew.
    pub fn fire(&mut self, now_ms: i64, config: &Config, step: &mut Step) {
        while let Some((at, timer)) = self.earliest() {
            if at > now_ms {
                self.wake_ms = at;
                return;
            }
            match timer {
                Timer::Session(id) => self.session_over(&id, now_ms, config, step),
                Timer::Pending(id) => {
                    self.pending.remove(&id);
                    self.complete_if_all_joined(now_ms, step);
                }
                Timer::Join => match self.join_timer.take() {
                    Some(JoinTimer::Initial { delay_ms, left_ms, .. }) => {
                        self.initial_delay_over(now_ms, delay_ms, left_ms, config, step);
                    }
                    _ => self.complete_join(now_ms, step),
                },
                Timer::Sync => self.sync_overdue(now_ms, config, step),
                Timer::Rewrite => {
                    self.rewrite_ms = None;
                    if self.is(State::Empty) {
                        self.write_empty(step);
                    }
                }
            }
        }
        self.wake_ms = i64::MAX;
    }

    fn session_over(&mut self, id: &str, now_ms: i64, config: &Config, step: &mut Step) {
        let Some(member) = self.member_mut(id) else { return };
        member.session_deadline_ms = None;
        if member.counts_as_alive() {
            // Its session starts anew with the answer it waits for.
            return;
        }
        tracing::info!(group = &*self.id, member = id, "member removed: its session timed out");
        self.remove(id, step);
        self.after_removal(now_ms, config, step);
    }
}
