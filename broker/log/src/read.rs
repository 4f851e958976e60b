//! Reading: from an offset to a range of a segment file, ready for sendfile.
//!
//! A range starts at the batch that holds the offset, ends at a batch boundary, and never crosses segments. Where it
//! ended is remembered, so that whoever reads on from there costs no index lookup and no system call.

use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::FileRange;
use klamm_protocol::arrivals::Cached;

use crate::disk::{DiskFile, read_full};
use crate::error::LogError;
use crate::log::Log;
use crate::trust::Unchecked;

/// The answer to a read.
#[derive(Debug, Clone)]
pub struct ReadResult {
    /// Whole batches, or `None` when there is nothing to read (yet) within the limits.
    pub range: Option<FileRange>,
    /// Where the range begins: the base offset of its first batch, which may be below the offset asked for, or an
    /// offset in the gap that compaction left before that batch. The offset asked for when there is no range.
    pub first_offset: i64,
    /// Where to read on. The offset asked for when there is no range.
    pub next_offset: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// Offset after the last record of the log.
    pub log_end_offset: i64,
    /// The file of the range, as its disk has it.
    source: Option<Arc<dyn DiskFile>>,
    /// The range was found on disk and has to be checked before anybody sees it; then
    /// [`Log::checked`](crate::Log::checked) takes note.
    pub unchecked: Option<Box<Unchecked>>,
}

impl ReadResult {
    /// The range's bytes, for who looks at them instead of sending them. They end early where the file does.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn bytes(&self) -> std::io::Result<Bytes> {
        let (Some(range), Some(source)) = (&self.range, &self.source) else { return Ok(Bytes::new()) };
        let mut bytes = vec![0; range.len as usize];
        let read = read_full(&**source, &mut bytes, range.position)?;
        bytes.truncate(read);
        Ok(bytes.into())
    }

    /// Bytes in the range.
    pub fn len(&self) -> usize {
        self.range.as_ref().map_or(0, |r| r.len as usize)
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.range.is_none()
    }
}

/// Places where reads ended, so that the next one starts there directly.
#[derive(Debug, Default)]
pub(crate) struct Cursors(Option<Box<Slots>>);

/// There are none for a log that nobody reads.
#[derive(Debug, Default)]
struct Slots {
    slots: [Cursor; 4],
    oldest: u8,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    offset: i64,
    segment: i64,
    /// 0 marks an empty slot: a segment's start needs no cursor.
    position: u32,
}

impl Cursors {
    fn get(&self, segment: i64, offset: i64) -> Option<u32> {
        let mut slots = self.0.as_ref()?.slots.iter();
        slots.find(|c| c.offset == offset && c.segment == segment && c.position > 0).map(|c| c.position)
    }

    fn put(&mut self, before: i64, segment: i64, offset: i64, position: u32) {
        if self.get(segment, offset).is_some() {
            return;
        }
        let Slots { slots, oldest } = &mut **self.0.get_or_insert_default();
        // A reader that moved on takes its own slot along.
        let own = slots.iter().position(|c| c.position > 0 && c.offset == before);
        let slot = own.unwrap_or_else(|| {
            *oldest = (*oldest + 1) % slots.len() as u8;
            usize::from(*oldest)
        });
        slots[slot] = Cursor { offset, segment, position };
    }

    /// Forgets everything, for when positions may have changed.
    pub fn clear(&mut self) {
        *self = Cursors::default();
    }
}

/// Where a batch begins: segment index, position, base offset.
type Start = (usize, u32, i64);

impl Log {
    /// Reads whole batches from the one that holds `offset`, up to but not including `upper_bound` (high watermark, last
    /// stable offset, or log end) and at most `max_bytes`. With `min_one` the first batch comes even if it is larger.
    pub fn read(
        &mut self,
        offset: i64,
        max_bytes: usize,
        upper_bound: i64,
        min_one: bool,
    ) -> Result<ReadResult, LogError> {
        if offset < self.log_start || offset > self.log_end {
            return Err(LogError::OffsetOutOfRange { offset, log_start: self.log_start, log_end: self.log_end });
        }
        let nothing = ReadResult {
            range: None,
            first_offset: offset,
            next_offset: offset,
            log_start_offset: self.log_start,
            log_end_offset: self.log_end,
            source: None,
            unchecked: None,
        };
        if offset >= upper_bound || offset == self.log_end {
            return Ok(nothing);
        }
        let Some((at, start, first_offset)) = self.start_of(offset)? else {
            return Ok(nothing);
        };
        let segment = self.segments[at].base;
        if first_offset > offset
            && let Some(known) = self.damaged_between(segment, start, offset)
        {
            return Err(LogError::Corrupt(Box::new(known.damage.clone())));
        }
        if first_offset >= upper_bound {
            // Compaction may have removed all that is between, or this batch has a garbled offset and hides the others.
            return Ok(ReadResult { unchecked: self.whole_unchecked(at, offset)?, ..nothing });
        }
        let (bound, bound_offset) = self.bound_in(at, upper_bound)?;
        if bound <= start {
            return Ok(nothing);
        }
        let max = u32::try_from(max_bytes).unwrap_or(u32::MAX);
        let limit = start.saturating_add(max);
        let (mut end, mut next_offset) = if limit >= bound {
            (bound, bound_offset)
        } else {
            match self.with_segment(at, |s, place| s.cut(place, start, limit))? {
                None => (bound, bound_offset),
                Some(cut) if cut.end > start => (cut.end, cut.next_offset),
                Some(cut) if min_one => (cut.next_end, cut.next_next_offset),
                Some(_) => return Ok(nothing),
            }
        };
        if let Some(known) = self.damaged_in(segment, start, end) {
            if known.position == start {
                return Err(LogError::Corrupt(Box::new(known.damage.clone())));
            }
            (end, next_offset) = (known.position, known.damage.offset);
        }
        if next_offset <= offset {
            // No CRC covers the offset that a batch says of itself: one that was garbled led here, where older ones stand.
            self.cursors.clear();
            return Ok(ReadResult { unchecked: self.whole_unchecked(at, offset)?, ..nothing });
        }
        let file = self.with_segment(at, |s, place| s.log_file(place))?;
        // What comes from the disk after this is the sender's to find out, what came before it ours.
        let cached = file.arrivals().map(Cached::now);
        let unchecked = self.unchecked(at, (start, end), (first_offset, next_offset), offset)?;
        if end < self.segments[at].size || at == self.active() {
            self.cursors.put(offset, segment, next_offset, end);
        }
        Ok(ReadResult {
            range: Some(FileRange { file: file.file(), position: u64::from(start), len: end - start, cached }),
            first_offset,
            next_offset,
            source: Some(file),
            unchecked,
            ..nothing
        })
    }

    /// A whole segment to look through, where `offset` is not found as it should be.
    fn whole_unchecked(&mut self, at: usize, offset: i64) -> Result<Option<Box<Unchecked>>, LogError> {
        let (base, size, end) = (self.segments[at].base, self.segments[at].size, self.end_of(at));
        self.unchecked(at, (0, size), (base, end), offset)
    }

    /// The first batch that ends at `offset` or later.
    pub(crate) fn start_of(&mut self, offset: i64) -> Result<Option<Start>, LogError> {
        let mut at = self.segment_of(offset);
        let base = self.segments[at].base;
        if offset > base {
            if let Some(position) = self.cursors.get(base, offset)
                && position < self.segments[at].size
            {
                return Ok(Some((at, position, offset)));
            }
            if at == self.active()
                && let Some(position) = self.recent_position(offset)
            {
                return Ok(Some((at, position, offset)));
            }
            if let Some((position, header)) = self.with_segment(at, |s, place| s.find(place, offset))? {
                return Ok(Some((at, position, header.base_offset)));
            }
            // Compaction removed the end of this segment: go on in the next.
            at += 1;
        }
        while let Some(segment) = self.segments.get(at) {
            if segment.size > 0 {
                // The first batch left may begin later than the segment.
                let first = self.with_segment(at, |s, place| s.find(place, s.base))?;
                return Ok(first.map(|(position, h)| (at, position, h.base_offset)));
            }
            at += 1;
        }
        Ok(None)
    }

    /// Where in a segment readers have to stop because of `upper_bound`, and the offset to go on with.
    fn bound_in(&mut self, at: usize, upper_bound: i64) -> Result<(u32, i64), LogError> {
        let end = self.end_of(at);
        let whole = (self.segments[at].size, end);
        if upper_bound >= end {
            return Ok(whole);
        }
        let base = self.segments[at].base;
        if let Some(position) = self.cursors.get(base, upper_bound) {
            return Ok((position, upper_bound));
        }
        if at == self.active()
            && let Some(position) = self.recent_position(upper_bound)
        {
            return Ok((position, upper_bound));
        }
        let first_beyond = self.with_segment(at, |s, place| s.find(place, upper_bound))?;
        Ok(first_beyond.map_or((whole.0, upper_bound), |(position, header)| {
            // A batch that straddles the bound isn't wholly below it.
            (position, header.base_offset.min(upper_bound))
        }))
    }

    /// Position of the batch that begins at `offset`, if it was appended lately.
    fn recent_position(&self, offset: i64) -> Option<u32> {
        let at = self.recent.binary_search_by_key(&offset, |(base, _)| *base).ok()?;
        Some(self.recent[at].1)
    }
}
