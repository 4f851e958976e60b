//! A small cluster driven at random through everything that can happen to brokers and partitions, beside a model
//! that knows which replica really holds what. After each decision the invariants are checked; a seed that breaks
//! one is in the message (`MODEL_SEEDS=5000` tries more of them than usual). Each of the planted mistakes must be found by some seed, so that the checks can fail.
//!
//! In the model, what is committed is on every member of the ISR, and nowhere else unless it is copied there.

use std::collections::BTreeMap;

use klamm_protocol::messages::alter_partition_reassignments_request as reassign;
use klamm_protocol::messages::alter_partition_request::{self as alter, AlterPartitionRequest};
use klamm_protocol::messages::assign_replicas_to_dirs_request as assign;
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_registration_request::{BrokerRegistrationRequest, Listener};
use klamm_protocol::messages::create_topics_request::CreateTopicsRequest;
use klamm_protocol::messages::elect_leaders_request::ElectLeadersRequest;
use klamm_protocol::messages::incremental_alter_configs_request as configs;

use super::mistakes::{MADE, Mistake};
use super::partition_change::{RECOVERED, RECOVERING, can_lead};
use super::tests::{context, next_id};
use super::*;
use crate::image::{Entries, Image, NO_LEADER, Partition, Resource, ResourceType};
use crate::restart_safety::{Harm, restart_safety};
use crate::rules::EffectiveConfig;
use crate::state_hash;

const BROKERS: i32 = 5;
const SESSION_MS: u64 = 9_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What a replica's log really holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Holds {
    All,
    Part,
    Nothing,
}

#[derive(Clone, Debug)]
struct Node {
    up: bool,
    epoch: i64,
    disk: Uuid,
    incarnation: Uuid,
    /// Epoch that the last run wrote down when it ended in order.
    clean_epoch: i64,
}

type Key = (Uuid, i32);

struct World {
    random: Random,
    image: Image,
    log: Vec<MetadataRecord>,
    offset: i64,
    now_ms: u64,
    heartbeats: Heartbeats,
    nodes: Vec<Node>,
    holds: BTreeMap<Key, BTreeMap<i32, Holds>>,
    /// Followers that their leader has seen caught up, with the epoch they fetched under.
    caught: BTreeMap<Key, (i32, BTreeMap<i32, i64>)>,
    in_flight: Vec<AlterPartitionRequest>,
    policy: Policy,
    /// Look at what replicas hold and at nothing else.
    data_only: bool,
}

struct AllKeys;

impl ConfigRules for AllKeys {
    fn check(&self, _: &Resource, _: &Entries) -> Result<(), String> {
        Ok(())
    }

    fn is_list(&self, _: ResourceType, _: &str) -> Option<bool> {
        Some(false)
    }

    fn default_value(&self, _: ResourceType, _: &str) -> Option<String> {
        None
    }

    fn effective_topic(&self, _: &Image, _: &Entries) -> Vec<EffectiveConfig> {
        Vec::new()
    }
}

type Checked = Result<(), String>;

macro_rules! ensure {
    ($ok:expr, $($text:tt)*) => {
        if !$ok {
            return Err(format!($($text)*));
        }
    };
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let policy = Policy { min_isr: 1 + random.below(2) as i32, unclean: false };
        let image = Image::new("cluster");
        let node = |_| Node { up: false, epoch: -1, disk: next_id(), incarnation: next_id(), clean_epoch: -1 };
        let mut world = Self {
            heartbeats: Heartbeats::new(SESSION_MS, &image, 0),
            nodes: (0..BROKERS).map(node).collect(),
            random,
            image,
            log: Vec::new(),
            offset: 0,
            now_ms: 0,
            holds: BTreeMap::new(),
            caught: BTreeMap::new(),
            in_flight: Vec::new(),
            policy,
            data_only: false,
        };
        for id in 0..BROKERS {
            world.start(id).unwrap();
            world.heartbeat(id, false, false).unwrap();
        }
        for (name, factor) in [("one", 1), ("two", 2), ("three", 3), ("four", 4)] {
            let mut request = named_topics([name]);
            request.topics[0].replication_factor = factor;
            let request = CreateTopicsRequest { ..request };
            let records = create_topics(&world.image, &request, &world.context()).records;
            world.commit(records, Why::Other).unwrap();
        }
        world
    }

    fn context(&self) -> Context<'static> {
        Context { rules: &AllKeys, policy: self.policy, seed: self.offset as u64, ..context() }
    }

    fn keys(&self) -> Vec<Key> {
        self.image.topics().flat_map(|t| (0..t.partitions.len() as i32).map(|n| (t.id, n))).collect()
    }

    fn partition(&self, key: Key) -> Partition {
        Partition::clone(self.image.topic_by_id(key.0).unwrap().partition(key.1).unwrap())
    }

    fn rules(&self, key: Key) -> Policy {
        self.policy.of(&self.image, &self.image.topic_by_id(key.0).unwrap().name)
    }

    /// Runs as the broker the controller knows.
    fn runs(&self, id: i32) -> bool {
        let node = &self.nodes[id as usize];
        node.up && self.image.broker(id).is_some_and(|b| b.epoch == node.epoch)
    }

    fn commit(&mut self, records: Vec<MetadataRecord>, why: Why) -> Checked {
        ensure!(records.len() <= RECORDS_MAX, "{} records in one decision", records.len());
        let before = self.image.clone();
        let bytes = crate::record::encode(&records).map_err(|e| e.to_string())?;
        let records = crate::record::decode(&bytes).map_err(|e| e.to_string())?;
        self.image.apply_all(&records).map_err(|e| e.to_string())?;
        self.offset += 1;
        self.log.extend(records);
        for key in self.keys() {
            let old = before.topic_by_id(key.0).and_then(|t| t.partition(key.1)).map(|p| Partition::clone(p));
            self.follow(key, old.as_ref(), why)?;
            self.check(key)?;
        }
        Ok(())
    }

    /// What a change of the metadata does to the logs, and whether it may happen.
    fn follow(&mut self, key: Key, old: Option<&Partition>, why: Why) -> Checked {
        let new = self.partition(key);
        let holds = self.holds.entry(key).or_default();
        holds.retain(|id, _| new.replicas.contains(id));
        for id in &new.replicas {
            holds.entry(*id).or_insert(Holds::Nothing);
        }
        let Some(old) = old else {
            // Of a new partition there is nothing to hold.
            holds.values_mut().for_each(|h| *h = Holds::All);
            return Ok(());
        };
        if *old == new {
            return Ok(());
        }
        ensure!(new.partition_epoch > old.partition_epoch, "partition epoch {old:?} {new:?}");
        ensure!(new.leader_epoch >= old.leader_epoch, "leader epoch {old:?} {new:?}");
        ensure!(new.leader == old.leader || new.leader_epoch > old.leader_epoch, "no new epoch {old:?} {new:?}");
        let elected = new.leader != NO_LEADER && new.leader_epoch > old.leader_epoch;
        if elected && self.image.maintenance().contains_key(&new.leader) {
            let other = new.isr.iter().find(|id| self.could_lead_instead(&new, **id));
            ensure!(other.is_none(), "elected though in maintenance, instead of {other:?}: {old:?} {new:?}");
        }
        let known = old.isr.contains(&new.leader) || old.elr.contains(&new.leader);
        if elected && new.leader != old.leader && !known && why != Why::Isr {
            // One that died just now is elected like any other, until it is found out.
            let dead = !self.runs(new.leader);
            let last = old.last_known_elr == [new.leader] && (dead || self.holds[&key][&new.leader] != Holds::Nothing);
            let allowed = why == Why::Forced || self.policy_allows(key) || last;
            ensure!(allowed, "unclean election though it is disabled: {old:?} {new:?}");
            let alone = new.replicas.len() == 1;
            ensure!(new.leader_recovery_state == RECOVERING || alone, "unclean, yet recovered {new:?}");
            ensure!(new.isr == [new.leader], "in sync with an unclean leader {new:?}");
            // From now on this is what is committed.
            let holds = self.holds.get_mut(&key).unwrap();
            for (id, h) in holds.iter_mut() {
                *h = match *id == new.leader {
                    true if dead => *h,
                    true => Holds::All,
                    false => Holds::Nothing,
                };
            }
        }
        Ok(())
    }

    fn policy_allows(&self, key: Key) -> bool {
        self.rules(key).unclean
    }

    fn check(&self, key: Key) -> Checked {
        let p = self.partition(key);
        let distinct = |list: &[i32]| list.iter().collect::<std::collections::BTreeSet<_>>().len() == list.len();
        ensure!(distinct(&p.replicas) && distinct(&p.isr) && distinct(&p.elr), "twice {p:?}");
        ensure!(p.directories.len() == p.replicas.len(), "directories {p:?}");
        ensure!(p.isr.iter().chain(&p.elr).all(|id| p.replicas.contains(id)), "no replicas {p:?}");
        ensure!(p.adding_replicas.iter().chain(&p.removing_replicas).all(|id| p.replicas.contains(id)), "{p:?}");
        ensure!(!p.isr.iter().any(|id| p.elr.contains(id)), "ELR and ISR overlap {p:?}");
        ensure!((p.leader == NO_LEADER) == p.isr.is_empty(), "ISR without leader or the other way round {p:?}");
        ensure!(p.leader == NO_LEADER || p.isr.contains(&p.leader), "leader not in sync {p:?}");
        ensure!(p.isr.iter().all(|id| self.image.is_active(*id)), "in sync but not active {p:?}");
        let min = self.rules(key).effective_min_isr(p.replicas.len());
        ensure!(
            self.data_only || p.isr.len() < min || p.elr.is_empty(),
            "min ISR {min} is met, yet there is an ELR {p:?}"
        );
        if p.leader == NO_LEADER {
            let idle = p.elr.iter().find(|id| can_lead(&self.image, &p, **id));
            ensure!(idle.is_none(), "nobody leads though {idle:?} can {p:?}");
        }
        for id in p.isr.iter().chain(&p.elr).filter(|id| self.image.is_active(**id) && self.runs(**id)) {
            let holds = self.holds[&key][id];
            // The only replica can't be compared with anything, but it must not be another, empty one.
            let whole = holds == Holds::All || (p.replicas.len() == 1 && holds == Holds::Part);
            ensure!(whole, "{id} is trusted but holds {holds:?}: {p:?}");
        }
        Ok(())
    }

    fn start(&mut self, id: i32) -> Checked {
        let node = &mut self.nodes[id as usize];
        if node.up {
            return Ok(());
        }
        node.incarnation = next_id();
        let listener = Listener { name: "L".into(), host: "h".into(), port: 9092, security_protocol: 0 };
        let request = BrokerRegistrationRequest {
            broker_id: id,
            cluster_id: "cluster".into(),
            incarnation_id: node.incarnation,
            listeners: vec![listener],
            log_dirs: vec![node.disk],
            previous_broker_epoch: node.clean_epoch,
            ..Default::default()
        };
        loop {
            let alive = self.heartbeats.is_alive(&self.image, id, self.now_ms);
            let wanted = Registration::of(&self.image, &request, alive).map_err(|e| e.to_string())?;
            let decided = match register_broker(&self.image, &wanted, self.offset + 1, &self.policy) {
                Err(error) if error.code == ErrorCode::DuplicateBrokerRegistration => return Ok(()),
                other => other.map_err(|e| e.to_string())?,
            };
            self.commit(decided.records, Why::Other)?;
            if let Progress::Done(epoch) = decided.response {
                let node = &mut self.nodes[id as usize];
                (node.up, node.epoch, node.clean_epoch) = (true, epoch, -1);
                // There is nothing that an only replica could be compared with.
                let alone: Vec<Key> = self.keys().into_iter().filter(|k| self.partition(*k).replicas == [id]).collect();
                for key in alone {
                    let holds = self.holds.get_mut(&key).unwrap();
                    if holds[&id] == Holds::Part {
                        holds.insert(id, Holds::All);
                    }
                }
                return Ok(());
            }
        }
    }

    /// True when the broker may stop.
    fn heartbeat(&mut self, id: i32, want_fence: bool, want_shut_down: bool) -> Result<bool, String> {
        let node = self.nodes[id as usize].clone();
        if !node.up {
            return Ok(false);
        }
        let request = BrokerHeartbeatRequest {
            broker_id: id,
            broker_epoch: node.epoch,
            current_metadata_offset: self.offset,
            want_fence,
            want_shut_down,
            ..Default::default()
        };
        loop {
            let (image, offset) = (self.image.clone(), self.offset);
            match self.heartbeats.heartbeat(&image, &request, offset, self.now_ms, &self.policy) {
                Err(error) => {
                    ensure!(!self.runs(id) && error.code == ErrorCode::StaleBrokerEpoch, "heartbeat: {error}");
                    // Kafka's broker stops when it is told so.
                    self.nodes[id as usize].up = false;
                    return Ok(false);
                }
                Ok(decided) => {
                    self.commit(decided.records, Why::Other)?;
                    if let Progress::Done(response) = decided.response {
                        return Ok(response.should_shut_down);
                    }
                }
            }
        }
    }

    fn expire(&mut self) -> Checked {
        for id in self.heartbeats.expired(&self.image.clone(), self.now_ms) {
            let decided = fence(&self.image, id, &self.policy).map_err(|e| e.to_string())?;
            self.commit(decided.records, Why::Other)?;
        }
        Ok(())
    }

    fn crash(&mut self, id: i32) {
        let (wiped, torn) = (self.random.one_in(5), self.random.one_in(2));
        let node = &mut self.nodes[id as usize];
        if node.up {
            node.clean_epoch = -1;
        }
        node.up = false;
        if wiped {
            (node.disk, node.clean_epoch) = (next_id(), -1);
        }
        for holds in self.holds.values_mut().filter_map(|h| h.get_mut(&id)) {
            match (wiped, torn) {
                (true, _) => *holds = Holds::Nothing,
                (false, true) if node.clean_epoch == -1 && *holds == Holds::All => *holds = Holds::Part,
                _ => {}
            }
        }
    }

    fn write(&mut self, key: Key) {
        let p = self.partition(key);
        let enough = p.isr.len() >= self.rules(key).effective_min_isr(p.replicas.len());
        if p.leader == NO_LEADER || !enough || !p.isr.iter().all(|id| self.runs(*id)) {
            return;
        }
        for (id, holds) in self.holds.get_mut(&key).unwrap() {
            if !p.isr.contains(id) {
                if *holds == Holds::All {
                    *holds = Holds::Part;
                }
                if let Some((_, caught)) = self.caught.get_mut(&key) {
                    caught.remove(id);
                }
            } else {
                *holds = Holds::All;
            }
        }
    }

    fn replicate(&mut self, key: Key, id: i32) {
        let p = self.partition(key);
        if p.leader == NO_LEADER || !p.replicas.contains(&id) || !self.runs(p.leader) || !self.runs(id) {
            return;
        }
        let holds = self.holds.get_mut(&key).unwrap();
        let leaders = holds[&p.leader];
        holds.insert(id, leaders);
        let caught = self.caught.entry(key).or_insert((p.leader_epoch, BTreeMap::new()));
        if caught.0 != p.leader_epoch {
            *caught = (p.leader_epoch, BTreeMap::new());
        }
        caught.1.insert(id, self.nodes[id as usize].epoch);
    }

    /// The leader's wish for an ISR, as it may be under way for long; unless `whole` it leaves some out.
    fn propose(&mut self, key: Key, whole: bool) {
        let p = self.partition(key);
        if p.leader == NO_LEADER || !self.runs(p.leader) {
            return;
        }
        let mut members = BTreeMap::from([(p.leader, self.nodes[p.leader as usize].epoch)]);
        let caught = self.caught.get(&key).filter(|(epoch, _)| *epoch == p.leader_epoch);
        for (id, epoch) in caught.map(|(_, caught)| caught.clone()).unwrap_or_default() {
            if (whole || !self.random.one_in(4)) && p.replicas.contains(&id) {
                members.insert(id, epoch);
            }
        }
        let member = |(broker_id, broker_epoch)| alter::BrokerState { broker_id, broker_epoch };
        let partition = alter::PartitionData {
            partition_index: key.1,
            leader_epoch: p.leader_epoch,
            new_isr_with_epochs: members.into_iter().map(member).collect(),
            leader_recovery_state: RECOVERED,
            partition_epoch: p.partition_epoch,
            ..Default::default()
        };
        self.in_flight.push(AlterPartitionRequest {
            broker_id: p.leader,
            broker_epoch: self.nodes[p.leader as usize].epoch,
            topics: vec![alter::TopicData { topic_id: key.0, partitions: vec![partition] }],
        });
    }

    fn deliver(&mut self) -> Checked {
        if self.in_flight.is_empty() {
            return Ok(());
        }
        let at = self.random.below(self.in_flight.len());
        // Sometimes it comes twice.
        let request = match self.random.one_in(4) {
            true => self.in_flight[at].clone(),
            false => self.in_flight.remove(at),
        };
        match alter_partition(&self.image, &request, 3, &self.policy) {
            Ok(decided) => {
                let answer = decided.response.topics[0].partitions[0].clone();
                self.commit(decided.records, Why::Isr)?;
                let key = (request.topics[0].topic_id, answer.partition_index);
                if answer.error_code == 0 {
                    let p = self.partition(key);
                    let told = (answer.leader_id, answer.leader_epoch, answer.partition_epoch, answer.isr);
                    ensure!(
                        told == (p.leader, p.leader_epoch, p.partition_epoch, p.isr.clone()),
                        "told {told:?} {p:?}"
                    );
                }
                Ok(())
            }
            Err(error) => {
                ensure!(error.code == ErrorCode::StaleBrokerEpoch, "alter partition: {error}");
                Ok(())
            }
        }
    }

    fn configure(&mut self) -> Checked {
        let topics: Vec<String> = self.image.topics().map(|t| t.name.to_string()).collect();
        let topic = topics[self.random.below(topics.len())].clone();
        let (kind, name) = if self.random.one_in(3) { (4, String::new()) } else { (2, topic) };
        let (key, value) = match self.random.one_in(4) {
            true if kind == 2 => (policy::UNCLEAN, self.random.one_in(6).to_string()),
            _ => (policy::MIN_ISR, (1 + self.random.below(3)).to_string()),
        };
        let operation = if self.random.one_in(3) { 1 } else { 0 };
        let config = configs::AlterableConfig { name: key.into(), config_operation: operation, value: Some(value) };
        let resource =
            configs::AlterConfigsResource { resource_type: kind, resource_name: name, configs: vec![config] };
        let request = configs::IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        let records = incremental_alter_configs(&self.image, &request, &self.context()).records;
        self.commit(records, Why::Other)
    }

    fn reassign(&mut self, key: Key) -> Checked {
        let mut replicas: Vec<i32> = (0..BROKERS).filter(|_| self.random.one_in(2)).collect();
        let turn = self.random.below(replicas.len());
        replicas.rotate_left(turn);
        let replicas = Some(replicas).filter(|_| !self.random.one_in(3));
        let partition = reassign::ReassignablePartition { partition_index: key.1, replicas };
        let name = self.image.topic_by_id(key.0).unwrap().name.to_string();
        let request = reassign::AlterPartitionReassignmentsRequest {
            topics: vec![reassign::ReassignableTopic { name, partitions: vec![partition] }],
            ..Default::default()
        };
        let records = alter_partition_reassignments(&self.image, &request, &self.context()).records;
        self.commit(records, Why::Other)
    }

    fn elect(&mut self) -> Checked {
        let unclean = self.random.one_in(40);
        let request = ElectLeadersRequest { election_type: unclean.into(), ..Default::default() };
        let decided = elect_leaders(&self.image, &request, &self.context()).map_err(|e| e.to_string())?;
        self.commit(decided.records, if unclean { Why::Forced } else { Why::Other })
    }

    /// Whether a replica in sync can lead and is not in maintenance.
    fn could_lead_instead(&self, p: &Partition, id: i32) -> bool {
        can_lead(&self.image, p, id) && !self.image.maintenance().contains_key(&id)
    }

    /// A broker goes into maintenance, or time goes on until those that are end.
    fn maintain(&mut self, id: i32) -> Checked {
        let now = self.now_ms as i64;
        let over = maintenance::end_expired(&self.image, now).records;
        self.commit(over, Why::Other)?;
        let until = now + 20 * SESSION_MS as i64;
        let record = crate::dump::config_record(&Resource::broker(id), maintenance::UNTIL, Some(&until.to_string()));
        self.commit(vec![record.into()], Why::Other)?;
        let away = maintenance::lead_away(&self.image, &self.policy).records;
        self.commit(away, Why::Other)?;
        for (topic, number, p) in self.image.maintenance().keys().flat_map(|id| self.image.led_by(*id)) {
            let other = p.isr.iter().find(|id| self.could_lead_instead(p, **id));
            ensure!(other.is_none(), "{}-{number} is led in maintenance though {other:?} can: {p:?}", topic.name);
        }
        Ok(())
    }

    /// A broker whose disk is new says so.
    fn assign(&mut self, id: i32) -> Checked {
        if !self.runs(id) {
            return Ok(());
        }
        let node = self.nodes[id as usize].clone();
        let topics = self.image.partitions_of(id).filter(|(_, _, p)| p.directory(id) != node.disk);
        let topics = topics.map(|(topic, partition_index, _)| assign::TopicData {
            topic_id: topic.id,
            partitions: vec![assign::PartitionData { partition_index }],
        });
        let directory = assign::DirectoryData { id: node.disk, topics: topics.collect() };
        let request = assign::AssignReplicasToDirsRequest {
            broker_id: id,
            broker_epoch: node.epoch,
            directories: vec![directory],
        };
        let decided = assign_replicas_to_dirs(&self.image, &request, &self.policy).map_err(|e| e.to_string())?;
        self.commit(decided.records, Why::Other)
    }

    /// Stopping a broker that is called safe to stop takes nothing offline or below min ISR.
    fn foretell(&self, id: i32) -> Checked {
        if !self.image.is_active(id) {
            return Ok(());
        }
        let foretold = restart_safety(&self.image, id, &self.policy);
        let mut then = self.image.clone();
        let decided = fence(&then, id, &self.policy).map_err(|e| e.to_string())?;
        then.apply_all(&decided.records).map_err(|e| e.to_string())?;
        for key in self.keys() {
            let (old, topic) = (self.partition(key), then.topic_by_id(key.0).unwrap());
            let new = topic.partition(key.1).unwrap();
            let min = self.rules(key).effective_min_isr(old.replicas.len());
            let told = foretold.iter().find(|r| r.topic == topic.name && r.partition == key.1).map(|r| r.harm);
            if self.rules(key).unclean {
                continue;
            }
            let harm = match (old.leader, new.leader) {
                (before, NO_LEADER) if before != NO_LEADER => Some(Harm::Offline),
                (before, _) if before != NO_LEADER && old.isr.contains(&id) && new.isr.len() < min => {
                    Some(Harm::BelowMinIsr)
                }
                (NO_LEADER, _) => continue,
                _ => None,
            };
            ensure!(self.data_only || told == harm, "foretold {told:?}, came {harm:?}: {old:?} {new:?}");
        }
        Ok(())
    }

    fn step(&mut self) -> Checked {
        let id = self.random.below(BROKERS as usize) as i32;
        let keys = self.keys();
        let key = keys[self.random.below(keys.len())];
        match self.random.below(100) {
            0..12 => drop(self.heartbeat(id, false, false)?),
            12..14 => drop(self.heartbeat(id, true, false)?),
            14..18 => {
                if self.heartbeat(id, false, true)? {
                    let node = &mut self.nodes[id as usize];
                    (node.up, node.clean_epoch) = (false, node.epoch);
                }
            }
            18..22 => self.crash(id),
            22..30 => self.start(id)?,
            30..36 => {
                self.now_ms += self.random.next() % SESSION_MS;
                // Most brokers that run are heard of in time.
                for id in 0..BROKERS {
                    if !self.random.one_in(8) {
                        self.heartbeat(id, false, false)?;
                    }
                }
                self.expire()?;
            }
            36..52 => self.write(key),
            52..68 => self.replicate(key, id),
            68..76 => self.propose(key, false),
            76..86 => self.deliver()?,
            86..88 => self.configure()?,
            88..92 => self.reassign(key)?,
            92..94 => self.elect()?,
            94 => {
                let decided = balance_leaders(&self.image, 10, 3, &self.policy);
                ensure!(decided.records.len() <= 3, "balanced too much");
                self.commit(decided.records, Why::Other)?;
            }
            95 => {
                let records = elect_leaderless(&self.image, &self.policy).records;
                self.commit(records, Why::Other)?;
            }
            96 => {
                if let Ok(decided) = unregister_broker(&self.image, id, &self.policy) {
                    self.commit(decided.records, Why::Other)?;
                }
            }
            97 if self.random.one_in(2) => self.maintain(id)?,
            97 => self.assign(id)?,
            // The controller fails over: what isn't in the image is forgotten.
            98 => self.heartbeats = Heartbeats::new(SESSION_MS, &self.image, self.now_ms),
            _ => self.foretell(id)?,
        }
        Ok(())
    }

    /// A log replayed and a snapshot restored are the same state as this one.
    fn check_replay(&self) -> Checked {
        for records in [&self.log, &self.image.to_records()] {
            let mut image = Image::new("cluster");
            image.apply_all(records).map_err(|e| e.to_string())?;
            ensure!(image == self.image, "replay differs");
            ensure!(state_hash(&image) == state_hash(&self.image), "hash differs");
        }
        Ok(())
    }

    /// With every broker up again, all that can have a leader has one, and all replicas come in.
    fn heal(&mut self) -> Checked {
        self.in_flight.clear();
        for _ in 0..3 {
            self.now_ms += SESSION_MS;
            self.expire()?;
            for id in 0..BROKERS {
                // Only a new incarnation ends a controlled shutdown.
                if self.image.broker(id).is_some_and(|b| b.in_controlled_shutdown) {
                    self.nodes[id as usize].up = false;
                }
                self.start(id)?;
                self.heartbeat(id, false, false)?;
            }
        }
        for key in self.keys() {
            for _ in 0..3 {
                for id in 0..BROKERS {
                    self.replicate(key, id);
                }
                self.propose(key, true);
                while !self.in_flight.is_empty() {
                    self.deliver()?;
                }
            }
            let p = self.partition(key);
            ensure!(p.leader == NO_LEADER || p.isr.len() == p.replicas.len(), "healed, yet {p:?}");
            ensure!(p.leader == NO_LEADER || !p.is_reassigning(), "healed, yet moving {p:?}");
        }
        Ok(())
    }
}

/// What a change of partitions is due to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Why {
    Isr,
    /// An administrator asked for an unclean election.
    Forced,
    Other,
}

fn run(seed: u64, steps: usize, data_only: bool) -> Result<World, String> {
    let mut world = World::new(seed);
    world.data_only = data_only;
    let told = |step: usize, error: String| format!("seed {seed}, step {step}: {error}");
    for step in 0..steps {
        world.step().map_err(|error| told(step, error))?;
    }
    world.check_replay().map_err(|error| told(steps, error))?;
    world.heal().map_err(|error| told(steps, error))?;
    Ok(world)
}

#[test]
fn whatever_happens_the_invariants_hold() {
    let (mut led, mut all) = (0, 0);
    let seeds = std::env::var("MODEL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        let world = run(seed, 400, false).unwrap_or_else(|error| panic!("{error}"));
        all += world.keys().len();
        led += world.keys().into_iter().filter(|key| world.partition(*key).leader != NO_LEADER).count();
    }
    assert!(led * 3 > all, "only {led} of {all} partitions survived: the runs are too rough to mean much");
}

#[test]
fn each_planted_mistake_is_found() {
    let lost = "is trusted but holds";
    for (mistake, expected) in [
        (Mistake::ElrNeverVoid, lost),
        (Mistake::UncleanShutdownTrusted, lost),
        (Mistake::StaleJoinerAccepted, lost),
        (Mistake::StaleIsrAccepted, lost),
        (Mistake::ElrOutlivesMinIsr, lost),
        (Mistake::NewDiskTrusted, "unclean election though it is disabled"),
        (Mistake::AlwaysUnclean, "unclean election though it is disabled"),
        (Mistake::FencedLeaderStays, "in sync but not active"),
        (Mistake::ElrOverlaps, "ELR and ISR overlap"),
        (Mistake::MaintenanceIgnored, "in maintenance"),
    ] {
        MADE.set(Some(mistake));
        let wrong = (0..1000).filter_map(|seed| run(seed, 300, true).err());
        let found = wrong.into_iter().find(|error| error.contains(expected));
        MADE.set(None);
        assert!(found.is_some(), "nobody notices {mistake:?}");
    }
}
