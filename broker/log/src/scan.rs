//! Reading a segment front to back and checking every batch: what recovery and `klamm log verify` do.
//!
//! The file is read in pieces that fit the CPU's cache; a batch larger than a piece is summed up as it goes by, so that
//! a garbled length can't ask for memory.

use std::io;

use crc_fast::{CrcAlgorithm, Digest};
use klamm_protocol::batch::{BatchHeader, HEADER_LEN};

use crate::disk::{DiskFile, read_full};
use crate::walk::Rising;

const PIECE: usize = 256 * 1024;
const CRC_FROM: usize = 21;

/// A sound batch.
pub(crate) struct Scanned<'a> {
    pub position: u32,
    pub header: BatchHeader,
    /// The batch's bytes, as far as they were kept: all of them for batches up to a piece.
    pub bytes: &'a [u8],
}

/// Why a scan ended before the end of the file.
#[derive(Debug)]
pub(crate) enum ScanError {
    Io(io::Error),
    Bad { position: u32, what: String },
}

impl From<io::Error> for ScanError {
    fn from(e: io::Error) -> Self {
        ScanError::Io(e)
    }
}

/// A scan over `position..end` of a file.
pub(crate) struct Scan<'a> {
    file: &'a dyn DiskFile,
    position: u32,
    end: u32,
    offsets: Rising,
    buf: Vec<u8>,
    /// The buffered bytes are those of the file from `position` on: `buf[from..to]`.
    from: usize,
    to: usize,
}

impl<'a> Scan<'a> {
    /// A scan in the segment that begins at offset `base`. `buf` is working memory, to be used again for the next file.
    pub fn new(file: &'a dyn DiskFile, base: i64, position: u32, end: u32, mut buf: Vec<u8>) -> Scan<'a> {
        // Small partitions are the many: don't touch more memory than the file needs.
        let want = ((end.saturating_sub(position)) as usize).clamp(HEADER_LEN, PIECE);
        if buf.len() < want {
            buf.resize(want, 0);
        }
        Scan { file, position, end, offsets: Rising::from(base), buf, from: 0, to: 0 }
    }

    /// Gives the working memory back.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buf
    }

    /// Has at least `want` bytes buffered, unless the file ends before.
    fn fill(&mut self, want: usize) -> io::Result<()> {
        let have = self.to - self.from;
        if have >= want {
            return Ok(());
        }
        self.buf.copy_within(self.from..self.to, 0);
        self.from = 0;
        self.to = have;
        let left = (self.end - self.position) as usize - have;
        let room = (self.buf.len() - have).min(left);
        let at = u64::from(self.position) + have as u64;
        self.to += read_full(self.file, &mut self.buf[have..have + room], at)?;
        Ok(())
    }

    /// The next batch. After an error, where it is; the scan must not go on.
    pub fn next(&mut self) -> Result<Option<Scanned<'_>>, ScanError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let bad = |what: String| ScanError::Bad { position, what };
        self.fill(HEADER_LEN)?;
        let header = BatchHeader::parse(&self.buf[self.from..self.to]).map_err(|e| bad(e.to_string()))?;
        let len = header.total_len();
        let left = (self.end - position) as usize;
        if len > left {
            return Err(bad(format!("the batch has {len} bytes, but the file ends after {left}")));
        }
        let (bytes, crc) = if len <= self.buf.len() {
            self.fill(len)?;
            let bytes = self.from..(self.from + len).min(self.to);
            let crc = crc32c(self.buf.get(bytes.start + CRC_FROM..bytes.end).unwrap_or(&[]));
            self.from = bytes.end;
            (bytes, crc)
        } else {
            let crc = self.sum_large(len)?;
            (0..0, crc)
        };
        self.position = position + len as u32;
        if crc != header.crc {
            return Err(bad(format!("CRC is {crc:#010x}, the batch says {:#010x}", header.crc)));
        }
        self.offsets.take(&header).map_err(bad)?;
        Ok(Some(Scanned { position, header, bytes: &self.buf[bytes] }))
    }

    /// The CRC of a batch that is larger than the buffer.
    fn sum_large(&mut self, len: usize) -> io::Result<u32> {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut at = u64::from(self.position) + CRC_FROM as u64;
        let end = u64::from(self.position) + len as u64;
        while at < end {
            let want = self.buf.len().min((end - at) as usize);
            let got = read_full(self.file, &mut self.buf[..want], at)?;
            if got == 0 {
                break;
            }
            digest.update(&self.buf[..got]);
            at += got as u64;
        }
        self.from = 0;
        self.to = 0;
        Ok(digest.finalize() as u32)
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Looks for a sound batch anywhere in `from..end` with a base offset above `above`: the sign that bytes before it
/// were damaged, not just never written.
pub(crate) fn find_sound(file: &dyn DiskFile, from: u32, end: u32, above: i64) -> io::Result<Option<u32>> {
    const STEP: usize = 1 << 20;
    // Bytes that may be summed for candidates in all, so that hostile data can't make this quadratic.
    let mut budget = 8 * (u64::from(end) + STEP as u64);
    let mut buf = vec![0; STEP.min((end - from.min(end)) as usize)];
    let mut start = from;
    while start < end && (end - start) as usize >= HEADER_LEN {
        let want = buf.len().min((end - start) as usize);
        let got = read_full(file, &mut buf[..want], u64::from(start))?;
        if got < HEADER_LEN {
            break;
        }
        let tries = got - HEADER_LEN + 1;
        let mut at = 0;
        while at < tries {
            // The format byte, 16 bytes into a batch.
            match buf[at + 16..tries + 16].iter().position(|b| *b == 2) {
                None => break,
                Some(skip) => at += skip,
            }
            let position = start + at as u32;
            at += 1;
            let Ok(header) = BatchHeader::parse(&buf[at - 1..got]) else {
                continue;
            };
            let len = header.total_len() as u64;
            let plausible = header.base_offset > above
                && header.base_offset.checked_sub(above).is_some_and(|d| d < i64::from(u32::MAX))
                && len <= u64::from(end - position);
            if !plausible || len > budget {
                continue;
            }
            budget -= len;
            let mut scan = Scan::new(file, above, position, end, Vec::new());
            match scan.next() {
                Ok(Some(_)) => return Ok(Some(position)),
                Ok(None) | Err(ScanError::Bad { .. }) => {}
                Err(ScanError::Io(e)) => return Err(e),
            }
        }
        start += tries as u32;
    }
    Ok(None)
}
