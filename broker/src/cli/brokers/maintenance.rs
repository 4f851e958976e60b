//! `klamm brokers maintenance`: a broker that leads nothing others can lead, for a limited time.
//!
//! It is a key of the broker's configuration with the time of its end. The controller moves the leaders, also when it is
//! another one meanwhile, and removes the key when the time has come; here it is only set, and waited for.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Subcommand;
use klamm_client::admin::cluster::RegisteredBroker;
use klamm_client::admin::configs::{ConfigChange, Resource};
use klamm_client::{Client, Cluster};
use klamm_metadata::controller::maintenance::{LONGEST_MS, UNTIL};
use serde::Serialize;
use tokio::time::sleep;

use crate::cli::outcome::BrokerOutcome;
use crate::cli::output::{Format, Show, print};
use crate::cli::time::{now_ms, span_ms};
use crate::cli::{CliError, Result};

/// Pause between two looks at who leads.
const PAUSE: Duration = Duration::from_millis(200);
/// The controller looks every second; who still leads after this time has a reason.
const LIMIT: Duration = Duration::from_secs(30);
/// Partitions that are named where not all are.
const NAMED: usize = 5;

/// `klamm brokers maintenance`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Maintenance {
    /// Have others lead what a broker leads, until the time is over or `stop`
    Start {
        /// Broker id
        #[arg(value_parser = clap::value_parser!(i32).range(0..))]
        id: i32,
        /// For how long, as 90s, 30m or 2h; a week at most
        #[arg(long = "for", value_name = "TIME", default_value = "30m", value_parser = span)]
        span_ms: i64,
        /// Do not wait until others lead
        #[arg(long)]
        no_wait: bool,
    },
    /// Let a broker lead again; what it is the first replica of comes back by itself
    Stop {
        /// Broker id
        #[arg(value_parser = clap::value_parser!(i32).range(0..))]
        id: i32,
    },
}

fn span(text: &str) -> std::result::Result<i64, String> {
    let ms = span_ms(text).filter(|ms| (1..=LONGEST_MS).contains(ms));
    ms.ok_or_else(|| "expected a time such as 90s, 30m or 2h, a week at most".to_owned())
}

/// A broker that is in maintenance now.
#[derive(Debug, Serialize)]
struct Started {
    id: i32,
    result: &'static str,
    /// When it ends by itself, in milliseconds since 1970.
    maintenance_until_ms: i64,
    /// Partitions that it still leads.
    leaders: usize,
    /// Those of them that no other replica can lead, as `TOPIC-PARTITION`.
    only_here: Vec<String>,
}

impl Show for Started {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { id, leaders, only_here, .. } = self;
        match only_here.len() {
            0 => writeln!(out, "broker {id} in maintenance, it leads {leaders} partitions"),
            n => {
                let more = if n > NAMED { ", …" } else { "" };
                let named = only_here.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                writeln!(
                    out,
                    "broker {id} in maintenance, it leads {leaders} partitions; {n} of them nobody else can lead: \
                     {named}{more}"
                )
            }
        }
    }
}

pub(super) async fn run(client: &Client, output: Format, command: Maintenance) -> Result {
    match command {
        Maintenance::Start { id, span_ms, no_wait } => {
            let until = now_ms().saturating_add(span_ms);
            set(client, id, ConfigChange::Set(UNTIL.to_owned(), until.to_string())).await?;
            let (leaders, only_here) = relieved(client, id, if no_wait { Duration::ZERO } else { LIMIT }).await?;
            let late = !no_wait && leaders > only_here.len();
            let result = "maintenance";
            print(output, &Started { id, result, maintenance_until_ms: until, leaders, only_here })?;
            if late {
                let hint = "is there a controller? `klamm quorum describe`; `klamm brokers list` shows who leads";
                return Err(CliError::new(format!("broker {id} still leads what others can lead")).hint(hint));
            }
            Ok(())
        }
        Maintenance::Stop { id } => {
            set(client, id, ConfigChange::Delete(UNTIL.to_owned())).await?;
            print(output, &BrokerOutcome { id, result: "out of maintenance" })
        }
    }
}

async fn set(client: &Client, id: i32, change: ConfigChange) -> Result {
    Ok(client.alter_configs(&Resource::Broker(id), &[change], false).await?)
}

/// Waits until a broker leads only what nobody else can; how much it leads then, and what that is.
async fn relieved(client: &Client, id: i32, limit: Duration) -> Result<(usize, Vec<String>)> {
    let since = Instant::now();
    loop {
        let brokers = client.describe_cluster().await?.brokers;
        let (leaders, only_here) = led(&*client.refresh(None).await?, &brokers, id);
        if leaders == only_here.len() || since.elapsed() >= limit {
            return Ok((leaders, only_here));
        }
        sleep(PAUSE).await;
    }
}

/// How many partitions a broker leads, and those of them that no other broker that is in sync, up and not in maintenance
/// itself can lead.
fn led(cluster: &Cluster, brokers: &[RegisteredBroker], id: i32) -> (usize, Vec<String>) {
    let free = brokers.iter().filter(|b| !b.fenced && b.maintenance_until.is_none() && b.broker.id != id);
    let free: BTreeSet<i32> = free.map(|b| b.broker.id).collect();
    let (mut leaders, mut only_here) = (0, Vec::new());
    for (name, topic) in &cluster.topics {
        for partition in topic.partitions.iter().filter(|p| p.leader == id) {
            leaders += 1;
            if !partition.isr.iter().any(|id| free.contains(id)) {
                only_here.push(format!("{name}-{}", partition.index));
            }
        }
    }
    (leaders, only_here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_bounded() {
        assert_eq!((span("90s"), span("30m"), span("7d")), (Ok(90_000), Ok(1_800_000), Ok(LONGEST_MS)));
        for text in ["0s", "8d", "-5m", "5", "m", "forever", "9223372036854775807d"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_stays_is_named() {
        let shown = |n: usize| {
            let only_here = (0..n).map(|n| format!("t-{n}")).collect();
            let started = Started { id: 1, result: "maintenance", maintenance_until_ms: 0, leaders: n, only_here };
            let mut out = Vec::new();
            started.show(&mut out).map(|()| String::from_utf8_lossy(&out).into_owned()).unwrap_or_default()
        };
        assert_eq!(shown(0), "broker 1 in maintenance, it leads 0 partitions\n");
        assert!(shown(1).ends_with("it leads 1 partitions; 1 of them nobody else can lead: t-0\n"), "{}", shown(1));
        assert!(shown(6).ends_with("t-3, t-4, …\n"), "{}", shown(6));
    }
}
