//! System calls of a running process that fail or take longer than they should: `strace` attached to it.

use std::path::Path;
use std::time::Duration;

use crate::process::{Process, Tool};
use crate::wait::wait_for;

/// Whether there is an `strace`.
pub fn is_installed() -> bool {
    Tool::new("sh").args(["-c", "command -v strace"]).run().code == 0
}

/// Does to `calls` (names with commas between) what `inject` says in strace's words (`error=EIO`), where `file` is given
/// only to those about that file, until the answer is dropped. `None` when it may not attach.
pub fn inject(pid: u32, calls: &str, inject: &str, file: Option<&Path>) -> Option<Process> {
    let mut strace = Tool::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:{inject}"), "-p", &pid.to_string()]);
    if let Some(file) = file {
        strace = strace.arg("-P").arg(file);
    }
    let mut strace = strace.start();
    let traced = wait_for(Duration::from_secs(5), || {
        if strace.ended().is_some() {
            return Some(false);
        }
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let tracer = status.lines().find_map(|l| l.strip_prefix("TracerPid:")).unwrap_or("0").trim().to_owned();
        (tracer != "0").then_some(true)
    });
    (traced == Some(true)).then_some(strace)
}
