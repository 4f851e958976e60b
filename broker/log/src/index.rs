//! The sparse indexes of a segment in Kafka's formats: offset index (8 bytes an entry) and time index (12 bytes).
//!
//! New entries stay in memory and are written some thousand bytes at a time, since they can always be made again from
//! the segment. Lookups are binary searches by pread. Nothing here trusts an entry: callers check that the batch an
//! entry points to is the one it names, and rebuild the index when it isn't.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, Open, read_full, write_all};

/// An entry of fixed width.
pub(crate) trait Entry: Copy + PartialEq + std::fmt::Debug {
    /// Bytes in the file.
    const LEN: usize;
    fn read(bytes: &[u8]) -> Self;
    fn write(self, out: &mut Vec<u8>);
    /// Whether this is what a preallocated, never filled part of a file reads as.
    fn is_blank(self) -> bool;
    /// Offset that the entry is about, relative to the segment's base offset.
    fn relative(self) -> u32;

    /// Offset that the entry is about in a segment of this base offset. Base offsets are names of files, which anybody
    /// can give: one beyond what an offset can be is the largest.
    fn offset(self, base: i64) -> i64 {
        base.saturating_add(i64::from(self.relative()))
    }
}

/// Where the batch that ends at an offset begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    /// Last offset of the batch, relative to the segment's base offset.
    pub relative: u32,
    /// Position of the batch in the `.log` file.
    pub position: u32,
}

/// The largest timestamp up to an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    /// Largest record timestamp so far in the segment.
    pub timestamp: i64,
    /// Last offset of the batch that has it, relative to the segment's base offset.
    pub relative: u32,
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |n, b| n << 8 | u32::from(*b))
}

impl Entry for OffsetEntry {
    const LEN: usize = 8;

    fn read(bytes: &[u8]) -> Self {
        OffsetEntry { relative: be_u32(&bytes[..4]), position: be_u32(&bytes[4..8]) }
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn is_blank(self) -> bool {
        // Only batches after the first are indexed, so a real position is never 0.
        self.position == 0
    }

    fn relative(self) -> u32 {
        self.relative
    }
}

impl Entry for TimeEntry {
    const LEN: usize = 12;

    fn read(bytes: &[u8]) -> Self {
        let high = i64::from(be_u32(&bytes[..4]));
        let low = i64::from(be_u32(&bytes[4..8]));
        TimeEntry { timestamp: high << 32 | low, relative: be_u32(&bytes[8..12]) }
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative.to_be_bytes());
    }

    fn is_blank(self) -> bool {
        self.timestamp == 0 && self.relative == 0
    }

    fn relative(self) -> u32 {
        self.relative
    }
}

/// Entries kept in memory before they are written: one page of the offset index.
const PENDING_MAX: usize = 512;

/// Bytes read at once at the end of a binary search.
const PAGE: usize = 4096;

/// One index of one segment. Costs nothing until the first entry or lookup.
#[derive(Debug)]
pub(crate) struct SparseIndex<E> {
    file: Option<Arc<dyn DiskFile>>,
    /// Entries in the file, once it has been looked at.
    stored: Option<u32>,
    /// Entries after those in the file.
    pending: Vec<E>,
    /// The part of the file read last, for sequential readers: first entry number and bytes.
    page: Option<(u32, Box<[u8]>)>,
}

/// The file an index lives in; passed in so that an idle index stores no path.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a Path,
    pub base: i64,
    pub suffix: &'static str,
}

impl At<'_> {
    /// The file's path.
    pub fn path(&self) -> PathBuf {
        self.dir.join(format!("{:020}.{}", self.base, self.suffix))
    }
}

impl<E: Entry> SparseIndex<E> {
    /// An index whose file has not been looked at.
    pub fn unopened() -> Self {
        SparseIndex { file: None, stored: None, pending: Vec::new(), page: None }
    }

    /// An index known to have no file yet.
    pub fn empty() -> Self {
        SparseIndex { stored: Some(0), ..Self::unopened() }
    }

    fn open(&mut self, at: At<'_>, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let file = at.disk.open(&at.path(), how)?;
        self.file = Some(file.clone());
        Ok(file)
    }

    /// Entries in the file. A missing file has none; a blank tail (Apache preallocates) is not counted.
    fn stored(&mut self, at: At<'_>) -> io::Result<u32> {
        if let Some(n) = self.stored {
            return Ok(n);
        }
        let file = match self.open(at, Open::Write) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.stored = Some(0);
                return Ok(0);
            }
            Err(e) => return Err(e),
        };
        let n = u32::try_from(file.len()? / E::LEN as u64).unwrap_or(u32::MAX);
        self.stored = Some(n);
        if n > 0 && self.get(at, n - 1)?.is_some_and(|e| e.is_blank()) {
            let used = self.partition_point(at, |e| !e.is_blank())?;
            self.stored = Some(used);
        }
        Ok(self.stored.unwrap_or(0))
    }

    /// Number of entries.
    pub fn len(&mut self, at: At<'_>) -> io::Result<u32> {
        Ok(self.stored(at)? + self.pending.len() as u32)
    }

    /// Bytes the index takes, as far as known without opening it.
    pub fn bytes_known(&self) -> u64 {
        (u64::from(self.stored.unwrap_or(0)) + self.pending.len() as u64) * E::LEN as u64
    }

    /// The entry with a number, or `None` past the end.
    pub fn get(&mut self, at: At<'_>, n: u32) -> io::Result<Option<E>> {
        let stored = self.stored(at)?;
        if n >= stored {
            return Ok(self.pending.get((n - stored) as usize).copied());
        }
        if let Some(entry) = self.paged(n) {
            return Ok(Some(entry));
        }
        let file = self.open(at, Open::Write)?;
        let mut bytes = [0; 16];
        let got = read_full(&*file, &mut bytes[..E::LEN], u64::from(n) * E::LEN as u64)?;
        Ok((got == E::LEN).then(|| E::read(&bytes)))
    }

    fn paged(&self, n: u32) -> Option<E> {
        let (first, bytes) = self.page.as_ref()?;
        let from = n.checked_sub(*first)? as usize * E::LEN;
        bytes.get(from..from + E::LEN).map(E::read)
    }

    /// The last entry.
    pub fn last(&mut self, at: At<'_>) -> io::Result<Option<E>> {
        match self.len(at)? {
            0 => Ok(None),
            n => self.get(at, n - 1),
        }
    }

    /// Number of entries from the start for which `before` holds; it must not hold again after it failed once.
    pub fn partition_point(&mut self, at: At<'_>, before: impl Fn(&E) -> bool) -> io::Result<u32> {
        let stored = self.stored(at)?;
        if self.pending.first().is_some_and(&before) {
            return Ok(stored + self.pending.partition_point(before) as u32);
        }
        let (mut low, mut high) = (0, stored);
        // A page left by the last lookup often holds the answer.
        if let Some((first, bytes)) = &self.page {
            let count = (bytes.len() / E::LEN) as u32;
            let last = first + count.saturating_sub(1);
            if count > 0 && last < high {
                if self.paged(*first).is_some_and(|e| before(&e)) {
                    low = *first + 1;
                } else {
                    high = *first;
                }
                if low <= last && high > last {
                    if self.paged(last).is_some_and(|e| before(&e)) {
                        low = last + 1;
                    } else {
                        high = last;
                    }
                }
            }
        }
        while low < high {
            let mut mid = low + (high - low) / 2;
            if (high - low) as usize * E::LEN <= PAGE && self.paged(low).is_none() {
                self.read_page(at, low, high)?;
            }
            let entry = loop {
                match self.get(at, mid)? {
                    Some(entry) => break entry,
                    // The file is shorter than it was: take what is there.
                    None if mid > low => mid = low,
                    None => return Ok(low),
                }
            };
            if before(&entry) {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        Ok(low)
    }

    fn read_page(&mut self, at: At<'_>, low: u32, high: u32) -> io::Result<()> {
        // A little more than needed, for the next lookup further on.
        let count = (PAGE / E::LEN).max((high - low) as usize);
        let file = self.open(at, Open::Write)?;
        let end = self.stored.unwrap_or(high);
        let count = count.min((end - low) as usize);
        let mut bytes = vec![0; count * E::LEN];
        let got = read_full(&*file, &mut bytes, u64::from(low) * E::LEN as u64)?;
        bytes.truncate(got / E::LEN * E::LEN);
        self.page = Some((low, bytes.into_boxed_slice()));
        Ok(())
    }

    /// Adds an entry; it is written later.
    pub fn push(&mut self, at: At<'_>, entry: E) -> io::Result<()> {
        if self.pending.len() >= PENDING_MAX {
            self.write_pending(at)?;
        }
        self.pending.push(entry);
        Ok(())
    }

    /// Writes the entries that are only in memory. After an error they stay in memory, and a later call tries again.
    pub fn write_pending(&mut self, at: At<'_>) -> io::Result<()> {
        let stored = self.stored(at)?;
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(self.pending.len() * E::LEN);
        for entry in &self.pending {
            entry.write(&mut bytes);
        }
        let file = self.open(at, Open::Create)?;
        write_all(&*file, &mut [IoSlice::new(&bytes)], u64::from(stored) * E::LEN as u64)?;
        // What was read there when it was still blank is not what is there now.
        let stale = |(first, page): &(u32, Box<[u8]>)| first + (page.len() / E::LEN) as u32 > stored;
        self.page.take_if(|page| stale(page));
        self.stored = Some(stored + self.pending.len() as u32);
        self.pending.clear();
        Ok(())
    }

    /// Writes what is pending and gives the file its exact length, so that it exists and has no blank tail.
    pub fn seal(&mut self, at: At<'_>) -> io::Result<()> {
        self.write_pending(at)?;
        let file = self.open(at, Open::Create)?;
        let len = u64::from(self.stored.unwrap_or(0)) * E::LEN as u64;
        if file.len()? != len {
            file.set_len(len)?;
        }
        self.pending = Vec::new();
        Ok(())
    }

    /// Keeps the first `n` entries.
    pub fn truncate(&mut self, at: At<'_>, n: u32) -> io::Result<()> {
        let stored = self.stored(at)?;
        self.page = None;
        if n >= stored {
            self.pending.truncate((n - stored) as usize);
            return Ok(());
        }
        self.pending.clear();
        self.stored = Some(n);
        let file = self.open(at, Open::Write)?;
        file.set_len(u64::from(n) * E::LEN as u64)
    }

    /// Forgets everything, also what is in the file.
    pub fn reset(&mut self, at: At<'_>) -> io::Result<()> {
        self.page = None;
        self.pending.clear();
        self.stored = Some(0);
        match self.open(at, Open::Write) {
            Ok(file) => file.set_len(0),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Closes the file and frees caches. Entries in memory are written first.
    pub fn close(&mut self, at: At<'_>) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.write_pending(at)?;
        }
        self.pending = Vec::new();
        self.page = None;
        if self.file.take().is_some() {
            // Looked at afresh when it is opened again.
            self.stored = None;
        }
        Ok(())
    }

    /// Whether a file is open.
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Closes the file without writing, for a segment whose files are being removed.
    pub fn abandon(&mut self) {
        *self = Self::unopened();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use proptest::prelude::*;

    fn with_index(check: impl FnOnce(At<'_>)) {
        let dir = tempfile::tempdir().unwrap();
        check(At { disk: &RealDisk, dir: dir.path(), base: 0, suffix: "index" });
    }

    fn entry(i: u32) -> OffsetEntry {
        OffsetEntry { relative: i * 3, position: i * 100 + 100 }
    }

    #[test]
    fn entries_that_take_the_place_of_blank_ones_are_found() {
        // Apache allocates ahead, and a power loss may leave zeros.
        for blank in [1, 3, 600] {
            with_index(|at| {
                std::fs::write(at.path(), vec![0; blank * OffsetEntry::LEN]).unwrap();
                let mut index = SparseIndex::<OffsetEntry>::unopened();
                assert_eq!(index.len(at).unwrap(), 0);
                for i in 1..6 {
                    index.push(at, entry(i)).unwrap();
                }
                index.write_pending(at).unwrap();
                for (relative, expected) in [(0, 0), (2, 0), (3, 1), (100, 5)] {
                    assert_eq!(index.partition_point(at, |e| e.relative <= relative).unwrap(), expected, "{blank}");
                }
            });
        }
    }

    proptest! {
        #[test]
        fn search_agrees_with_a_plain_list(
            count in 0u32..3_000,
            targets in prop::collection::vec(0u32..10_000, 1..40),
            reopen: bool,
        ) {
            with_index(|at| {
                let mut index = SparseIndex::<OffsetEntry>::empty();
                for i in 0..count {
                    index.push(at, entry(i)).unwrap();
                }
                if reopen {
                    index.close(at).unwrap();
                    index = SparseIndex::unopened();
                }
                for target in targets {
                    let found = index.partition_point(at, |e| e.relative <= target).unwrap();
                    let expected = (0..count).filter(|i| entry(*i).relative <= target).count();
                    assert_eq!(found as usize, expected);
                    if found > 0 {
                        assert_eq!(index.get(at, found - 1).unwrap(), Some(entry(found - 1)));
                    }
                }
                assert_eq!(index.len(at).unwrap(), count);
            });
        }

        #[test]
        fn truncation_keeps_a_prefix(count in 0u32..1_500, keep in 0u32..1_500, more in 0u32..600) {
            with_index(|at| {
                let mut index = SparseIndex::<TimeEntry>::empty();
                let make = |i: u32| TimeEntry { timestamp: i64::from(i) + 5, relative: i };
                for i in 0..count {
                    index.push(at, make(i)).unwrap();
                }
                index.truncate(at, keep).unwrap();
                let kept = count.min(keep);
                for i in 0..more {
                    index.push(at, make(kept + i)).unwrap();
                }
                index.seal(at).unwrap();
                let mut again = SparseIndex::<TimeEntry>::unopened();
                assert_eq!(again.len(at).unwrap(), kept + more);
                for i in 0..kept + more {
                    assert_eq!(again.get(at, i).unwrap(), Some(make(i)));
                }
            });
        }
    }

    #[test]
    fn a_preallocated_tail_is_not_counted() {
        with_index(|at| {
            let mut index = SparseIndex::<OffsetEntry>::empty();
            for i in 0..10 {
                index.push(at, entry(i)).unwrap();
            }
            index.seal(at).unwrap();
            let file = RealDisk.open(&at.path(), Open::Write).unwrap();
            file.set_len(10 << 20).unwrap();
            let mut index = SparseIndex::<OffsetEntry>::unopened();
            assert_eq!(index.len(at).unwrap(), 10);
            index.push(at, entry(10)).unwrap();
            index.seal(at).unwrap();
            assert_eq!(file.len().unwrap(), 11 * 8);
        });
    }

    #[test]
    fn a_missing_file_has_no_entries_and_is_not_made_by_looking() {
        with_index(|at| {
            let mut index = SparseIndex::<TimeEntry>::unopened();
            assert_eq!(index.last(at).unwrap(), None);
            assert!(!at.path().exists());
        });
    }

    #[test]
    fn entries_have_kafkas_bytes() {
        let mut out = Vec::new();
        OffsetEntry { relative: 0x0102, position: 0x0304_0506 }.write(&mut out);
        TimeEntry { timestamp: -2, relative: 7 }.write(&mut out);
        assert_eq!(out, [0, 0, 1, 2, 3, 4, 5, 6, 255, 255, 255, 255, 255, 255, 255, 254, 0, 0, 0, 7]);
        assert_eq!(TimeEntry::read(&out[8..]).timestamp, -2);
    }
}
