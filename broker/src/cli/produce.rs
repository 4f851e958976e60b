//! `klamm produce`: lines from stdin, or arguments, become records.

use std::collections::VecDeque;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use klamm_client::admin::configs::Resource;
use klamm_client::{Acks, Client, Delivery, Producer, ProducerOptions, ProducerRecord};
use klamm_protocol::compress::Compression;
use serde::Serialize;
use tokio::sync::mpsc;

use super::consume::interrupted;
use super::input::{KeyValue, key_value};
use super::output::{Format, Show, print};
use super::record::RecordObject;
use super::{CliError, Global, Result};

/// Longest line accepted. Far above what topics take, and a bound on memory for input without line ends.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Records whose outcome is not yet known to this command.
const OPEN_MAX: usize = 10_000;

#[derive(Debug, Args)]
pub(super) struct ProduceArgs {
    /// Topic to write to; the broker may create it
    topic: String,
    /// Split each line into key and value at the first occurrence of this
    #[arg(long, short = 'K', value_name = "TEXT", conflicts_with_all = ["key", "json"])]
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// Key of all records
    #[arg(long, short, conflicts_with = "json")]
    key: Option<String>,
    /// Header of all records; may be repeated
    #[arg(long, short = 'H', value_name = "KEY=VALUE", value_parser = key_value)]
    header: Vec<KeyValue>,
    /// Partition of all records [default: by the key's hash, or as batches fill up]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Compress batches with none, gzip, snappy, lz4 or zstd
    #[arg(long, short = 'z', value_name = "CODEC", default_value = "none")]
    compression: Compression,
    /// Wait for all replicas in sync, for the leader only, or for nobody
    #[arg(long, value_enum, default_value = "all")]
    acks: AcksArg,
    /// Have the broker drop batches that are sent twice [default: true with --acks all]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    idempotent: Option<bool>,
    /// Lines equal to this become records with a null value, which delete their key in compacted topics
    #[arg(long, value_name = "TEXT", conflicts_with = "json")]
    null: Option<String>,
    /// Each line is an object as `consume -o json` prints it: key, value, headers and timestamp are used
    #[arg(long)]
    json: bool,
    /// Write this record in place of lines from stdin; may be repeated
    #[arg(long, value_name = "TEXT")]
    value: Vec<String>,
    /// Milliseconds a batch waits for more records
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    linger: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AcksArg {
    #[value(name = "0")]
    None,
    #[value(name = "1")]
    Leader,
    #[value(name = "all", alias = "-1")]
    All,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Produced {
    topic: String,
    records: u64,
}

impl Show for Produced {
    fn show(&self, _: &mut dyn Write) -> io::Result<()> {
        // Like other filters: no news on stdout is good news.
        if io::stderr().is_terminal() {
            let s = if self.records == 1 { "" } else { "s" };
            writeln!(io::stderr(), "{} record{s} written to {}", self.records, self.topic)?;
        }
        Ok(())
    }
}

pub(super) async fn run(global: Global, args: ProduceArgs) -> Result {
    let acks = match args.acks {
        AcksArg::None => Acks::None,
        AcksArg::Leader => Acks::Leader,
        AcksArg::All => Acks::All,
    };
    let idempotent = args.idempotent.unwrap_or(acks == Acks::All);
    if idempotent && acks != Acks::All {
        return Err(CliError::usage("--idempotent needs --acks all"));
    }
    let client = global.connect().await?;
    client.topic_or_create(&args.topic).await?;
    let defaults = ProducerOptions::default();
    let options = ProducerOptions {
        acks,
        compression: args.compression,
        linger: Duration::from_millis(args.linger),
        idempotent,
        delivery_timeout: client.options().api_timeout,
        batch_bytes: defaults.batch_bytes.min(batch_bytes_max(&client, &args.topic).await),
        ..defaults
    };
    let producer = Producer::start(&client, options)?;
    let mut lines = if args.value.is_empty() { read_lines() } else { given(&args.value) };
    let mut open: VecDeque<Delivery> = VecDeque::new();
    let mut records = 0;
    let mut number = 0_u64;
    let stop = interrupted();
    tokio::pin!(stop);
    let input = loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            () = &mut stop => None,
        };
        let Some(line) = line else { break Ok(()) };
        number += 1;
        let record = match line.map_err(CliError::from).and_then(|line| parse(&args, line, number)) {
            Ok(record) => record,
            Err(error) => break Err(error),
        };
        open.push_back(producer.send(record).await?);
        if open.len() > OPEN_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.wait().await?;
            records += 1;
        }
    };
    // What came before a bad line has been promised to the broker already.
    producer.flush().await?;
    for delivery in open {
        delivery.wait().await?;
        records += 1;
    }
    input?;
    let produced = Produced { topic: args.topic, records };
    match global.output {
        Format::Table => Ok(produced.show(&mut io::sink())?),
        format => print(format, &produced),
    }
}

/// What the topic takes as one batch, less the batch's header. Where the broker doesn't tell, it refuses
/// what is too large.
async fn batch_bytes_max(client: &Client, topic: &str) -> usize {
    let (resource, keys) = (Resource::Topic(topic.to_owned()), ["max.message.bytes".to_owned()]);
    let configs = client.describe_configs(&resource, Some(&keys)).await.unwrap_or_default();
    let value = configs.into_iter().next().and_then(|config| config.value?.parse::<usize>().ok());
    value.map_or(usize::MAX, |bytes| bytes.saturating_sub(100))
}

/// Values that were given as arguments, as if they had been read.
fn given(values: &[String]) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, lines) = mpsc::channel(values.len().max(1));
    for value in values {
        // There is room for all of them.
        let _ = sender.try_send(Ok(value.clone().into_bytes()));
    }
    lines
}

/// Reads stdin on a thread of its own, since a read from it can't be cancelled.
fn read_lines() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, lines) = mpsc::channel(1024);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let next = match next_line(&mut stdin) {
                Ok(None) => return,
                Ok(Some(line)) => Ok(line),
                Err(error) => Err(error),
            };
            let last = next.is_err();
            if sender.blocking_send(next).is_err() || last {
                return;
            }
        }
    });
    lines
}

/// The next line without its end; the last one may lack it.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > LINE_BYTES_MAX {
        let reason = format!("a line of the input is longer than {LINE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(Some(line))
}

fn parse(args: &ProduceArgs, line: Vec<u8>, number: u64) -> Result<ProducerRecord> {
    let mut record = ProducerRecord {
        topic: args.topic.clone(),
        partition: args.partition,
        key: args.key.clone().map(Bytes::from),
        ..Default::default()
    };
    if args.json {
        let bad = |reason: String| {
            CliError::new(format!("line {number} of the input: {reason}")).hint(
                r#"--json expects objects like {"key": "k", "value": "v", "headers": [{"key": "h", "value": "x"}]}"#,
            )
        };
        let object: RecordObject = serde_json::from_slice(&line).map_err(|error| bad(error.to_string()))?;
        record.timestamp = object.timestamp;
        (record.key, record.value, record.headers) = object.content().map_err(bad)?;
    } else {
        let mut value = Bytes::from(line);
        if let Some(separator) = &args.key_separator {
            let at = find(&value, separator.as_bytes()).ok_or_else(|| {
                CliError::new(format!("line {number} of the input has no key separator {separator:?}"))
                    .hint("the lines before it have been written")
            })?;
            record.key = Some(value.split_to(at));
            value = value.slice(separator.len()..);
        }
        let is_null = args.null.as_ref().is_some_and(|null| value == null.as_bytes());
        record.value = (!is_null).then_some(value);
    }
    let headers = args.header.iter();
    record.headers.extend(headers.map(|(key, value)| (Bytes::from(key.clone()), Some(Bytes::from(value.clone())))));
    Ok(record)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len().max(1)).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ProduceArgs,
    }

    fn record(arguments: &str, line: &str) -> Result<ProducerRecord> {
        let args = Line::try_parse_from(format!("produce t {arguments}").split_whitespace());
        parse(&args.unwrap_or_else(|e| panic!("{arguments}: {e}")).args, line.as_bytes().to_vec(), 1)
    }

    #[test]
    fn lines_are_split_at_the_first_separator() {
        let split = record("--key-separator ::", "a::b::c").expect("parses");
        assert_eq!((split.key, split.value), (Some("a".into()), Some("b::c".into())));
        let empty = record("-K :", ":").expect("parses");
        assert_eq!((empty.key, empty.value), (Some(Bytes::new()), Some(Bytes::new())));
        assert!(record("-K :", "ab").is_err());
        let plain = record("", "a:b").expect("parses");
        assert_eq!((plain.key, plain.value), (None, Some("a:b".into())));
    }

    #[test]
    fn null_key_and_headers_come_from_the_arguments() {
        let record = record("--null NULL --key k --header a=1 --header a=2 -p 3", "NULL").expect("parses");
        assert_eq!((record.key, record.value, record.partition), (Some("k".into()), None, Some(3)));
        let headers: Vec<_> = [("a", "1"), ("a", "2")].map(|(k, v)| (k.into(), Some(v.into()))).into();
        assert_eq!(record.headers, headers);
    }

    #[test]
    fn objects_bring_key_value_headers_and_time() {
        let line = r#"{"key":"k","value_base64":"/w==","timestamp":5,"headers":[{"key":"h"}],"offset":9}"#;
        let read = record("--json", line).expect("parses");
        assert_eq!((read.key, read.value), (Some("k".into()), Some(Bytes::from_static(b"\xff"))));
        assert_eq!((read.timestamp, read.headers), (Some(5), vec![("h".into(), None)]));
        for bad in ["", "x", "[1]", r#"{"value":1}"#, r#"{"value":"a","value_base64":"AA=="}"#] {
            assert!(record("--json", bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_last_line_may_lack_its_end() {
        let mut input = io::Cursor::new(b"a\n\nb");
        let mut lines = Vec::new();
        while let Ok(Some(line)) = next_line(&mut input) {
            lines.push(line);
        }
        assert_eq!(lines, [b"a".to_vec(), vec![], b"b".to_vec()]);
    }
}
