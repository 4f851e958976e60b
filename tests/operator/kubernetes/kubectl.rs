//! kubectl and helm as a test uses them, each in a Kubernetes namespace of its own.

use std::time::Duration;

use klamm_tests::process::Output;
use klamm_tests::{Tool, eventually, paths, unique};
use serde_json::{Value, json};

use super::control::program;
use super::identity::as_admin;

/// kubectl as administrator.
#[track_caller]
pub fn kubectl<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Tool {
    as_admin(Tool::new(program("kubectl"))).args(args)
}

/// helm as administrator.
#[track_caller]
pub fn helm<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Tool {
    as_admin(Tool::new(program("helm"))).args(args)
}

/// Klamm's resource types, present and served.
#[track_caller]
pub fn install_types() {
    let crds = paths::tests_dir().join("../crds").display().to_string();
    kubectl(["apply", "--server-side", "-f", &crds]).ok();
    kubectl(["wait", "--for=condition=Established", "--timeout=30s", "-f", &crds]).ok();
}

/// A namespace that no other test uses.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one.
    #[track_caller]
    pub fn new(what: &str) -> Namespace {
        let name = unique(what);
        kubectl(["create", "namespace", &name]).ok();
        Namespace { name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// kubectl for this namespace.
    #[track_caller]
    pub fn kubectl<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Tool {
        kubectl(["--namespace", &self.name]).args(args)
    }

    /// `kubectl VERB -f -`: create, replace, apply, delete.
    #[track_caller]
    pub fn send(&self, verb: &str, object: &Value) -> Output {
        self.kubectl([verb, "-f", "-"]).stdin(object.to_string()).run()
    }

    /// Applies what must be accepted.
    #[track_caller]
    pub fn apply(&self, object: &Value) {
        self.send("apply", object).expect_ok();
    }

    /// An object as it is; `None` when it isn't there.
    #[track_caller]
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let output = self.kubectl(["get", kind, name, "--output=json", "--ignore-not-found"]).ok();
        serde_json::from_str(&output.out).ok()
    }

    /// Writes to an object's status, as its controller does.
    #[track_caller]
    pub fn set_status(&self, kind: &str, name: &str, status: &Value) -> Output {
        let patch = json!({ "status": status }).to_string();
        self.kubectl(["patch", kind, name, "--subresource=status", "--type=merge", "--patch", &patch]).run()
    }

    /// Writes what its pods have said to a file each, where Kubernetes's own logs are.
    pub fn keep_logs(&self) {
        let folder = super::logs().join("pods");
        let pods = self.kubectl(["get", "pods", "--output=name"]).run().out;
        for pod in pods.lines() {
            let said = self.kubectl(["logs", pod, "--all-containers", "--tail=-1"]).run();
            let file = folder.join(format!("{}-{}.log", self.name, pod.trim_start_matches("pod/")));
            let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, said.out + &said.err));
            if let Err(error) = kept {
                eprintln!("{}: {error}", file.display());
            }
        }
    }

    /// Waits until an object is as `probe` wants it; shows it as it was last when the time is up.
    #[track_caller]
    pub fn until<T>(&self, kind: &str, name: &str, seconds: u64, mut probe: impl FnMut(&Value) -> Option<T>) -> T {
        let what = format!("{kind} {name} as expected");
        eventually(&what, seconds, || {
            let found = self.get(kind, name).and_then(|object| probe(&object));
            // A program for each look: not as often as one looks at a variable.
            if found.is_none() {
                std::thread::sleep(Duration::from_millis(200));
            }
            found
        })
    }
}
