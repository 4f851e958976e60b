//! Log lines on standard error, as text or JSON. Called once, by the command that runs a broker.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

use crate::config::BrokerConfig;

/// Sets logging up as configured: `klamm.log.format`, and the level from `KLAMM_LOG`, else `RUST_LOG`, else
/// `klamm.log.level`. What cannot be understood is said on standard error and replaced by `info`: logging must not keep
/// a broker from starting.
pub fn init(config: &BrokerConfig) {
    init_with(config.log_json, &filter_text(|name| std::env::var(name).ok(), &config.log_level));
}

/// Sets logging up with a filter such as `info` or `info,klamm::net=debug`.
pub fn init_with(json: bool, filter: &str) {
    // openraft speaks of every step at info, and of every message that an absent peer doesn't answer at error. What
    // matters of that the quorum says itself; whoever wants the rest names it.
    let parsed = match misspelt_level(filter) {
        Some(word) => Err(format!("{word} is no level")),
        None => format!("openraft=off,{filter}").parse().map_err(|e: ParseError| e.to_string()),
    };
    let filter: Targets = parsed.unwrap_or_else(|error| {
        eprintln!("klamm: log filter {filter:?}: {error}; taking info");
        Targets::new().with_target("openraft", LevelFilter::OFF).with_default(tracing::Level::INFO)
    });
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let set = if json {
        registry().with(filter).with(lines.json().flatten_event(true)).try_init()
    } else {
        registry().with(filter).with(lines).try_init()
    };
    if let Err(error) = set {
        eprintln!("klamm: logging is set up already: {error}");
    }
}

/// The part of a filter that stands alone and is no level. It would be taken for the name of a target, and nothing else
/// would be logged.
pub fn misspelt_level(filter: &str) -> Option<&str> {
    let alone = filter.split(',').map(str::trim).filter(|part| !part.is_empty() && !part.contains('='));
    alone.into_iter().find(|word| word.parse::<LevelFilter>().is_err())
}

/// The filter that counts: the first of the two variables that is set, else the configured one.
fn filter_text(variable: impl Fn(&str) -> Option<String>, configured: &str) -> String {
    let set = ["KLAMM_LOG", "RUST_LOG"].iter().filter_map(|name| variable(name)).find(|text| !text.trim().is_empty());
    set.unwrap_or_else(|| configured.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_noticed() {
        assert_eq!(misspelt_level("loud"), Some("loud"));
        assert_eq!(misspelt_level("info, chatty ,klamm=debug"), Some("chatty"));
        for good in ["info", "", "off", "warn,klamm::net=trace"] {
            assert_eq!(misspelt_level(good), None, "{good}");
        }
    }

    #[test]
    fn variables_win_over_the_configuration() {
        let vars = |set: &'static [(&str, &str)]| {
            move |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        };
        assert_eq!(filter_text(vars(&[]), "warn"), "warn");
        assert_eq!(filter_text(vars(&[("RUST_LOG", "debug"), ("KLAMM_LOG", " ")]), "warn"), "debug");
        assert_eq!(filter_text(vars(&[("RUST_LOG", "debug"), ("KLAMM_LOG", "trace")]), "warn"), "trace");
    }
}
