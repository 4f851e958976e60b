//! The log directory of this broker: opening partitions, taking them away, checkpoints, the clean stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use klamm_log::dirs::{DirError, MetaProperties, boot_id};
use klamm_log::{Disk, Log, LogDir, LogError, RealDisk, Recovery};
use klamm_metadata::Image;
use klamm_protocol::Uuid;
use parking_lot::Mutex;

use super::partition::{Around, Partition, Topic};

/// Offsets by topic and partition, as checkpoints hold them.
type Offsets = BTreeMap<(String, i32), i64>;

/// The log directory.
#[derive(Debug)]
pub struct Storage {
    /// `None` once it has been closed.
    dir: Mutex<Option<LogDir>>,
    path: PathBuf,
    meta: MetaProperties,
    clean: bool,
    /// All logs have been opened since.
    opened: AtomicBool,
    clean_epoch: Option<i64>,
    /// How far logs had been compacted at the start.
    cleaned: Offsets,
    /// How far partitions were known to be committed at the last stop.
    high_watermarks: Offsets,
    /// Directories of deleted topics, and when they may go.
    doomed: Mutex<Vec<(PathBuf, i64)>>,
}

impl Storage {
    /// Opens the directory, and formats it when it is new. `cluster_id` is the configured one;
    /// without, a new directory gets `fresh`.
    ///
    /// # Errors
    /// The directory is in use, belongs to another node or cluster, or cannot be read or written.
    pub fn open(
        path: PathBuf,
        node_id: i32,
        cluster_id: Option<&str>,
        fresh: impl Fn() -> Uuid,
    ) -> Result<Self, DirError> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)
                .map_err(|source| DirError::Log(LogError::Io { action: "making", path: parent.into(), source }))?;
        }
        Self::open_on(Arc::new(RealDisk), path, &boot_id(), node_id, cluster_id, fresh)
    }

    /// As [`open`](Self::open), on any disk and under any machine's boot; the parent of `path` is there.
    ///
    /// # Errors
    /// Likewise.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        boot_id: &str,
        node_id: i32,
        cluster_id: Option<&str>,
        fresh: impl Fn() -> Uuid,
    ) -> Result<Self, DirError> {
        let dir = LogDir::open(disk, &path, boot_id)?;
        let known = dir.meta()?.map(|meta| meta.cluster_id);
        let clean = dir.was_clean();
        let clean_epoch = dir.clean_epoch();
        let cleaned = dir.cleaner_offsets()?;
        let high_watermarks = dir.high_watermarks()?;
        let cluster_id = cluster_id.map(str::to_owned).or(known).unwrap_or_else(|| fresh().to_string());
        let meta = dir.check_or_format(&cluster_id, node_id, fresh())?;
        let doomed = dir.deleted()?.into_iter().map(|path| (path, i64::MIN)).collect();
        let (dir, doomed) = (Mutex::new(Some(dir)), Mutex::new(doomed));
        Ok(Self {
            dir,
            path,
            meta,
            clean,
            opened: AtomicBool::new(false),
            clean_epoch,
            cleaned,
            high_watermarks,
            doomed,
        })
    }

    /// Whether the last user of the directory stopped in order.
    pub fn was_clean(&self) -> bool {
        self.clean
    }

    /// The broker epoch under which its last user stopped in order; −1 when it did not.
    pub fn previous_epoch(&self) -> i64 {
        self.clean_epoch.unwrap_or(-1)
    }

    /// Who the directory belongs to.
    pub fn meta(&self) -> &MetaProperties {
        &self.meta
    }

    /// The directory.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Whether directories of partitions are there.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn holds_partitions(&self) -> Result<bool, DirError> {
        match self.dir.lock().as_ref() {
            Some(dir) => Ok(!dir.partitions()?.is_empty()),
            None => Ok(false),
        }
    }

    /// Opens one partition's log; a new one is made. With `rebuild` every byte is checked, and what is damaged is set aside
    /// together with all that follows it: the replica is to be filled again from its leader.
    ///
    /// # Errors
    /// The log's: it is damaged, or the disk is full.
    pub fn open_partition(
        &self,
        topic: &Arc<Topic>,
        index: i32,
        around: &Arc<Around>,
        now_ms: i64,
        rebuild: bool,
    ) -> Result<Partition, LogError> {
        let (disk, path, recovery) = {
            let dir = self.dir.lock();
            let Some(dir) = dir.as_ref() else {
                return Err(LogError::Offline { dir: self.path.clone(), reason: "the directory is closed".into() });
            };
            (dir.disk().clone(), dir.partition_path(&topic.name, index), dir.recovery(&topic.name, index))
        };
        let lost_power = recovery.machine_restarted && !recovery.clean;
        let recovery = match rebuild {
            true => Recovery { clean: false, recovery_point: 0, refill: true, ..recovery },
            false => recovery,
        };
        let open = |recovery| Log::open(disk.clone(), &path, topic.id, topic.config().log.clone(), recovery, now_ms);
        let mut log = match open(recovery) {
            Err(LogError::TopicIdMismatch { found, .. }) => {
                set_aside(&*disk, &path, &found)?;
                open(Recovery::default())?
            }
            opened => opened?,
        };
        let report = log.recovery_report();
        if report.cut_bytes > 0
            || report.lost_from.is_some()
            || !report.set_aside.is_empty()
            || !report.holes.is_empty()
        {
            tracing::warn!(
                topic = %topic.name,
                partition = index,
                cut_bytes = report.cut_bytes,
                lost_from = report.lost_from,
                set_aside = ?report.set_aside,
                holes = ?report.holes,
                "log recovered"
            );
        }
        let key = (topic.name.to_string(), index);
        if let Some(offset) = self.cleaned.get(&key) {
            log.set_cleaned_to(*offset);
        }
        // What was not synced may be another leader's old tail after a power loss, below a high watermark that was
        // reached with what came in its place. The leader, or the other replicas, tell what is committed.
        let known = self.high_watermarks.get(&key).filter(|_| !lost_power);
        let high_watermark = known.copied().unwrap_or(0);
        let kept = log.kept_bytes();
        if kept > 0 {
            tracing::warn!(topic = %topic.name, partition = index, bytes = kept, "a repair is under way: what it took out is kept");
        }
        let partition = Partition::new(topic.clone(), index, log, high_watermark, around.clone());
        if rebuild {
            partition.was_cut();
        }
        Ok(partition)
    }

    /// Takes a deleted partition's directory out of sight; it is removed after `delay_ms`.
    pub fn delete_partition(&self, partition: &Partition, unique: Uuid, now_ms: i64, delay_ms: i64) {
        let mut dir = self.dir.lock();
        let Some(dir) = dir.as_mut() else { return };
        // The log's lock is held over the renaming: no file is opened under the old name meanwhile.
        let renamed = partition.with_log(|log| {
            let renamed = dir.mark_deleted(&partition.topic.name, partition.index, unique);
            if let Ok(path) = &renamed {
                log.renamed(path.clone());
            }
            renamed
        });
        match renamed {
            Ok(path) => self.doomed.lock().push((path, now_ms.saturating_add(delay_ms))),
            Err(error) => {
                tracing::error!(partition = %partition.dir_name(), %error, "directory of a deleted topic stays")
            }
        }
    }

    /// Removes directories whose delay is over.
    ///
    /// # Errors
    /// One could not be removed; it is tried again.
    pub fn remove_doomed(&self, now_ms: i64) -> Result<(), LogError> {
        let due: Vec<_> = self.doomed.lock().iter().filter(|(_, due)| *due <= now_ms).cloned().collect();
        for (path, _) in due {
            let removed = match self.dir.lock().as_ref() {
                None => return Ok(()),
                Some(dir) => dir.remove(&path),
            };
            match removed {
                Ok(()) => self.doomed.lock().retain(|(other, _)| *other != path),
                Err(DirError::Log(error)) => return Err(error),
                Err(other) => tracing::error!(path = %path.display(), error = %other, "directory not removed"),
            }
        }
        Ok(())
    }

    /// Removes a file in a partition's directory; fine when it is gone with that.
    ///
    /// # Errors
    /// It could not be removed.
    pub fn remove_file(&self, path: &Path) -> Result<(), LogError> {
        let Some(disk) = self.dir.lock().as_ref().map(|dir| dir.disk().clone()) else { return Ok(()) };
        disk.remove_file(path).map_err(|source| LogError::Io { action: "removing", path: path.into(), source })
    }

    /// Sets directories aside that the image does not place here: a crash between a topic's deletion and the renaming
    /// leaves them, a partition that moved away while this broker was down, a disk from elsewhere. Nothing is removed.
    /// What stayed would be marked as cleanly closed with the rest, unopened, and be trusted if the partition came back.
    ///
    /// # Errors
    /// The directory cannot be listed, or one cannot be renamed.
    pub fn set_strays_aside(&self, image: &Image, unique: impl Fn() -> Uuid) -> Result<(), DirError> {
        let dir = self.dir.lock();
        let Some(dir) = dir.as_ref() else { return Ok(()) };
        for ((topic, index), path) in dir.partitions()? {
            // Whether it belongs to an earlier topic of that name is seen when it is opened.
            let partition = image.topic(&topic).and_then(|t| t.partition(index));
            if partition.is_none_or(|p| !p.replicas.contains(&self.meta.node_id)) {
                set_aside(&**dir.disk(), &path, &unique())?;
            }
        }
        // They cost room, and only a human knows whether anyone misses what is in them.
        let strays = dir.strays()?;
        if !strays.is_empty() {
            tracing::warn!(
                ?strays,
                "directories that belong to no topic of this cluster: remove them when nobody misses them"
            );
        }
        Ok(())
    }

    /// Writes the log starts again when their checkpoint was lost, so that they are known from two files as before.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn restore_log_starts(&self, partitions: &[Arc<Partition>]) -> Result<(), DirError> {
        let lost = self.dir.lock().as_ref().is_some_and(LogDir::log_starts_lost);
        match lost && partitions.iter().any(|partition| partition.offsets().log_start > 0) {
            true => self.write_checkpoints(partitions),
            false => Ok(()),
        }
    }

    /// Writes recovery points, log starts and high watermarks.
    ///
    /// # Errors
    /// A file could not be written; the old one stays.
    pub fn write_checkpoints(&self, partitions: &[Arc<Partition>]) -> Result<(), DirError> {
        let mut recovery = Offsets::new();
        let mut high_watermarks = Offsets::new();
        for partition in partitions {
            let key = (partition.topic.name.to_string(), partition.index);
            let offsets = partition.offsets();
            recovery.insert(key.clone(), partition.recovery_point());
            high_watermarks.insert(key, offsets.high_watermark);
        }
        let dir = self.dir.lock();
        let Some(dir) = dir.as_ref() else { return Ok(()) };
        dir.write_recovery_points(&recovery)?;
        dir.write_log_starts(&log_starts(partitions))?;
        dir.write_high_watermarks(&high_watermarks)
    }

    /// Makes the copy of the log starts again where the start found none: until then nothing has a checksum that tells them.
    pub fn renew_log_starts(&self, partitions: &[Arc<Partition>]) {
        let dir = self.dir.lock();
        let Some(dir) = dir.as_ref().filter(|dir| dir.lacks_log_starts_copy() && !partitions.is_empty()) else {
            return;
        };
        if let Err(error) = dir.write_log_starts(&log_starts(partitions)) {
            tracing::warn!(%error, "log starts not written; the next checkpoint tries again");
        }
    }

    /// Writes high watermarks alone, as they are needed more often.
    ///
    /// # Errors
    /// The file could not be written; the old one stays.
    pub fn write_high_watermarks(&self, partitions: &[Arc<Partition>]) -> Result<(), DirError> {
        let offset = |p: &Arc<Partition>| ((p.topic.name.to_string(), p.index), p.offsets().high_watermark);
        let offsets: Offsets = partitions.iter().map(offset).collect();
        match self.dir.lock().as_ref() {
            Some(dir) => dir.write_high_watermarks(&offsets),
            None => Ok(()),
        }
    }

    /// Writes how far these partitions have been compacted.
    ///
    /// # Errors
    /// The file could not be written; the old one stays.
    pub fn write_cleaner_checkpoint<'p>(
        &self,
        partitions: impl Iterator<Item = &'p Arc<Partition>>,
    ) -> Result<(), DirError> {
        let offsets = partitions.map(|p| ((p.topic.name.to_string(), p.index), p.with_log(|log| log.cleaned_to())));
        let offsets: Offsets = offsets.collect();
        match self.dir.lock().as_ref() {
            Some(dir) => dir.write_cleaner_offsets(&offsets),
            None => Ok(()),
        }
    }

    /// All partitions are open, and what the last stop left behind is put right.
    pub fn all_opened(&self) {
        self.opened.store(true, Ordering::Release);
        if let Some(Err(error)) = self.dir.lock().as_ref().map(LogDir::recovered) {
            tracing::warn!(%error, "the next start checks the logs as after a power loss");
        }
    }

    /// Marks the directory as cleanly stopped by the broker of this epoch, and lets go of it. There is no mark when logs
    /// have not been looked at since a stop that was none: the next start must not trust them.
    ///
    /// # Errors
    /// The mark could not be written: the next start checks the logs.
    pub fn close_clean(&self, broker_epoch: i64) -> Result<(), DirError> {
        match self.dir.lock().take() {
            Some(dir) if self.clean || self.opened.load(Ordering::Acquire) => dir.close_clean(broker_epoch),
            Some(_) => {
                tracing::info!("stopped before all logs were opened: the next start checks them");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Lets go of the directory, with logs in it that the next start must not trust.
    pub fn close_unmarked(&self) {
        self.dir.lock().take();
    }
}

/// Where the logs start that do not start at 0.
fn log_starts(partitions: &[Arc<Partition>]) -> Offsets {
    let start = |p: &Arc<Partition>| ((p.topic.name.to_string(), p.index), p.offsets().log_start);
    partitions.iter().map(start).filter(|(_, start)| *start > 0).collect()
}

/// Renames a directory that belongs to no topic of this cluster, so that it is out of the way; `unique` sets it apart
/// from others of its name.
fn set_aside(disk: &dyn Disk, path: &Path, unique: &impl ToString) -> Result<(), LogError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}-stray", unique.to_string()));
    tracing::warn!(from = %path.display(), to = %aside.display(), "directory belongs to no topic of this cluster, set aside");
    let renamed = disk.rename(path, Path::new(&aside));
    renamed.map_err(|source| LogError::Io { action: "renaming", path: path.into(), source })
}

#[cfg(test)]
#[path = "storage_test.rs"]
mod tests;
