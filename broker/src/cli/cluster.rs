//! `klamm cluster`: the brokers, who leads how much, making them even, forgetting one, and electing leaders.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use klamm_client::admin::cluster::Election;
use klamm_client::{Client, ClientError};
use klamm_protocol::error::ErrorCode;
use serde::Serialize;

use super::brokers::{BrokerRow, list};
use super::input::{TopicArg, topic_arg};
use super::outcome::{BrokerOutcome, PartitionOutcome};
use super::output::{Show, print};
use super::reassign::{Balance, balance};
use super::{CliError, Global, Result};

/// `klamm cluster`.
#[derive(Debug, Subcommand)]
pub(super) enum Cluster {
    /// Show the cluster's id and its brokers
    Describe,
    /// Spread replicas, leaders and bytes evenly over the brokers
    Balance(Balance),
    /// Forget a broker that is gone for good
    Unregister {
        /// Broker id
        #[arg(value_parser = clap::value_parser!(i32).range(0..))]
        id: i32,
    },
    /// Give leadership back to the first replica of each partition, or to one that may lack records
    Elect(Elect),
}

#[derive(Debug, Args)]
pub(super) struct Elect {
    /// Only these partitions; may be repeated [default: all]
    #[arg(long, short, value_name = "TOPIC[:PARTITION,...]", value_parser = topic_arg)]
    topic: Vec<TopicArg>,
    /// Where no replica in sync is left, take any that is up: acknowledged records may be lost
    #[arg(long, requires = "topic")]
    unclean: bool,
}

pub(super) async fn run(global: Global, command: Cluster) -> Result {
    let client = global.connect().await?;
    match command {
        Cluster::Describe => print(global.output, &describe(&client).await?),
        Cluster::Balance(args) => balance(&client, global.output, &args).await,
        Cluster::Unregister { id } => {
            client.unregister_broker(id).await.map_err(|error| explain(id, error))?;
            print(global.output, &BrokerOutcome { id, result: "unregistered" })
        }
        Cluster::Elect(args) => {
            let elected = elect(&client, args).await?;
            print(global.output, &elected)?;
            match PartitionOutcome::failed(&elected.0) {
                0 => Ok(()),
                n => Err(CliError::new(format!("{n} of {} partitions got no new leader", elected.0.len()))
                    .hint("`klamm topics describe TOPIC` shows which replicas are in sync and which are offline")),
            }
        }
    }
}

fn explain(id: i32, error: ClientError) -> CliError {
    let hint = match error.code() {
        Some(ErrorCode::BrokerIdNotRegistered) => "`klamm cluster describe` shows the brokers".to_owned(),
        Some(ErrorCode::InvalidRequest) => {
            format!("stop broker {id}, and move its replicas to others first if they shall keep their copies")
        }
        _ => return error.into(),
    };
    CliError::new(error.to_string()).hint(hint)
}

#[derive(Debug, Serialize)]
struct Described {
    cluster_id: String,
    /// The broker that takes controller requests.
    controller: i32,
    brokers: Vec<BrokerRow>,
}

async fn describe(client: &Client) -> Result<Described> {
    let (cluster, brokers) = list(client).await?;
    Ok(Described { cluster_id: cluster.cluster_id, controller: cluster.controller, brokers })
}

impl Show for Described {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "Cluster:      {}", self.cluster_id)?;
        writeln!(out, "Controller:   {}\n", self.controller)?;
        BrokerRow::table(&self.brokers).write(out)
    }
}

/// `elected`, `unchanged` or `failed`.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Elected(Vec<PartitionOutcome>);

async fn elect(client: &Client, args: Elect) -> Result<Elected> {
    let mut partitions = Vec::new();
    for topic in &args.topic {
        partitions.extend(topic.partitions(client).await?);
    }
    let election = if args.unclean { Election::Unclean } else { Election::Preferred };
    let wanted = (!args.topic.is_empty()).then_some(partitions.as_slice());
    let elected = client.elect_leaders(election, wanted).await?;
    let result = |changed: Option<()>| if changed.is_some() { "elected" } else { "unchanged" };
    let outcomes = elected.into_iter().map(|(at, outcome)| PartitionOutcome::new(at, outcome.map(result)));
    Ok(Elected(outcomes.collect()))
}

impl Show for Elected {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let changed: Vec<_> = self.0.iter().filter(|e| e.result != "unchanged").collect();
        if changed.is_empty() {
            return writeln!(out, "nothing to change");
        }
        PartitionOutcome::table(changed).write(out)
    }
}
