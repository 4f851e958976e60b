//! A test that wants a network or mounts of its own runs itself again inside fresh namespaces.
//!
//! `unshare` makes a network and a mount namespace that nobody else sees and that vanish with the last process in
//! them, so nothing has to be cleaned up, however the test ends. Without root a user namespace is tried. Where neither
//! is permitted the test says why it did nothing.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::process::Tool;

const INSIDE: &str = "KLAMM_TEST_ISOLATED";

/// Whether this program runs in namespaces of its own.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// As [`isolated`], but where namespaces are refused `body` runs without, as it does with `KLAMM_TEST_NETWORK=proxy`.
#[track_caller]
pub fn isolated_if_possible(test: &str, body: impl FnOnce()) {
    let refused = !is_inside() && permitted().is_err();
    if refused || std::env::var("KLAMM_TEST_NETWORK").is_ok_and(|way| way == "proxy") {
        println!("figures {test}: through proxies, not namespaces");
        return body();
    }
    isolated(test, body);
}

/// Runs `body` in namespaces of its own. `test` is the test's full name, as `--exact` takes it.
#[track_caller]
pub fn isolated(test: &str, body: impl FnOnce()) {
    if std::env::var(INSIDE).is_ok_and(|inside| inside == test) {
        prepare();
        return body();
    }
    let flags = match permitted() {
        Ok(flags) => flags,
        Err(reason) => {
            println!("figures {test}: skipped, no namespaces here: {reason}");
            return;
        }
    };
    // The cluster in there is not alone either.
    let _turn = crate::cluster::turn();
    // By its process, so that a build that replaces the file meanwhile does no harm.
    let program = format!("/proc/{}/exe", std::process::id());
    let limit = if crate::long() { 3600 } else { 1400 };
    let mut tool = Tool::new("unshare").args(flags.iter()).arg(program);
    tool = tool.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, test).limit(limit);
    for (key, value) in std::env::vars_os() {
        if let Some(key) = key.to_str().filter(|key| key.starts_with("KLAMM_")) {
            tool = tool.env(key, value);
        }
    }
    let output = tool.run();
    // The figures belong to this test's own output.
    print!("{}", output.out);
    assert!(output.code == 0, "{test} failed inside its namespaces:\n{}", output.err);
    assert!(output.out.contains("1 passed"), "{test} is not the name of a test:\n{}", output.out);
}

/// The flags for `unshare`, or why nothing of the kind is possible.
fn permitted() -> Result<&'static [&'static str], String> {
    static FOUND: OnceLock<Result<&'static [&'static str], String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let mut last = String::new();
        for flags in [&["--net", "--mount"][..], &["--net", "--mount", "--map-root-user"][..]] {
            // Everything that a test will need, once.
            let script = "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip netns add probe && ip link add v0 type veth \
                          peer name v1 netns probe && ip link add b0 type bridge && ip link set v0 master b0";
            let tried =
                Command::new("unshare").args(flags).args(["sh", "-c", script]).stdin(Stdio::null()).output();
            match tried {
                Ok(output) if output.status.success() => return Ok(flags),
                Ok(output) => last = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
                Err(error) => last = format!("unshare: {error}"),
            }
        }
        Err(last)
    });
    found.clone()
}

fn prepare() {
    // `ip netns` keeps its handles in /run/netns; hiding the machine's /run keeps them ours.
    run("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
    run("mkdir", &["/run/netns"]);
    run("ip", &["link", "set", "lo", "up"]);
}

/// Runs a system tool that must succeed.
#[track_caller]
pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
}

/// A small file system of its own, inside of [`isolated`] only.
#[track_caller]
pub fn small_disk(at: &std::path::Path, mebibytes: u32) {
    run("mount", &["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs", &at.display().to_string()]);
}
