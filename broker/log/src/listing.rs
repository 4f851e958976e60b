//! What a partition's directory holds, once the leftovers of interrupted work are completed or removed.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::compact::FOLDER;
use crate::disk::{Disk, Open};
use crate::epochs::EPOCH_FILE;
use crate::error::LogError;
use crate::metadata;
use crate::retain::SIDE_FILES;
use crate::segment::{Place, Segment};
use crate::walk::Walk;

/// Files of a partition, by base offset.
#[derive(Default)]
pub(crate) struct Found {
    pub logs: Vec<i64>,
    pub side: HashSet<(i64, &'static str)>,
    pub snapshots: Vec<i64>,
    /// Whether `leader-epoch-checkpoint` is there; one that isn't need not be looked for.
    pub epochs: bool,
    /// Whether `partition.metadata` is there.
    pub mark: bool,
    /// What a repair keeps: files for [`crate::aside`].
    pub kept: Vec<String>,
}

/// `00000000000000000042.log` -> 42 and `log`.
fn split_name(name: &str) -> Option<(i64, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, suffix))
}

/// Lists a directory, which is made when missing (the answer's second part says so).
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<(Found, bool), LogError> {
    let entries = match disk.read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            disk.create_dir(dir).map_err(|e| LogError::io("making", dir, e))?;
            return Ok((Found::default(), true));
        }
        Err(e) => return Err(LogError::io("listing", dir, e)),
    };
    let mut found = Found::default();
    let mut leftovers = Vec::new();
    let mut swaps = Vec::new();
    for entry in entries {
        let name = entry.name;
        if entry.is_dir {
            if name == FOLDER {
                let path = dir.join(name);
                disk.remove_dir_all(&path).map_err(|e| LogError::io("removing", &path, e))?;
            }
            continue;
        }
        if [".deleted", ".cleaned", ".tmp"].iter().any(|suffix| name.ends_with(suffix)) {
            leftovers.push(name);
            continue;
        }
        match name.as_str() {
            EPOCH_FILE => found.epochs = true,
            metadata::FILE => found.mark = true,
            _ => {}
        }
        match split_name(&name) {
            Some((base, "log")) => found.logs.push(base),
            Some((base, "log.swap")) => swaps.push(base),
            Some((base, "snapshot")) => found.snapshots.push(base),
            // Indexes being swapped in are made again.
            Some((_, suffix)) if suffix.ends_with(".swap") => leftovers.push(name),
            Some((base, suffix)) => {
                if let Some(known) = SIDE_FILES.into_iter().find(|s| *s == suffix) {
                    found.side.insert((base, known));
                }
            }
            None if name.ends_with(".aside") => found.kept.push(name),
            None => {}
        }
    }
    for base in swaps {
        complete_swap(disk, dir, base, &mut found)?;
    }
    found.logs.sort_unstable();
    found.snapshots.sort_unstable();
    let orphans = found.side.iter().filter(|(base, _)| found.logs.binary_search(base).is_err());
    leftovers.extend(orphans.map(|(base, suffix)| format!("{base:020}.{suffix}")));
    for name in leftovers {
        let path = dir.join(name);
        disk.remove_file(&path).map_err(|e| LogError::io("removing", &path, e))?;
    }
    Ok((found, false))
}

/// Completes a compaction that was interrupted after its new segment was whole: the segments it replaces go, and it
/// takes its name.
fn complete_swap(disk: &dyn Disk, dir: &Path, base: i64, found: &mut Found) -> Result<(), LogError> {
    let place = Place { disk, dir, interval: 0 };
    let swap = place.path(base, "log.swap");
    let file = disk.open(&swap, Open::Read).map_err(|e| LogError::io("opening", &swap, e))?;
    let len = file.len().map_err(|e| LogError::io("opening", &swap, e))?;
    let size = u32::try_from(len).map_err(|_| LogError::io("opening", &swap, io::ErrorKind::InvalidData.into()))?;
    let mut end = base;
    let mut walk = Walk::new(&*file, base, 0, size);
    while let Some((_, header)) = walk.next().map_err(|e| Segment::found(base, size, 0).damage(place, e))? {
        end = header.next_offset();
    }
    let remove = |base: i64, suffix: &'static str| {
        let path = place.path(base, suffix);
        disk.remove_file(&path).map_err(|e| LogError::io("removing", &path, e))
    };
    for &other in found.logs.iter().filter(|o| **o > base && **o < end) {
        for suffix in ["log"].into_iter().chain(SIDE_FILES) {
            remove(other, suffix)?;
        }
    }
    found.logs.retain(|o| *o < base || (*o > base && *o >= end));
    for suffix in SIDE_FILES {
        remove(base, suffix)?;
        found.side.remove(&(base, suffix));
    }
    let log = place.path(base, "log");
    disk.rename(&swap, &log).map_err(|e| LogError::io("renaming", &swap, e))?;
    found.logs.push(base);
    Ok(())
}
