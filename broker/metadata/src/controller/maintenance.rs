//! Maintenance: a broker that leads nothing which another replica in sync can lead, for a limited time.
//!
//! Whoever maintains a broker sets [`UNTIL`] in its configuration. As long as the key is there, elections pass the broker
//! over ([`PartitionChange`](super::partition_change::PartitionChange) sees to that) and [`lead_away`] takes what it
//! still leads; it keeps its replicas and stays in the ISRs. Only the end depends on a clock: when the time is over, the
//! active controller removes the key. So all nodes agree on who is in maintenance, a new controller knows it at once,
//! and nobody has to come back to end it.

use klamm_protocol::error::ErrorCode;

use super::broker_state::{Progress, change_partitions};
use super::partition_change::can_lead;
use super::policy::Policy;
use super::{ApiError, Decision, RECORDS_MAX};
use crate::dump::config_record;
use crate::image::{Image, Partition, Resource};
use crate::record::MetadataRecord;

/// The broker's configuration: until when, in milliseconds since 1970.
pub const UNTIL: &str = "klamm.maintenance.until";

/// A week: more is no maintenance, and a broker must not be forgotten in it.
pub const LONGEST_MS: i64 = 7 * 86_400_000;
/// How far the clock of whoever asks may be ahead of the controller's.
const CLOCKS_DIFFER_MS: i64 = 3_600_000;

/// Refuses an end that is too far ahead of `now_ms`; no end at all, and what is no time, is for others to judge.
pub(super) fn check_until(text: Option<&str>, now_ms: i64) -> Result<(), ApiError> {
    let until = text.and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(now_ms);
    if until <= now_ms.saturating_add(LONGEST_MS + CLOCKS_DIFFER_MS) {
        return Ok(());
    }
    let text = format!(
        "Invalid value {until} for configuration {UNTIL}: maintenance ends within a week. Expected milliseconds since \
         1970, at most {}; `klamm brokers maintenance start` computes them",
        now_ms.saturating_add(LONGEST_MS)
    );
    Err(ApiError::new(ErrorCode::InvalidConfig, text))
}

/// Ends what is over at `now_ms`, in milliseconds since 1970; the response names those brokers.
pub fn end_expired(image: &Image, now_ms: i64) -> Decision<Vec<i32>> {
    let over = image.maintenance().iter().filter(|(_, until)| **until <= now_ms);
    let response: Vec<i32> = over.map(|(id, _)| *id).take(RECORDS_MAX).collect();
    let record = |id: &i32| MetadataRecord::from(config_record(&Resource::broker(*id), UNTIL, None));
    Decision { records: response.iter().map(record).collect(), response }
}

/// Gives what brokers in maintenance lead to others that are in sync, where there are any.
pub fn lead_away(image: &Image, policy: &Policy) -> Decision<Progress<()>> {
    let able = |p: &Partition, id: i32| can_lead(image, p, id);
    let led = image.maintenance().keys().flat_map(|id| image.led_by(*id));
    let (records, more) = change_partitions(image, led, policy, &able, |change| change);
    Decision { records, response: if more { Progress::More } else { Progress::Done(()) } }
}

#[cfg(test)]
#[path = "maintenance_test.rs"]
mod tests;
