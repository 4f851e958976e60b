//! The transaction index of a segment (`.txnindex`): the transactions that a marker in this segment aborted.
//!
//! 34 bytes an entry, in the order of their markers: version i16, producer id, first offset, last offset, last stable
//! offset (i64 each). The file exists only when there is an entry. It is read whole: aborts are rare.

use std::io::{self, IoSlice};

use crate::disk::{Open, write_all};
use crate::index::At;

const ENTRY: usize = 34;

/// An aborted transaction, as consumers that read only committed records need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTxn {
    /// Producer id.
    pub producer_id: i64,
    /// First offset of the transaction in this partition.
    pub first_offset: i64,
    /// Offset of the abort marker.
    pub last_offset: i64,
    /// Last stable offset once the marker was written: no later marker ends a transaction that began before it.
    pub last_stable_offset: i64,
}

impl AbortedTxn {
    fn to_bytes(self) -> [u8; ENTRY] {
        let mut b = [0; ENTRY];
        b[2..10].copy_from_slice(&self.producer_id.to_be_bytes());
        b[10..18].copy_from_slice(&self.first_offset.to_be_bytes());
        b[18..26].copy_from_slice(&self.last_offset.to_be_bytes());
        b[26..34].copy_from_slice(&self.last_stable_offset.to_be_bytes());
        b
    }

    fn from_bytes(b: &[u8; ENTRY]) -> Option<AbortedTxn> {
        let field = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&b[at..at + 8]);
            i64::from_be_bytes(eight)
        };
        let entry = AbortedTxn {
            producer_id: field(2),
            first_offset: field(10),
            last_offset: field(18),
            last_stable_offset: field(26),
        };
        (b[..2] == [0, 0] && entry.first_offset >= 0 && entry.first_offset <= entry.last_offset).then_some(entry)
    }
}

/// All entries of a file; `None` when it is garbled. A missing file has none.
pub(crate) fn read(at: At<'_>) -> io::Result<Option<Vec<AbortedTxn>>> {
    let Some(bytes) = at.disk.read_file(&at.path())? else {
        return Ok(Some(Vec::new()));
    };
    let (entries, rest) = bytes.as_chunks::<ENTRY>();
    let parsed: Option<Vec<_>> = entries.iter().map(AbortedTxn::from_bytes).collect();
    Ok(parsed.filter(|all| rest.is_empty() && all.windows(2).all(|w| w[0].last_offset < w[1].last_offset)))
}

/// Adds an entry at the end.
pub(crate) fn append(at: At<'_>, entry: AbortedTxn) -> io::Result<()> {
    let file = at.disk.open(&at.path(), Open::Create)?;
    let len = file.len()? / ENTRY as u64 * ENTRY as u64;
    write_all(&*file, &mut [IoSlice::new(&entry.to_bytes())], len)
}

/// Replaces all entries; without any, the file goes.
pub(crate) fn replace(at: At<'_>, entries: &[AbortedTxn]) -> io::Result<()> {
    if entries.is_empty() {
        return at.disk.remove_file(&at.path());
    }
    let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_bytes()).collect();
    at.disk.write_file(&at.path(), &bytes, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn entries_go_both_ways_and_garbage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let at = At { disk: &RealDisk, dir: dir.path(), base: 0, suffix: "txnindex" };
        let path = at.path();
        assert_eq!(read(at).unwrap(), Some(vec![]));
        let entry = |n: i64| AbortedTxn {
            producer_id: n,
            first_offset: n * 10,
            last_offset: n * 10 + 5,
            last_stable_offset: n * 10 + 6,
        };
        append(at, entry(1)).unwrap();
        append(at, entry(2)).unwrap();
        assert_eq!(read(at).unwrap(), Some(vec![entry(1), entry(2)]));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 68);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.pop();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(at).unwrap(), None);
        replace(at, &[entry(3)]).unwrap();
        assert_eq!(read(at).unwrap(), Some(vec![entry(3)]));
        replace(at, &[]).unwrap();
        assert!(!path.exists());
    }
}
