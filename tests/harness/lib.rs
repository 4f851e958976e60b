//! What the suites share: starting a real broker, driving real clients, waiting without sleeping blindly.
//!
//! A suite talks to a broker as its users do: over the network and through client programs. The broker is the
//! `klamm` binary; `KLAMM_TEST_PEER=apache` starts Apache Kafka in its place (to check a suite against the
//! original), `KLAMM_TEST_BROKERS=3` a cluster of so many nodes in place of one, `KLAMM_TEST_BOOTSTRAP=host:port` uses
//! one that runs already. Invariant: no process started here outlives the test program, however that ends.

pub mod broker;
pub mod checker;
pub mod cluster;
pub mod history;
pub mod isolated;
pub mod jvm;
pub mod network;
pub mod paths;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod random;
pub mod settings;
pub mod strace;
pub mod wait;
pub mod wire;
pub mod workload;

pub use broker::{Broker, Peer};
pub use cluster::{Cluster, Plan};
pub use process::{Output, Process, Tool};
pub use random::Random;
pub use settings::{long, seed};
pub use wait::{eventually, wait_for};

use std::sync::atomic::{AtomicU32, Ordering};

/// A name no other test of this run uses, readable in the broker's log.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{what}-{}-{n}", std::process::id())
}

/// Fails the test with both sides when `text` lacks `needle`.
#[track_caller]
pub fn assert_contains(text: &str, needle: &str) {
    assert!(text.contains(needle), "expected {needle:?} in:\n{text}");
}
