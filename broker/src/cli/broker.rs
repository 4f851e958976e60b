//! `klamm broker`: reads the configuration and runs a broker until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

#[derive(Debug, Args)]
pub(super) struct BrokerArgs {
    /// Configuration file in Kafka's .properties format
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a configuration key, over file and environment; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(super) fn run(args: BrokerArgs) -> ExitCode {
    match crate::config::BrokerConfig::load(args.config.as_deref(), crate::config::environment(), &args.set) {
        Ok(loaded) => {
            crate::logging::init(&loaded.config);
            for warning in &loaded.warnings {
                tracing::warn!("{warning}");
            }
            crate::server::run(loaded.config)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
