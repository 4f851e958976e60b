//! What of a file came from the disk into the page cache: it may be something else than what was seen there before.
//!
//! Written by whoever reads and finds a page missing, before the disk is read: so that nobody takes the new page for
//! the old one. Shared by all readers of an open file.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// How far the kernel reads on behind what was asked for, at most. Usually it is 128 KiB.
const READ_AHEAD: u64 = 4 * 1024 * 1024;
/// Arrivals that are kept apart; more are taken for one.
const APART_MAX: usize = 16;

/// What of one file came from the disk since it was opened.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// How many there were, wrapping.
    count: AtomicU32,
    /// Those that nobody has drained yet: first byte, and the one behind the last.
    ranges: Mutex<Vec<(u64, u64)>>,
}

impl Arrivals {
    /// `start..end` is about to be read from the disk.
    pub fn note(&self, start: u64, end: u64) {
        let end = end.saturating_add(READ_AHEAD);
        {
            let mut ranges = self.lock();
            if let Some(range) = ranges.iter_mut().find(|(from, to)| *from <= end && start <= *to) {
                *range = (range.0.min(start), range.1.max(end));
            } else if ranges.len() < APART_MAX {
                ranges.push((start, end));
            } else {
                *ranges = vec![(0, u64::MAX)];
            }
        }
        self.count.fetch_add(1, Ordering::Release);
    }

    /// How many arrivals there were so far, wrapping. A page that was found in the cache before this was asked, and no
    /// arrival since: it is the page that was there then.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// What came since this was asked last.
    pub fn drain(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(u64, u64)>> {
        self.ranges.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What a sender of a file range has to look at: whether it is still what it was when the range was made.
#[derive(Debug, Clone)]
pub struct Cached {
    arrivals: std::sync::Arc<Arrivals>,
    then: u32,
}

impl Cached {
    /// As of now.
    pub fn now(arrivals: std::sync::Arc<Arrivals>) -> Cached {
        let then = arrivals.count();
        Cached { arrivals, then }
    }

    /// Whether anything of the file came from the disk since. To be asked after the pages were found in the cache.
    pub fn is_stale(&self) -> bool {
        self.arrivals.count() != self.then
    }

    /// `start..end` is about to be read from the disk.
    pub fn note(&self, start: u64, end: u64) {
        self.arrivals.note(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_that_touch_are_one_and_many_are_everything() {
        let arrivals = Arrivals::default();
        arrivals.note(10, 20);
        arrivals.note(15, 30);
        arrivals.note(1 << 30, (1 << 30) + 1);
        let far = (1 << 30) + 1 + READ_AHEAD;
        assert_eq!(arrivals.drain(), [(10, 30 + READ_AHEAD), (1 << 30, far)]);
        assert_eq!((arrivals.drain(), arrivals.count()), (vec![], 3));
        for n in 0..APART_MAX as u64 + 1 {
            arrivals.note(n << 32, n << 32);
        }
        assert_eq!(arrivals.drain(), [(0, u64::MAX)]);
    }

    #[test]
    fn a_range_is_stale_after_any_arrival() {
        let arrivals = std::sync::Arc::new(Arrivals::default());
        let cached = Cached::now(arrivals.clone());
        arrivals.drain();
        assert!(!cached.is_stale());
        arrivals.note(0, 1);
        arrivals.drain();
        assert!(cached.is_stale() && !Cached::now(arrivals).is_stale());
    }
}
