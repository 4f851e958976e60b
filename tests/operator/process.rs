//! The operator as a process beside the control plane, as one would run it by hand; with the rights that the chart gives
//! it, and no others.

use std::time::Duration;

use klamm_tests::ports::free_port;
use klamm_tests::process::{Process, peak_kib};
use klamm_tests::{Broker, Tool, eventually, paths};
use serde_json::Value;

use crate::kubernetes::identity::as_admin;
use crate::kubernetes::kubectl::kubectl;
use crate::kubernetes::{Namespace, image};
use crate::rights;

/// A `klamm-operator run` that looks after some namespaces.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    http: String,
    user: String,
}

impl Operator {
    /// Starts one for these namespaces; all when there are none.
    #[track_caller]
    pub fn start(spaces: &[&Namespace]) -> Operator {
        Operator::start_with(spaces, &["--leader-election=false"])
    }

    /// The same with further flags; not necessarily the one that leads.
    #[track_caller]
    pub fn start_with(spaces: &[&Namespace], flags: &[&str]) -> Operator {
        let mut operator = Operator::launch(None, spaces, flags);
        operator.until_ready();
        operator
    }

    /// The same as a service account that a test has made.
    #[track_caller]
    pub fn start_as(account: &str, spaces: &[&Namespace], flags: &[&str]) -> Operator {
        let admin = kubectl(["config", "view", "--raw", "--output=json"]).ok().out;
        let mut operator = Operator::begin(account.into(), &rights::acting_as(account, &admin), spaces, flags);
        operator.until_ready();
        operator
    }

    /// Starts one and goes on at once. `kubeconfig`: its way to the API server, if not the usual one.
    #[track_caller]
    pub fn launch(kubeconfig: Option<&str>, spaces: &[&Namespace], flags: &[&str]) -> Operator {
        let account = rights::of(spaces, flags);
        let config = match kubeconfig {
            Some(file) => rights::acting_as(&account.user, &std::fs::read_to_string(file).expect("a kubeconfig")),
            None => account.kubeconfig,
        };
        Operator::begin(account.user, &config, spaces, flags)
    }

    fn begin(user: String, kubeconfig: &str, spaces: &[&Namespace], flags: &[&str]) -> Operator {
        let http = format!("127.0.0.1:{}", free_port());
        let names: Vec<&str> = spaces.iter().map(|space| space.name()).collect();
        let tool = as_admin(Tool::new(image::static_binary("klamm-operator"))).env("KUBECONFIG", kubeconfig);
        let tool = tool
            .args(["run", "--log-format=text", "--log=info,klamm_operator=debug", "--listen", &http])
            .args([format!("--watch-namespaces={}", names.join(","))])
            .args(flags);
        Operator { process: tool.start(), http, user }
    }

    /// Who it is for the API server.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Waits until it is ready.
    #[track_caller]
    pub fn until_ready(&mut self) {
        eventually("the operator is ready", 30, || {
            if let Some(status) = self.process.ended() {
                panic!("the operator has ended ({status}): {}", self.process.stderr());
            }
            self.get("/readyz").map(|_| ())
        });
    }

    /// The answer of its HTTP listener to a GET, if it is 200.
    pub fn get(&self, path: &str) -> Option<String> {
        let out = Tool::new("curl").args(["-sf", "--max-time", "5", &format!("http://{}{path}", self.http)]).run();
        (out.code == 0).then_some(out.out)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// One of its metrics; 0 when it isn't there.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// The memory that it has.
    pub fn rss_kib(&self) -> u64 {
        self.process.rss_kib()
    }

    /// The most that it has had.
    pub fn peak_kib(&self) -> u64 {
        peak_kib(self.process.pid())
    }

    /// The seconds of a processor that it has used.
    pub fn cpu_seconds(&self) -> f64 {
        self.process.cpu_seconds()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<i32> {
        self.process.ended().map(|status| status.code().unwrap_or(-1))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> i32 {
        self.process.signal("TERM");
        let ended = self.process.wait(Duration::from_secs(30)).expect("it ends within 30 s");
        ended.code().unwrap_or(-1)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.process.stderr();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of the operator's log\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// Klamm's command line, for a broker that runs beside.
pub fn klamm(broker: &Broker, line: &str) -> Tool {
    Tool::new(paths::klamm()).args(line.split_whitespace()).env("KLAMM_BOOTSTRAP", broker.bootstrap()).limit(60)
}

/// A condition of an object, as `status/reason`.
pub fn condition(object: &Value, kind: &str) -> Option<String> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    // Of the description as it stands, not of an earlier one.
    (found["observedGeneration"] == object["metadata"]["generation"])
        .then(|| format!("{}/{}", found["status"].as_str().unwrap_or(""), found["reason"].as_str().unwrap_or("")))
}

/// Waits until a condition is `status/reason`, or `status` alone.
#[track_caller]
pub fn until_condition(space: &Namespace, kind: &str, name: &str, condition_type: &str, wanted: &str) -> Value {
    let mut last = None;
    let found = klamm_tests::wait_for(Duration::from_secs(60), || {
        let object = space.get(kind, name)?;
        let is = condition(&object, condition_type);
        let fits = is.as_deref().is_some_and(|is| is == wanted || is.split('/').next() == Some(wanted));
        last = Some(object.clone());
        if !fits {
            std::thread::sleep(Duration::from_millis(200));
        }
        fits.then_some(object)
    });
    found.unwrap_or_else(|| panic!("{kind} {name} is not {condition_type}={wanted}: {last:#?}"))
}
