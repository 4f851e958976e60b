//! The control plane: etcd, API server, controller manager and scheduler, each a process of the machine.
//!
//! What is durable elsewhere isn't here (etcd doesn't sync), and nobody is elected: there is one of each.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use klamm_tests::{Tool, paths};

use super::audit;
use super::identity::{Identities, as_admin, pki};
use super::machine::{HOME, Machine};
use super::{PODS, PORT, SERVICES, address};

/// A part of the cluster that runs.
#[derive(Debug)]
struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

/// A Kubernetes: its machine and what runs in there.
#[derive(Debug)]
pub struct Kubernetes {
    machine: Machine,
    logs: PathBuf,
    daemons: Vec<Daemon>,
}

/// A program that tests/install/kubernetes.sh has built.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    paths::cached(&format!("kubernetes/bin/{name}"), "kubernetes.sh")
}

impl Kubernetes {
    /// A control plane that answers; the logs go to the folder, which is emptied first.
    pub fn start(logs: &Path) -> Kubernetes {
        let _ = std::fs::remove_dir_all(logs);
        std::fs::create_dir_all(logs).expect("a folder for logs");
        let mut all = Kubernetes { machine: Machine::start(), logs: logs.to_owned(), daemons: Vec::new() };
        Identities::create(&all.machine);
        all.etcd();
        all.api_server();
        all.until("the API server is ready", 60, |k| k.kubectl(&["get", "--raw", "/readyz"]).run().code == 0);
        all.controllers();
        all.until("the controllers work", 60, |k| {
            let account = ["-n", "default", "get", "serviceaccount/default", "configmap/kube-root-ca.crt"];
            k.kubectl(&account).run().code == 0
        });
        all
    }

    /// The machine that it runs in.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether there are nodes.
    pub fn has_nodes(&self) -> bool {
        self.daemons.iter().any(|daemon| daemon.name.starts_with("kubelet"))
    }

    /// kubectl as administrator, from outside.
    pub fn kubectl(&self, args: &[&str]) -> Tool {
        as_admin(self.machine.tool(program("kubectl"))).args(args)
    }

    /// Starts a part of the cluster. `prefix` stands before its command line.
    pub fn daemon(&mut self, name: &str, prefix: &[&str], program: &Path, args: &[String]) {
        let log = self.logs.join(name).with_extension("log");
        let output = File::create(&log).expect("a log");
        let mut command = self.machine.command();
        command.args(prefix).arg(program).args(args).env("HOME", format!("{HOME}/tmp"));
        command.stdin(Stdio::null()).stderr(output.try_clone().expect("a log")).stdout(output);
        let child = command.spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
        self.daemons.push(Daemon { name: name.to_owned(), child, log });
    }

    /// Waits for something that the cluster does by itself; fails with the end of the log of a part that has ended.
    #[track_caller]
    pub fn until(&mut self, what: &str, seconds: u64, mut probe: impl FnMut(&Kubernetes) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while !probe(self) {
            for daemon in &mut self.daemons {
                if let Ok(Some(status)) = daemon.child.try_wait() {
                    let log = std::fs::read_to_string(&daemon.log).unwrap_or_default();
                    let lines: Vec<&str> = log.lines().collect();
                    let end = lines[lines.len().saturating_sub(20)..].join("\n");
                    panic!("{} has ended ({status}) before {what}:\n{end}", daemon.name);
                }
            }
            assert!(Instant::now() < deadline, "not within {seconds} s: {what}; see {}", self.logs.display());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends it; returns when nothing is left.
    pub fn stop(mut self) {
        self.machine.stop();
        for daemon in &mut self.daemons {
            let _ = daemon.child.wait();
        }
    }

    fn etcd(&mut self) {
        let (clients, peers) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
        let args = flags(&[
            ("name", "one"),
            ("data-dir", &format!("{HOME}/etcd")),
            ("listen-client-urls", clients),
            ("advertise-client-urls", clients),
            ("listen-peer-urls", peers),
            ("initial-advertise-peer-urls", peers),
            ("initial-cluster", &format!("one={peers}")),
            ("unsafe-no-fsync", "true"),
            ("log-level", "warn"),
        ]);
        self.daemon("etcd", &[], &program("etcd"), &args);
    }

    fn api_server(&mut self) {
        let [policy, log] = audit::flags(&self.machine);
        let args = flags(&[
            (policy.0, &policy.1),
            (log.0, &log.1),
            ("etcd-servers", "http://127.0.0.1:2379"),
            // Not the loopback address: the Service `kubernetes` leads here.
            ("bind-address", &address(0)),
            ("advertise-address", &address(0)),
            ("secure-port", &PORT.to_string()),
            ("service-cluster-ip-range", SERVICES),
            ("client-ca-file", &pki("ca.crt")),
            ("tls-cert-file", &pki("apiserver.crt")),
            ("tls-private-key-file", &pki("apiserver.key")),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            ("service-account-key-file", &pki("tokens.pub")),
            ("service-account-signing-key-file", &pki("tokens.key")),
            ("authorization-mode", "Node,RBAC"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("kubelet-certificate-authority", &pki("ca.crt")),
            ("kubelet-client-certificate", &pki("kubelet-client.crt")),
            ("kubelet-client-key", &pki("kubelet-client.key")),
            ("kubelet-preferred-address-types", "InternalIP"),
            ("requestheader-client-ca-file", &pki("ca.crt")),
            ("requestheader-allowed-names", "front-proxy-client"),
            ("requestheader-username-headers", "X-Remote-User"),
            ("requestheader-group-headers", "X-Remote-Group"),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
            ("proxy-client-cert-file", &pki("front-proxy.crt")),
            ("proxy-client-key-file", &pki("front-proxy.key")),
            ("allow-privileged", "true"),
            ("profiling", "false"),
        ]);
        self.daemon("apiserver", &[], &program("kube-apiserver"), &args);
    }

    fn controllers(&mut self) {
        let own = |name: &str| {
            let file = format!("{HOME}/{name}.kubeconfig");
            flags(&[
                ("kubeconfig", &file),
                ("authentication-kubeconfig", &file),
                ("authorization-kubeconfig", &file),
                ("bind-address", "127.0.0.1"),
                ("leader-elect", "false"),
                ("profiling", "false"),
            ])
        };
        let mut args = own("controller-manager");
        args.extend(flags(&[
            ("use-service-account-credentials", "true"),
            ("service-account-private-key-file", &pki("tokens.key")),
            ("root-ca-file", &pki("ca.crt")),
            ("cluster-signing-cert-file", &pki("ca.crt")),
            ("cluster-signing-key-file", &pki("ca.key")),
            ("cluster-cidr", PODS),
            ("service-cluster-ip-range", SERVICES),
            // A node that is cut off is noticed after half of the usual time.
            ("node-monitor-grace-period", "20s"),
            // An autoscaler looks more often than four times a minute.
            ("horizontal-pod-autoscaler-sync-period", "2s"),
        ]));
        self.daemon("controller-manager", &[], &program("kube-controller-manager"), &args);
        self.daemon("scheduler", &[], &program("kube-scheduler"), &own("scheduler"));
    }
}

/// `--name=value` for each.
pub fn flags(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}
