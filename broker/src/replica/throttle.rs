//! Throttled replication (KIP-73): how fast replicas that are out of sync may be filled, so that moving partitions does
//! not starve clients.
//!
//! A bucket fills with the rate, up to one second's worth, and each transfer takes its bytes out, if need be into debt:
//! what passes in the long run is the rate, however large one answer is. Only replicas that the topic names (by
//! `leader.replication.throttled.replicas` and its twin) are counted, and only those far behind wait: replicas in sync
//! must stay so, and one that has had everything a moment ago holds up the high watermark until it joins them. (Kafka
//! throttles that one as well, and with it those who write.)

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// No limit.
pub const UNLIMITED: i64 = i64::MAX;

/// One direction's limit on this broker.
#[derive(Debug)]
pub struct Throttle {
    /// Bytes a second.
    rate: AtomicI64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Bytes that may pass; negative for a debt.
    balance: i64,
    at_ms: i64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { rate: AtomicI64::new(UNLIMITED), bucket: Mutex::default() }
    }
}

impl Bucket {
    fn fill(&mut self, rate: i64, now_ms: i64) {
        let passed = now_ms.saturating_sub(self.at_ms).max(0);
        self.at_ms = now_ms.max(self.at_ms);
        let gained = i128::from(rate) * i128::from(passed) / 1000;
        let full = i128::from(self.balance).saturating_add(gained).min(i128::from(rate));
        self.balance = i64::try_from(full).unwrap_or(rate);
    }
}

impl Throttle {
    /// The limit from now on, in bytes a second.
    pub fn set_rate(&self, rate: i64) {
        if self.rate.swap(rate, Ordering::Relaxed) != rate {
            // Neither a debt nor a treasure of another rate's.
            self.bucket.lock().balance = 0;
        }
    }

    /// Whether there is a limit at all.
    pub fn is_set(&self) -> bool {
        self.rate.load(Ordering::Relaxed) != UNLIMITED
    }

    /// Whether nothing may pass now.
    pub fn is_exceeded(&self, now_ms: i64) -> bool {
        self.is_set() && {
            let rate = self.rate.load(Ordering::Relaxed);
            let mut bucket = self.bucket.lock();
            bucket.fill(rate, now_ms);
            bucket.balance <= 0
        }
    }

    /// Takes note of `bytes` that pass.
    pub fn passes(&self, bytes: u64, now_ms: i64) {
        if self.is_set() {
            let rate = self.rate.load(Ordering::Relaxed);
            let mut bucket = self.bucket.lock();
            bucket.fill(rate, now_ms);
            bucket.balance = bucket.balance.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// How long until something may pass again.
    pub fn wait(&self) -> Duration {
        let rate = self.rate.load(Ordering::Relaxed).max(1);
        let debt = self.bucket.lock().balance.min(0).unsigned_abs() + 1;
        let ms = u128::from(debt) * 1000 / u128::from(rate.unsigned_abs()) + 1;
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

/// Both directions of one broker.
#[derive(Debug, Default)]
pub struct Throttles {
    /// `leader.replication.throttled.rate`: what leaders here send.
    pub leader: Throttle,
    /// `follower.replication.throttled.rate`: what followers here take.
    pub follower: Throttle,
}

/// Which replicas of a topic are throttled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ThrottledReplicas {
    /// None.
    #[default]
    None,
    /// All: `*`.
    All,
    /// Those of these partitions on these brokers.
    Some(BTreeSet<(i32, i32)>),
}

impl ThrottledReplicas {
    /// From the members of a configuration value: `*`, or `partition:broker` each. What is neither has been refused
    /// before.
    pub fn parse<'a>(members: impl IntoIterator<Item = &'a str>) -> Self {
        let mut named = BTreeSet::new();
        for member in members {
            let member = member.trim();
            if member == "*" {
                return Self::All;
            }
            if let Some((partition, broker)) = member.split_once(':')
                && let (Ok(partition), Ok(broker)) = (partition.trim().parse(), broker.trim().parse())
            {
                named.insert((partition, broker));
            }
        }
        if named.is_empty() { Self::None } else { Self::Some(named) }
    }

    /// Whether the replica of `partition` on `broker` is one.
    pub fn contains(&self, partition: i32, broker: i32) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(named) => named.contains(&(partition, broker)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_in_the_long_run_is_the_rate_however_large_each_piece_is() {
        for piece in [1_000, 70_000, 5_000_000] {
            let throttle = Throttle::default();
            throttle.set_rate(100_000);
            let (mut passed, mut now) = (0_u64, 10_000);
            let end = now + 600_000;
            while now < end {
                if throttle.is_exceeded(now) {
                    now += i64::try_from(throttle.wait().as_millis()).unwrap();
                    assert!(!throttle.is_exceeded(now), "the wait suffices");
                } else {
                    throttle.passes(piece, now);
                    passed += piece;
                    now += 1;
                }
            }
            let most = 100_000 * 600 + 100_000 + piece;
            assert!((100_000 * 600 - piece..=most).contains(&passed), "{piece}: {passed}");
        }
    }

    #[test]
    fn no_rate_no_limit_and_a_new_rate_forgets_debts() {
        let throttle = Throttle::default();
        throttle.passes(u64::MAX, 5);
        assert!(!throttle.is_set() && !throttle.is_exceeded(5));
        throttle.set_rate(10);
        throttle.passes(1_000, 1_000);
        assert!(throttle.is_exceeded(2_000));
        throttle.set_rate(20);
        assert!(!throttle.is_exceeded(3_000));
        throttle.set_rate(UNLIMITED);
        assert!(!throttle.is_exceeded(3_000));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let throttle = Throttle::default();
        throttle.set_rate(1_000);
        throttle.passes(5_000, 10_000);
        assert!(throttle.is_exceeded(1));
        assert!(throttle.is_exceeded(10_500));
        assert!(!throttle.is_exceeded(16_000));
    }

    #[test]
    fn replicas_are_named_by_partition_and_broker() {
        let some = ThrottledReplicas::parse(["0:1", " 2:3 "]);
        assert!(some.contains(0, 1) && some.contains(2, 3));
        assert!(!some.contains(1, 0) && !some.contains(0, 3));
        assert!(ThrottledReplicas::parse(["*"]).contains(7, 7));
        assert_eq!(ThrottledReplicas::parse([""]), ThrottledReplicas::None);
    }
}
