//! Compaction (`cleanup.policy=compact`): of each key only the last record stays.
//!
//! `begin_compaction` chooses sealed segments under the lock; [`Compaction::run`] reads them and writes new ones without
//! it; `finish_compaction` swaps them in. What fits into one segment becomes one. Offsets never change. As in Kafka, tombstones and transaction markers go in two
//! steps with a delete horizon between, aborted records go, and the last batch of each producer stays, if need be empty.

use std::collections::{HashMap, HashSet};
use std::hash::Hasher;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::batch::{BatchBuilder, BatchHeader, BatchView, BuildError, Header, RecordView};

use crate::aborted::AbortedTxn;
use crate::disk::{Disk, DiskFile, read_full, write_all};
use crate::error::{Damage, LogError};
use crate::log::Log;
use crate::producers::marker_of;
use crate::scan::{Scan, ScanError};
use crate::segment::{Place, Segment};

/// Folder inside a partition's directory where new segments are written; opening the log removes it.
pub(crate) const FOLDER: &str = "compact";

/// Bytes gathered before they are written.
const WRITE_AT: usize = 256 * 1024;

/// What a run may use.
#[derive(Debug, Clone, Copy)]
pub struct CompactionLimits {
    /// Keys remembered at once (about 40 bytes each); with more, the rest waits for the next run.
    pub keys: usize,
    /// Decompressed bytes of one batch.
    pub max_decompressed: usize,
}

/// A sealed segment to be compacted.
#[derive(Debug)]
struct Source {
    base: i64,
    size: u32,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
}

/// Where a producer stands: its last data batch must survive, or else its last marker.
#[derive(Debug, Clone, Copy)]
struct LastOf {
    data: Option<i64>,
    epoch: i16,
}

/// A compaction that has been decided on. Holds what it needs of the log, so that it runs without the log's lock.
#[derive(Debug)]
pub struct Compaction {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    interval: u32,
    generation: u32,
    sources: Vec<Source>,
    first_dirty: i64,
    end: i64,
    aborted: Vec<AbortedTxn>,
    producers: HashMap<i64, LastOf>,
    segment_bytes: u32,
    segment_index_bytes: u32,
    delete_retention_ms: i64,
    now_ms: i64,
    seed: u64,
}

/// A segment that takes the place of others.
#[derive(Debug)]
struct Output {
    members: Vec<(i64, u32)>,
    segment: Segment,
    aborted: Vec<AbortedTxn>,
}

/// The outcome of a run, to be handed to [`Log::finish_compaction`].
#[derive(Debug)]
pub struct Compacted {
    generation: u32,
    outputs: Vec<Output>,
    /// Everything below has been compacted.
    pub cleaned_to: i64,
    /// Bytes read and bytes written.
    pub bytes: (u64, u64),
}

impl Log {
    /// Decides on a compaction: `None` when it isn't worth it yet (`min.cleanable.dirty.ratio`), or nothing may be
    /// compacted. Only sealed segments are that have been flushed, lie below the last stable offset and are older than
    /// `min.compaction.lag.ms`. (A gap in what was never flushed is a loss, and recovery must be able to tell.)
    pub fn begin_compaction(&mut self, high_watermark: i64, now_ms: i64) -> Result<Option<Compaction>, LogError> {
        self.ensure_online()?;
        if !self.config.compact {
            return Ok(None);
        }
        let stable = self.last_stable_offset(high_watermark).min(self.recovery_point);
        let first_dirty = self.cleaned_to.max(self.log_start);
        let mut count = 0;
        while count < self.active() && self.end_of(count) <= stable {
            let newest = self.with_segment(count, |s, place| s.max_time(place))?.timestamp;
            let lag = self.config.min_compaction_lag_ms;
            if lag > 0 && now_ms.saturating_sub(newest) < lag {
                break;
            }
            count += 1;
        }
        let end = if count == 0 { self.log_start } else { self.end_of(count - 1) };
        if end <= first_dirty || !self.worth_compacting(count, first_dirty, now_ms)? {
            return Ok(None);
        }
        let aborted = self.aborted_transactions(self.log_start, end)?;
        let mut sources = Vec::new();
        for at in 0..count {
            let path = self.segments[at].log_path(self.place());
            let file = self.with_segment(at, |s, place| s.log_file(place))?;
            sources.push(Source { base: self.segments[at].base, size: self.segments[at].size, file, path });
        }
        let last =
            |p: &crate::producers::Producer| LastOf { data: p.last_batch().map(|b| b.last_offset), epoch: p.epoch };
        Ok(Some(Compaction {
            disk: self.disk.clone(),
            folder: self.dir.join(FOLDER),
            interval: self.config.index_interval_bytes,
            generation: self.generation,
            sources,
            first_dirty,
            end,
            aborted,
            producers: self.producers.iter().map(|(id, p)| (id, last(p))).collect(),
            segment_bytes: self.config.segment_bytes,
            segment_index_bytes: self.config.segment_index_bytes,
            delete_retention_ms: self.config.delete_retention_ms,
            now_ms,
            seed: self.config.jitter_seed ^ self.salt,
        }))
    }

    fn worth_compacting(&mut self, count: usize, first_dirty: i64, now_ms: i64) -> Result<bool, LogError> {
        let (mut clean, mut dirty, mut overdue) = (0u64, 0u64, false);
        for at in 0..count {
            let size = u64::from(self.segments[at].size);
            if self.end_of(at) <= first_dirty {
                clean += size;
                continue;
            }
            dirty += size;
            let first = self.with_segment(at, |s, place| s.first_time(place))?;
            overdue |= first >= 0 && now_ms.saturating_sub(first) > self.config.max_compaction_lag_ms;
        }
        let ratio = dirty as f64 / (clean + dirty).max(1) as f64;
        Ok(dirty > 0 && (overdue || ratio >= self.config.min_cleanable_dirty_ratio))
    }

    /// Everything below this offset has been compacted; to be kept in the cleaner checkpoint.
    pub fn cleaned_to(&self) -> i64 {
        self.cleaned_to
    }

    /// Tells the log what the cleaner checkpoint says, after opening it.
    pub fn set_cleaned_to(&mut self, offset: i64) {
        self.cleaned_to = offset.clamp(self.log_start, self.log_end);
    }

    /// Swaps compacted segments in. When the log was truncated meanwhile, or retention took a segment, what doesn't fit
    /// any more is thrown away. Returns the number of segments replaced.
    pub fn finish_compaction(&mut self, done: Compacted, now_ms: i64) -> Result<usize, LogError> {
        self.ensure_online()?;
        let mut replaced = 0;
        let folder = self.dir.join(FOLDER);
        if done.generation == self.generation {
            for output in done.outputs {
                let first = self.segments.iter().position(|s| Some(s.base) == output.members.first().map(|m| m.0));
                let Some(at) = first.filter(|at| self.is_there(*at, &output.members)) else {
                    continue;
                };
                replaced += output.members.len();
                self.swap_in(at, output, &folder, now_ms)
                    .map_err(|e| self.give_up(format!("compaction failed: {e}")))?;
            }
            self.cleaned_to = self.cleaned_to.max(done.cleaned_to);
        }
        self.disk.remove_dir_all(&folder).map_err(|e| LogError::io("removing", &folder, e))?;
        Ok(replaced)
    }

    fn is_there(&self, at: usize, members: &[(i64, u32)]) -> bool {
        let there = self.segments[at..self.active()].iter().map(|s| (s.base, s.size));
        there.take(members.len()).eq(members.iter().copied())
    }

    /// Replaces segments from index `at` on by one. The new one stands as `.log.swap` until the old ones are gone, so
    /// that a crash in between can be completed.
    fn swap_in(&mut self, at: usize, output: Output, folder: &Path, now_ms: i64) -> Result<(), LogError> {
        let disk = self.disk.clone();
        let base = output.segment.base;
        let rename = |from: &Path, to: &Path| disk.rename(from, to).map_err(|e| LogError::io("renaming", from, e));
        let new = Place { disk: &*disk, dir: folder, interval: 0 };
        let log = self.place().path(base, "log");
        let swap = log.with_extension("log.swap");
        rename(&new.path(base, "log"), &swap)?;
        disk.sync_dir(&self.dir).map_err(|e| LogError::io("syncing", &self.dir, e))?;
        // Oldest first: what let a record go always comes after it, so that a crash on the way brings none back.
        for _ in 1..output.members.len() {
            self.discard(at + 1, now_ms)?;
            self.segments.remove(at + 1);
        }
        self.segments[at].abandon();
        for suffix in crate::retain::SIDE_FILES {
            let path = self.place().path(base, suffix);
            disk.remove_file(&path).map_err(|e| LogError::io("removing", &path, e))?;
        }
        rename(&swap, &log)?;
        if output.segment.size > 0 {
            for suffix in ["index", "timeindex"] {
                rename(&new.path(base, suffix), &self.place().path(base, suffix))?;
            }
        }
        self.segments[at] = output.segment;
        self.replace_aborted(at, &output.aborted)?;
        self.names.mark();
        self.cursors.clear();
        Ok(())
    }
}

impl Compaction {
    /// The offsets it is about: from the first that was never compacted to the end.
    pub fn range(&self) -> (i64, i64) {
        (self.first_dirty, self.end)
    }

    /// Does the work; takes long, and needs no lock.
    pub fn run(self, limits: CompactionLimits) -> Result<Compacted, LogError> {
        self.disk
            .remove_dir_all(&self.folder)
            .and_then(|()| self.disk.create_dir(&self.folder))
            .map_err(|e| LogError::io("making", &self.folder, e))?;
        let latest = self.latest_offsets(limits)?;
        let mut state = Transactions::new(&self.aborted);
        let mut done =
            Compacted { generation: self.generation, outputs: Vec::new(), cleaned_to: latest.end, bytes: (0, 0) };
        let mut last: Option<Output> = None;
        let sources = &self.sources[..self.sources.partition_point(|s| s.base < latest.end)];
        for (n, source) in sources.iter().enumerate() {
            done.bytes.0 += u64::from(source.size);
            let end = self.sources.get(n + 1).map_or(self.end, |next| next.base);
            // Where it surely fits behind what is there, it is written there; otherwise it is seen when it is written.
            match &mut last {
                Some(last) if self.fits(last, source.size, 0, end) => {
                    self.rewrite(source, last, &latest, &mut state, limits)?;
                }
                last => {
                    let mut next = self.output(source.base)?;
                    self.rewrite(source, &mut next, &latest, &mut state, limits)?;
                    match last {
                        Some(last) if self.fits(last, next.segment.size, next.segment.index_bytes(), end) => {
                            self.join(last, next)?;
                        }
                        last => done.outputs.extend(last.replace(next)),
                    }
                }
            }
        }
        done.outputs.extend(last);
        let place = self.place();
        for Output { segment, .. } in &mut done.outputs {
            let path = segment.log_path(place);
            segment.log_file(place)?.sync_data().map_err(|e| LogError::io("writing", &path, e))?;
            segment.seal(place)?;
            done.bytes.1 += u64::from(segment.size);
        }
        Ok(done)
    }

    /// The last offset of every key in the dirty part, as far as there is room for keys.
    fn latest_offsets(&self, limits: CompactionLimits) -> Result<Latest, LogError> {
        let mut latest = Latest { offsets: HashMap::new(), seed: self.seed, end: self.end };
        // The pass begins in the midst of the log: what ended before isn't met any more.
        let begin = self.sources.partition_point(|s| s.base <= self.first_dirty).saturating_sub(1);
        let begins_at = self.sources.get(begin).map_or(0, |s| s.base);
        let open: Vec<AbortedTxn> = self.aborted.iter().filter(|a| a.last_offset >= begins_at).copied().collect();
        let mut state = Transactions::new(&open);
        let mut scratch = Vec::new();
        for source in &self.sources[begin..] {
            let full = source.each_batch(|header, bytes| {
                if header.is_control() {
                    state.marker_is_useless(header, bytes);
                    return Ok(false);
                }
                if state.is_aborted(header) || header.last_offset() < self.first_dirty {
                    return Ok(false);
                }
                if latest.offsets.len() >= limits.keys {
                    latest.end = header.base_offset;
                    return Ok(true);
                }
                for record in BatchView::parse(bytes)?.walk(&mut scratch, limits.max_decompressed)? {
                    let record = record?;
                    if let Some(key) = record.key {
                        let hash = latest.hash(key);
                        latest.offsets.insert(hash, record.offset);
                    }
                }
                Ok(false)
            })?;
            if full {
                break;
            }
        }
        Ok(latest)
    }

    fn place(&self) -> Place<'_> {
        Place { disk: &*self.disk, dir: &self.folder, interval: self.interval }
    }

    /// A new, empty segment in the folder.
    fn output(&self, base: i64) -> Result<Output, LogError> {
        let mut segment = Segment::new(base, self.now_ms);
        segment.log_file(self.place())?;
        Ok(Output { members: Vec::new(), segment, aborted: Vec::new() })
    }

    /// Whether that many bytes more, of batches that end below `end`, leave a segment that Kafka would still make.
    fn fits(&self, output: &Output, bytes: u32, index_bytes: u64, end: i64) -> bool {
        let Output { segment, .. } = output;
        u64::from(segment.size) + u64::from(bytes) <= u64::from(self.segment_bytes)
            && segment.index_bytes() + index_bytes <= u64::from(self.segment_index_bytes)
            && end - segment.base <= i64::from(i32::MAX)
    }

    /// Writes what is to be kept of a segment behind what an output holds already.
    fn rewrite(
        &self,
        source: &Source,
        output: &mut Output,
        latest: &Latest,
        state: &mut Transactions,
        limits: CompactionLimits,
    ) -> Result<(), LogError> {
        let mut writer = Writer::new(self.place(), &mut output.segment)?;
        let mut scratch = Vec::new();
        state.kept.clear();
        source.each_batch(|header, bytes| {
            if let Some(kept) = self.keep(header, bytes, latest, state, &mut scratch, limits)? {
                writer.add(&kept)?;
            }
            Ok(false)
        })?;
        writer.finish()?;
        output.members.push((source.base, source.size));
        output.aborted.append(&mut state.kept);
        output.segment.has_aborts = !output.aborted.is_empty();
        Ok(())
    }

    /// Moves what the next output holds behind the last one's.
    fn join(&self, last: &mut Output, mut next: Output) -> Result<(), LogError> {
        let place = self.place();
        let path = next.segment.log_path(place);
        let part = Source {
            base: next.segment.base,
            size: next.segment.size,
            file: next.segment.log_file(place)?,
            path: path.clone(),
        };
        let mut writer = Writer::new(place, &mut last.segment)?;
        part.each_batch(|_, bytes| {
            writer.add(bytes)?;
            Ok(false)
        })?;
        writer.finish()?;
        next.segment.abandon();
        for suffix in ["log"].into_iter().chain(crate::retain::SIDE_FILES) {
            let path = place.path(part.base, suffix);
            self.disk.remove_file(&path).map_err(|e| LogError::io("removing", &path, e))?;
        }
        last.members.append(&mut next.members);
        last.aborted.append(&mut next.aborted);
        last.segment.has_aborts = !last.aborted.is_empty();
        Ok(())
    }

    /// What is left of a batch: `None` when nothing is.
    fn keep(
        &self,
        header: &BatchHeader,
        bytes: &Bytes,
        latest: &Latest,
        state: &mut Transactions,
        scratch: &mut Vec<u8>,
        limits: CompactionLimits,
    ) -> Result<Option<Bytes>, LogError> {
        let discardable =
            if header.is_control() { state.marker_is_useless(header, bytes) } else { state.is_aborted(header) };
        let horizon = header.delete_horizon_ms();
        let expired = horizon.is_some_and(|at| at <= self.now_ms);
        let discard = discardable && (!header.is_control() || expired);
        let must_stay = header.next_offset() == self.end
            || self.producers.get(&header.producer_id).is_some_and(|last| match last.data {
                Some(offset) => offset == header.last_offset(),
                None => header.is_control() && last.epoch == header.producer_epoch,
            });
        if header.records_count == 0 {
            return Ok(must_stay.then(|| bytes.clone()));
        }
        let mut keep = Vec::new();
        let mut tombstones = false;
        if !discard {
            for record in BatchView::parse(bytes)?.walk(scratch, limits.max_decompressed)? {
                let record = record?;
                let stays = header.is_control() || latest.is_last(&record, !expired);
                tombstones |= stays && !header.is_control() && record.value.is_none();
                keep.push(stays);
            }
        }
        let kept = keep.iter().filter(|k| **k).count();
        if kept == 0 && !must_stay {
            return Ok(None);
        }
        let starts_horizon = horizon.is_none() && (tombstones || (header.is_control() && discardable && !discard));
        if kept == header.records_count as usize && !starts_horizon {
            return Ok(Some(bytes.clone()));
        }
        let mut builder = BatchBuilder::rewriting(header)?;
        if starts_horizon {
            builder = builder.delete_horizon_ms(self.now_ms.saturating_add(self.delete_retention_ms));
        }
        let mut keep = keep.into_iter();
        if kept > 0 {
            for record in BatchView::parse(bytes)?.walk(scratch, limits.max_decompressed)? {
                let record = record?;
                if keep.next() == Some(true) {
                    let own = |b: &[u8]| Bytes::copy_from_slice(b);
                    let headers: Vec<Header> = record.headers.map(|(k, v)| (own(k), v.map(own))).collect();
                    builder
                        .append(record.offset, record.timestamp, record.key, record.value, &headers)
                        .map_err(|e| self.unbuildable(header, &e))?;
                }
            }
        }
        builder.build().map(Some).map_err(|e| self.unbuildable(header, &e))
    }

    fn unbuildable(&self, header: &BatchHeader, e: &BuildError) -> LogError {
        let why = format!("batch at offset {} can't be rewritten: {e}", header.base_offset);
        LogError::io("compacting", &self.folder, io::Error::other(why))
    }
}

/// Writes batches at the end of a segment.
struct Writer<'a> {
    place: Place<'a>,
    segment: &'a mut Segment,
    file: Arc<dyn DiskFile>,
    pending: Vec<u8>,
    written: u64,
}

impl<'a> Writer<'a> {
    fn new(place: Place<'a>, segment: &'a mut Segment) -> Result<Self, LogError> {
        let file = segment.log_file(place)?;
        Ok(Writer { place, written: u64::from(segment.size), segment, file, pending: Vec::new() })
    }

    fn add(&mut self, batch: &[u8]) -> Result<(), LogError> {
        let header = BatchHeader::parse(batch)?;
        self.segment.note(self.place, &header, self.segment.size)?;
        self.segment.size += batch.len() as u32;
        self.pending.extend_from_slice(batch);
        if self.pending.len() >= WRITE_AT { self.finish() } else { Ok(()) }
    }

    /// Writes what was gathered.
    fn finish(&mut self) -> Result<(), LogError> {
        write_all(&*self.file, &mut [IoSlice::new(&self.pending)], self.written)
            .map_err(|e| LogError::io("writing", &self.segment.log_path(self.place), e))?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

impl Source {
    /// Calls `f` with each batch until it returns true; returns whether it did. A batch that isn't sound is damage:
    /// compaction must not make it look sound.
    fn each_batch(&self, mut f: impl FnMut(&BatchHeader, &Bytes) -> Result<bool, LogError>) -> Result<bool, LogError> {
        let mut scan = Scan::new(&*self.file, self.base, 0, self.size, Vec::new());
        loop {
            let (header, bytes) = match scan.next() {
                Ok(None) => return Ok(false),
                Ok(Some(batch)) if batch.bytes.is_empty() => {
                    // Larger than the scan keeps: read it by itself.
                    let mut bytes = vec![0; batch.header.total_len()];
                    read_full(&*self.file, &mut bytes, u64::from(batch.position))
                        .map_err(|e| LogError::io("reading", &self.path, e))?;
                    (batch.header, bytes.into())
                }
                Ok(Some(batch)) => (batch.header, Bytes::copy_from_slice(batch.bytes)),
                Err(ScanError::Io(e)) => return Err(LogError::io("reading", &self.path, e)),
                Err(ScanError::Bad { position, what }) => {
                    return Err(LogError::Corrupt(Box::new(Damage {
                        file: self.path.clone(),
                        position: u64::from(position),
                        offset: self.base,
                        what,
                        next_sound: None,
                    })));
                }
            };
            if f(&header, &bytes)? {
                return Ok(true);
            }
        }
    }
}

/// The last offset of each key seen in the dirty part.
struct Latest {
    /// By a 128-bit hash: keys themselves could be of any size.
    offsets: HashMap<(u64, u64), i64>,
    seed: u64,
    /// Keys of records from here on are not in the map.
    end: i64,
}

impl Latest {
    fn hash(&self, key: &[u8]) -> (u64, u64) {
        let half = |salt: u64| {
            let mut hasher = std::hash::DefaultHasher::new();
            hasher.write_u64(self.seed ^ salt);
            hasher.write(key);
            hasher.finish()
        };
        (half(0), half(0x9e37_79b9_7f4a_7c15))
    }

    /// Whether a record stays: the last of its key, and not a tombstone that may go.
    fn is_last(&self, record: &RecordView<'_>, keep_tombstones: bool) -> bool {
        if record.offset >= self.end {
            return true;
        }
        // Records without a key can't be replaced by anything; a compacted topic doesn't take them.
        let Some(key) = record.key else { return false };
        let newest = self.offsets.get(&self.hash(key));
        newest.is_none_or(|newest| record.offset >= *newest) && (record.value.is_some() || keep_tombstones)
    }
}

/// Which transactions are open at the point a pass has reached, and how they will end.
struct Transactions {
    /// Aborted transactions that haven't begun yet, the next one last.
    ahead: Vec<AbortedTxn>,
    /// By producer: the aborted transaction it is in, and whether any of its batches was seen.
    aborted: HashMap<i64, (AbortedTxn, bool)>,
    /// Producers of which batches of a committed transaction were seen.
    committed: HashSet<i64>,
    /// Aborted transactions whose marker stays.
    kept: Vec<AbortedTxn>,
}

impl Transactions {
    fn new(aborted: &[AbortedTxn]) -> Transactions {
        let mut ahead = aborted.to_vec();
        ahead.sort_by_key(|a| std::cmp::Reverse(a.first_offset));
        Transactions { ahead, aborted: HashMap::new(), committed: HashSet::new(), kept: Vec::new() }
    }

    fn go_to(&mut self, offset: i64) {
        while let Some(next) = self.ahead.pop_if(|a| a.first_offset <= offset) {
            self.aborted.entry(next.producer_id).or_insert((next, false));
        }
    }

    /// Whether a data batch belongs to an aborted transaction.
    fn is_aborted(&mut self, header: &BatchHeader) -> bool {
        self.go_to(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&header.producer_id) {
            Some((_, seen)) => {
                *seen = true;
                true
            }
            None => {
                self.committed.insert(header.producer_id);
                false
            }
        }
    }

    /// Whether a marker ends a transaction of which no batch is left in the log.
    fn marker_is_useless(&mut self, header: &BatchHeader, bytes: &[u8]) -> bool {
        self.go_to(header.last_offset());
        let Some(marker) = marker_of(bytes) else {
            // Emptied before; other control records stay.
            return header.records_count == 0;
        };
        if marker.commit {
            return !self.committed.remove(&header.producer_id);
        }
        match self.aborted.remove(&header.producer_id) {
            Some((txn, true)) => {
                self.kept.push(txn);
                false
            }
            _ => true,
        }
    }
}
