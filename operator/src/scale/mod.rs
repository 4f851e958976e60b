//! How many brokers there are to be, and what comes before there may be fewer: a pure function of what is seen.
//!
//! Out: pods are added at once, and partitions and leaders are spread onto them. In: the broker with the highest id gets
//! nothing more (it is cordoned), gives everything away, gives up its seat in the quorum, and is seen to hold nothing;
//! only then is the StatefulSet smaller by one, and once that broker is gone it is unregistered. Then comes the next.
//!
//! Whoever else decides about the StatefulSet's `replicas` makes this worthless: [`Next::replicas`] is the only place. It
//! never answers less than one below what there is. A wish that is taken back half way is seen like any other: the broker
//! that was to go is a broker that is to stay, and is let in again.

#[cfg(test)]
mod owner_test;
#[cfg(test)]
mod property_test;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// A broker: by its pod, and by what the others know of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Broker {
    /// Whether there is a pod, be it one that is going.
    pub pod: bool,
    /// Whether its process runs: it may take part at any moment.
    pub runs: bool,
    /// Whether that pod is ready.
    pub ready: bool,
    /// Whether the controller knows it.
    pub registered: bool,
    /// Whether it takes part: registered and not fenced.
    pub alive: bool,
    /// Whether nothing more is placed there.
    pub cordoned: bool,
    /// How many replicas it holds, is getting, or is giving away.
    pub holds: usize,
    /// Whether it has a vote in the quorum.
    pub voter: bool,
}

/// What the operator has begun, as it stands on the StatefulSet: everything else is seen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Begun {
    /// The broker that was cordoned to be taken away.
    pub leaving: Option<i32>,
    /// Brokers that were added or let in again, and have not got their share yet. One that went last is among them until
    /// those that stay are even: nothing is told to anybody because of that, and who was cordoned by a person stays so.
    pub joining: BTreeSet<i32>,
}

/// What is seen of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `spec.replicas`, a request.
    pub asked: i32,
    /// `spec.minReplicas`.
    pub least: i32,
    /// The largest number of replicas that a partition has.
    pub replication: i32,
    /// How many brokers the quorum began with.
    pub founders: i32,
    /// The StatefulSet's `replicas`.
    pub there: i32,
    /// All brokers that have a pod or are registered, by id.
    pub brokers: BTreeMap<i32, Broker>,
    /// What was begun.
    pub begun: Begun,
    /// Whether nobody told who holds what: then `replication` and all but the pods of `brokers` say nothing.
    pub unknown: bool,
    /// Whether brokers are being restarted.
    pub rolling: bool,
    /// Whether nothing is to be changed.
    pub paused: bool,
    /// Whether new brokers get their share by themselves.
    pub spreads: bool,
}

/// What to do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Next {
    /// There are as many as there should be, and all is said and done.
    #[default]
    Nothing,
    /// Have that many pods, and note who joins.
    Add(i32),
    /// Move partitions and leaders until these have their share, then forget that they joined.
    Spread(BTreeSet<i32>),
    /// Forget that brokers joined: nothing is moved by itself.
    Joined,
    /// Let this one in again: it stays. Note that it joins, no longer that it leaves.
    Uncordon(i32),
    /// Note that this one leaves, and place nothing more on it.
    Cordon(i32),
    /// Move away what this one holds.
    Drain(i32),
    /// Give its seat in the quorum to another, or to nobody.
    GiveUpSeat(i32),
    /// Have that many pods: one less.
    Remove(i32),
    /// Have the controller forget this one.
    Unregister(i32),
    /// Not now.
    Wait(Wait),
}

/// What comes before all else, and needs nobody's answer: brokers that are `noted` and that the StatefulSet has no place
/// for were taken away by somebody else, and those that are left may be too few to say anything.
pub fn taken_away(there: i32, noted: i32, begun: &Begun) -> Option<Next> {
    (there < noted && begun.leaving.is_none()).then_some(Next::Add(noted))
}

/// Why nothing is done now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wait {
    /// `spec.paused`.
    Paused,
    /// Brokers are being restarted.
    Rolling,
    /// This broker has to be ready first.
    Ready(i32),
    /// This broker has to be gone first.
    Gone(i32),
    /// The brokers cannot be asked who holds what.
    Unknown,
}

/// Why there will not be as many brokers as are asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// `spec.minReplicas`.
    Least,
    /// A partition has more replicas than that.
    Replication,
    /// The quorum began with more than that.
    Quorum,
}

impl Facts {
    /// How many there are to be in the end, and what limits the wish.
    pub fn target(&self) -> (i32, Option<Limit>) {
        let floors =
            [(self.least, Limit::Least), (self.replication, Limit::Replication), (self.founders, Limit::Quorum)];
        // Of equal ones the first: what a person wrote says most.
        let (floor, limit) =
            floors.into_iter().reduce(|a, b| if b.0 > a.0 { b } else { a }).unwrap_or((1, Limit::Least));
        // Fewer than there should be at least is no reason to add some.
        let floor = floor.max(1).min(self.there.max(self.asked));
        if self.asked < floor { (floor, Some(limit)) } else { (self.asked, None) }
    }

    /// A broker that is not to be there any more, and is not gone without a trace.
    fn gone(&self) -> Option<(i32, &Broker)> {
        let mut beyond = self.brokers.range(self.there..);
        beyond.find(|(_, broker)| broker.pod || broker.registered || broker.holds > 0).map(|(id, broker)| (*id, broker))
    }

    /// Whether brokers go in the end, rather than come: those that the StatefulSet has no place for just now, and that are
    /// to stay, come back.
    pub fn inward(&self) -> bool {
        let (target, _) = self.target();
        self.begun.leaving.is_some_and(|id| id >= target)
            || target < self.there
            || self.brokers.range(self.there.max(target)..).next().is_some()
    }

    /// Whether something was begun that has not come to its end: then nothing else is to come between.
    pub fn under_way(&self) -> bool {
        self.begun != Begun::default() || self.gone().is_some()
    }

    /// See the module's head.
    pub fn next(&self) -> Next {
        let (target, _) = self.target();
        if !self.unknown && target == self.there && !self.under_way() {
            return Next::Nothing;
        }
        if self.paused {
            return Next::Wait(Wait::Paused);
        }
        if self.unknown {
            // More brokers may be just what helps; that needs nobody's answer. Somebody may have made the StatefulSet smaller:
            // those that are missing are registered still, and nobody can be told.
            return match self.asked > self.there && self.begun.leaving.is_none() {
                true => Next::Add(self.asked),
                false => Next::Wait(Wait::Unknown),
            };
        }
        // One that leaves is let in again as soon as it is to stay, whatever else goes on.
        if let Some(stays) = self.begun.leaving.filter(|id| *id < target && *id < self.there) {
            return Next::Uncordon(stays);
        }
        if let Some((id, broker)) = self.gone() {
            if broker.holds > 0 {
                // Nobody goes by this function who holds something: somebody else has made the StatefulSet smaller, or it
                // was made anew for brokers that are known. What they hold may be nowhere else, so they come back.
                return Next::Add(target.max(id + 1));
            }
            // What is still there may be writing.
            return match broker.pod || broker.alive {
                true => Next::Wait(Wait::Gone(id)),
                false => Next::Unregister(id),
            };
        }
        // It moves nothing, and whoever restarts brokers waits for those that are new.
        if target > self.there {
            return Next::Add(target);
        }
        if self.rolling {
            return Next::Wait(Wait::Rolling);
        }
        match target.cmp(&self.there) {
            Ordering::Less => self.leave(self.there - 1, target),
            _ => self.join(),
        }
    }

    fn leave(&self, id: i32, target: i32) -> Next {
        let nobody = Broker::default();
        let broker = self.brokers.get(&id).unwrap_or(&nobody);
        if !broker.registered {
            // It never took part, perhaps because no node takes it: nothing is lost with it, and nobody need be well.
            return match broker.runs || broker.holds > 0 {
                true => Next::Wait(Wait::Ready(id)),
                false => Next::Remove(self.there - 1),
            };
        }
        // Those that go as well need not be.
        if let Some(away) = (0..target).find(|other| !self.well(*other)) {
            return Next::Wait(Wait::Ready(away));
        }
        // A broker that is down cannot be told, and gets nothing.
        if self.begun.leaving != Some(id) || (broker.alive && !broker.cordoned) {
            return Next::Cordon(id);
        }
        if broker.holds > 0 {
            return Next::Drain(id);
        }
        if broker.voter {
            return Next::GiveUpSeat(id);
        }
        Next::Remove(self.there - 1)
    }

    fn well(&self, id: i32) -> bool {
        self.brokers.get(&id).is_some_and(|broker| broker.ready && broker.alive)
    }

    fn join(&self) -> Next {
        let joining: BTreeSet<i32> = self.begun.joining.range(..self.there).copied().collect();
        // What an earlier broker of that id was told, this one is told as well.
        let cordoned = |id: &&i32| self.brokers.get(id).is_some_and(|broker| broker.cordoned);
        if let Some(stays) = joining.iter().find(cordoned) {
            return Next::Uncordon(*stays);
        }
        if let Some(away) = (0..self.there).find(|id| !self.well(*id)) {
            return Next::Wait(Wait::Ready(away));
        }
        if self.spreads { Next::Spread(joining) } else { Next::Joined }
    }
}

impl Begun {
    /// What is noted once `next` has been done. `there` is the StatefulSet's `replicas` before.
    pub fn after(&self, next: &Next, there: i32) -> Self {
        let mut after = self.clone();
        match next {
            Next::Add(count) => after.joining.extend(there..*count),
            Next::Joined => {
                after.joining.clear();
                // It went otherwise: somebody else has made the StatefulSet smaller.
                after.leaving = after.leaving.filter(|id| *id < there);
            }
            Next::Uncordon(id) => {
                after.joining.insert(*id);
                after.leaving = None;
            }
            Next::Cordon(id) => {
                after.joining.remove(id);
                after.leaving = Some(*id);
            }
            Next::Remove(count) => {
                // What went was led by those that took it: all of them are made even once more.
                after.joining.retain(|id| id < count);
                after.joining.extend((*count > 0).then_some(*count));
                after.leaving = None;
            }
            Next::Nothing
            | Next::Spread(_)
            | Next::Drain(_)
            | Next::GiveUpSeat(_)
            | Next::Unregister(_)
            | Next::Wait(_) => {}
        }
        after
    }
}

impl Next {
    /// The StatefulSet's `replicas` from now on. `there` is what it is; nobody else decides about it.
    pub fn replicas(&self, there: i32) -> i32 {
        match self {
            Next::Add(count) => (*count).max(there),
            Next::Remove(count) => (*count).max(there - 1).min(there),
            _ => there,
        }
    }

    /// Whether it does something.
    pub fn acts(&self) -> bool {
        !matches!(self, Next::Nothing | Next::Wait(_))
    }
}
