//! SyncGroup, versions 0 to 5: the leader hands out assignments, the others fetch theirs. The generation is written to
//! the log before anyone gets an assignment.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::group::{Group, State};
use super::member::{Member, Waiter};
use crate::config::Config;
use crate::records;
use crate::refuse;
use crate::step::{Effect, Step, Ticket};

impl Group {
    pub fn sync(
        &mut self,
        ticket: Ticket,
        request: &SyncGroupRequest,
        version: i16,
        now_ms: i64,
        config: &Config,
        step: &mut Step,
    ) {
        if let Err(code) = self.check_sync(request, version) {
            return step.sync(ticket, refuse::syncing(code));
        }
        let id = request.member_id.as_str();
        match self.state {
            State::Empty => step.sync(ticket, refuse::syncing(ErrorCode::UnknownMemberId)),
            State::PreparingRebalance => step.sync(ticket, refuse::syncing(ErrorCode::RebalanceInProgress)),
            State::CompletingRebalance
                if request.assignments.iter().any(|a| a.assignment.len() > config.member_bytes_max) =>
            {
                step.sync(ticket, refuse::syncing(ErrorCode::MessageTooLarge));
            }
            State::CompletingRebalance => {
                self.park_sync(id, Waiter { ticket, version }, step);
                if self.is_leader(id) {
                    self.stage_assignment(request, now_ms, config, step);
                }
            }
            State::Stable => {
                self.synced(id);
                if let Some(member) = self.member(id) {
                    step.sync(ticket, self.assigned(member));
                }
            }
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest, version: i16) -> Result<(), ErrorCode> {
        if version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if self.is(State::Empty) {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs =
            |theirs: &Option<String>, ours: &Option<String>| theirs.is_some() && ours.is_some() && theirs != ours;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol_name, &self.protocol_name)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn park_sync(&mut self, id: &str, waiter: Waiter, step: &mut Step) {
        if let Some(old) = self.member_mut(id).and_then(|m| m.sync.replace(waiter)) {
            step.sync(old.ticket, refuse::syncing(ErrorCode::RebalanceInProgress));
        }
        self.synced(id);
    }

    fn synced(&mut self, id: &str) {
        if let Some(member) = self.member_mut(id) {
            member.owes_sync = false;
        }
        if self.members().all(|m| !m.owes_sync) {
            self.sync_deadline_ms = None;
        }
    }

    fn assigned(&self, member: &Member) -> SyncGroupResponse {
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment: member.assignment.clone(),
            ..Default::default()
        }
    }

    fn stage_assignment(&mut self, request: &SyncGroupRequest, now_ms: i64, config: &Config, step: &mut Step) {
        let assignments: BTreeMap<String, Bytes> = request
            .assignments
            .iter()
            .filter(|a| self.member(&a.member_id).is_some())
            .map(|a| (a.member_id.clone(), Bytes::copy_from_slice(&a.assignment)))
            .collect();
        let value = self.to_value(|m| assignments.get(&m.id).cloned().unwrap_or_default());
        match records::group(&self.id, &value) {
            Ok(record) => {
                step.records.push(record);
                step.effects.push(Effect::Assigned {
                    group: self.id.clone(),
                    generation: self.generation,
                    assignments,
                });
            }
            Err(_) => self.assignment_failed(self.generation, ErrorCode::UnknownServerError, now_ms, config, step),
        }
    }

    /// The assignment is in the log: everybody gets theirs.
    pub fn assign(
        &mut self,
        generation: i32,
        mut assignments: BTreeMap<String, Bytes>,
        now_ms: i64,
        step: &mut Step,
    ) -> bool {
        if !self.is(State::CompletingRebalance) || self.generation != generation {
            return false;
        }
        for member in self.members_mut() {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
        }
        let (protocol_type, protocol_name) = (self.protocol_type.clone(), self.protocol_name.clone());
        self.answer_syncs(now_ms, step, |member| SyncGroupResponse {
            protocol_type: protocol_type.clone(),
            protocol_name: protocol_name.clone(),
            assignment: member.assignment.clone(),
            ..Default::default()
        });
        self.enter(State::Stable, now_ms);
        true
    }

    /// The log refused the assignment: everybody joins again.
    pub fn assignment_failed(
        &mut self,
        generation: i32,
        code: ErrorCode,
        now_ms: i64,
        config: &Config,
        step: &mut Step,
    ) {
        if !self.is(State::CompletingRebalance) || self.generation != generation {
            return;
        }
        self.clear_assignments();
        self.answer_syncs(now_ms, step, |_| refuse::syncing(code));
        self.prepare_rebalance(now_ms, config, step);
    }
}
