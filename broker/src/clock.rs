//! The one place where the broker reads the clock. Everything below it takes the time as an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall and monotonic time of this process.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// Wall time at `started`.
    started_ms: i64,
    by_hand: Option<Arc<Hands>>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now(), started_ms: wall_ms(), by_hand: None }
    }
}

/// What a clock shows that is set by hand, as in a simulation.
#[derive(Debug, Default)]
pub struct Hands {
    /// See [`Clock::wall_ms`].
    pub wall_ms: AtomicI64,
    /// See [`Clock::now_ms`].
    pub now_ms: AtomicI64,
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

impl Clock {
    /// A clock that is set by hand.
    pub fn by_hand(hands: Arc<Hands>) -> Self {
        Self { started_ms: hands.wall_ms.load(Ordering::Relaxed), by_hand: Some(hands), ..Self::default() }
    }

    /// Milliseconds since the Unix epoch; what record timestamps and retention use.
    pub fn wall_ms(&self) -> i64 {
        self.by_hand.as_ref().map_or_else(wall_ms, |hands| hands.wall_ms.load(Ordering::Relaxed))
    }

    /// Wall time that cannot jump: the start's, plus what has passed since. What group timers and the
    /// expiry of offsets use, so that a corrected clock expires nobody.
    pub fn steady_wall_ms(&self) -> i64 {
        self.started_ms + self.now_ms()
    }

    /// Milliseconds since the process started, never going back; what timers and idle times use.
    pub fn now_ms(&self) -> i64 {
        match &self.by_hand {
            None => i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX),
            Some(hands) => hands.now_ms.load(Ordering::Relaxed),
        }
    }
}
