//! Snapshots of the state machine: one checksummed file each, written aside and renamed, newest one kept.
//!
//! A snapshot is only ever replaced by a newer durable one, so there is always one to start from once the
//! journal has been purged. The file's bytes are also what voters send to each other.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use crate::codec::{self, Malformed};
use crate::error::QuorumError;
use crate::types::{LogId, SnapshotMeta, term_of};

const SUFFIX: &str = ".snapshot";
const MAGIC: &[u8; 4] = b"KLS1";
/// Magic 4, CRC-32C 4.
const HEADER: usize = 8;

/// What a snapshot file holds.
pub struct Contents {
    pub meta: SnapshotMeta,
    pub records: Arc<[Bytes]>,
}

/// The newest snapshot in the quorum's folder.
pub struct Snapshots {
    dir: PathBuf,
    newest: Option<(SnapshotMeta, PathBuf)>,
    /// Nothing is written any more.
    closed: bool,
}

impl Snapshots {
    /// Finds the newest snapshot and reads it. A damaged one is an error: the log before it is gone.
    pub fn open(dir: &Path) -> Result<(Self, Option<Contents>), QuorumError> {
        let mut paths = Vec::new();
        for item in fs::read_dir(dir).map_err(|e| QuorumError::io("listing", dir, e))? {
            let path = item.map_err(|e| QuorumError::io("listing", dir, e))?.path();
            if path.to_str().is_some_and(|p| p.ends_with(SUFFIX)) {
                paths.push(path);
            }
        }
        paths.sort();
        let mut snapshots = Self { dir: dir.to_path_buf(), newest: None, closed: false };
        let Some(path) = paths.pop() else { return Ok((snapshots, None)) };
        let bytes = Bytes::from(fs::read(&path).map_err(|e| QuorumError::io("reading", &path, e))?);
        let contents = decode(&bytes).map_err(|e| damaged(&path, &e))?;
        snapshots.newest = Some((contents.meta.clone(), path));
        // A crash between writing the newest and removing the one before left it here.
        for old in paths {
            fs::remove_file(&old).map_err(|e| QuorumError::io("removing", &old, e))?;
        }
        Ok((snapshots, Some(contents)))
    }

    /// Meta and file contents of the newest snapshot.
    pub fn newest(&self) -> Result<Option<(SnapshotMeta, Bytes)>, QuorumError> {
        let Some((meta, path)) = &self.newest else { return Ok(None) };
        let bytes = fs::read(path).map_err(|e| QuorumError::io("reading", path, e))?;
        Ok(Some((meta.clone(), bytes.into())))
    }

    /// Up to `bytes_max` bytes at `position` of the newest snapshot, with its offset and size. Another snapshot than
    /// the asked one begins at its start.
    pub fn part(
        &self,
        upto: Option<LogId>,
        position: u64,
        bytes_max: usize,
    ) -> Result<Option<(LogId, u64, Bytes)>, QuorumError> {
        let Some((meta, path)) = &self.newest else { return Ok(None) };
        let Some(newest) = meta.last_log_id else { return Ok(None) };
        let position = if upto == Some(newest) { position } else { 0 };
        let read = || {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            let wanted = size.saturating_sub(position).min(bytes_max as u64);
            let mut bytes = vec![0; wanted as usize];
            file.read_exact_at(&mut bytes, position)?;
            Ok((newest, size, Bytes::from(bytes)))
        };
        read().map(Some).map_err(|e| QuorumError::io("reading", path, e))
    }

    /// A snapshot that is still being made is dropped: the files may belong to somebody else soon.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Makes `file` (from [`encode`]) the newest snapshot, durably, unless a newer one is there. Blocks.
    pub fn install(&mut self, meta: SnapshotMeta, file: &[u8]) -> Result<(), QuorumError> {
        if self.closed || self.newest.as_ref().is_some_and(|(have, _)| have.last_log_id >= meta.last_log_id) {
            return Ok(());
        }
        let (term, index) = meta.last_log_id.as_ref().map_or((0, 0), |id| (term_of(id), id.index));
        let path = self.dir.join(format!("{index:020}-{term:020}{SUFFIX}"));
        let temporary = path.with_extension("tmp");
        let written = (|| {
            let mut out = File::create(&temporary)?;
            out.write_all(file)?;
            out.sync_data()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.dir)?.sync_all()
        })();
        written.map_err(|e| {
            // Best effort: what stays behind is removed at the next open.
            let _ = fs::remove_file(&temporary);
            QuorumError::io("writing", &path, e)
        })?;
        if let Some((_, old)) = self.newest.replace((meta, path)) {
            fs::remove_file(&old).map_err(|e| QuorumError::io("removing", &old, e))?;
        }
        Ok(())
    }
}

fn damaged(path: &Path, reason: &Malformed) -> QuorumError {
    QuorumError::Damaged { path: path.to_path_buf(), position: 0, reason: format!("malformed {}", reason.0) }
}

/// The file form of a snapshot.
pub fn encode(meta: &SnapshotMeta, records: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + codec::records_size(records));
    out.put_slice(MAGIC);
    out.put_u32_le(0);
    codec::put_optional_log_id(&mut out, meta.last_log_id.as_ref());
    codec::put_stored_membership(&mut out, &meta.last_membership);
    codec::put_records(&mut out, records);
    let crc = checksum(&out[HEADER..]);
    out[4..HEADER].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads what [`encode`] wrote.
pub fn decode(file: &Bytes) -> Result<Contents, Malformed> {
    if file.len() < HEADER || &file[..4] != MAGIC {
        return Err(Malformed("snapshot header"));
    }
    if file[4..HEADER] != checksum(&file[HEADER..]).to_le_bytes() {
        return Err(Malformed("snapshot checksum"));
    }
    let mut body = file.slice(HEADER..);
    let last_log_id = codec::get_optional_log_id(&mut body)?;
    let last_membership = codec::get_stored_membership(&mut body)?;
    let records = codec::get_records(&mut body)?;
    let snapshot_id = last_log_id.as_ref().map_or_else(|| "empty".into(), |id| format!("{}-{}", term_of(id), id.index));
    Ok(Contents { meta: SnapshotMeta { last_log_id, last_membership, snapshot_id }, records })
}

fn checksum(body: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body) as u32
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::types::{StoredMembership, log_id};

    fn meta(index: u64) -> SnapshotMeta {
        let last_log_id = Some(log_id(2, index));
        SnapshotMeta { last_log_id, last_membership: StoredMembership::default(), snapshot_id: format!("2-{index}") }
    }

    #[test]
    fn the_newest_snapshot_stays_and_damage_is_noticed() {
        let dir = TempDir::new().unwrap();
        let (mut snapshots, none) = Snapshots::open(dir.path()).unwrap();
        assert!(none.is_none());
        for index in [5, 9, 7] {
            let file = encode(&meta(index), &[Bytes::from(vec![index as u8; 10])]);
            snapshots.install(meta(index), &file).unwrap();
        }
        let (snapshots, contents) = Snapshots::open(dir.path()).unwrap();
        let contents = contents.unwrap();
        assert_eq!((contents.meta, &contents.records[0][..]), (meta(9), &[9; 10][..]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let whole = snapshots.newest().unwrap().unwrap().1;
        let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        for at in 0..whole.len() {
            let mut bad = whole.to_vec();
            bad[at] ^= 4;
            fs::write(&path, &bad).unwrap();
            assert!(matches!(Snapshots::open(dir.path()), Err(QuorumError::Damaged { .. })), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(Snapshots::open(dir.path()).is_err(), "cut at {at}");
        }
    }
}
