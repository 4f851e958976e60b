//! Appending: check, write, then change the state in memory; a failed write leaves the log as it was.
//!
//! The payload is written straight from the request's buffer. Only the first 16 bytes of a batch (offset, length,
//! leader epoch) are made anew, since the CRC doesn't cover them.

use std::io::IoSlice;

use bytes::Bytes;
use klamm_protocol::batch::{BatchHeader, HEADER_LEN, PREFIX_LEN, TimestampType, batches, verify_crc};

use crate::disk::write_all;
use crate::error::{LogError, is_full};
use crate::log::Log;
use crate::producers::{BatchMeta, Origin, Verdict, marker_of};

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record. For a duplicate, the one it got the first time; likewise below.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The broker's timestamp when the topic uses `LogAppendTime`, else -1.
    pub log_append_time: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// The batch was in the log already; nothing was written.
    pub duplicate: bool,
}

/// Batches remembered for finding the high watermark without reading.
const RECENT_MAX: usize = 32;

/// Totals over the batches of one append.
struct Totals {
    bytes: usize,
    first_offset: i64,
    last_offset: i64,
    max_timestamp: i64,
}

impl Log {
    /// Appends validated batches of a producer as this partition's leader: offsets and leader epoch are assigned here.
    ///
    /// The caller has checked CRC, size and timestamps. Idempotent batches are checked for order and duplicates.
    pub fn append_as_leader(&mut self, records: &Bytes, leader_epoch: i32, now_ms: i64) -> Result<Appended, LogError> {
        self.append_checked(records, leader_epoch, now_ms, Origin::Client)
    }

    /// Like [`append_as_leader`](Self::append_as_leader) for the records and markers of a coordinator of this broker.
    pub fn append_as_coordinator(
        &mut self,
        records: &Bytes,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, LogError> {
        self.append_checked(records, leader_epoch, now_ms, Origin::Coordinator)
    }

    fn append_checked(
        &mut self,
        records: &Bytes,
        leader_epoch: i32,
        now_ms: i64,
        origin: Origin,
    ) -> Result<Appended, LogError> {
        self.ensure_online()?;
        let first = BatchHeader::parse(records)?;
        if first.total_len() == records.len() {
            // One batch: the way of every produce request.
            if let Verdict::Duplicate(found) = self.check_producer(&first, records, origin)? {
                return Ok(self.duplicate(found));
            }
            let header = BatchHeader { base_offset: self.log_end, partition_leader_epoch: leader_epoch, ..first };
            let totals = Totals {
                bytes: records.len(),
                first_offset: header.base_offset,
                last_offset: header.last_offset(),
                max_timestamp: header.max_timestamp,
            };
            self.make_room(&totals, self.config.segment_bytes, now_ms)?;
            self.write(&mut [
                IoSlice::new(&header.prefix(header.base_offset, leader_epoch)),
                IoSlice::new(&records[PREFIX_LEN..]),
            ])?;
            let base_offset = header.base_offset;
            self.note(&header, records)?;
            return Ok(self.appended(base_offset, &header));
        }
        self.append_many(records, leader_epoch, now_ms, origin)
    }

    fn append_many(
        &mut self,
        records: &Bytes,
        leader_epoch: i32,
        now_ms: i64,
        origin: Origin,
    ) -> Result<Appended, LogError> {
        let mut all = Vec::new();
        let first_offset = self.log_end;
        let mut totals =
            Totals { bytes: records.len(), first_offset, last_offset: first_offset - 1, max_timestamp: -1 };
        // Later batches are checked against a state that has the earlier ones.
        let mut producers = None;
        for batch in batches(records) {
            let (header, bytes) = batch?;
            let header =
                BatchHeader { base_offset: totals.last_offset + 1, partition_leader_epoch: leader_epoch, ..header };
            if header.has_producer_id() && !header.is_control() {
                let so_far = producers.get_or_insert_with(|| self.producers.clone());
                if let Verdict::Duplicate(found) = so_far.check(&header, origin)? {
                    return Ok(self.duplicate(found));
                }
                so_far.note(&header);
            } else {
                self.check_producer(&header, bytes, origin)?;
            }
            totals.last_offset = header.last_offset();
            totals.max_timestamp = totals.max_timestamp.max(header.max_timestamp);
            all.push((header, header.prefix(header.base_offset, leader_epoch), bytes));
        }
        self.make_room(&totals, self.config.segment_bytes, now_ms)?;
        let mut slices: Vec<IoSlice<'_>> = all
            .iter()
            .flat_map(|(_, prefix, bytes)| [IoSlice::new(prefix), IoSlice::new(&bytes[PREFIX_LEN..])])
            .collect();
        self.write(&mut slices)?;
        let base_offset = self.log_end;
        let mut last = BatchHeader::default();
        for (header, _, bytes) in &all {
            self.note(header, bytes)?;
            last = *header;
        }
        Ok(self.appended(base_offset, &last))
    }

    /// Appends batches as the leader sent them, offsets and epochs included. A batch cut off at the end, as fetch
    /// answers may have, is ignored. CRCs are checked: a follower must not keep what it can't serve.
    ///
    /// Returns `None` when there was no whole batch. After an error, whole batches before it may have been appended.
    pub fn append_as_follower(&mut self, records: &Bytes, now_ms: i64) -> Result<Option<Appended>, LogError> {
        self.ensure_online()?;
        let mut rest = records.clone();
        let mut done: Option<Appended> = None;
        // A fetch answer can be larger than a segment, or span more offsets than one: it goes in pieces.
        while let Some((totals, last)) = self.next_piece(&rest)? {
            let piece = rest.split_to(totals.bytes);
            self.make_room(&totals, i32::MAX as u32, now_ms)?;
            self.write(&mut [IoSlice::new(&piece)])?;
            for batch in batches(&piece) {
                let (header, bytes) = batch?;
                self.note(&header, bytes)?;
            }
            let first = done.map_or(totals.first_offset, |d| d.base_offset);
            done = Some(self.appended(first, &last));
        }
        Ok(done)
    }

    /// The whole batches at the start of `records` that go into one segment, and the last of them.
    fn next_piece(&self, records: &[u8]) -> Result<Option<(Totals, BatchHeader)>, LogError> {
        let mut piece: Option<(Totals, BatchHeader)> = None;
        let mut rest = records;
        while rest.len() >= HEADER_LEN {
            let header = BatchHeader::parse(rest)?;
            let Some(bytes) = rest.get(..header.total_len()) else {
                break;
            };
            verify_crc(bytes)?;
            let next = piece.as_ref().map_or(self.log_end, |(totals, _)| totals.last_offset + 1);
            let last = header.base_offset.checked_add(i64::from(header.last_offset_delta));
            let Some(last) = last.filter(|_| header.base_offset >= next) else {
                return Err(LogError::OffsetsOutOfOrder { first: header.base_offset, log_end: next });
            };
            let (totals, latest) = match &mut piece {
                Some((totals, latest)) => {
                    let fits = totals.bytes + bytes.len() <= self.config.segment_bytes as usize
                        && last - totals.first_offset <= i64::from(i32::MAX);
                    if !fits {
                        break;
                    }
                    (totals, latest)
                }
                none => {
                    let first_offset = header.base_offset;
                    let empty = Totals { bytes: 0, first_offset, last_offset: first_offset, max_timestamp: -1 };
                    let (totals, latest) = none.insert((empty, header));
                    (totals, latest)
                }
            };
            totals.bytes += bytes.len();
            totals.last_offset = last;
            totals.max_timestamp = totals.max_timestamp.max(header.max_timestamp);
            *latest = header;
            rest = &rest[bytes.len()..];
        }
        Ok(piece)
    }

    fn check_producer(&self, header: &BatchHeader, bytes: &[u8], origin: Origin) -> Result<Verdict, LogError> {
        if header.is_control()
            && origin == Origin::Coordinator
            && let Some(marker) = marker_of(bytes)
        {
            self.producers.check_marker(header.producer_id, &marker)?;
        }
        self.producers.check(header, origin)
    }

    fn duplicate(&self, found: BatchMeta) -> Appended {
        Appended {
            base_offset: found.first_offset(),
            last_offset: found.last_offset,
            log_append_time: found.timestamp,
            log_start_offset: self.log_start,
            duplicate: true,
        }
    }

    fn appended(&self, base_offset: i64, last: &BatchHeader) -> Appended {
        let log_append_time = match last.timestamp_type() {
            TimestampType::CreateTime => -1,
            TimestampType::LogAppendTime => last.max_timestamp,
        };
        Appended {
            base_offset,
            last_offset: last.last_offset(),
            log_append_time,
            log_start_offset: self.log_start,
            duplicate: false,
        }
    }

    /// Rolls first if the active segment can't or shouldn't take the batches.
    ///
    /// More than `most` bytes are refused: for a follower only what no file can hold, since its leader took the batch.
    fn make_room(&mut self, totals: &Totals, most: u32, now_ms: i64) -> Result<(), LogError> {
        let most = most.min(i32::MAX as u32);
        if totals.bytes > most as usize {
            return Err(LogError::RecordListTooLarge { size: totals.bytes, segment_bytes: most });
        }
        let limit = self.config.segment_bytes.min(i32::MAX as u32);
        let active = self.active();
        let segment = &self.segments[active];
        let overflow = totals.last_offset - segment.base > i64::from(i32::MAX);
        if segment.size == 0 {
            if overflow {
                self.roll_at(totals.first_offset, now_ms)?;
            }
            return Ok(());
        }
        let full = u64::from(segment.size) + totals.bytes as u64 > u64::from(limit)
            || overflow
            || segment.index_is_full(self.config.segment_index_bytes);
        if self.is_old(totals.max_timestamp, now_ms)? || full {
            // After a gap the next offset may be too far from the log's end for one segment.
            self.roll_at(if overflow { totals.first_offset } else { self.log_end }, now_ms)?;
        }
        Ok(())
    }

    /// Whether the active segment has been open for `segment.ms`, by the batches' clock.
    fn is_old(&mut self, max_timestamp: i64, now_ms: i64) -> Result<bool, LogError> {
        let active = self.active();
        // After opening, both come from the files; an append must know the largest timestamp so far.
        let first = self.with_segment(active, |s, place| {
            s.max_time(place)?;
            s.first_time(place)
        })?;
        let segment = &self.segments[active];
        let waited =
            if first >= 0 { max_timestamp.saturating_sub(first) } else { now_ms.saturating_sub(segment.created_ms) };
        let jitter = self.config.jitter_ms(self.salt, segment.base);
        let mut most = self.config.segment_ms;
        if self.config.compact {
            // Only closed segments are compacted.
            most = most.min(self.config.max_compaction_lag_ms);
        }
        Ok(waited > most.saturating_sub(jitter))
    }

    /// Writes at the end of the active segment, all or nothing.
    fn write(&mut self, slices: &mut [IoSlice<'_>]) -> Result<(), LogError> {
        let active = self.active();
        let size = self.segments[active].size;
        if size == 0 {
            // The file may be made by this write.
            self.names.mark();
        }
        let file = self.with_segment(active, |s, place| s.log_file(place))?;
        let Err(error) = write_all(&*file, slices, u64::from(size)) else {
            return Ok(());
        };
        let path = self.segments[active].log_path(self.place());
        // Part of it may have been written: the next append must not come after that.
        if let Err(undo) = file.set_len(u64::from(size)) {
            return Err(self.give_up(format!(
                "writing {} failed ({error}), and so did cutting off what was written: {undo}",
                path.display()
            )));
        }
        if is_full(&error) {
            return Err(LogError::io("appending to", &path, error));
        }
        Err(self.give_up(format!("writing {} failed: {error}", path.display())))
    }

    /// Takes a written batch into the state: indexes, epochs, producers, log end.
    fn note(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<(), LogError> {
        let active = self.active();
        let position = self.segments[active].size;
        self.segments[active].size = position + header.total_len() as u32;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((header.base_offset, position));
        self.log_end = header.next_offset();
        // From here on the batch is in the log. What follows can be made again from it, so errors only cost time.
        if let Err(e) = self.with_segment(active, |s, place| s.note(place, header, position)) {
            tracing::warn!(error = %e, "index entry not written");
        }
        if (self.epochs.assign(header.partition_leader_epoch, header.base_offset) || self.epochs_unwritten)
            && let Err(e) = self.write_epochs()
        {
            tracing::warn!(error = %e, "leader epoch not written");
        }
        if header.has_producer_id() {
            self.note_producer(header, bytes);
        }
        Ok(())
    }

    pub(crate) fn note_producer(&mut self, header: &BatchHeader, bytes: &[u8]) {
        if !header.is_control() {
            self.producers.note(header);
            return;
        }
        let Some(marker) = marker_of(bytes) else {
            return;
        };
        if let Some((txn, stable)) = self.producers.note_marker(header, &marker)
            && txn.aborted
        {
            self.note_aborted(txn, stable);
        }
    }
}
