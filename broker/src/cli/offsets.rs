//! `klamm groups reset-offsets`: where a group begins the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use clap::{ArgGroup, Args};
use klamm_client::admin::offsets::{CommittedOffset, OffsetSpec};
use klamm_client::{Client, Isolation, TopicPartition};
use serde::Serialize;

use super::input::{TopicArg, topic_arg};
use super::output::{Show, Table, or_dash};
use super::time::parse_time;
use super::{CliError, Result};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("scope").required(true).args(["topic", "all_topics"])))]
#[command(group(ArgGroup::new("target").required(true)))]
pub(super) struct ResetOffsets {
    /// The group; it need not exist yet
    group: String,
    /// Topic, or some of its partitions; may be repeated
    #[arg(long, short, value_name = "TOPIC[:0,1,...]", value_parser = topic_arg)]
    topic: Vec<TopicArg>,
    /// All partitions that the group has committed offsets for
    #[arg(long)]
    all_topics: bool,
    /// To the oldest record
    #[arg(long, group = "target")]
    to_earliest: bool,
    /// To the end
    #[arg(long, group = "target")]
    to_latest: bool,
    /// To this offset, or the nearest that exists
    #[arg(long, group = "target", value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first record at or after this time: 2026-11-21T10:00:00Z, milliseconds since 1970, or 15m (ago)
    #[arg(long, group = "target", value_name = "TIME", value_parser = parse_time)]
    to_timestamp: Option<i64>,
    /// By this many records forward, or backward when negative
    #[arg(long, group = "target", value_name = "N", allow_negative_numbers = true)]
    shift_by: Option<i64>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

/// What was moved.
#[derive(Debug, Serialize)]
pub(super) struct Moved {
    group: String,
    dry_run: bool,
    partitions: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    topic: String,
    partition: i32,
    old_offset: Option<i64>,
    new_offset: i64,
}

impl Show for Moved {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new(&["TOPIC", "PARTITION", "OLD", "NEW"]);
        for row in &self.partitions {
            let (partition, new) = (row.partition.to_string(), row.new_offset.to_string());
            table.row([row.topic.clone(), partition, or_dash(row.old_offset), new]);
        }
        table.write(out)?;
        if self.dry_run { writeln!(out, "\nNothing was changed (dry run).") } else { Ok(()) }
    }
}

pub(super) async fn reset(client: &Client, args: ResetOffsets) -> Result<Moved> {
    let committed = client.group_offsets(&args.group, false).await?;
    let mut chosen = BTreeSet::new();
    for topic in &args.topic {
        chosen.extend(topic.partitions(client).await?);
    }
    if args.all_topics {
        chosen.extend(committed.keys().cloned());
    }
    if chosen.is_empty() {
        return Err(CliError::new(format!("group {} has committed no offsets", args.group))
            .hint("--topic TOPIC names what it is to read"));
    }
    let targets = targets(client, &args, &chosen, &committed).await?;
    let offsets: BTreeMap<TopicPartition, CommittedOffset> = targets
        .iter()
        .map(|(at, &offset)| (at.clone(), CommittedOffset { offset, leader_epoch: -1, metadata: String::new() }))
        .collect();
    if !args.dry_run {
        client.commit_offsets(&args.group, None, &offsets).await?;
    }
    let rows = targets.into_iter().map(|(at, new_offset)| Row {
        old_offset: committed.get(&at).map(|c| c.offset),
        new_offset,
        topic: at.topic,
        partition: at.partition,
    });
    Ok(Moved { group: args.group, dry_run: args.dry_run, partitions: rows.collect() })
}

async fn targets(
    client: &Client,
    args: &ResetOffsets,
    chosen: &BTreeSet<TopicPartition>,
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
) -> Result<BTreeMap<TopicPartition, i64>> {
    let starts = listed(client, chosen, OffsetSpec::Earliest).await?;
    let ends = listed(client, chosen, OffsetSpec::Latest).await?;
    let by_time = match args.to_timestamp {
        Some(ms) => listed(client, chosen, OffsetSpec::Timestamp(ms)).await?,
        None => BTreeMap::new(),
    };
    let mut targets = BTreeMap::new();
    for (at, &start) in &starts {
        let end = ends.get(at).copied().unwrap_or(start);
        let wanted = if args.to_latest {
            end
        } else if let Some(offset) = args.to_offset {
            offset
        } else if let Some(offset) = by_time.get(at) {
            // No record that late: the end.
            if *offset < 0 { end } else { *offset }
        } else if let Some(by) = args.shift_by {
            let from = committed.get(at).ok_or_else(|| {
                CliError::new(format!("group {} has committed no offset for {at} to shift", args.group))
                    .hint("--to-earliest or --to-latest gives it one")
            })?;
            from.offset.saturating_add(by)
        } else {
            start
        };
        targets.insert(at.clone(), wanted.clamp(start, end.max(start)));
    }
    Ok(targets)
}

/// One offset of each partition, or the first error.
pub(super) async fn listed(
    client: &Client,
    partitions: &BTreeSet<TopicPartition>,
    spec: OffsetSpec,
) -> Result<BTreeMap<TopicPartition, i64>> {
    let mut offsets = BTreeMap::new();
    for (at, found) in client.list_offsets(partitions, spec, Isolation::ReadUncommitted).await? {
        offsets.insert(at, found?.offset);
    }
    Ok(offsets)
}
