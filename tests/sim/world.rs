//! The world: nodes, network, clock and the queue of what happens next. One event is one step; after each one the
//! checks run. All chance comes from the seed, in the order of the steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm::config::BrokerConfig;
use klamm::metrics::Metrics;
use klamm_metadata::controller::Policy;

use crate::check::Oracle;
use crate::clients::Clients;
use crate::message::{Answer, Ask, Message, Who};
use crate::metalog::{Meta, WorldFacts};
use crate::node::{Node, config};
use crate::plan::Plan;
use crate::random::Random;

/// Something that happens at its time.
#[derive(Clone, Debug)]
pub enum Event {
    /// To a process of this boot, if it is one.
    Deliver(Who, Who, u32, Message),
    Start(i32),
    /// Registration or heartbeat; its round.
    Beat(i32, u32, u64),
    Apply(i32, u32),
    Publish(i32, u32),
    /// A follower asks this leader, in this round.
    Fetch(i32, u32, i32, u64),
    Isr(i32, u32),
    Lag(i32, u32),
    Flush(i32, u32),
    Housekeeping(i32, u32),
    Resume(i32, u32),
    Group(i32, u32),
    Sessions(u64),
    Elections(u64),
    Committed(u64),
    Elect(bool),
    Fault,
    Write(usize),
    Read(usize),
    Commit(usize),
    Watch(usize),
    Member(usize),
    Trim(usize),
    /// A client has waited long enough for this answer.
    GiveUp(usize, u64),
}

/// See the module's head.
pub struct World {
    pub plan: Plan,
    pub random: Random,
    pub now_us: i64,
    queue: BTreeMap<(i64, u64), Event>,
    next: u64,
    pub nodes: Vec<Node>,
    configs: Vec<BrokerConfig>,
    metrics: Arc<Metrics>,
    pub facts: Arc<WorldFacts>,
    pub meta: Meta,
    pub clients: Clients,
    pub oracle: Oracle,
    /// Nothing goes from the first to the second.
    pub blocked: BTreeSet<(i32, i32)>,
    pub healing: bool,
    /// A node that lost records and is not yet known to have them again.
    pub amnesiac: Option<i32>,
    /// The node whose disk may be lost.
    pub wiped: Option<i32>,
    pub steps: u64,
    next_id: u64,
    /// When the last message of a client's connection arrives, since it keeps their order; nothing arrives after one
    /// that was lost.
    lanes: BTreeMap<(usize, i32), Option<i64>>,
    trace: Option<Vec<String>>,
    pub counts: BTreeMap<&'static str, u64>,
}

impl World {
    /// The world of a seed; with `tracing` every step is written down.
    pub fn new(seed: u64, tracing: bool) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::of(&mut random);
        let configs: Vec<_> = (0..plan.nodes).map(|id| config(id, &plan)).collect();
        let facts = WorldFacts {
            policy: Policy { min_isr: plan.min_isr, unclean: false },
            rules: Arc::new(configs[0].clone()),
        };
        let mut world = Self {
            nodes: (0..plan.nodes).map(Node::new).collect(),
            configs,
            metrics: Arc::new(Metrics::new()),
            facts: Arc::new(facts),
            meta: Meta::new(),
            clients: Clients::new(&plan),
            oracle: Oracle::default(),
            blocked: BTreeSet::new(),
            healing: false,
            amnesiac: None,
            wiped: None,
            now_us: 0,
            queue: BTreeMap::new(),
            next: 0,
            steps: 0,
            next_id: 0,
            lanes: BTreeMap::new(),
            trace: tracing.then(Vec::new),
            counts: BTreeMap::new(),
            random,
            plan,
        };
        world.note(|| format!("seed {seed}"));
        if tracing {
            let plan = format!("{:?}", world.plan);
            world.note(|| plan);
        }
        world.begin();
        world
    }

    /// What has happened so far, one line a step.
    pub fn trace(&self) -> &[String] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// Writes a line of the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {}", self.now_us as f64 / 1e3, line()));
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn now_ms(&self) -> i64 {
        self.now_us / 1_000
    }

    pub fn at(&mut self, us: i64, event: Event) {
        self.next += 1;
        self.queue.insert((us.max(self.now_us), self.next), event);
    }

    pub fn after(&mut self, us: i64, event: Event) {
        self.at(self.now_us + us, event);
    }

    pub fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn node(&self, id: i32) -> &Node {
        &self.nodes[id as usize]
    }

    pub fn node_mut(&mut self, id: i32) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// Whether this process still runs.
    pub fn runs(&self, id: i32, boot: u32) -> bool {
        self.node(id).boot == boot && self.node(id).up.is_some()
    }

    /// Whether a process of this registration runs.
    pub fn runs_as(&self, id: i32, epoch: i64) -> bool {
        self.node(id).up.as_ref().is_some_and(|up| up.epoch == epoch)
    }

    /// Until when a node stands still.
    pub fn paused(&self, id: i32) -> Option<i64> {
        self.node(id).paused_until_us.filter(|until| *until > self.now_us)
    }

    pub fn reaches(&self, from: i32, to: i32) -> bool {
        !self.blocked.contains(&(from, to))
    }

    /// Starts a process on a node.
    pub fn start(&mut self, id: i32) {
        if self.node(id).up.is_some() {
            return;
        }
        let node = &mut self.nodes[id as usize];
        node.set_clock(self.now_us);
        node.start(&self.meta, &self.configs[id as usize], &self.metrics, &mut self.random);
        let boot = node.boot;
        self.note(|| format!("node {id} starts, boot {boot}"));
        self.after(100, Event::Beat(id, boot, 0));
        self.after(300, Event::Apply(id, boot));
    }

    /// Sends a question; its id.
    pub fn ask(&mut self, from: Who, to: i32, ask: Ask) -> u64 {
        let id = self.fresh_id();
        self.send(from, Who::Node(to), Message::Ask(id, ask));
        id
    }

    pub fn answer(&mut self, node: i32, to: Who, id: u64, answer: Answer) {
        self.send(Who::Node(node), to, Message::Answer(id, answer));
    }

    /// The network takes a message; what becomes of it is its own affair.
    fn send(&mut self, from: Who, to: Who, message: Message) {
        let lost = match (from, to) {
            (Who::Node(a), Who::Node(b)) if a != b && !self.reaches(a, b) => true,
            (Who::Node(a), Who::Node(b)) if a == b => false,
            _ => !self.healing && self.plan.drop_one_in > 0 && self.random.one_in(self.plan.drop_one_in),
        };
        let lane = match (from, to) {
            (Who::Client(client), Who::Node(node)) => Some((client, node)),
            _ => None,
        };
        let broken = lane.is_some_and(|lane| self.lanes.get(&lane) == Some(&None));
        if lost || broken {
            if let Some(lane) = lane {
                self.lanes.insert(lane, None);
            }
            self.note(|| format!("{from:?} -> {to:?} lost: {}", message.name()));
            return;
        }
        let held = !self.healing && self.plan.hold_one_in > 0 && self.random.one_in(self.plan.hold_one_in);
        let delay = if held { self.random.between(5_000, 300_000) } else { self.random.between(50, 1_500) };
        let mut at = self.now_us + delay;
        // Requests of clients come one after the other; what brokers say to each other may overtake.
        if let Some(lane) = lane {
            let last = self.lanes.get(&lane).copied().flatten().unwrap_or(0);
            at = at.max(last + 1);
            self.lanes.insert(lane, Some(at));
        }
        let boot = match to {
            Who::Node(id) => self.node(id).boot,
            Who::Client(_) => 0,
        };
        self.at(at, Event::Deliver(from, to, boot, message));
    }

    /// A client closes its connections: what is on the way may still arrive.
    pub fn reconnect(&mut self, client: usize) {
        self.lanes.retain(|(of, _), _| *of != client);
    }

    /// The next event, if it is due before `until_us`.
    pub fn step(&mut self, until_us: i64) -> bool {
        let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until_us) else {
            self.now_us = until_us;
            return false;
        };
        self.now_us = entry.key().0;
        let event = entry.remove();
        if let Some(node) = self.node_of(&event) {
            if let Some(until) = self.paused(node) {
                self.at(until, event);
                return true;
            }
            self.node(node).set_clock(self.now_us);
        }
        self.steps += 1;
        self.happen(event);
        true
    }

    /// The node that an event needs to be awake.
    fn node_of(&self, event: &Event) -> Option<i32> {
        match *event {
            Event::Deliver(_, Who::Node(id), ..)
            | Event::Beat(id, ..)
            | Event::Apply(id, _)
            | Event::Publish(id, _)
            | Event::Fetch(id, ..)
            | Event::Isr(id, _)
            | Event::Lag(id, _)
            | Event::Flush(id, _)
            | Event::Housekeeping(id, _)
            | Event::Group(id, _) => Some(id),
            _ => None,
        }
    }

    fn happen(&mut self, event: Event) {
        let node = self.node_of(&event);
        match event {
            Event::Deliver(from, Who::Node(to), boot, message) => {
                if !self.runs(to, boot) {
                    return;
                }
                self.note(|| format!("{from:?} -> {to} {}", message.name()));
                self.deliver(from, to, message);
            }
            Event::Deliver(from, Who::Client(to), _, message) => {
                self.note(|| format!("{from:?} -> client {to} {}", message.name()));
                if let Message::Answer(id, answer) = message {
                    self.client_hears(to, id, answer);
                }
            }
            Event::Start(id) => self.start(id),
            Event::Beat(id, boot, round) if self.runs(id, boot) => self.beat(id, round),
            Event::Apply(id, boot) if self.runs(id, boot) => self.apply(id),
            Event::Publish(id, boot) if self.runs(id, boot) => self.publish(id),
            Event::Fetch(id, boot, leader, round) if self.runs(id, boot) => self.fetch(id, leader, round),
            Event::Isr(id, boot) if self.runs(id, boot) => self.propose_isr(id),
            Event::Lag(id, boot) if self.runs(id, boot) => self.check_lag(id),
            Event::Flush(id, boot) if self.runs(id, boot) => self.flush(id),
            Event::Housekeeping(id, boot) if self.runs(id, boot) => self.housekeeping(id),
            Event::Group(id, boot) if self.runs(id, boot) => self.group_timers(id),
            Event::Resume(id, boot) if self.runs(id, boot) => {
                self.note(|| format!("node {id} goes on"));
                self.node_mut(id).paused_until_us = None;
            }
            Event::Sessions(term) => self.sessions(term),
            Event::Elections(term) => self.elections(term),
            Event::Committed(term) => self.committed(term),
            Event::Elect(forced) => self.elect(forced),
            Event::Fault => self.fault(),
            Event::Write(client) => self.write(client),
            Event::Read(client) => self.read(client),
            Event::Commit(client) => self.commit(client),
            Event::Watch(client) => self.watch(client),
            Event::Member(client) => self.member_turn(client),
            Event::Trim(client) => self.trim(client),
            Event::GiveUp(client, id) => self.give_up(client, id),
            _ => return,
        }
        if let Some(node) = node {
            self.settle(node);
        }
    }

    fn deliver(&mut self, from: Who, to: i32, message: Message) {
        match message {
            Message::Ask(id, Ask::Fetch(epoch, parts, stamp)) => self.fetched_from(to, from, id, epoch, parts, stamp),
            Message::Ask(id, Ask::Control(control)) => self.ask_controller(to, from, id, control),
            Message::Ask(id, Ask::Produce(key, batch, acks)) => self.produced_to(to, from, id, key, batch, acks),
            Message::Ask(id, Ask::Read(key, epoch, offset)) => self.read_from(to, from, id, key, epoch, offset),
            Message::Ask(id, Ask::Metadata) => {
                let up = self.node(to).up.as_ref();
                let image = up.filter(|up| up.published.1 > 0).map(|up| up.published.0.clone());
                self.answer(to, from, id, Answer::Metadata(image));
            }
            Message::Ask(id, Ask::Group(ask)) => self.group_asked(to, from, id, ask),
            Message::Ask(id, Ask::Delete(key, offset)) => self.delete_at(to, from, id, key, offset),
            Message::Answer(id, answer) => self.node_hears(to, id, answer),
        }
    }

    fn node_hears(&mut self, node: i32, id: u64, answer: Answer) {
        match answer {
            Answer::Fetch(stamp, answer) => self.take_fetch(node, id, stamp, answer),
            answer => self.control_answered(node, id, answer),
        }
    }
}
