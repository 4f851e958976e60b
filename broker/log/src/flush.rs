//! Making appended data safe, outside of the partition's lock.
//!
//! `flush_handle()` takes stock under the lock, [`FlushHandle::sync`] does the slow part without it, `flushed()` notes
//! the result. After a failed fsync nobody knows what is on disk, and asking again would be told "fine": so a failure
//! is final, and the log is offline from then on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use crate::disk::{Disk, DiskFile, Open};
use crate::epochs::EPOCH_FILE;
use crate::error::LogError;
use crate::log::Log;

/// Whether a log may still be used; shared with the flushes under way.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failure: OnceLock<String>,
}

impl Health {
    pub fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    pub fn fail(&self, reason: String) {
        // The first reason is the one that explains the rest.
        let _ = self.failure.set(reason);
    }
}

/// Whether something has changed since it was synced last, while changes and syncs may overlap.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unsynced {
    changes: u32,
    synced: u32,
}

impl Unsynced {
    pub fn new(changed: bool) -> Unsynced {
        Unsynced { changes: u32::from(changed), synced: 0 }
    }

    pub fn mark(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }

    fn is_some(self) -> bool {
        self.changes != self.synced
    }

    /// Everything that `then`, a copy from when the sync began, had seen is safe.
    fn settle(&mut self, then: Unsynced) {
        self.synced = then.changes;
    }
}

#[derive(Debug)]
enum Part {
    Open(PathBuf, Arc<dyn DiskFile>),
    Closed(PathBuf),
}

/// All that has to be synced to make a log safe up to an offset.
#[derive(Debug)]
pub struct FlushHandle {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    parts: Vec<Part>,
    dirs: Vec<PathBuf>,
    up_to: i64,
    generation: u32,
    epoch_file: Unsynced,
    names: Unsynced,
    own_name: Unsynced,
    health: Arc<Health>,
}

impl FlushHandle {
    /// The offset the log is safe up to once [`sync`](Self::sync) succeeded.
    pub fn up_to(&self) -> i64 {
        self.up_to
    }

    /// Syncs. Blocks for milliseconds: call it where blocking is allowed. A failure takes the log offline.
    pub fn sync(&self) -> Result<(), LogError> {
        let offline = |reason| LogError::Offline { dir: self.dir.clone(), reason };
        if let Some(reason) = self.health.failure() {
            return Err(offline(reason));
        }
        self.sync_all().map_err(|(path, error)| {
            let reason = format!("flushing {} failed: {error}", path.display());
            tracing::error!(dir = %self.dir.display(), %reason, "log goes offline");
            self.health.fail(reason.clone());
            offline(reason)
        })
    }

    fn sync_all(&self) -> Result<(), (PathBuf, std::io::Error)> {
        for part in &self.parts {
            let (path, result) = match part {
                Part::Open(path, file) => (path, file.sync_data()),
                Part::Closed(path) => (path, self.disk.open(path, Open::Write).and_then(|f| f.sync_data())),
            };
            match result {
                Ok(()) => {}
                // Truncation or retention removed it meanwhile: nothing left to lose.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err((path.clone(), e)),
            }
        }
        for dir in &self.dirs {
            self.disk.sync_dir(dir).map_err(|e| (dir.clone(), e))?;
        }
        Ok(())
    }
}

impl Log {
    /// Records that are not known to be safe on disk.
    pub fn unflushed(&self) -> i64 {
        self.log_end - self.recovery_point
    }

    /// Whether `flush.messages`, `flush.ms` or a finished segment asks for a flush now.
    pub fn flush_due(&self, now_ms: i64) -> bool {
        let unflushed = self.unflushed();
        unflushed > 0
            && (unflushed >= self.config.flush_messages
                || now_ms.saturating_sub(self.last_flush_ms) >= self.config.flush_ms
                || self.recovery_point < self.segments[self.active()].base)
    }

    /// Whether anything has changed that isn't known to be safe on disk.
    pub(crate) fn needs_flush(&self) -> bool {
        let changed = self.names.is_some() || self.own_name.is_some() || self.epoch_file.is_some();
        // A directory that was never written to may vanish: opening the log makes it again.
        self.unflushed() > 0 || (changed && !self.is_unused())
    }

    /// What has to be synced to make everything up to the log's end safe; `None` when it is safe already.
    pub fn flush_handle(&mut self) -> Option<FlushHandle> {
        if !self.needs_flush() {
            return None;
        }
        let mut parts = Vec::new();
        for at in self.segment_of(self.recovery_point)..self.segments.len() {
            let segment = &self.segments[at];
            if segment.size == 0 {
                continue;
            }
            let path = segment.log_path(self.place());
            // An open handle also reports write-back errors from before now; a new one might not.
            match self.with_segment(at, |s, place| s.log_file(place)) {
                Ok(file) => parts.push(Part::Open(path, file)),
                Err(_) => parts.push(Part::Closed(path)),
            }
        }
        if self.epoch_file.is_some() {
            parts.push(Part::Closed(self.dir.join(EPOCH_FILE)));
        }
        let mut dirs = Vec::new();
        if self.names.is_some() {
            dirs.push(self.dir.clone());
        }
        if self.own_name.is_some() {
            dirs.extend(self.dir.parent().map(PathBuf::from));
        }
        Some(FlushHandle {
            disk: self.disk.clone(),
            dir: self.dir.clone(),
            parts,
            dirs,
            up_to: self.log_end,
            generation: self.generation,
            epoch_file: self.epoch_file,
            names: self.names,
            own_name: self.own_name,
            health: self.health.clone(),
        })
    }

    /// Notes a successful [`FlushHandle::sync`].
    pub fn flushed(&mut self, handle: &FlushHandle, now_ms: i64) {
        self.last_flush_ms = now_ms;
        self.epoch_file.settle(handle.epoch_file);
        self.names.settle(handle.names);
        self.own_name.settle(handle.own_name);
        if handle.generation == self.generation {
            self.recovery_point = self.recovery_point.max(handle.up_to.min(self.log_end));
        }
    }

    /// Flushes here and now, blocking.
    pub fn flush(&mut self, now_ms: i64) -> Result<(), LogError> {
        self.ensure_online()?;
        if let Some(handle) = self.flush_handle() {
            handle.sync()?;
            self.flushed(&handle, now_ms);
        }
        Ok(())
    }

    /// Why the log is offline, if it is.
    pub fn offline_reason(&self) -> Option<String> {
        self.health.failure()
    }
}
