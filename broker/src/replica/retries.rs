//! When a partition's proposal to the controller is sent again: after a pause that doubles with each failure.
//!
//! Pure: the time is an argument. A controller that refuses, or that nobody reaches, must not be asked twenty times a
//! second by every leader. Each partition has a pause of its own, so that one refusal holds up nobody else.

use std::collections::HashMap;
use std::time::Duration;

use klamm_protocol::Uuid;
use tokio::time::Instant;

/// A topic and a partition of it.
pub type Key = (Uuid, i32);

/// The first pause, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

#[derive(Debug)]
struct Held {
    pause: Duration,
    until: Instant,
}

/// The partitions whose last proposal failed.
#[derive(Debug, Default)]
pub struct Retries {
    held: HashMap<Key, Held>,
}

impl Retries {
    /// The proposal of `key` was not carried out.
    pub fn failed(&mut self, key: Key, now: Instant) {
        let pause = self.held.get(&key).map_or(PAUSES[0], |held| (held.pause * 2).min(PAUSES[1]));
        self.held.insert(key, Held { pause, until: now + pause });
    }

    /// The proposal of `key` needs no further try.
    pub fn settled(&mut self, key: &Key) {
        self.held.remove(key);
    }

    /// Whether `key` may be asked about.
    pub fn is_due(&self, key: &Key, now: Instant) -> bool {
        self.held.get(key).is_none_or(|held| held.until <= now)
    }

    /// When the first of these may be asked about; `None` without any.
    pub fn next_due<'a>(&self, keys: impl Iterator<Item = &'a Key>, now: Instant) -> Option<Instant> {
        keys.map(|key| self.held.get(key).map_or(now, |held| held.until)).min()
    }

    /// Forgets partitions that were asked about long ago: what they propose next is something else.
    pub fn forget_old(&mut self, now: Instant) {
        self.held.retain(|_, held| now < held.until + PAUSES[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Key = (Uuid::ZERO, 1);
    const OTHER: Key = (Uuid::ZERO, 2);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut now = Instant::now();
        let mut retries = Retries::default();
        for expected in [50, 100, 200, 400, 800, 1000, 1000] {
            retries.failed(ONE, now);
            assert_eq!(retries.next_due([ONE].iter(), now), Some(now + ms(expected)));
            assert!(!retries.is_due(&ONE, now + ms(expected - 1)));
            now += ms(expected);
            assert!(retries.is_due(&ONE, now));
        }
        retries.settled(&ONE);
        retries.failed(ONE, now);
        assert_eq!(retries.next_due([ONE].iter(), now), Some(now + ms(50)));
    }

    #[test]
    fn a_partition_that_is_refused_holds_up_no_other() {
        let now = Instant::now();
        let mut retries = Retries::default();
        retries.failed(ONE, now);
        assert!(retries.is_due(&OTHER, now));
        assert_eq!(retries.next_due([ONE, OTHER].iter(), now), Some(now));
        assert_eq!(retries.next_due([].iter(), now), None);
    }

    #[test]
    fn what_failed_long_ago_is_forgotten_and_what_failed_just_now_is_not() {
        let now = Instant::now();
        let mut retries = Retries::default();
        retries.failed(ONE, now);
        retries.forget_old(now + ms(1049));
        retries.failed(ONE, now + ms(1049));
        assert!(!retries.is_due(&ONE, now + ms(1148)), "its pause was doubled");
        retries.forget_old(now + ms(2149));
        retries.failed(ONE, now + ms(2149));
        assert!(retries.is_due(&ONE, now + ms(2199)), "its pause is the first again");
    }
}
