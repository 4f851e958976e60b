//! `klamm log dump`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use klamm_log::inspect::{SideFile, side_file};
use klamm_log::{BatchAt, RealDisk, verify_segment};
use klamm_protocol::batch::{ControlType, EndTxnMarker, Record, RecordBatch, TimestampType};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::output::Format;
use super::super::record::RecordObject;
use super::super::{CliError, Global, Result};
use super::{Problem, names, partitions, segment_base};

/// Decompressed bytes of one batch that are shown.
const MAX_DECOMPRESSED: usize = 256 << 20;

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// Directories of partitions, or single files: segments, indexes, snapshots, checkpoints
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Show the batches only, not their records
    #[arg(long)]
    batches: bool,
    /// Leave out batches that end before this offset
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: i64,
}

pub(super) fn run(global: &Global, args: &DumpArgs) -> Result {
    let out = io::BufWriter::new(io::stdout().lock());
    let mut dump = Dump { out, format: global.output, args, damaged: 0 };
    for path in &args.paths {
        if path.is_dir() {
            for dir in partitions(path)? {
                for entry in names(&dir)?.iter().filter(|e| segment_base(&e.name).is_some()) {
                    dump.segment(&dir.join(&entry.name))?;
                }
            }
        } else {
            dump.file(path)?;
        }
    }
    dump.out.flush()?;
    match dump.damaged {
        0 => Ok(()),
        n => Err(CliError::new(format!("damaged in {n} places")).hint("`klamm log verify` explains")),
    }
}

struct Dump<'a, W> {
    out: W,
    format: Format,
    args: &'a DumpArgs,
    damaged: usize,
}

impl<W: Write> Dump<'_, W> {
    fn file(&mut self, path: &Path) -> Result {
        if path.file_name().and_then(|n| segment_base(n.to_str()?)).is_some() {
            return self.segment(path);
        }
        match side_file(&RealDisk, path).map_err(|e| CliError::new(e.to_string()))? {
            Some(file) => self.side_file(path, &file),
            None => Err(CliError::new(format!("{}: not a file of a log, by its name", path.display()))),
        }
    }

    fn side_file(&mut self, path: &Path, file: &SideFile) -> Result {
        self.heading(path, file.kind)?;
        for row in &file.rows {
            let cells = file.fields.iter().zip(row);
            match self.format {
                Format::Table => {
                    let cells: Vec<_> = cells.map(|(field, cell)| format!("{field} {cell}")).collect();
                    writeln!(self.out, "{}", cells.join("  "))?;
                }
                _ => {
                    let value = |cell: &String| cell.parse::<i64>().map_or_else(|_| json!(cell), |n| json!(n));
                    let object: serde_json::Map<_, _> = cells.map(|(f, c)| ((*f).to_owned(), value(c))).collect();
                    self.object(&object)?;
                }
            }
        }
        for what in &file.problems {
            self.problem(&Problem::repairable(path, what))?;
        }
        Ok(())
    }

    fn segment(&mut self, path: &Path) -> Result {
        let base = path.file_name().and_then(|n| segment_base(n.to_str()?)).unwrap_or_default();
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.heading(path, "segment")?;
        let mut result = Ok(());
        let report = verify_segment(&RealDisk, dir, base, |batch| {
            if result.is_ok() && batch.header.last_offset() >= self.args.from {
                result = self.batch(path, batch);
            }
        });
        result?;
        let report = report.map_err(|e| CliError::new(e.to_string()))?;
        for damage in &report.damage {
            self.problem(&Problem::damage(damage))?;
        }
        Ok(())
    }

    fn batch(&mut self, path: &Path, BatchAt { position, header, bytes }: BatchAt<'_>) -> Result {
        let codec = header.compression().map_or("unknown", |codec| codec.name());
        let stamped = if header.timestamp_type() == TimestampType::LogAppendTime { "append" } else { "create" };
        let mut marks = Vec::new();
        marks.extend(header.is_transactional().then_some("transactional"));
        marks.extend(header.is_control().then_some("control"));
        if self.format == Format::Table {
            let producer = if header.has_producer_id() {
                let (id, epoch) = (header.producer_id, header.producer_epoch);
                format!("  producer {id}/{epoch} from sequence {}", header.base_sequence)
            } else {
                String::new()
            };
            writeln!(
                self.out,
                "byte {position}  offsets {}..{}  {} records  {} bytes  {codec}  leader epoch {}  {stamped} time {}{producer}{}{}",
                header.base_offset,
                header.last_offset(),
                header.records_count,
                header.total_len(),
                header.partition_leader_epoch,
                header.max_timestamp,
                if marks.is_empty() { "" } else { "  " },
                marks.join(" "),
            )?;
        } else if self.args.batches {
            self.object(&json!({
                "file": path.display().to_string(),
                "position": position,
                "base_offset": header.base_offset,
                "last_offset": header.last_offset(),
                "records": header.records_count,
                "bytes": header.total_len(),
                "compression": codec,
                "leader_epoch": header.partition_leader_epoch,
                "timestamp_type": stamped,
                "max_timestamp": header.max_timestamp,
                "delete_horizon": header.delete_horizon_ms(),
                "producer_id": header.producer_id,
                "producer_epoch": header.producer_epoch,
                "base_sequence": header.base_sequence,
                "transactional": header.is_transactional(),
                "control": header.is_control(),
            }))?;
        }
        if self.args.batches {
            return Ok(());
        }
        let batch = RecordBatch::new(Bytes::copy_from_slice(bytes));
        let records = batch.map(|batch| batch.records(MAX_DECOMPRESSED));
        let place = (position, stamped == "append");
        match records {
            Ok(records) => {
                for record in records {
                    match record {
                        Ok(record) => self.record(path, &record, header.is_control(), place)?,
                        Err(e) => return self.unreadable(path, position, header.base_offset, &e),
                    }
                }
                Ok(())
            }
            Err(e) => self.unreadable(path, position, header.base_offset, &e),
        }
    }

    /// A batch whose checksum is right, but whose records can't be made out.
    fn unreadable(&mut self, path: &Path, position: u32, offset: i64, error: &dyn std::fmt::Display) -> Result {
        let file = path.display().to_string();
        let what = format!("the batch is as it was sent, but its records can't be read: {error}");
        let (position, offset) = (Some(u64::from(position)), Some(offset));
        self.problem(&Problem { file, severity: "damage", position, offset, what, next_sound: None })
    }

    fn record(&mut self, path: &Path, record: &Record, control: bool, (position, appended): (u32, bool)) -> Result {
        let control = control.then(|| marker(record));
        if self.format != Format::Table {
            let record = RecordObject::stored(record, appended);
            let (file, object) = (path.display().to_string(), serde_json::to_value(record));
            let mut object = object.map_err(io::Error::from)?;
            if let Value::Object(fields) = &mut object {
                fields.retain(|name, _| name != "topic" && name != "partition");
                fields.insert("file".to_owned(), file.into());
                fields.insert("position".to_owned(), position.into());
                fields.extend(control.map(|what| ("control".to_owned(), what.into())));
            }
            return self.object(&object);
        }
        write!(self.out, "  offset {}  time {}", record.offset, record.timestamp)?;
        match control {
            Some(what) => write!(self.out, "  {what}")?,
            None => {
                write!(self.out, "  key {}  value {}", shown(record.key.as_deref()), shown(record.value.as_deref()))?;
                for (key, value) in &record.headers {
                    write!(self.out, "  header {}={}", shown(Some(key)), shown(value.as_deref()))?;
                }
            }
        }
        writeln!(self.out)?;
        Ok(())
    }

    fn heading(&mut self, path: &Path, kind: &str) -> Result {
        if self.format == Format::Table {
            writeln!(self.out, "# {} ({kind})", path.display())?;
        }
        Ok(())
    }

    fn problem(&mut self, problem: &Problem) -> Result {
        self.damaged += 1;
        match self.format {
            Format::Table => Ok(writeln!(self.out, "! {}", problem.text())?),
            _ => self.object(&json!({ "problem": problem })),
        }
    }

    fn object(&mut self, object: &impl Serialize) -> Result {
        match self.format {
            Format::Yaml => {
                let text = serde_yaml::to_string(object).map_err(io::Error::other)?;
                write!(self.out, "---\n{text}")?;
            }
            _ => {
                serde_json::to_writer(&mut self.out, object).map_err(io::Error::from)?;
                writeln!(self.out)?;
            }
        }
        Ok(())
    }
}

/// What a control record says.
fn marker(record: &Record) -> String {
    let key = record.key.as_deref().unwrap_or_default();
    let marker = EndTxnMarker::parse(key, record.value.as_deref().unwrap_or_default());
    match (marker, ControlType::from_key(key)) {
        (Some(marker), _) => {
            let end = if marker.commit { "commit" } else { "abort" };
            format!("{end} (coordinator epoch {})", marker.coordinator_epoch)
        }
        (None, Some(kind)) => format!("{kind:?}"),
        (None, None) => "control record of an unknown kind".to_owned(),
    }
}

/// Bytes on one line, without control sequences: text as it is, the rest escaped.
fn shown(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "null".to_owned(),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(char::is_control) => format!("\"{text}\""),
            Ok(text) => format!("\"{}\"", text.escape_default()),
            Err(_) => format!("\"{}\"", bytes.escape_ascii()),
        },
    }
}
