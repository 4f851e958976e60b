//! Points in time as people write them: milliseconds since 1970, RFC 3339, or "so long ago".

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 of `1763719200000`, `2026-11-21T10:00:00.5Z`, `2026-11-21T11:00:00+01:00`,
/// `2026-11-21` or `15m` (15 minutes ago; s, m, h and d).
pub fn parse_time(text: &str) -> Result<i64, String> {
    parse_at(text, now_ms())
}

/// The clock, in milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn parse_at(text: &str, now_ms: i64) -> Result<i64, String> {
    if let Ok(ms) = text.parse::<i64>() {
        return if ms < 0 { Err("times before 1970 are not supported".to_owned()) } else { Ok(ms) };
    }
    ago(text, now_ms)
        .or_else(|| date_time(text))
        .filter(|ms| *ms >= 0)
        .ok_or_else(|| "expected milliseconds since 1970, 2026-11-21T10:00:00Z, or a time ago such as 15m".to_owned())
}

fn ago(text: &str, now_ms: i64) -> Option<i64> {
    now_ms.checked_sub(span_ms(text)?)
}

/// Milliseconds of `90s`, `30m`, `2h` or `1d`.
pub fn span_ms(text: &str) -> Option<i64> {
    let unit_ms = match text.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return None,
    };
    let count: i64 = text[..text.len() - 1].parse().ok().filter(|count| *count >= 0)?;
    count.checked_mul(unit_ms)
}

fn date_time(text: &str) -> Option<i64> {
    if !text.is_ascii() || text.len() < 10 {
        return None;
    }
    let (date, rest) = text.split_at(10);
    let mut parts = date.split('-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let days = days_since_1970(year, month, day)?;
    if rest.is_empty() {
        return Some(days * 86_400_000);
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = time.split(':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |s| number(s, 2))?;
    // 60 is a leap second.
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let millis = match fraction.get(..3).unwrap_or(fraction) {
        "" => 0,
        digits => number(digits, digits.len())? * 10_i64.pow(3 - digits.len() as u32),
    };
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset_seconds(zone)?;
    Some(seconds * 1_000 + millis)
}

fn offset_seconds(zone: &str) -> Option<i64> {
    let (sign, text) = match zone.chars().next()? {
        'Z' | 'z' => return (zone.len() == 1).then_some(0),
        '+' => (1, &zone[1..]),
        _ => (-1, &zone[1..]),
    };
    let (hours, minutes) = text.split_once(':').unwrap_or_else(|| text.split_at(2.min(text.len())));
    Some(sign * (number(hours, 2)? * 3_600 + number(minutes, 2)? * 60))
}

fn number(digits: &str, length: usize) -> Option<i64> {
    let plain = digits.len() == length && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Days since 1970-01-01 in the Gregorian calendar. Counts years from March, so that the leap day
/// comes last in them.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    Some(year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        for (text, ms) in [
            ("0", 0),
            ("1763719200000", 1_763_719_200_000),
            ("1970-01-01", 0),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("2026-11-21T10:00:00Z", 1_795_255_200_000),
            ("2026-11-21T11:00:00.5+01:00", 1_795_255_200_500),
            ("2026-11-21 05:00-0500", 1_795_255_200_000),
            ("2026-11-21T10:00:00.123456Z", 1_795_255_200_123),
        ] {
            assert_eq!(parse_at(text, 0), Ok(ms), "{text}");
        }
        assert_eq!(parse_at("15m", 1_000_000), Ok(100_000));
        assert_eq!(parse_at("1d", 86_400_001), Ok(1));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "m",
            "x",
            "-5",
            "-5m",
            "15y",
            "2026-",
            "2026-13-01",
            "2026-02-29",
            "2026-11-21T10",
            "2026-11-21T10:00",
            "2026-11-21T24:00:00Z",
            "2026-11-21T10:00:00+1",
            "2026-11-21T10:00:00Zx",
            "ä26-11-21",
            "9223372036854775807d",
            "+5m0",
            "2026-11-21T10:00:00.xZ",
        ] {
            assert!(parse_at(text, 0).is_err(), "{text:?} was accepted");
        }
    }
}
