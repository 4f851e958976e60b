//! The metadata log and the controllers that write to it.
//!
//! The log is an ordered list that never forgets: consensus itself is the quorum's own test. What is arbitrary here is
//! when a decision is committed, whether it is when its controller is replaced meanwhile, when anybody hears of it, and
//! how long a controller that was replaced goes on believing that it is one. What controllers decide, and the state
//! they decide by, is production code.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use klamm_metadata::controller::{self, Context, Decision, Heartbeats, Policy, Progress, Registration};
use klamm_metadata::{Image, MetadataRecord, record, state_hash};
use klamm_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionResponse};

use crate::message::{Answer, Control, Who};
use crate::node;
use crate::world::{Event, World};

pub const SESSION_MS: u64 = 400;

/// What was committed together.
pub struct Entry {
    pub records: Vec<Bytes>,
    /// The image after it.
    pub image: Arc<Image>,
    pub hash: u128,
}

/// See the module's head.
pub struct Meta {
    pub entries: Vec<Entry>,
    pub image: Arc<Image>,
    /// The one in force is the last; those before it do not know yet that they are not.
    pub controllers: Vec<Active>,
    pub term: u64,
    /// An election is on its way.
    pub electing: bool,
}

/// A node that takes itself for the controller.
pub struct Active {
    pub term: u64,
    pub node: i32,
    boot: u32,
    heartbeats: Heartbeats,
    queue: VecDeque<Wish>,
    deciding: Option<Deciding>,
    sessions_due_us: i64,
}

/// What the controller is to decide.
#[derive(Clone, Debug)]
pub enum Want {
    Ask(Control),
    /// Fence this registration.
    Fence(i32, i64),
    ElectLeaderless,
    Balance,
    Reassign(AlterPartitionReassignmentsRequest),
}

#[derive(Clone, Debug)]
struct Wish {
    from: Option<(Who, u64)>,
    want: Want,
}

struct Deciding {
    wish: Wish,
    records: Vec<Bytes>,
    /// `None` when the same is to be decided again afterwards.
    answer: Option<Answer>,
}

impl Meta {
    pub fn new() -> Self {
        let image = Arc::new(Image::new(node::CLUSTER));
        Self { entries: Vec::new(), image, controllers: Vec::new(), term: 0, electing: false }
    }

    pub fn offset(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The node that decides, as far as there is one.
    pub fn leader(&self) -> Option<i32> {
        self.controllers.last().filter(|active| active.term == self.term).map(|active| active.node)
    }

    pub fn append(&mut self, records: Vec<Bytes>) {
        let mut image = Image::clone(&self.image);
        let decoded = record::decode(&records).expect("records can be read");
        image.apply_all(&decoded).unwrap_or_else(|e| panic!("a committed record does not apply: {e}"));
        self.image = Arc::new(image);
        self.entries.push(Entry { records, image: self.image.clone(), hash: state_hash(&self.image) });
    }
}

type Decided = (Vec<MetadataRecord>, Option<Answer>);

/// Like the broker's handlers: see `broker/src/api/` and `controller/active.rs`.
fn decide(
    heartbeats: &mut Heartbeats,
    want: &Want,
    image: &Image,
    offset: i64,
    now_ms: u64,
    world: &WorldFacts,
) -> Decided {
    let policy = &world.policy;
    let plain = |decided: Result<Decision<Progress<()>>, controller::ApiError>| match decided {
        Ok(Decision { records, response: Progress::More }) => (records, None),
        Ok(Decision { records, .. }) => (records, Some(Answer::NotController)),
        Err(_) => (Vec::new(), Some(Answer::NotController)),
    };
    match want {
        Want::Ask(Control::Register(request)) => {
            let alive = heartbeats.is_alive(image, request.broker_id, now_ms);
            let decided = Registration::of(image, request, alive)
                .and_then(|wanted| controller::register_broker(image, &wanted, offset + 1, policy));
            match decided {
                Ok(Decision { records, response: Progress::More }) => (records, None),
                Ok(Decision { records, response: Progress::Done(epoch) }) => {
                    (records, Some(Answer::Register(Ok(epoch))))
                }
                Err(refused) => (Vec::new(), Some(Answer::Register(Err(refused.code)))),
            }
        }
        Want::Ask(Control::Heartbeat(request)) => match heartbeats.heartbeat(image, request, offset, now_ms, policy) {
            Ok(Decision { records, response: Progress::More }) => (records, None),
            Ok(Decision { records, response: Progress::Done(response) }) => {
                (records, Some(Answer::Heartbeat(Ok(response))))
            }
            Err(refused) => (Vec::new(), Some(Answer::Heartbeat(Err(refused.code)))),
        },
        Want::Ask(Control::AlterPartition(request)) => match controller::alter_partition(image, request, 3, policy) {
            Ok(Decision { records, response }) => (records, Some(Answer::AlterPartition(response))),
            Err(refused) => {
                let response = AlterPartitionResponse { error_code: refused.code.code(), ..Default::default() };
                (Vec::new(), Some(Answer::AlterPartition(response)))
            }
        },
        Want::Ask(Control::AssignDirs(request)) => {
            let decided = controller::assign_replicas_to_dirs(image, request, policy);
            (decided.map(|d| d.records).unwrap_or_default(), Some(Answer::NotController))
        }
        Want::Fence(id, epoch) if image.broker(*id).map(|b| b.epoch) == Some(*epoch) => {
            plain(controller::fence(image, *id, policy))
        }
        Want::Fence(..) => (Vec::new(), Some(Answer::NotController)),
        Want::ElectLeaderless => plain(Ok(controller::elect_leaderless(image, policy))),
        Want::Balance => {
            let decided = controller::balance_leaders(image, 0, 1_000, policy);
            (decided.records, Some(Answer::NotController))
        }
        Want::Reassign(request) => {
            let decided = controller::alter_partition_reassignments(image, request, &world.context());
            (decided.records, Some(Answer::NotController))
        }
    }
}

/// What decisions need beside the image.
pub struct WorldFacts {
    pub policy: Policy,
    pub rules: Arc<klamm::config::BrokerConfig>,
}

impl WorldFacts {
    pub fn context(&self) -> Context<'_> {
        Context {
            now_ms: 0,
            seed: 1,
            new_id: &|| klamm_protocol::Uuid([9; 16]),
            rules: &*self.rules,
            may: &|_, _| true,
            num_partitions: 1,
            replication_factor: 3,
            policy: self.policy,
        }
    }
}

impl World {
    /// A question for the controller has reached `node`.
    pub fn ask_controller(&mut self, node: i32, from: Who, id: u64, ask: Control) {
        match self.active_at(node) {
            None => self.answer(node, from, id, Answer::NotController),
            Some(term) => self.wish(term, Some((from, id)), Want::Ask(ask)),
        }
    }

    fn active_at(&self, node: i32) -> Option<u64> {
        let boot = self.node(node).boot;
        self.meta.controllers.iter().rev().find(|c| c.node == node && c.boot == boot).map(|c| c.term)
    }

    fn active(&mut self, term: u64) -> Option<&mut Active> {
        self.meta.controllers.iter_mut().find(|c| c.term == term)
    }

    /// The controller in force is to decide about this by itself.
    pub fn want(&mut self, want: Want) {
        let term = self.meta.term;
        self.wish(term, None, want);
    }

    fn wish(&mut self, term: u64, from: Option<(Who, u64)>, want: Want) {
        if let Some(active) = self.active(term) {
            active.queue.push_back(Wish { from, want });
            self.work(term);
        }
    }

    /// Decides what is next in line, as far as nothing waits to be committed.
    fn work(&mut self, term: u64) {
        loop {
            let Some(at) = self.meta.controllers.iter().position(|c| c.term == term) else { return };
            let node = self.meta.controllers[at].node;
            let now_ms = self.now_ms();
            let Some((image, offset)) = self.node(node).up.as_ref().map(|up| up.committed()) else { return };
            let facts = self.facts.clone();
            let active = &mut self.meta.controllers[at];
            if active.deciding.is_some() {
                return;
            }
            let Some(wish) = active.queue.pop_front() else { return };
            let (records, answer) =
                decide(&mut active.heartbeats, &wish.want, &image, offset as i64, now_ms as u64, &facts);
            if records.is_empty() {
                match answer {
                    Some(answer) => self.tell_asker(node, &wish, answer),
                    // Nothing to commit and yet more to do: it is decided again.
                    None => self.meta.controllers[at].queue.push_front(wish),
                }
                continue;
            }
            let records = record::encode(&records).expect("a decision can be written");
            self.meta.controllers[at].deciding = Some(Deciding { wish, records, answer });
            let delay = if self.healing { 500 } else { self.random.between(200, 6_000) };
            let delay = if !self.healing && self.random.one_in(40) { delay * 30 } else { delay };
            self.after(delay, Event::Committed(term));
            return;
        }
    }

    fn tell_asker(&mut self, node: i32, wish: &Wish, answer: Answer) {
        if let Some((from, id)) = wish.from {
            self.answer(node, from, id, answer);
        }
    }

    /// The place and the node of a term's controller. `None` when it has died, and when it stands still: `event` comes
    /// again once it goes on.
    fn acting(&mut self, term: u64, event: Event) -> Option<(usize, i32)> {
        let at = self.meta.controllers.iter().position(|c| c.term == term)?;
        let (node, boot) = (self.meta.controllers[at].node, self.meta.controllers[at].boot);
        if !self.runs(node, boot) {
            self.meta.controllers.remove(at);
            return None;
        }
        if let Some(until) = self.paused(node) {
            self.at(until, event);
            return None;
        }
        Some((at, node))
    }

    /// What a controller has proposed is committed, or it finds out that it is none.
    pub fn committed(&mut self, term: u64) {
        let Some((at, node)) = self.acting(term, Event::Committed(term)) else { return };
        if term != self.meta.term {
            // Deposed: what it proposed went its way when that was decided.
            let deposed = self.meta.controllers.remove(at);
            let wishes = deposed.queue.into_iter().chain(deposed.deciding.map(|d| d.wish));
            for wish in wishes.collect::<Vec<_>>() {
                self.tell_asker(node, &wish, Answer::NotController);
            }
            return;
        }
        if !self.has_majority(node) {
            self.elect_soon();
            self.after(20_000, Event::Committed(term));
            return;
        }
        let Some(deciding) = self.meta.controllers[at].deciding.take() else { return };
        self.append(deciding.records);
        self.catch_up(node);
        match deciding.answer {
            Some(answer) => self.tell_asker(node, &deciding.wish, answer),
            None => self.meta.controllers[at].queue.push_front(deciding.wish),
        }
        self.work(term);
    }

    /// Commits records and lets the nodes hear of them, each in its time.
    pub fn append(&mut self, records: Vec<Bytes>) {
        self.meta.append(records);
        let offset = self.meta.offset();
        self.note(|| format!("metadata {offset} committed"));
        self.check_metadata();
        for node in 0..self.nodes.len() as i32 {
            let boot = self.node(node).boot;
            let slow = !self.healing && self.random.one_in(25);
            let delay = if slow { self.random.between(20_000, 400_000) } else { self.random.between(200, 5_000) };
            self.after(delay, Event::Apply(node, boot));
        }
    }

    /// Voters that reach each other with this one are a majority.
    fn has_majority(&self, node: i32) -> bool {
        let reaches = |v: &i32| {
            self.node(*v).up.is_some() && self.paused(*v).is_none() && self.reaches(node, *v) && self.reaches(*v, node)
        };
        (0..3).filter(|v| *v == node || reaches(v)).count() >= 2
    }

    pub fn elect_soon(&mut self) {
        if !self.meta.electing {
            self.meta.electing = true;
            let delay = self.random.between(10_000, 120_000);
            self.after(delay, Event::Elect(false));
        }
    }

    /// Another controller is elected, unless the present one is fine and nobody forces it.
    pub fn elect(&mut self, forced: bool) {
        self.meta.electing = false;
        let present = self.meta.leader();
        let works = |world: &World, id: i32| {
            world.node(id).up.is_some() && world.paused(id).is_none() && world.has_majority(id)
        };
        if !forced && present.is_some_and(|id| works(self, id) && self.active_at(id) == Some(self.meta.term)) {
            return;
        }
        let able: Vec<i32> = (0..3).filter(|id| works(self, *id)).collect();
        let Some(node) = self.random.pick(&able) else {
            self.elect_soon();
            return;
        };
        // What the last controller had proposed may have reached the majority, or not.
        let last = self.meta.term;
        let proposed = self.active(last).and_then(|active| active.deciding.as_ref().map(|d| d.records.clone()));
        if let Some(records) = proposed.filter(|_| self.random.one_in(2)) {
            self.append(records);
        }
        if self.meta.controllers.iter().any(|c| c.term == last) {
            // It finds out one day.
            let delay = self.random.between(1_000, 150_000);
            self.after(delay, Event::Committed(last));
        }
        self.meta.term += 1;
        let term = self.meta.term;
        self.note(|| format!("controller {node} term {term}"));
        self.count("controllers");
        self.catch_up(node);
        let (boot, now_ms) = (self.node(node).boot, self.now_ms() as u64);
        let image = self.meta.image.clone();
        let heartbeats = Heartbeats::new(SESSION_MS, &image, now_ms);
        let active = Active {
            term,
            node,
            boot,
            heartbeats,
            queue: VecDeque::new(),
            deciding: None,
            sessions_due_us: self.now_us + 50_000,
        };
        self.meta.controllers.push(active);
        self.after(50_000, Event::Sessions(term));
        self.after(10_000, Event::Elections(term));
        // Whoever died together with the last controller has never been connected to this one.
        let dead = image.brokers().filter(|b| !b.fenced && !self.runs_as(b.id, b.epoch));
        for (id, epoch) in dead.map(|b| (b.id, b.epoch)).collect::<Vec<_>>() {
            if self.random.one_in(2) {
                self.want(Want::Fence(id, epoch));
            }
        }
    }

    /// Looks for sessions that are over.
    pub fn sessions(&mut self, term: u64) {
        let Some((at, node)) = self.acting(term, Event::Sessions(term)) else { return };
        let now_us = self.now_us;
        let Some((image, _)) = self.node(node).up.as_ref().map(|up| up.committed()) else { return };
        let now_ms = self.now_ms() as u64;
        let active = &mut self.meta.controllers[at];
        let late_us = now_us - active.sessions_due_us;
        if late_us >= 50_000 {
            active.heartbeats.stood_still(late_us as u64 / 1_000, now_ms);
        }
        active.sessions_due_us = now_us + 50_000;
        let expired = active.heartbeats.expired(&image, now_ms);
        self.after(50_000, Event::Sessions(term));
        for id in expired {
            if let Some(epoch) = image.broker(id).map(|b| b.epoch) {
                self.wish(term, None, Want::Fence(id, epoch));
            }
        }
    }

    /// Looks for partitions without a leader, and sometimes gives leaderships back.
    pub fn elections(&mut self, term: u64) {
        if term != self.meta.term || self.active(term).is_none() {
            return;
        }
        self.after(100_000, Event::Elections(term));
        if self.meta.image.leaderless().next().is_some() {
            self.want(Want::ElectLeaderless);
        }
        if self.random.one_in(8) {
            self.want(Want::Balance);
        }
    }
}
