//! JoinGroup, versions 0 to 9. 0: the session timeout is the rebalance timeout too. 4: new dynamic members get an id
//! first and join with it. 5: static members. 7: protocol type and name in the answer. 9: a static leader that comes
//! back may skip the assignment.

use bytes::Bytes;
use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::JoinGroupRequest;

use super::group::{Group, State};
use super::member::{Client, Member, Protocol, Waiter, member_id};
use crate::config::Config;
use crate::records;
use crate::refuse;
use crate::step::{Effect, Step, Ticket};

/// A JoinGroup, ready to be judged.
pub(crate) struct Join<'a> {
    pub ticket: Ticket,
    pub version: i16,
    pub client: Client<'a>,
    pub request: &'a JoinGroupRequest,
    pub protocols: Vec<Protocol>,
    pub rebalance_timeout_ms: i32,
    pub now_ms: i64,
}

impl<'a> Join<'a> {
    pub fn new(ticket: Ticket, version: i16, client: Client<'a>, request: &'a JoinGroupRequest, now_ms: i64) -> Self {
        let mut protocols: Vec<Protocol> = Vec::with_capacity(request.protocols.len());
        let mut names = std::collections::BTreeSet::new();
        for p in &request.protocols {
            // The first of each name counts. Copied, so that a member does not keep its whole frame alive.
            if names.insert(p.name.as_str()) {
                protocols.push(Protocol { name: p.name.clone(), metadata: Bytes::copy_from_slice(&p.metadata) });
            }
        }
        let rebalance_timeout_ms = if version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
        Self { ticket, version, client, request, protocols, rebalance_timeout_ms, now_ms }
    }

    fn refuse(&self, step: &mut Step, member_id: &str, code: ErrorCode) {
        step.join(self.ticket, refuse::joining(self.version, member_id, code));
    }

    /// Bytes that the group would hold for this member.
    fn bytes(&self) -> usize {
        self.protocols.iter().map(|p| p.name.len() + p.metadata.len()).sum()
    }

    fn waiter(&self) -> Waiter {
        Waiter { ticket: self.ticket, version: self.version }
    }
}

impl Group {
    pub fn join(&mut self, join: Join<'_>, config: &Config, random: &mut dyn FnMut() -> Uuid, step: &mut Step) {
        let id = join.request.member_id.as_str();
        if join.bytes() > config.member_bytes_max {
            join.refuse(step, id, ErrorCode::MessageTooLarge);
        } else if !self.has_room_for(id, config) {
            self.remove(id, step);
            join.refuse(step, "", ErrorCode::GroupMaxSizeReached);
            self.complete_if_all_joined(join.now_ms, step);
        } else if !self.supports(&join.request.protocol_type, &join.protocols) {
            join.refuse(step, id, ErrorCode::InconsistentGroupProtocol);
        } else if id.is_empty() {
            self.join_without_id(join, config, random, step);
        } else if self.pending.contains_key(id) && join.request.group_instance_id.is_none() {
            let id = id.to_owned();
            self.add_joining(join, id, config, step);
        } else {
            self.rejoin(join, config, step);
        }
    }

    /// Whether the member may come in, or stay, under `group.max.size`. While a rebalance gathers members those that
    /// have joined count, so that a group above a lowered limit shrinks.
    fn has_room_for(&self, id: &str, config: &Config) -> bool {
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                self.member(id).is_some_and(|m| m.join.is_some()) || self.parked_joins() < config.group_members_max
            }
            State::CompletingRebalance | State::Stable => {
                self.member(id).is_some() || self.members().len() < config.group_members_max
            }
        }
    }

    fn join_without_id(&mut self, join: Join<'_>, config: &Config, random: &mut dyn FnMut() -> Uuid, step: &mut Step) {
        if let Some(instance_id) = &join.request.group_instance_id {
            let new_id = member_id(instance_id, random());
            match self.static_member(instance_id).map(str::to_owned) {
                Some(old_id) => self.replace_static(join, old_id, new_id, config, step),
                None => self.add_joining(join, new_id, config, step),
            }
            return;
        }
        let new_id = member_id(join.client.id, random());
        if join.version < 4 {
            self.add_joining(join, new_id, config, step);
        } else if self.pending.len() >= config.pending_members_max {
            join.refuse(step, "", ErrorCode::GroupMaxSizeReached);
        } else {
            let deadline_ms = join.now_ms.saturating_add(i64::from(join.request.session_timeout_ms));
            self.pending.insert(new_id.clone(), deadline_ms);
            self.wake_by(deadline_ms);
            join.refuse(step, &new_id, ErrorCode::MemberIdRequired);
        }
    }

    fn add_joining(&mut self, join: Join<'_>, id: String, config: &Config, step: &mut Step) {
        self.joined_during_delay = true;
        let waiter = join.waiter();
        let member = Member {
            id: id.clone(),
            instance_id: join.request.group_instance_id.clone(),
            client_id: join.client.id.to_owned(),
            client_host: join.client.host_text(),
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_timeout_ms: join.request.session_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            is_new: true,
            owes_sync: false,
            join: Some(waiter),
            sync: None,
            session_deadline_ms: None,
        };
        self.add(member, &join.request.protocol_type);
        // A new member has no id to heartbeat with, and its connection is silent while it waits: without a limit the
        // retries of a client that gave up would pile up as members.
        self.set_session(&id, join.now_ms.saturating_add(i64::from(config.new_member_join_timeout_ms)));
        self.rebalance_or_complete(join.now_ms, config, step);
    }

    fn rejoin(&mut self, join: Join<'_>, config: &Config, step: &mut Step) {
        let id = join.request.member_id.as_str();
        if let Err(code) = self.check_member(id, join.request.group_instance_id.as_deref()) {
            return join.refuse(step, id, code);
        }
        let unchanged = self.member(id).is_some_and(|m| m.protocols == join.protocols);
        let answer_now = match self.state {
            State::PreparingRebalance => false,
            // It seems to have missed its answer.
            State::CompletingRebalance => unchanged,
            // A leader joins again to get new assignments, for instance when topics have changed.
            State::Stable => unchanged && !self.is_leader(id),
            State::Empty => return join.refuse(step, id, ErrorCode::UnknownMemberId),
        };
        if answer_now {
            let response = self.joined(id, join.version);
            return step.join(join.ticket, response);
        }
        let id = id.to_owned();
        let now_ms = join.now_ms;
        self.update(&id, join, step);
        self.rebalance_or_complete(now_ms, config, step);
    }

    fn update(&mut self, id: &str, join: Join<'_>, step: &mut Step) {
        self.park_join(id, join.waiter(), step);
        if let Some(member) = self.member_mut(id) {
            member.rebalance_timeout_ms = join.rebalance_timeout_ms;
            member.session_timeout_ms = join.request.session_timeout_ms;
        }
        self.set_protocols(id, join.protocols);
    }

    /// A static member that lost its member id comes back: it takes its old place under a new one, and whoever still
    /// uses the old id is fenced. Where the group has what it needs already, nobody else notices.
    fn replace_static(&mut self, join: Join<'_>, old_id: String, new_id: String, config: &Config, step: &mut Step) {
        if self.is(State::Stable) && self.keeps_protocol(&old_id, &join.protocols) {
            return self.replace_quietly(join, old_id, new_id, step);
        }
        let now_ms = join.now_ms;
        self.take_place(join, &old_id, new_id, step);
        match self.state {
            // The leader may be assigning to the old id already.
            State::CompletingRebalance | State::Stable => self.prepare_rebalance(now_ms, config, step),
            State::PreparingRebalance | State::Empty => self.complete_if_all_joined(now_ms, step),
        }
    }

    fn take_place(&mut self, join: Join<'_>, old_id: &str, new_id: String, step: &mut Step) {
        self.rename(old_id, new_id.clone(), step);
        if let Some(member) = self.member_mut(&new_id) {
            member.client_id = join.client.id.to_owned();
            member.client_host = join.client.host_text();
            member.is_new = false;
        }
        let now_ms = join.now_ms;
        self.update(&new_id, join, step);
        self.refresh_session(&new_id, now_ms);
    }

    /// Whether the group would choose the same protocol again with these of the member.
    fn keeps_protocol(&self, id: &str, protocols: &[Protocol]) -> bool {
        let mut after = self.clone();
        after.set_protocols(id, protocols.to_vec());
        after.vote() == self.protocol_name
    }

    /// The new member id has to be in the log before anyone hears of it; until then the group stays as it is.
    fn replace_quietly(&mut self, join: Join<'_>, old_id: String, new_id: String, step: &mut Step) {
        let (ticket, version) = (join.ticket, join.version);
        let mut after = self.clone();
        let mut then = Step::default();
        let old_leader = self.leader.clone().unwrap_or_default();
        after.take_place(join, &old_id, new_id.clone(), &mut then);
        after.answer_join(&new_id, &mut then, |group, version| {
            let mut response = group.joined(&new_id, version);
            if version >= 9 {
                response.skip_assignment = group.is_leader(&new_id);
            } else {
                // An old client would take a leader's answer as an order to assign; with the old id it just syncs.
                response.leader = old_leader;
                response.members = Vec::new();
            }
            response
        });
        after.refresh_subscriptions();
        match records::group(&self.id, &after.to_value(|m| m.assignment.clone())) {
            Ok(record) => {
                tracing::info!(group = &*self.id, old = old_id, new = new_id, "static member came back");
                step.records.push(record);
                let failed = Box::new((ticket, refuse::joining(version, "", ErrorCode::UnknownServerError)));
                step.effects.push(Effect::Replaced { group: Box::new(after), answers: then.answers, failed });
            }
            Err(_) => step.join(ticket, refuse::joining(version, "", ErrorCode::UnknownServerError)),
        }
    }
}
