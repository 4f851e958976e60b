//! How many consumers a group is to have, by how far it is behind: a pure function of what is seen.
//!
//! A partition is read by one member, so its records ask for one consumer at most. More and fewer are asked for only when
//! that was wanted for a whole window, and then so many as were wanted all the time: the least of it for more, the most of
//! it for fewer. Zero is wanted only while nothing is unread and every partition's records would count; from zero any
//! record brings consumers back at once. What is not seen never takes consumers away.
//!
//! What is to be noted is noted before the number is set.

use std::time::Duration;

use jiff::Timestamp;

/// How soon to look again at the latest.
pub const LOOK: Duration = Duration::from_secs(10);
/// A window counts only while somebody looks: that is noted so often at the most.
const NOTED: Duration = Duration::from_secs(30);
/// And begins anew after nobody has looked for so long, or for half of it.
const UNWATCHED: Duration = Duration::from_secs(120);

/// What is wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Never fewer.
    pub least: i32,
    /// Never more.
    pub most: i32,
    /// Unread records that ask for one consumer.
    pub per_replica: i64,
    /// Unread records that bring consumers back from zero. Fewer do so when they are as old as `down`.
    pub wakes_at: i64,
    /// For how long more have to be wanted.
    pub up: Duration,
    /// For how long fewer have to be wanted.
    pub down: Duration,
    /// Whether there may be more than there are partitions.
    pub idle: bool,
}

/// What is seen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// Unread records of each partition that can be seen.
    pub lags: Vec<i64>,
    /// The age of the oldest of them.
    pub age: Option<Duration>,
    /// Partitions of which nobody knows what is unread: without a commit, and with none to begin at.
    pub blind: usize,
    /// Whether there are partitions that cannot be seen.
    pub unseen: bool,
    /// Members of the group.
    pub members: usize,
    /// How many pods the target is to have.
    pub asked: i32,
    /// How many it has.
    pub there: i32,
    /// What was noted at the last look.
    pub pending: Option<Pending>,
}

/// A change that is wanted, and has to be for a while.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pending {
    /// How many are asked for since.
    pub of: i32,
    /// How many were wanted all the time.
    pub to: i32,
    /// Since when.
    pub since: Timestamp,
    /// When somebody has looked.
    pub looked: Timestamp,
}

/// What to ask for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// So many pods.
    pub replicas: i32,
    /// Why.
    pub why: Why,
    /// Why there are not to be as many as the records ask for.
    pub limit: Option<Limit>,
    /// What is to be noted.
    pub pending: Option<Pending>,
    /// When to look again.
    pub again: Duration,
}

/// Why so many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// They are as many as are wanted.
    Enough,
    /// They are kept: nobody can tell what is unread.
    Unseen,
    /// Another number is wanted, not for long enough yet; until when.
    Held(i32, Timestamp),
    /// More are wanted, and those that were asked for have not come yet.
    Coming(i32),
    /// There were none, and there is something to read.
    Woken,
    /// More are needed.
    More,
    /// Fewer do.
    Fewer,
    /// Nothing was unread for the whole window.
    Idle,
    /// There were more, or fewer, than there may be.
    Bounds,
}

/// What holds the number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// [`Policy::least`].
    Least,
    /// [`Policy::most`].
    Most,
    /// The records are in so few partitions.
    Partitions,
}

impl Facts {
    fn total(&self) -> i64 {
        self.lags.iter().fold(0, |sum, lag| sum.saturating_add((*lag).max(0)))
    }

    /// Whether nobody knows if something is unread.
    fn unsure(&self) -> bool {
        self.blind > 0 || self.lags.is_empty()
    }

    /// The most that there may be. What a person wrote as the least counts more than how many can read.
    fn most(&self, policy: &Policy) -> i32 {
        let readers = match self.lags.len() {
            _ if policy.idle || self.unseen => i32::MAX,
            // Of what it reads nothing is known yet.
            0 => 1,
            some => i32::try_from(some).unwrap_or(i32::MAX),
        };
        readers.min(policy.most).max(policy.least).max(1)
    }

    /// How many are wanted now, within bounds, and what holds them there.
    fn wanted(&self, policy: &Policy) -> (i32, Option<Limit>) {
        let per = policy.per_replica.max(1);
        let replicas = |records: i64| i32::try_from(records.div_euclid(per) + i64::from(records % per > 0));
        let total = self.total();
        let all = replicas(total).unwrap_or(i32::MAX);
        let read = match policy.idle {
            true => all,
            false => {
                let shares = self.lags.iter().fold(0_i64, |sum, lag| sum.saturating_add((*lag).clamp(0, per)));
                replicas(shares).unwrap_or(i32::MAX)
            }
        };
        let wakes = self.asked > 0 || total >= policy.wakes_at || self.age.is_some_and(|age| age >= policy.down);
        let needed = match total {
            1.. if wakes => read.max(1),
            _ => i32::from(self.unsure()),
        };
        let wanted = needed.min(self.most(policy)).max(policy.least).max(0);
        let limit = match wanted {
            _ if needed < wanted => Some(Limit::Least),
            _ if wanted < needed && wanted >= policy.most => Some(Limit::Most),
            _ if wanted < all && needed > 0 => Some(Limit::Partitions),
            _ => None,
        };
        (wanted, limit)
    }

    /// See the module's head.
    pub fn next(&self, policy: &Policy, now: Timestamp) -> Answer {
        let (wanted, limit) = self.wanted(policy);
        let asked = self.asked;
        let at_once = |replicas, why| Answer { replicas, why, limit, pending: None, again: LOOK };
        if asked == 0 && wanted > 0 {
            return at_once(wanted, if policy.least > 0 { Why::Bounds } else { Why::Woken });
        }
        // That fewer can read than there are takes nobody away at once: the group may be about to read another topic.
        let (least, most) = (policy.least.max(0), policy.most.max(policy.least).max(0));
        if asked < least || asked > most {
            return at_once(asked.clamp(least, most), Why::Bounds);
        }
        if wanted == asked {
            return at_once(asked, Why::Enough);
        }
        // What cannot be seen may be unread.
        if wanted < asked && (self.unseen || self.lags.is_empty()) {
            return at_once(asked, Why::Unseen);
        }
        let window = if wanted > asked { policy.up } else { policy.down };
        let pending = self.pending(wanted, window, now);
        let left = window.saturating_sub(since(pending.since, now));
        // Those that are yet to come may be enough; and where nobody comes, more would not either.
        let coming = wanted > asked && (self.there < asked || self.members == 0);
        let held = |why, again| Answer { replicas: asked, why, limit, pending: Some(pending.clone()), again };
        if coming {
            return held(Why::Coming(pending.to), LOOK);
        }
        if !left.is_zero() {
            let until = now.saturating_add(left).unwrap_or(now);
            return held(Why::Held(pending.to, until), left.clamp(Duration::from_secs(1), LOOK));
        }
        let why = match pending.to {
            0 => Why::Idle,
            to if to > asked => Why::More,
            _ => Why::Fewer,
        };
        at_once(pending.to, why)
    }

    /// What was noted, with this look.
    fn pending(&self, wanted: i32, window: Duration, now: Timestamp) -> Pending {
        let fresh = Pending { of: self.asked, to: wanted, since: now, looked: now };
        let up = wanted > self.asked;
        let goes_on = |noted: &&Pending| {
            let watched = now >= noted.looked && since(noted.looked, now) <= UNWATCHED.max(window / 2);
            noted.of == self.asked && (noted.to > self.asked) == up && noted.to != noted.of && watched
        };
        let Some(noted) = self.pending.as_ref().filter(goes_on) else { return fresh };
        let to = if up { noted.to.min(wanted) } else { noted.to.max(wanted) };
        let news = to != noted.to || since(noted.looked, now) >= NOTED.max(window / 8);
        Pending { to, looked: if news { now } else { noted.looked }, ..noted.clone() }
    }
}

/// How long ago something was; nothing, if it lies ahead.
fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}
