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
        Some(found) => Err(LogError::TopicIdMismatch {
            dir: dir.to_path_buf(),
            found: found.to_string(),
            expected: expected.to_string(),
        }),
        None => {
            if !expected.is_zero() {
                let path = dir.join(FILE);
                if present {
                    tracing::warn!(
                        file = %path.display(), topic_id = %expected,
                        "partition.metadata is garbled: written again with the topic's id from the cluster's metadata"
                    );
                }
                let text = format!("version: 0\ntopic_id: {expected}");
                disk.write_file(&path, text.as_bytes(), false).map_err(|e| LogError::io("writing", &path, e))?;
            }
            Ok(expected)
        }
    }
}
