//! Filling a repaired replica again where its leader cannot: what the repair took out of the log was kept, and may be the
//! only sound copy of what the leader has damaged.
//!
//! What is taken back is this replica's own log of before, so the next fetch compares it with the leader's by leader
//! epochs, as any log is compared. What is kept goes when it is here again, on disk, or when the replica is in sync.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use klamm_log::LogError;

use super::follower::{self, Position, Unusable};
use super::partition::{Partition, Role};

/// What came of looking for records that the leader has damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refilled {
    /// So many bytes were taken back.
    Bytes(usize),
    /// Neither has them undamaged; whether that is news.
    Nowhere(bool),
    /// The partition has changed meanwhile.
    Moot,
}

impl Partition {
    /// The log was cut for a repair: recovery points have to be written before anything else is.
    pub fn was_cut(&self) {
        self.cut_unmarked.store(true, Ordering::Release);
    }

    /// Whether recovery points have to be written before more is fetched; they are, then.
    pub fn take_cut(&self) -> bool {
        self.cut_unmarked.load(Ordering::Acquire) && self.cut_unmarked.swap(false, Ordering::AcqRel)
    }

    /// Bytes that a repair keeps until they are here again.
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes.load(Ordering::Relaxed)
    }

    /// Whether a repair has come to records that neither the leader nor this replica has undamaged.
    pub fn is_bereft(&self) -> bool {
        self.bereft_at.load(Ordering::Relaxed) >= 0
    }

    /// The leader, in `epoch`, cannot give what was `asked` for: takes it back from what was kept, if it is there. Blocks.
    ///
    /// # Errors
    /// What is kept cannot be read, or the log failed.
    pub fn refill(&self, epoch: i32, asked: Position, wall_ms: i64) -> Result<Refilled, LogError> {
        let kept = {
            let state = self.state.lock();
            if !self.fetches(&state.role, epoch) || follower::position(&state.log) != asked {
                return Ok(Refilled::Moot);
            }
            state.log.kept()
        };
        let found = match kept {
            Some(kept) => kept.read()?,
            None => None,
        };
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if !self.fetches(&state.role, epoch) {
            return Ok(Refilled::Moot);
        }
        let taken = match found {
            Some(records) => follower::take_back(&mut state.log, asked, &records, wall_ms),
            None => Ok(0),
        };
        self.publish_log(state);
        match taken {
            Ok(bytes) if bytes > 0 => Ok(Refilled::Bytes(bytes)),
            Err(Unusable::Log(error)) if error.is_disk_failure() => Err(error),
            // What does not fit is as good as nothing.
            Ok(_) | Err(_) => {
                let before = self.bereft_at.swap(asked.fetch_offset, Ordering::Relaxed);
                Ok(Refilled::Nowhere(before != asked.fetch_offset))
            }
        }
    }

    fn fetches(&self, role: &Role, epoch: i32) -> bool {
        matches!(role, Role::Follower) && self.leader_epoch() == epoch
    }

    /// Lets go of what a repair has kept and does not need any more. Returns its files, to be removed. Blocks for an
    /// fsync if there may be any.
    ///
    /// # Errors
    /// The fsync's; the log is offline then.
    pub fn let_go_of_kept(&self, now_ms: i64) -> Result<Vec<PathBuf>, LogError> {
        if self.kept_bytes() == 0 {
            return Ok(Vec::new());
        }
        // A leader that is in sync by itself proves nothing.
        let is_whole = || {
            let state = self.state.lock();
            let follows = matches!(state.role, Role::Follower) && self.in_sync.load(Ordering::Relaxed);
            follows.then(|| self.leader_epoch())
        };
        let whole_in = is_whole();
        self.flush(now_ms)?;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let follows = matches!(state.role, Role::Follower) && self.in_sync.load(Ordering::Relaxed);
        let whole = follows && whole_in == Some(self.leader_epoch());
        let files = state.log.let_go_of_kept(whole);
        self.publish_log(state);
        Ok(files)
    }
}

#[cfg(test)]
#[path = "refill_test.rs"]
mod tests;
