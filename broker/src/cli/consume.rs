//! `klamm consume`: records to stdout, from chosen partitions or as a member of a group.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Duration;

use clap::{ArgGroup, Args};
use klamm_client::admin::offsets::OffsetSpec;
use klamm_client::group::{GroupConsumer, GroupOptions};
use klamm_client::{Client, ConsumedRecord, Consumer, ConsumerOptions, Isolation, TopicPartition};

use super::input::TopicArg;
use super::offsets::listed;
use super::output::Format;
use super::record::{RecordFormat, RecordObject};
use super::time::parse_time;
use super::{Global, Result};

/// Records taken from the client at a time.
const POLL_RECORDS_MAX: usize = 1000;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("start").required(false)))]
pub(super) struct ConsumeArgs {
    /// Topics to read
    #[arg(required = true)]
    topics: Vec<String>,
    /// Begin at the oldest records [default: only new ones]; in a group, where it has committed nothing
    #[arg(long, group = "start")]
    from_beginning: bool,
    /// Begin at this offset; a negative one counts from the end
    #[arg(long, group = "start", value_name = "N", allow_negative_numbers = true, conflicts_with = "group")]
    offset: Option<i64>,
    /// Begin at a time: 2026-11-21T10:00:00Z, milliseconds since 1970, or 15m (ago)
    #[arg(long, group = "start", value_name = "TIME", value_parser = parse_time)]
    from_timestamp: Option<i64>,
    /// Read only this partition; may be repeated
    #[arg(long, short, value_name = "N", conflicts_with = "group", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    /// Read as a member of this group: partitions are shared with its other members, offsets committed
    #[arg(long, short)]
    group: Option<String>,
    /// Stop after this many records
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_messages: Option<u64>,
    /// Stop at what is the end at the start
    #[arg(long, short)]
    exit_at_end: bool,
    /// Hide records of transactions that are open or aborted
    #[arg(long)]
    read_committed: bool,
    /// Print the key in front of the value
    #[arg(long, conflicts_with = "format")]
    print_key: bool,
    /// Print the key, and this between key and value [default: a tab]
    #[arg(long, short = 'K', value_name = "TEXT", conflicts_with = "format")]
    key_separator: Option<String>,
    /// How a record is printed: %t topic, %p partition, %o offset, %T timestamp, %k key, %s value,
    /// %K and %S their lengths, %h headers, \n \t \0
    #[arg(long, short, value_name = "FORMAT", value_parser = RecordFormat::parse)]
    format: Option<RecordFormat>,
}

pub(super) async fn run(global: Global, args: ConsumeArgs) -> Result {
    let client = global.connect().await?;
    let stop = interrupted();
    let mut printer = Printer::new(global.output, &args);
    match &args.group {
        Some(group) => read_as_member(&client, &args, group, &mut printer, stop).await,
        None => read_partitions(&client, &args, &mut printer, stop).await,
    }
}

/// Waits for the signal to stop: Ctrl-C or SIGTERM.
pub(super) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
        }
        // Then the signal keeps its usual effect.
        Err(_) => std::future::pending().await,
    }
}

fn options(args: &ConsumeArgs) -> ConsumerOptions {
    let isolation = if args.read_committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    ConsumerOptions { isolation, ..Default::default() }
}

fn start(args: &ConsumeArgs) -> OffsetSpec {
    match args.from_timestamp {
        Some(ms) => OffsetSpec::Timestamp(ms),
        None if args.from_beginning => OffsetSpec::Earliest,
        None => OffsetSpec::Latest,
    }
}

async fn read_partitions(
    client: &Client,
    args: &ConsumeArgs,
    printer: &mut Printer,
    stop: impl Future<Output = ()>,
) -> Result {
    let mut partitions = BTreeSet::new();
    for topic in &args.topics {
        partitions.extend(TopicArg::new(topic, &args.partition).partitions(client).await?);
    }
    let ends = ends(client, args, &partitions).await?;
    let mut consumer = Consumer::new(client, options(args));
    consumer.assign(starts(client, args, &partitions, &ends).await?);
    tokio::pin!(stop);
    loop {
        let positions = consumer.positions();
        if printer.is_done() || args.exit_at_end && reached(&positions, &ends) {
            return Ok(());
        }
        let records = tokio::select! {
            records = consumer.poll(printer.wanted()) => records?,
            () = &mut stop => return Ok(()),
        };
        printer.print(&records)?;
    }
}

async fn starts(
    client: &Client,
    args: &ConsumeArgs,
    partitions: &BTreeSet<TopicPartition>,
    ends: &BTreeMap<TopicPartition, i64>,
) -> Result<BTreeMap<TopicPartition, i64>> {
    if let Some(offset) = args.offset {
        let firsts = listed(client, partitions, OffsetSpec::Earliest).await?;
        let wanted = |(at, first): (&TopicPartition, &i64)| {
            let end = ends.get(at).copied().unwrap_or(*first);
            let wanted = if offset < 0 { end.saturating_add(offset) } else { offset };
            (at.clone(), wanted.clamp(*first, end.max(*first)))
        };
        return Ok(firsts.iter().map(wanted).collect());
    }
    let mut starts = listed(client, partitions, start(args)).await?;
    for (at, start) in &mut starts {
        // No record as late as the timestamp: only new ones are.
        if *start < 0 {
            *start = ends.get(at).copied().unwrap_or(0);
        }
    }
    Ok(starts)
}

/// Where reading ends with --exit-at-end: what is the end now, for this isolation level.
async fn ends(
    client: &Client,
    args: &ConsumeArgs,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, i64>> {
    let mut ends = BTreeMap::new();
    for (at, end) in client.list_offsets(partitions, OffsetSpec::Latest, options(args).isolation).await? {
        ends.insert(at, end?.offset);
    }
    Ok(ends)
}

fn reached(positions: &BTreeMap<TopicPartition, i64>, ends: &BTreeMap<TopicPartition, i64>) -> bool {
    positions.iter().all(|(at, position)| ends.get(at).is_some_and(|end| position >= end))
}

async fn read_as_member(
    client: &Client,
    args: &ConsumeArgs,
    group: &str,
    printer: &mut Printer,
    stop: impl Future<Output = ()>,
) -> Result {
    for topic in &args.topics {
        client.topic(topic).await?;
    }
    // Somebody watches: new partitions should show up soon.
    let metadata_age_max = Duration::from_secs(5);
    let group_options = GroupOptions { start: start(args), metadata_age_max, ..Default::default() };
    let mut member = GroupConsumer::new(client, group, args.topics.clone(), group_options, options(args));
    let result = read_until_done(client, args, &mut member, printer, stop).await;
    // What could not be printed must not be committed; the group is left in any case, so that others
    // needn't wait for the session to time out.
    let left = member.close(result.is_ok()).await.map_err(Into::into);
    result.and(left)
}

async fn read_until_done(
    client: &Client,
    args: &ConsumeArgs,
    member: &mut GroupConsumer,
    printer: &mut Printer,
    stop: impl Future<Output = ()>,
) -> Result {
    let mut all_ends = BTreeMap::new();
    tokio::pin!(stop);
    loop {
        if printer.is_done() {
            return Ok(());
        }
        let records = tokio::select! {
            records = member.poll(printer.wanted()) => records?,
            () = &mut stop => return Ok(()),
        };
        printer.print(&records)?;
        if args.exit_at_end && member.is_member() {
            let positions = member.positions();
            let new = positions.keys().filter(|at| !all_ends.contains_key(*at)).cloned().collect();
            all_ends.extend(ends(client, args, &new).await?);
            if reached(&positions, &all_ends) {
                return Ok(());
            }
        }
    }
}

/// Writes records to stdout and counts them.
struct Printer {
    out: io::BufWriter<io::Stdout>,
    output: Format,
    format: RecordFormat,
    left: Option<u64>,
}

impl Printer {
    fn new(output: Format, args: &ConsumeArgs) -> Self {
        let separator = args.key_separator.as_deref().or(args.print_key.then_some("\t"));
        Self {
            out: io::BufWriter::with_capacity(64 << 10, io::stdout()),
            output,
            format: args.format.clone().unwrap_or_else(|| RecordFormat::line(separator)),
            left: args.max_messages,
        }
    }

    fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// How many records to ask for.
    fn wanted(&self) -> usize {
        let left = self.left.and_then(|left| usize::try_from(left).ok());
        left.map_or(POLL_RECORDS_MAX, |left| left.min(POLL_RECORDS_MAX))
    }

    fn print(&mut self, records: &[ConsumedRecord]) -> Result {
        for record in records {
            match self.output {
                Format::Table => self.format.write(&mut self.out, record)?,
                Format::Json => {
                    serde_json::to_writer(&mut self.out, &RecordObject::of(record)).map_err(io::Error::from)?;
                    self.out.write_all(b"\n")?;
                }
                Format::Yaml => {
                    let text = serde_yaml::to_string(&RecordObject::of(record)).map_err(io::Error::other)?;
                    writeln!(self.out, "---\n{}", text.trim_end())?;
                }
            }
        }
        // Each poll's records are out before the next one counts them as handled.
        self.out.flush()?;
        self.left = self.left.map(|left| left.saturating_sub(records.len() as u64));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_reached_when_every_partition_has_got_there() {
        let at = |partition| TopicPartition::new("t", partition);
        let ends = BTreeMap::from([(at(0), 5), (at(1), 0)]);
        assert!(reached(&BTreeMap::from([(at(0), 5), (at(1), 0)]), &ends));
        assert!(reached(&BTreeMap::from([(at(0), 7)]), &ends));
        assert!(!reached(&BTreeMap::from([(at(0), 4), (at(1), 0)]), &ends));
        assert!(!reached(&BTreeMap::from([(at(2), 0)]), &ends));
        assert!(reached(&BTreeMap::new(), &ends));
    }
}
