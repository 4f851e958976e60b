//! A machine inside of this one: namespaces for a Kubernetes, held by machine.sh for as long as this program lives.
//!
//! Whatever runs in there ends with it, and nothing in there can reach a network. Its files are under [`HOME`], which
//! only processes inside see; from outside they are at [`Machine::path`].

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use klamm_tests::{Tool, paths, wait_for};

/// Where the files of the cluster are, seen from inside.
pub const HOME: &str = "/run/klamm";

/// The namespaces, and who holds them.
#[derive(Debug)]
pub struct Machine {
    name: String,
    holder: Child,
    first: u32,
}

/// Why there can be no such machine here, if so.
pub fn refused() -> Option<String> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        // Everything that has to be permitted, once; the groups because a container can have namespaces without.
        let script = "mount -t proc proc /proc && mount -t tmpfs tmpfs /run && ip link add br0 type bridge && \
                      test -w /sys/fs/cgroup && g=$(ls -d /sys/fs/cgroup/pids /sys/fs/cgroup 2>/dev/null | tail -1) && \
                      mkdir $g/klamm-probe-$$-$PPID && rmdir $g/klamm-probe-$$-$PPID";
        let tried = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "sh", "-c", script])
            .stdin(Stdio::null())
            .output();
        match tried {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")),
            Err(error) => Some(format!("unshare: {error}")),
        }
    });
    found.clone()
}

impl Machine {
    /// A new one; only where none is [`refused`].
    pub fn start() -> Machine {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("klamm-kubernetes-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let script = paths::tests_dir().join("operator/kubernetes/machine.sh");
        // In a process group of its own: an interrupt from the terminal must not keep it from cleaning up. It ends when
        // its standard input does, which is open for as long as this program runs.
        let mut holder = Command::new("bash")
            .arg(script)
            .arg(&name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("bash");
        let mut line = String::new();
        let output = holder.stdout.take().expect("a pipe from it");
        BufReader::new(output).read_line(&mut line).expect("a line from machine.sh");
        let first = line.trim().parse().unwrap_or_else(|_| panic!("machine.sh made no machine: {line:?}"));
        Machine { name, holder, first }
    }

    /// The name that its control groups have.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its first process.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// A file below [`HOME`], as this program sees it.
    pub fn path(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.first.to_string()).join("root").join(&HOME[1..]).join(file)
    }

    /// Writes a file below [`HOME`], with the folders above it.
    pub fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        let path = self.path(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder in the machine");
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// What a command line begins with that runs inside.
    fn entrance(&self) -> Vec<String> {
        let target = self.first.to_string();
        let line =
            ["nsenter", "--target", &target, "--net", "--mount", "--pid", "setpriv", "--pdeathsig", "KILL", "--"];
        line.into_iter().map(String::from).collect()
    }

    /// A program to run inside.
    pub fn tool(&self, program: impl AsRef<std::ffi::OsStr>) -> Tool {
        let line = self.entrance();
        Tool::new(&line[0]).args(&line[1..]).arg(program)
    }

    /// The same as a bare command, for what runs until the machine ends.
    pub fn command(&self) -> Command {
        let line = self.entrance();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        command
    }

    /// Ends it with all that runs in it, and returns when nothing is left.
    pub fn stop(mut self) {
        drop(self.holder.stdin.take());
        let ended = wait_for(Duration::from_secs(30), || self.holder.try_wait().ok().flatten());
        assert!(ended.is_some(), "machine.sh does not end");
    }

    /// Kills who holds it, as a machine that is switched off would.
    pub fn kill_holder(mut self) {
        self.holder.kill().and_then(|()| self.holder.wait()).expect("killed");
    }
}
