//! One process at a time runs on a directory.

use std::fs::File;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::error::QuorumError;

/// Held until this is dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes it, at once or not at all.
    ///
    /// # Errors
    /// `Foreign` when somebody else holds it; the disk's.
    pub fn take(dir: &Path) -> Result<Self, QuorumError> {
        let path = dir.join("lock");
        let file = File::create(&path).map_err(|e| QuorumError::io("creating", &path, e))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(QuorumError::Foreign { dir: dir.to_path_buf(), reason: "another process runs on it".into() })
            }
            Err(e) => Err(QuorumError::io("locking", &path, e.into())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A process that is being started has the file for a moment, too: to close it here would not be enough.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn only_one_holds_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let held = Lock::take(dir.path()).unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(QuorumError::Foreign { .. })));
        drop(held);
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn what_is_started_meanwhile_does_not_hold_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        Command::new("true").status().unwrap();
                    }
                });
            }
            let taken = (0..20_000).try_for_each(|_| Lock::take(dir.path()).map(drop));
            done.store(true, Ordering::Relaxed);
            taken.unwrap();
        });
    }
}
