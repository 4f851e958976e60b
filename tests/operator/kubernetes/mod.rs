//! A real Kubernetes for the tests: one for each run of the test program, begun by the first test that needs it.
//!
//! It lives in namespaces without a way out. A test runs itself again in there, so that it reaches the API server,
//! Services and pods as any program of the cluster's network would; this program, outside, holds the namespaces and
//! starts what runs in them. Where namespaces are refused the tests say why they did nothing.

pub mod audit;
pub mod control;
pub mod identity;
pub mod image;
pub mod kubectl;
pub mod machine;
pub mod nodes;

use std::path::PathBuf;
use std::sync::{Mutex, RwLock};
use std::time::Instant;

pub use control::Kubernetes;
pub use kubectl::Namespace;

use klamm_tests::paths;
use machine::HOME;

/// The API server's address.
pub const API: &str = "https://10.40.0.1:6443";
/// Its port.
pub const PORT: u16 = 6443;
/// Pods' addresses; each node has 256 of them.
const PODS: &str = "10.41.0.0/16";
/// Services' addresses, and that of the Service `kubernetes`.
const SERVICES: &str = "10.42.0.0/16";
const SERVICE: &str = "10.42.0.1";
/// How many nodes there can be.
pub const NODES: usize = 3;

const INSIDE: &str = "KLAMM_TEST_KUBERNETES";
const TARGET: &str = "KLAMM_TEST_TARGET";

/// The address of a node; that of the control plane is 0's.
pub fn address(node: usize) -> String {
    if node == 0 { "10.40.0.1".into() } else { format!("10.40.0.{}", 10 + node) }
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    if let Some(dir) = std::env::var_os(TARGET) {
        return dir.into();
    }
    let exe = std::env::current_exe().expect("the path of the running program");
    // target/debug/deps/operator-…
    exe.ancestors().nth(3).expect("the target folder").to_owned()
}

/// Where logs are kept: `target/tests/kubernetes`.
pub fn logs() -> PathBuf {
    target().join("tests/kubernetes")
}

/// Runs a test where a control plane is. `test` is its full name, as `--exact` takes it.
#[track_caller]
pub fn with_control_plane(test: &str, body: impl FnOnce()) {
    let _others = DISTURBED.read();
    within(test, |_| (), body);
}

/// The same for a test that changes what all share.
#[track_caller]
pub fn with_control_plane_alone(test: &str, body: impl FnOnce()) {
    let _alone = DISTURBED.write();
    within(test, |_| (), body);
}

/// Held for writing by a test that disturbs nodes, or others.
static DISTURBED: RwLock<()> = RwLock::new(());

/// Runs a test where three nodes are besides.
#[track_caller]
pub fn with_nodes(test: &str, body: impl FnOnce()) {
    let _others = DISTURBED.read();
    within(test, nodes_too, body);
}

/// The same for a test that disturbs nodes: no other one runs meanwhile.
#[track_caller]
pub fn with_nodes_alone(test: &str, body: impl FnOnce()) {
    let _alone = DISTURBED.write();
    within(test, nodes_too, body);
}

fn nodes_too(kubernetes: &mut Kubernetes) {
    if !kubernetes.has_nodes() {
        let since = Instant::now();
        kubernetes.add_nodes(NODES);
        println!("figures nodes: {NODES} ready after {:.1} s", since.elapsed().as_secs_f64());
    }
}

#[track_caller]
fn within(test: &str, prepare: impl FnOnce(&mut Kubernetes), body: impl FnOnce()) {
    static SHARED: Mutex<Option<Kubernetes>> = Mutex::new(None);
    if std::env::var(INSIDE).is_ok_and(|inside| inside == test) {
        return body();
    }
    if let Some(reason) = machine::refused() {
        println!("figures {test}: skipped, no Kubernetes here: {reason}");
        return;
    }
    let tool = {
        let mut shared = SHARED.lock().expect("no other test has failed to start it");
        let kubernetes = shared.get_or_insert_with(|| {
            let since = Instant::now();
            let kubernetes = Kubernetes::start(&logs());
            // A build that replaces the file meanwhile does no harm.
            let own = format!("/proc/{}/exe", std::process::id());
            std::fs::copy(own, kubernetes.machine().path("tests")).expect("a copy of this program");
            println!("figures control plane: up after {:.1} s", since.elapsed().as_secs_f64());
            kubernetes
        });
        prepare(kubernetes);
        kubernetes.machine().tool(format!("{HOME}/tests"))
    };
    let limit = if klamm_tests::long() { 3600 } else { 600 };
    let mut tool = tool.args([test, "--exact", "--nocapture", "--test-threads=1"]).limit(limit);
    for (key, value) in std::env::vars_os() {
        if let Some(key) = key.to_str().filter(|key| key.starts_with("KLAMM_")) {
            tool = tool.env(key, value);
        }
    }
    // Inside processes are numbered anew, and scratch folders are named after them.
    tool = tool
        .env("KLAMM_BIN", paths::klamm())
        .env(INSIDE, test)
        .env(TARGET, target())
        .env("KLAMM_CACHE", paths::cache())
        .env("TMPDIR", format!("{HOME}/tmp"));
    let output = tool.run();
    print!("{}", output.out);
    let logs = logs();
    assert!(output.code == 0, "{test} failed ({}'s logs are in {}):\n{}", "Kubernetes", logs.display(), output.err);
    assert!(output.out.contains("1 passed"), "{test} is not the name of a test:\n{}", output.out);
}
