//! How a log gets shorter, and its segments change: rolling, retention, DeleteRecords, truncation.
//!
//! Files of removed segments are first renamed to `*.deleted` and removed later, since a reader may still be sending
//! them. Truncation cuts at batch boundaries only.

use crate::aborted::{self, AbortedTxn};
use crate::error::LogError;
use crate::log::Log;
use crate::producers::{CompletedTxn, Producers};
use crate::segment::Segment;

/// What belongs to a segment, besides its `.log`.
pub(crate) const SIDE_FILES: [&str; 3] = ["index", "timeindex", "txnindex"];

impl Log {
    /// Closes the active segment and begins a new one, unless the active one is empty. Returns the base offset of the
    /// active segment.
    pub fn roll(&mut self, now_ms: i64) -> Result<i64, LogError> {
        if self.segments[self.active()].size > 0 {
            self.roll_at(self.log_end, now_ms)?;
        }
        Ok(self.segments[self.active()].base)
    }

    /// Begins a segment at `base`, at or beyond the log's end, which moves there. After an error the old one is still
    /// active and complete.
    pub(crate) fn roll_at(&mut self, base: i64, now_ms: i64) -> Result<(), LogError> {
        self.ensure_online()?;
        let active = self.active();
        self.with_segment(active, |s, place| s.seal(place))?;
        self.write_snapshot()?;
        let mut segment = Segment::new(base, now_ms);
        // The file is made now: an empty log must not forget its offsets.
        segment.log_file(self.place())?;
        self.names.mark();
        if self.segments[active].size == 0 {
            // An empty segment whose base is too far back for the next batch: nothing to keep.
            let place = self.place();
            let path = self.segments[active].log_path(place);
            self.disk.remove_file(&path).map_err(|e| LogError::io("removing", &path, e))?;
            self.segments[active] = segment;
        } else {
            self.segments.push(segment);
        }
        self.recent.clear();
        self.log_end = base;
        Ok(())
    }

    /// Applies `retention.ms`, `retention.bytes` and the log start offset. Only whole segments below the high watermark
    /// go. Returns the number of segments removed; the log start may have moved.
    pub fn apply_retention(&mut self, now_ms: i64, high_watermark: i64) -> Result<usize, LogError> {
        self.ensure_online()?;
        let mut gone = self.below_log_start();
        if self.config.delete {
            gone = gone.max(self.expired(now_ms, high_watermark)?);
            gone = gone.max(self.oversize(high_watermark));
        }
        if gone == 0 {
            return Ok(0);
        }
        if gone == self.segments.len() {
            // All of it: the log goes on in a new, empty segment.
            self.roll(now_ms)?;
        }
        self.remove_first(gone, now_ms)
    }

    /// Whether all of a segment is replicated and may go.
    fn may_go(&self, at: usize, high_watermark: i64) -> bool {
        // A sealed segment may be empty after compaction; an empty active one is what an empty log has.
        (self.segments[at].size > 0 || at < self.active()) && self.end_of(at) <= high_watermark
    }

    fn below_log_start(&self) -> usize {
        // The active segment stays until it is rolled.
        (0..self.active()).take_while(|at| self.end_of(*at) <= self.log_start).count()
    }

    fn expired(&mut self, now_ms: i64, high_watermark: i64) -> Result<usize, LogError> {
        let retention_ms = self.config.retention_ms;
        if retention_ms < 0 {
            return Ok(0);
        }
        let mut count = 0;
        while count < self.segments.len() && self.may_go(count, high_watermark) {
            let mut newest = self.with_segment(count, |s, place| s.max_time(place))?.timestamp;
            if newest < 0 {
                newest = self.segments[count].created_ms;
            }
            if now_ms.saturating_sub(newest) <= retention_ms {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    fn oversize(&self, high_watermark: i64) -> usize {
        let Ok(retention) = u64::try_from(self.config.retention_bytes) else {
            return 0;
        };
        let mut excess = self.size().saturating_sub(retention);
        let mut count = 0;
        while count < self.segments.len() && self.may_go(count, high_watermark) {
            let size = u64::from(self.segments[count].size);
            if excess < size {
                break;
            }
            excess -= size;
            count += 1;
        }
        count
    }

    /// Removes the first `count` segments, of which at least one must stay.
    fn remove_first(&mut self, count: usize, now_ms: i64) -> Result<usize, LogError> {
        let count = count.min(self.active());
        for _ in 0..count {
            self.discard(0, now_ms)?;
            self.segments.remove(0);
            self.cursors.clear();
            let first = self.segments[0].base;
            self.advance_log_start(self.log_start.max(first))?;
        }
        Ok(count)
    }

    /// Moves the log start offset up to `to`, as DeleteRecords asks; segments wholly below it go. The caller has checked
    /// that `to` isn't above the high watermark. Returns the log start offset.
    pub fn delete_records(&mut self, to: i64, now_ms: i64) -> Result<i64, LogError> {
        self.ensure_online()?;
        if to > self.log_end {
            return Err(LogError::OffsetOutOfRange { offset: to, log_start: self.log_start, log_end: self.log_end });
        }
        if to > self.log_start {
            self.advance_log_start(to)?;
            let gone = self.below_log_start();
            self.remove_first(gone, now_ms)?;
        }
        Ok(self.log_start)
    }

    /// Moves the log start offset; what a follower does when its leader's has moved.
    fn advance_log_start(&mut self, to: i64) -> Result<(), LogError> {
        if to <= self.log_start {
            return Ok(());
        }
        self.log_start = to;
        self.producers.on_high_watermark(to);
        if self.epochs.truncate_start(to) {
            self.write_epochs()?;
        }
        Ok(())
    }

    /// Renames a segment's files for removal; the caller then takes it out of the list.
    pub(crate) fn discard(&mut self, at: usize, now_ms: i64) -> Result<(), LogError> {
        self.segments[at].abandon();
        let gone = self.segments[at].base;
        self.damages.retain(|known| known.segment != gone);
        let due = now_ms.saturating_add(self.config.file_delete_delay_ms.max(0));
        let base = self.segments[at].base;
        // The log last: without it, the others are leftovers that opening removes.
        let path = self.place().path(base, "log");
        let renamed = path.with_extension("log.deleted");
        match self.disk.rename(&path, &renamed) {
            Ok(()) => self.trash.push_back((renamed, due)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(LogError::io("renaming", &path, e)),
        }
        self.names.mark();
        for suffix in SIDE_FILES {
            let path = self.place().path(base, suffix);
            self.disk.remove_file(&path).map_err(|e| LogError::io("removing", &path, e))?;
        }
        if self.snapshots.len() > 1 {
            self.drop_snapshots(|offset| offset == base)?;
        }
        Ok(())
    }

    /// Removes files whose `file.delete.delay.ms` is over. Returns how many.
    pub fn delete_expired_files(&mut self, now_ms: i64) -> Result<usize, LogError> {
        let mut count = 0;
        while let Some((path, due)) = self.trash.front()
            && *due <= now_ms
        {
            self.disk.remove_file(path).map_err(|e| LogError::io("removing", path, e))?;
            self.trash.pop_front();
            count += 1;
        }
        Ok(count)
    }

    /// When the next renamed file is due for removal.
    pub fn next_file_deletion_ms(&self) -> Option<i64> {
        self.trash.front().map(|(_, due)| *due)
    }

    /// Removes all records from `offset` on. When `offset` lies inside a batch, the whole batch goes and the log ends
    /// where the batch before it does. Does nothing at or beyond the log's end.
    pub fn truncate_to(&mut self, offset: i64, now_ms: i64) -> Result<(), LogError> {
        self.ensure_online()?;
        if offset >= self.log_end {
            return Ok(());
        }
        self.truncating(|log| {
            if offset < log.segments[0].base { log.start_over(offset, now_ms) } else { log.cut_at(offset, now_ms) }
        })
    }

    /// Removes everything and goes on at `offset`.
    pub fn truncate_fully_and_start_at(&mut self, offset: i64, now_ms: i64) -> Result<(), LogError> {
        self.ensure_online()?;
        self.truncating(|log| log.start_over(offset, now_ms))
    }

    /// A truncation that fails half-way leaves files and state apart, so it takes the log offline.
    pub(crate) fn truncating(
        &mut self,
        truncate: impl FnOnce(&mut Log) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        self.generation = self.generation.wrapping_add(1);
        self.recent.clear();
        self.cursors.clear();
        self.damages.clear();
        let cut = truncate(self);
        self.refute_kept();
        // Segments that are gone must not come back beside those that take their place.
        let synced =
            cut.and_then(|()| self.disk.sync_dir(&self.dir).map_err(|e| LogError::io("syncing", &self.dir, e)));
        synced.map_err(|e| match e {
            LogError::Offline { .. } | LogError::Corrupt(_) => e,
            e => self.give_up(format!("truncation failed: {e}")),
        })
    }

    fn cut_at(&mut self, offset: i64, now_ms: i64) -> Result<(), LogError> {
        let keep = self.segment_of(offset);
        // Newest first, so that a crash leaves no hole.
        for at in (keep + 1..self.segments.len()).rev() {
            self.discard(at, now_ms)?;
            self.segments.pop();
        }
        let cut = self.with_segment(keep, |s, place| match s.size {
            0 => Ok(None),
            _ => s.find(place, offset),
        })?;
        match cut {
            Some((position, header)) => self.cut_segment(keep, position, offset.min(header.base_offset)),
            None => self.ends_with(keep),
        }
    }

    /// A cut is safe before anything is written where it was. Otherwise a power loss could bring back what was cut off in
    /// the place of that, batches as sound as those around them: nobody would ever notice.
    fn sync_cut(&mut self, at: usize) -> Result<(), LogError> {
        let path = self.segments[at].log_path(self.place());
        let file = self.with_segment(at, |s, place| s.log_file(place))?;
        file.sync_data().map_err(|e| LogError::io("syncing", &path, e))
    }

    fn cut_segment(&mut self, at: usize, position: u32, end: i64) -> Result<(), LogError> {
        self.with_segment(at, |s, place| s.truncate(place, position, end))?;
        self.sync_cut(at)?;
        self.ends_with(at)
    }

    /// Puts everything in line with a log that ends with the segment `keep`.
    pub(crate) fn ends_with(&mut self, keep: usize) -> Result<(), LogError> {
        // The end of the last batch left, as opening the log again will find it: never in a gap that compaction made.
        let end = self.with_segment(keep, |s, place| if s.size == 0 { Ok(s.base) } else { s.end_offset(place) })?;
        self.log_end = end;
        self.log_start = self.log_start.min(end);
        self.recovery_point = self.recovery_point.min(end);
        if self.epochs.truncate_end(end) {
            self.write_epochs()?;
        }
        self.truncate_aborted(keep)?;
        self.drop_snapshots(|o| o > end)?;
        self.reload_producers()
    }

    fn start_over(&mut self, offset: i64, now_ms: i64) -> Result<(), LogError> {
        for at in (0..self.segments.len()).rev() {
            self.discard(at, now_ms)?;
            if at > 0 {
                self.segments.pop();
            }
        }
        self.begin_at(offset, now_ms)
    }

    /// Goes on at `offset` with one new, empty segment in place of the one that is left.
    pub(crate) fn begin_at(&mut self, offset: i64, now_ms: i64) -> Result<(), LogError> {
        self.segments[0] = Segment::new(offset, now_ms);
        self.log_start = offset;
        self.log_end = offset;
        self.recovery_point = offset;
        self.producers = Producers::default();
        self.names.mark();
        // The file is made now: an empty log must not forget its offsets.
        self.with_segment(0, |s, place| s.log_file(place))?;
        self.drop_snapshots(|_| true)?;
        if self.epochs.clear() {
            self.write_epochs()?;
        }
        Ok(())
    }

    /// Adds an aborted transaction to the active segment's index.
    pub(crate) fn note_aborted(&mut self, txn: CompletedTxn, last_stable_offset: i64) {
        let active = self.active();
        let at = self.place().at(self.segments[active].base, "txnindex");
        let entry = AbortedTxn {
            producer_id: txn.producer_id,
            first_offset: txn.first_offset,
            last_offset: txn.last_offset,
            last_stable_offset,
        };
        // A lost entry would show aborted records, so the index as a whole is dropped and made again when asked for.
        if let Err(e) = aborted::append(at, entry) {
            tracing::warn!(file = %at.path().display(), error = %e, "transaction index not written");
            self.segments[active].aborts_lost = true;
        }
        self.segments[active].has_aborts = true;
        self.names.mark();
    }

    /// Drops the entries of markers beyond the log's end.
    fn truncate_aborted(&mut self, segment: usize) -> Result<(), LogError> {
        if !self.segments[segment].has_aborts {
            return Ok(());
        }
        let mut entries = self.read_aborted(segment)?;
        entries.retain(|e| e.last_offset < self.log_end);
        let at = self.place().at(self.segments[segment].base, "txnindex");
        aborted::replace(at, &entries).map_err(|e| LogError::io("writing", &at.path(), e))?;
        self.segments[segment].has_aborts = !entries.is_empty();
        Ok(())
    }
}
