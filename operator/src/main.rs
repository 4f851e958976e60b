//! The binary `klamm-operator`.

use std::io::Write;

use anyhow::Context;
use clap::{Parser, Subcommand};
use klamm_operator::settings::Settings;
use klamm_operator::{crd, finalizers, run};

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
    /// Print the resource types, for `kubectl apply -f -`
    Crds,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run(settings) => tokio::runtime::Runtime::new()?.block_on(run::run(*settings)),
        Command::DropFinalizers(settings) => tokio::runtime::Runtime::new()?.block_on(finalizers::drop_all(*settings)),
        Command::Crds => print_crds(),
    }
}

fn print_crds() -> anyhow::Result<()> {
    let mut text = String::new();
    for (_, definition) in crd::definitions() {
        text.push_str("---\n");
        text.push_str(&crd::manifest(&definition)?);
    }
    std::io::stdout().lock().write_all(text.as_bytes()).context("standard output")
}
