//! Which broker is restarted next, or why none is: a pure function of what is seen.
//!
//! Nothing is remembered between two looks, so an operator that dies in the middle goes on where it was, and nothing
//! counts attempts. One broker is away at a time. A pod that cannot run anyway is replaced first, since only that can help
//! it; a broker that has come back with the new description and is not in sync holds up all others; the active controller
//! comes last. Whether stopping a broker would hurt is asked of the brokers (`safety`), and no answer means yes.

pub mod safety;
pub mod window;

#[cfg(test)]
mod property_test;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use window::Window;

/// How long a broker that runs by an old description may be unready before it is taken for one that only a restart helps:
/// it may be recovering its log.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// How a broker's pod stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pod {
    /// There is none; the StatefulSet makes it.
    Missing,
    /// It is being deleted.
    Going,
    /// It cannot run: its container ends again and again, its image cannot be had, no node takes it.
    Stuck,
    /// It runs, and starts, recovers or catches up; for how long.
    Unready(Duration),
    /// It is in sync.
    Ready,
}

/// Why a broker has to be restarted.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// The Cluster describes it otherwise.
    Description,
    /// Its pod carries the annotation `klamm.dev/restart`.
    Asked,
    /// Its volume has grown, and its file system does when the pod starts.
    Volume,
    /// This version of the operator makes other pods of the same description.
    Operator,
}

impl Reason {
    /// The one that is meant by such a word.
    pub fn of(word: &str) -> Option<Self> {
        [Reason::Description, Reason::Asked, Reason::Volume, Reason::Operator]
            .into_iter()
            .find(|one| one.word() == word)
    }

    /// One word, for `status.operation.reason` and Events.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Description => "TemplateChanged",
            Reason::Asked => "RestartAsked",
            Reason::Volume => "VolumeGrown",
            Reason::Operator => "OperatorUpgraded",
        }
    }
}

/// A broker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broker {
    /// How its pod stands.
    pub pod: Pod,
    /// Why it has to be restarted, if it has to.
    pub due: Option<Reason>,
    /// How many partitions it leads.
    pub leaders: usize,
}

/// What is seen of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// All brokers that there should be, by id.
    pub brokers: BTreeMap<i32, Broker>,
    /// The active controller, if it is known.
    pub controller: Option<i32>,
    /// Whether new pods would be as described: the StatefulSet's controller has seen the newest template.
    pub settled: bool,
    /// Whether nothing is to be changed.
    pub paused: bool,
    /// Whether brokers are restarted because of the operator's version alone.
    pub upgrade_rolls: bool,
    /// When brokers may be restarted; always, when there is none.
    pub windows: Vec<Window>,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next {
    /// All run as described.
    Nothing,
    /// Delete this one's pod: it does not run.
    Replace(i32),
    /// Delete the pod of the first of these that may be stopped.
    Restart(Vec<i32>),
    /// Not now.
    Wait(Wait),
}

/// Why nothing is restarted now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wait {
    /// `spec.paused`.
    Paused,
    /// Only the operator is another one.
    Deferred,
    /// New pods would still be old.
    Settling,
    /// This broker is away, or not in sync.
    Broker(i32),
    /// Outside of the windows; when the next one opens, if one does.
    Window(Option<Timestamp>),
}

impl Facts {
    /// The brokers that have to be restarted, with why.
    pub fn due(&self) -> impl Iterator<Item = (i32, Reason)> {
        self.brokers.iter().filter_map(|(id, broker)| Some((*id, broker.due?)))
    }

    /// Those of them that are restarted without anybody asking again.
    fn rolls(&self, id: i32) -> bool {
        let due = self.brokers.get(&id).and_then(|broker| broker.due);
        due.is_some_and(|reason| reason != Reason::Operator || self.upgrade_rolls)
    }

    /// See the module's head.
    pub fn next(&self, now: Timestamp) -> Next {
        let all: Vec<i32> = self.due().map(|(id, _)| id).collect();
        let due: Vec<i32> = all.iter().copied().filter(|id| self.rolls(*id)).collect();
        if all.is_empty() {
            return Next::Nothing;
        }
        if self.paused {
            return Next::Wait(Wait::Paused);
        }
        let pod = |id: &i32| self.brokers[id].pod;
        let stuck = all.iter().find(|id| pod(id) == Pod::Stuck);
        if due.is_empty() && stuck.is_none() {
            return Next::Wait(Wait::Deferred);
        }
        if !self.settled {
            return Next::Wait(Wait::Settling);
        }
        // Whyever it is old: it does not run.
        if let Some(stuck) = stuck {
            return Next::Replace(*stuck);
        }
        // One that is unready by an old description may never become ready by it. Whether that hurts is asked as ever.
        let late = |id: &i32| matches!(pod(id), Pod::Unready(since) if since >= PATIENCE);
        let away = |id: &&i32| pod(id) != Pod::Ready && !(due.contains(id) && late(id));
        if let Some(away) = self.brokers.keys().find(away) {
            return Next::Wait(Wait::Broker(*away));
        }
        if !window::open(&self.windows, now) {
            return Next::Wait(Wait::Window(window::next(&self.windows, now)));
        }
        let late: Vec<i32> = self.brokers.keys().copied().filter(late).collect();
        let mut order = if late.is_empty() { due } else { late };
        order.sort_by_key(|id| (self.controller == Some(*id), self.brokers[id].leaders, *id));
        Next::Restart(order)
    }
}
