//! Which partitions a broker holds and leads, and which are being moved: so that an event about one broker looks
//! at its own partitions and not at the cluster's.
//!
//! Kept by [`Image::apply`](crate::Image::apply) alone and a function of the partitions, so equal images have
//! equal indexes. Changes of an ISR don't touch it: only new replicas and new leaders do.

use std::ops::Bound;
use std::sync::Arc;

use klamm_protocol::Uuid;

use crate::image::{Image, NO_LEADER, Partition, Topic};
use crate::ordered::OrderedMap;

/// A broker and a partition.
type Seat = (i32, Uuid, i32);

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Index {
    replicas: OrderedMap<Seat, ()>,
    /// Partitions without a leader are led by [`NO_LEADER`].
    leaders: OrderedMap<Seat, ()>,
    reassigning: OrderedMap<(Uuid, i32), ()>,
}

impl Index {
    /// Follows a partition from `before` to `after`; None is a partition that isn't there.
    pub(crate) fn follow(&mut self, topic: Uuid, number: i32, before: Option<&Partition>, after: Option<&Partition>) {
        let replicas = |p: Option<&Partition>| p.map_or(Vec::new(), |p| p.replicas.clone());
        let (old, new) = (replicas(before), replicas(after));
        for id in old.iter().filter(|id| !new.contains(id)) {
            self.replicas.remove(&(*id, topic, number));
        }
        for id in new.iter().filter(|id| !old.contains(id)) {
            self.replicas.insert((*id, topic, number), ());
        }
        let (old, new) = (before.map(|p| p.leader), after.map(|p| p.leader));
        if old != new {
            old.and_then(|id| self.leaders.remove(&(id, topic, number)));
            new.and_then(|id| self.leaders.insert((id, topic, number), ()));
        }
        let (old, new) = (before.is_some_and(Partition::is_reassigning), after.is_some_and(Partition::is_reassigning));
        match (old, new) {
            (true, false) => drop(self.reassigning.remove(&(topic, number))),
            (false, true) => drop(self.reassigning.insert((topic, number), ())),
            _ => {}
        }
    }
}

/// A partition with its topic and number, as the index finds it.
pub type Found<'a> = (&'a Arc<Topic>, i32, &'a Arc<Partition>);

fn seats(map: &OrderedMap<Seat, ()>, broker: i32) -> impl Iterator<Item = (Uuid, i32)> {
    let from = (broker, Uuid::ZERO, i32::MIN);
    let own = map.range_from(Bound::Included(&from)).take_while(move |((id, _, _), ())| *id == broker);
    own.map(|((_, topic, number), ())| (*topic, *number)).collect::<Vec<_>>().into_iter()
}

impl Image {
    fn found<'a>(&'a self, seats: impl Iterator<Item = (Uuid, i32)> + 'a) -> impl Iterator<Item = Found<'a>> {
        let mut last: Option<&'a Arc<Topic>> = None;
        seats.filter_map(move |(id, number)| {
            if last.is_none_or(|topic| topic.id != id) {
                last = self.topic_by_id(id);
            }
            let topic = last?;
            Some((topic, number, topic.partition(number)?))
        })
    }

    /// Partitions that have a replica on a broker.
    pub fn partitions_of(&self, broker: i32) -> impl Iterator<Item = Found<'_>> {
        self.found(seats(&self.index.replicas, broker))
    }

    /// Partitions that a broker leads.
    pub fn led_by(&self, broker: i32) -> impl Iterator<Item = Found<'_>> {
        self.found(seats(&self.index.leaders, broker))
    }

    /// Whether a broker leads any partition.
    pub fn leads_any(&self, broker: i32) -> bool {
        let from = (broker, Uuid::ZERO, i32::MIN);
        let first = self.index.leaders.range_from(Bound::Included(&from)).next();
        first.is_some_and(|((id, _, _), ())| *id == broker)
    }

    /// Partitions without a leader.
    pub fn leaderless(&self) -> impl Iterator<Item = Found<'_>> {
        self.led_by(NO_LEADER)
    }

    /// Partitions that are being moved to other brokers.
    pub fn reassigning(&self) -> impl Iterator<Item = Found<'_>> {
        self.found(self.index.reassigning.iter().map(|(seat, ())| *seat))
    }
}
