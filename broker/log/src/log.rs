//! [`Log`]: one partition's log, and what is known about it at any time.
//!
//! The work is spread over `recover` (opening), `append`, `read`, `lookup`, `retain` (rolling, deleting, truncating) and
//! `flush`; this file holds the state they share. The last segment is the active one and is always there. Not
//! thread-safe: the caller holds a lock, except for flushing ([`crate::FlushHandle`]) and sending read ranges.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_protocol::Uuid;

use crate::aborted::AbortedTxn;
use crate::aside::Aside;
use crate::config::LogConfig;
use crate::disk::Disk;
use crate::epochs::{EPOCH_FILE, Epochs};
use crate::error::LogError;
use crate::flush::{Health, Unsynced};
use crate::producers::Producers;
use crate::read::Cursors;
use crate::segment::{Place, Segment};
use crate::trust::Known;

/// One partition's log in Kafka's on-disk format.
#[derive(Debug)]
pub struct Log {
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) config: Arc<LogConfig>,
    pub(crate) topic_id: Uuid,
    /// By base offset; the last is active.
    pub(crate) segments: Vec<Segment>,
    pub(crate) log_start: i64,
    pub(crate) log_end: i64,
    /// Everything below is safe on disk.
    pub(crate) recovery_point: i64,
    pub(crate) epochs: Epochs,
    /// The epoch file.
    pub(crate) epoch_file: Unsynced,
    /// The epoch file doesn't say what `epochs` does. The next append writes it: until then nothing depends on it, and a
    /// partition that nobody writes to needs no file.
    pub(crate) epochs_unwritten: bool,
    /// The log's end when it was opened after a clean stop: as long as it is still there, closing has nothing to do.
    pub(crate) settled_at: Option<i64>,
    pub(crate) producers: Producers,
    /// Offsets that have a `.snapshot` file, ascending.
    pub(crate) snapshots: Vec<i64>,
    /// Offset and position of the batches appended last, oldest first: where the high watermark usually is.
    pub(crate) recent: VecDeque<(i64, u32)>,
    pub(crate) cursors: Cursors,
    /// Files renamed for removal, and when to remove them.
    pub(crate) trash: VecDeque<(PathBuf, i64)>,
    pub(crate) health: Arc<Health>,
    /// The names in the directory.
    pub(crate) names: Unsynced,
    /// The directory's own name, when it is new.
    pub(crate) own_name: Unsynced,
    /// Raised by every truncation, so that a flush begun before it doesn't count.
    pub(crate) generation: u32,
    pub(crate) last_flush_ms: i64,
    /// Everything below has been compacted.
    pub(crate) cleaned_to: i64,
    /// Differs from partition to partition.
    pub(crate) salt: u64,
    /// None as long as there is nothing to report.
    pub(crate) report: Option<Box<RecoveryReport>>,
    /// Damaged places, by segment and position.
    pub(crate) damages: Vec<Known>,
    /// What a repair took out and is not here again.
    pub(crate) aside: Option<Box<Aside>>,
}

/// What opening a log had to do; all zero after a clean stop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes read and checked.
    pub scanned_bytes: u64,
    /// Bytes of a torn tail that were cut off.
    pub cut_bytes: u64,
    /// Files in which cut-off data that still held sound batches was set aside.
    pub set_aside: Vec<PathBuf>,
    /// Offsets, from and to, that are missing where compaction doesn't explain it.
    pub holes: Vec<(i64, i64)>,
    /// The log ends below its recovery point: records that had been flushed are gone. The replica must not be
    /// trusted to have all it once acknowledged.
    pub lost_from: Option<i64>,
    /// Which files had to be made again.
    pub rebuilt: Vec<&'static str>,
}

static NOTHING_DONE: RecoveryReport = RecoveryReport {
    scanned_bytes: 0,
    cut_bytes: 0,
    set_aside: Vec::new(),
    holes: Vec::new(),
    lost_from: None,
    rebuilt: Vec::new(),
};

impl Log {
    /// What opening the log has to do, to be added to.
    pub(crate) fn reported(&mut self) -> &mut RecoveryReport {
        self.report.get_or_insert_default()
    }

    /// Where the files are.
    pub(crate) fn place(&self) -> Place<'_> {
        Place { disk: &*self.disk, dir: &self.dir, interval: self.config.index_interval_bytes }
    }

    /// Runs `f` on one segment, with the place of its files.
    pub(crate) fn with_segment<T>(&mut self, at: usize, f: impl FnOnce(&mut Segment, Place<'_>) -> T) -> T {
        let place = Place { disk: &*self.disk, dir: &self.dir, interval: self.config.index_interval_bytes };
        f(&mut self.segments[at], place)
    }

    /// Index of the active segment.
    pub(crate) fn active(&self) -> usize {
        self.segments.len() - 1
    }

    /// Index of the segment an offset falls into.
    pub(crate) fn segment_of(&self, offset: i64) -> usize {
        self.segments.partition_point(|s| s.base <= offset).saturating_sub(1)
    }

    /// The offset after a segment's last.
    pub(crate) fn end_of(&self, segment: usize) -> i64 {
        self.segments.get(segment + 1).map_or(self.log_end, |next| next.base)
    }

    /// Fails when the log was given up.
    pub(crate) fn ensure_online(&self) -> Result<(), LogError> {
        match self.health.failure() {
            None => Ok(()),
            Some(reason) => Err(LogError::Offline { dir: self.dir.clone(), reason }),
        }
    }

    /// Gives the log up; nothing is appended or flushed any more.
    pub(crate) fn give_up(&self, reason: String) -> LogError {
        tracing::error!(dir = %self.dir.display(), %reason, "log goes offline");
        self.health.fail(reason.clone());
        LogError::Offline { dir: self.dir.clone(), reason }
    }

    /// The partition's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Id of the topic.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    /// First offset that can be read.
    pub fn log_start_offset(&self) -> i64 {
        self.log_start
    }

    /// Offset the next record gets.
    pub fn log_end_offset(&self) -> i64 {
        self.log_end
    }

    /// Everything below this offset is safe on disk.
    pub fn recovery_point(&self) -> i64 {
        self.recovery_point
    }

    /// Bytes in all segments.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|s| u64::from(s.size)).sum()
    }

    /// Number of segments.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Base offset and bytes of each segment.
    pub fn segment_sizes(&self) -> impl Iterator<Item = (i64, u32)> {
        self.segments.iter().map(|s| (s.base, s.size))
    }

    /// Number of open files.
    pub fn open_segments(&self) -> usize {
        self.segments.iter().filter(|s| s.is_open()).count()
    }

    /// What opening the log had to do.
    pub fn recovery_report(&self) -> &RecoveryReport {
        self.report.as_deref().unwrap_or(&NOTHING_DONE)
    }

    /// The settings in force.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings, from the next operation on.
    pub fn set_config(&mut self, config: impl Into<Arc<LogConfig>>) {
        self.config = config.into();
    }

    /// All leader epochs with their first offsets.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Newest leader epoch with a batch or an assigned start.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.latest()
    }

    /// The largest epoch not above `epoch` and its end offset; `None` when nothing is known that answers this.
    pub fn epoch_end_offset(&self, epoch: i32) -> Option<(i32, i64)> {
        self.epochs.end_offset(epoch, self.log_end)
    }

    /// Notes that a leader epoch begins at the log's end: for a replica that has just become leader. It is kept in
    /// memory until its first batch arrives; after a restart the leader of an epoch without a batch is told again.
    pub fn assign_epoch(&mut self, epoch: i32) -> Result<(), LogError> {
        self.epochs_unwritten |= self.epochs.assign(epoch, self.log_end);
        Ok(())
    }

    /// Forgets epochs without a batch: for a replica that led and wrote nothing. As a follower it may be sent more
    /// batches of an older epoch, and would otherwise take them for the begin of that epoch.
    pub fn drop_empty_epochs(&mut self) {
        self.epochs_unwritten |= self.epochs.truncate_end(self.log_end);
    }

    /// Writes the epoch file. Not synced here: it can be made again from the batches.
    pub(crate) fn write_epochs(&mut self) -> Result<(), LogError> {
        let path = self.dir.join(EPOCH_FILE);
        self.disk
            .write_file(&path, self.epochs.to_text().as_bytes(), false)
            .map_err(|e| LogError::io("writing", &path, e))?;
        self.epoch_file.mark();
        self.epochs_unwritten = false;
        self.names.mark();
        Ok(())
    }

    /// The producers known to the log.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Forgets producers silent for longer than `producer.id.expiration.ms`; `now_ms` is of a clock that cannot jump.
    pub fn expire_producers(&mut self, now_ms: i64, wall_ms: i64) {
        let expiration = self.config.producer_id_expiration_ms;
        self.producers.expire(now_ms, wall_ms, expiration);
    }

    /// Tells the log how far replication got, which lets ended transactions go.
    pub fn on_high_watermark(&mut self, high_watermark: i64) {
        self.producers.on_high_watermark(high_watermark);
    }

    /// First offset of a transaction whose end isn't replicated yet.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        let first = self.producers.first_unstable_offset()?;
        Some(first.max(self.log_start))
    }

    /// The offset up to which `read_committed` consumers may read.
    pub fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        self.first_unstable_offset().map_or(high_watermark, |first| first.min(high_watermark))
    }

    /// The aborted transactions with records in `from..to`, ordered by their markers.
    pub fn aborted_transactions(&mut self, from: i64, to: i64) -> Result<Vec<AbortedTxn>, LogError> {
        let mut found = Vec::new();
        for at in self.segment_of(from)..self.segments.len() {
            if !self.segments[at].has_aborts {
                continue;
            }
            for txn in self.read_aborted(at)? {
                if txn.last_offset >= from && txn.first_offset < to {
                    found.push(txn);
                }
                if txn.last_stable_offset >= to {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// The entries of one segment's transaction index, made again when it is garbled.
    pub(crate) fn read_aborted(&mut self, at: usize) -> Result<Vec<AbortedTxn>, LogError> {
        let place = self.place().at(self.segments[at].base, "txnindex");
        let read = crate::aborted::read(place).map_err(|e| LogError::io("reading", &place.path(), e))?;
        match read {
            Some(entries) if !self.segments[at].aborts_lost => Ok(entries),
            _ => self.rebuild_aborted(at),
        }
    }

    /// Writes the producer state as of the log's end.
    pub(crate) fn write_snapshot(&mut self) -> Result<(), LogError> {
        let offset = self.log_end;
        if self.snapshots.last() == Some(&offset) {
            return Ok(());
        }
        let path = self.place().path(offset, "snapshot");
        self.disk
            .write_file(&path, &crate::snapshot::encode(&self.producers), false)
            .map_err(|e| LogError::io("writing", &path, e))?;
        self.snapshots.push(offset);
        self.names.mark();
        Ok(())
    }

    /// Removes the snapshots in a range of offsets.
    pub(crate) fn drop_snapshots(&mut self, unwanted: impl Fn(i64) -> bool) -> Result<(), LogError> {
        let (gone, kept): (Vec<i64>, Vec<i64>) = self.snapshots.iter().partition(|offset| unwanted(**offset));
        for offset in gone {
            let path = self.place().path(offset, "snapshot");
            self.disk.remove_file(&path).map_err(|e| LogError::io("removing", &path, e))?;
        }
        self.snapshots = kept;
        Ok(())
    }

    /// Closes files that were not used since the last call.
    pub fn close_idle_files(&mut self) -> Result<(), LogError> {
        for at in 0..self.segments.len() {
            self.with_segment(at, |s, place| s.close_if_idle(place))?;
        }
        Ok(())
    }

    /// Closes the log. With `clean` everything is completed and flushed first, so that opening it again needs no scan
    /// (the caller writes checkpoints and the clean-stop marker when all logs are closed). Nothing may be appended
    /// afterwards.
    pub fn close(&mut self, clean: bool) -> Result<(), LogError> {
        if !clean {
            return Ok(());
        }
        self.ensure_online()?;
        if self.is_settled() {
            return Ok(());
        }
        let active = self.active();
        self.with_segment(active, |s, place| s.seal(place))?;
        if self.log_end > self.log_start || !self.producers.is_empty() {
            self.write_snapshot()?;
            self.drop_stray_snapshots()?;
        }
        if let Some(handle) = self.flush_handle() {
            handle.sync()?;
            self.recovery_point = handle.up_to();
        }
        for at in 0..self.segments.len() {
            self.with_segment(at, |s, place| s.close(place))?;
        }
        Ok(())
    }

    /// Whether closing has nothing to write: never written to, or not since the last clean stop.
    fn is_settled(&self) -> bool {
        self.is_unused() || (self.settled_at == Some(self.log_end) && self.generation == 0 && !self.needs_flush())
    }

    /// Whether the log has never held anything: then it has no file either, and nothing in it can be lost.
    pub(crate) fn is_unused(&self) -> bool {
        self.log_end == 0 && self.segments.len() == 1 && self.generation == 0 && self.producers.is_empty()
    }

    /// Keeps the newest snapshot and those at segment starts.
    pub(crate) fn drop_stray_snapshots(&mut self) -> Result<(), LogError> {
        let Some(&newest) = self.snapshots.last() else {
            return Ok(());
        };
        let bases: Vec<i64> = self.segments.iter().map(|s| s.base).collect();
        self.drop_snapshots(|o| o != newest && bases.binary_search(&o).is_err())
    }

    /// Follows a rename of the partition's directory.
    pub fn renamed(&mut self, dir: PathBuf) {
        for (file, _) in &mut self.trash {
            if let Some(name) = file.file_name() {
                *file = dir.join(name);
            }
        }
        self.dir = dir;
    }
}
