//! What makes the journal and the copy of the vote durable.
//!
//! In tests it remembers how much of each file was made so, and a bug can be planted: that is how a loss of power knows what
//! it may not take away ([`crate::log_store`]'s test).

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes all that was written to a file durable; blocks.
pub fn sync(file: &File) -> io::Result<()> {
    file.sync_data()?;
    #[cfg(test)]
    made::note(file);
    Ok(())
}

/// Makes the names in a folder durable; blocks.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A rule left out, to see that the tests notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A vote is told before it is durable: neither in the journal nor in its copy.
    VoteNotSynced,
    /// The copy of the vote is durable, and the journal's is not.
    VoteOnlyInCopy,
}

/// Whether the node of this folder has a bug.
#[cfg(not(test))]
pub const fn planted(_: Bug, _: &Path) -> bool {
    false
}

#[cfg(test)]
pub use made::planted;

#[cfg(test)]
pub mod made {
    use std::collections::HashMap;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    use parking_lot::Mutex;

    use super::*;

    /// Bytes that are durable, by device and inode. A file that takes over an inode is noted anew before it has its name.
    static DURABLE: Mutex<Option<HashMap<(u64, u64), u64>>> = Mutex::new(None);
    static PLANTED: Mutex<Vec<(PathBuf, Bug)>> = Mutex::new(Vec::new());

    pub fn note(file: &File) {
        if let Ok(meta) = file.metadata() {
            DURABLE.lock().get_or_insert_default().insert((meta.dev(), meta.ino()), meta.len());
        }
    }

    /// How much of a file is durable.
    pub fn durable(path: &Path) -> u64 {
        let of = |meta: fs::Metadata| DURABLE.lock().as_ref()?.get(&(meta.dev(), meta.ino())).copied();
        fs::metadata(path).ok().and_then(of).unwrap_or(0)
    }

    /// From now on the node of this folder has this bug.
    pub fn plant(dir: &Path, bug: Bug) {
        PLANTED.lock().push((dir.to_path_buf(), bug));
    }

    pub fn planted(bug: Bug, dir: &Path) -> bool {
        PLANTED.lock().iter().any(|(of, planted)| of == dir && *planted == bug)
    }
}
