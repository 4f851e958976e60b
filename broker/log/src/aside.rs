//! What a repair takes out of a log: whole segments, from the first damaged one on. They are kept beside the log, as
//! `BASE-END.N.aside`, until the log has been filled again.
//!
//! Only a part of them is damaged. The rest may be the only sound copy of what another replica has damaged, and the log
//! takes it from here when no leader can give it. Invariant: a piece goes when all its offsets are safe in the log again,
//! or deleted, or when its replica counts as in sync without it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::batch::BatchHeader;

use crate::disk::{Disk, DiskFile, Open, read_full};
use crate::error::LogError;
use crate::log::Log;
use crate::retain::SIDE_FILES;
use crate::scan::{Scan, ScanError, find_sound};

/// Pieces kept that hold some offset. What is cut off once more has come from a leader a moment ago; without a bound a
/// disk that garbles whatever it is given would fill up.
const COPIES_MAX: usize = 3;

/// About how many bytes are taken at once.
const TAKEN_BYTES: u32 = 1 << 20;

/// One segment file that was taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    base: i64,
    /// The offset after its last.
    end: i64,
    /// Sets it apart from others of the same offsets.
    number: u32,
    bytes: u64,
}

impl Piece {
    fn name(&self) -> String {
        format!("{:020}-{:020}.{}.aside", self.base, self.end, self.number)
    }

    /// The piece with this file name, if it is one's.
    pub fn of_name(name: &str, bytes: u64) -> Option<Piece> {
        let (offsets, number) = name.strip_suffix(".aside")?.split_once('.')?;
        let (base, end) = offsets.split_once('-')?;
        Some(Piece { base: base.parse().ok()?, end: end.parse().ok()?, number: number.parse().ok()?, bytes })
    }
}

/// All that is kept of a log.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// By offsets.
    pieces: Vec<Piece>,
    /// Where records were last taken back from here.
    taken_at: Option<i64>,
    /// Where what was taken back turned out to differ from the leader's log.
    refuted_at: Option<i64>,
}

impl Aside {
    /// What a listing found; `None` for nothing.
    pub fn of(mut pieces: Vec<Piece>) -> Option<Box<Aside>> {
        pieces.sort_unstable_by_key(|p| (p.base, p.end, p.number));
        (!pieces.is_empty()).then(|| Box::new(Aside { pieces, ..Aside::default() }))
    }
}

/// The kept files that may hold the records from an offset on.
#[derive(Debug)]
pub struct Kept {
    disk: Arc<dyn Disk>,
    offset: i64,
    dense: bool,
    files: Vec<(PathBuf, i64)>,
}

impl Kept {
    /// Sound batches from the offset on, about a megabyte; `None` when there are none. Blocks.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&self) -> Result<Option<Bytes>, LogError> {
        for (path, base) in &self.files {
            let file = match self.disk.open(path, Open::Read) {
                Ok(file) => file,
                // Let go of meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(LogError::io("opening", path, e)),
            };
            let found =
                sound_from(&*file, *base, self.offset, self.dense).map_err(|e| LogError::io("reading", path, e))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// The sound batches of a file that follow each other from `wanted` on.
fn sound_from(file: &dyn DiskFile, base: i64, wanted: i64, dense: bool) -> io::Result<Option<Bytes>> {
    let mut search = Search { wanted, dense, before: Some((base, -1)), current: None, fit_end: base, taken: None };
    each_sound(file, &mut search)?;
    let Some((start, end, _)) = search.taken else { return Ok(None) };
    let mut bytes = vec![0; (end - start) as usize];
    let read = read_full(file, &mut bytes, u64::from(start))?;
    bytes.truncate(read);
    Ok(Some(bytes.into()))
}

/// The offset after the last sound batch of a file.
pub(crate) fn sound_end(file: &dyn DiskFile, base: i64, dense: bool) -> io::Result<i64> {
    let mut search =
        Search { wanted: i64::MAX, dense, before: Some((base, -1)), current: None, fit_end: base, taken: None };
    each_sound(file, &mut search)?;
    Ok(search.fit_end)
}

/// Shows a search all batches with sound CRCs, also those behind damage.
fn each_sound(file: &dyn DiskFile, search: &mut Search) -> io::Result<()> {
    let end = u32::try_from(file.len()?).unwrap_or(u32::MAX);
    let mut from = Some(0);
    let mut buf = Vec::new();
    while let Some(position) = from.take() {
        let first = search.fit_end;
        let mut scan = Scan::new(file, first, position, end, buf);
        let bad = loop {
            match scan.next() {
                Ok(None) => break None,
                Ok(Some(batch)) => {
                    let (position, header) = (batch.position, batch.header);
                    if !search.settle(Some(&header)) {
                        return Ok(());
                    }
                    search.current = Some((position, header));
                }
                Err(ScanError::Io(e)) => return Err(e),
                Err(ScanError::Bad { position, .. }) => break Some(position),
            }
        };
        buf = scan.into_buffer();
        if !search.settle(None) {
            return Ok(());
        }
        search.before = None;
        if let Some(bad) = bad {
            // A garbled offset makes the next batch look wrong, not itself.
            let misled = matches!(Scan::new(file, search.fit_end, bad, end, Vec::new()).next(), Ok(Some(_)));
            from = match misled {
                true => Some(bad),
                false => find_sound(file, bad.saturating_add(1), end, search.fit_end.saturating_sub(1))?,
            };
        }
    }
    Ok(())
}

/// A search for batches through what may be damaged anywhere. Neither the offset nor the leader epoch of a batch is
/// covered by its CRC: they must fit those of its neighbours.
struct Search {
    wanted: i64,
    /// No offset may be missing.
    dense: bool,
    /// Where the batch before ended, with its epoch, if that fits in.
    before: Option<(i64, i32)>,
    /// The batch whose next neighbour is not known yet.
    current: Option<(u32, BatchHeader)>,
    /// The offset after the last batch that fits in.
    fit_end: i64,
    /// From and to which byte, and the offset after.
    taken: Option<(u32, u32, i64)>,
}

impl Search {
    /// Judges the current batch by what comes after it. Whether to go on.
    fn settle(&mut self, after: Option<&BatchHeader>) -> bool {
        let Some((position, header)) = self.current.take() else { return true };
        let (first, next, epoch) = (header.base_offset, header.next_offset(), header.partition_leader_epoch);
        let follows = |end: i64, start: i64| if self.dense { end == start } else { end <= start };
        let fits_after = after.is_some_and(|a| follows(next, a.base_offset) && epoch <= a.partition_leader_epoch);
        let fits = match self.before {
            Some((end, -1)) => follows(end, first) && (fits_after || after.is_none()),
            Some((end, before)) => follows(end, first) && (epoch == before || (epoch > before && fits_after)),
            None => fits_after,
        };
        let before = std::mem::replace(&mut self.before, fits.then_some((next, epoch)));
        if fits {
            self.fit_end = next;
        }
        let len = header.total_len() as u32;
        match &mut self.taken {
            Some((start, end, up_to)) => {
                let goes_on = fits && *end == position && *up_to <= first && *end - *start + len <= TAKEN_BYTES;
                if goes_on {
                    (*end, *up_to) = (position + len, next);
                }
                goes_on
            }
            None if !fits || first < self.wanted => true,
            None => {
                // Compaction may have removed what is between.
                let begins = first == self.wanted || (!self.dense && before.is_some_and(|(end, _)| end <= self.wanted));
                if begins {
                    self.taken = Some((position, position + len, next));
                }
                begins
            }
        }
    }
}

impl Log {
    /// Takes the first damage that is known out of the log, with its whole segment and all that follow, to be filled again
    /// from a replica that has them. Returns the log's end afterwards.
    ///
    /// Nothing is copied, and what is sound is kept until it is here again; see [`kept_at`](Self::kept_at).
    pub fn take_out_damage(&mut self, now_ms: i64) -> Result<Option<i64>, LogError> {
        self.ensure_online()?;
        let Some(known) = self.damages.first().cloned() else { return Ok(None) };
        self.damages.clear();
        let Some(at) = self.segments.iter().position(|s| s.base == known.segment) else { return Ok(None) };
        tracing::warn!(
            file = %known.damage.file.display(), position = known.position, offset = known.damage.offset,
            from = known.segment, end = self.log_end,
            "setting aside a damaged segment and what follows it"
        );
        self.truncating(|log| log.put_aside(at, now_ms))?;
        Ok(Some(self.log_end))
    }

    /// Puts the segments from index `at` on aside; the log ends before them.
    pub(crate) fn put_aside(&mut self, at: usize, now_ms: i64) -> Result<(), LogError> {
        let start = self.log_start;
        let (mut at, mut end) = (at, self.log_end);
        loop {
            // Newest first, so that a crash leaves no hole.
            for gone in (at..self.segments.len()).rev() {
                let base = self.segments[gone].base;
                self.put_one_aside(gone, end.max(base), now_ms)?;
                end = base;
                if gone > 0 {
                    self.segments.pop();
                }
            }
            let Some(last) = at.checked_sub(1) else { return self.begin_at(start, now_ms) };
            match self.ends_with(last) {
                // Another damaged place, which nobody had met yet.
                Err(LogError::Corrupt(damage)) => {
                    let damaged = self.segments.iter().position(|s| s.log_path(self.place()) == damage.file);
                    at = damaged.unwrap_or(last);
                }
                done => return done,
            }
        }
    }

    fn put_one_aside(&mut self, at: usize, end: i64, now_ms: i64) -> Result<(), LogError> {
        let (base, size) = (self.segments[at].base, self.segments[at].size);
        let overlapping = |p: &&Piece| p.base < end && base < p.end;
        let copies = self.aside.iter().flat_map(|aside| &aside.pieces).filter(overlapping).count();
        if size == 0 || copies >= COPIES_MAX {
            return self.discard(at, now_ms);
        }
        let number = self.aside.iter().flat_map(|aside| &aside.pieces).map(|p| p.number + 1).max().unwrap_or(0);
        let piece = Piece { base, end, number, bytes: u64::from(size) };
        let (from, to) = (self.segments[at].log_path(self.place()), self.dir.join(piece.name()));
        self.disk.rename(&from, &to).map_err(|e| LogError::io("setting aside", &from, e))?;
        let aside = self.aside.get_or_insert_default();
        aside.pieces.push(piece);
        aside.pieces.sort_unstable_by_key(|p| (p.base, p.end, p.number));
        // Its other files are made again with the log's.
        for suffix in SIDE_FILES {
            let path = self.place().path(base, suffix);
            self.disk.remove_file(&path).map_err(|e| LogError::io("removing", &path, e))?;
        }
        self.segments[at].abandon();
        self.names.mark();
        Ok(())
    }

    /// Bytes of what is kept beside the log.
    pub fn kept_bytes(&self) -> u64 {
        self.aside.iter().flat_map(|aside| &aside.pieces).map(|p| p.bytes).sum()
    }

    /// What is kept from the log's end on, to be looked through off the lock; `None` when there is nothing, or it has
    /// turned out to differ from the leader's.
    pub fn kept(&self) -> Option<Kept> {
        let (aside, offset) = (self.aside.as_ref()?, self.log_end);
        let may_hold = |p: &&Piece| p.base <= offset && offset < p.end;
        let files: Vec<_> = aside.pieces.iter().filter(may_hold).map(|p| (self.dir.join(p.name()), p.base)).collect();
        let usable = !files.is_empty() && aside.refuted_at != Some(offset);
        usable.then(|| Kept { disk: self.disk.clone(), offset, dense: !self.config.compact, files })
    }

    /// Records from the log's end on are about to be taken back from what is kept.
    pub fn taking_kept(&mut self) {
        let end = self.log_end;
        if let Some(aside) = &mut self.aside {
            aside.taken_at = Some(end);
        }
    }

    /// The log was cut. If that took back what had been taken from here, it was another leader's, and would be again.
    pub(crate) fn refute_kept(&mut self) {
        let end = self.log_end;
        if let Some(aside) = &mut self.aside
            && let Some(at) = aside.taken_at.take()
        {
            aside.refuted_at = (end <= at).then_some(at);
        }
    }

    /// Forgets the pieces whose offsets are all safe in the log again, or deleted; with `whole` all of them, since the
    /// log holds what is committed. Returns their files, for the caller to remove.
    pub fn let_go_of_kept(&mut self, whole: bool) -> Vec<PathBuf> {
        let Some(aside) = &mut self.aside else { return Vec::new() };
        let (safe, start) = (self.recovery_point, self.log_start);
        let mut gone = Vec::new();
        aside.pieces.retain(|p| {
            let goes = whole || p.end <= safe || p.end <= start;
            if goes {
                gone.push(self.dir.join(p.name()));
            }
            !goes
        });
        if aside.pieces.is_empty() {
            self.aside = None;
        }
        gone
    }
}

/// What a directory's listing says of kept pieces.
pub(crate) fn find(disk: &dyn Disk, dir: &Path, names: &[String]) -> Result<Option<Box<Aside>>, LogError> {
    let mut pieces = Vec::new();
    for name in names {
        let path = dir.join(name);
        let meta = disk.metadata(&path).map_err(|e| LogError::io("looking at", &path, e))?;
        pieces.extend(Piece::of_name(name, meta.len));
    }
    Ok(Aside::of(pieces))
}
