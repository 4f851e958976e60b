//! What of a file came from the disk into the page cache: it may be something else than what was seen there before.
//!
//! Written by whoever reads and finds a page missing, before the disk is read: so that nobody takes the new page for
//! the old one. Shared by all readers of an open file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What of one file came from the disk since it was opened.
#[derive(Debug)]
pub struct Arrivals {
    /// How many there were, wrapping.
    count: AtomicU32,
    /// The first byte of all that nobody has drained yet.
    from: AtomicU64,
}

impl Default for Arrivals {
    fn default() -> Self {
        Arrivals { count: AtomicU32::new(0), from: AtomicU64::new(u64::MAX) }
    }
}

impl Arrivals {
    /// What begins at `start` is about to be read from the disk. How far the kernel reads on behind it, nobody knows.
    pub fn note(&self, start: u64) {
        self.from.fetch_min(start, Ordering::Release);
        self.count.fetch_add(1, Ordering::Release);
    }

    /// How many arrivals there were so far, wrapping. A page that was found in the cache before this was asked, and no
    /// arrival since: it is the page that was there then.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// From where on anything came since this was asked last.
    pub fn drain(&self) -> Option<u64> {
        if self.from.load(Ordering::Acquire) == u64::MAX {
            return None;
        }
        Some(self.from.swap(u64::MAX, Ordering::AcqRel)).filter(|from| *from < u64::MAX)
    }
}

/// What a sender of a file range has to look at: whether it is still what it was when the range was made.
#[derive(Debug, Clone)]
pub struct Cached {
    arrivals: Arc<Arrivals>,
    then: u32,
}

impl Cached {
    /// As of now.
    pub fn now(arrivals: Arc<Arrivals>) -> Cached {
        let then = arrivals.count();
        Cached { arrivals, then }
    }

    /// Whether anything of the file came from the disk since. To be asked after the pages were found in the cache.
    pub fn is_stale(&self) -> bool {
        self.arrivals.count() != self.then
    }

    /// What begins at `start` is about to be read from the disk.
    pub fn note(&self, start: u64) {
        self.arrivals.note(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_all_arrivals_counts() {
        let arrivals = Arrivals::default();
        assert_eq!(arrivals.drain(), None);
        arrivals.note(20);
        arrivals.note(10);
        arrivals.note(30);
        assert_eq!((arrivals.drain(), arrivals.drain(), arrivals.count()), (Some(10), None, 3));
    }

    #[test]
    fn a_range_is_stale_after_any_arrival() {
        let arrivals = Arc::new(Arrivals::default());
        let cached = Cached::now(arrivals.clone());
        arrivals.drain();
        assert!(!cached.is_stale());
        arrivals.note(0);
        arrivals.drain();
        assert!(cached.is_stale() && !Cached::now(arrivals).is_stale());
    }
}
