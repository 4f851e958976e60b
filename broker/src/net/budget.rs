//! The memory that unfinished requests may hold together, whatever their number.
//!
//! A connection pays only for what its frame takes beyond a small base, so small requests never come here. When
//! nothing is left, connections that want to grow are not read from until others give back. Large frames leave a
//! quarter to small ones; and of each kind one frame at a time, the one that lacks least, may pass the limit, so that
//! there is always one that can be finished. What that one takes is not counted: it must not keep the others out.
//! Invariant: `used` is the sum of what is counted for all shares.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Frames above this leave a part of the budget to those below.
const SMALL_BYTES: usize = 2 * 1024 * 1024;

/// What a broker gives by itself: a quarter of the memory, within these bounds.
const DEFAULT_MIN: usize = 32 * 1024 * 1024;
const DEFAULT_MAX: usize = 512 * 1024 * 1024;

/// The budget of a broker.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    next_id: u64,
    /// Small frames, then large ones.
    kinds: [Kind; 2],
}

#[derive(Debug, Default)]
struct Kind {
    /// Who may pass the limit.
    over: Option<u64>,
    /// Who waits, by the bytes that its frame lacks.
    waiting: BTreeSet<(usize, u64)>,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), freed: Notify::new() }
    }

    /// The budget for a process that may use `memory` bytes.
    pub fn for_memory(memory: usize) -> Self {
        Self::new((memory / 4).clamp(DEFAULT_MIN, DEFAULT_MAX))
    }

    /// Bytes in all.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes given out.
    pub fn used(&self) -> usize {
        self.state.lock().used
    }

    /// Whether somebody waits.
    pub fn is_short(&self) -> bool {
        self.state.lock().kinds.iter().any(|kind| !kind.waiting.is_empty())
    }

    /// Resolves when something was given back after this call.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// A share of nothing.
    pub fn share(&self) -> Share<'_> {
        Share { budget: self, id: None, kind: 0, bytes: 0, counted: 0, lacks: None }
    }
}

/// What one connection has of the budget; given back when dropped.
#[derive(Debug)]
pub struct Share<'a> {
    budget: &'a Budget,
    id: Option<u64>,
    kind: usize,
    /// What it may use.
    bytes: usize,
    /// What of it is counted.
    counted: usize,
    /// Set while it waits.
    lacks: Option<usize>,
}

impl Share<'_> {
    /// Bytes it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows to `to` bytes for a frame of `frame` bytes of which `have` are here. False when it has to wait; it is then
    /// among those who wait until it asks again with success, or gives back.
    #[must_use]
    pub fn grow(&mut self, frame: usize, have: usize, to: usize) -> bool {
        if to <= self.bytes {
            return true;
        }
        let mut guard = self.budget.state.lock();
        let state = &mut *guard;
        let id = *self.id.get_or_insert_with(|| {
            state.next_id += 1;
            state.next_id
        });
        // A frame that never gave back keeps its kind.
        if self.bytes == 0 && self.lacks.is_none() {
            self.kind = usize::from(frame > SMALL_BYTES);
        }
        let limit = if self.kind == 1 { self.budget.limit / 4 * 3 } else { self.budget.limit };
        let kind = &mut state.kinds[self.kind];
        let waited = self.lacks.take().is_some_and(|lacks| kind.waiting.remove(&(lacks, id)));
        if state.used.saturating_add(to - self.bytes) <= limit {
            state.used += to - self.bytes;
            self.counted += to - self.bytes;
            self.bytes = to;
        } else {
            let lacks = frame.saturating_sub(have);
            let least = kind.waiting.first().is_none_or(|first| (lacks, id) < *first);
            if kind.over.is_some() || !least {
                kind.waiting.insert((lacks, id));
                self.lacks = Some(lacks);
                return false;
            }
            // For the whole frame at once, so that it never has to wait again.
            kind.over = Some(id);
            self.bytes = to.max(frame);
        }
        drop(guard);
        if waited {
            // Somebody else lacks least now.
            self.budget.freed.notify_waiters();
        }
        true
    }

    /// Gives everything back.
    pub fn give_back(&mut self) {
        if self.bytes == 0 && self.lacks.is_none() {
            return;
        }
        let mut state = self.budget.state.lock();
        state.used -= self.counted;
        (self.bytes, self.counted) = (0, 0);
        let kind = &mut state.kinds[self.kind];
        if kind.over == self.id {
            kind.over = None;
        }
        if let (Some(lacks), Some(id)) = (self.lacks.take(), self.id) {
            kind.waiting.remove(&(lacks, id));
        }
        drop(state);
        self.budget.freed.notify_waiters();
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn the_default_follows_the_memory() {
        assert_eq!(Budget::for_memory(64 * MIB).limit(), 32 * MIB);
        assert_eq!(Budget::for_memory(1024 * MIB).limit(), 256 * MIB);
        assert_eq!(Budget::for_memory(usize::MAX).limit(), 512 * MIB);
    }

    #[test]
    fn large_frames_leave_room_to_small_ones() {
        let budget = Budget::new(40 * MIB);
        let mut large: Vec<_> = (0..4).map(|_| budget.share()).collect();
        for share in &mut large[..3] {
            assert!(share.grow(50 * MIB, 5 * MIB, 10 * MIB));
        }
        // The one that lacks least goes on; the next has to wait.
        assert!(large[3].grow(50 * MIB, 49 * MIB, 50 * MIB));
        assert!(!large[0].grow(50 * MIB, 10 * MIB, 11 * MIB));
        assert!(budget.is_short());
        let mut small: Vec<_> = (0..12).map(|_| budget.share()).collect();
        let taken = small.iter_mut().filter_map(|share| share.grow(MIB, MIB / 2, MIB).then_some(())).count();
        // Ten find room, the eleventh passes the limit.
        assert_eq!((taken, budget.used()), (11, 40 * MIB));
    }

    #[test]
    fn who_lacks_least_goes_first_and_leaving_lets_the_next_go() {
        let budget = Budget::new(4 * MIB);
        let (mut a, mut b, mut c) = (budget.share(), budget.share(), budget.share());
        assert!(a.grow(20 * MIB, MIB, 3 * MIB));
        assert!(a.grow(20 * MIB, 3 * MIB, 4 * MIB), "the only one is never stuck");
        assert!(!b.grow(10 * MIB, MIB, 2 * MIB));
        assert!(!c.grow(20 * MIB, MIB, 2 * MIB));
        a.give_back();
        assert!(!c.grow(20 * MIB, MIB, 4 * MIB), "b lacks less");
        drop(b);
        assert!(c.grow(20 * MIB, MIB, 4 * MIB));
        drop((a, c));
        assert_eq!(budget.used(), 0);
        assert!(!budget.is_short());
    }

    proptest! {
        #[test]
        fn every_frame_is_finished_and_only_one_passes_the_limit(
            limit in 1usize..40,
            frames in prop::collection::vec((1usize..60, 1usize..6), 1..12),
        ) {
            let budget = Budget::new(limit);
            let mut open: Vec<_> = frames.iter().map(|(size, step)| (budget.share(), 0usize, *size, *step)).collect();
            let largest = frames.iter().map(|(size, _)| *size).max().unwrap_or(0);
            let mut rounds = 0;
            while !open.is_empty() {
                rounds += 1;
                prop_assert!(rounds < 10_000, "nobody gets on");
                for (share, have, size, step) in &mut open {
                    let to = (*have + *step).min(*size);
                    if share.grow(*size, *have, to) {
                        *have = to;
                    }
                }
                prop_assert!(budget.used() <= limit);
                let held = open.iter().map(|(share, ..)| share.bytes()).sum::<usize>();
                prop_assert!(held <= limit + largest);
                open.retain(|(_, have, size, _)| have < size);
            }
            prop_assert_eq!(budget.used(), 0);
            prop_assert!(!budget.is_short());
        }
    }
}
