//! Checking every byte of a log without opening it: for `klamm log verify`, and for finding silent damage early.
//!
//! Reads only, and goes on behind damage, so that the report is complete.

use std::io;
use std::path::{Path, PathBuf};

use klamm_protocol::FileRange;
use klamm_protocol::batch::BatchHeader;

use crate::disk::{Disk, Open, read_full};
use crate::error::{Damage, LogError};
use crate::index::{At, Entry, OffsetEntry, TimeEntry};
use crate::inspect::entries;
use crate::scan::{Scan, ScanError, Scanned, find_sound};

/// Checks the batches of a range that is about to be sent, when it had to come from the disk. Blocks.
///
/// # Errors
/// The file's, or `InvalidData` with the place of a batch that is not what was written.
pub fn verify_range(range: &FileRange) -> io::Result<()> {
    let file = crate::disk::RealFile::of(range.file.clone());
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let start = u32::try_from(range.position).map_err(|_| invalid("beyond what a segment can hold".into()))?;
    let mut head = [0; 8];
    read_full(&file, &mut head, range.position)?;
    let first = i64::from_be_bytes(head);
    let mut scan = Scan::new(&file, first, start, start.saturating_add(range.len), Vec::new());
    loop {
        match scan.next() {
            Ok(None) => return Ok(()),
            Ok(Some(_)) => {}
            Err(ScanError::Io(e)) => return Err(e),
            Err(ScanError::Bad { position, what }) => {
                return Err(invalid(format!(
                    "the batch of offset {first} or later at byte {position} is damaged: {what}"
                )));
            }
        }
    }
}

/// What one segment file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentReport {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Sound batches.
    pub batches: u64,
    /// Records the sound batches claim to hold.
    pub records: u64,
    /// Offset of the first sound batch, and the offset after the last.
    pub offsets: Option<(i64, i64)>,
    /// Every place where no sound batch begins though one should.
    pub damage: Vec<Damage>,
    /// Entries of its indexes that lead astray, by file. Indexes are caches: opening the log makes bad ones again.
    pub index_problems: Vec<(PathBuf, String)>,
}

/// Checks all segments in a partition's directory, in order.
pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentReport>, LogError> {
    let entries = disk.read_dir(dir).map_err(|e| LogError::io("listing", dir, e))?;
    let mut bases: Vec<i64> = entries
        .iter()
        .filter_map(|e| e.name.strip_suffix(".log").filter(|digits| digits.len() == 20)?.parse().ok())
        .collect();
    bases.sort_unstable();
    bases.into_iter().map(|base| verify_segment(disk, dir, base, |_| {})).collect()
}

/// A sound batch, and where it is.
#[derive(Debug, Clone, Copy)]
pub struct BatchAt<'a> {
    /// Position of its first byte.
    pub position: u32,
    /// Its header.
    pub header: &'a BatchHeader,
    /// All its bytes.
    pub bytes: &'a [u8],
}

/// Checks one segment of a partition's directory, by its base offset, and shows each sound batch on the way.
pub fn verify_segment(
    disk: &dyn Disk,
    dir: &Path,
    base: i64,
    mut each: impl FnMut(BatchAt<'_>),
) -> Result<SegmentReport, LogError> {
    let path = At { disk, dir, base, suffix: "log" }.path();
    let error = |e| LogError::io("reading", &path, e);
    let file = disk.open(&path, Open::Read).map_err(error)?;
    file.advise_sequential();
    let bytes = file.len().map_err(error)?;
    // Longer than Kafka's format allows: what is beyond can't be addressed.
    let end = u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut report = SegmentReport { path: path.clone(), bytes, ..SegmentReport::default() };
    let mut indexes = Indexes::read(disk, dir, base)?;
    let mut buf = Vec::new();
    let mut large = Vec::new();
    let mut from = Some(0);
    while let Some(position) = from.take() {
        let mut scan = Scan::new(&*file, base, position, end, buf);
        let next = |report: &SegmentReport| report.offsets.map_or(base, |(_, next)| next);
        loop {
            match scan.next() {
                Ok(None) => break,
                Ok(Some(Scanned { position, header, bytes })) => {
                    report.batches += 1;
                    report.records += u64::from(header.records_count.unsigned_abs());
                    let first = report.offsets.map_or(header.base_offset, |(first, _)| first);
                    report.offsets = Some((first, header.next_offset()));
                    indexes.pass(position, &header);
                    let bytes = if bytes.is_empty() {
                        // Larger than the scan keeps. The scan has seen that the file has that many bytes.
                        large.resize(header.total_len(), 0);
                        read_full(&*file, &mut large, u64::from(position)).map_err(error)?;
                        &large
                    } else {
                        bytes
                    };
                    each(BatchAt { position, header: &header, bytes });
                }
                Err(ScanError::Io(e)) => return Err(error(e)),
                Err(ScanError::Bad { position, what }) => {
                    let offset = next(&report);
                    let sound = find_sound(&*file, position.saturating_add(1), end, offset).map_err(error)?;
                    report.damage.push(Damage {
                        file: path.clone(),
                        position: u64::from(position),
                        offset,
                        what,
                        next_sound: sound.map(u64::from),
                    });
                    from = sound;
                    break;
                }
            }
        }
        buf = scan.into_buffer();
    }
    report.index_problems = indexes.problems(report.damage.is_empty());
    Ok(report)
}

/// The entries of a segment's indexes, compared with the batches as they go by.
struct Indexes {
    dir: PathBuf,
    base: i64,
    offsets: std::iter::Peekable<std::vec::IntoIter<OffsetEntry>>,
    times: Vec<TimeEntry>,
    newest: i64,
    end: i64,
    problems: Vec<(PathBuf, String)>,
}

impl Indexes {
    fn read(disk: &dyn Disk, dir: &Path, base: i64) -> Result<Indexes, LogError> {
        let read = |suffix| {
            let path = At { disk, dir, base, suffix }.path();
            let bytes = disk.read_file(&path).map_err(|e| LogError::io("reading", &path, e))?;
            Ok::<_, LogError>(bytes.unwrap_or_default())
        };
        Ok(Indexes {
            dir: dir.to_path_buf(),
            base,
            offsets: entries::<OffsetEntry>(&read("index")?).into_iter().peekable(),
            times: entries(&read("timeindex")?),
            newest: -1,
            end: base,
            problems: Vec::new(),
        })
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!("{:020}.{suffix}", self.base))
    }

    /// The next sound batch.
    fn pass(&mut self, position: u32, header: &BatchHeader) {
        self.newest = self.newest.max(header.max_timestamp);
        self.end = header.next_offset();
        while let Some(entry) = self.offsets.next_if(|e| e.position <= position) {
            let offset = entry.offset(self.base);
            // Older versions of Kafka name the last offset of a whole append, beyond the batch's own.
            if entry.position < position || header.last_offset() > offset {
                self.wrong(entry);
            }
        }
    }

    fn wrong(&mut self, entry: OffsetEntry) {
        let offset = entry.offset(self.base);
        let what = format!("says that offset {offset} is in the batch at byte {}, which is not so", entry.position);
        self.problems.push((self.path("index"), what));
    }

    /// What doesn't fit. Where the segment itself is damaged, an entry for a batch that is gone is not to blame.
    fn problems(mut self, whole: bool) -> Vec<(PathBuf, String)> {
        if !whole {
            return Vec::new();
        }
        while let Some(entry) = self.offsets.next() {
            self.wrong(entry);
        }
        for entry in &self.times {
            let offset = entry.offset(self.base);
            if entry.timestamp > self.newest || offset >= self.end {
                let what = format!("says that offset {offset} has timestamp {}, which no batch has", entry.timestamp);
                self.problems.push((self.path("timeindex"), what));
            }
        }
        self.problems
    }
}
