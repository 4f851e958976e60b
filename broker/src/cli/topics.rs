//! `klamm topics`: create, list, describe, alter, delete.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use klamm_client::admin::configs::{ConfigChange, ConfigSource, Resource};
use klamm_client::admin::offsets::{OffsetSpec, Offsets};
use klamm_client::admin::topics::NewTopic;
use klamm_client::{Client, ClientError, Isolation, Partition, Topic, TopicPartition};
use klamm_protocol::error::ErrorCode;
use serde::Serialize;

use super::input::{KeyValue, key_value};
use super::output::{Format, Show, Table, list, or_dash, print};
use super::{CliError, Global, Result};

/// How long `describe` waits for where partitions begin and end.
const BOUNDS_WAIT: Duration = Duration::from_secs(5);

/// `klamm topics`.
#[derive(Debug, Subcommand)]
pub(super) enum Topics {
    /// Create a topic
    Create(Create),
    /// List topics
    #[command(visible_alias = "ls")]
    List(List),
    /// Show topics with their partitions and configs
    Describe {
        /// Topics to show
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Add partitions, and set or unset configs
    Alter(Alter),
    /// Delete topics and their records
    Delete {
        /// Topics to delete
        #[arg(required = true)]
        names: Vec<String>,
        /// Accept that a topic does not exist
        #[arg(long)]
        if_exists: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Name of the topic
    name: String,
    /// Number of partitions [default: the broker's num.partitions]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Copies of each partition [default: the broker's default.replication.factor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// Topic config; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<KeyValue>,
    /// Accept that the topic exists already, whatever it looks like
    #[arg(long)]
    if_not_exists: bool,
    /// Only check whether it could be created
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Show the cluster's own topics too
    #[arg(long, short)]
    all: bool,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
pub(super) struct Alter {
    /// Name of the topic
    name: String,
    /// New number of partitions; it can only grow, and keys move to other partitions
    #[arg(long, short, value_name = "N", group = "change", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Set a topic config; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", group = "change", value_parser = key_value)]
    config: Vec<KeyValue>,
    /// Go back to the default of a topic config; may be repeated
    #[arg(long, value_name = "KEY", group = "change")]
    delete_config: Vec<String>,
    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(global: Global, command: Topics) -> Result {
    let client = global.connect().await?;
    match command {
        Topics::Create(args) => print(global.output, &create(&client, args).await?),
        Topics::List(args) => print(global.output, &list_topics(&client, args).await?),
        Topics::Describe { names } => print(global.output, &describe(&client, &names).await?),
        Topics::Alter(args) => print(global.output, &alter(&client, args).await?),
        Topics::Delete { names, if_exists } => delete(&client, names, if_exists, global.output).await,
    }
}

/// What was done to a topic.
#[derive(Debug, Serialize)]
struct Done {
    name: String,
    /// `created`, `exists`, `altered`, `deleted` or `absent`.
    result: &'static str,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replication_factor: Option<i16>,
}

impl Done {
    fn new(name: &str, result: &'static str, dry_run: bool) -> Self {
        Self { name: name.to_owned(), result, dry_run, id: None, partitions: None, replication_factor: None }
    }
}

impl Show for Done {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let verb = match self.result {
            "exists" => "already exists",
            "absent" => "does not exist",
            done => done,
        };
        let dry_run = if self.dry_run { " (dry run)" } else { "" };
        writeln!(out, "topic {} {verb}{dry_run}", self.name)
    }
}

impl Show for Vec<Done> {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        self.iter().try_for_each(|done| done.show(out))
    }
}

async fn create(client: &Client, args: Create) -> Result<Done> {
    let topic = NewTopic {
        name: args.name.clone(),
        partitions: args.partitions,
        replication_factor: args.replication_factor,
        configs: args.config,
        validate_only: args.dry_run,
        ..Default::default()
    };
    match client.create_topic(&topic).await {
        Ok(created) => Ok(Done {
            id: (!created.id.is_zero()).then(|| created.id.to_string()),
            partitions: Some(created.partitions).filter(|n| *n > 0),
            replication_factor: Some(created.replication_factor).filter(|n| *n > 0),
            ..Done::new(&args.name, "created", args.dry_run)
        }),
        Err(error) if args.if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) => {
            Ok(Done::new(&args.name, "exists", args.dry_run))
        }
        Err(error) => Err(error.into()),
    }
}

/// Deletes what can be deleted, and then reports the first failure.
async fn delete(client: &Client, names: Vec<String>, if_exists: bool, output: Format) -> Result {
    let (mut done, mut failed) = (Vec::new(), None);
    for name in names {
        match client.delete_topic(&name).await {
            Ok(()) => done.push(Done::new(&name, "deleted", false)),
            Err(error) if if_exists && error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                done.push(Done::new(&name, "absent", false));
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    print(output, &done)?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

async fn alter(client: &Client, args: Alter) -> Result<Done> {
    let set = args.config.into_iter().map(|(key, value)| ConfigChange::Set(key, value));
    let delete = args.delete_config.into_iter().map(ConfigChange::Delete);
    let changes: Vec<ConfigChange> = set.chain(delete).collect();
    if !changes.is_empty() {
        client.alter_configs(&Resource::Topic(args.name.clone()), &changes, args.dry_run).await?;
    }
    if let Some(count) = args.partitions {
        let grown = client.create_partitions(&args.name, count, args.dry_run).await;
        grown.map_err(|error| match changes.len() {
            _ if args.dry_run => error.into(),
            0 => error.into(),
            _ => CliError::from(error).hint("the configs have been changed; only the partitions have not"),
        })?;
    }
    Ok(Done { partitions: args.partitions, ..Done::new(&args.name, "altered", args.dry_run) })
}

#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    id: String,
    internal: bool,
    partitions: usize,
    replication_factor: usize,
    under_replicated_partitions: usize,
    offline_partitions: usize,
}

impl Show for Vec<Listed> {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new(&["NAME", "PARTITIONS", "REPLICAS", "UNDER-REPLICATED", "OFFLINE"]);
        for topic in self {
            let numbers = [
                topic.partitions,
                topic.replication_factor,
                topic.under_replicated_partitions,
                topic.offline_partitions,
            ];
            table.row(std::iter::once(topic.name.clone()).chain(numbers.iter().map(usize::to_string)));
        }
        table.write(out)
    }
}

async fn list_topics(client: &Client, args: List) -> Result<Vec<Listed>> {
    let topics = client.topics().await?;
    let shown = topics.into_iter().filter(|topic| args.all || !topic.internal);
    Ok(shown
        .map(|topic| Listed {
            id: topic.id.to_string(),
            internal: topic.internal,
            partitions: topic.partitions.len(),
            replication_factor: topic.partitions.iter().map(|p| p.replicas.len()).max().unwrap_or(0),
            under_replicated_partitions: topic.partitions.iter().filter(|p| p.isr.len() < p.replicas.len()).count(),
            offline_partitions: topic.partitions.iter().filter(|p| p.leader < 0).count(),
            name: topic.name,
        })
        .collect())
}

#[derive(Debug, Serialize)]
struct Described {
    name: String,
    id: String,
    internal: bool,
    replication_factor: usize,
    partitions: Vec<DescribedPartition>,
    /// Those that are set on the topic.
    configs: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Serialize)]
struct DescribedPartition {
    partition: i32,
    /// Broker id; absent while there is none.
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    offline: Vec<i32>,
    start_offset: Option<i64>,
    end_offset: Option<i64>,
}

impl Show for Vec<Described> {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        for (i, topic) in self.iter().enumerate() {
            if i > 0 {
                writeln!(out)?;
            }
            writeln!(out, "Name:        {}", topic.name)?;
            writeln!(out, "Id:          {}", topic.id)?;
            writeln!(out, "Partitions:  {}", topic.partitions.len())?;
            writeln!(out, "Replicas:    {}", topic.replication_factor)?;
            for (i, (key, value)) in topic.configs.iter().enumerate() {
                let label = if i == 0 { "Configs:" } else { "" };
                writeln!(out, "{label:<12} {key}={}", value.as_deref().unwrap_or(""))?;
            }
            writeln!(out)?;
            let mut table = Table::new(&["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "OFFLINE", "START", "END"]);
            for p in &topic.partitions {
                table.row([
                    p.partition.to_string(),
                    p.leader.map_or_else(String::new, |id| id.to_string()),
                    p.leader_epoch.to_string(),
                    list(&p.replicas),
                    list(&p.isr),
                    list(&p.offline),
                    or_dash(p.start_offset),
                    or_dash(p.end_offset),
                ]);
            }
            table.write(out)?;
        }
        Ok(())
    }
}

async fn describe(client: &Client, names: &[String]) -> Result<Vec<Described>> {
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let cluster = client.retry(|| client.refresh(Some(&asked))).await?;
    let mut described = Vec::new();
    for name in names {
        let topic = cluster.topics.get(name);
        let topic = topic.ok_or_else(|| ClientError::Missing { what: format!("topic {name}") })?;
        ClientError::check(format!("topic {name}"), topic.error.code(), None)?;
        let configs = client.describe_configs(&Resource::Topic(name.clone()), None).await?;
        let (starts, ends) = bounds(client, topic).await?;
        let own = configs.into_iter().filter(|config| config.source == ConfigSource::Topic);
        described.push(Described {
            name: name.clone(),
            id: topic.id.to_string(),
            internal: topic.internal,
            replication_factor: topic.partitions.iter().map(|p| p.replicas.len()).max().unwrap_or(0),
            partitions: topic.partitions.iter().map(|p| partition(name, p, &starts, &ends)).collect(),
            configs: own.map(|config| (config.name, config.value)).collect(),
        });
    }
    Ok(described)
}

/// Where partitions begin and end; those without a leader are not asked, and where a leader does not answer soon that
/// is left open: most of all then somebody wants to see the rest.
async fn bounds(client: &Client, topic: &Topic) -> Result<(Offsets, Offsets)> {
    let led = topic.partitions.iter().filter(|p| p.leader >= 0);
    let led: BTreeSet<TopicPartition> = led.map(|p| TopicPartition::new(&topic.name, p.index)).collect();
    let look = |spec| client.list_offsets_within(&led, spec, Isolation::ReadUncommitted, BOUNDS_WAIT);
    Ok(tokio::try_join!(look(OffsetSpec::Earliest), look(OffsetSpec::Latest))?)
}

fn partition(topic: &str, p: &Partition, starts: &Offsets, ends: &Offsets) -> DescribedPartition {
    let at = TopicPartition::new(topic, p.index);
    let offset = |offsets: &Offsets| offsets.get(&at)?.as_ref().ok().map(|listed| listed.offset);
    DescribedPartition {
        partition: p.index,
        leader: (p.leader >= 0).then_some(p.leader),
        leader_epoch: p.leader_epoch,
        replicas: p.replicas.clone(),
        isr: p.isr.clone(),
        offline: p.offline.clone(),
        start_offset: offset(starts),
        end_offset: offset(ends),
    }
}
