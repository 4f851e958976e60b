//! `klamm configs`: what topics, brokers and groups are configured with, and changing it while they run.

use std::io::{self, Write};

use clap::{Args, Subcommand, ValueEnum};
use klamm_client::admin::configs::{ConfigChange, ConfigEntry, ConfigSource, Resource};
use serde::Serialize;

use super::input::{KeyValue, key_value};
use super::output::{Show, Table, print};
use super::{CliError, Global, Result};

/// `klamm configs`.
#[derive(Debug, Subcommand)]
pub(super) enum Configs {
    /// Show configs: those that somebody has set, or all
    Describe(Describe),
    /// Set and unset configs
    Alter(Alter),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A topic, by name
    Topic,
    /// One broker, by id
    Broker,
    /// All brokers: the cluster-wide default (takes no name)
    Brokers,
    /// A group, by id
    Group,
}

#[derive(Debug, Args)]
struct Whose {
    /// What kind of thing
    #[arg(value_enum)]
    kind: Kind,
    /// Topic name, broker id or group id
    #[arg(required_if_eq_any([("kind", "topic"), ("kind", "broker"), ("kind", "group")]))]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Describe {
    #[command(flatten)]
    whose: Whose,
    /// Show defaults too
    #[arg(long, short)]
    all: bool,
    /// Show only this key; may be repeated
    #[arg(long, short, value_name = "KEY")]
    key: Vec<String>,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
pub(super) struct Alter {
    #[command(flatten)]
    whose: Whose,
    /// Set a config; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", group = "change", value_parser = key_value)]
    set: Vec<KeyValue>,
    /// Go back to the default; may be repeated
    #[arg(long, short, value_name = "KEY", group = "change")]
    delete: Vec<String>,
    /// Add to a list; may be repeated
    #[arg(long, value_name = "KEY=VALUE", group = "change", value_parser = key_value)]
    append: Vec<KeyValue>,
    /// Take out of a list; may be repeated
    #[arg(long, value_name = "KEY=VALUE", group = "change", value_parser = key_value)]
    subtract: Vec<KeyValue>,
    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
}

impl Whose {
    fn resource(&self) -> Result<Resource> {
        match (self.kind, &self.name) {
            (Kind::Brokers, None) => Ok(Resource::Brokers),
            (Kind::Brokers, Some(_)) => {
                Err(CliError::usage("`brokers` takes no name").hint("`broker ID` is one of them"))
            }
            (Kind::Topic, Some(name)) => Ok(Resource::Topic(name.clone())),
            (Kind::Group, Some(name)) => Ok(Resource::Group(name.clone())),
            (Kind::Broker, Some(name)) => {
                let id = name.parse().ok().filter(|id| *id >= 0);
                id.map(Resource::Broker).ok_or_else(|| CliError::usage(format!("{name:?} is not a broker id")))
            }
            (_, None) => Err(CliError::usage("a name is missing")),
        }
    }
}

/// Whether the arguments make sense together.
#[cfg(test)]
pub(super) fn check(command: &Configs) -> Result {
    let (Configs::Describe(Describe { whose, .. }) | Configs::Alter(Alter { whose, .. })) = command;
    whose.resource().map(|_| ())
}

pub(super) async fn run(global: Global, command: Configs) -> Result {
    match command {
        Configs::Describe(args) => {
            let resource = args.whose.resource()?;
            let keys = (!args.key.is_empty()).then_some(args.key.as_slice());
            let client = global.connect().await?;
            let mut configs = client.describe_configs(&resource, keys).await?;
            let shown = |config: &ConfigEntry| config.source != ConfigSource::Default;
            configs.retain(|config| args.all || keys.is_some() || shown(config));
            configs.sort_by(|a, b| a.name.cmp(&b.name));
            if keys.is_none() {
                // Texts of a page each would bury the values.
                configs.iter_mut().for_each(|config| config.documentation = None);
            }
            print(global.output, &configs.into_iter().map(Described::of).collect::<Vec<_>>())
        }
        Configs::Alter(args) => {
            let resource = args.whose.resource()?;
            let pairs = |pairs: Vec<KeyValue>, change: fn(String, String) -> ConfigChange| {
                pairs.into_iter().map(move |(key, value)| change(key, value))
            };
            let changes: Vec<ConfigChange> = pairs(args.set, ConfigChange::Set)
                .chain(args.delete.into_iter().map(ConfigChange::Delete))
                .chain(pairs(args.append, ConfigChange::Append))
                .chain(pairs(args.subtract, ConfigChange::Subtract))
                .collect();
            let client = global.connect().await?;
            client.alter_configs(&resource, &changes, args.dry_run).await?;
            let altered = Altered { resource: resource.to_string(), changes: changes.len(), dry_run: args.dry_run };
            print(global.output, &altered)
        }
    }
}

#[derive(Debug, Serialize)]
struct Described {
    name: String,
    value: Option<String>,
    /// `topic`, `broker`, `broker-default`, `static`, `default`, …
    source: &'static str,
    read_only: bool,
    sensitive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    documentation: Option<String>,
}

impl Described {
    fn of(config: ConfigEntry) -> Self {
        Self {
            name: config.name,
            value: config.value,
            source: config.source.name(),
            read_only: config.read_only,
            sensitive: config.sensitive,
            documentation: config.documentation,
        }
    }
}

impl Show for Vec<Described> {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new(&["NAME", "VALUE", "SOURCE", "CHANGEABLE"]);
        for config in self {
            let value = match &config.value {
                _ if config.sensitive => "(hidden)".to_owned(),
                None => "(none)".to_owned(),
                Some(value) => value.clone(),
            };
            let changeable = if config.read_only { "no" } else { "yes" };
            table.row([config.name.clone(), value, config.source.to_owned(), changeable.to_owned()]);
        }
        table.write(out)
    }
}

#[derive(Debug, Serialize)]
struct Altered {
    resource: String,
    changes: usize,
    dry_run: bool,
}

impl Show for Altered {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let dry_run = if self.dry_run { " (dry run)" } else { "" };
        let s = if self.changes == 1 { "" } else { "s" };
        writeln!(out, "{}: {} config{s} changed{dry_run}", self.resource, self.changes)
    }
}
