//! Going from batch to batch in a segment file by reading only the headers.
//!
//! Small batches are read a page at a time, large ones are jumped over. Nothing is believed beyond what
//! `BatchHeader::parse` checks and that the batch lies within the segment.

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

/// A walk over the batches in `position..end` of a segment file.
pub(crate) struct Walk<'a> {
    file: &'a dyn DiskFile,
    position: u32,
    end: u32,
    next_read: usize,
    from: u32,
    filled: usize,
    page: [u8; PAGE],
}

impl<'a> Walk<'a> {
    pub fn new(file: &'a dyn DiskFile, position: u32, end: u32) -> Walk<'a> {
        Walk { file, position, end, next_read: PAGE, from: 0, filled: 0, page: [0; PAGE] }
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
        self.position += len as u32;
        self.next_read = if len > PAGE { PEEK } else { PAGE };
        Ok(Some((position, header)))
    }
}
