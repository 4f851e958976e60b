//! The group coordinator on its partition of the offsets topic: taken over when the partition is led, read when all
//! that earlier leaders acknowledged is committed, given up with the leadership. As `broker/src/coordinator.rs` does it
//! with tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm::coordinator::{Known, OFFSETS_TOPIC, carry_out, load};
use klamm::replica::partition::{Flush, Partition};
use klamm::replica::replicas::Followed;
use klamm::replica::waiting::Reached;
use klamm_group::{Answer as GroupAnswer, Client, Config, Coordinator, Step, Ticket};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::OffsetCommitRequest;
use klamm_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};

use crate::clients::{GROUP, TOPIC};
use crate::message::{Answer, GroupAsk, Who};
use crate::waiting::{Then, Waiting, What};
use crate::world::{Event, World};

/// How long answers wait for the replicas.
const COMMIT_TIMEOUT_US: i64 = 150_000;

/// The coordinators of a broker: there is one partition of the offsets topic.
#[derive(Default)]
pub struct Groups {
    shard: Option<Shard>,
    /// Who waits for the answer to a ticket.
    asked: BTreeMap<Ticket, (Who, u64)>,
    /// Who asks for what is committed, what was seen, and what makes that certain.
    looking: Vec<Look>,
}

struct Look {
    from: Who,
    asked: u64,
    seen: Result<i64, ErrorCode>,
    /// Still to come.
    certain: Vec<Reached>,
}

struct Shard {
    partition: Arc<Partition>,
    epoch: i32,
    /// Read once this has come to be.
    due: Option<Reached>,
    coordinator: Option<Coordinator>,
}

fn group_config() -> Config {
    Config { session_timeout_ms_min: 10, initial_rebalance_delay_ms: 20, ..Config::default() }
}

impl World {
    /// A new image may have given partitions of the offsets topic, or taken them.
    pub fn groups_followed(&mut self, id: i32, followed: &Followed) {
        let offsets = |p: &&Arc<Partition>| &*p.topic.name == OFFSETS_TOPIC;
        if followed.unled.iter().any(|p| offsets(&p)) {
            self.unload(id);
        }
        let Some(partition) = followed.led.iter().find(offsets).cloned() else { return };
        let Some((epoch, start)) = partition.leads_since() else { return };
        self.unload(id);
        let Ok(due) = partition.when_committed(start) else { return };
        let Some(up) = self.node_mut(id).up.as_mut() else { return };
        let waits = due.is_some();
        up.groups.shard = Some(Shard { partition, epoch, due, coordinator: None });
        if !waits {
            self.read_shard(id);
        }
    }

    fn unload(&mut self, id: i32) {
        let Some(up) = self.node_mut(id).up.as_mut() else { return };
        let Some(shard) = up.groups.shard.take() else { return };
        let answers = shard.coordinator.map(|mut coordinator| coordinator.unload()).unwrap_or_default();
        self.hand_out(id, answers);
    }

    fn read_shard(&mut self, id: i32) {
        let now_ms = self.now_ms();
        let Some(up) = self.node_mut(id).up.as_mut() else { return };
        let Some(shard) = up.groups.shard.as_mut() else { return };
        match load(&shard.partition, group_config()) {
            Ok(mut coordinator) => {
                let step = coordinator.loaded(now_ms);
                shard.coordinator = Some(coordinator);
                self.note(|| format!("node {id} coordinates"));
                self.carry_out(id, step);
            }
            Err(why) if shard.partition.is_led_here() => panic!("node {id} cannot read the offsets topic: {why}"),
            Err(_) => up.groups.shard = None,
        }
    }

    /// Timers, and what waits for the high watermark.
    pub fn group_timers(&mut self, id: i32) {
        let (boot, now_ms) = (self.node(id).boot, self.now_ms());
        self.after(15_000, Event::Group(id, boot));
        let Some(up) = self.node_mut(id).up.as_mut() else { return };
        let mut reads = false;
        let mut step = None;
        if let Some(shard) = up.groups.shard.as_mut() {
            if let Some(due) = &mut shard.due {
                match due.try_recv() {
                    Ok(Ok(())) => {
                        shard.due = None;
                        reads = true;
                    }
                    Err(tokio::sync::oneshot::error::TryRecvError::Empty) => {}
                    // The leadership is lost, and this shard with it.
                    _ => up.groups.shard = None,
                }
            } else if let Some(coordinator) = &mut shard.coordinator
                && coordinator.next_deadline().is_some_and(|at| at <= now_ms)
            {
                step = Some(coordinator.tick(now_ms));
            }
        }
        if reads {
            self.read_shard(id);
        }
        if let Some(step) = step {
            self.carry_out(id, step);
        }
        self.answer_looks(id);
    }

    /// Appends the step's records, commits or fails it, and sees to its answers.
    fn carry_out(&mut self, id: i32, step: Step) {
        let now_ms = self.now_ms();
        let now_us = self.now_us;
        let Some(up) = self.node_mut(id).up.as_mut() else { return };
        let wall_ms = up.clock.wall_ms();
        let Some(shard) = up.groups.shard.as_mut() else { return };
        let Some(coordinator) = shard.coordinator.as_mut() else { return };
        let key = (shard.partition.topic.id, shard.partition.index);
        let carried = carry_out(&shard.partition, shard.epoch, coordinator, step, now_ms, wall_ms);
        if let Some(error) = carried.failure {
            panic!("node {id} cannot append group records: {error}");
        }
        if carried.flush != Flush::No {
            up.replicas.flusher.flush_later(&shard.partition);
        }
        let what = match (carried.commit, carried.flush) {
            (Some(commit), _) => Some(What::Commit(commit)),
            (None, Flush::BeforeAnswer) => Some(What::Flush),
            (None, _) => None,
        };
        let answers = carried.answers;
        match what {
            Some(_) if answers.is_empty() => {}
            Some(what) => {
                let (from, deadline_us) = (Who::Node(id), now_us + COMMIT_TIMEOUT_US);
                up.waiting.push(Waiting { from, id: 0, key, what, then: Then::Group(answers), deadline_us });
            }
            None => self.hand_out(id, answers),
        }
    }

    /// A question for the coordinator arrives at a broker.
    pub fn group_asked(&mut self, id: i32, from: Who, asked: u64, ask: GroupAsk) {
        if matches!(ask, GroupAsk::Committed) {
            return self.group_committed(id, from, asked);
        }
        let ticket = self.fresh_id();
        let now_ms = self.now_ms();
        let fresh = self.random.uuid();
        let Some(up) = self.node_mut(id).up.as_mut() else { return };
        let topics = Known(up.published.0.clone());
        let coordinator = up.groups.shard.as_mut().and_then(|shard| shard.coordinator.as_mut());
        let Some(coordinator) = coordinator else {
            return self.answer(id, from, asked, Answer::Group(Err(ErrorCode::NotCoordinator)));
        };
        let step = match ask {
            GroupAsk::Commit(group, member, generation, offset) => {
                let partition = OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() };
                let topic =
                    OffsetCommitRequestTopic { name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
                let request = OffsetCommitRequest {
                    group_id: group.into(),
                    generation_id_or_member_epoch: generation,
                    member_id: member,
                    topics: vec![topic],
                    ..Default::default()
                };
                coordinator.offset_commit(ticket, &request, 8, &topics, now_ms)
            }
            GroupAsk::Join(request) => {
                let client = Client { id: "sim", host: std::net::IpAddr::from([127, 0, 0, 1]) };
                coordinator.join_group(ticket, client, &request, 7, now_ms, &mut || fresh)
            }
            GroupAsk::Sync(request) => coordinator.sync_group(ticket, &request, 4, now_ms),
            GroupAsk::Beat(request) => {
                let response = coordinator.heartbeat(&request, now_ms);
                let outcome =
                    if response.error_code == 0 { Ok(0) } else { Err(ErrorCode::from_code(response.error_code)) };
                return self.answer(id, from, asked, Answer::Group(outcome));
            }
            GroupAsk::Committed => return,
        };
        up.groups.asked.insert(ticket, (from, asked));
        self.carry_out(id, step);
    }

    /// Somebody asks what the group has committed: answered once what the coordinator knows is committed itself, and no
    /// other one can have taken over before the question.
    fn group_committed(&mut self, id: i32, from: Who, asked: u64) {
        let seen = self.committed_offset(id);
        let min_isr = self.plan.min_isr;
        let Some(up) = self.node_mut(id).up.as_mut() else { return };
        let shard = up.groups.shard.as_ref().filter(|shard| shard.coordinator.is_some());
        let certain = shard.map(|shard| {
            let committed = shard.partition.when_committed(shard.partition.offsets().log_end)?;
            let confirmed = shard.partition.when_confirmed()?;
            Ok::<_, ErrorCode>([committed, confirmed])
        });
        let lone = min_isr > 1 && shard.is_some_and(|shard| !shard.partition.may_be_replaced());
        match certain {
            Some(Ok(certain)) => {
                let certain = certain.into_iter().flatten().collect();
                up.groups.looking.push(Look { from, asked, seen, certain });
                if lone {
                    self.oracle.group_lone.insert(asked);
                }
                self.answer_looks(id);
            }
            _ => self.answer(id, from, asked, Answer::Group(Err(ErrorCode::NotCoordinator))),
        }
    }

    /// Answers what has become certain.
    pub fn answer_looks(&mut self, id: i32) {
        let Some(up) = self.node_mut(id).up.as_mut() else { return };
        let mut done = Vec::new();
        up.groups.looking.retain_mut(|look| {
            look.certain.retain_mut(|reached| match reached.try_recv() {
                Err(tokio::sync::oneshot::error::TryRecvError::Empty) => true,
                Ok(Ok(())) => false,
                _ => {
                    look.seen = Err(ErrorCode::NotCoordinator);
                    false
                }
            });
            if look.certain.is_empty() {
                done.push((look.from, look.asked, look.seen));
            }
            !look.certain.is_empty()
        });
        for (from, asked, seen) in done {
            self.answer(id, from, asked, Answer::Group(seen));
        }
    }

    fn committed_offset(&self, id: i32) -> Result<i64, ErrorCode> {
        let up = self.node(id).up.as_ref().ok_or(ErrorCode::NotCoordinator)?;
        let coordinator = up.groups.shard.as_ref().and_then(|shard| shard.coordinator.as_ref());
        let coordinator = coordinator.ok_or(ErrorCode::NotCoordinator)?;
        let asked = OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: TOPIC.into(),
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        };
        let answer = coordinator.offset_fetch(&asked, true, 8, &Known(up.published.0.clone()));
        let partition = answer.topics.first().and_then(|t| t.partitions.first());
        partition.map(|p| p.committed_offset).ok_or(ErrorCode::NotCoordinator)
    }

    /// Gives answers to those who wait for them.
    pub fn hand_out(&mut self, id: i32, answers: Vec<(Ticket, GroupAnswer)>) {
        for (ticket, answer) in answers {
            let asked = self.node_mut(id).up.as_mut().and_then(|up| up.groups.asked.remove(&ticket));
            let Some((to, asked)) = asked else { continue };
            let answer = match answer {
                GroupAnswer::OffsetCommit(response) => {
                    let code = response.topics.first().and_then(|t| t.partitions.first()).map_or(-1, |p| p.error_code);
                    Answer::Group(if code == 0 { Ok(0) } else { Err(ErrorCode::from_code(code)) })
                }
                GroupAnswer::JoinGroup(response) => Answer::Joined(response),
                GroupAnswer::SyncGroup(response) => Answer::Synced(response),
                _ => continue,
            };
            self.answer(id, to, asked, answer);
        }
    }

    /// These answers are not given.
    pub fn withhold(&mut self, id: i32, answers: Vec<(Ticket, GroupAnswer)>) {
        for (ticket, _) in answers {
            let asked = self.node_mut(id).up.as_mut().and_then(|up| up.groups.asked.remove(&ticket));
            if let Some((to, asked)) = asked {
                self.answer(id, to, asked, Answer::Group(Err(ErrorCode::CoordinatorNotAvailable)));
            }
        }
    }
}
