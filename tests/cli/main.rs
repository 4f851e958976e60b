//! The `klamm` command line against a real broker: what it prints, what it does, how it exits.
//!
//! Runs against Apache Kafka as well (KLAMM_TEST_PEER=apache), since the tools serve any cluster.

mod cluster;
mod configs;
mod errors;
mod groups;
mod log;
mod records;
mod topics;

use klamm_tests::broker::Broker;
use klamm_tests::paths;
use klamm_tests::process::{Output, Tool};
use serde_json::Value;

/// `klamm` with these arguments, for the shared broker.
#[track_caller]
fn klamm(arguments: &[&str]) -> Tool {
    let broker = Broker::shared();
    Tool::new(paths::klamm()).args(arguments).env("KLAMM_BOOTSTRAP", broker.bootstrap()).limit(60)
}

/// Its output as JSON.
#[track_caller]
fn json(arguments: &[&str]) -> Value {
    parse(&klamm(arguments).args(["-o", "json"]).ok().out)
}

#[track_caller]
fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}:\n{text}"))
}

/// Creates a topic of one's own.
#[track_caller]
fn topic(what: &str, partitions: u32) -> String {
    let name = klamm_tests::unique(what);
    klamm(&["topics", "create", &name, "--partitions", &partitions.to_string()]).ok();
    name
}

/// Fails the test unless the command exited so and said this on stderr.
#[track_caller]
fn refused(output: &Output, code: i32, message: &str) {
    assert!(
        output.code == code && output.err.contains(message),
        "expected exit code {code} and {message:?}:\n{output}"
    );
}
