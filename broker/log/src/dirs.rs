//! A log directory (one entry of `log.dirs`): its lock, identity, clean-stop marker, checkpoints, and partitions.
//!
//! File names and formats are Kafka's, so that a directory can be handed over in either direction. The clean-stop marker
//! is taken away as soon as the directory is opened: whatever happens next counts as unclean until [`LogDir::close_clean`].
//! Of the log starts there is a copy with a checksum: nothing in the segments tells where a log starts that was cut within
//! one, and Kafka's own file may be garbled and look sound.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_protocol::Uuid;
use parking_lot::Mutex;

use crate::checkpoint::{self, Offsets};
use crate::disk::{Disk, DiskFile};
use crate::error::LogError;
use crate::recover::Recovery;

const LOCK: &str = ".lock";
const META: &str = "meta.properties";
const CLEAN: &str = ".kafka_cleanshutdown";
const BOOT: &str = ".klamm_boot";
const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const LOG_STARTS_COPY: &str = ".klamm_log_starts";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
const CLEANER: &str = "cleaner-offset-checkpoint";
const DELETED: &str = "-delete";
/// The longest name most file systems take.
const NAME_MAX: usize = 255;

/// What `meta.properties` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaProperties {
    /// The cluster's id.
    pub cluster_id: String,
    /// The node this directory belongs to.
    pub node_id: i32,
    /// The directory's own id; it moves with the disk.
    pub directory_id: Uuid,
}

/// Why a log directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Another process has it.
    #[error("log directory {0} is in use by another process (it holds {LOCK})")]
    Locked(PathBuf),
    /// `meta.properties` is not one.
    #[error(
        "{0} is damaged: {1}. No data was touched. Write it again (version=1, cluster.id, node.id and directory.id, one a \
         line; other nodes of the cluster show the first in their own), or move the whole directory away: a node with an \
         empty one takes its data from the others"
    )]
    BadMeta(PathBuf, String),
    /// `meta.properties` is gone, and with it the knowledge of who the data belong to.
    #[error(
        "{0} holds data, but no {META} that says which cluster and node they belong to. No data was touched. Restore the \
         file (version=1, cluster.id, node.id and directory.id, one a line), or start with an empty directory"
    )]
    Unmarked(PathBuf),
    /// It belongs to another node or cluster.
    #[error("{dir} belongs to {what} {found}, this is {expected}")]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// "cluster" or "node".
        what: &'static str,
        /// What `meta.properties` says.
        found: String,
        /// What this process is.
        expected: String,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// An open log directory; the lock is held while it lives.
#[derive(Debug)]
pub struct LogDir {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    _lock: Arc<dyn DiskFile>,
    clean: bool,
    clean_epoch: Option<i64>,
    machine_restarted: bool,
    boot_id: String,
    recovery_points: Offsets,
    log_starts: Offsets,
    /// Their checkpoint was missing or garbled.
    log_starts_lost: bool,
    /// Their copy, when there was a sound one.
    log_starts_copy: Option<Offsets>,
    /// What the copy says now.
    copied: Mutex<Option<Offsets>>,
}

impl LogDir {
    /// Opens and locks a directory, which is made when missing (its parent must exist). `boot_id` names the machine's
    /// current boot; a different one than last time means that unflushed data may be missing in any order. That stays
    /// so until [`recovered`](Self::recovered), however often the directory is opened meanwhile.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, boot_id: &str) -> Result<LogDir, DirError> {
        disk.create_dir(path).map_err(|e| LogError::io("making", path, e))?;
        let lock_path = path.join(LOCK);
        let lock =
            disk.open(&lock_path, crate::disk::Open::Create).map_err(|e| LogError::io("opening", &lock_path, e))?;
        lock.lock().map_err(|e| match e.kind() {
            std::io::ErrorKind::WouldBlock => DirError::Locked(path.to_path_buf()),
            _ => LogError::io("locking", &lock_path, e).into(),
        })?;
        let read = |name: &str| {
            let file = path.join(name);
            disk.read_file(&file).map_err(|e| LogError::io("reading", &file, e))
        };
        let marker = read(CLEAN)?;
        let clean = marker.is_some();
        let last_boot = read(BOOT)?;
        let machine_restarted = last_boot.as_deref() != Some(boot_id.as_bytes());
        let mut dir = LogDir {
            path: path.to_path_buf(),
            _lock: lock,
            clean,
            clean_epoch: marker.as_deref().and_then(epoch_of),
            machine_restarted,
            boot_id: boot_id.to_owned(),
            recovery_points: Offsets::new(),
            log_starts: Offsets::new(),
            log_starts_lost: false,
            log_starts_copy: None,
            copied: Mutex::new(None),
            disk,
        };
        dir.recovery_points = dir.read_checkpoint(RECOVERY_POINTS)?;
        let log_starts = checkpoint::read(&*dir.disk, &dir.path.join(LOG_STARTS))?;
        dir.log_starts_lost = log_starts.is_none();
        dir.log_starts = log_starts.unwrap_or_default();
        dir.log_starts_copy = checkpoint::read_summed(&*dir.disk, &dir.path.join(LOG_STARTS_COPY))?;
        dir.copied.lock().clone_from(&dir.log_starts_copy);
        if clean {
            let marker = dir.path.join(CLEAN);
            dir.disk
                .remove_file(&marker)
                .and_then(|()| dir.disk.sync_dir(path))
                .map_err(|e| LogError::io("removing", &marker, e))?;
        }
        Ok(dir)
    }

    /// All logs in the directory have been opened, and put right where need be, since the machine started.
    ///
    /// # Errors
    /// The file that says so could not be written: the next start takes the machine for restarted once more.
    pub fn recovered(&self) -> Result<(), DirError> {
        if !self.machine_restarted {
            return Ok(());
        }
        let file = self.path.join(BOOT);
        let written = self.disk.write_file(&file, self.boot_id.as_bytes(), true);
        written.map_err(|e| LogError::io("writing", &file, e).into())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The disk it is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Whether the last user of the directory stopped cleanly.
    pub fn was_clean(&self) -> bool {
        self.clean
    }

    /// The broker epoch under which the last user stopped cleanly; `None` when it did not, or did not say.
    pub fn clean_epoch(&self) -> Option<i64> {
        self.clean_epoch
    }

    /// Whether the checkpoint of the log starts was missing or garbled.
    pub fn log_starts_lost(&self) -> bool {
        self.log_starts_lost
    }

    /// What [`crate::Log::open`] needs to know about a partition here.
    pub fn recovery(&self, topic: &str, partition: i32) -> Recovery {
        let key = (topic.to_owned(), partition);
        Recovery {
            clean: self.clean,
            recovery_point: self.recovery_points.get(&key).copied().unwrap_or(0),
            log_start_offset: self.log_starts.get(&key).copied().unwrap_or(0),
            log_start_lost: self.log_starts_lost,
            log_start_copy: self.log_starts_copy.as_ref().map(|copy| copy.get(&key).copied().unwrap_or(0)),
            machine_restarted: self.machine_restarted,
            refill: false,
        }
    }

    /// Reads `meta.properties`; `None` when the directory isn't formatted.
    pub fn meta(&self) -> Result<Option<MetaProperties>, DirError> {
        let path = self.path.join(META);
        let bytes = self.disk.read_file(&path).map_err(|e| LogError::io("reading", &path, e))?;
        let Some(bytes) = bytes else {
            return Ok(None);
        };
        match parse_meta(&bytes) {
            Ok(meta) => Ok(Some(meta)),
            Err(why) => Err(DirError::BadMeta(path, why)),
        }
    }

    /// Formats the directory, or checks that it is this node's. Returns what it says; `new_directory_id` is used only
    /// when it isn't formatted yet.
    pub fn check_or_format(
        &self,
        cluster_id: &str,
        node_id: i32,
        new_directory_id: Uuid,
    ) -> Result<MetaProperties, DirError> {
        let foreign =
            |what, found: String, expected: String| DirError::Foreign { dir: self.path.clone(), what, found, expected };
        if let Some(meta) = self.meta()? {
            if meta.cluster_id != cluster_id {
                return Err(foreign("cluster", meta.cluster_id, cluster_id.to_owned()));
            }
            if meta.node_id != node_id {
                return Err(foreign("node", meta.node_id.to_string(), node_id.to_string()));
            }
            return Ok(meta);
        }
        let data = |name: &String| split_dir_name(name).is_some() || name.starts_with("__cluster_metadata-");
        if self.entries()?.iter().any(data) {
            return Err(DirError::Unmarked(self.path.clone()));
        }
        let meta = MetaProperties { cluster_id: cluster_id.to_owned(), node_id, directory_id: new_directory_id };
        let text = format!("version=1\ncluster.id={cluster_id}\nnode.id={node_id}\ndirectory.id={new_directory_id}\n");
        let path = self.path.join(META);
        self.disk.write_file(&path, text.as_bytes(), true).map_err(|e| LogError::io("writing", &path, e))?;
        self.sync_own_name()?;
        Ok(meta)
    }

    /// Makes the directory's own name safe: without it a loss of power would take all that is ever flushed in it.
    fn sync_own_name(&self) -> Result<(), LogError> {
        let parent = match self.path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Ok(()),
        };
        match self.disk.sync_dir(parent) {
            // Not ours to read; then it was not made by us either.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
            synced => synced.map_err(|e| LogError::io("syncing", parent, e)),
        }
    }

    /// All partitions in the directory, with their paths.
    pub fn partitions(&self) -> Result<BTreeMap<(String, i32), PathBuf>, DirError> {
        Ok(self
            .entries()?
            .into_iter()
            .filter_map(|name| Some((split_dir_name(&name)?, self.path.join(&name))))
            .collect())
    }

    /// Names of the directories that were set aside because they belong to no topic of the cluster.
    pub fn strays(&self) -> Result<Vec<String>, DirError> {
        Ok(self.entries()?.into_iter().filter(|name| name.ends_with("-stray")).collect())
    }

    fn entries(&self) -> Result<Vec<String>, LogError> {
        let entries = self.disk.read_dir(&self.path).map_err(|e| LogError::io("listing", &self.path, e))?;
        let dirs = entries.into_iter().filter(|e| e.is_dir);
        Ok(dirs.map(|e| e.name).collect())
    }

    /// Where a partition's log belongs.
    pub fn partition_path(&self, topic: &str, partition: i32) -> PathBuf {
        self.path.join(format!("{topic}-{partition}"))
    }

    /// Renames a partition's directory for removal: from now on it doesn't exist any more, whatever happens, and its log
    /// start is forgotten. `unique` sets it apart from other incarnations. Returns the new path, for
    /// [`remove`](Self::remove) later.
    pub fn mark_deleted(&mut self, topic: &str, partition: i32, unique: Uuid) -> Result<PathBuf, DirError> {
        let from = self.partition_path(topic, partition);
        let hex: String = unique.0.iter().map(|b| format!("{b:02x}")).collect();
        let suffix = format!("-{partition}.{hex}{DELETED}");
        let keep = topic.len().min(NAME_MAX - suffix.len());
        let to = self.path.join(format!("{}{suffix}", topic.get(..keep).unwrap_or_default()));
        self.disk
            .rename(&from, &to)
            .and_then(|()| self.disk.sync_dir(&self.path))
            .map_err(|e| LogError::io("renaming", &from, e))?;
        // A topic of the same name must not inherit a log start, nor be told that its records are gone. The other checkpoints do no harm when stale.
        self.recovery_points.remove(&(topic.to_owned(), partition));
        self.log_starts.remove(&(topic.to_owned(), partition));
        if let Some(copy) = &mut self.log_starts_copy {
            copy.remove(&(topic.to_owned(), partition));
        }
        let mut offsets = self.read_checkpoint(LOG_STARTS)?;
        if offsets.remove(&(topic.to_owned(), partition)).is_some_and(|start| start > 0) {
            self.write_log_starts(&offsets)?;
        }
        Ok(to)
    }

    /// Directories marked for removal, also from before the last stop.
    pub fn deleted(&self) -> Result<Vec<PathBuf>, DirError> {
        let names = self.entries()?.into_iter();
        Ok(names.filter(|name| name.ends_with(DELETED)).map(|name| self.path.join(name)).collect())
    }

    /// Removes a directory that [`mark_deleted`](Self::mark_deleted) renamed.
    pub fn remove(&self, path: &Path) -> Result<(), DirError> {
        self.disk.remove_dir_all(path).map_err(|e| LogError::io("removing", path, e).into())
    }

    fn read_checkpoint(&self, name: &str) -> Result<Offsets, LogError> {
        Ok(checkpoint::read(&*self.disk, &self.path.join(name))?.unwrap_or_default())
    }

    /// Writes the recovery points: offsets below which each log is flushed.
    pub fn write_recovery_points(&self, offsets: &Offsets) -> Result<(), DirError> {
        self.write_checkpoint(RECOVERY_POINTS, offsets)
    }

    /// Writes the log start offsets. Only those matter that are above their first segment.
    pub fn write_log_starts(&self, offsets: &Offsets) -> Result<(), DirError> {
        let mut copied = self.copied.lock();
        // The copy first: once the checkpoint says something, both do.
        if copied.as_ref() != Some(offsets) {
            checkpoint::write_summed(&*self.disk, &self.path.join(LOG_STARTS_COPY), offsets)?;
            *copied = Some(offsets.clone());
        }
        self.write_checkpoint(LOG_STARTS, offsets)
    }

    /// Whether the copy of the log starts has to be made again: it was missing or garbled, and not written since.
    pub fn lacks_log_starts_copy(&self) -> bool {
        self.copied.lock().is_none()
    }

    /// Writes the high watermarks.
    pub fn write_high_watermarks(&self, offsets: &Offsets) -> Result<(), DirError> {
        self.write_checkpoint(HIGH_WATERMARKS, offsets)
    }

    /// Reads the high watermarks.
    pub fn high_watermarks(&self) -> Result<Offsets, DirError> {
        Ok(self.read_checkpoint(HIGH_WATERMARKS)?)
    }

    /// Writes how far each log has been compacted.
    pub fn write_cleaner_offsets(&self, offsets: &Offsets) -> Result<(), DirError> {
        self.write_checkpoint(CLEANER, offsets)
    }

    /// Reads how far each log has been compacted.
    pub fn cleaner_offsets(&self) -> Result<Offsets, DirError> {
        Ok(self.read_checkpoint(CLEANER)?)
    }

    fn write_checkpoint(&self, name: &str, offsets: &Offsets) -> Result<(), DirError> {
        Ok(checkpoint::write(&*self.disk, &self.path.join(name), offsets)?)
    }

    /// Marks the directory as cleanly stopped and lets go of it. All logs in it must have been closed cleanly, and the
    /// checkpoints written.
    pub fn close_clean(self, broker_epoch: i64) -> Result<(), DirError> {
        let path = self.path.join(CLEAN);
        let text = format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}");
        self.disk.write_file(&path, text.as_bytes(), true).map_err(|e| LogError::io("writing", &path, e).into())
    }
}

/// The broker epoch that a clean-stop marker tells.
fn epoch_of(marker: &[u8]) -> Option<i64> {
    let (_, rest) = std::str::from_utf8(marker).ok()?.split_once("\"brokerEpoch\"")?;
    let digits = rest.trim_start().strip_prefix(':')?.trim_start();
    let end = digits.find(|c: char| !(c.is_ascii_digit() || c == '-')).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The machine's boot, for [`LogDir::open`]; empty when unknown, which counts as another boot only once.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// `topic-3` -> `topic` and 3; `None` for names that aren't partitions' (such as those marked for removal).
pub fn split_dir_name(name: &str) -> Option<(String, i32)> {
    if name.ends_with(DELETED) || name.ends_with("-future") || name.ends_with("-stray") {
        return None;
    }
    let (topic, partition) = name.rsplit_once('-')?;
    let digits = partition.bytes().all(|b| b.is_ascii_digit());
    if topic.is_empty() || !digits {
        return None;
    }
    // The KRaft log of an Apache controller lives among the partitions, but isn't one.
    if topic == "__cluster_metadata" {
        return None;
    }
    Some((topic.to_owned(), partition.parse().ok()?))
}

fn parse_meta(bytes: &[u8]) -> Result<MetaProperties, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let mut values = BTreeMap::new();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        if let Some((key, value)) = line.split_once('=') {
            values.insert(key.trim(), value.trim());
        }
    }
    let get = |key: &str| values.get(key).copied().ok_or_else(|| format!("{key} is missing"));
    let version = get("version")?;
    if version != "1" {
        return Err(format!("version is {version}"));
    }
    Ok(MetaProperties {
        cluster_id: get("cluster.id")?.to_owned(),
        node_id: get("node.id")?.parse().map_err(|_| "node.id is not a number".to_owned())?,
        directory_id: get("directory.id")?.parse().map_err(|_| "directory.id is not a UUID".to_owned())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    fn open(path: &Path, boot: &str) -> Result<LogDir, DirError> {
        LogDir::open(RealDisk::shared(), path, boot)
    }

    #[test]
    fn the_lock_keeps_others_out_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), "a").unwrap();
        assert!(matches!(open(dir.path(), "a"), Err(DirError::Locked(_))));
        drop(first);
        open(dir.path(), "a").unwrap();
    }

    #[test]
    fn the_clean_marker_is_good_for_one_start() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = open(tmp.path(), "a").unwrap();
        assert!(!dir.was_clean());
        let points = Offsets::from([(("t".into(), 0), 7)]);
        dir.write_recovery_points(&points).unwrap();
        dir.write_log_starts(&Offsets::from([(("t".into(), 0), 3)])).unwrap();
        dir.close_clean(12).unwrap();
        let text = std::fs::read_to_string(tmp.path().join(CLEAN)).unwrap();
        assert_eq!(text, r#"{"version":0,"brokerEpoch":12}"#);

        let dir = open(tmp.path(), "b").unwrap();
        assert_eq!(dir.clean_epoch(), Some(12));
        assert_eq!(
            dir.recovery("t", 0),
            Recovery {
                clean: true,
                recovery_point: 7,
                log_start_offset: 3,
                log_start_copy: Some(3),
                machine_restarted: true,
                ..Recovery::default()
            }
        );
        drop(dir);
        // Nobody has looked at the logs since: what the machine lost may still be missing.
        let dir = open(tmp.path(), "b").unwrap();
        let recovery = dir.recovery("t", 0);
        assert!(!recovery.clean && recovery.machine_restarted);
        assert_eq!(dir.recovery("t", 1).recovery_point, 0);
        dir.recovered().unwrap();
        drop(dir);
        let dir = open(tmp.path(), "b").unwrap();
        assert!(!dir.recovery("t", 0).machine_restarted);
    }

    #[test]
    fn the_copy_of_the_log_starts_is_read_whole_or_not_at_all() {
        let tmp = tempfile::tempdir().unwrap();
        let copy = |boot: &str| open(tmp.path(), boot).unwrap().recovery("t", 0).log_start_copy;
        assert_eq!(copy("a"), None);
        let mut dir = open(tmp.path(), "a").unwrap();
        dir.write_log_starts(&Offsets::from([(("t".into(), 0), 3), (("u".into(), 0), 5)])).unwrap();
        drop(dir);
        assert_eq!(copy("a"), Some(3));
        let path = tmp.path().join(LOG_STARTS_COPY);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(copy("a"), None, "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert_eq!(copy("a"), None, "flipped at {at}");
        }
        std::fs::write(&path, &whole).unwrap();
        // A topic of the same name begins anew, by the copy as well.
        dir = open(tmp.path(), "a").unwrap();
        std::fs::create_dir(tmp.path().join("t-0")).unwrap();
        dir.mark_deleted("t", 0, Uuid([1; 16])).unwrap();
        assert_eq!(dir.recovery("t", 0).log_start_copy, Some(0));
        drop(dir);
        let dir = open(tmp.path(), "a").unwrap();
        assert_eq!((dir.recovery("t", 0).log_start_copy, dir.recovery("u", 0).log_start_copy), (Some(0), Some(5)));
    }

    #[test]
    fn meta_properties_say_whose_directory_it_is() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = open(tmp.path(), "a").unwrap();
        assert_eq!(dir.meta().unwrap(), None);
        let id = Uuid([7; 16]);
        let meta = dir.check_or_format("cluster", 3, id).unwrap();
        assert_eq!(meta.directory_id, id);
        assert_eq!(dir.check_or_format("cluster", 3, Uuid([9; 16])).unwrap(), meta);
        for (cluster, node) in [("other", 3), ("cluster", 4)] {
            assert!(matches!(dir.check_or_format(cluster, node, id), Err(DirError::Foreign { .. })));
        }
        std::fs::write(tmp.path().join(META), "#\nversion=1\nnode.id=x\n").unwrap();
        assert!(matches!(dir.meta(), Err(DirError::BadMeta(..))));
    }

    #[test]
    fn names_of_partitions() {
        for (name, is) in [
            ("a-0", Some(("a", 0))),
            ("a-b-12", Some(("a-b", 12))),
            ("a", None),
            ("-1", None),
            ("a-x", None),
            ("a-", None),
            ("a-0.0123-delete", None),
            ("__cluster_metadata-0", None),
        ] {
            let found = split_dir_name(name);
            assert_eq!(found, is.map(|(t, p)| (t.to_owned(), p)), "{name}");
        }
    }

    #[test]
    fn a_directory_with_data_is_not_formatted_again() {
        for name in ["t-0", "__cluster_metadata-0"] {
            let tmp = tempfile::tempdir().unwrap();
            std::fs::create_dir(tmp.path().join(name)).unwrap();
            let dir = open(tmp.path(), "a").unwrap();
            let error = dir.check_or_format("c", 1, Uuid([1; 16])).unwrap_err();
            assert!(matches!(error, DirError::Unmarked(_)), "{name}: {error}");
            assert!(error.to_string().contains("no meta.properties"), "{error}");
            assert!(!tmp.path().join(META).exists());
        }
    }

    #[test]
    fn deleted_partitions_are_gone_at_once_and_removed_later() {
        let tmp = tempfile::tempdir().unwrap();
        let mut dir = open(tmp.path(), "a").unwrap();
        let long = "t".repeat(249);
        for topic in ["short", &long] {
            let path = dir.partition_path(topic, 5);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("x"), "y").unwrap();
            let offsets = Offsets::from([((topic.to_string(), 5), 7), (("other".into(), 5), 8)]);
            dir.write_log_starts(&offsets).unwrap();
            assert_eq!(dir.partitions().unwrap().len(), 1);
            let marked = dir.mark_deleted(topic, 5, Uuid([0xab; 16])).unwrap();
            assert!(dir.partitions().unwrap().is_empty());
            assert_eq!(dir.read_checkpoint(LOG_STARTS).unwrap(), Offsets::from([(("other".into(), 5), 8)]));
            assert_eq!(dir.deleted().unwrap().len(), 1);
            dir.remove(&marked).unwrap();
            assert!(dir.deleted().unwrap().is_empty());
        }
    }
}
