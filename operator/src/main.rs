//! The binary `klamm-operator`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use klamm_operator::settings::Settings;
use klamm_operator::{crd, finalizers, plan, run, words};

/// Runs Klamm on Kubernetes.
#[derive(Parser)]
#[command(name = "klamm-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Look after the resources of a Kubernetes cluster
    Run(Box<Settings>),
    /// Take the operator's finalizers from all resources, after it has been taken away for good
    DropFinalizers(Box<Settings>),
    /// Tell which brokers of a Cluster would be restarted, and why, without doing it
    Plan(plan::Args),
    /// Print the resource types, for `kubectl apply -f -`
    Crds,
}

fn main() -> ExitCode {
    let Err(error) = done(Cli::parse().command) else { return ExitCode::SUCCESS };
    // Nobody is left to be told that this cannot be written.
    let _ = writeln!(std::io::stderr().lock(), "klamm-operator: {}", words::in_a_line(&error));
    ExitCode::FAILURE
}

fn done(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(settings) => to_its_end(run::run(*settings)),
        Command::DropFinalizers(settings) => to_its_end(finalizers::drop_all(*settings)),
        Command::Plan(args) => {
            let text = tokio::runtime::Runtime::new()?.block_on(plan::plan(&args))?;
            std::io::stdout().lock().write_all(text.as_bytes()).context("standard output")
        }
        Command::Crds => print_crds(),
    }
}

/// Runs something until it ends. Nothing outlives it: whoever has lost the Lease must not wait for a name to be resolved.
fn to_its_end(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(work);
    runtime.shutdown_background();
    ended
}

fn print_crds() -> anyhow::Result<()> {
    let mut text = String::new();
    for (_, definition) in crd::definitions() {
        text.push_str("---\n");
        text.push_str(&crd::manifest(&definition)?);
    }
    std::io::stdout().lock().write_all(text.as_bytes()).context("standard output")
}
