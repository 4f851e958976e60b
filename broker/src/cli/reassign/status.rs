//! What is being moved, how far it is, and taking it back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use klamm_client::{Client, TopicPartition};
use serde::Serialize;

use super::carry::left;
use super::facts::{size, sizes};
use super::progress::bytes;
use crate::cli::Result;
use crate::cli::input::TopicArg;
use crate::cli::output::{Show, Table, list};

/// A partition that is being moved.
#[derive(Debug, Serialize)]
pub(super) struct Ongoing {
    topic: String,
    partition: i32,
    /// Those that it is to have.
    replicas: Vec<i32>,
    adding: Vec<i32>,
    removing: Vec<i32>,
    /// What is copied in all; null where no broker tells.
    bytes: Option<u64>,
    bytes_left: Option<u64>,
}

/// All partitions that are being moved.
pub(super) async fn ongoing(client: &Client) -> Result<Vec<Ongoing>> {
    let moving = client.reassignments(None).await?;
    let topics: BTreeSet<&str> = moving.keys().map(|at| at.topic.as_str()).collect();
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let cluster = client.refresh(Some(&topics.into_iter().collect::<Vec<_>>())).await?;
    let leader = |at: &TopicPartition| cluster.partition(&at.topic, at.partition).map_or(-1, |now| now.leader);
    let mut involved: BTreeSet<i32> =
        moving.keys().map(leader).chain(moving.values().flat_map(|m| m.adding.clone())).collect();
    involved.retain(|id| cluster.brokers.contains_key(id));
    let sizes = sizes(client, &involved).await;
    let rows = moving.into_iter().map(|(at, moving)| Ongoing {
        replicas: moving.target(),
        bytes: size(&sizes, &at, leader(&at)).map(|size| size.saturating_mul(moving.adding.len() as u64)),
        bytes_left: left(&sizes, &at, leader(&at), moving.adding.iter().copied()),
        adding: moving.adding,
        removing: moving.removing,
        partition: at.partition,
        topic: at.topic,
    });
    Ok(rows.collect())
}

impl Show for Vec<Ongoing> {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.is_empty() {
            return writeln!(out, "nothing is being moved");
        }
        let mut table = Table::new(&["TOPIC", "PARTITION", "REPLICAS", "ADDING", "REMOVING", "BYTES", "LEFT"]);
        let size = |size: Option<u64>| size.map(bytes).unwrap_or_default();
        for one in self {
            table.row([
                one.topic.clone(),
                one.partition.to_string(),
                list(&one.replicas),
                list(&one.adding),
                list(&one.removing),
                size(one.bytes),
                size(one.bytes_left),
            ]);
        }
        table.write(out)?;
        let left = self.iter().filter_map(|one| one.bytes_left).fold(0, u64::saturating_add);
        writeln!(out, "\n{} partitions, {} left", self.len(), bytes(left))
    }
}

/// A move that was to be taken back.
#[derive(Debug, Serialize)]
pub(super) struct Cancelled {
    topic: String,
    partition: i32,
    /// `cancelled` or `failed`.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Takes moves of these partitions back, or all; says how many could not be.
pub(super) async fn cancel(client: &Client, topics: &[TopicArg]) -> Result<(Vec<Cancelled>, usize)> {
    let mut named = BTreeSet::new();
    for topic in topics {
        named.extend(topic.partitions(client).await?);
    }
    let moving = client.reassignments((!topics.is_empty()).then_some(&named)).await?;
    let wanted: BTreeMap<TopicPartition, Option<Vec<i32>>> = moving.into_keys().map(|at| (at, None)).collect();
    if wanted.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let mut failed = 0;
    let rows = client.alter_reassignments(&wanted).await?.into_iter().map(|(at, outcome)| {
        let (result, error) = match outcome {
            Ok(()) => ("cancelled", None),
            Err(error) => {
                failed += 1;
                ("failed", Some(error.to_string()))
            }
        };
        Cancelled { topic: at.topic, partition: at.partition, result, error }
    });
    let rows = rows.collect();
    Ok((rows, failed))
}

impl Show for Vec<Cancelled> {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.is_empty() {
            return writeln!(out, "nothing is being moved");
        }
        let mut table = Table::new(&["TOPIC", "PARTITION", "RESULT", "ERROR"]);
        for one in self {
            let error = one.error.clone().unwrap_or_default();
            table.row([one.topic.clone(), one.partition.to_string(), one.result.to_owned(), error]);
        }
        table.write(out)
    }
}
