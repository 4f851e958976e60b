//! Requests that wait for a partition's data: long-polling fetches.
//!
//! A parked fetch registers one [`FetchWaiter`] with each partition it asked for. An append hands
//! over the number of bytes that became visible; the waiter wakes its task once `min_bytes` are
//! there. No polling, and no timer beyond the request's own `max_wait_ms`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A parked fetch.
#[derive(Debug)]
pub struct FetchWaiter {
    /// Bytes still missing until `min_bytes`; wakes at zero or below.
    missing_bytes: AtomicI64,
    notify: Notify,
}

impl FetchWaiter {
    /// A waiter that wakes once `missing_bytes` more bytes are visible.
    pub fn new(missing_bytes: i64) -> Arc<Self> {
        Arc::new(Self { missing_bytes: AtomicI64::new(missing_bytes), notify: Notify::new() })
    }

    /// Tells the waiter of `bytes` newly visible ones.
    fn offer(&self, bytes: i64) {
        if self.missing_bytes.fetch_sub(bytes, Ordering::AcqRel) <= bytes {
            self.notify.notify_one();
        }
    }

    /// Wakes the waiter whatever is missing: the partition changed in another way.
    fn wake(&self) {
        self.notify.notify_one();
    }

    /// Resolves when the waiter is woken; a wake before this call counts.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// The waiters of one partition.
#[derive(Debug, Default)]
pub struct FetchWaiters {
    waiting: Mutex<Vec<Weak<FetchWaiter>>>,
}

impl FetchWaiters {
    /// Adds `waiter`; it leaves by being dropped.
    pub fn register(&self, waiter: &Arc<FetchWaiter>) {
        let mut waiting = self.waiting.lock();
        // A quiet partition sees only registrations: shed the dead before the list doubles.
        if waiting.len() == waiting.capacity() {
            waiting.retain(|w| w.strong_count() > 0);
        }
        waiting.push(Arc::downgrade(waiter));
    }

    /// `bytes` more are visible to consumers.
    pub fn offer(&self, bytes: i64) {
        let mut waiting = self.waiting.lock();
        if !waiting.is_empty() {
            waiting.retain(|weak| {
                weak.upgrade().is_some_and(|waiter| {
                    waiter.offer(bytes);
                    true
                })
            });
        }
    }

    /// Wakes everyone: the partition was deleted, truncated or changed its leader.
    pub fn wake_all(&self) {
        for waiter in self.waiting.lock().drain(..).filter_map(|w| w.upgrade()) {
            waiter.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_wakes_once_enough_bytes_are_visible() {
        let waiters = FetchWaiters::default();
        let waiter = FetchWaiter::new(10);
        waiters.register(&waiter);
        waiters.offer(9);
        assert!(tokio::time::timeout(std::time::Duration::ZERO, waiter.woken()).await.is_err());
        waiters.offer(1);
        waiter.woken().await;
    }

    #[test]
    fn dropped_waiters_do_not_pile_up() {
        let waiters = FetchWaiters::default();
        for _ in 0..10_000 {
            waiters.register(&FetchWaiter::new(1));
        }
        assert!(waiters.waiting.lock().capacity() <= 8);
    }
}
