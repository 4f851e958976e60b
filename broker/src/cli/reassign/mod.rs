//! `klamm reassign`: plans which partitions move where, has them moved, shows what moves, takes moves back; and
//! `klamm cluster balance`, the same for the whole cluster.
//!
//! What should move is decided by the planner, and carried out by the cluster itself. Plans are files that Kafka's
//! kafka-reassign-partitions reads, and the other way round.

mod before;
mod carry;
mod directories;
mod drain;
mod facts;
mod planned;
mod progress;
mod run;
mod status;
mod throttle;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use klamm_client::{Client, TopicPartition};
use klamm_planner::{Assignment, Facts, Plan, Wish};

use self::carry::Step;
use self::planned::Planned;
use self::run::{Run, Work};
use self::throttle::Rate;
use super::input::{TopicArg, read_file, topic_arg};
use super::outcome::PartitionOutcome;
use super::output::{Format, print};
use super::{CliError, Global, Result};

/// The largest file of a plan: room for some 500,000 partitions.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// `klamm reassign`.
#[derive(Debug, Subcommand)]
pub(super) enum Reassign {
    /// Show which partitions would move where; with -o json as a file for `execute`
    Plan(Scope),
    /// Move partitions, as a file says or as planned now, and watch
    Execute(Execute),
    /// Show the partitions that are being moved
    Status,
    /// Take back moves that are not complete, and their throttles
    Cancel {
        /// Only these partitions; may be repeated [default: all]
        #[arg(long, short, value_name = "TOPIC[:PARTITION,...]", value_parser = topic_arg)]
        topic: Vec<TopicArg>,
        /// Leave the throttles as they are
        #[arg(long)]
        preserve_throttles: bool,
    },
    /// Change how fast all that moves is copied, or take all throttles off
    Throttle {
        /// Bytes a second for each broker, or `off`
        #[arg(value_name = "BYTES/S|off", value_parser = throttle::rate)]
        rate: Rate,
    },
}

/// What shall be planned.
#[derive(Debug, Default, Args)]
pub(super) struct Scope {
    /// Move only partitions of these topics
    #[arg(long, value_name = "TOPIC,...", value_delimiter = ',')]
    topics: Vec<String>,
    /// Brokers that shall hold them, evenly
    #[arg(long, value_name = "ID,...", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    brokers: Vec<i32>,
    /// Brokers that shall give everything away
    #[arg(long, value_name = "ID,...", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    drain: Vec<i32>,
    /// Copies that each partition shall have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    replication_factor: Option<u16>,
}

#[derive(Debug, Args)]
pub(super) struct Execute {
    /// Plan to carry out, of `klamm reassign plan -o json` or Kafka's tool; `-` for stdin [default: plan now]
    #[arg(value_name = "FILE", conflicts_with_all = ["topics", "brokers", "drain", "replication_factor"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    carrying: Carrying,
}

/// How a plan is carried out.
#[derive(Debug, Args)]
pub(super) struct Carrying {
    /// Do not ask whether to carry out what was planned
    #[arg(long, short)]
    yes: bool,
    /// Move no more partitions than these at a time
    #[arg(long, value_name = "N", conflicts_with = "no_wait", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    max_moves: u32,
    /// Copy no faster than this, on each broker, also what moves already; taken off at the end
    #[arg(long, value_name = "BYTES/S", conflicts_with = "no_wait", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    throttle: Option<u64>,
    /// Have the moves begun, and leave
    #[arg(long)]
    no_wait: bool,
}

/// `klamm cluster balance`.
#[derive(Debug, Args)]
pub(super) struct Balance {
    /// Only show what would move
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    carrying: Carrying,
}

pub(super) use drain::drain;

pub(super) async fn run(global: Global, command: Reassign) -> Result {
    let client = global.connect().await?;
    match command {
        Reassign::Plan(scope) => {
            let (facts, plan) = plan(&client, &scope).await?;
            print(global.output, &Planned::new(&facts, plan))
        }
        Reassign::Execute(args) => match &args.file {
            Some(file) => {
                let work = of_file(&client, file).await?;
                let mut run = Run::new(&client, &args.carrying);
                run.carry(work).await?;
                run.finish(global.output).await
            }
            None => plan_and_carry_out(&client, global.output, &args.scope, &args.carrying).await,
        },
        Reassign::Status => print(global.output, &status::ongoing(&client).await?),
        Reassign::Throttle { rate } => throttle::change(&client, global.output, rate).await,
        Reassign::Cancel { topic, preserve_throttles } => {
            let (cancelled, throttled) = status::cancel(&client, &topic).await?;
            print(global.output, &cancelled)?;
            match preserve_throttles {
                false => throttle::remove(&client, &throttled).await?,
                true if !throttled.is_empty() => eprintln!("the throttle stays: {}", throttle::OFF),
                true => {}
            }
            match PartitionOutcome::failed(&cancelled.0) {
                0 => Ok(()),
                n => Err(CliError::new(format!("{n} of {} moves could not be taken back", cancelled.0.len()))),
            }
        }
    }
}

/// `klamm cluster balance`: plans over everything, and carries it out.
pub(super) async fn balance(client: &Client, output: Format, args: &Balance) -> Result {
    let scope = Scope::default();
    if args.dry_run {
        let (facts, plan) = plan(client, &scope).await?;
        return print(output, &Planned::new(&facts, plan));
    }
    plan_and_carry_out(client, output, &scope, &args.carrying).await
}

async fn plan(client: &Client, scope: &Scope) -> Result<(Facts, Plan)> {
    let mut facts = client.placement().await?;
    facts::drain(&mut facts, &scope.drain, &scope.brokers)?;
    let wish = wish(&facts, scope);
    let plan = klamm_planner::plan(&facts, &wish).map_err(explain)?;
    for left in &plan.left {
        eprintln!("warning: {}-{} can't move: no replica of it that is up is in sync", left.topic, left.partition);
    }
    Ok((facts, plan))
}

fn wish(facts: &Facts, scope: &Scope) -> Wish {
    let topics: BTreeSet<String> = scope.topics.iter().cloned().collect();
    let chosen = |name: &&String| topics.is_empty() || topics.contains(*name);
    let mut replication = BTreeMap::new();
    if let Some(wanted) = scope.replication_factor {
        let names = facts.partitions.iter().map(|p| &p.topic).chain(&topics).filter(chosen);
        replication = names.map(|name| (name.clone(), usize::from(wanted))).collect();
    }
    Wish {
        // Who asks for something in particular gets that and nothing else.
        even: !scope.brokers.is_empty() || (scope.drain.is_empty() && scope.replication_factor.is_none()),
        topics: (!topics.is_empty()).then_some(topics),
        replication,
        ..Wish::default()
    }
}

fn explain(error: klamm_planner::Error) -> CliError {
    let hint = match &error {
        klamm_planner::Error::TooFewBrokers { .. } => {
            "brokers that are fenced, cordoned or drained get no replicas: `klamm brokers list`; `klamm reassign execute \
             --replication-factor` makes do with fewer"
        }
        klamm_planner::Error::UnknownTopic(_) => "`klamm topics list --all` shows what there is",
        _ => return CliError::new(error.to_string()),
    };
    CliError::new(error.to_string()).hint(hint)
}

async fn plan_and_carry_out(client: &Client, output: Format, scope: &Scope, carrying: &Carrying) -> Result {
    let (facts, plan) = plan(client, scope).await?;
    agreed(&facts, &plan, carrying)?;
    let mut run = Run::new(client, carrying);
    run.carry_plan(&facts, &plan, scope).await?;
    run.finish(output).await
}

/// Asks whether to carry a plan out, unless nobody needs to be asked.
fn agreed(facts: &Facts, plan: &Plan, carrying: &Carrying) -> Result {
    if plan.is_empty() || carrying.yes {
        return Ok(());
    }
    agreed_or_askable(carrying)?;
    confirm(&Planned::new(facts, plan.clone()))
}

/// Refuses to go on where something would have to be asked and nobody can be.
pub(super) fn agreed_or_askable(carrying: &Carrying) -> Result {
    if carrying.yes || (io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(());
    }
    let hint = "`klamm reassign plan` and `klamm cluster balance --dry-run` only show what would move";
    Err(CliError::usage("--yes is needed where nobody can be asked").hint(hint))
}

/// Shows the plan on stderr and asks.
fn confirm(planned: &Planned) -> Result {
    use super::output::Show;
    let mut stderr = io::stderr().lock();
    planned.show(&mut stderr)?;
    write!(stderr, "\nCarry this out? [y/N] ")?;
    stderr.flush()?;
    drop(stderr);
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(CliError::new("nothing was changed")),
    }
}

/// Refuses brokers that nobody knows: no partition of the file moves then, and nothing is throttled.
async fn registered(client: &Client, asked: &[Assignment]) -> Result {
    let known: BTreeSet<i32> = client.describe_cluster().await?.brokers.iter().map(|b| b.broker.id).collect();
    let unknown = asked.iter().find_map(|one| Some((one, one.replicas.iter().find(|id| !known.contains(id))?)));
    let Some((Assignment { topic, partition, .. }, id)) = unknown else { return Ok(()) };
    let why = format!("{topic}-{partition}: no broker {id} is registered");
    Err(CliError::new(why).hint("nothing was changed; `klamm brokers list` shows which there are"))
}

/// What a file asks for and is not so yet.
async fn of_file(client: &Client, file: &Path) -> Result<Work> {
    let bad = |reason: &dyn std::fmt::Display| CliError::usage(format!("{}: {reason}", file.display()));
    let bytes = read_file(file, FILE_BYTES_MAX).map_err(|e| bad(&e))?;
    let text = String::from_utf8(bytes).map_err(|e| bad(&e))?;
    let asked = klamm_planner::read(&text).map_err(|e| bad(&e))?;
    let facts = client.placement().await?;
    let moving = client.reassignments(None).await?;
    let known: BTreeMap<(&str, i32), &klamm_planner::Partition> =
        facts.partitions.iter().map(|p| ((p.topic.as_str(), p.index), p)).collect();
    let mut work = Work::default();
    registered(client, &asked).await?;
    directories::check(client, &asked).await?;
    for Assignment { topic, partition, replicas, .. } in asked {
        let Some(now) = known.get(&(topic.as_str(), partition)) else {
            let hint = "`klamm topics list --all` shows what there is";
            return Err(CliError::new(format!("there is no partition {topic}-{partition}")).hint(hint));
        };
        let at = TopicPartition::new(&topic, partition);
        match moving.get(&at) {
            Some(moving) if moving.target() == replicas => work.before.push(before::step(at, moving, now.bytes)),
            None if now.replicas == replicas => drop(work.settled.insert(at)),
            moving => {
                let from = moving.map_or_else(|| now.replicas.clone(), before::had);
                work.steps.push(Step { at, from, to: replicas, size: now.bytes });
            }
        }
    }
    Ok(work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_planner::Partition;

    fn facts() -> Facts {
        let partition = |topic: &str| Partition { topic: topic.to_owned(), replicas: vec![0], ..Partition::default() };
        Facts { brokers: Vec::new(), partitions: vec![partition("t"), partition("u")] }
    }

    #[test]
    fn brokers_are_made_even_unless_something_else_is_asked_for() {
        assert!(wish(&facts(), &Scope::default()).even);
        assert!(wish(&facts(), &Scope { brokers: vec![0], drain: vec![1], ..Scope::default() }).even);
        assert!(!wish(&facts(), &Scope { drain: vec![1], ..Scope::default() }).even);
        assert!(!wish(&facts(), &Scope { replication_factor: Some(2), ..Scope::default() }).even);
    }

    #[test]
    fn a_replication_factor_is_for_the_topics_that_are_named_or_for_all() {
        let scope = |topics: &[&str]| Scope {
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            replication_factor: Some(3),
            ..Scope::default()
        };
        let names = |scope: &Scope| wish(&facts(), scope).replication.into_keys().collect::<Vec<_>>();
        assert_eq!(names(&scope(&[])), ["t", "u"]);
        assert_eq!(names(&scope(&["u"])), ["u"]);
        assert_eq!(names(&scope(&["v"])), ["v"], "the planner says that there is none");
    }
}
