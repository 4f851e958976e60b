//! `klamm brokers`: what a broker may hold. Cordoned (KIP-1066), it gets no new replicas; drained, it gives away those
//! that it has, too.
//!
//! A broker is cordoned by its configuration, so that a restart changes nothing about it.

use clap::Subcommand;
use klamm_client::Client;
use klamm_client::admin::configs::{ConfigChange, Resource};

use super::outcome::BrokerOutcome;
use super::output::print;
use super::reassign::{Carrying, agreed_or_askable, drain};
use super::{Global, Result};

/// The key of the configuration, and its value for all directories.
const CORDONED: (&str, &str) = ("cordoned.log.dirs", "*");

/// `klamm brokers`.
#[derive(Debug, Subcommand)]
pub(super) enum Brokers {
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
}

pub(super) async fn run(global: Global, command: Brokers) -> Result {
    let client = global.connect().await?;
    match command {
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
            cordon(&client, id).await?;
            drain(&client, global.output, id, &carrying).await
        }
    }
}

async fn cordon(client: &Client, id: i32) -> Result {
    let change = ConfigChange::Set(CORDONED.0.to_owned(), CORDONED.1.to_owned());
    Ok(client.alter_configs(&Resource::Broker(id), &[change], false).await?)
}
