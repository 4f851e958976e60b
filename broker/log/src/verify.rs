//! Checking every byte of a log without opening it: for `klamm log verify`, and for finding silent damage early.
//!
//! Reads only, and goes on behind damage, so that the report is complete.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, Open};
use crate::error::{Damage, LogError};
use crate::index::At;
use crate::scan::{Scan, ScanError, find_sound};

/// What one segment file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// Checks all segments in a partition's directory, in order.
pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentReport>, LogError> {
    let entries = disk.read_dir(dir).map_err(|e| LogError::io("listing", dir, e))?;
    let mut bases: Vec<i64> = entries
        .iter()
        .filter_map(|e| e.name.strip_suffix(".log").filter(|digits| digits.len() == 20)?.parse().ok())
        .collect();
    bases.sort_unstable();
    bases.into_iter().map(|base| verify_segment(disk, dir, base)).collect()
}

fn verify_segment(disk: &dyn Disk, dir: &Path, base: i64) -> Result<SegmentReport, LogError> {
    let path = At { disk, dir, base, suffix: "log" }.path();
    let error = |e| LogError::io("reading", &path, e);
    let file = disk.open(&path, Open::Read).map_err(error)?;
    file.advise_sequential();
    let bytes = file.len().map_err(error)?;
    // Longer than Kafka's format allows: what is beyond can't be addressed.
    let end = u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut report =
        SegmentReport { path: path.clone(), bytes, batches: 0, records: 0, offsets: None, damage: Vec::new() };
    let mut buf = Vec::new();
    let mut from = Some(0);
    while let Some(position) = from.take() {
        let mut scan = Scan::new(&*file, base, position, end, buf);
        let next = |report: &SegmentReport| report.offsets.map_or(base, |(_, next)| next);
        loop {
            match scan.next() {
                Ok(None) => break,
                Ok(Some(batch)) => {
                    report.batches += 1;
                    report.records += batch.header.records_count.unsigned_abs() as u64;
                    let first = report.offsets.map_or(batch.header.base_offset, |(first, _)| first);
                    report.offsets = Some((first, batch.header.next_offset()));
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
    Ok(report)
}
