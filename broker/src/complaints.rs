//! Complaints that would come with every request: one a minute for each cause, with the number held back.
//!
//! A full disk fails thousands of appends a second; a line for each would fill what is left of it.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Time between two lines about one cause.
const PAUSE_MS: i64 = 60_000;
/// Causes remembered; with more, those that are quiet are forgotten.
const CAUSES_MAX: usize = 10_000;

/// When each cause was last complained about, and how often it came up since.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<HashMap<String, (i64, u64)>>);

impl Complaints {
    /// Whether to complain about `cause` now: the number of times nobody was told since the last line, if so.
    pub fn due(&self, cause: &str, now_ms: i64) -> Option<u64> {
        let mut causes = self.0.lock();
        if let Some((last, held_back)) = causes.get_mut(cause) {
            if (0..PAUSE_MS).contains(&now_ms.saturating_sub(*last)) {
                *held_back += 1;
                return None;
            }
            *last = now_ms;
            return Some(std::mem::take(held_back));
        }
        if causes.len() >= CAUSES_MAX {
            causes.retain(|_, (last, _)| (0..PAUSE_MS).contains(&now_ms.saturating_sub(*last)));
        }
        causes.insert(cause.to_owned(), (now_ms, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_minute_for_each_cause_with_the_number_held_back() {
        let complaints = Complaints::default();
        assert_eq!(complaints.due("a", 1_000), Some(0));
        for now in [1_000, 5_000, 60_999] {
            assert_eq!(complaints.due("a", now), None);
        }
        assert_eq!(complaints.due("b", 5_000), Some(0));
        assert_eq!(complaints.due("a", 61_000), Some(3));
        assert_eq!(complaints.due("a", 61_001), None);
        // A clock that is set back must not silence it.
        assert_eq!(complaints.due("a", 10), Some(1));
    }

    #[test]
    fn quiet_causes_are_forgotten() {
        let complaints = Complaints::default();
        for n in 0..CAUSES_MAX {
            complaints.due(&n.to_string(), 0);
        }
        complaints.due("one more", PAUSE_MS);
        assert_eq!(complaints.0.lock().len(), 1);
    }
}
