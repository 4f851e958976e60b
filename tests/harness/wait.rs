//! Waiting for something to become true: a deadline, a short poll, and an error that names what was awaited.

use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);

/// Polls `probe` until it gives a value; `None` when the time is up.
pub fn wait_for<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(POLL);
    }
}

/// Polls `probe` until it gives a value; fails the test with `what` when `seconds` pass first.
#[track_caller]
pub fn eventually<T>(what: &str, seconds: u64, probe: impl FnMut() -> Option<T>) -> T {
    match wait_for(Duration::from_secs(seconds), probe) {
        Some(value) => value,
        None => panic!("not within {seconds} s: {what}"),
    }
}
