//! Members of a group that is balanced: they join, share the partitions out, send heartbeats, commit under their
//! generation, and join again when told so. Two of one generation never own the same partition, and nobody commits under
//! a generation after a later one has been answered.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use klamm_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

use crate::clients::Role;
use crate::message::{Answer, Ask, GroupAsk};
use crate::world::{Event, World};

/// The group.
pub const BALANCED: &str = "m";
/// How many shares there are to give out.
const SHARES: u8 = 5;
const SESSION_MS: i32 = 300;

/// A member.
#[derive(Default)]
pub struct Member {
    id: String,
    generation: i32,
    /// What it owns, while it is in a generation.
    owns: Option<Vec<u8>>,
    /// The question that is under way.
    pub asked: Option<u64>,
    /// The latest generation that anybody was in when the commit under way was sent.
    latest: i32,
}

/// What is known of the generations.
#[derive(Default)]
pub struct Generations {
    /// Who owns what in each.
    owners: BTreeMap<(i32, u8), usize>,
    latest: i32,
}

impl World {
    /// A member's turn.
    pub fn member_turn(&mut self, client: usize) {
        let delay = if self.healing { 10_000 } else { self.random.between(5_000, 60_000) };
        self.after(delay, Event::Member(client));
        let Some(leader) = self.leader(client) else { return };
        let commits = self.random.one_in(2);
        let latest = self.oracle.generations.latest;
        let Role::Member(member) = &mut self.clients.all[client].role else { return };
        if member.asked.is_some() {
            return;
        }
        let ask = match &member.owns {
            None => GroupAsk::Join(JoinGroupRequest {
                group_id: BALANCED.into(),
                session_timeout_ms: SESSION_MS,
                rebalance_timeout_ms: SESSION_MS,
                member_id: member.id.clone(),
                protocol_type: "consumer".into(),
                protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::new() }],
                ..Default::default()
            }),
            Some(_) if commits => GroupAsk::Commit(BALANCED, member.id.clone(), member.generation, 1),
            Some(_) => GroupAsk::Beat(HeartbeatRequest {
                group_id: BALANCED.into(),
                generation_id: member.generation,
                member_id: member.id.clone(),
                ..Default::default()
            }),
        };
        member.latest = latest;
        // A join is answered when all have come, or their time is over.
        let patience_us = if matches!(ask, GroupAsk::Join(_)) { 900_000 } else { 120_000 };
        self.ask_as_member(client, leader, ask, patience_us);
    }

    fn ask_as_member(&mut self, client: usize, leader: i32, ask: GroupAsk, patience_us: i64) {
        let id = self.ask_for(client, leader, Ask::Group(ask), patience_us);
        if let Role::Member(member) = &mut self.clients.all[client].role {
            member.asked = Some(id);
        }
    }

    /// An answer reaches a member.
    pub fn member_hears(&mut self, client: usize, answer: Answer) {
        let Role::Member(member) = &mut self.clients.all[client].role else { return };
        member.asked = None;
        match answer {
            Answer::Joined(response) => self.joined(client, response),
            Answer::Synced(response) => self.synced(client, &response),
            Answer::Group(outcome) => {
                let (generation, latest) = (member.generation, member.latest);
                match outcome {
                    Ok(_) => {
                        assert!(
                            latest <= generation,
                            "committed under generation {generation} after {latest} had begun"
                        );
                        self.count("commits of members");
                    }
                    Err(code) => self.member_refused(client, code),
                }
            }
            _ => {}
        }
    }

    /// What a refusal means for a member.
    fn member_refused(&mut self, client: usize, code: ErrorCode) {
        let Role::Member(member) = &mut self.clients.all[client].role else { return };
        match code {
            ErrorCode::RebalanceInProgress => member.owns = None,
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration | ErrorCode::FencedInstanceId => {
                *member = Member::default();
            }
            _ => self.forget_leader(client),
        }
    }

    fn joined(&mut self, client: usize, response: JoinGroupResponse) {
        let leader = self.clients.all[client].leader;
        let Role::Member(member) = &mut self.clients.all[client].role else { return };
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::MemberIdRequired => member.id = response.member_id,
            ErrorCode::None => {
                member.id = response.member_id;
                member.generation = response.generation_id;
                let mut assignments = Vec::new();
                if response.leader == member.id {
                    let count = response.members.len().max(1);
                    for (at, of) in response.members.into_iter().enumerate() {
                        let shares: Vec<u8> = (0..SHARES).filter(|share| usize::from(*share) % count == at).collect();
                        let assignment = shares.into();
                        assignments.push(SyncGroupRequestAssignment {
                            member_id: of.member_id,
                            assignment,
                            ..Default::default()
                        });
                    }
                }
                let request = SyncGroupRequest {
                    group_id: BALANCED.into(),
                    generation_id: member.generation,
                    member_id: member.id.clone(),
                    assignments,
                    ..Default::default()
                };
                if leader >= 0 {
                    self.ask_as_member(client, leader, GroupAsk::Sync(request), 400_000);
                }
            }
            code => self.member_refused(client, code),
        }
    }

    fn synced(&mut self, client: usize, response: &SyncGroupResponse) {
        let code = ErrorCode::from_code(response.error_code);
        if code != ErrorCode::None {
            return self.member_refused(client, code);
        }
        let Role::Member(member) = &mut self.clients.all[client].role else { return };
        let owns = response.assignment.to_vec();
        let generation = member.generation;
        member.owns = Some(owns.clone());
        let generations = &mut self.oracle.generations;
        generations.latest = generations.latest.max(generation);
        for share in owns {
            let owner = *generations.owners.entry((generation, share)).or_insert(client);
            assert!(owner == client, "{owner} and {client} own share {share} in generation {generation}");
        }
        self.count("generations");
    }

    /// Every member is in a generation, the latest.
    pub fn balanced(&self) -> bool {
        let latest = self.oracle.generations.latest;
        self.clients.all.iter().all(|client| match &client.role {
            Role::Member(member) => member.owns.is_some() && member.generation == latest,
            _ => true,
        })
    }

    /// A member's question stays without an answer.
    pub fn member_gives_up(&mut self, client: usize, id: u64) {
        let Role::Member(member) = &mut self.clients.all[client].role else { return };
        if member.asked == Some(id) {
            member.asked = None;
            self.forget_leader(client);
        }
    }
}
