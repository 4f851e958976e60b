//! Finding offsets by time: the only place where the log looks into a batch's records, and then into one batch only.

use bytes::Bytes;
use klamm_protocol::batch::{BatchError, BatchHeader, BatchView, TimestampOffset};
use klamm_protocol::compress::{CompressError, Limits};

use crate::disk::read_full;
use crate::error::LogError;
use crate::log::Log;
use crate::walk::Walk;

/// A record found by its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundRecord {
    /// Its timestamp.
    pub timestamp: i64,
    /// Its offset.
    pub offset: i64,
    /// Epoch of the leader that appended it.
    pub leader_epoch: i32,
}

impl Log {
    /// The first record with a timestamp of at least `timestamp`.
    ///
    /// Where the batch that has it passes `limits` when unpacked, the batch's first offset stands for it: a consumer
    /// that starts there gets some earlier records too, but misses none.
    ///
    /// The caller compares the offset found with the high watermark or last stable offset.
    pub fn offset_for_timestamp(&mut self, timestamp: i64, limits: Limits) -> Result<Option<FoundRecord>, LogError> {
        for at in self.segment_of(self.log_start)..self.segments.len() {
            if self.segments[at].size == 0 {
                continue;
            }
            let max = self.with_segment(at, |s, place| s.max_time(place))?;
            if max.timestamp < timestamp {
                continue;
            }
            if let Some(found) = self.first_at_or_after(at, timestamp, limits)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn first_at_or_after(
        &mut self,
        at: usize,
        timestamp: i64,
        limits: Limits,
    ) -> Result<Option<FoundRecord>, LogError> {
        let log_start = self.log_start;
        let (file, size, start) = self.with_segment(at, |s, place| {
            let start = s.time_floor(place, timestamp)?;
            Ok::<_, LogError>((s.log_file(place)?, s.size, start))
        })?;
        let mut walk = Walk::new(&*file, self.segments[at].base, start, size);
        loop {
            let next = walk.next().map_err(|e| self.segments[at].damage(self.place(), e))?;
            let Some((position, header)) = next else {
                return Ok(None);
            };
            if header.max_timestamp < timestamp || header.last_offset() < log_start {
                continue;
            }
            let found = self.record_in(at, position, &header, |batch| {
                match batch.find_timestamp(timestamp, log_start, limits) {
                    Err(e) if is_too_large(&e) => Ok(Some(TimestampOffset {
                        timestamp: header.max_timestamp,
                        offset: header.base_offset.max(log_start),
                    })),
                    found => found,
                }
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// The record with the largest timestamp; of several, the first. Where its batch passes `limits` when unpacked, the
    /// batch's last.
    pub fn max_timestamp_offset(&mut self, limits: Limits) -> Result<Option<FoundRecord>, LogError> {
        let mut best: Option<(usize, i64, i64)> = None;
        for at in self.segment_of(self.log_start)..self.segments.len() {
            let max = self.with_segment(at, |s, place| s.max_time(place))?;
            if max.timestamp >= 0 && best.is_none_or(|(_, t, _)| max.timestamp > t) {
                best = Some((at, max.timestamp, max.offset));
            }
        }
        let Some((at, _, offset)) = best else {
            return Ok(None);
        };
        let Some((position, header)) = self.with_segment(at, |s, place| s.find(place, offset))? else {
            return Ok(None);
        };
        self.record_in(at, position, &header, |batch| match batch.max_timestamp(limits) {
            Err(e) if is_too_large(&e) => {
                Ok(Some(TimestampOffset { timestamp: header.max_timestamp, offset: header.last_offset() }))
            }
            found => found,
        })
    }

    /// Looks for a record in one batch.
    fn record_in(
        &mut self,
        at: usize,
        position: u32,
        header: &BatchHeader,
        look: impl FnOnce(BatchView<'_>) -> Result<Option<TimestampOffset>, BatchError>,
    ) -> Result<Option<FoundRecord>, LogError> {
        let bytes = self.batch_bytes(at, position, header)?;
        let found = look(BatchView::parse(&bytes)?)?;
        Ok(found.map(|f| FoundRecord {
            timestamp: f.timestamp,
            offset: f.offset,
            leader_epoch: header.partition_leader_epoch,
        }))
    }

    /// All bytes of one batch.
    pub(crate) fn batch_bytes(&mut self, at: usize, position: u32, header: &BatchHeader) -> Result<Bytes, LogError> {
        let file = self.with_segment(at, |s, place| s.log_file(place))?;
        let mut bytes = vec![0; header.total_len()];
        let read = read_full(&*file, &mut bytes, u64::from(position))
            .map_err(|e| LogError::io("reading", &self.segments[at].log_path(self.place()), e))?;
        bytes.truncate(read);
        Ok(bytes.into())
    }
}

fn is_too_large(e: &BatchError) -> bool {
    matches!(e, BatchError::Compress(CompressError::TooLarge { .. }))
}
