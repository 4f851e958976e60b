//! `partition.metadata`: which incarnation of a topic a directory belongs to.
//!
//! Written without a sync: the cluster's metadata is the authority, and a file lost in a crash is written again.

use std::path::Path;

use klamm_protocol::Uuid;

use crate::disk::Disk;
use crate::error::LogError;

pub(crate) const FILE: &str = "partition.metadata";

pub(crate) fn parse(text: &[u8]) -> Option<Uuid> {
    let text = std::str::from_utf8(text).ok()?;
    let mut version = None;
    let mut topic_id = None;
    for line in text.lines() {
        let (key, value) = line.split_once(':')?;
        match key.trim() {
            "version" => version = Some(value.trim()),
            "topic_id" => topic_id = value.trim().parse().ok(),
            _ => {}
        }
    }
    (version? == "0").then_some(topic_id?)
}

/// The topic id a directory is marked with, if any.
pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Uuid>, LogError> {
    let path = dir.join(FILE);
    let bytes = disk.read_file(&path).map_err(|e| LogError::io("reading", &path, e))?;
    Ok(bytes.as_deref().and_then(parse))
}

/// Refuses a directory of another topic; marks one that has no (readable) mark. A zero `expected` takes any topic.
/// `present` says whether the file was seen in the directory.
pub(crate) fn check_or_write(disk: &dyn Disk, dir: &Path, expected: Uuid, present: bool) -> Result<Uuid, LogError> {
    match if present { read(disk, dir)? } else { None } {
        Some(found) if expected.is_zero() || found == expected => Ok(found),
        // Ids are random, and differ in about sixty bits. The next topic of that name must not look like this one with a
        // flipped bit, nor this one like a stranger's: its records would be set aside.
        Some(found) if differing_bits(found, expected) <= BITS_OF_A_LETTER => write(disk, dir, expected, present),
        Some(found) => Err(LogError::TopicIdMismatch {
            dir: dir.to_path_buf(),
            found: found.to_string(),
            expected: expected.to_string(),
        }),
        None if expected.is_zero() => Ok(expected),
        None => write(disk, dir, expected, present),
    }
}

/// One garbled letter of an id's text changes no more.
const BITS_OF_A_LETTER: u32 = 6;

fn differing_bits(one: Uuid, other: Uuid) -> u32 {
    one.0.iter().zip(other.0).map(|(a, b)| (a ^ b).count_ones()).sum()
}

fn write(disk: &dyn Disk, dir: &Path, expected: Uuid, present: bool) -> Result<Uuid, LogError> {
    let path = dir.join(FILE);
    if present {
        tracing::warn!(
            file = %path.display(), topic_id = %expected,
            "partition.metadata is garbled: written again with the topic's id from the cluster's metadata"
        );
    }
    let text = format!("version: 0\ntopic_id: {expected}");
    disk.write_file(&path, text.as_bytes(), false).map_err(|e| LogError::io("writing", &path, e))?;
    Ok(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_makes_no_other_topic() {
        let tmp = tempfile::tempdir().unwrap();
        let disk = crate::disk::RealDisk::shared();
        let mine = Uuid(std::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ 0x5a));
        let file = tmp.path().join(FILE);
        check_or_write(&*disk, tmp.path(), mine, false).unwrap();
        let good = std::fs::read(&file).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&file, &bad).unwrap();
            assert_eq!(check_or_write(&*disk, tmp.path(), mine, true).unwrap(), mine, "bit {bit}");
            assert_eq!(parse(&std::fs::read(&file).unwrap()), Some(mine), "bit {bit}");
        }
        let other = Uuid(mine.0.map(|byte| byte.wrapping_mul(91) ^ 0x33));
        assert!(matches!(check_or_write(&*disk, tmp.path(), other, true), Err(LogError::TopicIdMismatch { .. })));
    }
}
