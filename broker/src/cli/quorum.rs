//! `klamm quorum`: who votes on cluster metadata, how far each copy is, and moving seats.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use klamm_client::admin::cluster::{QuorumDescription, QuorumNode};
use klamm_client::{Client, ClientError};
use klamm_protocol::Uuid;
use serde::Serialize;

use super::output::{Show, Table, or_dash, print};
use super::time::now_ms;
use super::{CliError, Global, Result};

/// `klamm quorum`.
#[derive(Debug, Subcommand)]
pub(super) enum Quorum {
    /// Show who leads, who votes, and how far each copy of the metadata log is
    Describe,
    /// Give a node a seat. Klamm seats the lowest node ids by itself
    Add(Add),
    /// Take a node's seat away. Klamm gives it back to a node that runs and has one of the lowest ids
    Remove(Remove),
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Node id
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    id: i32,
    /// Its controller listener
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    address: (String, u16),
    /// Id of its log directory [default: what the quorum has heard from the node]
    #[arg(long, value_name = "UUID", value_parser = uuid)]
    directory: Option<Uuid>,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// Node id
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    id: i32,
    /// Id of its log directory [default: what the quorum has heard from the node]
    #[arg(long, value_name = "UUID", value_parser = uuid)]
    directory: Option<Uuid>,
}

fn address(text: &str) -> std::result::Result<(String, u16), String> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parts {
        Some((host, port)) if !host.is_empty() && port != 0 => {
            Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
        }
        _ => Err("expected HOST:PORT".to_owned()),
    }
}

fn uuid(text: &str) -> std::result::Result<Uuid, String> {
    text.parse().map_err(|_| "expected an id as `klamm quorum describe` shows it".to_owned())
}

pub(super) async fn run(global: Global, command: Quorum) -> Result {
    let client = global.connect().await?;
    match command {
        Quorum::Describe => print(global.output, &Described::of(client.describe_quorum().await?, now_ms())),
        Quorum::Add(args) => {
            let directory = match args.directory {
                Some(directory) => directory,
                None => known(&client, args.id, false).await?.directory,
            };
            let (host, port) = &args.address;
            client.add_voter(args.id, directory, (host, *port)).await.map_err(explain)?;
            print(global.output, &Changed { id: args.id, result: "voter" })
        }
        Quorum::Remove(args) => {
            let directory = match args.directory {
                Some(directory) => directory,
                None => known(&client, args.id, true).await?.directory,
            };
            client.remove_voter(args.id, directory).await.map_err(explain)?;
            print(global.output, &Changed { id: args.id, result: "removed" })
        }
    }
}

/// The node as the quorum knows it; the voter, when another node goes by its id.
async fn known(client: &Client, id: i32, removed: bool) -> Result<QuorumNode> {
    let quorum = client.describe_quorum().await?;
    // Voters come first. A member without a vote can be removed as well: the quorum knows which is one.
    let found = quorum.nodes.into_iter().find(|node| node.id == id);
    found.ok_or_else(|| {
        if removed {
            CliError::new(format!("node {id} does not vote")).hint("`klamm quorum describe` shows who does")
        } else {
            CliError::new(format!("the quorum has not heard from node {id}"))
                .hint("start it with controller.quorum.bootstrap.servers, or name its disk with --directory")
        }
    })
}

fn explain(error: ClientError) -> CliError {
    use klamm_protocol::error::ErrorCode::{DuplicateVoter, RequestTimedOut, VoterNotFound};
    let hint = match error.code() {
        Some(DuplicateVoter) => "it has its seat already: `klamm quorum describe`",
        Some(VoterNotFound) => "`klamm quorum describe` shows who votes, and the id of each voter's directory",
        Some(RequestTimedOut) => "a majority of the voters, and the node itself, must be up: `klamm quorum describe`",
        _ => return error.into(),
    };
    CliError::new(error.to_string()).hint(hint)
}

#[derive(Debug, Serialize)]
struct Described {
    /// Null while nobody leads.
    leader: Option<i32>,
    epoch: i32,
    high_watermark: i64,
    nodes: Vec<Node>,
}

#[derive(Debug, Serialize)]
struct Node {
    id: i32,
    /// `leader`, `voter` or `observer`.
    role: &'static str,
    address: Option<String>,
    directory: String,
    log_end_offset: Option<i64>,
    /// Entries that it lacks.
    lag: Option<i64>,
    /// Milliseconds since it was heard.
    last_heard_ms: Option<i64>,
    /// Milliseconds since it last had everything.
    caught_up_ms: Option<i64>,
}

impl Described {
    fn of(quorum: QuorumDescription, now_ms: i64) -> Self {
        let known = |n: i64| (n >= 0).then_some(n);
        let end = quorum.nodes.iter().find(|n| n.id == quorum.leader).map(|n| n.log_end_offset).and_then(known);
        let nodes = quorum.nodes.into_iter().map(|n| Node {
            role: match n.votes {
                _ if n.id == quorum.leader => "leader",
                true => "voter",
                false => "observer",
            },
            id: n.id,
            address: n.address,
            directory: n.directory.to_string(),
            log_end_offset: known(n.log_end_offset),
            lag: end.zip(known(n.log_end_offset)).map(|(end, at)| (end - at).max(0)),
            last_heard_ms: known(n.last_fetch_ms).map(|at| (now_ms - at).max(0)),
            caught_up_ms: known(n.last_caught_up_ms).map(|at| (now_ms - at).max(0)),
        });
        Self {
            leader: known(quorum.leader.into()).map(|_| quorum.leader),
            epoch: quorum.epoch,
            high_watermark: quorum.high_watermark,
            nodes: nodes.collect(),
        }
    }
}

impl Show for Described {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "Leader:      {}", self.leader.map_or_else(|| "none".to_owned(), |id| id.to_string()))?;
        writeln!(out, "Epoch:       {}", self.epoch)?;
        writeln!(out, "Committed:   {}\n", self.high_watermark)?;
        let mut table = Table::new(&["NODE", "ROLE", "ADDRESS", "END", "LAG", "HEARD", "CAUGHT UP", "DIRECTORY"]);
        let ago = |ms: Option<i64>| ms.map_or_else(String::new, |ms| format!("{}.{} s", ms / 1000, ms % 1000 / 100));
        for n in &self.nodes {
            table.row([
                n.id.to_string(),
                n.role.to_owned(),
                n.address.clone().unwrap_or_default(),
                or_dash(n.log_end_offset),
                or_dash(n.lag),
                ago(n.last_heard_ms),
                ago(n.caught_up_ms),
                n.directory.clone(),
            ]);
        }
        table.write(out)
    }
}

#[derive(Debug, Serialize)]
struct Changed {
    id: i32,
    result: &'static str,
}

impl Show for Changed {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        match self.result {
            "voter" => writeln!(out, "node {} votes", self.id),
            _ => writeln!(out, "node {} no longer votes", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_at_the_last_colon() {
        assert_eq!(address("h:9093"), Ok(("h".to_owned(), 9093)));
        assert_eq!(address("[::1]:9093"), Ok(("::1".to_owned(), 9093)));
        for bad in ["h", ":9093", "h:0", "h:x"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_lag_is_that_behind_the_leader() {
        let node = |id, end| QuorumNode {
            id,
            votes: id < 2,
            address: None,
            directory: Uuid([1; 16]),
            log_end_offset: end,
            last_fetch_ms: 900,
            last_caught_up_ms: -1,
        };
        let nodes = vec![node(0, 10), node(1, 7), node(2, -1)];
        let described = Described::of(QuorumDescription { leader: 0, epoch: 3, high_watermark: 9, nodes }, 1_000);
        let seen: Vec<_> = described.nodes.iter().map(|n| (n.role, n.lag, n.last_heard_ms, n.caught_up_ms)).collect();
        let expected = [
            ("leader", Some(0), Some(100), None),
            ("voter", Some(3), Some(100), None),
            ("observer", None, Some(100), None),
        ];
        assert_eq!(seen, expected);
    }
}
