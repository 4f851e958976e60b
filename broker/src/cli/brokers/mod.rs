//! `klamm brokers`: what brokers there are, and what one may hold and lead. Cordoned (KIP-1066), it gets no new replicas;
//! drained, it gives away those that it has, too; in maintenance, it leads nothing that others can lead.
//!
//! A broker is cordoned, and in maintenance, by its configuration, so that a restart changes nothing about it.

mod list;
mod maintenance;

use clap::Subcommand;
use klamm_client::Client;
use klamm_client::admin::configs::{ConfigChange, Resource};

use super::outcome::BrokerOutcome;
use super::output::print;
use super::reassign::{Carrying, agreed_or_askable, drain};
use super::{Global, Result};

pub(super) use list::{BrokerRow, list};

/// The key of the configuration, and its value for all directories.
const CORDONED: (&str, &str) = ("cordoned.log.dirs", "*");

/// `klamm brokers`.
#[derive(Debug, Subcommand)]
pub(super) enum Brokers {
    /// Show all brokers: what each holds and leads, which are cordoned or in maintenance
    List,
    /// Place no new replicas on a broker
    Cordon {
        /// Broker id
        #[arg(value_parser = clap::value_parser!(i32).range(0..))]
        id: i32,
    },
    /// Let a broker have new replicas again
    Uncordon {
        /// Broker id
        #[arg(value_parser = clap::value_parser!(i32).range(0..))]
        id: i32,
    },
    /// Cordon a broker and move all that it holds to others
    Drain {
        /// Broker id
        #[arg(value_parser = clap::value_parser!(i32).range(0..))]
        id: i32,
        #[command(flatten)]
        carrying: Carrying,
    },
    /// Keep leadership off a broker for a while, as before a restart
    #[command(subcommand)]
    Maintenance(maintenance::Maintenance),
}

pub(super) async fn run(global: Global, command: Brokers) -> Result {
    let client = global.connect().await?;
    match command {
        Brokers::List => print(global.output, &list(&client).await?.1),
        Brokers::Maintenance(command) => maintenance::run(&client, global.output, command).await,
        Brokers::Cordon { id } => {
            cordon(&client, id).await?;
            print(global.output, &BrokerOutcome { id, result: "cordoned" })
        }
        Brokers::Uncordon { id } => {
            let change = ConfigChange::Delete(CORDONED.0.to_owned());
            client.alter_configs(&Resource::Broker(id), &[change], false).await?;
            print(global.output, &BrokerOutcome { id, result: "uncordoned" })
        }
        Brokers::Drain { id, carrying } => {
            agreed_or_askable(&carrying)?;
            drain(&client, global.output, id, &carrying, async || cordon(&client, id).await).await
        }
    }
}

async fn cordon(client: &Client, id: i32) -> Result {
    let change = ConfigChange::Set(CORDONED.0.to_owned(), CORDONED.1.to_owned());
    Ok(client.alter_configs(&Resource::Broker(id), &[change], false).await?)
}
