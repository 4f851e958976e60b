//! When brokers may be restarted: windows that open by a cron expression, in UTC, and stay open for a while.

use std::time::Duration;

use cronexpr::{Crontab, FallbackTimezoneOption, ParseOptions};
use jiff::Timestamp;

/// The longest time that a window stays open.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A window.
#[derive(Clone, Debug)]
pub struct Window {
    opens: Crontab,
    stays: Duration,
}

impl Window {
    /// Opens when `cron` says, five fields, and stays open for as long as `stays` says: `90m`, `3h`.
    ///
    /// # Errors
    /// What of it cannot be understood.
    pub fn parse(cron: &str, stays: &str) -> Result<Self, String> {
        let fields = cron.split_whitespace().count();
        if fields != 5 {
            return Err(format!(
                "{cron:?} has {fields} fields: a cron expression has minute, hour, day, month and weekday"
            ));
        }
        // UTC by name would be looked up among time zones, which the operator's image has none of.
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let opens = cronexpr::parse_crontab_with(cron, options).map_err(|e| format!("{cron:?}: {}", in_a_line(&e)))?;
        let stays = duration(stays).ok_or_else(|| format!("{stays:?} is no time: 90m, 3h"))?;
        Ok(Self { opens, stays })
    }

    fn open(&self, now: Timestamp) -> bool {
        let Ok(before) = now.checked_sub(self.stays) else { return false };
        // The next one after that moment: it has opened since, or will.
        self.opens.find_next(before).is_ok_and(|opened| opened.timestamp() <= now)
    }
}

/// What is wrong with an expression, without the drawing that shows where.
fn in_a_line(error: &cronexpr::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(|line| line.trim_matches([' ', '^', '|'])).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}

/// Whole minutes and hours, more than nothing and [`LONGEST`] at most.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    let seconds = number.parse::<u32>().ok()?;
    let time = Duration::from_secs(u64::from(seconds) * unit);
    (!time.is_zero() && time <= LONGEST).then_some(time)
}

/// Whether one of them is open; without any it always is.
pub fn open(windows: &[Window], now: Timestamp) -> bool {
    windows.is_empty() || windows.iter().any(|window| window.open(now))
}

/// When the next of them opens, if one ever does.
pub fn next(windows: &[Window], now: Timestamp) -> Option<Timestamp> {
    windows.iter().filter_map(|window| window.opens.find_next(now).ok()).map(|at| at.timestamp()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_wrong_with_an_expression_is_said_in_a_line() {
        let wrong = Window::parse("61 0 * * *", "1h").unwrap_err();
        assert!(wrong.starts_with("\"61 0 * * *\": ") && !wrong.contains('\n') && !wrong.contains('^'), "{wrong}");
    }

    #[test]
    fn a_window_is_open_from_its_moment_for_its_time() {
        let nightly = [Window::parse("0 2 * * *", "3h").unwrap()];
        for (now, is_open) in [
            ("2026-11-22T01:59:59Z", false),
            ("2026-11-22T02:00:00Z", true),
            ("2026-11-22T04:59:59Z", true),
            ("2026-11-22T05:00:00Z", false),
        ] {
            assert_eq!(open(&nightly, at(now)), is_open, "{now}");
        }
        assert_eq!(next(&nightly, at("2026-11-22T05:00:00Z")), Some(at("2026-11-23T02:00:00Z")));
        // Over midnight, on Saturdays only.
        let weekend = [Window::parse("30 23 * * 6", "90m").unwrap()];
        assert!(open(&weekend, at("2026-11-22T00:59:00Z")), "a Sunday's first hour");
        assert!(!open(&weekend, at("2026-11-22T01:00:00Z")));
        assert!(!open(&weekend, at("2026-11-23T00:30:00Z")));
        let both = [nightly, weekend].concat();
        assert!(open(&both, at("2026-11-22T00:30:00Z")) && open(&both, at("2026-11-22T03:00:00Z")));
        assert!(open(&[], at("2026-11-22T00:30:00Z")), "without windows it always is");
        assert_eq!(next(&[], at("2026-11-22T00:30:00Z")), None);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (cron, stays, why) in [
            ("0 2 * *", "3h", "4 fields"),
            ("0 25 * * *", "3h", "25"),
            ("0 2 * * * UTC", "3h", "6 fields"),
            ("0 2 * * *", "", "no time"),
            ("0 2 * * *", "3", "no time"),
            ("0 2 * * *", "0h", "no time"),
            ("0 2 * * *", "8d", "no time"),
            ("0 2 * * *", "3ä", "no time"),
        ] {
            let said = Window::parse(cron, stays).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
