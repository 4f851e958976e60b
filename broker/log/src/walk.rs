//! Going from batch to batch in a segment file by reading only the headers.
//!
//! Small batches are read a page at a time, large ones are jumped over. A header is believed only when it parses, its
//! batch lies within the segment, and its offsets rise and can belong to the segment.

use std::io;

use klamm_protocol::batch::{BatchHeader, HEADER_LEN};

use crate::disk::{DiskFile, read_full};

const PAGE: usize = 4096;
/// Read at once when batches are larger than a page anyway.
const PEEK: usize = 128;

/// Why a walk ended early.
#[derive(Debug)]
pub(crate) enum WalkError {
    Io(io::Error),
    /// No sound batch where one should begin.
    Bad {
        position: u32,
        what: String,
    },
}

/// The order that the offsets of a segment's batches must have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rising {
    base: i64,
    next: i64,
}

impl Rising {
    /// For a segment that begins at `base`.
    pub fn from(base: i64) -> Rising {
        Rising { base, next: base }
    }

    /// Takes the next batch, or says what is wrong with its offsets.
    pub fn take(&mut self, header: &BatchHeader) -> Result<(), String> {
        let last = header.base_offset.checked_add(i64::from(header.last_offset_delta));
        let distance = last.and_then(|last| last.checked_sub(self.base));
        if header.base_offset < self.next || distance.is_none_or(|d| d > i64::from(i32::MAX)) {
            return Err(format!(
                "the batch has offsets {}..{}, {} or a little more would be next",
                header.base_offset,
                header.next_offset(),
                self.next
            ));
        }
        self.next = header.next_offset();
        Ok(())
    }
}

/// A walk over the batches in `position..end` of a segment file.
pub(crate) struct Walk<'a> {
    file: &'a dyn DiskFile,
    position: u32,
    end: u32,
    offsets: Rising,
    next_read: usize,
    from: u32,
    filled: usize,
    page: [u8; PAGE],
}

impl<'a> Walk<'a> {
    /// A walk in the segment that begins at offset `base`.
    pub fn new(file: &'a dyn DiskFile, base: i64, position: u32, end: u32) -> Walk<'a> {
        Walk { file, position, end, offsets: Rising::from(base), next_read: PAGE, from: 0, filled: 0, page: [0; PAGE] }
    }

    /// The next batch: where it begins, and its header.
    pub fn next(&mut self) -> Result<Option<(u32, BatchHeader)>, WalkError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let left = (self.end - position) as usize;
        let at = position.wrapping_sub(self.from) as usize;
        if self.filled < HEADER_LEN || position < self.from || at > self.filled - HEADER_LEN {
            let want = self.next_read.min(left);
            self.filled = read_full(self.file, &mut self.page[..want], u64::from(position)).map_err(WalkError::Io)?;
            self.from = position;
        }
        let at = (position - self.from) as usize;
        let header = BatchHeader::parse(&self.page[at..self.filled])
            .map_err(|e| WalkError::Bad { position, what: e.to_string() })?;
        let len = header.total_len();
        if len > left {
            return Err(WalkError::Bad {
                position,
                what: format!("batch of {len} bytes, but the segment ends after {left}"),
            });
        }
        self.offsets.take(&header).map_err(|what| WalkError::Bad { position, what })?;
        self.position += len as u32;
        self.next_read = if len > PAGE { PEEK } else { PAGE };
        Ok(Some((position, header)))
    }
}
