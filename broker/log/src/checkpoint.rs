//! Kafka's text checkpoints: a version line, a count line, then one `topic partition offset` line per partition.
//!
//! They are replaced in one step and synced. Reading is strict: a file that isn't whole counts as absent, and the
//! caller falls back to the safe value (recover everything, log start at the first segment).

use std::collections::BTreeMap;
use std::path::Path;

use crate::disk::Disk;
use crate::error::LogError;

/// Offsets by topic and partition.
pub type Offsets = BTreeMap<(String, i32), i64>;

pub(crate) fn parse(text: &[u8]) -> Option<Offsets> {
    // A cut in the last line would otherwise read as a smaller number.
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let mut lines = text.lines();
    if lines.next()?.trim() != "0" {
        return None;
    }
    let count: usize = lines.next()?.trim().parse().ok()?;
    let mut offsets = Offsets::new();
    for line in lines.filter(|l| !l.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let topic = words.next()?.to_owned();
        let partition = words.next()?.parse().ok()?;
        let offset = words.next()?.parse().ok()?;
        if words.next().is_some() {
            return None;
        }
        offsets.insert((topic, partition), offset);
    }
    (offsets.len() == count).then_some(offsets)
}

fn to_text(offsets: &Offsets) -> String {
    let mut text = format!("0\n{}\n", offsets.len());
    for ((topic, partition), offset) in offsets {
        text.push_str(&format!("{topic} {partition} {offset}\n"));
    }
    text
}

/// Reads a checkpoint; missing or garbled files give `None`, the latter with a warning.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Offsets>, LogError> {
    let Some(bytes) = disk.read_file(path).map_err(|e| LogError::io("reading", path, e))? else {
        return Ok(None);
    };
    if bytes.is_empty() {
        // Apache makes its cleaner checkpoint empty until there is something to say.
        return Ok(None);
    }
    let offsets = parse(&bytes);
    if offsets.is_none() {
        tracing::warn!(file = %path.display(), "checkpoint is garbled, going on without it");
    }
    Ok(offsets)
}

fn checksum(text: &[u8]) -> String {
    format!("{:08x}\n", crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, text) as u32)
}

/// Reads a checkpoint that begins with a line of its checksum; `None` as of [`read`].
pub fn read_summed(disk: &dyn Disk, path: &Path) -> Result<Option<Offsets>, LogError> {
    let Some(bytes) = disk.read_file(path).map_err(|e| LogError::io("reading", path, e))? else {
        return Ok(None);
    };
    let sound = bytes.split_at_checked(9).filter(|(sum, text)| *sum == checksum(text).as_bytes());
    let offsets = sound.and_then(|(_, text)| parse(text));
    if offsets.is_none() {
        tracing::warn!(file = %path.display(), "checkpoint is garbled, going on without it");
    }
    Ok(offsets)
}

/// Replaces a checkpoint with a checksum; the new one is safe on disk when this returns.
pub fn write_summed(disk: &dyn Disk, path: &Path, offsets: &Offsets) -> Result<(), LogError> {
    let text = to_text(offsets);
    let text = checksum(text.as_bytes()) + &text;
    disk.write_file(path, text.as_bytes(), true).map_err(|e| LogError::io("writing", path, e))
}

/// Replaces a checkpoint; the new one is safe on disk when this returns.
pub fn write(disk: &dyn Disk, path: &Path, offsets: &Offsets) -> Result<(), LogError> {
    disk.write_file(path, to_text(offsets).as_bytes(), true).map_err(|e| LogError::io("writing", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn goes_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recovery-point-offset-checkpoint");
        assert_eq!(read(&RealDisk, &path).unwrap(), None);
        let offsets = Offsets::from([(("a-b".into(), 0), 5), (("__c".into(), 49), 0)]);
        write(&RealDisk, &path, &offsets).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n2\n__c 49 0\na-b 0 5\n");
        assert_eq!(read(&RealDisk, &path).unwrap(), Some(offsets));
    }

    #[test]
    fn any_cut_of_the_file_is_noticed_or_complete() {
        let offsets = Offsets::from([(("a".into(), 0), 15), (("b".into(), 1), 27)]);
        let text = to_text(&offsets);
        for cut in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..cut]), None, "cut at {cut}");
        }
        for bad in ["0\n1\na 0 x\n", "0\n1\na 0 1 2\n", "x\n0\n", "\0\0\0\0"] {
            assert_eq!(parse(bad.as_bytes()), None);
        }
    }
}
