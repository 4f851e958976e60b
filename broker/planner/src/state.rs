//! The cluster while it is being planned: brokers and partitions by number, and what each broker bears.
//!
//! Brokers are numbered by rising id and partitions by topic and index, so that nothing depends on the order in which
//! the facts came. Invariant: [`State::relocate`] and its kin are the only ways to change replicas, and keep the sums.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{Error, Facts, Partition, Wish};
use crate::plan::Reason;

/// The per-topic table is left out beyond this many entries: it only breaks ties.
const TOPIC_TABLE_MAX: usize = 1 << 24;

/// A broker by number.
pub(crate) struct Node {
    pub id: i32,
    pub rack: usize,
    /// It may be the preferred leader.
    pub leads: bool,
    /// It may get replicas.
    pub receives: bool,
    pub alive: bool,
    pub draining: bool,
    pub maintained: bool,
    /// Partitions of which it is to hold a replica, in no order.
    pub holds: Vec<usize>,
    /// Partitions of which it is the preferred leader.
    pub leaders: usize,
    pub bytes: u128,
}

/// A partition by number.
pub(crate) struct Part<'a> {
    pub facts: &'a Partition,
    pub topic: usize,
    /// Numbers of the brokers that are to hold it, the preferred leader first.
    pub replicas: Vec<usize>,
    /// Where each of them has it among what it holds.
    places: Vec<usize>,
    /// How many replicas it shall have.
    pub wanted: usize,
    /// Whether it may be changed.
    pub movable: bool,
    /// Whether it is meant to move if need be, and can't: no live replica is in sync.
    pub stuck: bool,
    /// Why it was changed first.
    pub reason: Option<Reason>,
}

pub(crate) struct State<'a> {
    pub nodes: Vec<Node>,
    pub parts: Vec<Part<'a>>,
    /// The size of each partition, by its own: what is looked at most, close together.
    pub sizes: Vec<u64>,
    /// How often anything was changed.
    pub changes: u64,
    /// How many partitions of a topic each broker holds: by topic, then by broker.
    topic_table: Vec<u32>,
}

impl<'a> State<'a> {
    pub fn new(facts: &'a Facts, wish: &Wish) -> Result<Self, Error> {
        let nodes = nodes(facts)?;
        let number: BTreeMap<i32, usize> = nodes.iter().enumerate().map(|(n, node)| (node.id, n)).collect();
        let mut sorted: Vec<&Partition> = facts.partitions.iter().collect();
        sorted.sort_by(|a, b| (a.topic.as_str(), a.index).cmp(&(b.topic.as_str(), b.index)));
        check_topics(&sorted, wish)?;
        let mut parts: Vec<Part<'_>> = Vec::with_capacity(sorted.len());
        for partition in sorted {
            let topic = match parts.last() {
                Some(last) if last.facts.topic == partition.topic && last.facts.index == partition.index => {
                    return Err(Error::PartitionTwice(partition.topic.clone(), partition.index));
                }
                Some(last) => last.topic + usize::from(last.facts.topic != partition.topic),
                None => 0,
            };
            parts.push(part(partition, topic, wish, &nodes, &number)?);
        }
        let topics = parts.last().map_or(0, |last| last.topic + 1);
        let entries = topics.checked_mul(nodes.len()).filter(|entries| *entries <= TOPIC_TABLE_MAX).unwrap_or(0);
        let mut state = Self { nodes, parts: Vec::new(), sizes: Vec::new(), changes: 0, topic_table: vec![0; entries] };
        state.sizes = parts.iter().map(|part| part.facts.bytes).collect();
        state.parts = parts;
        for p in 0..state.parts.len() {
            for position in 0..state.parts[p].replicas.len() {
                let (part, n) = (&state.parts[p], state.parts[p].replicas[position]);
                state.count(part.topic, part.facts.bytes, position, n, true);
                let place = state.take_up(p, n);
                state.parts[p].places.push(place);
            }
        }
        Ok(state)
    }

    /// How many replicas a broker bears.
    pub fn load(&self, n: usize) -> usize {
        self.nodes[n].holds.len()
    }

    /// How many partitions of a topic a broker holds; always 0 where there are too many topics to count.
    pub fn of_topic(&self, topic: usize, n: usize) -> u32 {
        self.topic_table.get(topic * self.nodes.len() + n).copied().unwrap_or(0)
    }

    /// The brokers that may get replicas.
    pub fn receivers(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].receives).collect()
    }

    pub fn holds(&self, p: usize, n: usize) -> bool {
        self.parts[p].replicas.contains(&n)
    }

    pub fn leads(&self, p: usize, n: usize) -> bool {
        self.parts[p].replicas.first() == Some(&n)
    }

    /// How many replicas of a partition are in a rack.
    pub fn in_rack(&self, p: usize, rack: usize) -> usize {
        self.parts[p].replicas.iter().filter(|n| self.nodes[**n].rack == rack).count()
    }

    /// Whether a replica may go from one broker to another, and the racks stay as good as they are.
    pub fn fits(&self, p: usize, from: usize, to: usize) -> bool {
        let (old, new) = (self.nodes[from].rack, self.nodes[to].rack);
        self.nodes[to].receives && !self.holds(p, to) && (old == new || self.in_rack(p, new) < self.in_rack(p, old))
    }

    /// Puts one broker in the place of another.
    pub fn relocate(&mut self, p: usize, from: usize, to: usize, reason: Reason) {
        let part = &mut self.parts[p];
        let Some(position) = part.replicas.iter().position(|n| *n == from) else { return };
        part.replicas[position] = to;
        part.reason.get_or_insert(reason);
        self.changes += 1;
        let (topic, bytes, place) = (part.topic, part.facts.bytes, part.places[position]);
        self.let_go(from, place);
        self.parts[p].places[position] = self.take_up(p, to);
        self.count(topic, bytes, position, from, false);
        self.count(topic, bytes, position, to, true);
    }

    /// Adds a broker as the last replica.
    pub fn add(&mut self, p: usize, n: usize, reason: Reason) {
        let part = &mut self.parts[p];
        let position = part.replicas.len();
        part.replicas.push(n);
        part.reason.get_or_insert(reason);
        self.changes += 1;
        let (topic, bytes) = (part.topic, part.facts.bytes);
        let place = self.take_up(p, n);
        self.parts[p].places.push(place);
        self.count(topic, bytes, position, n, true);
    }

    /// Drops a replica; the next one becomes the preferred leader where it was that.
    pub fn drop_replica(&mut self, p: usize, n: usize, reason: Reason) {
        let part = &mut self.parts[p];
        let Some(position) = part.replicas.iter().position(|other| *other == n) else { return };
        part.replicas.remove(position);
        let place = part.places.remove(position);
        part.reason.get_or_insert(reason);
        self.changes += 1;
        let heir = part.replicas.first().copied().filter(|_| position == 0);
        let (topic, bytes) = (part.topic, part.facts.bytes);
        self.let_go(n, place);
        self.count(topic, bytes, position, n, false);
        if let Some(heir) = heir {
            self.nodes[heir].leaders += 1;
        }
    }

    /// Makes one of its replicas the preferred leader; the one that was takes its place.
    pub fn promote(&mut self, p: usize, n: usize, reason: Reason) {
        let part = &mut self.parts[p];
        let Some(position) = part.replicas.iter().position(|other| *other == n) else { return };
        part.reason.get_or_insert(reason);
        self.changes += 1;
        self.nodes[part.replicas[0]].leaders -= 1;
        self.nodes[n].leaders += 1;
        part.replicas.swap(0, position);
        part.places.swap(0, position);
    }

    /// A broker holds one partition more; says where.
    fn take_up(&mut self, p: usize, n: usize) -> usize {
        let holds = &mut self.nodes[n].holds;
        holds.push(p);
        holds.len() - 1
    }

    /// A broker no longer holds what it had at this place; its last one gets the place.
    fn let_go(&mut self, n: usize, place: usize) {
        let holds = &mut self.nodes[n].holds;
        holds.swap_remove(place);
        let Some(p) = holds.get(place) else { return };
        let last = &mut self.parts[*p];
        if let Some(position) = last.replicas.iter().position(|other| *other == n) {
            last.places[position] = place;
        }
    }

    fn count(&mut self, topic: usize, bytes: u64, position: usize, n: usize, gets: bool) {
        let at = topic * self.nodes.len() + n;
        let node = &mut self.nodes[n];
        let entry = self.topic_table.get_mut(at);
        let leads = usize::from(position == 0);
        if gets {
            node.bytes += u128::from(bytes);
            node.leaders += leads;
            entry.into_iter().for_each(|entry| *entry += 1);
        } else {
            node.bytes -= u128::from(bytes);
            node.leaders -= leads;
            entry.into_iter().for_each(|entry| *entry -= 1);
        }
    }
}

/// The brokers that the facts name, and those that only partitions do.
fn nodes(facts: &Facts) -> Result<Vec<Node>, Error> {
    let mut known: BTreeMap<i32, Option<&crate::Broker>> = BTreeMap::new();
    for broker in &facts.brokers {
        if known.insert(broker.id, Some(broker)).is_some() {
            return Err(Error::BrokerTwice(broker.id));
        }
    }
    for partition in &facts.partitions {
        for id in partition.replicas.iter().chain(partition.moving_to.iter().flatten()) {
            known.entry(*id).or_insert(None);
        }
    }
    let mut racks: BTreeMap<&str, usize> = BTreeMap::new();
    for rack in known.values().flatten().filter_map(|broker| broker.rack.as_deref()) {
        let next = racks.len();
        racks.entry(rack).or_insert(next);
    }
    let named = racks.len();
    let node = |(n, (id, broker)): (usize, (i32, Option<&crate::Broker>))| {
        let rack = broker.and_then(|broker| racks.get(broker.rack.as_deref()?)).copied();
        let (alive, cordoned, draining) = broker.map_or((false, false, false), |b| (b.alive, b.cordoned, b.draining));
        let maintained = broker.is_some_and(|b| b.maintained);
        Node {
            id,
            rack: rack.unwrap_or(named + n),
            leads: alive && !draining,
            receives: alive && !draining && !cordoned,
            alive,
            draining,
            maintained,
            holds: Vec::new(),
            leaders: 0,
            bytes: 0,
        }
    };
    Ok(known.into_iter().enumerate().map(node).collect())
}

fn check_topics(sorted: &[&Partition], wish: &Wish) -> Result<(), Error> {
    for topic in wish.topics.iter().flatten().chain(wish.replication.keys()) {
        let at = sorted.partition_point(|p| p.topic < *topic);
        if sorted.get(at).is_none_or(|p| p.topic != *topic) {
            return Err(Error::UnknownTopic(topic.clone()));
        }
    }
    match wish.replication.iter().find(|(_, wanted)| **wanted == 0) {
        Some((topic, _)) => Err(Error::NoReplicasWanted(topic.clone())),
        None => Ok(()),
    }
}

fn part<'a>(
    facts: &'a Partition,
    topic: usize,
    wish: &Wish,
    nodes: &[Node],
    number: &BTreeMap<i32, usize>,
) -> Result<Part<'a>, Error> {
    let target = facts.moving_to.as_ref().unwrap_or(&facts.replicas);
    let distinct = |ids: &[i32]| ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
    if target.is_empty() || !distinct(target) || !distinct(&facts.replicas) {
        return Err(Error::BadReplicas(facts.topic.clone(), facts.index));
    }
    let replicas: Vec<usize> = target.iter().filter_map(|id| number.get(id).copied()).collect();
    let in_scope = wish.topics.as_ref().is_none_or(|topics| topics.contains(&facts.topic));
    let wanted = wish.replication.get(&facts.topic).copied().filter(|_| in_scope).unwrap_or(replicas.len());
    // What moves already is left to arrive, unless it would have to leave again.
    let astray = wanted != replicas.len() || replicas.iter().any(|n| nodes[*n].draining);
    let settled = facts.moving_to.is_none() || astray;
    // Without a replica in sync that is up there is nothing to copy from, and the move would never end.
    let source = facts.isr.iter().any(|id| number.get(id).is_some_and(|n| nodes[*n].alive));
    let (movable, stuck) = (in_scope && settled && source, in_scope && !source);
    let places = Vec::with_capacity(replicas.len());
    Ok(Part { facts, topic, replicas, places, wanted, movable, stuck, reason: None })
}
