//! `klamm brokers drain`: everything that one broker holds goes to others, and nothing new comes.
//!
//! What counts is the broker: it is drained when it holds nothing. Others may move partitions at the same time, perhaps
//! to drain another broker, so that moves are refused or replaced and new ones have to be planned; a partition that
//! leaves the broker by a move of somebody else leaves it all the same.

use std::time::Duration;

use klamm_client::{Client, TopicPartition};
use tokio::time::{Instant, sleep};

use super::run::Run;
use super::{Carrying, Scope, agreed, plan};
use crate::cli::consume::interrupted;
use crate::cli::output::Format;
use crate::cli::{CliError, Result};

/// Plans that are made where others undo what was planned before.
const PLANS: usize = 10;
/// Pauses between two looks at what the broker still holds.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));
/// How long the controller may take to know that a broker is cordoned: it hears it from the broker.
const CORDONED: Duration = Duration::from_secs(5);
/// Partitions that are named where not all are.
const NAMED: usize = 5;

/// Drains a broker. `cordon` is called once it is certain that the broker can give everything away and somebody agreed.
pub(in crate::cli) async fn drain(
    client: &Client,
    output: Format,
    broker: i32,
    carrying: &Carrying,
    cordon: impl AsyncFnOnce() -> Result,
) -> Result {
    let scope = Scope { drain: vec![broker], ..Scope::default() };
    let (mut facts, mut planned) = plan(client, &scope).await?;
    agreed(&facts, &planned, carrying)?;
    cordon().await?;
    until_cordoned(client, broker).await?;
    let mut run = Run::new(client, carrying);
    let mut plans = 1;
    let stays = loop {
        run.carry_plan(&facts, &planned, &scope).await?;
        if !run.waits() {
            return run.finish(output).await;
        }
        let stays = tokio::select! {
            stays = until_left(client, broker) => stays,
            () = interrupted() => Err(CliError::new("stopped watching")),
        };
        let stays = stays.map_err(|e| run.throttle_stays(e))?;
        if stays.is_empty() || plans == PLANS {
            break stays;
        }
        (facts, planned) = plan(client, &scope).await.map_err(|e| run.throttle_stays(e))?;
        if planned.moves.is_empty() {
            break stays;
        }
        plans += 1;
    };
    run.end(output).await?;
    if stays.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = stays.iter().take(NAMED).map(TopicPartition::to_string).collect();
    let more = if stays.len() > NAMED { ", …" } else { "" };
    let why = format!("broker {broker} still holds {} partitions: {}{more}", stays.len(), named.join(", "));
    Err(CliError::new(why).hint("the same command again plans anew; `klamm reassign status` shows what others move"))
}

/// Waits until the controller lets nothing more land on a broker. One that is down can't tell it; nothing lands there.
async fn until_cordoned(client: &Client, broker: i32) -> Result {
    let give_up = Instant::now() + CORDONED;
    while Instant::now() < give_up {
        let brokers = client.describe_cluster().await?.brokers;
        if !brokers.iter().any(|b| b.broker.id == broker && !b.fenced && !b.cordoned) {
            return Ok(());
        }
        sleep(PAUSE.0).await;
    }
    Ok(())
}

/// Waits as long as all that a broker holds is leaving it, by whoever's moves; then says what stays there.
async fn until_left(client: &Client, broker: i32) -> Result<Vec<TopicPartition>> {
    let mut pause = PAUSE.0;
    let mut told = false;
    loop {
        let moving = client.reassignments(None).await?;
        let cluster = client.refresh(None).await?;
        let partitions = cluster.topics.values().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)));
        let held = partitions.filter(|(_, p)| p.replicas.contains(&broker));
        let held = held.map(|(topic, p)| TopicPartition::new(&topic.name, p.index));
        let (leaving, stays): (Vec<_>, Vec<_>) =
            held.partition(|at| moving.get(at).is_some_and(|moving| !moving.target().contains(&broker)));
        if leaving.is_empty() || !stays.is_empty() {
            return Ok(stays);
        }
        if !told {
            eprintln!("{} partitions leave broker {broker} by moves that somebody else asked for", leaving.len());
            told = true;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}
