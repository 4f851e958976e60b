//! The one place where the broker reads the clock. Everything below it takes the time as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall and monotonic time of this process.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// Wall time at `started`.
    started_ms: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now(), started_ms: wall_ms() }
    }
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

impl Clock {
    /// Milliseconds since the Unix epoch; what record timestamps and retention use.
    pub fn wall_ms(&self) -> i64 {
        wall_ms()
    }

    /// Wall time that cannot jump: the start's, plus what has passed since. What group timers and the
    /// expiry of offsets use, so that a corrected clock expires nobody.
    pub fn steady_wall_ms(&self) -> i64 {
        self.started_ms + self.now_ms()
    }

    /// Milliseconds since the process started, never going back; what timers and idle times use.
    pub fn now_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}
