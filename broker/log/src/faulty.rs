//! A disk that fails on demand, for tests: errors at the n-th operation, short writes, a full disk, failing fsyncs,
//! and power loss that drops or tears what was not synced.
//!
//! It works on real files, since read ranges need them; what was synced is remembered apart, so that
//! [`FaultyDisk::power_loss`] can put the files back into a state the hardware could have left them in. Names are apart
//! from contents: a file that was created, renamed or removed is back under its old name until its directory is synced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_protocol::arrivals::Arrivals;
use parking_lot::Mutex;

use crate::config::mix;
use crate::disk::{DirEntry, Disk, DiskFile, FileMeta, Open, RealDisk};

/// A kind of operation, for choosing which one fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// Opening or creating a file.
    Open,
    /// Writing into a file.
    Write,
    /// Cutting or growing a file.
    SetLen,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDir,
    /// Renaming.
    Rename,
    /// Removing a file.
    Remove,
    /// Reading.
    Read,
}

/// What happens at an operation chosen to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error of this kind; nothing is done.
    Error(io::ErrorKind),
    /// Writes at most this many bytes, and succeeds.
    Short(usize),
    /// Writes this many bytes, then every write fails with "no space" until [`FaultyDisk::heal`].
    FullAfter(usize),
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<Op, u64>,
    faults: BTreeMap<(Op, u64), Fault>,
    full: bool,
    /// Every change of the file system fails: the process is "dead".
    stopped: bool,
    /// Stop at this many changing operations.
    stop_at: Option<u64>,
    changes: u64,
    /// Content and length of each file when it was last synced, and the writes since.
    files: BTreeMap<PathBuf, Tracked>,
    /// Changes of names in directories that were not synced since, oldest first.
    names: Vec<NameChange>,
}

/// A change of a name, with what it takes to undo it.
#[derive(Debug, Clone)]
enum NameChange {
    Created(PathBuf),
    CreatedDir(PathBuf),
    Renamed { from: PathBuf, to: PathBuf, replaced: Option<Gone> },
    Removed(PathBuf, Gone),
}

/// A file that has lost its name.
#[derive(Debug, Clone)]
struct Gone {
    content: Vec<u8>,
    tracked: Option<Tracked>,
}

impl NameChange {
    /// Whether syncing `dir` makes it durable.
    fn is_in(&self, dir: &Path) -> bool {
        let of = |path: &Path| path.parent() == Some(dir);
        match self {
            NameChange::Created(path) | NameChange::CreatedDir(path) | NameChange::Removed(path, _) => of(path),
            NameChange::Renamed { from, to, .. } => of(from) || of(to),
        }
    }
}

impl State {
    fn gone(&mut self, path: &Path) -> Option<Gone> {
        let content = fs::read(path).ok()?;
        Some(Gone { content, tracked: self.files.remove(path) })
    }

    fn back(&mut self, path: PathBuf, gone: Gone) -> io::Result<()> {
        fs::write(&path, gone.content)?;
        if let Some(tracked) = gone.tracked {
            self.files.insert(path, tracked);
        }
        Ok(())
    }

    fn moved(&mut self, from: &Path, to: &Path) {
        let moved: BTreeSet<PathBuf> = self.files.keys().filter(|p| p.starts_with(from)).cloned().collect();
        for path in moved {
            if let (Some(tracked), Ok(rest)) = (self.files.remove(&path), path.strip_prefix(from)) {
                let target = if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) };
                self.files.insert(target, tracked);
            }
        }
    }

    fn undo(&mut self, change: NameChange) -> io::Result<()> {
        match change {
            NameChange::Created(path) => {
                self.files.remove(&path);
                RealDisk.remove_file(&path)
            }
            NameChange::CreatedDir(path) => {
                self.files.retain(|p, _| !p.starts_with(&path));
                RealDisk.remove_dir_all(&path)
            }
            NameChange::Removed(path, gone) => self.back(path, gone),
            NameChange::Renamed { from, to, replaced } => {
                if to.exists() {
                    fs::rename(&to, &from)?;
                    self.moved(&to, &from);
                }
                replaced.map_or(Ok(()), |gone| self.back(to, gone))
            }
        }
    }
}

#[derive(Debug, Default, Clone)]
struct Tracked {
    synced: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
}

/// The faulty disk. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

impl FaultyDisk {
    /// A disk without any fault yet.
    pub fn new() -> FaultyDisk {
        FaultyDisk::default()
    }

    /// Makes the `n`-th operation of a kind from now on (0 is the next one) fail.
    pub fn fail(&self, op: Op, n: u64, fault: Fault) {
        let mut state = self.state.lock();
        let at = state.counts.get(&op).copied().unwrap_or(0) + n;
        state.faults.insert((op, at), fault);
    }

    /// Lets every changing operation fail once `n` more have been done: a crash at any chosen point.
    pub fn stop_after(&self, n: u64) {
        let mut state = self.state.lock();
        state.stop_at = Some(state.changes + n);
    }

    /// Number of changing operations so far.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// Removes all faults; a full disk has room again, a stopped one goes on.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.faults.clear();
        state.full = false;
        state.stopped = false;
        state.stop_at = None;
    }

    /// Number of operations of a kind so far.
    pub fn count(&self, op: Op) -> u64 {
        self.state.lock().counts.get(&op).copied().unwrap_or(0)
    }

    /// Rewrites every file as a loss of power could have left it: all that was synced, and of the later changes a part
    /// that the seed decides. With `in_order` a prefix of each file's changes survives, the last one torn; otherwise
    /// any of them may, as when the kernel writes pages back in its own order. Of the changes of names that no sync of
    /// their directory has made safe, those after some point are undone, as by a file system that journals them.
    pub fn power_loss(&self, seed: u64, in_order: bool) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut draw = mix(seed);
        let mut names = std::mem::take(&mut state.names);
        for change in names.split_off((draw % (names.len() as u64 + 1)) as usize).into_iter().rev() {
            state.undo(change)?;
        }
        for (path, tracked) in std::mem::take(&mut state.files) {
            if !path.exists() {
                continue;
            }
            let mut content = tracked.synced;
            let count = tracked.pending.len() as u64;
            draw = mix(draw);
            let keep = draw % (count + 1);
            for (n, change) in tracked.pending.into_iter().enumerate() {
                draw = mix(draw);
                let n = n as u64;
                let fate = match in_order {
                    true if n < keep => Fate::Kept,
                    true if n == keep => Fate::Torn,
                    true => Fate::Lost,
                    false => [Fate::Kept, Fate::Torn, Fate::Lost][(draw % 3) as usize],
                };
                apply(&mut content, change, fate, mix(draw));
            }
            fs::write(&path, content)?;
        }
        Ok(())
    }

    fn begin(&self, op: Op) -> io::Result<Option<Fault>> {
        let mut state = self.state.lock();
        let count = state.counts.entry(op).or_insert(0);
        let n = *count;
        *count += 1;
        if op != Op::Read {
            if state.stop_at.is_some_and(|at| state.changes >= at) {
                state.stopped = true;
            }
            state.changes += 1;
        }
        if state.stopped && op != Op::Read {
            return Err(io::Error::other("the process was stopped here"));
        }
        match state.faults.remove(&(op, n)) {
            Some(Fault::Error(kind)) => Err(kind.into()),
            other => Ok(other),
        }
    }

    fn track(&self, path: &Path, change: Change) {
        let mut state = self.state.lock();
        let tracked = state.files.entry(path.to_path_buf()).or_default();
        tracked.pending.push(change);
    }
}

#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Torn,
    Lost,
}

fn apply(content: &mut Vec<u8>, change: Change, fate: Fate, draw: u64) {
    match (change, fate) {
        (_, Fate::Lost) => {}
        (Change::Len(len), _) => content.resize(len as usize, 0),
        (Change::Write(at, bytes), fate) => {
            let at = at as usize;
            let kept = match fate {
                Fate::Torn => (draw % (bytes.len() as u64 + 1)) as usize,
                _ => bytes.len(),
            };
            // The length may be on disk although the bytes aren't.
            let len = if draw.is_multiple_of(2) { at + bytes.len() } else { at + kept };
            if content.len() < len {
                content.resize(len, 0);
            }
            content[at..at + kept].copy_from_slice(&bytes[..kept]);
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let before = path.exists();
        if how == Open::Create || how == Open::Truncate {
            self.begin(Op::Open)?;
            if !before && self.state.lock().full {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let mut known = false;
        if before && how != Open::Read {
            let mut state = self.state.lock();
            known = state.files.contains_key(path);
            if !known {
                // Seen for the first time: take it for synced.
                let synced = fs::read(path)?;
                let tracked = Tracked { synced, pending: Vec::new() };
                state.files.insert(path.to_path_buf(), tracked);
            }
        }
        let file = RealDisk.open_real(path, how)?;
        if !before {
            self.state.lock().names.push(NameChange::Created(path.to_path_buf()));
        }
        if how == Open::Truncate && (known || before) {
            self.track(path, Change::Len(0));
        }
        Ok(Arc::new(FaultyFile { disk: self.clone(), path: path.to_path_buf(), real: Arc::new(file) }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let before = path.exists();
        RealDisk.create_dir(path)?;
        if !before {
            self.state.lock().names.push(NameChange::CreatedDir(path.to_path_buf()));
        }
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.read_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<FileMeta> {
        RealDisk.metadata(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin(Op::Rename)?;
        let mut state = self.state.lock();
        let replaced = state.gone(to);
        RealDisk.rename(from, to)?;
        state.moved(from, to);
        state.names.push(NameChange::Renamed { from: from.to_path_buf(), to: to.to_path_buf(), replaced });
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.begin(Op::Remove)?;
        let mut state = self.state.lock();
        if let Some(gone) = state.gone(path) {
            state.names.push(NameChange::Removed(path.to_path_buf(), gone));
        }
        RealDisk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.begin(Op::Remove)?;
        self.state.lock().files.retain(|p, _| !p.starts_with(path));
        RealDisk.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.begin(Op::SyncDir)?;
        self.state.lock().names.retain(|change| !change.is_in(path));
        Ok(())
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    path: PathBuf,
    real: Arc<dyn DiskFile>,
}

impl DiskFile for FaultyFile {
    fn write_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let fault = self.disk.begin(Op::Write)?;
        if self.disk.state.lock().full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
        match fault {
            Some(Fault::Short(n)) => bytes.truncate(n.max(1)),
            Some(Fault::FullAfter(n)) => {
                self.disk.state.lock().full = true;
                bytes.truncate(n);
                if bytes.is_empty() {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            _ => {}
        }
        let written = self.real.write_at(&[IoSlice::new(&bytes)], position)?;
        bytes.truncate(written);
        self.disk.track(&self.path, Change::Write(position, bytes));
        Ok(written)
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.begin(Op::Read)?;
        self.real.read_at(buf, position)
    }

    fn arrivals(&self) -> Option<Arc<Arrivals>> {
        self.real.arrivals()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.begin(Op::Sync)?;
        let mut content = Vec::new();
        io::Read::read_to_end(&mut File::open(&self.path)?, &mut content)?;
        let mut state = self.disk.state.lock();
        let tracked = state.files.entry(self.path.clone()).or_default();
        tracked.synced = content;
        tracked.pending.clear();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.begin(Op::SetLen)?;
        self.real.set_len(len)?;
        self.disk.track(&self.path, Change::Len(len));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }

    fn lock(&self) -> io::Result<()> {
        self.real.lock()
    }

    fn file(&self) -> Arc<File> {
        self.real.file()
    }
}
