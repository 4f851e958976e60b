//! A broker to test: started on free ports with its own data directory, killed, stopped and started again.
//!
//! With `KLAMM_TEST_BROKERS=3` it is three nodes that keep everything three times, so that a suite written for one
//! broker runs against a cluster: what happens to the broker happens to all nodes, at once.
//! Invariant: [`Broker::start`] and [`Broker::restart`] return only when Metadata names the broker.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Plan};
use crate::process::{Process, Tool};
use crate::{paths, ports, wire};

/// Which broker is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The `klamm` binary.
    Klamm,
    /// Apache Kafka, to prove that a test asks for what Kafka does.
    Apache,
    /// One that runs already.
    External,
}

impl Peer {
    /// What the environment asks for.
    pub fn chosen() -> Peer {
        match std::env::var("KLAMM_TEST_PEER").as_deref() {
            Ok("apache") => Peer::Apache,
            Ok("klamm") | Err(_) => Peer::Klamm,
            Ok(other) => panic!("KLAMM_TEST_PEER={other}: klamm or apache"),
        }
    }
}

/// How many nodes a [`Broker`] is, by `KLAMM_TEST_BROKERS`. Topics have a replica on each, unless told otherwise.
pub fn nodes() -> usize {
    let Ok(text) = std::env::var("KLAMM_TEST_BROKERS") else { return 1 };
    text.parse().ok().filter(|n| *n > 0).unwrap_or_else(|| panic!("KLAMM_TEST_BROKERS={text}: a number of nodes"))
}

/// A broker and its data directory.
#[derive(Debug)]
pub struct Broker {
    peer: Peer,
    /// The nodes, where they are several; the fields below are not used then.
    cluster: Option<Cluster>,
    address: String,
    admin: String,
    dir: PathBuf,
    settings: Vec<(String, String)>,
    wrapper: Vec<String>,
    process: Option<Process>,
    starts: u32,
}

impl Broker {
    /// Starts the chosen broker with these settings on top of a few that every test wants.
    #[track_caller]
    pub fn start(settings: &[(&str, &str)]) -> Broker {
        match nodes() {
            1 => Broker::start_as(Peer::chosen(), settings, &[]),
            nodes => Broker::start_nodes(nodes, settings),
        }
    }

    /// Starts several nodes, with the settings that a single one would have but for the number of replicas.
    #[track_caller]
    fn start_nodes(nodes: usize, settings: &[(&str, &str)]) -> Broker {
        let mut plan = Plan { nodes, takes_turns: false, ..Plan::default() };
        let replicas = nodes.min(3).to_string();
        let own = [
            ("auto.create.topics.enable", "true"),
            ("num.partitions", "1"),
            ("offsets.topic.num.partitions", "5"),
            ("default.replication.factor", &replicas),
            ("offsets.topic.replication.factor", &replicas),
        ];
        for (key, value) in own.iter().chain(settings) {
            plan = plan.set(key, value);
        }
        let cluster = Cluster::start(plan);
        Broker {
            peer: cluster.peer(),
            address: cluster.bootstrap(),
            admin: cluster.admin(0),
            cluster: Some(cluster),
            dir: PathBuf::new(),
            settings: Vec::new(),
            wrapper: Vec::new(),
            process: None,
            starts: 1,
        }
    }

    /// Starts a broker of one kind; `wrapper` goes before its command line (`taskset -c 0`).
    #[track_caller]
    pub fn start_as(peer: Peer, settings: &[(&str, &str)], wrapper: &[&str]) -> Broker {
        let port = ports::free_port();
        let admin = ports::free_port();
        let mut all: Vec<(String, String)> = [
            ("group.initial.rebalance.delay.ms", "0"),
            ("auto.create.topics.enable", "true"),
            ("offsets.topic.num.partitions", "5"),
            ("offsets.topic.replication.factor", "1"),
        ]
        .iter()
        .chain(settings)
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
        // The later of two settings of one key wins, as with `--set`.
        let mut seen = std::collections::HashSet::new();
        all.reverse();
        all.retain(|(k, _)| seen.insert(k.clone()));
        all.reverse();
        let mut broker = Broker {
            peer,
            cluster: None,
            address: format!("127.0.0.1:{port}"),
            admin: format!("127.0.0.1:{admin}"),
            dir: paths::scratch_dir("broker"),
            settings: all,
            wrapper: wrapper.iter().map(|w| (*w).to_owned()).collect(),
            process: None,
            starts: 0,
        };
        if peer == Peer::Apache {
            broker.format();
        }
        broker.launch();
        broker
    }

    /// The broker that the tests of this program share, with automatic topic creation and three partitions.
    #[track_caller]
    pub fn shared() -> &'static Broker {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("KLAMM_TEST_BOOTSTRAP") {
            Ok(address) => Broker {
                peer: Peer::External,
                cluster: None,
                address,
                admin: String::new(),
                dir: std::env::var_os("KLAMM_TEST_DATA").map(PathBuf::from).unwrap_or_default(),
                settings: Vec::new(),
                wrapper: Vec::new(),
                process: None,
                starts: 1,
            },
            Err(_) => {
                let broker = Broker::start(&[("num.partitions", "3")]);
                eprintln!("shared broker: {} data in {}", broker.address, broker.data().display());
                broker
            }
        })
    }

    /// What kind it is.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// `host:port` for clients, of each node.
    pub fn bootstrap(&self) -> &str {
        &self.address
    }

    /// `host:port` for a client that is told of one node only: another one in each run.
    pub fn bootstrap_one(&self) -> &str {
        self.address.split(',').nth(self.some_node()).unwrap_or(&self.address)
    }

    /// A node, another one in each run.
    fn some_node(&self) -> usize {
        self.cluster.as_ref().map_or(0, |cluster| std::process::id() as usize % cluster.ids().len())
    }

    /// `host:port` of the admin HTTP listener (Klamm only).
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// The log directory with the topic folders, of one of the nodes.
    pub fn data(&self) -> PathBuf {
        if let Some(cluster) = &self.cluster {
            return cluster.data(self.some_node());
        }
        if self.peer == Peer::External { self.dir.clone() } else { self.dir.join("data") }
    }

    /// The process id.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running broker").pid()
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.process.as_ref().map_or(0, Process::rss_kib)
    }

    /// Processor time used since the last start, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.process.as_ref().map_or(0.0, Process::cpu_seconds)
    }

    /// Whether the process still runs.
    pub fn alive(&mut self) -> bool {
        if let Some(cluster) = &mut self.cluster {
            return cluster.ids().into_iter().all(|id| cluster.alive(id));
        }
        self.process.as_mut().is_some_and(|p| p.ended().is_none())
    }

    /// What the broker has logged since its last start.
    pub fn log(&self) -> String {
        if let Some(cluster) = &self.cluster {
            return cluster.ids().into_iter().map(|id| cluster.log(id)).collect();
        }
        self.process.as_ref().map_or_else(String::new, |p| p.stdout() + &p.stderr())
    }

    /// Adds or replaces a setting for the next start.
    pub fn set(&mut self, key: &str, value: &str) {
        if let Some(cluster) = &mut self.cluster {
            return cluster.set(key, value);
        }
        self.settings.retain(|(k, _)| k != key);
        self.settings.push((key.into(), value.into()));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            return cluster.kill_all();
        }
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM, then waits for the end; gives the exit code.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        if let Some(cluster) = &mut self.cluster {
            let codes = cluster.stop_all();
            return codes.iter().copied().find(|code| *code != codes[0]).unwrap_or(codes[0]);
        }
        let mut process = self.process.take().expect("a running broker");
        process.signal("TERM");
        match process.wait(Duration::from_secs(60)) {
            Some(status) => status.code().unwrap_or(-1),
            None => panic!("the broker did not stop within 60 s\n{}", process.stderr()),
        }
    }

    /// Starts it again on the same directory and ports; gives the time until it answered.
    #[track_caller]
    pub fn restart(&mut self) -> Duration {
        self.kill();
        let since = Instant::now();
        self.launch();
        since.elapsed()
    }

    fn format(&self) {
        let controller = ports::free_port();
        let mut file = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://{0},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://{0},CONTROLLER://127.0.0.1:{controller}\n\
             inter.broker.listener.name=PLAINTEXT\ncontroller.listener.names=CONTROLLER\nlog.dirs={1}\n\
             share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n",
            self.address,
            self.data().display()
        );
        for (key, value) in &self.settings {
            file.push_str(&format!("{key}={value}\n"));
        }
        let properties = self.properties();
        std::fs::write(&properties, file).expect("server.properties");
        let storage = paths::cached("kafka/bin/kafka-storage", "java.sh");
        let id = "4L6g3nShT-eMCtK--X86sw";
        Tool::new(storage).args(["format", "--standalone", "-t", id, "-c"]).arg(&properties).ok();
    }

    fn properties(&self) -> PathBuf {
        self.dir.join("server.properties")
    }

    fn command(&self) -> Tool {
        let mut line: Vec<String> = self.wrapper.clone();
        match self.peer {
            Peer::Klamm => {
                line.extend([paths::klamm().display().to_string(), "broker".into()]);
                for (key, value) in [
                    ("listeners", format!("PLAINTEXT://{}", self.address)),
                    ("log.dirs", self.data().display().to_string()),
                    ("klamm.admin.listener", self.admin.clone()),
                ] {
                    line.extend(["--set".into(), format!("{key}={value}")]);
                }
                for (key, value) in &self.settings {
                    line.extend(["--set".into(), format!("{key}={value}")]);
                }
            }
            Peer::Apache => {
                let kafka = paths::cache().join("kafka");
                let heap = if self.wrapper.is_empty() { "-Xmx512M" } else { "-Xmx1G" };
                line.extend(["java", heap, "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"].map(String::from));
                line.push(format!("-Dlog4j2.configurationFile={}/config/server-log4j2.xml", kafka.display()));
                line.extend(["-cp".into(), format!("{}/lib/*", kafka.display()), "kafka.Kafka".into()]);
                line.push(self.properties().display().to_string());
            }
            Peer::External => panic!("a broker that runs elsewhere can't be started"),
        }
        let (program, args) = line.split_first().expect("a command line");
        Tool::new(program).args(args).dir(&self.dir)
    }

    #[track_caller]
    fn launch(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            return cluster.launch_all();
        }
        let mut process = self.command().start();
        self.starts += 1;
        let up = crate::wait::wait_for(Duration::from_secs(60), || {
            if process.ended().is_some() {
                return Some(false);
            }
            wire::brokers(&self.address).ok().filter(|n| *n > 0).map(|_| true)
        });
        if up != Some(true) {
            let log = tail(&(process.stdout() + &process.stderr()), 40);
            panic!("the broker did not come up on {} (start {}):\n{log}", self.address, self.starts);
        }
        self.process = Some(process);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.cluster.is_some() {
            return;
        }
        if std::thread::panicking() {
            let log = tail(&self.log(), 40);
            eprintln!(
                "--- the end of the log of the broker on {} (data in {})\n{log}",
                self.address,
                self.dir.display()
            );
        } else if self.peer != Peer::External {
            self.kill();
            remove(&self.dir);
        }
    }
}

fn remove(dir: &Path) {
    // Only scratch files: what can't be removed now goes with the next run's clean-up.
    let _ = std::fs::remove_dir_all(dir);
}

/// The last `n` lines of a text.
pub fn tail(text: &str, n: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(n)..].join("\n")
}
