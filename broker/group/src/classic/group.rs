//! The state of one classic group, and the bookkeeping that keeps it consistent: members, static ids, the count of
//! parked joins, the protocols members share, the leader, the earliest timer.
//!
//! Invariants: `parked_joins` is the number of members with a parked join; `protocol_counts` counts members by
//! protocol; `statics` maps every instance id to a member; the leader, if any, is a member.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::join_group_response::JoinGroupResponseMember;
use klamm_protocol::messages::{JoinGroupResponse, SyncGroupResponse};

use super::CONSUMER;
use super::member::{Member, Protocol, Waiter};
use super::timers::JoinTimer;
use crate::refuse;
use crate::step::Step;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Waits for members to join.
    PreparingRebalance,
    /// Has a new generation and waits for the leader's assignment.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
}

impl State {
    /// Every state.
    pub const ALL: [State; 4] = [State::Empty, State::PreparingRebalance, State::CompletingRebalance, State::Stable];

    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub id: Arc<str>,
    pub state: State,
    /// The state before; tells a first rebalance from later ones.
    pub previous: State,
    /// When it entered its state; none when an old log does not say.
    pub state_since_ms: Option<i64>,
    /// None for groups that only hold offsets.
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub generation: i32,
    pub leader: Option<String>,
    /// Topics the members of a consumer group read; none when unknown.
    pub subscribed: Option<BTreeSet<String>>,
    members: BTreeMap<String, Member>,
    statics: BTreeMap<String, String>,
    /// Member ids handed out with MEMBER_ID_REQUIRED, and when they lapse.
    pub pending: BTreeMap<String, i64>,
    protocol_counts: BTreeMap<String, usize>,
    parked_joins: usize,
    /// Someone joined since the initial delay last began.
    pub joined_during_delay: bool,
    pub join_timer: Option<JoinTimer>,
    pub sync_deadline_ms: Option<i64>,
    /// When to write again that the group is empty, after the log refused it.
    pub rewrite_ms: Option<i64>,
    /// No timer of the group is due before this.
    pub wake_ms: i64,
    /// Where the coordinator's index has it.
    pub indexed_ms: Option<i64>,
}

impl Group {
    pub fn new(id: Arc<str>, now_ms: i64) -> Self {
        Self {
            id,
            state: State::Empty,
            previous: State::Empty,
            state_since_ms: Some(now_ms),
            protocol_type: None,
            protocol_name: None,
            generation: 0,
            leader: None,
            subscribed: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            protocol_counts: BTreeMap::new(),
            parked_joins: 0,
            joined_during_delay: false,
            join_timer: None,
            sync_deadline_ms: None,
            rewrite_ms: None,
            wake_ms: i64::MAX,
            indexed_ms: None,
        }
    }

    pub fn is(&self, state: State) -> bool {
        self.state == state
    }

    pub fn enter(&mut self, state: State, now_ms: i64) {
        self.previous = self.state;
        self.state = state;
        self.state_since_ms = Some(now_ms);
    }

    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    pub fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.values_mut()
    }

    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    pub fn member_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.members.get_mut(id)
    }

    pub fn member_ids(&self, keep: impl Fn(&Member) -> bool) -> Vec<String> {
        self.members.values().filter(|m| keep(m)).map(|m| m.id.clone()).collect()
    }

    pub fn static_member(&self, instance_id: &str) -> Option<&str> {
        self.statics.get(instance_id).map(String::as_str)
    }

    pub fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    pub fn parked_joins(&self) -> usize {
        self.parked_joins
    }

    pub fn all_joined(&self) -> bool {
        self.members.len() == self.parked_joins && self.pending.is_empty()
    }

    pub fn is_consumer(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// The longest rebalance timeout of the members.
    pub fn rebalance_timeout_ms(&self) -> i64 {
        self.members().map(|m| i64::from(m.rebalance_timeout_ms.max(0))).max().unwrap_or(0)
    }

    /// Whether a member of this type and these protocols has something in common with the others.
    pub fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.is(State::Empty) {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|p| self.count_of(&p.name) == self.members.len())
    }

    fn count_of(&self, protocol: &str) -> usize {
        self.protocol_counts.get(protocol).copied().unwrap_or(0)
    }

    /// The protocol most members prefer among those all members speak; between equals the leader's first one.
    pub fn vote(&self) -> Option<String> {
        let common = |p: &&Protocol| self.count_of(&p.name) == self.members.len();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members() {
            if let Some(choice) = member.protocols.iter().find(common) {
                *votes.entry(&choice.name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        let leader = self.leader.as_deref().and_then(|id| self.member(id));
        leader
            .into_iter()
            .flat_map(|l| l.protocols.iter().map(|p| p.name.as_str()))
            .chain(votes.keys().copied())
            .find(|name| votes.get(name) == Some(&most))
            .map(str::to_owned)
    }

    /// Adds a member, the first of which decides the group's type and leads it.
    pub fn add(&mut self, member: Member, protocol_type: &str) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.to_owned());
        }
        self.pending.remove(&member.id);
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.insert(member);
    }

    fn insert(&mut self, member: Member) {
        self.take(&member.id);
        for protocol in &member.protocols {
            *self.protocol_counts.entry(protocol.name.clone()).or_default() += 1;
        }
        self.parked_joins += usize::from(member.join.is_some());
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    fn take(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.uncount(&member.protocols);
        self.parked_joins -= usize::from(member.join.is_some());
        if let Some(instance_id) = &member.instance_id {
            self.statics.remove(instance_id);
        }
        Some(member)
    }

    fn uncount(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            if let Some(count) = self.protocol_counts.get_mut(&protocol.name) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.protocol_counts.remove(&protocol.name);
                }
            }
        }
    }

    /// Removes a member or a pending id. What the member waits for is answered: it is no member any more.
    pub fn remove(&mut self, id: &str, step: &mut Step) {
        self.pending.remove(id);
        let Some(member) = self.take(id) else { return };
        if let Some(waiter) = member.join {
            step.join(waiter.ticket, refuse::joining(waiter.version, "", ErrorCode::UnknownMemberId));
        }
        if let Some(waiter) = member.sync {
            step.sync(waiter.ticket, refuse::syncing(ErrorCode::UnknownMemberId));
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Gives a static member a new id. What the old id waits for is answered: it is fenced.
    pub fn rename(&mut self, old: &str, new: String, step: &mut Step) {
        let Some(mut member) = self.take(old) else { return };
        if let Some(waiter) = member.join.take() {
            step.join(waiter.ticket, refuse::joining(waiter.version, old, ErrorCode::FencedInstanceId));
        }
        if let Some(waiter) = member.sync.take() {
            step.sync(waiter.ticket, refuse::syncing(ErrorCode::FencedInstanceId));
        }
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        member.id = new;
        self.insert(member);
    }

    /// Replaces what a member said in an earlier JoinGroup.
    pub fn set_protocols(&mut self, id: &str, protocols: Vec<Protocol>) {
        let Some(member) = self.members.get_mut(id) else { return };
        let old = std::mem::take(&mut member.protocols);
        for protocol in &protocols {
            *self.protocol_counts.entry(protocol.name.clone()).or_default() += 1;
        }
        member.protocols = protocols;
        self.uncount(&old);
    }

    /// Lets a member's JoinGroup wait. One that waits already came from a connection its client gave up.
    pub fn park_join(&mut self, id: &str, waiter: Waiter, step: &mut Step) {
        let Some(member) = self.members.get_mut(id) else { return };
        match member.join.replace(waiter) {
            None => self.parked_joins += 1,
            Some(old) => step.join(old.ticket, refuse::joining(old.version, id, ErrorCode::RebalanceInProgress)),
        }
    }

    /// Answers a member's parked JoinGroup, if there is one.
    pub fn answer_join(&mut self, id: &str, step: &mut Step, answer: impl FnOnce(&Self, i16) -> JoinGroupResponse) {
        let Some(waiter) = self.members.get_mut(id).and_then(|m| m.join.take()) else { return };
        self.parked_joins -= 1;
        step.join(waiter.ticket, answer(self, waiter.version));
    }

    /// Answers every parked SyncGroup and starts those members' sessions anew: none could heartbeat meanwhile.
    pub fn answer_syncs(&mut self, now_ms: i64, step: &mut Step, answer: impl Fn(&Member) -> SyncGroupResponse) {
        let mut earliest = i64::MAX;
        for member in self.members.values_mut() {
            if let Some(waiter) = member.sync.take() {
                step.sync(waiter.ticket, answer(member));
                let deadline = now_ms.saturating_add(i64::from(member.session_timeout_ms));
                member.session_deadline_ms = Some(deadline);
                earliest = earliest.min(deadline);
            }
        }
        self.wake_by(earliest);
    }

    /// The current generation, as a member hears of it from JoinGroup.
    pub fn joined(&self, id: &str, version: i16) -> JoinGroupResponse {
        let members = if self.is_leader(id) { self.described_for_leader() } else { Vec::new() };
        JoinGroupResponse {
            error_code: 0,
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: refuse::protocol_name(self.protocol_name.clone(), version),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: id.to_owned(),
            members,
            ..Default::default()
        }
    }

    fn described_for_leader(&self) -> Vec<JoinGroupResponseMember> {
        self.members()
            .map(|m| JoinGroupResponseMember {
                member_id: m.id.clone(),
                group_instance_id: m.instance_id.clone(),
                metadata: m.metadata(self.protocol_name.as_deref()),
            })
            .collect()
    }

    /// Whether the request comes from a member, and from the one that owns the instance id.
    pub fn check_member(&self, id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_member(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(owner) if owner != id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Forgets every assignment.
    pub fn clear_assignments(&mut self) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
    }
}

#[cfg(test)]
impl Group {
    /// How many requests wait in the group.
    pub fn parked(&self) -> usize {
        self.members().map(|m| usize::from(m.join.is_some()) + usize::from(m.sync.is_some())).sum()
    }

    /// What must hold between any two calls.
    pub fn check(&self) {
        let id = &self.id;
        assert_eq!(self.parked_joins, self.members().filter(|m| m.join.is_some()).count(), "{id}: parked joins");
        let mut counts = BTreeMap::new();
        for protocol in self.members().flat_map(|m| &m.protocols) {
            *counts.entry(protocol.name.clone()).or_default() += 1;
        }
        assert_eq!(self.protocol_counts, counts, "{id}: protocol counts");
        let statics = self.members().filter_map(|m| Some((m.instance_id.clone()?, m.id.clone())));
        assert_eq!(self.statics, statics.collect(), "{id}: static members");
        assert_eq!(self.leader.is_some(), !self.members.is_empty(), "{id}: a group with members has a leader");
        assert!(self.leader.iter().all(|l| self.members.contains_key(l)), "{id}: the leader is a member");
        assert!(self.members.values().all(|m| m.join.is_none() || m.sync.is_none()), "{id}: one request a member");
        let no_join = self.members.values().all(|m| m.join.is_none());
        let no_sync = self.members.values().all(|m| m.sync.is_none());
        match self.state {
            State::Empty => assert!(self.members.is_empty(), "{id}: empty"),
            State::PreparingRebalance => assert!(no_sync && self.join_timer.is_some(), "{id}: preparing"),
            State::CompletingRebalance => assert!(no_join && !self.members.is_empty(), "{id}: completing"),
            State::Stable => assert!(no_join && no_sync && !self.members.is_empty(), "{id}: stable"),
        }
        if matches!(self.state, State::CompletingRebalance | State::Stable) {
            assert!(self.members().all(|m| self.protocol_name.as_deref().is_some_and(|p| m.protocol(p).is_some())));
        }
        // Whoever is not waited for elsewhere has a session, or the group would wait for it forever.
        for m in self.members() {
            assert!(m.session_deadline_ms.is_some() || m.counts_as_alive(), "{id}: {} cannot time out", m.id);
        }
        assert!(self.earliest_ms().is_none_or(|at| self.wake_ms <= at), "{id}: a timer would be missed");
        assert_eq!(self.indexed_ms, Some(self.wake_ms).filter(|&ms| ms != i64::MAX), "{id}: timer index");
    }
}
