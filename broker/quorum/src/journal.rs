//! The quorum's durable log: entries, votes, truncations and purge marks as frames in append-only files.
//!
//! One file at a time is written; files wholly below the purge mark are deleted. Everything is appended, also
//! the vote and truncations, so a crash can only cut the end of the last file. Whoever writes gets a [`Sync`]
//! ticket and must run it before telling anyone; syncing happens without the journal's lock held.
//!
//! Invariant: a file exists under its name only after its head frame is durable and the file before it is
//! durable as a whole. After one failed write or sync the journal refuses all writes.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use rustix::fs::FallocateFlags;

use crate::codec;
use crate::disk;
use crate::error::QuorumError;
use crate::frame::{self, Kind};
use crate::types::{Entry, LogId, Membership, Vote, log_id, term_of};

const SUFFIX: &str = ".journal";
/// How much is allocated ahead of the write position, so that a full disk shows before anything is written.
const RESERVE_AHEAD: u64 = 128 << 10;
/// What is kept free of proposals in what is allocated, for the small frames that Raft writes by itself.
const RESERVE_SPARE: u64 = 4 << 10;
/// Entries kept decoded in memory, so that applying what was just appended reads nothing.
const RECENT_BYTES_MAX: usize = 256 << 10;
const READ_SPAN_MAX: u64 = 1 << 20;

/// Whose journal it is; checked at open so that no node ever runs on another's votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub cluster_id: String,
    pub node_id: i32,
}

impl Owner {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.node_id.to_le_bytes());
        codec::put_slice(out, self.cluster_id.as_bytes());
    }

    fn get(input: &mut Bytes) -> Result<Self, codec::Malformed> {
        let node_id = codec::get_i32(input, "node id")?;
        let cluster = codec::get_slice(input, "cluster id")?;
        Ok(Self { cluster_id: String::from_utf8_lossy(&cluster).into_owned(), node_id })
    }
}

/// Bytes written and not yet durable. Run [`Sync::run`] outside the lock, then [`Journal::synced`].
#[must_use]
pub struct Sync {
    file: Arc<File>,
    seq: u64,
    upto: u64,
}

impl Sync {
    /// Makes the bytes durable; blocks.
    pub fn run(&self) -> io::Result<()> {
        disk::sync(&self.file)
    }
}

struct Segment {
    seq: u64,
    path: PathBuf,
    file: Arc<File>,
    len: u64,
    durable: u64,
    allocated: u64,
    /// Highest entry index written into this file.
    last_index: Option<u64>,
}

#[derive(Clone, Copy)]
struct Position {
    seq: u64,
    at: u64,
    len: u32,
    term: u64,
}

/// See the module's head.
pub struct Journal {
    dir: PathBuf,
    owner: Owner,
    segment_bytes: u64,
    /// Oldest first; the last one is written. Never empty.
    segments: VecDeque<Segment>,
    /// Index of `positions[0]`.
    first: u64,
    positions: VecDeque<Position>,
    vote: Option<Vote>,
    purged: Option<LogId>,
    /// Memberships by index; the newest counts, older ones return when it is truncated.
    memberships: Vec<(u64, Membership)>,
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    failed: bool,
}

impl Journal {
    /// Opens the journal in `dir`, or None when there is none yet. Cuts a torn tail.
    pub fn open(dir: &Path, owner: Owner, segment_bytes: u64) -> Result<Option<Self>, QuorumError> {
        let mut paths = Vec::new();
        for item in fs::read_dir(dir).map_err(|e| QuorumError::io("listing", dir, e))? {
            let path = item.map_err(|e| QuorumError::io("listing", dir, e))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if let Some(seq) = name.strip_suffix(SUFFIX).and_then(|n| n.parse::<u64>().ok()) {
                paths.push((seq, path));
            } else if name.ends_with(".tmp") {
                fs::remove_file(&path).map_err(|e| QuorumError::io("removing", &path, e))?;
            }
        }
        if paths.is_empty() {
            return Ok(None);
        }
        paths.sort();
        let mut journal = Self::empty(dir, owner, segment_bytes);
        let count = paths.len();
        for (i, (seq, path)) in paths.into_iter().enumerate() {
            journal.load(seq, path, i + 1 == count)?;
        }
        let expected = journal.purged.map_or(0, |id| id.index + 1);
        if !journal.positions.is_empty() && journal.first != expected {
            let reason = format!("entries begin at {} where {expected} was expected", journal.first);
            return Err(QuorumError::Damaged { path: dir.to_path_buf(), position: 0, reason });
        }
        Ok(Some(journal))
    }

    /// Creates the journal with a vote and first entries that are durable when this returns.
    pub fn create(
        dir: &Path,
        owner: Owner,
        segment_bytes: u64,
        vote: Option<Vote>,
        entries: &[Entry],
    ) -> Result<Self, QuorumError> {
        let mut journal = Self::empty(dir, owner, segment_bytes);
        journal.vote = vote;
        let mut out = Vec::new();
        let mut positions = Vec::new();
        for entry in entries {
            positions.push(journal.encode(&mut out, entry, 0, 0));
        }
        let head = journal.add_segment(1, &out)?;
        journal.first = entries.first().map_or(0, |e| e.log_id.index);
        for (mut position, entry) in positions.into_iter().zip(entries) {
            position.seq = 1;
            position.at += head;
            journal.note(position, entry);
        }
        Ok(journal)
    }

    fn empty(dir: &Path, owner: Owner, segment_bytes: u64) -> Self {
        Self {
            dir: dir.to_path_buf(),
            owner,
            segment_bytes,
            segments: VecDeque::new(),
            first: 0,
            positions: VecDeque::new(),
            vote: None,
            purged: None,
            memberships: Vec::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            failed: false,
        }
    }

    /// Refuses a folder of another node or cluster, before anything in it is changed.
    fn check_owner(&self, head: &Bytes) -> Result<(), QuorumError> {
        let Ok(found) = Owner::get(&mut head.clone()) else { return Ok(()) };
        if found == self.owner {
            return Ok(());
        }
        let reason = format!(
            "it belongs to node {} of cluster {}, this is node {} of cluster {}",
            found.node_id, found.cluster_id, self.owner.node_id, self.owner.cluster_id
        );
        Err(QuorumError::Foreign { dir: self.dir.clone(), reason })
    }

    fn load(&mut self, seq: u64, path: PathBuf, is_last: bool) -> Result<(), QuorumError> {
        let bytes = Bytes::from(fs::read(&path).map_err(|e| QuorumError::io("reading", &path, e))?);
        let file = File::options().read(true).write(true).open(&path);
        let file = Arc::new(file.map_err(|e| QuorumError::io("opening", &path, e))?);
        let len = bytes.len() as u64;
        let segment = Segment { seq, path: path.clone(), file, len, durable: len, allocated: len, last_index: None };
        self.segments.push_back(segment);
        let mut at = 0;
        while at < bytes.len() {
            let damaged =
                |reason: &str| QuorumError::Damaged { path: path.clone(), position: at as u64, reason: reason.into() };
            let frame = match frame::get(&bytes, at) {
                Ok(frame) => frame,
                Err(reason) if at == 0 || !is_last || frame::was_durable(&bytes, at) => return Err(damaged(reason)),
                Err(reason) => {
                    tracing::warn!(
                        file = %path.display(), position = at, dropped = bytes.len() - at, reason,
                        "cutting the torn tail of the metadata log"
                    );
                    return self.cut(at as u64);
                }
            };
            if (at == 0) != (frame.kind == Kind::Head) {
                return Err(damaged("head frame missing or misplaced"));
            }
            let end = at + frame::HEADER + frame.payload.len();
            let position = Position { seq, at: at as u64, len: (end - at) as u32, term: 0 };
            if frame.kind == Kind::Head {
                self.check_owner(&frame.payload)?;
            }
            self.replay(frame, position).map_err(|reason| damaged(&reason))?;
            at = end;
        }
        if at == 0 {
            return Err(QuorumError::Damaged { path, position: 0, reason: "empty file".into() });
        }
        Ok(())
    }

    fn cut(&mut self, at: u64) -> Result<(), QuorumError> {
        let Some(segment) = self.segments.back_mut() else { return Ok(()) };
        segment.len = at;
        segment.durable = at;
        segment.allocated = at;
        let done = segment.file.set_len(at).and_then(|()| disk::sync(&segment.file));
        done.map_err(|e| QuorumError::io("cutting", &segment.path, e))
    }

    fn replay(&mut self, frame: frame::Frame, mut position: Position) -> Result<(), String> {
        let mut payload = frame.payload;
        let bad = |e: codec::Malformed| format!("malformed {}", e.0);
        match frame.kind {
            Kind::Head => {
                Owner::get(&mut payload).map_err(bad)?;
                if codec::get_u8(&mut payload, "vote").map_err(bad)? == 1 {
                    self.vote = Some(codec::get_vote(&mut payload).map_err(bad)?);
                }
                if let Some(purged) = codec::get_optional_log_id(&mut payload).map_err(bad)? {
                    self.set_purged(purged);
                }
            }
            Kind::Entry => {
                let entry = codec::get_entry(&mut payload).map_err(bad)?;
                let index = entry.log_id.index;
                if self.positions.is_empty() {
                    // A file that survived a purge may begin below the mark, or above an older mark than the one
                    // that follows in it; `open` checks for a gap when all marks are known.
                    if self.purged.is_some_and(|p| index <= p.index) {
                        self.note_segment_index(index);
                        return Ok(());
                    }
                    self.first = index;
                } else if index != self.end() {
                    return Err(format!("entry {index} where {} was expected", self.end()));
                }
                position.term = term_of(&entry.log_id);
                self.note(position, &entry);
            }
            Kind::Vote => self.vote = Some(codec::get_vote(&mut payload).map_err(bad)?),
            Kind::Truncate => self.drop_from(codec::get_u64(&mut payload, "index").map_err(bad)?),
            Kind::Purge => {
                let purged = codec::get_log_id(&mut payload).map_err(bad)?;
                self.set_purged(purged);
            }
        }
        Ok(())
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The last vote written.
    pub fn vote(&self) -> Option<Vote> {
        self.vote
    }

    /// The last log id that is in a snapshot and no longer here.
    pub fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The last log id, purged or not.
    pub fn last(&self) -> Option<LogId> {
        match self.positions.back() {
            Some(position) => Some(log_id(position.term, self.end() - 1)),
            None => self.purged,
        }
    }

    /// Term of the entry at `index`, if it is here.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        let at = index.checked_sub(self.first)?;
        self.positions.get(usize::try_from(at).ok()?).map(|position| position.term)
    }

    /// The membership of the newest membership entry, if the log holds or held one.
    pub fn membership(&self) -> Option<&Membership> {
        self.memberships.last().map(|(_, membership)| membership)
    }

    /// Bytes in all files.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|s| s.len).sum()
    }

    /// One past the last index.
    fn end(&self) -> u64 {
        self.first + self.positions.len() as u64
    }

    /// Whether `bytes` more can be written without asking the disk for room.
    pub fn has_room(&self, bytes: u64) -> bool {
        let fits = |s: &Segment| s.len < self.segment_bytes && s.len + bytes + RESERVE_SPARE <= s.allocated;
        self.segments.back().is_some_and(fits)
    }

    /// Makes sure that `bytes` more can be written; [`QuorumError::NoSpace`] leaves the journal as it was.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), QuorumError> {
        self.check()?;
        if self.active()?.len >= self.segment_bytes {
            self.roll()?;
        }
        let dir = self.dir.clone();
        let segment = self.active()?;
        let wanted = segment.len + bytes + RESERVE_SPARE;
        if wanted <= segment.allocated {
            return Ok(());
        }
        let ahead = wanted + RESERVE_AHEAD - segment.len;
        match rustix::fs::fallocate(&*segment.file, FallocateFlags::KEEP_SIZE, segment.len, ahead) {
            Ok(()) => segment.allocated = segment.len + ahead,
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => return Err(QuorumError::NoSpace { dir }),
            // Not every file system can allocate ahead; there a full disk shows on the write itself.
            Err(_) => segment.allocated = u64::MAX,
        }
        Ok(())
    }

    /// Appends entries; they must follow [`Self::last`] without a gap.
    pub fn append(&mut self, entries: &[Entry]) -> Result<Sync, QuorumError> {
        self.check()?;
        let (seq, start, durable) = self.active().map(|s| (s.seq, s.len, s.durable))?;
        let mut out = Vec::new();
        let mut positions = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut position = self.encode(&mut out, entry, durable, start);
            position.seq = seq;
            positions.push(position);
        }
        let sync = self.write(&out)?;
        for (position, entry) in positions.into_iter().zip(entries) {
            if self.positions.is_empty() {
                self.first = entry.log_id.index;
            }
            self.note(position, entry);
            self.remember(entry);
        }
        Ok(sync)
    }

    /// Records a vote.
    pub fn set_vote(&mut self, vote: Vote) -> Result<Sync, QuorumError> {
        let sync = self.write_frame(Kind::Vote, |out| codec::put_vote(out, &vote))?;
        self.vote = Some(vote);
        Ok(sync)
    }

    /// Takes a leader's vote back to a cast one, in memory: what matters of it on disk is that it was cast.
    pub fn uncommit_vote(&mut self) {
        if let Some(vote) = &mut self.vote {
            vote.committed = false;
        }
    }

    /// Voids all entries from `index` on.
    pub fn truncate(&mut self, index: u64) -> Result<Sync, QuorumError> {
        let sync = self.write_frame(Kind::Truncate, |out| out.extend_from_slice(&index.to_le_bytes()))?;
        self.drop_from(index);
        Ok(sync)
    }

    /// Forgets entries up to `upto` and deletes the files that held nothing else. Blocks on the disk.
    pub fn purge(&mut self, upto: LogId) -> Result<(), QuorumError> {
        let sync = self.write_frame(Kind::Purge, |out| codec::put_log_id(out, &upto))?;
        self.set_purged(upto);
        let rolled = self.active()?.len >= self.segment_bytes / 4 && self.roll_if_room()?;
        if !rolled {
            sync.run().map_err(|e| self.fail("syncing", e))?;
            self.synced(&sync);
        }
        while self.segments.len() > 1 && self.segments[0].last_index.is_none_or(|i| i <= upto.index) {
            if let Some(segment) = self.segments.pop_front() {
                fs::remove_file(&segment.path).map_err(|e| QuorumError::io("removing", &segment.path, e))?;
            }
        }
        Ok(())
    }

    /// Entries of `range` that are here, in order, up to about `bytes_max` (one at least).
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, QuorumError> {
        let end = range.end.min(self.end());
        let mut index = range.start.max(self.first);
        let mut entries = Vec::new();
        let mut budget = bytes_max as u64;
        let recent_first = self.recent.front().map_or(u64::MAX, |e| e.log_id.index);
        while index < end {
            if index >= recent_first {
                let from = (index - recent_first) as usize;
                for (entry, at) in self.recent.iter().skip(from).zip(index..end) {
                    let len = u64::from(self.positions[(at - self.first) as usize].len);
                    if !entries.is_empty() && len > budget {
                        return Ok(entries);
                    }
                    budget = budget.saturating_sub(len);
                    entries.push(entry.clone());
                }
                return Ok(entries);
            }
            let read = self.read_span(index..end.min(recent_first), budget, &mut entries)?;
            if read == 0 {
                return Ok(entries);
            }
            let span: u64 =
                (index..index + read).map(|i| u64::from(self.positions[(i - self.first) as usize].len)).sum();
            budget = budget.saturating_sub(span);
            index += read;
        }
        Ok(entries)
    }

    /// Reads entries that lie close together in one file with one system call; returns how many.
    fn read_span(&self, range: Range<u64>, budget: u64, into: &mut Vec<Entry>) -> Result<u64, QuorumError> {
        let position = |index: u64| self.positions[(index - self.first) as usize];
        let start = position(range.start);
        let mut count = 0;
        let mut end = start.at;
        for index in range.clone() {
            let next = position(index);
            if next.seq != start.seq {
                break;
            }
            let next_end = next.at + u64::from(next.len);
            let first = count == 0 && into.is_empty();
            if !first && next_end - start.at > READ_SPAN_MAX.min(budget) {
                break;
            }
            end = next_end;
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        let segment = self.segments.iter().find(|s| s.seq == start.seq);
        let segment = segment.ok_or_else(|| QuorumError::Stopped("a journal file is missing".into()))?;
        let mut buffer = vec![0; (end - start.at) as usize];
        let read = segment.file.read_exact_at(&mut buffer, start.at);
        read.map_err(|e| QuorumError::io("reading", &segment.path, e))?;
        let buffer = Bytes::from(buffer);
        for index in range.start..range.start + count {
            let at = position(index).at;
            let damaged =
                |reason: &str| QuorumError::Damaged { path: segment.path.clone(), position: at, reason: reason.into() };
            let frame = frame::get(&buffer, (at - start.at) as usize).map_err(damaged)?;
            let mut payload = frame.payload;
            into.push(codec::get_entry(&mut payload).map_err(|e| damaged(e.0))?);
        }
        Ok(count)
    }

    /// Makes everything written so far durable; blocks.
    pub fn sync_all(&mut self) -> Result<(), QuorumError> {
        self.check()?;
        let segment = self.active()?;
        let done = disk::sync(&segment.file);
        segment.durable = segment.len;
        done.map_err(|e| self.fail("syncing", e))
    }

    /// Notes that the bytes of `sync` are durable.
    pub fn synced(&mut self, sync: &Sync) {
        if let Some(segment) = self.segments.iter_mut().find(|s| s.seq == sync.seq) {
            segment.durable = segment.durable.max(sync.upto);
        }
    }

    /// Turns a failed write or sync into an error and refuses all later writes: after a failed sync the page
    /// cache may claim bytes the disk doesn't have, so trying again could only hide the loss.
    pub fn fail(&mut self, what: &'static str, source: io::Error) -> QuorumError {
        self.failed = true;
        let path = self.segments.back().map_or(&self.dir, |s| &s.path);
        QuorumError::io(what, path, source)
    }

    fn check(&self) -> Result<(), QuorumError> {
        if self.failed {
            return Err(QuorumError::Stopped("an earlier write to the metadata log failed".into()));
        }
        Ok(())
    }

    fn active(&mut self) -> Result<&mut Segment, QuorumError> {
        self.segments.back_mut().ok_or_else(|| QuorumError::Stopped("the metadata log has no file".into()))
    }

    fn encode(&self, out: &mut Vec<u8>, entry: &Entry, durable: u64, base: u64) -> Position {
        let from = out.len();
        frame::put(out, Kind::Entry, durable, |o| codec::put_entry(o, entry));
        let at = base + from as u64;
        Position { seq: 0, at, len: (out.len() - from) as u32, term: term_of(&entry.log_id) }
    }

    fn write_frame(&mut self, kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) -> Result<Sync, QuorumError> {
        self.check()?;
        let mut out = Vec::new();
        frame::put(&mut out, kind, self.active()?.durable, fill);
        self.write(&out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<Sync, QuorumError> {
        let segment = self.active()?;
        let written = segment.file.write_all_at(bytes, segment.len);
        if let Err(e) = written {
            return Err(self.fail("writing", e));
        }
        segment.len += bytes.len() as u64;
        Ok(Sync { file: segment.file.clone(), seq: segment.seq, upto: segment.len })
    }

    fn roll_if_room(&mut self) -> Result<bool, QuorumError> {
        match self.roll() {
            Ok(()) => Ok(true),
            Err(QuorumError::NoSpace { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Starts a new file. A full disk leaves everything as it was.
    fn roll(&mut self) -> Result<(), QuorumError> {
        let seq = self.active()?.seq + 1;
        self.sync_all()?;
        match self.add_segment(seq, &[]) {
            Err(QuorumError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                Err(QuorumError::NoSpace { dir: self.dir.clone() })
            }
            other => other.map(|_| ()),
        }
    }

    /// Creates a durable file with a head frame and `body`; returns the head's length.
    fn add_segment(&mut self, seq: u64, body: &[u8]) -> Result<u64, QuorumError> {
        let path = self.dir.join(format!("{seq:020}{SUFFIX}"));
        let temporary = path.with_extension("tmp");
        let mut out = Vec::new();
        frame::put(&mut out, Kind::Head, 0, |out| {
            self.owner.put(out);
            out.push(u8::from(self.vote.is_some()));
            if let Some(vote) = &self.vote {
                codec::put_vote(out, vote);
            }
            codec::put_optional_log_id(out, self.purged.as_ref());
        });
        let head = out.len() as u64;
        out.extend_from_slice(body);
        let created = (|| {
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&temporary)?;
            file.write_all_at(&out, 0)?;
            disk::sync(&file)?;
            fs::rename(&temporary, &path)?;
            disk::sync_dir(&self.dir)?;
            Ok(file)
        })();
        let file = created.map_err(|e| {
            // Best effort: what stays behind is removed at the next open.
            let _ = fs::remove_file(&temporary);
            QuorumError::io("creating", &path, e)
        })?;
        let len = out.len() as u64;
        let segment = Segment { seq, path, file: Arc::new(file), len, durable: len, allocated: len, last_index: None };
        self.segments.push_back(segment);
        Ok(head)
    }

    fn note(&mut self, position: Position, entry: &Entry) {
        if let EntryPayload::Membership(membership) = &entry.payload {
            self.memberships.push((entry.log_id.index, membership.clone()));
        }
        self.positions.push_back(position);
        self.note_segment_index(entry.log_id.index);
    }

    fn note_segment_index(&mut self, index: u64) {
        if let Some(segment) = self.segments.back_mut() {
            segment.last_index = Some(segment.last_index.map_or(index, |last| last.max(index)));
        }
    }

    fn remember(&mut self, entry: &Entry) {
        let size = |e: &Entry| match &e.payload {
            EntryPayload::Normal(batch) => 64 + codec::records_size(&batch.records),
            _ => 64,
        };
        self.recent_bytes += size(entry);
        self.recent.push_back(entry.clone());
        while self.recent_bytes > RECENT_BYTES_MAX && self.recent.len() > 1 {
            if let Some(old) = self.recent.pop_front() {
                self.recent_bytes -= size(&old);
            }
        }
    }

    fn drop_from(&mut self, index: u64) {
        self.positions.truncate(index.saturating_sub(self.first) as usize);
        self.memberships.retain(|(at, _)| *at < index);
        self.forget_recent();
    }

    fn set_purged(&mut self, upto: LogId) {
        if self.purged >= Some(upto) {
            return;
        }
        let gone = (upto.index + 1).saturating_sub(self.first).min(self.positions.len() as u64);
        self.positions.drain(..gone as usize);
        self.first = if self.positions.is_empty() { upto.index + 1 } else { self.first + gone };
        self.purged = Some(upto);
        if self.recent.front().is_some_and(|e| e.log_id.index <= upto.index) {
            self.forget_recent();
        }
    }

    fn forget_recent(&mut self) {
        self.recent.clear();
        self.recent_bytes = 0;
    }
}

#[cfg(test)]
#[path = "journal_test.rs"]
mod tests;

#[cfg(test)]
#[path = "journal_power_test.rs"]
pub mod power;
