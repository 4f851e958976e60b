//! The binary `klamm-operator`.

use std::io::Write;

use anyhow::Context;
use clap::{Parser, Subcommand};
use klamm_operator::crd;

/// Runs Klamm on Kubernetes.
#[derive(Parser)]
#[command(name = "klamm-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the resource types, for `kubectl apply -f -`
    Crds,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Crds => print_crds(),
    }
}

fn print_crds() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (_, definition) in crd::definitions() {
        writeln!(out, "---")
            .and_then(|()| write!(out, "{}", crd::manifest(&definition).map_err(std::io::Error::other)?))
            .context("standard output")?;
    }
    Ok(())
}
