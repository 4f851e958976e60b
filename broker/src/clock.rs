//! The one place where the broker reads the clock. Everything below it takes the time as an argument.
//!
//! Three clocks: the machine's, which somebody may set; one that never jumps, for timers and sessions; and one for what
//! is deleted or written by its age, which follows the machine's only when that has proved to mean it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// How long a clock that jumped has to stay there until records are deleted by it.
const HOLD_MS: i64 = 3_600_000;
/// Less than this is a correction, not a jump.
const SMALL_MS: i64 = 5_000;

/// Wall and monotonic time of this process. Clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    /// Wall time at `started`.
    started_ms: i64,
    settled: Arc<Settled>,
    by_hand: Option<Arc<Hands>>,
}

/// What a clock shows that is set by hand, as in a simulation.
#[derive(Debug, Default)]
pub struct Hands {
    /// See [`Clock::wall_ms`].
    pub wall_ms: AtomicI64,
    /// See [`Clock::now_ms`].
    pub now_ms: AtomicI64,
}

#[derive(Debug, Default)]
struct Settled {
    /// What [`Clock::settled_ms`] adds to the time that never jumps.
    offset_ms: AtomicI64,
    follower: Mutex<Follower>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now(), started_ms: wall_ms(), settled: Arc::default(), by_hand: None }
    }
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

impl Clock {
    /// A clock that is set by hand.
    pub fn by_hand(hands: Arc<Hands>) -> Self {
        let started_ms = hands.wall_ms.load(Ordering::Relaxed) - hands.now_ms.load(Ordering::Relaxed);
        Self { started_ms, by_hand: Some(hands), ..Self::default() }
    }

    /// Milliseconds since the Unix epoch; what record timestamps use.
    pub fn wall_ms(&self) -> i64 {
        self.by_hand.as_ref().map_or_else(wall_ms, |hands| hands.wall_ms.load(Ordering::Relaxed))
    }

    /// Wall time that cannot jump: the start's, plus what has passed since. What group timers and the
    /// expiry of offsets use, so that a corrected clock expires nobody.
    pub fn steady_wall_ms(&self) -> i64 {
        self.started_ms + self.now_ms()
    }

    /// Wall time that what is old is judged by: retention, compaction, `flush.ms`, the expiry of producers. It follows
    /// small corrections at once, and a jump when the clock has stayed there for an hour; see [`observe`](Self::observe).
    pub fn settled_ms(&self) -> i64 {
        self.steady_wall_ms() + self.settled.offset_ms.load(Ordering::Relaxed)
    }

    /// What the age of records is told by. After a clock was set back its own time counts, since new records may carry it;
    /// after one was set ahead, the [settled](Self::settled_ms) one: nothing is older than both say.
    pub fn age_ms(&self) -> i64 {
        self.settled_ms().min(self.wall_ms())
    }

    /// Milliseconds since the process started, never going back; what timers and idle times use.
    pub fn now_ms(&self) -> i64 {
        match &self.by_hand {
            None => i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX),
            Some(hands) => hands.now_ms.load(Ordering::Relaxed),
        }
    }

    /// Looks whether somebody has set the machine's clock. To be called every second or so.
    pub fn observe(&self) {
        let mut follower = self.settled.follower.lock();
        let (drift_ms, now_ms) = (self.wall_ms() - self.steady_wall_ms(), self.now_ms());
        match follower.observe(drift_ms, now_ms) {
            Some(News::Jumped(by_ms)) => tracing::warn!(
                by_ms,
                "the machine's clock has jumped: nothing is deleted by the new time until it has stood for an hour"
            ),
            Some(News::Back) => tracing::info!("the machine's clock is back where it was before it jumped"),
            Some(News::Settled(by_ms)) => {
                tracing::warn!(by_ms, "the machine's clock has stayed where it jumped to: it counts from now on");
            }
            None => {}
        }
        self.settled.offset_ms.store(follower.offset_ms, Ordering::Relaxed);
    }
}

/// Decides when a clock is believed.
#[derive(Debug, Default)]
struct Follower {
    /// How far the clock that is believed is ahead of the one that never jumps.
    offset_ms: i64,
    /// Where the clock has jumped to, and when.
    doubt: Option<(i64, i64)>,
}

#[derive(Debug, PartialEq, Eq)]
enum News {
    Jumped(i64),
    Back,
    Settled(i64),
}

impl Follower {
    /// The clock is `drift_ms` ahead of the one that never jumps, which says `now_ms`.
    fn observe(&mut self, drift_ms: i64, now_ms: i64) -> Option<News> {
        if (drift_ms - self.offset_ms).abs() <= SMALL_MS {
            self.offset_ms = drift_ms;
            return self.doubt.take().map(|_| News::Back);
        }
        let jumped_by = drift_ms - self.offset_ms;
        match &mut self.doubt {
            Some((to, since)) if (drift_ms - *to).abs() <= SMALL_MS => {
                *to = drift_ms;
                if now_ms - *since < HOLD_MS {
                    return None;
                }
                self.offset_ms = drift_ms;
                self.doubt = None;
                Some(News::Settled(jumped_by))
            }
            _ => {
                self.doubt = Some((drift_ms, now_ms));
                Some(News::Jumped(jumped_by))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn nothing_is_older_than_both_clocks_say() {
        let hands = Arc::new(Hands::default());
        hands.wall_ms.store(100 * HOUR, Ordering::Relaxed);
        let clock = Clock::by_hand(hands.clone());
        assert_eq!(clock.age_ms(), 100 * HOUR);
        // Records are stamped by the clock that was set back.
        hands.wall_ms.store(76 * HOUR, Ordering::Relaxed);
        clock.observe();
        assert_eq!((clock.age_ms(), clock.settled_ms()), (76 * HOUR, 100 * HOUR));
        hands.wall_ms.store(124 * HOUR, Ordering::Relaxed);
        clock.observe();
        assert_eq!(clock.age_ms(), 100 * HOUR);
    }

    #[test]
    fn small_corrections_are_followed_at_once_and_a_slow_drift_for_ever() {
        let mut follower = Follower::default();
        for n in 0..100 {
            assert_eq!(follower.observe(n * 3_000, n * 1_000), None);
            assert_eq!(follower.offset_ms, n * 3_000);
        }
    }

    #[test]
    fn a_jump_counts_when_the_clock_has_stood_by_it_for_an_hour() {
        for jump in [HOUR, 24 * HOUR, -HOUR, -24 * HOUR] {
            let mut follower = Follower::default();
            assert_eq!(follower.observe(jump, 1_000), Some(News::Jumped(jump)));
            assert_eq!(follower.observe(jump + 1_000, 2_000), None);
            assert_eq!(follower.observe(jump + 2_000, HOUR), None);
            assert_eq!(follower.offset_ms, 0, "nothing is judged by it yet");
            assert_eq!(follower.observe(jump + 2_000, HOUR + 1_000), Some(News::Settled(jump + 2_000)));
            assert_eq!(follower.offset_ms, jump + 2_000);
        }
    }

    #[test]
    fn a_clock_that_goes_back_or_jumps_again_begins_anew() {
        let mut follower = Follower::default();
        assert_eq!(follower.observe(24 * HOUR, 0), Some(News::Jumped(24 * HOUR)));
        assert_eq!(follower.observe(10, HOUR / 2), Some(News::Back));
        assert_eq!(follower.observe(24 * HOUR, HOUR / 2 + 1), Some(News::Jumped(24 * HOUR - 10)));
        assert_eq!(follower.observe(-24 * HOUR, HOUR), Some(News::Jumped(-24 * HOUR - 10)));
        assert_eq!(follower.observe(-24 * HOUR, 2 * HOUR - 1), None);
        assert_eq!(follower.offset_ms, 10);
        assert_eq!(follower.observe(-24 * HOUR, 2 * HOUR), Some(News::Settled(-24 * HOUR - 10)));
    }
}
