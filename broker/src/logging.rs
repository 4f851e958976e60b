//! Log lines on standard error: text for people, or JSON by `klamm.log.format`.

use tracing_subscriber::EnvFilter;

use crate::config::BrokerConfig;

/// Sets logging up for the process. `KLAMM_LOG` wins over `klamm.log.level`; both take a level or
/// directives such as `info,klamm::net=debug`. A second call changes nothing.
pub fn init(config: &BrokerConfig) {
    let wanted = std::env::var("KLAMM_LOG").unwrap_or_else(|_| config.log_level.clone());
    // openraft speaks of every step at info.
    let filter =
        EnvFilter::try_new(format!("{wanted},openraft=warn")).unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = if config.log_json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
    if let Err(error) = done {
        eprintln!("logging was set up before: {error}");
    }
}
