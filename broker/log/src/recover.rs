//! Opening a log: what is on disk becomes state, and what a crash left behind is put right.
//!
//! After a clean stop nothing is scanned. Otherwise every batch from the recovery point's segment on is checked, and
//! docs/decisions/005-recovery.md says what happens at a bad one: a torn tail is cut; anything sound behind a bad place is
//! never dropped silently. Indexes, snapshots and the epoch file are only caches and are made again when they are missing or wrong.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use klamm_protocol::Uuid;
use klamm_protocol::batch::EndTxnMarker;

use crate::aborted::{self, AbortedTxn};
use crate::aside;
use crate::config::{LogConfig, mix};
use crate::disk::{Disk, Open};
use crate::epochs::{Collector, EPOCH_FILE, Epochs};
use crate::error::{Damage, LogError};
use crate::flush::Unsynced;
use crate::listing::{Found, list};
use crate::log::Log;
use crate::metadata;
use crate::producers::{Producers, marker_of};
use crate::retain::SIDE_FILES;
use crate::scan::{Scan, ScanError, find_sound};
use crate::segment::Segment;
use crate::snapshot;
use crate::walk::{Walk, WalkError};

/// What is known from outside about the last stop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The broker stopped cleanly: no scan is needed.
    pub clean: bool,
    /// From the recovery-point checkpoint: everything below was flushed. 0 when unknown.
    pub recovery_point: i64,
    /// From the log-start checkpoint. 0 when unknown.
    pub log_start_offset: i64,
    /// The log-start checkpoint is missing or garbled: the epoch file, which begins where the log does, stands in for it.
    pub log_start_lost: bool,
    /// From the copy of the log-start checkpoint, which has a checksum; `None` when there is no sound one.
    pub log_start_copy: Option<i64>,
    /// The machine has started anew since the log was last written, so unflushed pages may be missing in any order.
    /// After a mere crash of the process they can't be.
    pub machine_restarted: bool,
    /// Another replica has all of it: what is damaged is taken out with its segment and all that follow, and kept until
    /// it is here again.
    pub refill: bool,
}

/// What the scan of a segment found.
struct ScannedSegment {
    /// Where it is bad, and why.
    bad: Option<(u32, String)>,
    /// No offset is missing between its first and its last sound batch.
    dense: bool,
}

/// How much of the log's end is looked at for the last batches of producers.
const RECALL_BYTES: u32 = 1 << 20;

impl Log {
    /// Opens the log in `dir`, which is made when it isn't there.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        topic_id: Uuid,
        config: impl Into<Arc<LogConfig>>,
        recovery: Recovery,
        now_ms: i64,
    ) -> Result<Log, LogError> {
        let (found, is_new) = list(&*disk, dir)?;
        // Checkpoints may still have an entry of an earlier incarnation of the topic.
        let recovery = if is_new {
            if recovery.recovery_point > recovery.log_start_offset.max(0) {
                tracing::warn!(
                    dir = %dir.display(), recovery_point = recovery.recovery_point,
                    "the partition's directory is gone, with records that had been flushed: begun anew, empty"
                );
            }
            Recovery::default()
        } else {
            recovery
        };
        let topic_id = metadata::check_or_write(&*disk, dir, topic_id, found.mark)?;
        // What was last safe on disk is known after a clean stop only, and of a directory without a log not even then.
        let unsafe_names = !recovery.clean || found.logs.is_empty();
        let mut log = Log {
            salt: dir.file_name().map_or(0, |n| n.as_encoded_bytes().iter().fold(0, |h, b| mix(h ^ u64::from(*b)))),
            dir: dir.to_path_buf(),
            aside: aside::find(&*disk, dir, &found.kept)?,
            disk,
            config: config.into(),
            topic_id,
            segments: Vec::new(),
            log_start: 0,
            log_end: 0,
            recovery_point: 0,
            epochs: Epochs::default(),
            epoch_file: Unsynced::default(),
            epochs_unwritten: false,
            settled_at: None,
            producers: Producers::default(),
            snapshots: found.snapshots.clone(),
            recent: VecDeque::new(),
            cursors: Default::default(),
            trash: VecDeque::new(),
            health: Default::default(),
            names: Unsynced::new(unsafe_names),
            own_name: Unsynced::new(unsafe_names),
            generation: 0,
            last_flush_ms: now_ms,
            cleaned_to: 0,
            report: None,
            damages: Vec::new(),
        };
        log.load_segments(&found, &recovery, now_ms)?;
        log.load_data(found.epochs, &recovery, now_ms)?;
        for at in 0..log.segments.len() {
            // Nothing stays open for a partition nobody uses.
            log.with_segment(at, |s, place| s.close(place))?;
        }
        Ok(log)
    }

    fn load_segments(&mut self, found: &Found, recovery: &Recovery, now_ms: i64) -> Result<(), LogError> {
        // Most logs have one: not room for four from the beginning.
        self.segments.reserve_exact(found.logs.len().max(1));
        for &base in &found.logs {
            let path = self.place().path(base, "log");
            let meta = self.disk.metadata(&path).map_err(|e| LogError::io("looking at", &path, e))?;
            let size = u32::try_from(meta.len)
                .ok()
                .filter(|n| *n <= i32::MAX as u32)
                .ok_or_else(|| LogError::io("opening", &path, io::ErrorKind::InvalidData.into()))?;
            let mut segment = Segment::found(base, size, meta.modified_ms);
            segment.has_aborts = found.side.contains(&(base, "txnindex"));
            self.segments.push(segment);
        }
        if self.segments.is_empty() {
            self.segments.push(Segment::new(told_start(recovery, None).unwrap_or(0), now_ms));
        }
        Ok(())
    }

    fn load_data(&mut self, has_epochs: bool, recovery: &Recovery, now_ms: i64) -> Result<(), LogError> {
        self.log_end = i64::MAX;
        let epochs = if has_epochs { self.read_epochs()? } else { None };
        let epochs_known = epochs.is_some();
        let first = epochs.as_ref().and_then(|epochs| epochs.entries().first());
        let told = told_start(recovery, first.map(|first| first.start_offset));
        self.log_start = told.unwrap_or(0).max(self.segments[0].base);
        if told.is_none()
            && let Some(first) = first
        {
            self.log_start = self.log_start.max(first.start_offset);
        } else if !recovery.machine_restarted
            && let Some(first) = first
            && first.start_offset < self.log_start
            && self.log_start > self.segments[0].base
        {
            // The epoch file begins where the log does, unless a loss of power took it back. A garbled start that is too high would have this replica, and those
            // that follow it, delete records that nobody gave up; one that is too low shows some again.
            let start = first.start_offset.max(self.segments[0].base);
            tracing::warn!(
                dir = %self.dir.display(), checkpoint = self.log_start, epochs = start,
                "the log start checkpoint and the epoch file differ: the lower one counts"
            );
            self.log_start = start;
        }
        self.epochs = epochs.unwrap_or_default();
        let before = self.epochs.clone();

        let last = self.active();
        let quick = if recovery.clean { self.quick_end(last)? } else { None };
        let scan_from = match quick {
            Some(end) => {
                self.log_end = end;
                self.segments.len()
            }
            None if recovery.clean => last,
            None => self.segment_of(recovery.recovery_point),
        };
        let mut collector = Collector::default();
        if !epochs_known && self.segments.iter().any(|s| s.size > 0) {
            self.rebuild_epochs(scan_from, &mut collector)?;
        }
        if scan_from < self.segments.len() {
            self.scan(scan_from, recovery, now_ms, collector)?;
            if scan_from > 0 && self.log_end < recovery.recovery_point {
                // A recovery point beyond the end says nothing about what is below it.
                self.scan(0, recovery, now_ms, Collector::default())?;
            }
        } else {
            collector.finish(&mut self.epochs);
        }
        if self.log_end < recovery.recovery_point {
            let end = self.log_end;
            self.reported().lost_from = Some(end);
            tracing::error!(
                dir = %self.dir.display(), log_end = self.log_end, recovery_point = recovery.recovery_point,
                "the log ends below its recovery point: flushed records are gone"
            );
        }
        self.recovery_point = if recovery.clean && quick.is_some() {
            self.log_end
        } else {
            recovery.recovery_point.clamp(self.segments[0].base, self.log_end)
        };
        let end = self.log_end;
        self.drop_snapshots(|o| o > end)?;
        if self.log_start > self.log_end {
            // Either a stale or garbled checkpoint, or records that were to be deleted and are lost now. Showing deleted
            // records again is the smaller harm.
            tracing::warn!(dir = %self.dir.display(), log_start = self.log_start, log_end = self.log_end, "ignoring a log start beyond the end");
            self.log_start = self.segments[0].base;
        }
        if quick.is_some() {
            self.reload_producers()?;
        } else {
            self.recall_batches()?;
        }
        self.epochs.truncate_end(self.log_end);
        self.epochs.truncate_start(self.log_start);
        if self.epochs != before {
            if self.log_end > self.log_start {
                self.write_epochs()?;
            } else {
                self.epochs_unwritten = true;
            }
        }
        if quick.is_some() {
            self.settled_at = Some(self.log_end);
        }
        self.drop_stray_snapshots()
    }

    /// The epoch file; `None` when it isn't one.
    fn read_epochs(&self) -> Result<Option<Epochs>, LogError> {
        let path = self.dir.join(EPOCH_FILE);
        let text = self.disk.read_file(&path).map_err(|e| LogError::io("reading", &path, e))?;
        let epochs = text.as_deref().and_then(Epochs::parse);
        if epochs.is_none() && text.is_some() {
            tracing::warn!(file = %path.display(), "leader-epoch-checkpoint is garbled: made again from the batches");
        }
        Ok(epochs)
    }

    /// The log's end after a clean stop, from the last index entry on; `None` when the file doesn't end with a batch.
    fn quick_end(&mut self, last: usize) -> Result<Option<i64>, LogError> {
        let base = self.segments[last].base;
        if self.segments[last].size == 0 {
            return Ok(Some(base));
        }
        match self.with_segment(last, |s, place| s.end_offset(place)) {
            Ok(end) => Ok(Some(end)),
            Err(LogError::Corrupt(damage)) => {
                tracing::warn!(%damage, "clean stop, but the last segment doesn't end well: scanning it");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Collects the epochs of the segments before index `to` from their batch headers.
    fn rebuild_epochs(&mut self, to: usize, collector: &mut Collector) -> Result<(), LogError> {
        self.reported().rebuilt.push(EPOCH_FILE);
        for at in 0..to {
            if self.segments[at].size == 0 {
                continue;
            }
            let file = self.with_segment(at, |s, place| s.log_file(place))?;
            let mut walk = Walk::new(&*file, self.segments[at].base, 0, self.segments[at].size);
            while let Some((_, header)) = walk.next().map_err(|e| self.segments[at].damage(self.place(), e))? {
                collector.see(header.partition_leader_epoch, header.base_offset, &mut self.epochs);
            }
        }
        Ok(())
    }

    /// Checks all batches from segment `from` on, rebuilds its indexes and finds the log's end.
    fn scan(
        &mut self,
        from: usize,
        recovery: &Recovery,
        now_ms: i64,
        mut collector: Collector,
    ) -> Result<(), LogError> {
        let base = self.segments[from].base;
        self.producers = self.producers_at(base)?;
        // What is filled again anyway has to agree with the epoch file as well: no CRC covers the epoch of a batch.
        let known = if recovery.refill { self.epochs.clone() } else { Epochs::default() };
        // The scan finds these again, and only those that are really there.
        self.epochs.truncate_end(base);
        let mut buf = Vec::new();
        let mut at = from;
        while at < self.segments.len() {
            self.log_end = self.segments[at].base;
            let scanned = self.scan_segment(at, &known, &mut collector, &mut buf)?;
            if let Some((position, what)) = scanned.bad {
                self.mend(at, position, what, recovery, now_ms)?;
            } else if let Some(next) = self.segments.get(at + 1).map(|s| s.base)
                && self.log_end < next
                && scanned.dense
            {
                self.mend_hole(at, next, recovery, now_ms)?;
            }
            at += 1;
        }
        collector.finish(&mut self.epochs);
        Ok(())
    }

    /// Deals with a segment that holds all its offsets up to some batch, and none from there to the next segment.
    ///
    /// Compaction leaves such a hole too, but not where nothing was flushed yet. There it is a lost end, if the machine
    /// went down, and what follows is set aside. Otherwise somebody cut the file: the records are gone either way.
    fn mend_hole(&mut self, at: usize, next: i64, recovery: &Recovery, now_ms: i64) -> Result<(), LogError> {
        let file = self.segments[at].log_path(self.place());
        if recovery.refill {
            tracing::warn!(file = %file.display(), from = self.log_end, to = next, "offsets are missing: setting aside what follows");
            return self.put_rest_aside(at + 1, now_ms);
        }
        if recovery.machine_restarted && self.log_end >= recovery.recovery_point {
            tracing::warn!(file = %file.display(), log_end = self.log_end, next, "the end of a segment was never written");
            self.rename_to_cut(at + 1)?;
            return self.drop_later(at);
        }
        tracing::warn!(file = %file.display(), from = self.log_end, to = next, "offsets are missing");
        let hole = (self.log_end, next);
        self.reported().holes.push(hole);
        Ok(())
    }

    /// Scans one segment, whose batches must have the epochs that are `known`, as far as any are.
    fn scan_segment(
        &mut self,
        at: usize,
        known: &Epochs,
        collector: &mut Collector,
        buf: &mut Vec<u8>,
    ) -> Result<ScannedSegment, LogError> {
        if self.segments[at].size == 0 {
            return Ok(ScannedSegment { bad: None, dense: true });
        }
        let limit = self.segments.get(at + 1).map_or(i64::MAX, |next| next.base);
        self.with_segment(at, |s, place| s.reset_indexes(place))?;
        let file = self.with_segment(at, |s, place| s.log_file(place))?;
        file.advise_sequential();
        let size = self.segments[at].size;
        let path = self.segments[at].log_path(self.place());
        let mut aborts = Vec::new();
        let mut dense = true;
        let mut rises = true;
        let mut scan = Scan::new(&*file, self.segments[at].base, 0, size, std::mem::take(buf));
        let bad = loop {
            let (header, position, marker) = match scan.next() {
                Ok(None) => break None,
                Ok(Some(batch)) => {
                    let marker = if batch.header.is_control() { marker_of(batch.bytes) } else { None };
                    (batch.header, batch.position, marker)
                }
                Err(ScanError::Bad { position, what }) => break Some((position, what)),
                Err(ScanError::Io(e)) => return Err(LogError::io("reading", &path, e)),
            };
            if header.base_offset < self.log_end || header.next_offset() > limit {
                let what = format!(
                    "the batch has offsets {}..{}, {}..{limit} would fit",
                    header.base_offset,
                    header.next_offset(),
                    self.log_end
                );
                break Some((position, what));
            }
            let epoch = header.partition_leader_epoch;
            if let Some(known) = known.at_offset(header.base_offset)
                && known != epoch
            {
                break Some((position, format!("the batch has leader epoch {epoch}, not {known}")));
            }
            rises &= collector.see(epoch, header.base_offset, &mut self.epochs);
            dense &= header.base_offset == self.log_end
                && i64::from(header.records_count) == i64::from(header.last_offset_delta) + 1;
            self.with_segment(at, |s, place| s.note(place, &header, position))?;
            if header.has_producer_id() {
                note_producer(&mut self.producers, &header, marker, &mut aborts);
            }
            self.log_end = header.next_offset();
        };
        *buf = scan.into_buffer();
        if rises {
            self.segments[at].trust.add(0, bad.as_ref().map_or(size, |(p, _)| *p));
        } else if let Some(before) = at.checked_sub(1).and_then(|before| self.segments.get_mut(before)) {
            // It may be that one's last batch.
            before.trust.forget(before.size);
        }
        let scanned = u64::from(bad.as_ref().map_or(size, |(p, _)| *p));
        if scanned > 0 {
            self.reported().scanned_bytes += scanned;
        }
        if !aborts.is_empty() || self.segments[at].has_aborts {
            self.replace_aborted(at, &aborts)?;
        }
        Ok(ScannedSegment { bad, dense })
    }

    pub(crate) fn replace_aborted(&mut self, at: usize, entries: &[AbortedTxn]) -> Result<(), LogError> {
        let place = self.place().at(self.segments[at].base, "txnindex");
        aborted::replace(place, entries).map_err(|e| LogError::io("writing", &place.path(), e))?;
        self.segments[at].has_aborts = !entries.is_empty();
        self.segments[at].aborts_lost = false;
        Ok(())
    }

    /// Deals with a bad place in segment `at`: cut it off, set things aside, or refuse.
    fn mend(
        &mut self,
        at: usize,
        position: u32,
        what: String,
        recovery: &Recovery,
        now_ms: i64,
    ) -> Result<(), LogError> {
        let size = self.segments[at].size;
        let path = self.segments[at].log_path(self.place());
        let file = self.with_segment(at, |s, place| s.log_file(place))?;
        // Any offset of this segment counts: a garbled offset before makes all that follow look like old ones.
        let above = self.segments[at].base.saturating_sub(1);
        let next_sound = find_sound(&*file, position, size, above).map_err(|e| LogError::io("reading", &path, e))?;
        let later_data = self.segments[at + 1..].iter().any(|s| s.size > 0);
        if next_sound.is_some() || later_data {
            if recovery.refill {
                tracing::warn!(file = %path.display(), position, log_end = self.log_end, %what, "setting aside a damaged segment and what follows it");
                return self.put_rest_aside(at, now_ms);
            }
            let never_flushed = recovery.machine_restarted && self.log_end >= recovery.recovery_point;
            if !never_flushed {
                return Err(LogError::Corrupt(Box::new(Damage {
                    file: path,
                    position: u64::from(position),
                    offset: self.log_end,
                    what,
                    next_sound: next_sound.map(u64::from),
                })));
            }
            self.set_aside(at, position)?;
        }
        tracing::warn!(
            file = %path.display(), position, log_end = self.log_end, bytes = size - position, %what,
            "cutting off the end of the log"
        );
        self.reported().cut_bytes += u64::from(size - position);
        self.drop_later(at)?;
        file.set_len(u64::from(position))
            .and_then(|()| file.sync_data())
            .map_err(|e| LogError::io("truncating", &path, e))?;
        self.segments[at].size = position;
        self.segments[at].trust.truncate(position);
        if position == 0 {
            self.with_segment(at, |s, place| s.reset_indexes(place))?;
        }
        Ok(())
    }

    /// Puts the segments from index `at` on aside, of which it isn't known yet what they hold.
    fn put_rest_aside(&mut self, at: usize, now_ms: i64) -> Result<(), LogError> {
        let last = self.active();
        let (base, dense) = (self.segments[last].base, !self.config.compact);
        let path = self.segments[last].log_path(self.place());
        let file = self.with_segment(last, |s, place| s.log_file(place))?;
        self.log_end = aside::sound_end(&*file, base, dense).map_err(|e| LogError::io("reading", &path, e))?;
        self.put_aside(at, now_ms)?;
        self.disk.sync_dir(&self.dir).map_err(|e| LogError::io("syncing", &self.dir, e))
    }

    /// Removes the segments after `at`, which are empty or set aside.
    fn drop_later(&mut self, at: usize) -> Result<(), LogError> {
        for gone in self.segments.drain(at + 1..) {
            let place = crate::segment::Place { disk: &*self.disk, dir: &self.dir, interval: 0 };
            for suffix in SIDE_FILES.into_iter().chain(["log"]) {
                let path = place.path(gone.base, suffix);
                self.disk.remove_file(&path).map_err(|e| LogError::io("removing", &path, e))?;
            }
        }
        Ok(())
    }

    /// Copies the rest of segment `at` to a `.cut` file and renames later segments to `.cut`.
    fn set_aside(&mut self, at: usize, position: u32) -> Result<(), LogError> {
        let base = self.segments[at].base;
        let file = self.with_segment(at, |s, place| s.log_file(place))?;
        let path = self.dir.join(format!("{base:020}.log.{position}.cut"));
        copy_tail(&*self.disk, &*file, position, self.segments[at].size, &path)
            .map_err(|e| LogError::io("setting aside", &path, e))?;
        self.reported().set_aside.push(path);
        self.rename_to_cut(at + 1)
    }

    /// Renames the segments from index `from` on to `.cut`.
    fn rename_to_cut(&mut self, from: usize) -> Result<(), LogError> {
        for at in from..self.segments.len() {
            if self.segments[at].size == 0 {
                continue;
            }
            self.segments[at].abandon();
            let log = self.segments[at].log_path(self.place());
            let to = log.with_extension("log.cut");
            self.disk.rename(&log, &to).map_err(|e| LogError::io("setting aside", &to, e))?;
            self.reported().set_aside.push(to);
        }
        self.disk.sync_dir(&self.dir).map_err(|e| LogError::io("syncing", &self.dir, e))
    }

    /// The producer state at an offset, from the newest usable snapshot and the batches after it.
    fn producers_at(&mut self, offset: i64) -> Result<Producers, LogError> {
        let mut producers = Producers::default();
        let mut from = self.segments[0].base;
        let mut unusable = Vec::new();
        for &at in self.snapshots.iter().rev().filter(|o| **o <= offset) {
            let path = self.place().path(at, "snapshot");
            let bytes = self.disk.read_file(&path).map_err(|e| LogError::io("reading", &path, e))?;
            if let Some(found) = bytes.as_deref().and_then(snapshot::decode) {
                producers = found;
                from = at;
                break;
            }
            tracing::warn!(file = %path.display(), "producer snapshot is unusable");
            unusable.push(at);
        }
        if !unusable.is_empty() {
            self.reported().rebuilt.push("snapshot");
            self.drop_snapshots(|o| unusable.contains(&o))?;
        }
        self.replay(&mut producers, from, offset)?;
        Ok(producers)
    }

    /// Takes the batches in `from..to` into a producer state; returns the transactions aborted there.
    fn replay(&mut self, producers: &mut Producers, from: i64, to: i64) -> Result<Vec<AbortedTxn>, LogError> {
        let mut aborts = Vec::new();
        if from >= to {
            return Ok(aborts);
        }
        for at in self.segment_of(from)..self.segments.len() {
            if self.segments[at].base >= to {
                break;
            }
            if self.segments[at].size == 0 {
                continue;
            }
            let start = self.with_segment(at, |s, place| s.find(place, from))?;
            let Some((start, _)) = start else { continue };
            let file = self.with_segment(at, |s, place| s.log_file(place))?;
            let mut walk = Walk::new(&*file, self.segments[at].base, start, self.segments[at].size);
            while let Some((position, header)) = walk.next().map_err(|e| self.segments[at].damage(self.place(), e))? {
                if header.base_offset >= to {
                    break;
                }
                if !header.has_producer_id() || header.base_offset < from {
                    continue;
                }
                let marker =
                    if header.is_control() { marker_of(&self.batch_bytes(at, position, &header)?) } else { None };
                note_producer(producers, &header, marker, &mut aborts);
            }
        }
        Ok(aborts)
    }

    /// Makes the producer state anew for the log as it is.
    pub(crate) fn reload_producers(&mut self) -> Result<(), LogError> {
        self.producers = self.producers_at(self.log_end)?;
        self.producers.on_high_watermark(self.log_start);
        self.recall_batches()
    }

    /// Fills up what is remembered of each producer's last batches from the end of the log: a snapshot holds only one,
    /// but a producer may have five in flight when the broker stops, and will send them all again.
    fn recall_batches(&mut self) -> Result<(), LogError> {
        if self.producers.is_empty() {
            return Ok(());
        }
        let mut budget = RECALL_BYTES;
        let mut starts = Vec::new();
        for at in (0..self.segments.len()).rev() {
            let size = self.segments[at].size;
            let from = size.saturating_sub(budget);
            budget -= size - from;
            let start = self.with_segment(at, |s, place| s.batch_at_or_before(place, from))?;
            starts.push((at, start));
            if budget == 0 {
                break;
            }
        }
        let mut recent = Producers::default();
        for (at, start) in starts.into_iter().rev() {
            if self.segments[at].size == 0 {
                continue;
            }
            let file = self.with_segment(at, |s, place| s.log_file(place))?;
            let mut walk = Walk::new(&*file, self.segments[at].base, start, self.segments[at].size);
            loop {
                match walk.next() {
                    Ok(None) => break,
                    Ok(Some((_, header))) => recent.note(&header),
                    Err(WalkError::Bad { position, what }) => {
                        // Readers will find it, too. That some producers are remembered less well is no reason to open nothing.
                        let file = self.segments[at].log_path(self.place());
                        tracing::warn!(file = %file.display(), position, %what, "a damaged batch, met while looking for producers");
                        break;
                    }
                    Err(e) => return Err(self.segments[at].damage(self.place(), e)),
                }
            }
        }
        self.producers.recall(&recent);
        Ok(())
    }

    /// Makes a segment's transaction index anew.
    pub(crate) fn rebuild_aborted(&mut self, at: usize) -> Result<Vec<AbortedTxn>, LogError> {
        let base = self.segments[at].base;
        let mut producers = self.producers_at(base)?;
        let entries = self.replay(&mut producers, base, self.end_of(at))?;
        self.replace_aborted(at, &entries)?;
        Ok(entries)
    }
}

/// The log start from the checkpoint or its copy, given where the epoch file begins; `None` when neither is there. A number
/// that no log reaches is 0.
///
/// The copy counts, since it has a checksum: the others may be garbled and look sound. But where the checkpoint says the
/// same as the epoch file, somebody else has written both since, who knows no copy.
fn told_start(recovery: &Recovery, epochs: Option<i64>) -> Option<i64> {
    let checkpoint = (!recovery.log_start_lost).then_some(recovery.log_start_offset);
    let told = match (checkpoint, recovery.log_start_copy) {
        (Some(checkpoint), Some(_)) if epochs == Some(checkpoint) => checkpoint,
        (_, Some(copy)) => copy,
        (checkpoint, None) => checkpoint?,
    };
    Some(if (0..1 << 62).contains(&told) { told } else { 0 })
}

/// Takes a batch into a producer state, and an aborted transaction into `aborts`.
fn note_producer(
    producers: &mut Producers,
    header: &klamm_protocol::batch::BatchHeader,
    marker: Option<EndTxnMarker>,
    aborts: &mut Vec<AbortedTxn>,
) {
    if !header.is_control() {
        producers.note(header);
        return;
    }
    let Some(marker) = marker else { return };
    if let Some((txn, last_stable_offset)) = producers.note_marker(header, &marker)
        && txn.aborted
    {
        aborts.push(AbortedTxn {
            producer_id: txn.producer_id,
            first_offset: txn.first_offset,
            last_offset: txn.last_offset,
            last_stable_offset,
        });
    }
}

fn copy_tail(disk: &dyn Disk, from: &dyn crate::disk::DiskFile, position: u32, end: u32, to: &Path) -> io::Result<()> {
    let out = disk.open(to, Open::Truncate)?;
    let mut buf = vec![0; 1 << 16];
    let mut at = u64::from(position);
    while at < u64::from(end) {
        let got = crate::disk::read_full(from, &mut buf, at)?;
        if got == 0 {
            break;
        }
        let slice = io::IoSlice::new(&buf[..got]);
        crate::disk::write_all(&*out, &mut [slice], at - u64::from(position))?;
        at += got as u64;
    }
    out.sync_data()
}
