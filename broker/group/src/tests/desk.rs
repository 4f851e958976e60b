//! A coordinator with a log, a clock and a topic list of its own, so that a test says only what it is about.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use klamm_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use klamm_protocol::messages::*;
use klamm_protocol::{Message, Uuid};

pub use klamm_protocol::error::ErrorCode;

pub use crate::*;

/// Topics by name: id and partitions.
#[derive(Default)]
pub struct FakeTopics {
    pub all: BTreeMap<String, TopicFacts>,
    pub forbidden: Vec<String>,
    pub guarded: Vec<String>,
}

impl FakeTopics {
    pub fn set(&mut self, name: &str, id: u8, partitions: i32) {
        self.all.insert(name.into(), TopicFacts { id: topic_id(id), partitions });
    }
}

impl Topics for FakeTopics {
    fn topic(&self, name: &str) -> Option<TopicFacts> {
        self.all.get(name).copied()
    }

    fn name(&self, id: Uuid) -> Option<String> {
        self.all.iter().find(|(_, facts)| facts.id == id).map(|(name, _)| name.clone())
    }

    fn guarded(&self, group: &str) -> bool {
        self.guarded.iter().any(|g| g == group)
    }

    fn authorized(&self, name: &str) -> bool {
        !self.forbidden.iter().any(|f| f == name)
    }
}

pub fn topic_id(n: u8) -> Uuid {
    Uuid([n; 16])
}

/// How a test member joins.
#[derive(Clone)]
pub struct Joiner {
    pub group: &'static str,
    pub member_id: String,
    pub instance_id: Option<String>,
    pub version: i16,
    pub protocol_type: &'static str,
    pub protocols: Vec<(&'static str, Bytes)>,
    pub session_ms: i32,
    pub rebalance_ms: i32,
    pub client_id: &'static str,
}

impl Default for Joiner {
    fn default() -> Self {
        Self {
            group: "g",
            member_id: String::new(),
            instance_id: None,
            version: 9,
            protocol_type: "consumer",
            protocols: vec![("range", subscription(&["t"]))],
            session_ms: 10_000,
            rebalance_ms: 60_000,
            client_id: "app",
        }
    }
}

impl Joiner {
    pub fn of(group: &'static str) -> Self {
        Self { group, ..Self::default() }
    }

    pub fn id(mut self, member_id: &str) -> Self {
        self.member_id = member_id.into();
        self
    }

    pub fn instance(mut self, id: &str) -> Self {
        self.instance_id = Some(id.into());
        self
    }

    pub fn version(mut self, version: i16) -> Self {
        self.version = version;
        self
    }

    pub fn speaks(mut self, protocols: &[&'static str]) -> Self {
        self.protocols = protocols.iter().map(|&p| (p, subscription(&["t"]))).collect();
        self
    }

    pub fn reads(mut self, topics: &[&str]) -> Self {
        self.protocols = vec![("range", subscription(topics))];
        self
    }

    pub fn rebalance_ms(mut self, ms: i32) -> Self {
        self.rebalance_ms = ms;
        self
    }

    pub fn session_ms(mut self, ms: i32) -> Self {
        self.session_ms = ms;
        self
    }

    pub fn request(&self) -> JoinGroupRequest {
        JoinGroupRequest {
            group_id: self.group.into(),
            session_timeout_ms: self.session_ms,
            rebalance_timeout_ms: self.rebalance_ms,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            protocol_type: self.protocol_type.into(),
            protocols: self
                .protocols
                .iter()
                .map(|(name, metadata)| JoinGroupRequestProtocol { name: (*name).into(), metadata: metadata.clone() })
                .collect(),
            reason: None,
        }
    }
}

/// What a consumer sends as its metadata.
pub fn subscription(topics: &[&str]) -> Bytes {
    let message =
        ConsumerProtocolSubscription { topics: topics.iter().map(|t| (*t).into()).collect(), ..Default::default() };
    let mut bytes = vec![0, 1];
    bytes.extend_from_slice(&message.to_bytes(1).unwrap());
    bytes.into()
}

pub struct Desk {
    pub c: Coordinator,
    pub log: Vec<CoordinatorRecord>,
    pub now: i64,
    pub topics: FakeTopics,
    /// When set, the log refuses every append with this.
    pub refuse_appends: Option<ErrorCode>,
    answers: BTreeMap<Ticket, Answer>,
    next_ticket: Ticket,
    next_uuid: u128,
}

impl Default for Desk {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Desk {
    pub fn new(config: Config) -> Self {
        let mut topics = FakeTopics::default();
        topics.set("t", 1, 4);
        topics.set("u", 2, 4);
        let mut desk = Self {
            c: Coordinator::new(config),
            log: Vec::new(),
            now: 1_000_000,
            topics,
            refuse_appends: None,
            answers: BTreeMap::new(),
            next_ticket: 1,
            next_uuid: 1,
        };
        let step = desk.c.loaded(desk.now);
        desk.settle(step);
        desk
    }

    /// Without the initial delay, which most stories are not about.
    pub fn quick() -> Self {
        Self::new(Config { initial_rebalance_delay_ms: 0, ..Config::default() })
    }

    pub fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }

    pub fn settle(&mut self, step: Step) {
        let answers = match self.refuse_appends {
            Some(code) if !step.records.is_empty() => self.c.fail(step, code, self.now),
            _ => {
                self.log.extend(step.records.iter().cloned());
                self.c.commit(step, self.now)
            }
        };
        for (ticket, answer) in answers {
            let twice = self.answers.insert(ticket, answer);
            assert!(twice.is_none(), "ticket {ticket} answered twice: {twice:?}");
        }
    }

    /// Lets time pass, timer by timer.
    pub fn pass(&mut self, ms: i64) {
        let end = self.now + ms;
        while let Some(at) = self.c.next_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            let step = self.c.tick(self.now);
            self.settle(step);
        }
        self.now = end;
    }

    pub fn join(&mut self, joiner: &Joiner) -> Ticket {
        let ticket = self.ticket();
        let uuid = &mut self.next_uuid;
        let mut random = || {
            *uuid += 1;
            Uuid(uuid.to_be_bytes())
        };
        let client = Client { id: joiner.client_id, host: [127, 0, 0, 1].into() };
        let step = self.c.join_group(ticket, client, &joiner.request(), joiner.version, self.now, &mut random);
        self.settle(step);
        ticket
    }

    pub fn take(&mut self, ticket: Ticket) -> Option<Answer> {
        self.answers.remove(&ticket)
    }

    pub fn has_answer(&self, ticket: Ticket) -> bool {
        self.answers.contains_key(&ticket)
    }

    pub fn joined(&mut self, ticket: Ticket) -> Option<JoinGroupResponse> {
        match self.take(ticket)? {
            Answer::JoinGroup(response) => Some(response),
            other => panic!("{other:?}"),
        }
    }

    pub fn synced(&mut self, ticket: Ticket) -> Option<SyncGroupResponse> {
        match self.take(ticket)? {
            Answer::SyncGroup(response) => Some(response),
            other => panic!("{other:?}"),
        }
    }

    /// Joins and expects an answer at once.
    pub fn join_now(&mut self, joiner: &Joiner) -> JoinGroupResponse {
        let ticket = self.join(joiner);
        self.joined(ticket).expect("JoinGroup was parked")
    }

    /// The member id a new dynamic member is given.
    pub fn member_id(&mut self, joiner: &Joiner) -> String {
        let response = self.join_now(joiner);
        assert_eq!(response.error_code, ErrorCode::MemberIdRequired.code());
        response.member_id
    }

    pub fn sync(&mut self, group: &str, member: &str, generation: i32, assignments: &[(&str, &str)]) -> Ticket {
        self.sync_request(SyncGroupRequest {
            group_id: group.into(),
            generation_id: generation,
            member_id: member.into(),
            assignments: assignments
                .iter()
                .map(|(member, assignment)| SyncGroupRequestAssignment {
                    member_id: (*member).into(),
                    assignment: Bytes::copy_from_slice(assignment.as_bytes()),
                })
                .collect(),
            ..Default::default()
        })
    }

    pub fn sync_request(&mut self, request: SyncGroupRequest) -> Ticket {
        let ticket = self.ticket();
        let version = if request.protocol_type.is_some() { 5 } else { 4 };
        let step = self.c.sync_group(ticket, &request, version, self.now);
        self.settle(step);
        ticket
    }

    pub fn heartbeat(&mut self, group: &str, member: &str, generation: i32) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: group.into(),
            member_id: member.into(),
            generation_id: generation,
            ..Default::default()
        };
        ErrorCode::from_code(self.c.heartbeat(&request, self.now).error_code)
    }

    pub fn leave(&mut self, group: &str, members: &[(&str, Option<&str>)], version: i16) -> LeaveGroupResponse {
        let ticket = self.ticket();
        let request = LeaveGroupRequest {
            group_id: group.into(),
            member_id: if version < 3 { members[0].0.into() } else { String::new() },
            members: members
                .iter()
                .map(|(id, instance)| MemberIdentity {
                    member_id: (*id).into(),
                    group_instance_id: instance.map(str::to_owned),
                    reason: None,
                })
                .collect(),
        };
        let step = self.c.leave_group(ticket, &request, version, self.now);
        self.settle(step);
        match self.take(ticket) {
            Some(Answer::LeaveGroup(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    /// Commits one offset for a member; gives its error.
    pub fn commit(&mut self, group: &str, member: &str, generation: i32, topic: &str, at: (i32, i64)) -> ErrorCode {
        let response = self.commit_request(&commit_of(group, member, generation, topic, at), 9);
        ErrorCode::from_code(response.topics[0].partitions[0].error_code)
    }

    pub fn commit_request(&mut self, request: &OffsetCommitRequest, version: i16) -> OffsetCommitResponse {
        let ticket = self.ticket();
        let step = self.c.offset_commit(ticket, request, version, &self.topics, self.now);
        self.settle(step);
        match self.take(ticket) {
            Some(Answer::OffsetCommit(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    /// The committed offset by name; -1 when there is none.
    pub fn fetch(&self, group: &str, topic: &str, partition: i32) -> i64 {
        let request = OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: topic.into(),
                partition_indexes: vec![partition],
                ..Default::default()
            }]),
            ..Default::default()
        };
        let response = self.c.offset_fetch(&request, false, 8, &self.topics);
        response.topics[0].partitions[0].committed_offset
    }

    pub fn state(&self, group: &str) -> Option<State> {
        self.c.group(group).map(|g| g.state())
    }

    pub fn members(&self, group: &str) -> Vec<String> {
        self.c.group(group).map(|g| g.members().map(|m| m.id().to_owned()).collect()).unwrap_or_default()
    }

    pub fn assignment(&self, group: &str, member: &str) -> String {
        let group = self.c.group(group).unwrap();
        let member = group.members().find(|m| m.id() == member).unwrap();
        String::from_utf8_lossy(member.assignment()).into_owned()
    }

    /// A stable group of `n` dynamic members, which have the assignments `a0`, `a1`, … Gives their ids, leader first.
    pub fn stable(&mut self, joiner: &Joiner, n: usize) -> Vec<String> {
        let ids: Vec<String> = (0..n).map(|_| self.member_id(joiner)).collect();
        self.stabilize(joiner, &ids)
    }

    /// Lets members that have ids join until they share a generation, and hands out assignments.
    pub fn stabilize(&mut self, joiner: &Joiner, ids: &[String]) -> Vec<String> {
        for _ in 0..10 {
            let tickets: Vec<_> = ids.iter().map(|id| self.join(&joiner.clone().id(id))).collect();
            self.pass(i64::from(self.c.config.initial_rebalance_delay_ms));
            let answers: Vec<_> = tickets.iter().map(|&t| self.joined(t)).collect();
            let generation = self.generation(joiner.group);
            if answers.iter().all(|a| a.as_ref().is_some_and(|a| a.generation_id == generation && a.error_code == 0)) {
                let leader = answers[0].as_ref().unwrap().leader.clone();
                return self.hand_out(joiner.group, ids, &leader, generation);
            }
        }
        panic!("the members never share a generation")
    }

    fn hand_out(&mut self, group: &str, ids: &[String], leader: &str, generation: i32) -> Vec<String> {
        let mut ids = ids.to_vec();
        ids.sort_by_key(|id| id != leader);
        let names: Vec<String> = (0..ids.len()).map(|i| format!("a{i}")).collect();
        let assignments: Vec<(&str, &str)> =
            ids.iter().map(String::as_str).zip(names.iter().map(String::as_str)).collect();
        for id in ids.iter().rev() {
            let all = if id == leader { &assignments[..] } else { &[] };
            let ticket = self.sync(group, id, generation, all);
            self.take(ticket);
        }
        for id in &ids {
            let ticket = self.sync(group, id, generation, &[]);
            assert_eq!(self.synced(ticket).map(|s| s.error_code), Some(0));
        }
        assert_eq!(self.state(group), Some(State::Stable));
        ids
    }

    pub fn generation(&self, group: &str) -> i32 {
        self.c.group(group).map_or(-1, |g| g.generation())
    }

    /// A coordinator that knows only the log.
    pub fn replayed(&self) -> Coordinator {
        let mut c = Coordinator::new(Config::default());
        for record in &self.log {
            c.replay(&record.key, record.value.as_ref()).unwrap();
        }
        c
    }

    /// The broker restarts: only the log is left.
    pub fn restart(&mut self) {
        let mut c = self.replayed();
        c.set_config(self.c.config.clone());
        self.c = c;
        let step = self.c.loaded(self.now);
        self.settle(step);
    }
}

pub fn commit_of(group: &str, member: &str, generation: i32, topic: &str, at: (i32, i64)) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: generation,
        member_id: member.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            topic_id: Uuid::ZERO,
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: at.0,
                committed_offset: at.1,
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}
