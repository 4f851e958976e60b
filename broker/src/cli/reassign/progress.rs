//! How far moves are: a bar with bytes and time left on a terminal, a line now and then elsewhere. Always on stderr.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Characters of the bar.
const WIDTH: usize = 24;

/// How far moves are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Partitions that have arrived.
    pub done: usize,
    /// All partitions.
    pub partitions: usize,
    /// Bytes that are yet to be copied.
    pub left: u64,
    /// Bytes that were to be copied at first.
    pub bytes: u64,
}

/// Shows it.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    begun: Instant,
    /// Bytes left at the first look, to tell the pace.
    first: Option<u64>,
    shown: Option<(Instant, State)>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), begun: Instant::now(), first: None, shown: None }
    }

    /// Shows how far it is now.
    pub(super) fn show(&mut self, state: State) {
        let first = *self.first.get_or_insert(state.left);
        let time = time_left(first.saturating_sub(state.left), state.left, self.begun.elapsed());
        let mut stderr = io::stderr().lock();
        // Where stderr can't be written there is nobody to tell.
        if self.terminal {
            let _ = write!(stderr, "\r\x1b[K{}", bar(state, time));
            let _ = stderr.flush();
        } else {
            let due = self.shown.is_none_or(|(at, last)| at.elapsed() >= LINE_EVERY && last != state);
            if !due {
                return;
            }
            let _ = writeln!(stderr, "{}", line(state, time));
        }
        self.shown = Some((Instant::now(), state));
    }

    /// Takes the bar away.
    pub(super) fn end(&mut self) {
        if self.terminal && self.shown.take().is_some() {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K");
            let _ = stderr.flush();
        }
    }
}

/// At the pace so far.
fn time_left(copied: u64, left: u64, elapsed: Duration) -> Option<Duration> {
    if left == 0 {
        return Some(Duration::ZERO);
    }
    let seconds = elapsed.as_secs_f64() * left as f64 / copied as f64;
    (copied > 0 && elapsed >= Duration::from_secs(1)).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

fn line(state: State, time: Option<Duration>) -> String {
    let State { done, partitions, left, .. } = state;
    let time = match time {
        _ if left == 0 => String::new(),
        Some(time) => format!(", about {} left", duration(time)),
        None => ", time left not known yet".to_owned(),
    };
    format!("{done} of {partitions} partitions moved, {} left{time}", bytes(left))
}

fn bar(state: State, time: Option<Duration>) -> String {
    let part = |done: u64, all: u64| (u128::from(done) * WIDTH as u128).checked_div(u128::from(all));
    let copied = state.bytes.saturating_sub(state.left);
    let by_number = || part(state.done as u64, state.partitions as u64).unwrap_or(0);
    let full = usize::try_from(part(copied, state.bytes).unwrap_or_else(by_number)).unwrap_or(0).min(WIDTH);
    format!("[{}{}] {}", "#".repeat(full), "-".repeat(WIDTH - full), line(state, time))
}

/// `3.2 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut scaled = bytes as f64;
    let mut unit = "B";
    for next in units {
        if scaled < 1024.0 {
            break;
        }
        scaled /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{scaled:.1} {unit}") }
}

/// `2 h 5 min`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=59 => format!("{} s", seconds.max(1)),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_for_people() {
        for (n, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3.0 TiB")] {
            assert_eq!(bytes(n), text);
        }
        for (seconds, text) in [(0, "1 s"), (59, "59 s"), (125, "2 min 5 s"), (7_500, "2 h 5 min")] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn the_time_left_follows_from_the_pace_once_there_is_one() {
        let seconds = Duration::from_secs;
        assert_eq!(time_left(100, 300, seconds(10)), Some(seconds(30)));
        assert_eq!(time_left(0, 300, seconds(10)), None);
        assert_eq!(time_left(100, 300, Duration::from_millis(10)), None);
        assert_eq!(time_left(0, 0, Duration::ZERO), Some(Duration::ZERO));
        assert_eq!(time_left(1, u64::MAX, seconds(u64::MAX)), None, "beyond any duration");
    }

    #[test]
    fn the_bar_is_as_full_as_bytes_are_copied() {
        let state = State { done: 1, partitions: 4, left: 3 << 30, bytes: 4 << 30 };
        let shown = bar(state, Some(Duration::from_secs(90)));
        assert_eq!(shown, "[######------------------] 1 of 4 partitions moved, 3.0 GiB left, about 1 min 30 s left");
        let nothing_to_copy = State { done: 2, partitions: 4, left: 0, bytes: 0 };
        assert!(bar(nothing_to_copy, None).starts_with("[############------------] 2 of 4 partitions moved, 0 B left"));
    }
}
