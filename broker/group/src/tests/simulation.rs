//! Many clients, a log that sometimes refuses, brokers that restart, and time: whatever the order of events, the
//! coordinator keeps its promises. One seed makes one run; proptest prints the seed that breaks one, and
//! `PROPTEST_CASES` sets how many it tries (twice as many as it runs).
//!
//! Promises: every ticket is answered exactly once; a generation only grows; a group with members has one leader, a
//! member; in Stable everyone has what that generation's leader gave; the log alone gives the same durable state; and
//! once the faults end, every client gets work.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use klamm_protocol::messages::*;
use proptest::prelude::*;

use super::*;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Idle,
    Joining(Ticket),
    /// Has a generation; the members it leads, if it leads.
    Joined(Vec<String>),
    Syncing(Ticket),
    Working,
}

struct Consumer {
    joiner: Joiner,
    generation: i32,
    phase: Phase,
}

struct World {
    dice: Dice,
    desk: Desk,
    consumers: Vec<Consumer>,
    /// Tickets not yet answered.
    open: BTreeSet<Ticket>,
    shadow: Coordinator,
    shadowed: usize,
    generations: BTreeMap<String, i32>,
    /// What leaders gave, by group and generation.
    given: BTreeMap<(String, i32), BTreeSet<String>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let config = Config {
            initial_rebalance_delay_ms: [0, 3_000][dice.roll(2) as usize],
            group_members_max: [3, 100][dice.roll(2) as usize],
            ..Config::default()
        };
        let consumers = (0..dice.roll(7) + 1).map(|i| consumer(&mut dice, i)).collect();
        Self {
            dice,
            desk: Desk::new(config),
            consumers,
            open: BTreeSet::new(),
            shadow: Coordinator::new(Config::default()),
            shadowed: 0,
            generations: BTreeMap::new(),
            given: BTreeMap::new(),
        }
    }

    fn chaos(&mut self) {
        match self.dice.roll(100) {
            0..=59 => self.act(),
            60..=84 => {
                let ms = [0, 1, 500, 2_000, 9_000][self.dice.roll(5) as usize];
                if self.dice.chance(50) {
                    self.desk.pass(ms);
                } else {
                    // A late tick: much is due at once.
                    self.desk.now += ms;
                    let step = self.desk.c.tick(self.desk.now);
                    self.desk.settle(step);
                }
            }
            85..=94 => self.misbehave(),
            95..=97 => self.desk.refuse_appends = self.dice.chance(30).then_some(ErrorCode::NotEnoughReplicas),
            98 => self.restart(),
            _ if self.dice.chance(50) => self.grow(),
            _ => self.delete(),
        }
    }

    /// A consumer does what it should do next.
    fn act(&mut self) {
        let i = self.dice.roll(self.consumers.len() as u64) as usize;
        self.drive(i);
    }

    fn drive(&mut self, i: usize) {
        match self.consumers[i].phase.clone() {
            Phase::Idle => {
                let ticket = self.desk.join(&self.consumers[i].joiner);
                self.open.insert(ticket);
                self.consumers[i].phase = Phase::Joining(ticket);
            }
            Phase::Joining(ticket) => {
                if let Some(response) = self.desk.joined(ticket) {
                    self.open.remove(&ticket);
                    self.on_joined(i, response);
                }
            }
            Phase::Joined(members) => self.send_sync(i, &members),
            Phase::Syncing(ticket) => {
                if let Some(response) = self.desk.synced(ticket) {
                    self.open.remove(&ticket);
                    self.on_synced(i, response);
                }
            }
            Phase::Working => self.work(i),
        }
    }

    fn on_joined(&mut self, i: usize, response: JoinGroupResponse) {
        let consumer = &mut self.consumers[i];
        consumer.phase = Phase::Idle;
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {
                assert_eq!(
                    response.leader == response.member_id,
                    !response.members.is_empty() || response.skip_assignment
                );
                consumer.joiner.member_id = response.member_id;
                consumer.generation = response.generation_id;
                let leads = if response.skip_assignment { Vec::new() } else { response.members };
                consumer.phase = Phase::Joined(leads.into_iter().map(|m| m.member_id).collect());
            }
            ErrorCode::MemberIdRequired => consumer.joiner.member_id = response.member_id,
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => consumer.joiner.member_id.clear(),
            ErrorCode::GroupMaxSizeReached => consumer.joiner.member_id.clear(),
            ErrorCode::RebalanceInProgress | ErrorCode::CoordinatorNotAvailable => {}
            other => panic!("JoinGroup: {other:?}"),
        }
    }

    fn send_sync(&mut self, i: usize, members: &[String]) {
        let (group, id, generation) = self.who(i);
        let names: Vec<String> = (0..members.len()).map(|n| format!("{generation}.{n}")).collect();
        let all: Vec<_> = members.iter().map(String::as_str).zip(names.iter().map(String::as_str)).collect();
        if !all.is_empty() {
            self.given.insert((group.clone(), generation), names.iter().cloned().collect());
        }
        let ticket = self.desk.sync(&group, &id, generation, &all);
        self.open.insert(ticket);
        self.consumers[i].phase = Phase::Syncing(ticket);
    }

    fn on_synced(&mut self, i: usize, response: SyncGroupResponse) {
        let (group, _, generation) = self.who(i);
        let consumer = &mut self.consumers[i];
        consumer.phase = Phase::Idle;
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {
                let got = String::from_utf8_lossy(&response.assignment).into_owned();
                assert!(self.given[&(group, generation)].contains(&got), "{got} was not given in {generation}");
                consumer.phase = Phase::Working;
            }
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => consumer.joiner.member_id.clear(),
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration | ErrorCode::CoordinatorNotAvailable => {}
            other => panic!("SyncGroup: {other:?}"),
        }
    }

    fn work(&mut self, i: usize) {
        let (group, id, generation) = self.who(i);
        let code = if self.dice.chance(30) {
            let at = (self.dice.roll(4) as i32, self.desk.now);
            self.desk.commit(&group, &id, generation, "t", at)
        } else {
            self.desk.heartbeat(&group, &id, generation)
        };
        let consumer = &mut self.consumers[i];
        match code {
            ErrorCode::None | ErrorCode::CoordinatorNotAvailable => {}
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId | ErrorCode::GroupIdNotFound => {
                consumer.joiner.member_id.clear();
                consumer.phase = Phase::Idle;
            }
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => consumer.phase = Phase::Idle,
            other => panic!("heartbeat or commit: {other:?}"),
        }
    }

    /// A consumer does what consumers should not, but do.
    fn misbehave(&mut self) {
        let i = self.dice.roll(self.consumers.len() as u64) as usize;
        let (group, id, generation) = self.who(i);
        match self.dice.roll(7) {
            // Dies; it comes back without its id. Nobody waits for its answers any more.
            0 => {
                self.consumers[i].joiner.member_id.clear();
                self.consumers[i].phase = Phase::Idle;
            }
            1 => {
                let instance = self.consumers[i].joiner.instance_id.clone();
                self.desk.leave(&group, &[(&id, instance.as_deref())], 5);
                self.consumers[i].joiner.member_id.clear();
                self.consumers[i].phase = Phase::Idle;
            }
            // Sends again what it has sent already.
            2 => {
                let ticket = self.desk.join(&self.consumers[i].joiner);
                self.open.insert(ticket);
                self.consumers[i].phase = Phase::Joining(ticket);
            }
            // A leader would hand out nothing with this, which is its right but tells us nothing.
            3 if self.desk.c.group(&group).and_then(|g| g.leader()) != Some(&id) => {
                let ticket = self.desk.sync(&group, &id, generation, &[]);
                self.open.insert(ticket);
            }
            // Reads other topics from now on.
            4 => {
                let topics: &[&str] = [&["t"][..], &["u"], &["t", "u"]][self.dice.roll(3) as usize];
                for (_, metadata) in &mut self.consumers[i].joiner.protocols {
                    *metadata = subscription(topics);
                }
                self.consumers[i].phase = Phase::Idle;
            }
            5 => drop(self.desk.commit(&group, &id, generation - 1, "u", (0, 1))),
            _ => drop(self.desk.heartbeat(&group, &id, generation + 1)),
        }
        self.forget_answers();
    }

    fn delete(&mut self) {
        if self.dice.chance(50) {
            let ticket = self.desk.ticket();
            let step = self.desk.c.delete_groups(ticket, ["a", "b", "none"]);
            self.desk.settle(step);
            assert!(self.desk.take(ticket).is_some());
        } else {
            let step = self.desk.c.on_topics_deleted(&[("t".into(), topic_id(1))]);
            self.desk.settle(step);
        }
    }

    /// A topic gains a partition, which a group may be guarded against.
    fn grow(&mut self) {
        let partitions = self.desk.topics.all["t"].partitions;
        self.desk.topics.set("t", 1, partitions + 1);
        self.desk.topics.guarded = vec!["a".into()];
        let step = self.desk.c.guard("a", &self.desk.topics, self.desk.now);
        self.desk.settle(step);
    }

    /// The broker dies: connections break, only the log is left.
    fn restart(&mut self) {
        self.forget_answers();
        self.open.clear();
        for consumer in &mut self.consumers {
            if matches!(consumer.phase, Phase::Joining(_) | Phase::Syncing(_)) {
                consumer.phase = Phase::Idle;
            }
        }
        self.generations.clear();
        self.desk.restart();
    }

    fn who(&self, i: usize) -> (String, String, i32) {
        let consumer = &self.consumers[i];
        (consumer.joiner.group.to_owned(), consumer.joiner.member_id.clone(), consumer.generation)
    }

    /// Takes the answers nobody waits for any more.
    fn forget_answers(&mut self) {
        let waiting: Vec<Ticket> = self
            .consumers
            .iter()
            .filter_map(|c| match c.phase {
                Phase::Joining(ticket) | Phase::Syncing(ticket) => Some(ticket),
                _ => None,
            })
            .collect();
        let desk = &mut self.desk;
        self.open.retain(|ticket| waiting.contains(ticket) || desk.take(*ticket).is_none());
    }

    fn check(&mut self) {
        self.forget_answers();
        let parked: usize = self.desk.c.groups.values().map(|g| g.parked()).sum();
        let unanswered = self.open.iter().filter(|t| !self.desk.has_answer(**t)).count();
        assert_eq!(parked, unanswered, "every open ticket waits somewhere");

        for record in &self.desk.log[self.shadowed..] {
            self.shadow.replay(&record.key, record.value.as_ref()).unwrap();
        }
        self.shadowed = self.desk.log.len();
        let live = &self.desk.c;
        assert!(live.committed().eq(self.shadow.committed()), "offsets as the log has them");
        let ids = |c: &Coordinator| c.groups.keys().cloned().collect::<Vec<_>>();
        assert_eq!(ids(live), ids(&self.shadow), "groups as the log has them");
        self.generations.retain(|id, _| live.group(id).is_some());
        for group in live.groups.values() {
            group.check();
            let before = self.generations.insert(group.id.to_string(), group.generation);
            assert!(before.is_none_or(|b| b <= group.generation), "{}: {before:?} to {}", group.id, group.generation);
            let logged = &self.shadow.groups[&group.id];
            let durable = match group.state {
                State::Empty => group.rewrite_ms.is_none(),
                State::Stable => true,
                _ => false,
            };
            if durable {
                assert_eq!(value(group), value(logged), "{} as the log has it", group.id);
                assert_eq!(group.subscribed, logged.subscribed);
                if group.is(State::Empty) {
                    assert_eq!(group.state_since_ms, logged.state_since_ms);
                }
            } else {
                assert!(logged.generation <= group.generation);
            }
            if group.is(State::Stable) {
                let has: Vec<String> =
                    group.members().map(|m| String::from_utf8_lossy(&m.assignment).into_owned()).collect();
                let given = &self.given[&(group.id.to_string(), group.generation)];
                assert!(has.iter().all(|a| given.contains(a)), "{}: {has:?} of {given:?}", group.id);
                assert_eq!(has.iter().collect::<BTreeSet<_>>().len(), has.len(), "{}: one each", group.id);
            }
        }
    }

    /// No more faults: everybody gets to work, in one generation a group, and stays there.
    fn heal(&mut self) {
        self.desk.refuse_appends = None;
        let mut config = self.desk.c.config.clone();
        config.group_members_max = 100;
        self.desk.c.set_config(config);
        let mut calm = 0;
        for _ in 0..600 {
            for i in 0..self.consumers.len() {
                self.drive(i);
            }
            self.desk.pass(1_000);
            self.check();
            let working = self.consumers.iter().all(|c| c.phase == Phase::Working);
            calm = if working { calm + 1 } else { 0 };
            if calm == 30 {
                for consumer in &self.consumers {
                    assert_eq!(consumer.generation, self.desk.generation(consumer.joiner.group));
                    assert_eq!(self.desk.state(consumer.joiner.group), Some(State::Stable));
                }
                return;
            }
        }
        panic!("no peace: {:#?}", self.consumers.iter().map(|c| &c.phase).collect::<Vec<_>>());
    }

    fn finish(&mut self) {
        self.heal();
        self.forget_answers();
        let told: BTreeSet<Ticket> = self.desk.c.unload().into_iter().map(|(ticket, _)| ticket).collect();
        assert_eq!(told, self.open, "every ticket is answered");
    }
}

/// The group as it is written, without when it entered its state: a stable group's record is written just before.
fn value(group: &crate::classic::Group) -> GroupMetadataValue {
    GroupMetadataValue { current_state_timestamp: 0, ..group.to_value(|m| m.assignment.clone()) }
}

fn consumer(dice: &mut Dice, i: u64) -> Consumer {
    // All speak both. After a restart the coordinator knows only the one in use, as Kafka's does.
    let mut protocols: Vec<(&'static str, Bytes)> =
        ["range", "sticky"].iter().map(|name| (*name, subscription(&["t"]))).collect();
    protocols.rotate_left(dice.roll(2) as usize);
    let instance_id = dice.chance(40).then(|| format!("i{i}"));
    Consumer {
        joiner: Joiner {
            group: ["a", "b"][dice.roll(2) as usize],
            version: if instance_id.is_some() { 5 + dice.roll(5) as i16 } else { dice.roll(10) as i16 },
            instance_id,
            protocols,
            session_ms: 6_000 + 1_000 * dice.roll(10) as i32,
            rebalance_ms: [5_000, 10_000, 60_000][dice.roll(3) as usize],
            ..Joiner::default()
        },
        generation: -1,
        phase: Phase::Idle,
    }
}

fn run(seed: u64, steps: usize) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.chaos();
        world.check();
    }
    world.finish();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_promises_hold_in_any_order_of_events(seed in any::<u64>()) {
        run(seed, 400);
    }
}

#[test]
fn one_seed_is_one_history() {
    let (one, two) = (run(7, 400), run(7, 400));
    assert_eq!(one.desk.log, two.desk.log);
    assert!(one.desk.log.len() > 20);
}
