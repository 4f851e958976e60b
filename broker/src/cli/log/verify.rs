//! `klamm log verify`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use klamm_log::inspect::side_file;
use klamm_log::{RealDisk, verify_segment};
use serde::Serialize;

use super::super::output::{Show, Table, print};
use super::super::{CliError, Global, Result};
use super::{Problem, names, partitions, segment_base};

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Directories of partitions, or of many of them (as in log.dirs)
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
}

/// What a partition's directory holds.
#[derive(Debug, Serialize)]
struct Verified {
    dir: String,
    segments: usize,
    bytes: u64,
    batches: u64,
    records: u64,
    start_offset: Option<i64>,
    end_offset: Option<i64>,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct All(Vec<Verified>);

impl Show for All {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table =
            Table::new(&["PARTITION", "SEGMENTS", "BYTES", "BATCHES", "RECORDS", "START", "END", "PROBLEMS"]);
        for p in &self.0 {
            let name =
                Path::new(&p.dir).file_name().map_or_else(|| p.dir.clone(), |n| n.to_string_lossy().into_owned());
            let offset = |offset: Option<i64>| offset.map_or_else(String::new, |o| o.to_string());
            let counts = [p.segments as u64, p.bytes, p.batches, p.records].map(|n| n.to_string());
            let ends = [offset(p.start_offset), offset(p.end_offset), p.problems.len().to_string()];
            table.row([name].into_iter().chain(counts).chain(ends));
        }
        table.write(out)?;
        for problem in self.0.iter().flat_map(|p| &p.problems) {
            writeln!(out, "\n{}", problem.text())?;
        }
        Ok(())
    }
}

pub(super) fn run(global: &Global, args: &VerifyArgs) -> Result {
    let mut all = Vec::new();
    for dir in &args.dirs {
        let inside = partitions(dir)?;
        // The checkpoints of a log directory, if it is one.
        if inside.first() != Some(dir) {
            let problems = side_files(dir)?;
            if !problems.is_empty() {
                all.push(Verified { problems, ..Verified::empty(dir) });
            }
        }
        for partition in inside {
            all.push(verify(&partition)?);
        }
    }
    let problems: Vec<_> = all.iter().flat_map(|p| &p.problems).collect();
    let damaged = problems.iter().filter(|p| p.severity == "damage").count();
    let outcome = match (damaged, problems.len()) {
        (_, 0) => Ok(()),
        (0, all) => {
            Err(CliError::new(format!("{all} problems, all in files that are made again; no record is damaged")))
        }
        (damaged, _) => Err(CliError::new(format!("damaged in {damaged} places")).hint(
            "restore the replica from another one: move its directory away and restart the broker; \
             or cut the file before the damage, which gives up all behind it",
        )),
    };
    print(global.output, &All(all))?;
    outcome
}

impl Verified {
    fn empty(dir: &Path) -> Self {
        Self {
            dir: dir.display().to_string(),
            segments: 0,
            bytes: 0,
            batches: 0,
            records: 0,
            start_offset: None,
            end_offset: None,
            problems: Vec::new(),
        }
    }
}

fn verify(dir: &Path) -> Result<Verified> {
    let mut verified = Verified { problems: side_files(dir)?, ..Verified::empty(dir) };
    let mut bases: Vec<i64> = names(dir)?.iter().filter_map(|e| segment_base(&e.name)).collect();
    bases.sort_unstable();
    for base in bases {
        let report = verify_segment(&RealDisk, dir, base, |_| {}).map_err(|e| CliError::new(e.to_string()))?;
        if let Some(end) = verified.end_offset.filter(|end| *end > base) {
            let what = format!("the segment begins at offset {base}, but the one before it goes up to {end}");
            let file = report.path.display().to_string();
            let (position, offset) = (Some(0), Some(end));
            verified.problems.push(Problem { file, severity: "damage", position, offset, what, next_sound: None });
        }
        verified.segments += 1;
        verified.bytes += report.bytes;
        verified.batches += report.batches;
        verified.records += report.records;
        verified.start_offset.get_or_insert(base);
        verified.end_offset = Some(report.offsets.map_or(base, |(_, next)| next));
        verified.problems.extend(report.damage.iter().map(Problem::damage));
        verified
            .problems
            .extend(report.index_problems.into_iter().map(|(file, what)| Problem::repairable(&file, what)));
    }
    Ok(verified)
}

/// What is wrong with the files beside the segments.
fn side_files(dir: &Path) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for entry in names(dir)?.iter().filter(|e| !e.is_dir) {
        let path = dir.join(&entry.name);
        let file = side_file(&RealDisk, &path).map_err(|e| CliError::new(e.to_string()))?;
        let Some(file) = file else { continue };
        problems.extend(file.problems.into_iter().map(|what| Problem::repairable(&path, what)));
    }
    Ok(problems)
}
