//! Reading the files beside a segment for people: `klamm log dump` shows them, `klamm log verify` complains about them.
//!
//! Reads only, and trusts nothing: what is wrong with a file is told in words, and what can be read of it is shown.
//! All these files are caches; opening the log makes a bad one again.

use std::path::{Path, PathBuf};

use crate::aborted;
use crate::checkpoint;
use crate::disk::Disk;
use crate::epochs::{EPOCH_FILE, Epochs};
use crate::error::LogError;
use crate::index::{At, Entry, OffsetEntry, TimeEntry};
use crate::metadata;
use crate::snapshot;

/// The content of a file that is not a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideFile {
    /// The file.
    pub path: PathBuf,
    /// What it is, in words.
    pub kind: &'static str,
    /// Names of the columns.
    pub fields: &'static [&'static str],
    /// Its entries, as far as they can be read.
    pub rows: Vec<Vec<String>>,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

/// Names of the checkpoints in a log directory that hold offsets by partition.
const OFFSET_CHECKPOINTS: [&str; 4] = [
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
    "cleaner-offset-checkpoint",
];

/// Larger than any index, snapshot or checkpoint that a broker writes in earnest.
const BYTES_MAX: u64 = 256 << 20;

/// Reads a file by what its name says it is; `None` when it is no file of a log, or a segment itself.
pub fn side_file(disk: &dyn Disk, path: &Path) -> Result<Option<SideFile>, LogError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let numbered = name.split_once('.').filter(|(digits, _)| digits.len() == 20);
    let numbered = numbered.and_then(|(digits, suffix)| Some((digits.parse::<i64>().ok()?, suffix)));
    let known = match numbered {
        Some((_, suffix)) => ["index", "timeindex", "txnindex", "snapshot"].contains(&suffix),
        None => [EPOCH_FILE, metadata::FILE].contains(&name) || OFFSET_CHECKPOINTS.contains(&name),
    };
    if !known {
        return Ok(None);
    }
    let size = disk.metadata(path).map_err(|e| LogError::io("reading", path, e))?.len;
    if size > BYTES_MAX {
        let why = format!("it has {size} bytes, more than {BYTES_MAX}");
        return Err(LogError::io("reading", path, std::io::Error::new(std::io::ErrorKind::FileTooLarge, why)));
    }
    let bytes = disk.read_file(path).map_err(|e| LogError::io("reading", path, e))?;
    let bytes = bytes.ok_or_else(|| LogError::io("reading", path, std::io::ErrorKind::NotFound.into()))?;
    let new =
        |kind, fields| SideFile { path: path.to_path_buf(), kind, fields, rows: Vec::new(), problems: Vec::new() };
    let file = match (numbered, name) {
        (Some((base, "index")), _) => offset_index(new("offset index", &["offset", "position"]), base, &bytes),
        (Some((base, "timeindex")), _) => time_index(new("time index", &["timestamp", "offset"]), base, &bytes),
        (Some((base, "txnindex")), _) => {
            let fields = &["producer_id", "first_offset", "last_offset", "last_stable_offset"];
            aborted_transactions(disk, new("transaction index", fields), base, path)
        }
        (Some((_, "snapshot")), _) => producers(
            new(
                "producer snapshot",
                &["producer_id", "epoch", "last_sequence", "last_offset", "last_timestamp", "transaction_start"],
            ),
            &bytes,
        ),
        (_, EPOCH_FILE) => epochs(new("leader epochs", &["epoch", "start_offset"]), &bytes),
        (_, metadata::FILE) => topic(new("partition metadata", &["topic_id"]), &bytes),
        (_, name) if OFFSET_CHECKPOINTS.contains(&name) => {
            let mut file = new("offset checkpoint", &["topic", "partition", "offset"]);
            match checkpoint::parse(&bytes) {
                Some(offsets) => {
                    let row = |((topic, partition), offset)| row([&topic as &dyn ToString, &partition, &offset]);
                    file.rows = offsets.into_iter().map(row).collect();
                }
                None if bytes.is_empty() => {}
                None => file.problems.push("it is garbled: not whole lines of topic, partition and offset".to_owned()),
            }
            file
        }
        _ => return Ok(None),
    };
    Ok(Some(file))
}

fn row<const N: usize>(cells: [&dyn ToString; N]) -> Vec<String> {
    cells.map(ToString::to_string).to_vec()
}

/// The entries of an index without the blank tail that Apache preallocates.
pub(crate) fn entries<E: Entry>(bytes: &[u8]) -> Vec<E> {
    let mut entries: Vec<E> = bytes.chunks_exact(E::LEN).map(E::read).collect();
    while entries.pop_if(|e| e.is_blank()).is_some() {}
    entries
}

fn check_length<E: Entry>(file: &mut SideFile, bytes: &[u8]) {
    if !bytes.len().is_multiple_of(E::LEN) {
        file.problems.push(format!("it has {} bytes, which is no multiple of an entry's {}", bytes.len(), E::LEN));
    }
}

fn offset_index(mut file: SideFile, base: i64, bytes: &[u8]) -> SideFile {
    check_length::<OffsetEntry>(&mut file, bytes);
    let entries: Vec<OffsetEntry> = entries(bytes);
    for (n, pair) in entries.windows(2).enumerate() {
        if pair[1].relative <= pair[0].relative || pair[1].position <= pair[0].position {
            file.problems.push(out_of_order::<OffsetEntry>(n + 1));
        }
    }
    file.rows = entries.iter().map(|e| row([&e.offset(base), &e.position])).collect();
    file
}

fn time_index(mut file: SideFile, base: i64, bytes: &[u8]) -> SideFile {
    check_length::<TimeEntry>(&mut file, bytes);
    let entries: Vec<TimeEntry> = entries(bytes);
    for (n, pair) in entries.windows(2).enumerate() {
        if pair[1].relative < pair[0].relative || pair[1].timestamp <= pair[0].timestamp {
            file.problems.push(out_of_order::<TimeEntry>(n + 1));
        }
    }
    file.rows = entries.iter().map(|e| row([&e.timestamp, &e.offset(base)])).collect();
    file
}

fn out_of_order<E: Entry>(n: usize) -> String {
    format!("entry {n}, at byte {}, is not above the one before it", n * E::LEN)
}

fn aborted_transactions(disk: &dyn Disk, mut file: SideFile, base: i64, path: &Path) -> SideFile {
    let dir = path.parent().unwrap_or(Path::new(""));
    match aborted::read(At { disk, dir, base, suffix: "txnindex" }) {
        Ok(Some(all)) => {
            let row = |a: aborted::AbortedTxn| {
                row([&a.producer_id as &dyn ToString, &a.first_offset, &a.last_offset, &a.last_stable_offset])
            };
            file.rows = all.into_iter().map(row).collect();
        }
        Ok(None) => file.problems.push("it is garbled: not whole entries in the order of their markers".to_owned()),
        Err(e) => file.problems.push(format!("it can't be read: {e}")),
    }
    file
}

fn producers(mut file: SideFile, bytes: &[u8]) -> SideFile {
    match snapshot::decode(bytes) {
        Some(producers) => {
            let mut all: Vec<_> = producers.iter().collect();
            all.sort_by_key(|(id, _)| *id);
            let row = |(id, p): (i64, &crate::producers::Producer)| {
                let last_offset = p.last_batch().map_or(-1, |b| b.last_offset);
                let txn = p.txn_start.unwrap_or(-1);
                row([&id as &dyn ToString, &p.epoch, &p.last_sequence(), &last_offset, &p.last_timestamp, &txn])
            };
            file.rows = all.into_iter().map(row).collect();
        }
        None => file.problems.push("it is garbled: its version, checksum or length is wrong".to_owned()),
    }
    file
}

fn epochs(mut file: SideFile, bytes: &[u8]) -> SideFile {
    match Epochs::parse(bytes) {
        Some(epochs) => file.rows = epochs.entries().iter().map(|e| row([&e.epoch, &e.start_offset])).collect(),
        None => file.problems.push("it is garbled: not whole lines of rising epochs and offsets".to_owned()),
    }
    file
}

fn topic(mut file: SideFile, bytes: &[u8]) -> SideFile {
    match metadata::parse(bytes) {
        Some(id) => file.rows.push(row([&id])),
        None => file.problems.push("it is garbled: it names no topic id".to_owned()),
    }
    file
}
