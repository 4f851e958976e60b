//! Where things are: the work tree, the cache of installed clients, the broker binary, this run's scratch files.
//!
//! Scratch files of a run live in one folder named after its process; a later run removes those whose process is
//! gone, so a failed run can still be looked at.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The folder `tests/` of the work tree.
pub fn tests_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where `tests/install` puts clients and tools.
pub fn cache() -> PathBuf {
    if let Some(dir) = std::env::var_os("KLAMM_CACHE") {
        return dir.into();
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    base.join("klamm")
}

/// A file below the cache; fails with the install script's name when it is not there.
#[track_caller]
pub fn cached(path: &str, script: &str) -> PathBuf {
    let file = cache().join(path);
    assert!(file.exists(), "{} is missing: run tests/install/{script}", file.display());
    file
}

/// The `klamm` binary under test: `KLAMM_BIN`, else the release build, else the debug build beside this program.
#[track_caller]
pub fn klamm() -> PathBuf {
    if let Some(bin) = std::env::var_os("KLAMM_BIN") {
        return bin.into();
    }
    let exe = std::env::current_exe().expect("the path of the running program");
    for target in exe.ancestors() {
        for profile in ["release", "debug"] {
            let candidate = target.join(profile).join("klamm");
            if candidate.is_file() {
                return candidate;
            }
        }
    }
    panic!("no klamm binary: run `cargo build --release --bin klamm` or set KLAMM_BIN");
}

/// This run's scratch folder.
pub fn scratch() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let base = std::env::temp_dir();
        remove_stale(&base);
        let root = base.join(format!("klamm-tests-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a scratch folder");
        root
    })
}

/// A new empty folder below [`scratch`].
pub fn scratch_dir(what: &str) -> PathBuf {
    let dir = scratch().join(crate::unique(what));
    std::fs::create_dir_all(&dir).expect("a scratch folder");
    dir
}

fn remove_stale(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.strip_prefix("klamm-tests-")) else { continue };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            // Another run may be removing the same folder.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
