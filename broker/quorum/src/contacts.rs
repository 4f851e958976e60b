//! Who was heard of when: the leader's view of its followers and observers, a follower's view of its leader.
//!
//! Elections, the check that a leader still has a majority, and DescribeQuorum's times are answered from here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::{LogId, Voter, term_of};

/// Observers that stay away this long are forgotten.
const FORGET: Duration = Duration::from_secs(300);
/// Observers that are remembered besides those that are registered: anyone can claim to be one.
const STRANGERS_MAX: usize = 256;

/// What is known of a node.
#[derive(Clone, Debug, Default)]
pub struct Contact {
    pub voter: Voter,
    /// When it last answered, or asked.
    pub heard: Option<Instant>,
    /// The newest moment at which it had everything that was in the log then.
    pub caught_up: Option<Instant>,
    /// The last index it is known to have.
    pub last: Option<u64>,
    /// In which term it confirmed which index, at most.
    confirmed: Option<(u64, u64)>,
}

#[derive(Default)]
struct Known {
    members: BTreeMap<i32, Contact>,
    observers: BTreeMap<i32, Contact>,
    /// Ids of the registered brokers, as far as this node was told.
    registered: BTreeSet<i32>,
    leader_heard: Option<Instant>,
}

/// See the module's head.
#[derive(Default)]
pub struct Contacts(Mutex<Known>);

impl Contacts {
    /// A message of the leader arrived.
    pub fn leader_heard(&self) {
        self.0.lock().leader_heard = Some(Instant::now());
    }

    /// When the leader was last heard.
    pub fn leader(&self) -> Option<Instant> {
        self.0.lock().leader_heard
    }

    /// A member answered; `asked` is when it was asked.
    pub fn answered(&self, id: i32, voter: &Voter, asked: Instant) {
        let mut known = self.0.lock();
        let contact = member(&mut known, id, voter);
        contact.heard = contact.heard.max(Some(asked));
    }

    /// A member confirmed, in `term`, to have everything up to `last`; the log ended at `end` when it was asked.
    pub fn confirmed(&self, id: i32, voter: &Voter, asked: Instant, term: u64, last: Option<LogId>, end: Option<u64>) {
        let mut known = self.0.lock();
        let contact = member(&mut known, id, voter);
        contact.heard = contact.heard.max(Some(asked));
        let index = last.map(|id| id.index);
        if let Some(index) = index {
            let before = contact.confirmed.filter(|(t, _)| *t == term).map_or(0, |(_, i)| i);
            contact.confirmed = Some((term, index.max(before)));
        }
        contact.last = index;
        if index >= end {
            contact.caught_up = contact.caught_up.max(Some(asked));
        }
    }

    /// Whether a member says that it lacks what it confirmed in this very term: it lost its log.
    pub fn lost_log(&self, id: i32, voter: &Voter, term: u64, prev: Option<LogId>) -> bool {
        let known = self.0.lock();
        let Some(contact) = known.members.get(&id).filter(|c| c.voter.directory_id == voter.directory_id) else {
            return false;
        };
        contact.confirmed.is_some_and(|(t, i)| t == term && prev.is_some_and(|p| p.index <= i && term_of(&p) <= t))
    }

    /// An observer asked for what lies behind `last`; the log ends at `end`.
    pub fn observed(&self, id: i32, voter: Voter, last: Option<u64>, end: Option<u64>) {
        let now = Instant::now();
        let mut known = self.0.lock();
        known.make_room(id);
        let contact = known.observers.entry(id).or_default();
        if contact.voter.directory_id != voter.directory_id {
            *contact = Contact::default();
        }
        contact.voter = voter;
        contact.heard = Some(now);
        contact.last = last;
        if last >= end {
            contact.caught_up = Some(now);
        }
    }

    /// Which brokers are registered: strangers don't push them out.
    pub fn registered(&self, ids: BTreeSet<i32>) {
        self.0.lock().registered = ids;
    }

    /// A member under its directory id.
    pub fn member(&self, id: i32, voter: &Voter) -> Option<Contact> {
        self.0.lock().members.get(&id).filter(|c| c.voter.directory_id == voter.directory_id).cloned()
    }

    /// The observers heard of lately.
    pub fn observers(&self) -> Vec<(i32, Contact)> {
        let mut known = self.0.lock();
        known.observers.retain(|_, c| c.heard.is_some_and(|at| at.elapsed() < FORGET));
        known.observers.iter().map(|(id, c)| (*id, c.clone())).collect()
    }
}

impl Known {
    /// Makes room for observer `id` unless it has a place: the stranger that was silent for longest goes.
    fn make_room(&mut self, id: i32) {
        if self.observers.contains_key(&id) || self.registered.contains(&id) {
            return;
        }
        let strangers = || self.observers.iter().filter(|(id, _)| !self.registered.contains(id));
        if strangers().count() >= STRANGERS_MAX
            && let Some(oldest) = strangers().min_by_key(|(_, c)| c.heard).map(|(id, _)| *id)
        {
            self.observers.remove(&oldest);
        }
    }
}

fn member<'a>(known: &'a mut Known, id: i32, voter: &Voter) -> &'a mut Contact {
    let contact = known.members.entry(id).or_default();
    if contact.voter.directory_id != voter.directory_id {
        *contact = Contact::default();
    }
    contact.voter = voter.clone();
    contact
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(contacts: &Contacts, id: i32) {
        contacts.observed(id, Voter::default(), None, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_are_few_and_push_out_no_registered_broker() {
        let contacts = Contacts::default();
        contacts.registered([1, 2].into());
        for id in 1..=3 {
            observe(&contacts, id);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        for id in 1_000..11_000 {
            observe(&contacts, id);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let ids: Vec<i32> = contacts.observers().into_iter().map(|(id, _)| id).collect();
        let newest = 11_000 - STRANGERS_MAX as i32..11_000;
        assert_eq!(ids, [1, 2].into_iter().chain(newest).collect::<Vec<_>>());
        // Not even when it comes back while there are many.
        contacts.registered([1, 2, 3].into());
        observe(&contacts, 3);
        assert_eq!(contacts.observers().len(), STRANGERS_MAX + 3);
    }
}
