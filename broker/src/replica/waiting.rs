//! Requests that wait for a partition: long-polling fetches for data, writes for the high watermark.
//!
//! A parked fetch registers one [`FetchWaiter`] with each partition it asked for. An append hands
//! over the number of bytes that became visible; the waiter wakes its task once `min_bytes` are
//! there. No polling, and no timer beyond the request's own `max_wait_ms`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use klamm_protocol::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

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

/// Resolves when an offset has been reached, or with the reason why it never will be.
pub type Reached = oneshot::Receiver<Result<(), ErrorCode>>;

/// Tells one who waits.
type Teller = oneshot::Sender<Result<(), ErrorCode>>;

/// Those who wait until an offset only grows beyond theirs, keyed by that offset.
#[derive(Debug)]
pub struct OffsetWaiters {
    waiting: Mutex<BTreeMap<i64, Vec<Teller>>>,
    /// The first key, so that nobody has to look when it is not reached.
    lowest: AtomicI64,
}

impl Default for OffsetWaiters {
    fn default() -> Self {
        Self { waiting: Mutex::default(), lowest: AtomicI64::new(i64::MAX) }
    }
}

impl OffsetWaiters {
    /// Waits until `offset` is reached. The caller makes sure that it is not yet.
    pub fn wait_for(&self, offset: i64) -> Reached {
        let (sender, reached) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.entry(offset).or_default().push(sender);
        self.lowest.fetch_min(offset, Ordering::AcqRel);
        reached
    }

    /// The offset has grown to `offset`.
    pub fn reached(&self, offset: i64) {
        if self.lowest.load(Ordering::Acquire) > offset {
            return;
        }
        let done = {
            let mut waiting = self.waiting.lock();
            let left = waiting.split_off(&offset.saturating_add(1));
            self.lowest.store(left.keys().next().copied().unwrap_or(i64::MAX), Ordering::Release);
            std::mem::replace(&mut *waiting, left)
        };
        for sender in done.into_values().flatten() {
            // Whoever waited may have given up.
            let _ = sender.send(Ok(()));
        }
    }

    /// It will not get there under this leader.
    pub fn fail(&self, code: ErrorCode) {
        let gone = {
            let mut waiting = self.waiting.lock();
            self.lowest.store(i64::MAX, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        for sender in gone.into_values().flatten() {
            let _ = sender.send(Err(code));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_an_offset_hears_once_it_is_reached_or_never_will_be() {
        let waiters = OffsetWaiters::default();
        let (mut five, mut six, mut ten) = (waiters.wait_for(5), waiters.wait_for(6), waiters.wait_for(10));
        waiters.reached(4);
        assert!(five.try_recv().is_err());
        waiters.reached(6);
        assert_eq!((five.try_recv(), six.try_recv()), (Ok(Ok(())), Ok(Ok(()))));
        assert!(ten.try_recv().is_err());
        waiters.fail(ErrorCode::NotLeaderOrFollower);
        assert_eq!(ten.try_recv(), Ok(Err(ErrorCode::NotLeaderOrFollower)));
    }

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
