//! Clients: idempotent producers that retry with several batches in flight, others that fire and forget, a reader of
//! each partition, and a group that commits what it has read.

use std::collections::VecDeque;

use bytes::Bytes;
use klamm::coordinator::OFFSETS_TOPIC;
use klamm::replica::partition::Acks;
use klamm_metadata::Image;
use klamm_protocol::batch::BatchBuilder;
use klamm_protocol::{ErrorCode, Uuid};

use crate::members::Member;
use crate::message::{Answer, Ask, GroupAsk, Key, Who};
use crate::plan::Plan;
use crate::world::{Event, World};

/// The topic that clients write to.
pub const TOPIC: &str = "t";
/// The group.
pub const GROUP: &str = "g";

/// How long a client waits for an answer.
const PATIENCE_US: i64 = 120_000;
/// `max.in.flight.requests.per.connection`.
const IN_FLIGHT_MAX: usize = 5;

/// All clients; a client's number is its place here.
pub struct Clients {
    pub all: Vec<Client>,
    pub topic: Uuid,
    pub offsets_topic: Uuid,
    produced: u64,
}

pub struct Client {
    pub role: Role,
    /// Whom it takes for the leader, and in which epoch.
    pub leader: i32,
    epoch: i32,
    /// The question for metadata that is under way.
    asking: Option<u64>,
}

pub enum Role {
    Producer(Producer),
    Reader {
        key: i32,
        position: i64,
        asked: Option<u64>,
    },
    Group {
        committing: Option<(u64, i64)>,
        looking: Option<(u64, i64)>,
        next: i64,
    },
    /// Asks anybody what the group has committed, also those who do not know yet that they no longer coordinate.
    Watcher {
        looking: Option<(u64, i64)>,
    },
    Member(Member),
    /// Deletes old records now and then.
    Trimmer {
        asked: Option<u64>,
    },
}

pub struct Producer {
    partition: i32,
    /// `None` for one that sends with acks=1, once.
    id: Option<i64>,
    sequence: i32,
    in_flight: VecDeque<Sent>,
    /// Its first batch is acknowledged. A log that knows nothing of a producer takes any batch first, so several are
    /// on their way only from then on; see docs/faults.md.
    known: bool,
}

struct Sent {
    batch: Bytes,
    asked: Option<u64>,
    /// Brokers answer a connection in order: an answer counts once those before it have come.
    acknowledged: bool,
}

impl Clients {
    pub fn new(plan: &Plan) -> Self {
        let client = |role| Client { role, leader: -1, epoch: -1, asking: None };
        let mut all = Vec::new();
        for n in 0..plan.producers {
            let partition = n as i32 % plan.partitions;
            let id = Some(1_000 + n as i64);
            all.push(client(Role::Producer(Producer {
                partition,
                id,
                sequence: 0,
                in_flight: VecDeque::new(),
                known: false,
            })));
        }
        all.push(client(Role::Producer(Producer {
            partition: 0,
            id: None,
            sequence: 0,
            in_flight: VecDeque::new(),
            known: false,
        })));
        for key in 0..plan.partitions {
            all.push(client(Role::Reader { key, position: 0, asked: None }));
        }
        all.push(client(Role::Group { committing: None, looking: None, next: 1 }));
        all.push(client(Role::Watcher { looking: None }));
        for _ in 0..plan.members {
            all.push(client(Role::Member(Member::default())));
        }
        if plan.trims {
            all.push(client(Role::Trimmer { asked: None }));
        }
        Self { all, topic: Uuid([7; 16]), offsets_topic: Uuid([8; 16]), produced: 0 }
    }

    fn key(&self, client: usize) -> Key {
        match &self.all[client].role {
            Role::Producer(producer) => (self.topic, producer.partition),
            Role::Reader { key, .. } => (self.topic, *key),
            Role::Group { .. } | Role::Watcher { .. } | Role::Member(_) => (self.offsets_topic, 0),
            Role::Trimmer { .. } => (self.topic, 0),
        }
    }

    /// Whether every producer's batches are acknowledged.
    pub fn drained(&self) -> bool {
        self.all.iter().all(|client| match &client.role {
            Role::Producer(producer) => producer.in_flight.is_empty(),
            _ => true,
        })
    }
}

impl World {
    /// Sets the clients going.
    pub fn begin_clients(&mut self) {
        for client in 0..self.clients.all.len() {
            let event = self.turn(client);
            let delay = self.random.between(1_000, 30_000);
            self.after(delay, event);
        }
    }

    fn turn(&self, client: usize) -> Event {
        match self.clients.all[client].role {
            Role::Producer(_) => Event::Write(client),
            Role::Reader { .. } => Event::Read(client),
            Role::Group { .. } => Event::Commit(client),
            Role::Watcher { .. } => Event::Watch(client),
            Role::Member(_) => Event::Member(client),
            Role::Trimmer { .. } => Event::Trim(client),
        }
    }

    /// Whom to ask, or nobody yet: then it asks for metadata.
    pub fn leader(&mut self, client: usize) -> Option<i32> {
        let known = self.clients.all[client].leader;
        if known >= 0 {
            return Some(known);
        }
        if self.clients.all[client].asking.is_none() {
            let node = self.random.below(self.nodes.len() as u64) as i32;
            let asked = self.ask_as(client, node, Ask::Metadata);
            self.clients.all[client].asking = Some(asked);
        }
        None
    }

    fn ask_as(&mut self, client: usize, node: i32, ask: Ask) -> u64 {
        self.ask_for(client, node, ask, PATIENCE_US)
    }

    /// A client asks, and waits so long for the answer.
    pub fn ask_for(&mut self, client: usize, node: i32, ask: Ask, patience_us: i64) -> u64 {
        let asked = self.ask(Who::Client(client), node, ask);
        self.after(patience_us, Event::GiveUp(client, asked));
        asked
    }

    pub fn forget_leader(&mut self, client: usize) {
        self.reconnect(client);
        self.clients.all[client].leader = -1;
    }

    fn take_metadata(&mut self, client: usize, image: &Image) {
        let key = self.clients.key(client);
        let Some(partition) = image.topic_by_id(key.0).and_then(|t| t.partition(key.1)) else { return };
        let client = &mut self.clients.all[client];
        // What is older than what it has seen already tells it nothing.
        if partition.leader_epoch >= client.epoch {
            (client.leader, client.epoch) = (partition.leader, partition.leader_epoch);
        }
    }

    /// A producer's turn: a new batch perhaps, and all that is not under way.
    pub fn write(&mut self, client: usize) {
        let delay = if self.healing { 10_000 } else { self.random.between(1_000, 25_000) };
        self.after(delay, Event::Write(client));
        let (fresh, records) = (!self.healing && !self.random.one_in(3), 1 + self.random.below(3));
        let wall_ms = self.now_ms() + crate::node::EPOCH_MS;
        let Role::Producer(producer) = &mut self.clients.all[client].role else { return };
        let room = if producer.known { IN_FLIGHT_MAX } else { 1 };
        if fresh && producer.in_flight.len() < room {
            let mut builder = BatchBuilder::new(0);
            if let Some(id) = producer.id {
                builder = builder.producer(id, 0, producer.sequence);
            }
            for _ in 0..records {
                self.clients.produced += 1;
                let value = format!("{client}-{}", self.clients.produced);
                builder.push(wall_ms, None, Some(value.as_bytes()), &[]).expect("a record");
            }
            let batch = builder.build().expect("a batch");
            producer.sequence += records as i32;
            producer.in_flight.push_back(Sent { batch, asked: None, acknowledged: false });
        }
        let Some(leader) = self.leader(client) else { return };
        let key = self.clients.key(client);
        let Role::Producer(producer) = &mut self.clients.all[client].role else { return };
        let acks = if producer.id.is_some() { Acks::All } else { Acks::Leader };
        let due = producer.in_flight.iter().enumerate().filter(|(_, sent)| sent.asked.is_none());
        for (at, batch) in due.map(|(at, sent)| (at, sent.batch.clone())).collect::<Vec<_>>() {
            let asked = self.ask_as(client, leader, Ask::Produce(key, batch, acks));
            if let Role::Producer(producer) = &mut self.clients.all[client].role {
                producer.in_flight[at].asked = Some(asked);
            }
        }
    }

    /// A reader's turn.
    pub fn read(&mut self, client: usize) {
        let delay = if self.healing { 5_000 } else { self.random.between(2_000, 30_000) };
        self.after(delay, Event::Read(client));
        let Some(leader) = self.leader(client) else { return };
        let (key, epoch) = (self.clients.key(client), self.clients.all[client].epoch);
        let Role::Reader { position, asked: None, .. } = self.clients.all[client].role else { return };
        let id = self.ask_as(client, leader, Ask::Read(key, epoch, position));
        if let Role::Reader { asked, .. } = &mut self.clients.all[client].role {
            *asked = Some(id);
        }
    }

    /// The group's turn: it commits, or looks at what is committed.
    pub fn commit(&mut self, client: usize) {
        let delay = if self.healing { 10_000 } else { self.random.between(5_000, 50_000) };
        self.after(delay, Event::Commit(client));
        if self.random.one_in(6) {
            // It may hear of another coordinator before the last one does, and before it has asked that one in vain.
            self.forget_leader(client);
        }
        let Some(leader) = self.leader(client) else { return };
        let Role::Group { committing: None, looking: None, next, .. } = self.clients.all[client].role else { return };
        if self.random.one_in(2) {
            let id = self.ask_as(client, leader, Ask::Group(GroupAsk::Commit(GROUP, String::new(), -1, next)));
            if let Role::Group { committing, next, .. } = &mut self.clients.all[client].role {
                *committing = Some((id, *next));
                *next += 1;
            }
        } else {
            let id = self.ask_as(client, leader, Ask::Group(GroupAsk::Committed));
            let least = self.oracle.group_offset;
            if let Role::Group { looking, .. } = &mut self.clients.all[client].role {
                *looking = Some((id, least));
            }
        }
    }

    /// The watcher's turn.
    pub fn watch(&mut self, client: usize) {
        let delay = if self.healing { 10_000 } else { self.random.between(5_000, 40_000) };
        self.after(delay, Event::Watch(client));
        if matches!(self.clients.all[client].role, Role::Watcher { looking: None }) {
            let node = self.random.below(self.nodes.len() as u64) as i32;
            let id = self.ask_as(client, node, Ask::Group(GroupAsk::Committed));
            self.clients.all[client].role = Role::Watcher { looking: Some((id, self.oracle.group_offset)) };
        }
    }

    /// Somebody is told, in answer to question `id`, what the group has committed. When it was asked, `least` was.
    fn told_committed(&mut self, id: u64, found: i64, least: i64) {
        let doubted = self.oracle.group_doubtful.contains(&found) || self.oracle.group_lone.contains(&id);
        assert!(found >= least || least == 0 || doubted, "{least} was committed for the group, now it is {found}");
        self.count("offsets looked up");
    }

    /// An answer reaches a client.
    pub fn client_hears(&mut self, client: usize, id: u64, answer: Answer) {
        if self.clients.all[client].asking == Some(id) {
            self.clients.all[client].asking = None;
            if let Answer::Metadata(Some(image)) = answer {
                self.take_metadata(client, &image);
            }
            return;
        }
        let key = self.clients.key(client);
        match (&mut self.clients.all[client].role, answer) {
            (Role::Member(member), answer) if member.asked == Some(id) => self.member_hears(client, answer),
            (Role::Trimmer { asked }, Answer::Deleted(outcome)) if *asked == Some(id) => {
                *asked = None;
                match outcome {
                    Ok(_) => self.count("deletions"),
                    Err(_) => self.forget_leader(client),
                }
            }
            (Role::Producer(producer), Answer::Produced(outcome)) => {
                let Some(at) = producer.in_flight.iter().position(|sent| sent.asked == Some(id)) else { return };
                match outcome {
                    Ok(_) | Err(ErrorCode::DuplicateSequenceNumber) => {
                        producer.in_flight[at].acknowledged = true;
                        producer.known = true;
                        while producer.in_flight.pop_front_if(|sent| sent.acknowledged).is_some() {}
                    }
                    Err(_) if producer.id.is_none() => {
                        producer.in_flight.remove(at);
                        self.forget_leader(client);
                    }
                    Err(_) => self.send_again(client),
                }
            }
            (Role::Reader { asked, position, .. }, Answer::Read(outcome)) if *asked == Some(id) => {
                *asked = None;
                let at = *position;
                match outcome {
                    Ok(bytes) => {
                        let next = self.check_read(key, at, &bytes);
                        if let Role::Reader { position, .. } = &mut self.clients.all[client].role {
                            *position = next;
                        }
                    }
                    Err(ErrorCode::OffsetOutOfRange) => {
                        // Only what was deleted may be gone.
                        let deleted = self.oracle.partitions.get(&key).map_or(0, |known| known.deleted_to);
                        assert!(at < deleted, "a reader of {} cannot go on at {at}", key.1);
                        if let Role::Reader { position, .. } = &mut self.clients.all[client].role {
                            *position = deleted;
                        }
                    }
                    Err(_) => self.forget_leader(client),
                }
            }
            (Role::Watcher { looking }, Answer::Group(outcome)) => {
                if let Some((_, least)) = looking.take_if(|(asked, _)| *asked == id)
                    && let Ok(found) = outcome
                {
                    self.told_committed(id, found, least);
                }
            }
            (Role::Group { committing, looking, .. }, Answer::Group(outcome)) => {
                if let Some((_, offset)) = committing.take_if(|(asked, _)| *asked == id) {
                    match outcome {
                        Ok(_) => {
                            self.oracle.group_offset = self.oracle.group_offset.max(offset);
                            self.count("offsets committed");
                        }
                        Err(_) => self.forget_leader(client),
                    }
                } else if let Some((_, least)) = looking.take_if(|(asked, _)| *asked == id) {
                    match outcome {
                        Ok(found) => self.told_committed(id, found, least),
                        Err(_) => self.forget_leader(client),
                    }
                }
            }
            _ => {}
        }
    }

    /// A producer begins a new connection, to whoever leads by then, and sends all that is not answered again: in order,
    /// as a broker answers one connection in order too.
    fn send_again(&mut self, client: usize) {
        if let Role::Producer(producer) = &mut self.clients.all[client].role {
            producer.in_flight.iter_mut().for_each(|sent| {
                sent.asked = None;
                sent.acknowledged = false;
            });
        }
        self.forget_leader(client);
    }

    /// No answer came in time.
    pub fn give_up(&mut self, client: usize, id: u64) {
        if self.clients.all[client].asking == Some(id) {
            self.clients.all[client].asking = None;
            self.reconnect(client);
        }
        match &mut self.clients.all[client].role {
            Role::Producer(producer) => {
                let Some(at) = producer.in_flight.iter().position(|sent| sent.asked == Some(id)) else { return };
                if producer.id.is_none() {
                    producer.in_flight.remove(at);
                    self.forget_leader(client);
                } else {
                    self.send_again(client);
                }
            }
            Role::Reader { asked, .. } if *asked == Some(id) => {
                *asked = None;
                self.forget_leader(client);
            }
            Role::Watcher { looking } => {
                if looking.take_if(|(asked, _)| *asked == id).is_some() {
                    self.reconnect(client);
                }
            }
            Role::Group { committing, looking, .. } => {
                let gone = committing.take_if(|(asked, _)| *asked == id);
                // It may yet come to that.
                self.oracle.group_doubtful.extend(gone.map(|(_, offset)| offset));
                if gone.is_some() | looking.take_if(|(asked, _)| *asked == id).is_some() {
                    self.forget_leader(client);
                }
            }
            Role::Member(_) => self.member_gives_up(client, id),
            Role::Trimmer { asked } if *asked == Some(id) => {
                *asked = None;
                self.forget_leader(client);
            }
            Role::Reader { .. } | Role::Trimmer { .. } => {}
        }
    }

    /// Deletes what stands before some committed offset.
    pub fn trim(&mut self, client: usize) {
        let delay = self.random.between(50_000, 400_000);
        self.after(delay, Event::Trim(client));
        let Some(leader) = self.leader(client).filter(|_| !self.healing) else { return };
        let key = self.clients.key(client);
        let end = self.oracle.partitions.get(&key).map_or(0, |known| known.end);
        // What producers may have to send again stays, as in any log that is kept for longer than a retry takes.
        let to = self.random.below((end - 150).max(0) as u64 + 1) as i64;
        if matches!(self.clients.all[client].role, Role::Trimmer { asked: None }) {
            let id = self.ask_as(client, leader, Ask::Delete(key, to));
            self.clients.all[client].role = Role::Trimmer { asked: Some(id) };
        }
    }

    /// The reader has read all that is committed.
    pub fn readers_done(&self) -> bool {
        self.clients.all.iter().all(|client| match &client.role {
            Role::Reader { key, position, .. } => {
                self.oracle.partitions.get(&(self.clients.topic, *key)).is_none_or(|known| *position >= known.end)
            }
            _ => true,
        })
    }

    /// Records that make the topics: an offsets topic of one partition, and the one that clients write to.
    pub fn topics(&self) -> Vec<klamm_metadata::MetadataRecord> {
        use klamm_protocol::messages::{ConfigRecord, PartitionRecord, TopicRecord};
        let mut records = Vec::new();
        let all: Vec<i32> = (0..3).collect();
        let topics =
            [(TOPIC, self.clients.topic, self.plan.partitions), (OFFSETS_TOPIC, self.clients.offsets_topic, 1)];
        for (name, topic_id, partitions) in topics {
            records.push(TopicRecord { name: name.into(), topic_id, ..Default::default() }.into());
            for partition_id in 0..partitions {
                let mut replicas = all.clone();
                replicas.rotate_left(partition_id as usize % 3);
                let directories =
                    replicas.iter().map(|id| self.meta.image.broker(*id).map_or(Uuid::ZERO, |b| b.default_directory()));
                let record = PartitionRecord {
                    partition_id,
                    topic_id,
                    directories: directories.collect(),
                    isr: replicas.clone(),
                    leader: replicas[0],
                    leader_epoch: 0,
                    partition_epoch: 0,
                    replicas,
                    ..Default::default()
                };
                records.push(record.into());
            }
            // The coordinator's batches are larger than those of clients.
            let segment_bytes = self.plan.segment_bytes.max(if name == TOPIC { 0 } else { 2_000 });
            for (key, value) in [("internal.segment.bytes", segment_bytes), ("index.interval.bytes", 150)] {
                let config = ConfigRecord {
                    resource_type: 2,
                    resource_name: name.into(),
                    name: key.into(),
                    value: Some(value.to_string()),
                    ..Default::default()
                };
                records.push(config.into());
            }
        }
        records
    }
}
