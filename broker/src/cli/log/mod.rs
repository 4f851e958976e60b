//! `klamm log`: looks at files of a log directory, without a broker. Reads only.
//!
//! `verify` says what is damaged, `dump` shows what is there. Damage makes both end with exit code 1, so that scripts
//! notice. A file that a running broker writes to may look torn at its end.

mod dump;
mod verify;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use klamm_log::dirs::split_dir_name;
use klamm_log::{Disk, RealDisk};
use serde::Serialize;

use super::{CliError, Global, Result};

#[derive(Debug, Subcommand)]
pub(super) enum LogCommand {
    /// Check every batch, index and checkpoint, and explain what is damaged
    Verify(verify::VerifyArgs),
    /// Show batches and records, or what an index, snapshot or checkpoint holds
    Dump(dump::DumpArgs),
}

pub(super) async fn run(global: Global, command: LogCommand) -> Result {
    match command {
        LogCommand::Verify(args) => verify::run(&global, &args),
        LogCommand::Dump(args) => dump::run(&global, &args),
    }
}

/// Something that is wrong with a file.
#[derive(Clone, Debug, Serialize)]
struct Problem {
    file: String,
    /// `damage`: records can't be read. `repairable`: the file is made again when the broker opens the log.
    severity: &'static str,
    /// Byte where a sound batch should begin.
    position: Option<u64>,
    /// Offset it should have.
    offset: Option<i64>,
    what: String,
    /// Byte of the next sound batch in the file.
    next_sound: Option<u64>,
}

impl Problem {
    fn damage(damage: &klamm_log::Damage) -> Self {
        Self {
            file: damage.file.display().to_string(),
            severity: "damage",
            position: Some(damage.position),
            offset: Some(damage.offset),
            what: damage.what.clone(),
            next_sound: damage.next_sound,
        }
    }

    fn repairable(file: &Path, what: impl Into<String>) -> Self {
        let file = file.display().to_string();
        Self { file, severity: "repairable", position: None, offset: None, what: what.into(), next_sound: None }
    }

    /// In words for people.
    fn text(&self) -> String {
        let place = match (self.position, self.offset) {
            (Some(position), Some(offset)) => format!(", byte {position}, offset {offset}"),
            _ => String::new(),
        };
        let then = match (self.severity, self.position, self.next_sound) {
            ("repairable", ..) => "The broker makes it again when it opens the log.".to_owned(),
            (_, Some(_), Some(next)) => format!("Sound batches follow from byte {next}: what lies between is lost."),
            (_, Some(_), None) => "No sound batch follows in this file: all from here on is lost.".to_owned(),
            _ => String::new(),
        };
        format!("{}{place}: {}. {then}", self.file, self.what).trim_end().to_owned()
    }
}

fn names(dir: &Path) -> Result<Vec<klamm_log::disk::DirEntry>> {
    let mut entries = RealDisk.read_dir(dir).map_err(|e| {
        CliError::new(format!("{}: {e}", dir.display())).hint("name a partition's directory, or one of log.dirs")
    })?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// The base offset in the name of a segment file.
fn segment_base(name: &str) -> Option<i64> {
    name.strip_suffix(".log").filter(|digits| digits.len() == 20)?.parse().ok()
}

/// The partitions' directories that `dir` stands for: itself, or those in it.
fn partitions(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = names(dir)?;
    if entries.iter().any(|e| !e.is_dir && (segment_base(&e.name).is_some() || e.name == "partition.metadata")) {
        return Ok(vec![dir.to_path_buf()]);
    }
    let inside: Vec<_> =
        entries.iter().filter(|e| e.is_dir && split_dir_name(&e.name).is_some()).map(|e| dir.join(&e.name)).collect();
    if inside.is_empty() {
        let why = format!("{} holds neither segments nor directories of partitions", dir.display());
        return Err(CliError::new(why).hint("name a partition's directory, or one of log.dirs"));
    }
    Ok(inside)
}
