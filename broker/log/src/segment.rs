//! One segment: a `.log` file with its two sparse indexes.
//!
//! Files are opened when first needed and can be closed at any time. Index entries are only hints: a lookup checks the
//! batch an entry leads to, and when it isn't the right one the indexes are made again from the log itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_protocol::batch::BatchHeader;

use crate::disk::{Disk, DiskFile, Open};
use crate::error::{Damage, LogError};
use crate::index::{At, Entry, OffsetEntry, SparseIndex, TimeEntry};
use crate::trust::Trust;
use crate::walk::{Walk, WalkError};

/// Where a partition's files are.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a Path,
    /// `index.interval.bytes`.
    pub interval: u32,
}

impl<'a> Place<'a> {
    pub fn at(&self, base: i64, suffix: &'static str) -> At<'a> {
        At { disk: self.disk, dir: self.dir, base, suffix }
    }

    pub fn path(&self, base: i64, suffix: &'static str) -> PathBuf {
        self.at(base, suffix).path()
    }
}

/// A timestamp and the offset that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeAt {
    pub timestamp: i64,
    pub offset: i64,
}

/// No timestamp seen.
pub(crate) const NO_TIME: TimeAt = TimeAt { timestamp: -1, offset: -1 };

#[derive(Debug)]
pub(crate) struct Segment {
    pub base: i64,
    /// Bytes of sound batches in the `.log` file.
    pub size: u32,
    /// When the segment was made or its file last written, for batches without timestamps.
    pub created_ms: i64,
    /// Timestamp of the first batch, once known.
    pub first_time: Option<i64>,
    /// Largest timestamp, once known.
    max_time: Option<TimeAt>,
    /// Bytes since the last index entry.
    since_index: u32,
    log: Option<Arc<dyn DiskFile>>,
    index: SparseIndex<OffsetEntry>,
    times: SparseIndex<TimeEntry>,
    /// Whether the indexes were made again since they were opened; then they are as good as they get.
    rebuilt: bool,
    /// Whether a `.txnindex` exists.
    pub has_aborts: bool,
    /// An entry of the `.txnindex` could not be written: it has to be made again.
    pub aborts_lost: bool,
    /// Used since idle files were closed last.
    used: bool,
    /// Which bytes are known to be sound.
    pub trust: Trust,
}

impl Segment {
    /// A segment without any batch or file yet.
    pub fn new(base: i64, now_ms: i64) -> Segment {
        Segment {
            base,
            size: 0,
            created_ms: now_ms,
            first_time: None,
            max_time: Some(NO_TIME),
            since_index: 0,
            log: None,
            index: SparseIndex::empty(),
            times: SparseIndex::empty(),
            rebuilt: true,
            has_aborts: false,
            aborts_lost: false,
            used: false,
            trust: Trust::default(),
        }
    }

    /// A segment found on disk.
    pub fn found(base: i64, size: u32, modified_ms: i64) -> Segment {
        Segment {
            size,
            max_time: None,
            index: SparseIndex::unopened(),
            times: SparseIndex::unopened(),
            rebuilt: false,
            trust: Trust::found(size),
            ..Segment::new(base, modified_ms)
        }
    }

    pub fn log_path(&self, place: Place<'_>) -> PathBuf {
        place.path(self.base, "log")
    }

    /// The `.log` file, opened if need be.
    pub fn log_file(&mut self, place: Place<'_>) -> Result<Arc<dyn DiskFile>, LogError> {
        self.used = true;
        if let Some(file) = &self.log {
            return Ok(file.clone());
        }
        // The file of an empty segment may not exist yet: that is what makes idle partitions free.
        let how = if self.size == 0 { Open::Create } else { Open::Write };
        let path = self.log_path(place);
        let file = place.disk.open(&path, how).map_err(|e| LogError::io("opening", &path, e))?;
        self.log = Some(file.clone());
        Ok(file)
    }

    /// Whether this is the `.log` file that is open.
    pub fn is_open_as(&self, file: &Arc<dyn DiskFile>) -> bool {
        self.log.as_ref().is_some_and(|log| Arc::ptr_eq(log, file))
    }

    /// Whether the `.log` file is open.
    pub fn is_open(&self) -> bool {
        self.log.is_some() || self.index.is_open() || self.times.is_open()
    }

    fn index_error(place: Place<'_>, base: i64, e: std::io::Error) -> LogError {
        LogError::io("using the index of", &place.path(base, "log"), e)
    }

    fn index_at<'a>(&self, place: Place<'a>) -> At<'a> {
        place.at(self.base, "index")
    }

    fn times_at<'a>(&self, place: Place<'a>) -> At<'a> {
        place.at(self.base, "timeindex")
    }

    /// Turns a bad place met on the way into the error for it.
    pub fn damage(&self, place: Place<'_>, e: WalkError) -> LogError {
        let file = self.log_path(place);
        match e {
            WalkError::Io(e) => LogError::io("reading", &file, e),
            WalkError::Bad { position, what } => LogError::Corrupt(Box::new(Damage {
                file,
                position: u64::from(position),
                offset: self.base,
                what,
                next_sound: None,
            })),
        }
    }

    /// Takes in a batch that now stands at `position`: index entries, largest timestamp.
    pub fn note(&mut self, place: Place<'_>, header: &BatchHeader, position: u32) -> Result<(), LogError> {
        if position == 0 {
            self.first_time = Some(header.max_timestamp);
        }
        let last = header.last_offset();
        let known = self.max_time.unwrap_or(NO_TIME);
        if header.max_timestamp > known.timestamp {
            self.max_time = Some(TimeAt { timestamp: header.max_timestamp, offset: last });
        }
        if self.since_index > place.interval {
            let (index_at, times_at) = (self.index_at(place), self.times_at(place));
            let entry = OffsetEntry { relative: (last - self.base) as u32, position };
            self.index
                .push(index_at, entry)
                .and_then(|()| self.push_time(times_at))
                .map_err(|e| Self::index_error(place, self.base, e))?;
            self.since_index = 0;
        }
        self.since_index = self.since_index.saturating_add(header.total_len() as u32);
        Ok(())
    }

    /// Adds the largest timestamp to the time index, unless it is there already.
    fn push_time(&mut self, at: At<'_>) -> std::io::Result<()> {
        let Some(max) = self.max_time.filter(|m| m.timestamp >= 0) else {
            return Ok(());
        };
        let entry = TimeEntry { timestamp: max.timestamp, relative: (max.offset - self.base) as u32 };
        let last = self.times.last(at)?;
        if last.is_none_or(|l| entry.timestamp > l.timestamp && entry.relative >= l.relative) {
            self.times.push(at, entry)?;
        }
        Ok(())
    }

    /// Bytes of the larger of the two indexes, as far as known without opening them.
    pub fn index_bytes(&self) -> u64 {
        self.index.bytes_known().max(self.times.bytes_known())
    }

    /// Whether an index has reached the configured size.
    pub fn index_is_full(&self, segment_index_bytes: u32) -> bool {
        let limit = u64::from(segment_index_bytes);
        // The time index keeps one slot free for the entry made at the roll.
        self.index.bytes_known() + 8 > limit || self.times.bytes_known() + 24 > limit
    }

    /// Makes both indexes again by walking the segment.
    pub fn rebuild(&mut self, place: Place<'_>) -> Result<(), LogError> {
        if self.size > 0 {
            tracing::info!(segment = %self.log_path(place).display(), "rebuilding indexes");
        }
        self.reset_indexes(place)?;
        let file = self.log_file(place)?;
        let mut walk = Walk::new(&*file, self.base, 0, self.size);
        loop {
            match walk.next() {
                Ok(None) => break,
                Ok(Some((position, header))) => self.note(place, &header, position)?,
                Err(WalkError::Bad { position, what }) => {
                    // What is before it can be found and read; who looks for more meets the damage itself.
                    tracing::warn!(segment = %self.log_path(place).display(), position, %what, "indexes end at a damaged batch");
                    break;
                }
                Err(e) => return Err(self.damage(place, e)),
            }
        }
        // Kept in memory until the next write if the disk is full: lookups work either way.
        if let Err(e) = self.write_indexes(place) {
            tracing::warn!(error = %e, "index not written, it stays in memory");
        }
        Ok(())
    }

    /// Empties both indexes, to be filled by [`note`](Self::note) from position 0.
    pub fn reset_indexes(&mut self, place: Place<'_>) -> Result<(), LogError> {
        let (index_at, times_at) = (self.index_at(place), self.times_at(place));
        self.index
            .reset(index_at)
            .and_then(|()| self.times.reset(times_at))
            .map_err(|e| Self::index_error(place, self.base, e))?;
        self.max_time = Some(NO_TIME);
        self.first_time = None;
        self.since_index = 0;
        self.rebuilt = true;
        Ok(())
    }

    /// Writes index entries that are only in memory.
    pub fn write_indexes(&mut self, place: Place<'_>) -> Result<(), LogError> {
        let (index_at, times_at) = (self.index_at(place), self.times_at(place));
        self.index
            .write_pending(index_at)
            .and_then(|()| self.times.write_pending(times_at))
            .map_err(|e| Self::index_error(place, self.base, e))
    }

    /// Completes the indexes of a segment that gets no more batches, or is closed.
    pub fn seal(&mut self, place: Place<'_>) -> Result<(), LogError> {
        if self.size == 0 {
            return Ok(());
        }
        self.max_time(place)?;
        let (index_at, times_at) = (self.index_at(place), self.times_at(place));
        self.push_time(times_at)
            .and_then(|()| self.times.seal(times_at))
            .and_then(|()| self.index.seal(index_at))
            .map_err(|e| Self::index_error(place, self.base, e))
    }

    /// The first batch whose last offset is `offset` or more, with its position. `None` when all end before.
    pub fn find(&mut self, place: Place<'_>, offset: i64) -> Result<Option<(u32, BatchHeader)>, LogError> {
        if offset <= self.base {
            return self.walk_from(place, 0, |_| true);
        }
        let wanted = u32::try_from(offset - self.base).unwrap_or(u32::MAX);
        let start = self.index_floor(place, |e| e.relative <= wanted)?;
        self.walk_from(place, start, |h| h.last_offset() >= offset)
    }

    /// Position of the batch of the last index entry for which `before` holds, or 0.
    fn index_floor(&mut self, place: Place<'_>, before: impl Fn(&OffsetEntry) -> bool) -> Result<u32, LogError> {
        loop {
            let at = self.index_at(place);
            let base = self.base;
            let error = |e| Self::index_error(place, base, e);
            let n = self.index.partition_point(at, |e| before(e)).map_err(error)?;
            let floor = match n.checked_sub(1) {
                None => None,
                Some(n) => self.index.get(at, n).map_err(error)?,
            };
            let Some(entry) = floor else {
                return Ok(0);
            };
            if self.rebuilt || self.leads_to_its_batch(place, entry)? {
                return Ok(entry.position);
            }
            tracing::warn!(
                index = %at.path().display(), offset = entry.offset(self.base), position = entry.position,
                "an index entry leads to another batch: both indexes are made again from the segment"
            );
            self.rebuild(place)?;
        }
    }

    /// Whether the batch at an entry's position is the one it stands for (older Kafka versions indexed the last offset
    /// of a whole append, which can be beyond the batch's own).
    fn leads_to_its_batch(&mut self, place: Place<'_>, entry: OffsetEntry) -> Result<bool, LogError> {
        if entry.position >= self.size {
            return Ok(false);
        }
        let file = self.log_file(place)?;
        let offset = entry.offset(self.base);
        match Walk::new(&*file, self.base, entry.position, self.size).next() {
            Ok(Some((_, h))) => Ok(h.base_offset >= self.base && h.last_offset() <= offset),
            Ok(None) | Err(WalkError::Bad { .. }) => Ok(false),
            Err(e) => Err(self.damage(place, e)),
        }
    }

    fn walk_from(
        &mut self,
        place: Place<'_>,
        start: u32,
        wanted: impl Fn(&BatchHeader) -> bool,
    ) -> Result<Option<(u32, BatchHeader)>, LogError> {
        let file = self.log_file(place)?;
        let mut walk = Walk::new(&*file, self.base, start, self.size);
        let mut steps = 0u32;
        let found = loop {
            match walk.next().map_err(|e| self.damage(place, e))? {
                Some((position, header)) if wanted(&header) => break Some((position, header)),
                Some(_) => steps += 1,
                None => break None,
            }
        };
        // Far more steps than an index leaves to do: it is missing or has lost its end.
        let walked = found.map_or(self.size, |(p, _)| p) - start;
        if !self.rebuilt && steps > 64 && walked > place.interval.saturating_mul(8) {
            tracing::warn!(
                index = %self.index_at(place).path().display(), walked,
                "the index is missing or has lost its end: both indexes are made again from the segment"
            );
            self.rebuild(place)?;
        }
        Ok(found)
    }

    /// The end of the last batch that lies wholly in `start..limit`, and the base offset of the batch after it.
    /// `start` is a batch boundary. `None` when everything up to the segment's end fits.
    pub fn cut(&mut self, place: Place<'_>, start: u32, limit: u32) -> Result<Option<Cut>, LogError> {
        let from = self.index_floor(place, |e| e.position <= limit)?.max(start);
        match self.cut_from(place, from, limit)? {
            Ok(cut) => Ok(cut),
            // What is sound before a damaged place can be read: its end is known to who comes there batch by batch.
            Err(_) if from > start => self.cut_from(place, start, limit)?.map_err(|e| self.damage(place, e)),
            Err(e) => Err(self.damage(place, e)),
        }
    }

    fn cut_from(
        &mut self,
        place: Place<'_>,
        from: u32,
        limit: u32,
    ) -> Result<Result<Option<Cut>, WalkError>, LogError> {
        let file = self.log_file(place)?;
        let mut walk = Walk::new(&*file, self.base, from, self.size);
        let mut end = from;
        let mut last: Option<BatchHeader> = None;
        loop {
            match walk.next() {
                Ok(None) => return Ok(Ok(None)),
                Ok(Some((position, header))) => {
                    let next = position + header.total_len() as u32;
                    if next > limit {
                        return Ok(Ok(Some(Cut {
                            end,
                            next_offset: header.base_offset,
                            next_end: next,
                            next_next_offset: header.next_offset(),
                        })));
                    }
                    end = next;
                    last = Some(header);
                }
                Err(WalkError::Bad { position, what }) => {
                    let Some(last) = last else { return Ok(Err(WalkError::Bad { position, what })) };
                    let next_offset = last.next_offset();
                    return Ok(Ok(Some(Cut { end, next_offset, next_end: end, next_next_offset: next_offset })));
                }
                Err(e) => return Ok(Err(e)),
            }
        }
    }

    /// The largest timestamp, with the last offset of the batch that has it.
    pub fn max_time(&mut self, place: Place<'_>) -> Result<TimeAt, LogError> {
        if let Some(max) = self.max_time {
            return Ok(max);
        }
        let (index_at, times_at) = (self.index_at(place), self.times_at(place));
        let error = |e| Self::index_error(place, self.base, e);
        let indexed = self.times.last(times_at).map_err(error)?;
        let last_entry = self.index.last(index_at).map_err(error)?;
        let mut max = NO_TIME;
        if let Some(entry) = indexed {
            let offset = entry.offset(self.base);
            match self.find(place, offset)? {
                Some((_, h)) if h.base_offset <= offset && h.max_timestamp == entry.timestamp => {
                    max = TimeAt { timestamp: entry.timestamp, offset };
                }
                _ if self.rebuilt => {}
                _ => {
                    tracing::warn!(index = %times_at.path().display(), "time index is wrong");
                    self.rebuild(place)?;
                }
            }
        } else if last_entry.is_some() && !self.rebuilt {
            self.rebuild(place)?;
        }
        if let Some(known) = self.max_time {
            return Ok(known);
        }
        // What the time index doesn't cover: everything from the last indexed batch on.
        let start = self.index_floor(place, |_| true)?;
        if let Some(known) = self.max_time {
            return Ok(known);
        }
        let file = self.log_file(place)?;
        let mut walk = Walk::new(&*file, self.base, start, self.size);
        while let Some((_, h)) = walk.next().map_err(|e| self.damage(place, e))? {
            if h.max_timestamp > max.timestamp {
                max = TimeAt { timestamp: h.max_timestamp, offset: h.last_offset() };
            }
        }
        self.max_time = Some(max);
        Ok(max)
    }

    /// Where to begin looking for the first record at or after a timestamp: no batch before this position has one.
    pub fn time_floor(&mut self, place: Place<'_>, timestamp: i64) -> Result<u32, LogError> {
        self.max_time(place)?;
        loop {
            let at = self.times_at(place);
            let base = self.base;
            let error = |e| Self::index_error(place, base, e);
            let n = self.times.partition_point(at, |e| e.timestamp < timestamp).map_err(error)?;
            let floor = match n.checked_sub(1) {
                None => None,
                Some(n) => self.times.get(at, n).map_err(error)?,
            };
            let Some(entry) = floor else {
                return Ok(0);
            };
            let offset = entry.offset(self.base);
            match self.find(place, offset)? {
                Some((position, h)) if h.base_offset <= offset && h.max_timestamp == entry.timestamp => {
                    return Ok(position);
                }
                _ if self.rebuilt => return Ok(0),
                _ => {
                    tracing::warn!(index = %at.path().display(), ?entry, "time index is wrong");
                    self.rebuild(place)?;
                }
            }
        }
    }

    /// The position of an indexed batch at or before a position; 0 when none is.
    pub fn batch_at_or_before(&mut self, place: Place<'_>, position: u32) -> Result<u32, LogError> {
        self.index_floor(place, |e| e.position <= position)
    }

    /// The offset after the last batch. `Corrupt` when the file doesn't end where a batch does.
    pub fn end_offset(&mut self, place: Place<'_>) -> Result<i64, LogError> {
        let start = self.index_floor(place, |_| true)?;
        let file = self.log_file(place)?;
        let mut walk = Walk::new(&*file, self.base, start, self.size);
        let mut end = self.base;
        while let Some((_, h)) = walk.next().map_err(|e| self.damage(place, e))? {
            end = h.next_offset();
        }
        Ok(end)
    }

    /// Timestamp of the first batch; -1 when there is none.
    pub fn first_time(&mut self, place: Place<'_>) -> Result<i64, LogError> {
        if let Some(first) = self.first_time {
            return Ok(first);
        }
        if self.size == 0 {
            return Ok(-1);
        }
        let first = self.walk_from(place, 0, |_| true)?.map_or(-1, |(_, h)| h.max_timestamp);
        self.first_time = Some(first);
        Ok(first)
    }

    /// Cuts the segment at a batch boundary; what follows has offsets of `offset` and more.
    pub fn truncate(&mut self, place: Place<'_>, position: u32, offset: i64) -> Result<(), LogError> {
        let file = self.log_file(place)?;
        file.set_len(u64::from(position)).map_err(|e| LogError::io("truncating", &self.log_path(place), e))?;
        self.size = position;
        self.trust.truncate(position);
        self.max_time = None;
        if position == 0 {
            return self.reset_indexes(place);
        }
        let (index_at, times_at) = (self.index_at(place), self.times_at(place));
        let base = self.base;
        let error = |e| Self::index_error(place, base, e);
        let n = self.index.partition_point(index_at, |e| e.position < position).map_err(error)?;
        self.index.truncate(index_at, n).map_err(error)?;
        let n = self.times.partition_point(times_at, |e| e.offset(base) < offset).map_err(error)?;
        self.times.truncate(times_at, n).map_err(error)?;
        // The next entry may come late, never wrong.
        self.since_index = 0;
        self.max_time(place)?;
        Ok(())
    }

    /// Closes files that were not used since the last call; writes pending index entries first.
    pub fn close_if_idle(&mut self, place: Place<'_>) -> Result<(), LogError> {
        if std::mem::take(&mut self.used) {
            return Ok(());
        }
        self.close(place)
    }

    /// Closes all files; writes pending index entries first.
    pub fn close(&mut self, place: Place<'_>) -> Result<(), LogError> {
        if !self.is_open() {
            return Ok(());
        }
        if let Some(arrivals) = self.log.take().and_then(|log| log.arrivals()) {
            self.trust.take_in(&arrivals, self.size);
        }
        self.rebuilt = false;
        let (index_at, times_at) = (self.index_at(place), self.times_at(place));
        self.index
            .close(index_at)
            .and_then(|()| self.times.close(times_at))
            .map_err(|e| Self::index_error(place, self.base, e))
    }

    /// Lets go of all files without writing: they are being removed or replaced.
    pub fn abandon(&mut self) {
        self.log = None;
        self.index.abandon();
        self.times.abandon();
    }
}

/// Where a read has to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// End of the last batch that fits.
    pub end: u32,
    /// Base offset of the first batch that doesn't.
    pub next_offset: i64,
    /// Where that one ends.
    pub next_end: u32,
    /// And the offset after it.
    pub next_next_offset: i64,
}
