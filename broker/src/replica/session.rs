//! Fetch sessions (KIP-227): what a client asked for last time, so that it need not say it again and
//! need not hear again what did not change.
//!
//! A session belongs to the client that opened it; requests of one session come one at a time. When
//! no place is free and nothing may be evicted, a fetch is simply answered without a session.
//! A follower's ends with its connection ([`Lease`]): it opens another one for each, with all its partitions in it, and
//! may do so many times within a second when leaders change.
//!
//! Invariant: a session's epoch rises by one with every incremental request that it accepts.

use std::collections::HashMap;
use std::sync::Arc;

use klamm_protocol::messages::fetch_request::{FetchPartition, FetchRequest};
use klamm_protocol::{ErrorCode, Uuid};
use parking_lot::Mutex;

use super::partition::Partition;

/// Epoch of a fetch that opens a session.
pub const EPOCH_INITIAL: i32 = 0;
/// Epoch of a fetch that wants none, and ends the one it names.
pub const EPOCH_FINAL: i32 = -1;

/// A session may be evicted by a newer one after it has been idle for this long.
const EVICTABLE_AFTER_MS: i64 = 120_000;

/// How a request names a topic: versions up to 12 by name, later ones by id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// By name.
    Name(Arc<str>),
    /// By id.
    Id(Uuid),
}

/// What the client was last told of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// High watermark.
    pub high_watermark: i64,
    /// Last stable offset.
    pub last_stable: i64,
    /// Log start offset.
    pub log_start: i64,
}

/// One partition of a session.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The topic as the client names it.
    pub topic: TopicKey,
    /// What the client wants of it.
    pub wants: FetchPartition,
    /// Found on an earlier fetch; looked up again once deleted.
    pub partition: Option<Arc<Partition>>,
    /// What it was last told; `None` forces the partition into the next answer.
    pub told: Option<Told>,
}

/// The partitions of a session, in an order that rotates.
#[derive(Debug, Default)]
pub struct Session {
    epoch: i32,
    by_id: bool,
    wanted: Vec<Wanted>,
    slots: HashMap<(TopicKey, i32), usize>,
    /// Where the next fetch begins: just behind the partition that was last given records.
    first: usize,
}

impl Session {
    fn new(by_id: bool) -> Self {
        Self { epoch: 1, by_id, ..Self::default() }
    }

    /// All partitions, beginning where the last answer ended, so that none starves.
    pub fn rotation(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, n) = (self.first, self.wanted.len());
        (0..n).map(move |i| (first + i) % n)
    }

    /// The partition in `slot`.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut Wanted> {
        self.wanted.get_mut(slot)
    }

    /// The partition in `slot`.
    pub fn get(&self, slot: usize) -> Option<&Wanted> {
        self.wanted.get(slot)
    }

    /// The next fetch begins behind `slot`.
    pub fn served(&mut self, slot: usize) {
        self.first = (slot + 1) % self.wanted.len().max(1);
    }

    /// Adds or updates the partitions that `request` names.
    pub fn update(&mut self, request: FetchRequest) {
        for topic in request.topics {
            let key = topic_key(self.by_id, topic.topic, topic.topic_id);
            for wants in topic.partitions {
                let at = (key.clone(), wants.partition);
                if let Some(wanted) = self.slots.get(&at).and_then(|slot| self.wanted.get_mut(*slot)) {
                    wanted.wants = wants;
                } else {
                    self.slots.insert(at, self.wanted.len());
                    self.wanted.push(Wanted { topic: key.clone(), wants, partition: None, told: None });
                }
            }
        }
        for topic in request.forgotten_topics_data {
            let key = topic_key(self.by_id, topic.topic, topic.topic_id);
            for partition in topic.partitions {
                self.forget(&(key.clone(), partition));
            }
        }
    }

    fn forget(&mut self, at: &(TopicKey, i32)) {
        let Some(slot) = self.slots.remove(at) else { return };
        self.wanted.swap_remove(slot);
        if let Some(moved) = self.wanted.get(slot) {
            self.slots.insert((moved.topic.clone(), moved.wants.partition), slot);
        }
        self.first = if self.wanted.is_empty() { 0 } else { self.first % self.wanted.len() };
    }
}

fn topic_key(by_id: bool, name: String, id: Uuid) -> TopicKey {
    if by_id { TopicKey::Id(id) } else { TopicKey::Name(name.into()) }
}

/// What a fetch request turned out to be.
#[derive(Debug)]
pub enum Opened {
    /// Without a session: answer everything that was asked, with session id 0.
    Sessionless(Session),
    /// The first fetch of a session: answer everything.
    Full(i32, Arc<Mutex<Session>>),
    /// A later one: answer what changed.
    Incremental(i32, Arc<Mutex<Session>>),
}

/// All sessions of the broker.
#[derive(Debug)]
pub struct Sessions {
    places: usize,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    by_id: HashMap<i32, Cached>,
    evictions: u64,
}

#[derive(Debug)]
struct Cached {
    session: Arc<Mutex<Session>>,
    last_used_ms: i64,
    partitions: usize,
}

impl Sessions {
    /// A cache of `places` sessions (`max.incremental.fetch.session.cache.slots`).
    pub fn new(places: usize) -> Self {
        Self { places, cache: Mutex::default() }
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.cache.lock().by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Finds or opens the session that `request` speaks of. `fresh_id` is a positive random number.
    ///
    /// # Errors
    /// The session is not known, or the epoch is not the next one, or the request names topics in
    /// another way than the session does.
    pub fn open(&self, request: FetchRequest, version: i16, fresh_id: i32, now_ms: i64) -> Result<Opened, ErrorCode> {
        let by_id = version >= 13;
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == EPOCH_INITIAL || epoch == EPOCH_FINAL {
            let mut cache = self.cache.lock();
            cache.by_id.remove(&id);
            let mut session = Session::new(by_id);
            session.update(request);
            let partitions = session.wanted.len();
            if epoch == EPOCH_FINAL || partitions == 0 || !cache.make_place(self.places, partitions, now_ms) {
                return Ok(Opened::Sessionless(session));
            }
            let session = Arc::new(Mutex::new(session));
            let id = (fresh_id..=i32::MAX).chain(1..).find(|id| !cache.by_id.contains_key(id)).unwrap_or(fresh_id);
            cache.by_id.insert(id, Cached { session: session.clone(), last_used_ms: now_ms, partitions });
            return Ok(Opened::Full(id, session));
        }
        let mut cache = self.cache.lock();
        let cached = cache.by_id.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        cached.last_used_ms = now_ms;
        let session = cached.session.clone();
        let mut locked = session.lock();
        if locked.epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if locked.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        locked.update(request);
        locked.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        cached.partitions = locked.wanted.len();
        if locked.wanted.is_empty() {
            cache.by_id.remove(&id);
            drop(locked);
            return Ok(Opened::Sessionless(Session::new(by_id)));
        }
        drop(locked);
        Ok(Opened::Incremental(id, session))
    }
}

/// Ends a session when it is dropped.
#[derive(Debug)]
pub struct Lease {
    sessions: Arc<Sessions>,
    id: i32,
}

impl Lease {
    /// Of the session `id`.
    pub fn new(sessions: &Arc<Sessions>, id: i32) -> Self {
        Self { sessions: sessions.clone(), id }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let ended = self.sessions.cache.lock().by_id.remove(&self.id);
        // What it holds is given back without the lock.
        drop(ended);
    }
}

impl Cache {
    /// Frees a place if need be: the least recently used session goes, if it has been idle for long
    /// or is smaller than the new one and has idled at all.
    fn make_place(&mut self, places: usize, partitions: usize, now_ms: i64) -> bool {
        if places == 0 {
            return false;
        }
        if self.by_id.len() < places {
            return true;
        }
        let oldest = self.by_id.iter().min_by_key(|(_, c)| c.last_used_ms);
        let Some((&id, cached)) = oldest else { return false };
        let idle_ms = now_ms - cached.last_used_ms;
        if idle_ms < EVICTABLE_AFTER_MS && cached.partitions >= partitions {
            return false;
        }
        self.by_id.remove(&id);
        self.evictions += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_protocol::messages::fetch_request::FetchTopic;

    fn request(id: i32, epoch: i32, topic: &str, partitions: &[i32]) -> FetchRequest {
        FetchRequest {
            session_id: id,
            session_epoch: epoch,
            topics: vec![FetchTopic {
                topic: topic.into(),
                partitions: partitions
                    .iter()
                    .map(|&partition| FetchPartition { partition, ..Default::default() })
                    .collect(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn epochs_must_follow_each_other() {
        let sessions = Sessions::new(10);
        let Ok(Opened::Full(id, _)) = sessions.open(request(0, 0, "t", &[0]), 12, 7, 0) else { panic!("full") };
        assert_eq!(id, 7);
        assert!(matches!(sessions.open(request(7, 1, "t", &[1]), 12, 9, 0), Ok(Opened::Incremental(7, _))));
        assert_eq!(sessions.open(request(7, 1, "t", &[]), 12, 9, 0).unwrap_err(), ErrorCode::InvalidFetchSessionEpoch);
        assert_eq!(sessions.open(request(7, 2, "t", &[]), 13, 9, 0).unwrap_err(), ErrorCode::FetchSessionTopicIdError);
        assert_eq!(sessions.open(request(8, 2, "t", &[]), 12, 9, 0).unwrap_err(), ErrorCode::FetchSessionIdNotFound);
    }

    #[test]
    fn a_full_cache_answers_without_a_session() {
        let sessions = Sessions::new(1);
        assert!(matches!(sessions.open(request(0, 0, "t", &[0]), 12, 1, 0), Ok(Opened::Full(..))));
        assert!(matches!(sessions.open(request(0, 0, "t", &[0]), 12, 2, 1), Ok(Opened::Sessionless(_))));
        let later = EVICTABLE_AFTER_MS + 1;
        assert!(matches!(sessions.open(request(0, 0, "t", &[0]), 12, 2, later), Ok(Opened::Full(2, _))));
    }

    #[test]
    fn a_lease_ends_its_session_and_no_other() {
        let sessions = Arc::new(Sessions::new(10));
        for id in [7, 8] {
            assert!(matches!(sessions.open(request(0, 0, "t", &[0]), 12, id, 0), Ok(Opened::Full(..))));
        }
        drop(Lease::new(&sessions, 7));
        assert_eq!(sessions.open(request(7, 1, "t", &[]), 12, 9, 0).unwrap_err(), ErrorCode::FetchSessionIdNotFound);
        assert!(matches!(sessions.open(request(8, 1, "t", &[]), 12, 9, 0), Ok(Opened::Incremental(8, _))));
    }

    #[test]
    fn the_rotation_begins_behind_the_partition_served_last() {
        let mut session = Session::new(false);
        session.update(request(0, 0, "t", &[0, 1, 2]));
        session.served(1);
        assert_eq!(session.rotation().collect::<Vec<_>>(), [2, 0, 1]);
        session.forget(&(TopicKey::Name("t".into()), 2));
        assert_eq!(session.rotation().collect::<Vec<_>>(), [0, 1]);
    }
}
