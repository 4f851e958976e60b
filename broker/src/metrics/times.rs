//! Durations: counted in cells whose width grows with the value, cheap enough for every request. What dashboards made
//! for Kafka want to see are quantiles of late, so whoever renders them keeps the counts of five and ten minutes ago
//! and looks at the difference; the counting side knows nothing of time.

use std::sync::atomic::{AtomicU64, Ordering};

use super::table::Def;
use super::text::Text;

/// Cells per power of two: a quantile is off by an eighth at most.
const PER_OCTAVE: usize = 4;
/// 2^36 µs are 19 hours; longer ones count as that.
const CELLS: usize = 37 * PER_OCTAVE;
/// The window after which old counts are left out.
const WINDOW_MS: i64 = 5 * 60 * 1000;

/// Quantiles as the JMX exporter shows them.
const QUANTILES: &[(f64, &str)] =
    &[(0.5, "0.5"), (0.75, "0.75"), (0.95, "0.95"), (0.98, "0.98"), (0.99, "0.99"), (0.999, "0.999")];

/// Upper bounds of the histogram's buckets: microseconds, and seconds as text.
const BOUNDS: &[(u64, &str)] = &[
    (128, "0.000128"),
    (256, "0.000256"),
    (512, "0.000512"),
    (1 << 10, "0.001024"),
    (1 << 11, "0.002048"),
    (1 << 12, "0.004096"),
    (1 << 13, "0.008192"),
    (1 << 14, "0.016384"),
    (1 << 15, "0.032768"),
    (1 << 16, "0.065536"),
    (1 << 17, "0.131072"),
    (1 << 18, "0.262144"),
    (1 << 19, "0.524288"),
    (1 << 20, "1.048576"),
    (1 << 22, "4.194304"),
    (1 << 24, "16.777216"),
    (1 << 26, "67.108864"),
];

/// Counts of durations. Shared between threads; recording is two additions.
#[derive(Debug)]
pub struct Times {
    cells: [AtomicU64; CELLS],
    sum_us: AtomicU64,
}

impl Default for Times {
    fn default() -> Times {
        Times { cells: [const { AtomicU64::new(0) }; CELLS], sum_us: AtomicU64::new(0) }
    }
}

/// The cell of a duration: its power of two and the two bits below.
fn cell(us: u64) -> usize {
    if us < PER_OCTAVE as u64 {
        return us as usize;
    }
    let octave = us.ilog2() as usize;
    let below = (us >> (octave - 2)) as usize & (PER_OCTAVE - 1);
    ((octave - 1) * PER_OCTAVE + below).min(CELLS - 1)
}

/// The first duration that lies above a cell.
fn upper_us(cell: usize) -> u64 {
    let next = cell + 1;
    if next < PER_OCTAVE {
        return next as u64;
    }
    let (octave, below) = (next / PER_OCTAVE + 1, next % PER_OCTAVE);
    ((PER_OCTAVE + below) as u64) << (octave - 2)
}

impl Times {
    /// Counts a duration.
    pub fn record(&self, us: u64) {
        self.cells[cell(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    fn counts(&self) -> Box<[u64; CELLS]> {
        Box::new(std::array::from_fn(|i| self.cells[i].load(Ordering::Relaxed)))
    }
}

/// What the rendering side remembers of one [`Times`].
#[derive(Debug, Default)]
pub(super) struct Window {
    started_ms: Option<i64>,
    /// Counts when the running window and the one before it began; absent for zeros.
    since: Option<Box<[u64; CELLS]>>,
    before: Option<Box<[u64; CELLS]>>,
}

impl Window {
    /// Writes quantiles in milliseconds, then the count.
    pub(super) fn summary(&mut self, text: &mut Text, def: &Def, labels: &[&str], times: &Times, now_ms: i64) {
        let counts = times.counts();
        let started = *self.started_ms.get_or_insert(now_ms);
        let age = now_ms.saturating_sub(started);
        let recent: Vec<u64> = match &self.before {
            Some(before) => counts.iter().zip(before.iter()).map(|(now, then)| now - then).collect(),
            None => counts.to_vec(),
        };
        let total: u64 = recent.iter().sum();
        for (quantile, label) in QUANTILES {
            let value = quantile_us(&recent, total, *quantile) / 1000.0;
            text.part(def, "", labels, Some(("quantile", label)), value);
        }
        text.part(def, "_count", labels, None, counts.iter().sum::<u64>());
        if age >= WINDOW_MS {
            // After a long silence between scrapes the window before is as old as the running one.
            self.before = if age >= 2 * WINDOW_MS { Some(counts.clone()) } else { self.since.take() };
            self.since = Some(counts);
            self.started_ms = Some(now_ms);
        }
    }
}

/// Writes buckets, sum and count.
pub(super) fn histogram(text: &mut Text, def: &Def, labels: &[&str], times: &Times) {
    let counts = times.counts();
    let mut total = 0;
    let mut next = 0;
    for (bound, label) in BOUNDS {
        while next < CELLS && upper_us(next) <= *bound {
            total += counts[next];
            next += 1;
        }
        text.part(def, "_bucket", labels, Some(("le", label)), total);
    }
    let all: u64 = counts.iter().sum();
    text.part(def, "_bucket", labels, Some(("le", "+Inf")), all);
    text.part(def, "_sum", labels, None, times.sum_us.load(Ordering::Relaxed) as f64 / 1e6);
    text.part(def, "_count", labels, None, all);
}

/// The duration below which a share of all lies; a cell counts with its middle.
fn quantile_us(counts: &[u64], total: u64, quantile: f64) -> f64 {
    let rank = (total as f64 * quantile).ceil() as u64;
    let mut seen = 0;
    for (cell, count) in counts.iter().enumerate() {
        seen += count;
        if seen >= rank && *count > 0 {
            let lower = if cell == 0 { 0 } else { upper_us(cell - 1) };
            return (lower + upper_us(cell)) as f64 / 2.0;
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::super::table::{REQUEST_SECONDS, REQUEST_TIME_MS};
    use super::*;
    use proptest::prelude::*;

    fn summary(window: &mut Window, times: &Times, now_ms: i64) -> String {
        let mut text = Text::default();
        window.summary(&mut text, &REQUEST_TIME_MS, &["Fetch"], times, now_ms);
        text.finish()
    }

    fn quantile(text: &str, label: &str) -> f64 {
        let line = text.lines().find(|l| l.contains(&format!("quantile=\"{label}\""))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn quantiles_are_near() {
        let times = Times::default();
        for us in 1..=100_000 {
            times.record(us);
        }
        let text = summary(&mut Window::default(), &times, 0);
        for (label, expected) in [("0.5", 50.0), ("0.95", 95.0), ("0.999", 99.9)] {
            let got = quantile(&text, label);
            assert!((got / expected - 1.0).abs() < 0.13, "{label}: {got}");
        }
        assert!(text.contains("kafka_network_requestmetrics_totaltimems_count{request=\"Fetch\"} 100000"));
    }

    #[test]
    fn old_durations_are_forgotten() {
        let (times, mut window) = (Times::default(), Window::default());
        times.record(1_000_000);
        summary(&mut window, &times, 0);
        for minutes in [5, 10] {
            assert!(quantile(&summary(&mut window, &times, minutes * 60_000), "0.99") > 500.0);
        }
        times.record(1000);
        assert!(quantile(&summary(&mut window, &times, 11 * 60_000), "0.99") < 2.0);
    }

    #[test]
    fn buckets_add_up() {
        let times = Times::default();
        for us in [0, 1, 127, 128, 300, 2_000_000, u64::MAX / 2] {
            times.record(us);
        }
        let mut text = Text::default();
        histogram(&mut text, &REQUEST_SECONDS, &["Fetch"], &times);
        let text = text.finish();
        assert!(text.contains("le=\"0.000128\"} 3\n") && text.contains("le=\"0.000512\"} 5\n"), "{text}");
        assert!(text.contains("le=\"4.194304\"} 6\n") && text.contains("le=\"+Inf\"} 7\n"), "{text}");
    }

    proptest! {
        #[test]
        fn a_duration_lies_in_its_cell(us in 0u64..(1 << 37)) {
            let cell = cell(us);
            let lower = if cell == 0 { 0 } else { upper_us(cell - 1) };
            prop_assert!(lower <= us && (us < upper_us(cell) || cell == CELLS - 1), "{us} in {cell}");
        }
    }
}
