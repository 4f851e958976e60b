//! What a follower does with its leader's answer to a fetch: append, truncate where the two logs differ, begin anew
//! where the leader no longer has what it needs, follow the leader's log start and high watermark.
//!
//! Works on the log alone, without clock or network. The answer is checked as any input is: batches must be whole,
//! their CRCs right, their offsets contiguous with the log, their leader epochs not falling. Invariant: what lies
//! below the high watermark of an elected leader's ISR is never truncated, because truncation goes by leader epochs
//! (KIP-101, KIP-279) and never by a high watermark that may be old.

use bytes::Bytes;
use klamm_log::{Log, LogError};
use klamm_protocol::batch::{BatchHeader, batches};

/// What the next fetch says of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The log's end.
    pub fetch_offset: i64,
    /// Epoch of the last batch; −1 for an empty log.
    pub last_fetched_epoch: i32,
    /// The log's start.
    pub log_start: i64,
}

/// What the leader answered for one partition, without an error.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// Batches from the fetch offset on.
    pub records: Bytes,
    /// The leader's.
    pub high_watermark: i64,
    /// The leader's.
    pub log_start: i64,
    /// The largest epoch both may have, not above ours, and its end in the leader's log: where the logs differ.
    pub diverging: Option<(i32, i64)>,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This many bytes were appended; more may follow at once.
    Appended(usize),
    /// The log was cut back to this offset.
    Truncated(i64),
}

/// Why an answer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Our log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The leader's answer makes no sense.
    #[error("the leader's answer is unusable: {0}")]
    Answer(String),
}

/// Where to go on fetching.
pub fn position(log: &Log) -> Position {
    Position {
        fetch_offset: log.log_end_offset(),
        last_fetched_epoch: last_epoch(log),
        log_start: log.log_start_offset(),
    }
}

/// The epoch of the last record; −1 without one.
fn last_epoch(log: &Log) -> i32 {
    let end = log.log_end_offset();
    if end == log.log_start_offset() {
        return -1;
    }
    log.epochs().at_offset(end - 1).unwrap_or(-1)
}

/// Takes over what the leader answered to a fetch from `asked`. Returns what was done and the high watermark; the old
/// one is `high_watermark`.
///
/// # Errors
/// The answer does not fit the log, or the log failed. Whole batches may have been appended before.
pub fn take(
    log: &mut Log,
    asked: Position,
    fetched: &Fetched,
    high_watermark: i64,
    now_ms: i64,
) -> Result<(Outcome, i64), Unusable> {
    if asked.fetch_offset != log.log_end_offset() {
        let text = format!("it is for offset {}, the log ends at {}", asked.fetch_offset, log.log_end_offset());
        return Err(Unusable::Answer(text));
    }
    if let Some((epoch, end)) = fetched.diverging {
        let to = truncation_point(log, epoch, end);
        if to >= log.log_end_offset() {
            // Nothing to cut means the next fetch would bring the same answer, for ever.
            let text = format!("epoch {epoch} is said to end at {end}, which the log does not contradict");
            return Err(Unusable::Answer(text));
        }
        log.truncate_to(to, now_ms)?;
        let end = log.log_end_offset();
        return Ok((Outcome::Truncated(end), high_watermark.min(end)));
    }
    begin_inside_batch(log, &fetched.records, now_ms)?;
    check(log, &fetched.records)?;
    let appended = if fetched.records.is_empty() { None } else { log.append_as_follower(&fetched.records, now_ms)? };
    let bytes = if appended.is_some() { fetched.records.len() } else { 0 };
    let high_watermark = high_watermark.max(fetched.high_watermark.min(log.log_end_offset()));
    follow_log_start(log, fetched.log_start, now_ms)?;
    Ok((Outcome::Appended(bytes), high_watermark.max(log.log_start_offset())))
}

/// Takes back records of our own from before a repair, where the leader has damaged those. They are the leader's, too, if
/// the next fetch shows no difference: until then they count for nothing, and the high watermark stays.
///
/// # Errors
/// They do not fit the log any more, or the log failed.
pub fn take_back(log: &mut Log, asked: Position, records: &Bytes, now_ms: i64) -> Result<usize, Unusable> {
    if asked != position(log) {
        return Err(Unusable::Answer("the log has changed meanwhile".into()));
    }
    check(log, records)?;
    log.taking_kept();
    let appended = log.append_as_follower(records, now_ms)?;
    Ok(if appended.is_some() { records.len() } else { 0 })
}

/// A log that has begun anew at its leader's log start may begin inside a batch, since records can be deleted up to any
/// offset. The batch is kept whole.
fn begin_inside_batch(log: &mut Log, records: &[u8], now_ms: i64) -> Result<(), LogError> {
    let end = log.log_end_offset();
    let first = whole(records).next();
    match first {
        Some(first) if log.log_start_offset() == end && first.base_offset < end && end < first.next_offset() => {
            log.truncate_fully_and_start_at(first.base_offset, now_ms)
        }
        _ => Ok(()),
    }
}

/// Where the two logs may still agree, given the end of `epoch` in the leader's.
fn truncation_point(log: &Log, epoch: i32, end: i64) -> i64 {
    if epoch < 0 {
        // The leader knows nothing of our epochs. All that we can be sure of is what it keeps; from there on the next
        // fetch tells.
        return log.log_start_offset();
    }
    match log.epoch_end_offset(epoch) {
        // We have that epoch: its shorter end is common.
        Some((ours, our_end)) if ours == epoch => end.min(our_end),
        // We have not, but older ones: the next fetch asks about those.
        Some((_, our_end)) => our_end.min(end),
        None => end,
    }
}

/// Batches must follow each other and the log without a step back in offset or epoch. The log checks CRCs itself.
fn check(log: &Log, records: &[u8]) -> Result<(), Unusable> {
    let mut epoch = last_epoch(log);
    let mut next = log.log_end_offset();
    for batch in whole(records) {
        if batch.base_offset < next {
            return Err(Unusable::Answer(format!("a batch at {} where {next} comes next", batch.base_offset)));
        }
        if batch.partition_leader_epoch < epoch {
            let text = format!("a batch of epoch {} after one of epoch {epoch}", batch.partition_leader_epoch);
            return Err(Unusable::Answer(text));
        }
        epoch = batch.partition_leader_epoch;
        next = batch.next_offset();
    }
    Ok(())
}

/// Headers of the whole batches; what follows the first that is none is left to the log to refuse.
fn whole(records: &[u8]) -> impl Iterator<Item = BatchHeader> + '_ {
    batches(records).map_while(|batch| batch.ok()).map(|(header, _)| header)
}

/// The leader has let go of everything below `to`.
fn follow_log_start(log: &mut Log, to: i64, now_ms: i64) -> Result<(), LogError> {
    if to > log.log_start_offset() && to <= log.log_end_offset() {
        log.delete_records(to, now_ms)?;
    }
    Ok(())
}

/// The leader refused the offset as out of its range, which begins at `leader_start`. Returns whether the log begins
/// anew; otherwise the next fetch may be told where the logs differ.
///
/// # Errors
/// The log failed.
pub fn out_of_range(log: &mut Log, leader_start: i64, now_ms: i64) -> Result<bool, LogError> {
    let anew = leader_start >= 0
        && (leader_start > log.log_end_offset() || last_epoch(log) < 0 && leader_start != log.log_end_offset());
    if anew {
        log.truncate_fully_and_start_at(leader_start, now_ms)?;
    }
    Ok(anew)
}

#[cfg(test)]
#[path = "follower_test.rs"]
mod tests;
