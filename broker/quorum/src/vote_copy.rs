//! The last vote a second time, in a file of its own beside the journal.
//!
//! A crash never takes a vote back: it is durable before anyone is told. A broken disk can, when the journal's end is
//! gone: then it looks as after a crash, and the node would vote again in a term in which it has voted. The copy, written
//! after the journal and before anyone is told, gives that away. It is only a lower bound: missing or garbled it
//! says nothing, and a full disk may keep it from being written.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use bytes::Bytes;

use crate::codec;
use crate::disk;
use crate::error::QuorumError;
use crate::types::Vote;

const FILE: &str = "vote.copy";
const MAGIC: &[u8; 4] = b"KLV1";
/// Magic 4, CRC-32C 4.
const HEADER: usize = 8;

fn checksum(body: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body) as u32
}

/// Replaces the copy in `dir`; it is durable when this returns. Blocks.
pub fn write(dir: &Path, vote: &Vote) -> Result<(), QuorumError> {
    let mut body = Vec::new();
    codec::put_vote(&mut body, vote);
    let (path, temporary) = (dir.join(FILE), dir.join(format!("{FILE}.tmp")));
    let written = (|| {
        let mut out = File::create(&temporary)?;
        out.write_all(&[&MAGIC[..], &checksum(&body).to_le_bytes(), &body].concat())?;
        disk::sync(&out)?;
        fs::rename(&temporary, &path)?;
        disk::sync_dir(dir)
    })();
    match written {
        Err(e) if e.kind() == std::io::ErrorKind::StorageFull => {
            tracing::warn!(file = %path.display(), "no room for a second copy of the vote");
            Ok(())
        }
        written => written.map_err(|e| QuorumError::io("writing", &path, e)),
    }
}

/// The copy in `dir`, if there is a sound one.
pub fn read(dir: &Path) -> Option<Vote> {
    let file = fs::read(dir.join(FILE)).ok()?;
    let (header, body) = file.split_at_checked(HEADER)?;
    if header[..4] != *MAGIC || header[4..] != checksum(body).to_le_bytes() {
        tracing::warn!(file = %dir.join(FILE).display(), "the second copy of the vote is garbled; the journal's counts");
        return None;
    }
    codec::get_vote(&mut Bytes::copy_from_slice(body)).ok()
}

/// Whether `copy` was cast after the last vote that `journal` knows of: the journal has lost its end.
pub fn is_newer(copy: &Vote, journal: Option<Vote>) -> bool {
    journal.is_none_or(|known| copy.leader_id > known.leader_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_read_whole_or_not_at_all() {
        let dir = tempfile::TempDir::new().unwrap();
        assert_eq!(read(dir.path()), None);
        for term in [3, 9] {
            write(dir.path(), &Vote::new(term, 2)).unwrap();
            assert_eq!(read(dir.path()), Some(Vote::new(term, 2)));
        }
        let path = dir.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(read(dir.path()), None, "cut at {at}");
            let mut bad = whole.clone();
            bad[at] ^= 0x20;
            fs::write(&path, &bad).unwrap();
            assert_eq!(read(dir.path()), None, "flip at {at}");
        }
    }

    #[test]
    fn only_a_vote_of_a_later_term_is_newer() {
        let copy = Vote::new(4, 1);
        assert!(is_newer(&copy, None));
        assert!(is_newer(&copy, Some(Vote::new_committed(3, 2))));
        assert!(!is_newer(&copy, Some(Vote::new(4, 1))));
        assert!(!is_newer(&Vote::new_committed(4, 1), Some(Vote::new(4, 1))));
        assert!(!is_newer(&copy, Some(Vote::new(5, 0))));
    }
}
