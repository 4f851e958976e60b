//! What is being moved, how far it is, and taking it back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use klamm_client::admin::placement::size;
use klamm_client::admin::throttle::Throttled;
use klamm_client::{Client, ClientError, TopicPartition};
use klamm_protocol::ErrorCode;
use serde::Serialize;

use super::carry::left;
use super::progress::bytes;
use crate::cli::Result;
use crate::cli::input::TopicArg;
use crate::cli::outcome::PartitionOutcome;
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
    let sizes = client.replica_sizes(&involved).await;
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

/// Moves that were to be taken back: `cancelled`, `ended` or `failed`.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Cancelled(pub Vec<PartitionOutcome>);

/// Takes moves of these partitions back, or all; and tells what of them is throttled.
pub(super) async fn cancel(client: &Client, topics: &[TopicArg]) -> Result<(Cancelled, Throttled)> {
    let mut named = BTreeSet::new();
    for topic in topics {
        named.extend(topic.partitions(client).await?);
    }
    let moving = client.reassignments((!topics.is_empty()).then_some(&named)).await?;
    let wanted: BTreeMap<TopicPartition, Option<Vec<i32>>> = moving.into_keys().map(|at| (at, None)).collect();
    if wanted.is_empty() {
        return Ok((Cancelled(Vec::new()), Throttled::default()));
    }
    let outcomes = client.alter_reassignments(&wanted).await?.into_iter().map(|(at, outcome)| (at, became(outcome)));
    let outcomes: BTreeMap<TopicPartition, Became> = outcomes.collect();
    let over = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(at, _)| at.clone()).collect();
    let throttled = Throttled::found(client, &over).await?;
    let outcomes = outcomes.into_iter().map(|(at, outcome)| PartitionOutcome::new(at, outcome));
    Ok((Cancelled(outcomes.collect()), throttled))
}

type Became = std::result::Result<&'static str, ClientError>;

/// A move that came to its end after it was listed, and before it could be taken back, is no failure.
fn became(outcome: std::result::Result<(), ClientError>) -> Became {
    match outcome {
        Ok(()) => Ok("cancelled"),
        Err(error) if error.code() == Some(ErrorCode::NoReassignmentInProgress) => Ok("ended"),
        Err(error) => Err(error),
    }
}

impl Show for Cancelled {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.0.is_empty() {
            return writeln!(out, "nothing is being moved");
        }
        PartitionOutcome::table(&self.0).write(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_that_ends_before_it_is_taken_back_is_no_failure() {
        let answered = |code| became(ClientError::check("t-0", ErrorCode::code(code), None));
        assert!(matches!(answered(ErrorCode::None), Ok("cancelled")));
        assert!(matches!(answered(ErrorCode::NoReassignmentInProgress), Ok("ended")));
        assert!(answered(ErrorCode::UnknownTopicOrPartition).is_err());
    }
}
