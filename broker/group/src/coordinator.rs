//! The coordinator: groups and offsets, the requests that change them, the log they live in, and time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest,
};

use crate::classic::{Client, Group, Join};
use crate::config::Config;
use crate::offsets::{Expiry, Offsets, Purge};
use crate::records::{self, Record, ReplayError};
use crate::refuse;
use crate::step::{Answer, Effect, Loss, Step, Ticket, append_error};

/// How long after the log refused what nobody asked for (a group is empty, a topic's offsets are gone) it is tried again.
const RETRY_DELAY_MS: i64 = 10_000;

/// What a coordinator has counted since it began.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Rebalances that ended with an assignment.
    pub completed_rebalances: u64,
    /// Offsets committed.
    pub offset_commits: u64,
    /// Offsets that lapsed.
    pub offset_expirations: u64,
    /// Offsets deleted by request, with their group or with their topic.
    pub offset_deletions: u64,
}

/// The coordinator of the groups in one partition of `__consumer_offsets`.
#[derive(Debug, Default)]
pub struct Coordinator {
    pub(crate) config: Config,
    pub(crate) groups: BTreeMap<Arc<str>, Group>,
    pub(crate) offsets: Offsets,
    pub(crate) expiry: Expiry,
    pub(crate) purge: Purge,
    /// Groups by the moment before which none of their timers is due.
    wakeups: BTreeSet<(i64, Arc<str>)>,
    counters: Counters,
}

impl Coordinator {
    /// A coordinator of nothing. Feed it the partition with [`Coordinator::replay`], then call
    /// [`Coordinator::loaded`].
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Other settings, from the next request on.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// What it has counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Applies one record of the partition, in log order.
    pub fn replay(&mut self, key: &Bytes, value: Option<&Bytes>) -> Result<(), ReplayError> {
        match records::decode_record(key, value)? {
            Record::Offset(r) => {
                let group = self.shared_id(&r.group);
                match r.value {
                    Some(entry) => self.put_offsets(&group, [(Arc::from(r.topic), r.partition, entry)]),
                    None => self.offsets.remove(&r.group, &r.topic, r.partition),
                }
            }
            Record::Group { group, value: Some(value) } => {
                let id = self.shared_id(&group);
                self.put_group(Group::from_value(id, *value));
            }
            Record::Group { group, value: None } => self.remove_group(&group),
            Record::Unknown(kind) => tracing::debug!(kind, "record of another kind of group skipped"),
        }
        Ok(())
    }

    /// The whole partition is read: members' sessions begin, and the search for lapsed offsets.
    pub fn loaded(&mut self, now_ms: i64) -> Step {
        let mut step = Step::default();
        self.expiry.next_ms = Some(now_ms.saturating_add(self.config.offsets_retention_check_interval_ms));
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for id in ids {
            if let Some(group) = self.groups.get_mut(&id) {
                for member in group.member_ids(|_| true) {
                    group.refresh_session(&member, now_ms);
                }
                if group.members().len() > self.config.group_members_max {
                    // The limit was lowered: let them join anew, as many as it admits.
                    group.prepare_rebalance(now_ms, &self.config, &mut step);
                }
            }
            self.reindex(&id);
        }
        step
    }

    /// Another broker takes over: everything that waits is told so. The coordinator is empty afterwards.
    pub fn unload(&mut self) -> Vec<(Ticket, Answer)> {
        let mut step = Step::default();
        let code = ErrorCode::NotCoordinator;
        for group in self.groups.values_mut() {
            for id in group.member_ids(|m| m.join.is_some()) {
                group.answer_join(&id, &mut step, |_, version| refuse::joining(version, &id, code));
            }
            group.answer_syncs(0, &mut step, |_| refuse::syncing(code));
        }
        *self = Self::new(std::mem::take(&mut self.config));
        step.answers
    }

    /// JoinGroup, versions 0 to 9. `random` makes the member's id, if it needs one.
    pub fn join_group(
        &mut self,
        ticket: Ticket,
        client: Client<'_>,
        request: &JoinGroupRequest,
        version: i16,
        now_ms: i64,
        random: &mut dyn FnMut() -> Uuid,
    ) -> Step {
        let mut step = Step::of(ticket);
        let refused = |code| Step::answered(ticket, Answer::JoinGroup(refuse::join_group(request, version, code)));
        let timeouts = self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max;
        if request.group_id.is_empty() {
            return refused(ErrorCode::InvalidGroupId);
        }
        if !timeouts.contains(&request.session_timeout_ms) {
            return refused(ErrorCode::InvalidSessionTimeout);
        }
        let join = Join::new(ticket, version, client, request, now_ms);
        if !self.groups.contains_key(request.group_id.as_str()) {
            if !request.member_id.is_empty() {
                return refused(ErrorCode::UnknownMemberId);
            }
            if request.protocol_type.is_empty() || join.protocols.is_empty() {
                return refused(ErrorCode::InconsistentGroupProtocol);
            }
            let Ok(record) = records::group(&request.group_id, &Group::created_value(now_ms)) else {
                return refused(ErrorCode::InvalidGroupId);
            };
            let id: Arc<str> = request.group_id.as_str().into();
            step.records.push(record);
            step.effects.push(Effect::Created(id.clone()));
            self.groups.insert(id.clone(), Group::new(id, now_ms));
        }
        if let Some(group) = self.groups.get_mut(request.group_id.as_str()) {
            group.join(join, &self.config, random, &mut step);
        }
        self.reindex(&request.group_id);
        step
    }

    /// SyncGroup, versions 0 to 5.
    pub fn sync_group(&mut self, ticket: Ticket, request: &SyncGroupRequest, version: i16, now_ms: i64) -> Step {
        let mut step = Step::of(ticket);
        match self.groups.get_mut(request.group_id.as_str()) {
            _ if request.group_id.is_empty() => step.sync(ticket, refuse::syncing(ErrorCode::InvalidGroupId)),
            None => step.sync(ticket, refuse::syncing(ErrorCode::UnknownMemberId)),
            Some(group) => group.sync(ticket, request, version, now_ms, &self.config, &mut step),
        }
        self.reindex(&request.group_id);
        step
    }

    /// Heartbeat, versions 0 to 4. Never anything to append.
    pub fn heartbeat(&mut self, request: &HeartbeatRequest, now_ms: i64) -> HeartbeatResponse {
        let result = match self.groups.get_mut(request.group_id.as_str()) {
            _ if request.group_id.is_empty() => Err(ErrorCode::InvalidGroupId),
            None => Err(ErrorCode::UnknownMemberId),
            Some(group) => group.heartbeat(request, now_ms),
        };
        self.reindex(&request.group_id);
        HeartbeatResponse { error_code: result.err().unwrap_or(ErrorCode::None).code(), ..Default::default() }
    }

    /// LeaveGroup, versions 0 to 5.
    pub fn leave_group(&mut self, ticket: Ticket, request: &LeaveGroupRequest, version: i16, now_ms: i64) -> Step {
        let answered = |response| Step::answered(ticket, Answer::LeaveGroup(response));
        if request.group_id.is_empty() {
            return answered(refuse::leave_group(ErrorCode::InvalidGroupId));
        }
        let Some(group) = self.groups.get_mut(request.group_id.as_str()) else {
            return answered(refuse::leave_unknown(request, version));
        };
        let mut step = Step::of(ticket);
        let alone = [MemberIdentity { member_id: request.member_id.clone(), ..Default::default() }];
        let who = if version < 3 { &alone[..] } else { &request.members };
        let members = group.leave(who, now_ms, &self.config, &mut step);
        let response = match members.first() {
            Some(only) if version < 3 => LeaveGroupResponse { error_code: only.error_code, ..Default::default() },
            _ => LeaveGroupResponse { members, ..Default::default() },
        };
        step.answers.push((ticket, Answer::LeaveGroup(response)));
        self.reindex(&request.group_id);
        step
    }

    /// Lets everything happen that is due by `now_ms`.
    pub fn tick(&mut self, now_ms: i64) -> Step {
        let mut step = Step::default();
        while let Some((at, id)) = self.wakeups.first() {
            if *at > now_ms {
                break;
            }
            let id = id.clone();
            self.wakeups.pop_first();
            if let Some(group) = self.groups.get_mut(&id) {
                group.indexed_ms = None;
                group.fire(now_ms, &self.config, &mut step);
            }
            self.reindex(&id);
        }
        self.expire(now_ms, &mut step);
        if self.purge.next_ms.is_some_and(|at| at <= now_ms) {
            self.purge_topics(&mut step);
        }
        step
    }

    /// When [`Coordinator::tick`] is needed next. It may turn out that nothing was due.
    pub fn next_deadline(&self) -> Option<i64> {
        let wakeup = self.wakeups.first().map(|(at, _)| *at);
        [wakeup, self.expiry.next_ms, self.purge.next_ms].into_iter().flatten().min()
    }

    /// The step's records are in the log: applies them, and gives the answers to hand out.
    pub fn commit(&mut self, step: Step, now_ms: i64) -> Vec<(Ticket, Answer)> {
        let mut out = Step { answers: step.answers, ..Step::default() };
        for effect in step.effects {
            match effect {
                Effect::Created(_) | Effect::Emptied(_) => {}
                Effect::Assigned { group: id, generation, assignments } => {
                    if let Some(group) = self.groups.get_mut(&id)
                        && group.assign(generation, assignments, now_ms, &mut out)
                    {
                        self.counters.completed_rebalances += 1;
                    }
                    self.reindex(&id);
                }
                Effect::Replaced { group, answers, .. } => {
                    out.answers.extend(answers);
                    self.put_group(*group);
                }
                Effect::Committed { group, offsets } => {
                    self.counters.offset_commits += offsets.len() as u64;
                    self.put_offsets(&group, offsets);
                }
                Effect::Forgotten { group, offsets, loss } => {
                    let count = offsets.len() as u64;
                    match loss {
                        Loss::Expired => self.counters.offset_expirations += count,
                        Loss::Deleted | Loss::Topic => self.counters.offset_deletions += count,
                    }
                    for (topic, partition) in offsets {
                        self.offsets.remove(&group, &topic, partition);
                    }
                }
                Effect::Removed(id) => self.remove_group(&id),
            }
        }
        out.answers
    }

    /// The step's records could not be appended: what they say does not come to be. Gives the answers to hand out.
    ///
    /// `code` is the log's error; clients get the coordinator error that goes with it.
    pub fn fail(&mut self, step: Step, code: ErrorCode, now_ms: i64) -> Vec<(Ticket, Answer)> {
        let code = append_error(code);
        let owner = step.owner;
        let mut out = Step::default();
        for (ticket, answer) in step.answers {
            let answer = if Some(ticket) == owner { answer.failed(code) } else { answer };
            out.answers.push((ticket, answer));
        }
        for effect in step.effects {
            match effect {
                Effect::Created(id) => self.drop_group(&id, code, &mut out),
                Effect::Emptied(id) => {
                    if let Some(group) = self.groups.get_mut(&id) {
                        group.set_rewrite(now_ms.saturating_add(RETRY_DELAY_MS));
                    }
                    self.reindex(&id);
                }
                Effect::Assigned { group: id, generation, .. } => {
                    if let Some(group) = self.groups.get_mut(&id) {
                        group.assignment_failed(generation, code, now_ms, &self.config, &mut out);
                    }
                    self.reindex(&id);
                }
                Effect::Replaced { failed, .. } => {
                    let (ticket, response) = *failed;
                    out.join(ticket, JoinGroupResponse { error_code: code.code(), ..response });
                }
                Effect::Forgotten { loss: Loss::Topic, .. } => {
                    self.purge.next_ms = Some(now_ms.saturating_add(RETRY_DELAY_MS));
                }
                Effect::Committed { .. } | Effect::Forgotten { .. } | Effect::Removed(_) => {}
            }
        }
        out.answers
    }

    /// The group's id, shared with the group if it exists.
    pub(crate) fn shared_id(&self, id: &str) -> Arc<str> {
        self.groups.get_key_value(id).map_or_else(|| id.into(), |(id, _)| id.clone())
    }

    /// Brings the timer index up to what the group says.
    pub(crate) fn reindex(&mut self, id: &str) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let wake = Some(group.wake_ms).filter(|&ms| ms != i64::MAX);
        if wake == group.indexed_ms {
            return;
        }
        if let Some(old) = group.indexed_ms {
            self.wakeups.remove(&(old, group.id.clone()));
        }
        if let Some(at) = wake {
            self.wakeups.insert((at, group.id.clone()));
        }
        group.indexed_ms = wake;
    }

    fn put_group(&mut self, mut group: Group) {
        let id = group.id.clone();
        group.indexed_ms = self.groups.get(&id).and_then(|old| old.indexed_ms);
        self.groups.insert(id.clone(), group);
        self.reindex(&id);
    }

    /// Offsets alone make a group, one without members or type.
    fn put_offsets(
        &mut self,
        id: &Arc<str>,
        offsets: impl IntoIterator<Item = (Arc<str>, i32, crate::offsets::OffsetEntry)>,
    ) {
        for (topic, partition, entry) in offsets {
            if !self.groups.contains_key(id) {
                self.groups.insert(id.clone(), Group::new(id.clone(), entry.commit_ms));
            }
            self.offsets.put(id, &topic, partition, entry);
        }
    }

    fn remove_group(&mut self, id: &str) {
        if let Some((id, group)) = self.groups.remove_entry(id) {
            if let Some(at) = group.indexed_ms {
                self.wakeups.remove(&(at, id.clone()));
            }
            if self.offsets.has_group(&id) {
                // Only in logs of groups that changed their kind: what is committed can still be fetched and expires.
                self.groups.insert(id.clone(), Group::new(id, 0));
            }
        }
    }

    /// A group that never made it into the log, with everything in it.
    fn drop_group(&mut self, id: &str, code: ErrorCode, out: &mut Step) {
        if let Some(group) = self.groups.get_mut(id) {
            for member in group.member_ids(|m| m.join.is_some()) {
                group.answer_join(&member, out, |_, version| refuse::joining(version, "", code));
            }
        }
        self.remove_group(id);
    }

    /// Stages the end of a group whose offsets are dealt with.
    pub(crate) fn remove_group_only(&self, id: &str, step: &mut Step) {
        if let Ok(record) = records::group_tombstone(id) {
            step.records.push(record);
            step.effects.push(Effect::Removed(self.shared_id(id)));
        }
    }
}
