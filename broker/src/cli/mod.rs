//! The command line: arguments, and from there to one file per command.
//!
//! Everything but `klamm broker` and `klamm log` is a client that speaks the Kafka protocol, so it serves any
//! cluster. Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 the operation failed, 2 the
//! arguments are wrong; `klamm broker` has its own, see docs/cli.md.

mod broker;
mod brokers;
mod cluster;
mod configs;
mod consume;
mod error;
mod groups;
mod input;
mod log;
mod offsets;
mod outcome;
mod output;
mod produce;
mod quorum;
mod reassign;
mod record;
mod secure;
mod time;
mod topics;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use klamm_client::{Client, ClientOptions};

pub use error::CliError;
pub use output::Format;

/// Result of a command.
pub type Result<T = (), E = CliError> = std::result::Result<T, E>;

/// Apache Kafka as one small binary: the broker, and the tools to work with any Kafka cluster.
#[derive(Debug, Parser)]
#[command(name = "klamm", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Arguments that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Brokers to ask first: HOST:PORT[,HOST:PORT...]
    #[arg(long, short, global = true, value_name = "HOST:PORT", env = "KLAMM_BOOTSTRAP")]
    #[arg(default_value = "127.0.0.1:9092", hide_env_values = true)]
    bootstrap: String,
    /// How results are printed: table, json or yaml
    #[arg(long, short, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    #[arg(hide_possible_values = true)]
    output: Format,
    /// Time limit for an operation with all its retries
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Properties file of Kafka's tools: security.protocol, ssl.*
    #[arg(long, global = true, value_name = "FILE", env = "KLAMM_COMMAND_CONFIG", hide_env_values = true)]
    command_config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker
    Broker(broker::BrokerArgs),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand, visible_alias = "topic")]
    Topics(topics::Topics),
    /// Show and change configs of topics, brokers and groups
    #[command(subcommand, visible_alias = "config")]
    Configs(configs::Configs),
    /// List, describe and delete groups, and move their offsets
    #[command(subcommand, visible_alias = "group")]
    Groups(groups::Groups),
    /// Show brokers, make them even, forget one that is gone, elect leaders
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Move partitions to other brokers: plan, carry out, watch, take back
    #[command(subcommand)]
    Reassign(reassign::Reassign),
    /// Keep replicas off a broker
    #[command(subcommand)]
    Brokers(brokers::Brokers),
    /// Show the metadata quorum, and move its seats
    #[command(subcommand)]
    Quorum(quorum::Quorum),
    /// Write records from stdin, one per line
    Produce(produce::ProduceArgs),
    /// Read records
    Consume(consume::ConsumeArgs),
    /// Look at files of a log directory, without a broker
    #[command(subcommand)]
    Log(log::LogCommand),
}

/// Parses the process's arguments and runs what they say.
pub fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    match command {
        Command::Broker(args) => broker::run(args),
        Command::Topics(command) => run(topics::run(global, command)),
        Command::Configs(command) => run(configs::run(global, command)),
        Command::Groups(command) => run(groups::run(global, command)),
        Command::Cluster(command) => run(cluster::run(global, command)),
        Command::Reassign(command) => run(reassign::run(global, command)),
        Command::Brokers(command) => run(brokers::run(global, command)),
        Command::Quorum(command) => run(quorum::run(global, command)),
        Command::Produce(args) => run(produce::run(global, args)),
        Command::Consume(args) => run(consume::run(global, args)),
        Command::Log(command) => run(log::run(global, command)),
    }
}

impl Global {
    async fn connect(&self) -> Result<Client> {
        let mut options = ClientOptions { api_timeout: Duration::from_secs(self.timeout), ..Default::default() };
        options.connection.client_id = "klamm-cli".to_owned();
        options.connection.request_timeout = options.connection.request_timeout.min(options.api_timeout);
        options.connection.connect_timeout = options.connection.connect_timeout.min(options.api_timeout);
        if let Some(file) = &self.command_config {
            options.connection.tls = secure::read(file)?;
        }
        Ok(Client::connect(&self.bootstrap, options).await?)
    }
}

/// Runs a command on a small runtime. Two threads: one may block on stdout while the other keeps a
/// group membership alive.
fn run(command: impl Future<Output = Result>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(command);
            // A thread that waits in a read of stdin must not keep the process.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(CliError::new(format!("cannot start: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> std::result::Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_argument_tables_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_arguments_may_stand_anywhere() {
        for line in [
            "klamm --bootstrap b:1 -o json topics list",
            "klamm topics --bootstrap b:1 -o json list",
            "klamm topics list -b b:1 --output json",
        ] {
            let cli = parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!((cli.global.bootstrap.as_str(), cli.global.output), ("b:1", Format::Json));
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for line in [
            "klamm",
            "klamm topics",
            "klamm topics create",
            "klamm topics create t --partitions 0",
            "klamm topics create t --config novalue",
            "klamm topics alter t",
            "klamm topics list -o xml",
            "klamm consume t --offset 1 --from-beginning",
            "klamm consume t --group g --partition 1",
            "klamm consume t --print-key --format %s",
            "klamm produce t --acks 2",
            "klamm produce t --compression rar",
            "klamm produce t --header novalue",
            "klamm groups reset-offsets g --all-topics",
            "klamm groups reset-offsets g --to-earliest",
            "klamm groups reset-offsets g --all-topics --to-earliest --to-latest",
            "klamm configs alter topic t",
            "klamm configs describe topic",
            "klamm configs describe brokers 1",
            "klamm configs describe broker one",
            "klamm cluster unregister",
            "klamm cluster unregister x",
            "klamm cluster elect --unclean",
            "klamm cluster balance --dry-run --yes",
            "klamm cluster balance --no-wait --max-moves 3",
            "klamm reassign",
            "klamm reassign plan --drain x",
            "klamm reassign plan --replication-factor 0",
            "klamm reassign execute plan.json --drain 3",
            "klamm reassign execute --max-moves 0 --yes",
            "klamm reassign cancel t",
            "klamm quorum add 3",
            "klamm quorum add 3 --address 9093",
            "klamm quorum remove 3 --directory short",
            "klamm log",
            "klamm log dump",
            "klamm log verify",
        ] {
            let refused = match parse(line) {
                Err(_) => true,
                // Some rules span arguments in ways that only the command itself can check.
                Ok(cli) => match cli.command {
                    Command::Configs(command) => configs::check(&command).is_err(),
                    _ => false,
                },
            };
            assert!(refused, "accepted: {line}");
        }
    }

    #[test]
    fn usual_lines_are_accepted() {
        for line in [
            "klamm topics create t --partitions 3 --replication-factor 1 --config a=b --config c=d=e --if-not-exists",
            "klamm topics alter t --partitions 6 --config a=b --delete-config c",
            "klamm topics delete t u --if-exists",
            "klamm topic ls",
            "klamm consume t --from-beginning --max-messages 3 --exit-at-end",
            "klamm consume t --offset -5 --partition 0",
            "klamm consume t --from-timestamp 2026-11-21T10:00:00Z",
            "klamm consume t u --group g -o json",
            "klamm produce t --key-separator : --header a=b --acks all --idempotent=false",
            "klamm groups reset-offsets g --topic t:0,1 --to-offset 5 --dry-run",
            "klamm groups reset-offsets g --all-topics --shift-by -10",
            "klamm configs alter broker 1 --set log.cleaner.threads=2",
            "klamm broker --config f --set a=b --set c=d",
            "klamm cluster describe",
            "klamm cluster elect --topic t:0,1 --unclean",
            "klamm cluster balance --dry-run",
            "klamm cluster balance --yes --max-moves 3",
            "klamm reassign plan --topics a,b --brokers 0,1,2 -o json",
            "klamm reassign plan --drain 3 --drain 4 --replication-factor 2",
            "klamm reassign execute plan.json --no-wait",
            "klamm reassign execute --drain 3 --yes",
            "klamm reassign status -o json",
            "klamm reassign cancel --topic t:0,1 --topic u",
            "klamm quorum describe -o json",
            "klamm quorum add 3 --address h:9093",
            "klamm quorum remove 3",
            "klamm log verify d e/f-0 -o json",
            "klamm log dump d/00000000000000000000.log --batches --from 17",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }
}
