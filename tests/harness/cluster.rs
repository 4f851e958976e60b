//! Several brokers that form one cluster: started side by side, killed, paused, stopped, wiped and started again.
//!
//! On the loopback address, or on a [`Network`] of the test's own with a host for each broker. Node ids count from 0
//! and all nodes are brokers and voters. Invariant: [`Cluster::start`] returns when every node names every broker.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::broker::{Peer, tail};
use crate::network::{self, Network};
use crate::process::{Process, Tool};
use crate::{paths, ports, wire};

/// The same for every node of a cluster, as Kafka's tools generate them.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";

/// How long a node may take to come up.
const UP: Duration = Duration::from_secs(90);

/// What a cluster shall be like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many nodes.
    pub nodes: usize,
    /// How many of them are there from the beginning; the others [join](Cluster::join) later.
    pub founders: Option<usize>,
    /// Klamm or Apache.
    pub peer: Peer,
    /// Settings of every node.
    pub settings: Vec<(String, String)>,
    /// Whether each node has a host of its own; only inside of [`crate::isolated::isolated`].
    pub network: bool,
    /// Whether it waits until no other cluster of this program runs (see [`turn`]).
    pub takes_turns: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        let settings = [
            ("default.replication.factor", "3"),
            ("min.insync.replicas", "2"),
            ("num.partitions", "3"),
            ("offsets.topic.replication.factor", "3"),
            ("offsets.topic.num.partitions", "3"),
            ("transaction.state.log.replication.factor", "3"),
            ("transaction.state.log.min.isr", "2"),
            ("group.initial.rebalance.delay.ms", "0"),
            ("auto.create.topics.enable", "false"),
        ];
        Plan {
            nodes: 3,
            founders: None,
            peer: Peer::chosen(),
            settings: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            network: false,
            takes_turns: true,
        }
    }
}

impl Plan {
    /// Adds or replaces a setting of every node.
    pub fn set(mut self, key: &str, value: &str) -> Plan {
        self.settings.retain(|(k, _)| k != key);
        self.settings.push((key.into(), value.into()));
        self
    }

    /// Gives each node a host of its own.
    pub fn on_a_network(mut self) -> Plan {
        self.network = true;
        self
    }
}

#[derive(Debug)]
struct Node {
    id: usize,
    host: String,
    /// Ports that others use.
    client: u16,
    controller: u16,
    /// Ports that it binds; others where a proxy stands before them.
    binds: (u16, u16),
    admin: u16,
    dir: PathBuf,
    process: Option<Process>,
    paused: bool,
}

impl Node {
    fn address(&self) -> String {
        format!("{}:{}", self.host, self.client)
    }
}

/// Held by whoever runs a cluster: more than one at a time would only measure each other.
pub fn turn() -> Turn {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    while *taken {
        taken = FREE.wait(taken).unwrap_or_else(PoisonError::into_inner);
    }
    *taken = true;
    Turn(())
}

static TAKEN: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

/// See [`turn`]. Unlike a lock's guard it may move to another thread.
#[derive(Debug)]
pub struct Turn(());

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        FREE.notify_one();
    }
}

/// The running cluster.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    nodes: Vec<Node>,
    /// How many of the nodes belong to the cluster now.
    members: usize,
    network: Option<Network>,
    _turn: Option<Turn>,
}

impl Cluster {
    /// Starts all nodes at once and waits until each names all of them.
    #[track_caller]
    pub fn start(plan: Plan) -> Cluster {
        let cluster = Cluster::prepare(plan);
        cluster.started()
    }

    /// Everything but the start of the nodes, so that their disks can be replaced first.
    #[track_caller]
    pub fn prepare(plan: Plan) -> Cluster {
        let turn = plan.takes_turns.then(turn);
        let network = plan.network.then(|| Network::new(plan.nodes));
        let nodes = (0..plan.nodes).map(|id| {
            let hosts = network.as_ref().is_some_and(|n| n.proxies().is_none());
            let port = |fixed: u16| if hosts { fixed } else { ports::free_port() };
            let binds = (port(9092), port(9093));
            let shown = |port: u16| match network.as_ref().and_then(Network::proxies) {
                Some(proxies) => proxies.listen(id, ([127, 0, 0, 1], port).into()),
                None => port,
            };
            Node {
                id,
                host: if hosts { network::host(id) } else { "127.0.0.1".into() },
                client: shown(binds.0),
                controller: shown(binds.1),
                binds,
                admin: port(9644),
                dir: paths::scratch_dir(&format!("node-{id}")),
                process: None,
                paused: false,
            }
        });
        let nodes: Vec<Node> = nodes.collect();
        let members = plan.founders.unwrap_or(plan.nodes);
        Cluster { plan, nodes, members, network, _turn: turn }
    }

    /// Starts the nodes of a prepared cluster.
    #[track_caller]
    pub fn started(mut self) -> Cluster {
        for id in self.ids() {
            self.write_properties(id);
        }
        if self.plan.peer == Peer::Apache {
            self.format_apache();
        }
        self.launch_all();
        self
    }

    /// Starts all nodes, none of which runs, and waits until each names all of them.
    #[track_caller]
    pub fn launch_all(&mut self) {
        for id in self.ids() {
            self.launch(id);
        }
        for id in self.ids() {
            self.until_up(id, self.members);
        }
    }

    /// Which brokers these are.
    pub fn peer(&self) -> Peer {
        self.plan.peer
    }

    /// The ids of the nodes that belong to it.
    pub fn ids(&self) -> Vec<usize> {
        (0..self.members).collect()
    }

    /// Starts the next node that is no member yet, with nothing on its disk; returns when it knows all members.
    #[track_caller]
    pub fn join(&mut self) -> usize {
        let id = self.members;
        self.members += 1;
        self.write_properties(id);
        self.launch(id);
        self.until_up(id, self.members);
        id
    }

    /// Stops the last node, which is no member from then on. What it had on its disk is gone.
    #[track_caller]
    pub fn leave(&mut self) -> usize {
        let id = self.members - 1;
        let (_, code) = self.stop(id);
        assert_eq!(code, 0, "node {id}");
        self.wipe(id);
        self.members -= 1;
        id
    }

    /// `host:port` of every node, for clients.
    pub fn bootstrap(&self) -> String {
        self.nodes[..self.members].iter().map(Node::address).collect::<Vec<_>>().join(",")
    }

    /// `host:port` of one node.
    pub fn address(&self, id: usize) -> String {
        self.nodes[id].address()
    }

    /// `host:port` of a node's listener for the quorum.
    pub fn controller_address(&self, id: usize) -> String {
        format!("{}:{}", self.nodes[id].host, self.nodes[id].controller)
    }

    /// `host:port` of a node's admin HTTP.
    pub fn admin(&self, id: usize) -> String {
        format!("{}:{}", self.nodes[id].host, self.nodes[id].admin)
    }

    /// A node's log directory.
    pub fn data(&self, id: usize) -> PathBuf {
        self.nodes[id].dir.join("data")
    }

    /// The network between the nodes.
    #[track_caller]
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("a cluster on a network")
    }

    /// The process of a node that runs.
    pub fn pid(&self, id: usize) -> Option<u32> {
        self.nodes[id].process.as_ref().map(Process::pid)
    }

    /// Whether a node's process runs (a paused one does).
    pub fn alive(&mut self, id: usize) -> bool {
        self.nodes[id].process.as_mut().is_some_and(|p| p.ended().is_none())
    }

    /// Whether a node's process runs and is not paused.
    pub fn answers(&mut self, id: usize) -> bool {
        !self.nodes[id].paused && self.alive(id)
    }

    /// What a node has logged since its last start.
    pub fn log(&self, id: usize) -> String {
        self.nodes[id].process.as_ref().map_or_else(String::new, |p| p.stdout() + &p.stderr())
    }

    /// `kill -9`.
    pub fn kill(&mut self, id: usize) {
        self.nodes[id].paused = false;
        if let Some(mut process) = self.nodes[id].process.take() {
            process.kill();
        }
    }

    /// `kill -9` of all, as close together as possible.
    pub fn kill_all(&mut self) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                process.kill_soon();
            }
        }
        for id in self.ids() {
            self.kill(id);
        }
    }

    /// Stops the process in its tracks, as a long pause of the machine would.
    pub fn pause(&mut self, id: usize) {
        if let Some(process) = &mut self.nodes[id].process {
            process.signal("STOP");
            self.nodes[id].paused = true;
        }
    }

    /// Lets a paused process go on.
    pub fn resume(&mut self, id: usize) {
        if let Some(process) = &mut self.nodes[id].process {
            process.signal("CONT");
            self.nodes[id].paused = false;
        }
    }

    /// Asks a node to stop; gives how long it took and the exit code.
    #[track_caller]
    pub fn stop(&mut self, id: usize) -> (Duration, i32) {
        let since = Instant::now();
        let mut process = self.nodes[id].process.take().expect("a running node");
        process.signal("TERM");
        match process.wait(Duration::from_secs(60)) {
            Some(status) => (since.elapsed(), status.code().unwrap_or(-1)),
            None => panic!("node {id} did not stop within 60 s\n{}", tail(&process.stderr(), 40)),
        }
    }

    /// Waits until a node ends that refuses to run; gives its exit code and what it has logged.
    #[track_caller]
    pub fn ended(&mut self, id: usize) -> (i32, String) {
        let mut process = self.nodes[id].process.take().expect("a node that was started");
        let status = process.wait(UP);
        let log = process.stdout() + &process.stderr();
        let status = status.unwrap_or_else(|| panic!("node {id} still runs:\n{}", tail(&log, 40)));
        (status.code().unwrap_or(-1), log)
    }

    /// The file that a node takes its configuration from.
    pub fn properties(&self, id: usize) -> PathBuf {
        self.nodes[id].dir.join("server.properties")
    }

    /// Asks all nodes to stop at once; gives their exit codes.
    #[track_caller]
    pub fn stop_all(&mut self) -> Vec<i32> {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                process.signal("TERM");
            }
        }
        let running: Vec<usize> = self.ids().into_iter().filter(|id| self.nodes[*id].process.is_some()).collect();
        running.into_iter().map(|id| self.stop(id).1).collect()
    }

    /// Adds or replaces a setting for the next starts.
    pub fn set(&mut self, key: &str, value: &str) {
        self.plan = self.plan.clone().set(key, value);
        for id in self.ids() {
            self.write_properties(id);
        }
    }

    /// Removes everything a stopped node had on its disk.
    #[track_caller]
    pub fn wipe(&mut self, id: usize) {
        assert!(self.nodes[id].process.is_none(), "node {id} still runs");
        let data = self.data(id);
        for entry in std::fs::read_dir(&data).into_iter().flatten().flatten() {
            let path = entry.path();
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        if self.plan.peer == Peer::Apache {
            self.format_apache();
        }
    }

    /// Starts a node that does not run, and goes on at once.
    #[track_caller]
    pub fn launch(&mut self, id: usize) {
        let proxies = self.network.as_ref().and_then(Network::proxies);
        let mut line = if self.plan.network && proxies.is_none() { network::wrapper(id) } else { Vec::new() };
        let properties = self.properties(id).display().to_string();
        match self.plan.peer {
            Peer::Klamm => {
                let broker = paths::klamm().display().to_string();
                line.extend([broker, "broker".into(), "--config".into(), properties]);
            }
            Peer::Apache => {
                let kafka = paths::cache().join("kafka");
                line.extend(["java", "-Xmx300M", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"].map(String::from));
                line.push(format!("-Dlog4j2.configurationFile={}/config/server-log4j2.xml", kafka.display()));
                line.extend(["-cp".into(), format!("{}/lib/*", kafka.display()), "kafka.Kafka".into(), properties]);
            }
            Peer::External => panic!("a cluster that runs elsewhere can't be started"),
        }
        let (program, args) = line.split_first().expect("a command line");
        let node = &mut self.nodes[id];
        assert!(node.process.is_none(), "node {id} runs already");
        let process = Tool::new(program).args(args).dir(&node.dir).start();
        if let Some(proxies) = proxies {
            proxies.runs_as(id, process.pid());
        }
        node.process = Some(process);
    }

    /// Starts a node that does not run; gives the time until it named `brokers` of them.
    #[track_caller]
    pub fn restart(&mut self, id: usize) -> Duration {
        let since = Instant::now();
        self.kill(id);
        self.launch(id);
        self.until_up(id, 1);
        since.elapsed()
    }

    /// Waits until a node answers and knows this many brokers.
    #[track_caller]
    pub fn until_up(&mut self, id: usize, brokers: usize) {
        let address = self.nodes[id].address();
        let up = crate::wait::wait_for(UP, || {
            if !self.alive(id) {
                return Some(false);
            }
            let named = wire::brokers(&address).ok();
            named.and_then(|n| usize::try_from(n).ok()).filter(|n| *n >= brokers).map(|_| true)
        });
        assert!(up == Some(true), "node {id} on {address} did not come up:\n{}", tail(&self.log(id), 40));
    }

    fn write_properties(&self, id: usize) {
        let node = &self.nodes[id];
        let voter = |n: &Node| format!("{}@{}:{}", n.id, n.host, n.controller);
        let founders = &self.nodes[..self.plan.founders.unwrap_or(self.plan.nodes)];
        let voters = if id < founders.len() {
            format!("controller.quorum.voters={}", founders.iter().map(voter).collect::<Vec<_>>().join(","))
        } else {
            let address = |n: &Node| format!("{}:{}", n.host, n.controller);
            format!(
                "controller.quorum.bootstrap.servers={}",
                founders.iter().map(address).collect::<Vec<_>>().join(",")
            )
        };
        let (host, (client, controller)) = (&node.host, node.binds);
        let listeners = format!("PLAINTEXT://{host}:{client},CONTROLLER://{host}:{controller}");
        let advertised = format!("PLAINTEXT://{},CONTROLLER://{host}:{}", node.address(), node.controller);
        let mut file = format!(
            "process.roles=broker,controller\nnode.id={id}\n{voters}\nlisteners={listeners}\n\
             advertised.listeners={advertised}\ninter.broker.listener.name=PLAINTEXT\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={}\n",
            self.data(id).display()
        );
        if self.plan.peer == Peer::Klamm {
            file.push_str(&format!("cluster.id={CLUSTER_ID}\nklamm.admin.listener={}\n", self.admin(id)));
        }
        for (key, value) in &self.plan.settings {
            file.push_str(&format!("{key}={value}\n"));
        }
        std::fs::write(self.properties(id), file).expect("server.properties");
    }

    /// Formats the directories that are not: the first with Apache's own tool, the others after its model (a JVM each
    /// would take longer than the test).
    fn format_apache(&self) {
        let empty: Vec<usize> =
            self.ids().into_iter().filter(|id| !self.data(*id).join("meta.properties").exists()).collect();
        let Some((first, others)) = empty.split_first() else { return };
        let storage = paths::cached("kafka/bin/kafka-storage", "java.sh");
        Tool::new(storage).args(["format", "-t", CLUSTER_ID, "-c"]).arg(self.properties(*first)).ok();
        let model = self.data(*first);
        for id in others {
            let data = self.data(*id);
            std::fs::create_dir_all(&data).expect("a data directory");
            for entry in std::fs::read_dir(&model).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_file() {
                    std::fs::copy(&path, data.join(entry.file_name())).expect("a copy");
                }
            }
            let text = std::fs::read_to_string(model.join("meta.properties")).expect("meta.properties");
            let own = |line: &str| match line.split_once('=') {
                Some(("node.id", _)) => format!("node.id={id}\n"),
                Some(("directory.id", uuid)) => {
                    format!("directory.id={}{}\n", char::from(b'B' + *id as u8), &uuid[1..])
                }
                _ => format!("{line}\n"),
            };
            let text: String = text.lines().map(own).collect();
            std::fs::write(data.join("meta.properties"), text).expect("meta.properties");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                let log = node.process.as_ref().map_or_else(String::new, |p| p.stdout() + &p.stderr());
                eprintln!(
                    "--- the end of node {}'s log (files in {})\n{}",
                    node.id,
                    node.dir.display(),
                    tail(&log, 40)
                );
            }
        } else {
            for id in 0..self.nodes.len() {
                self.kill(id);
                remove(&self.nodes[id].dir);
            }
        }
    }
}

fn remove(dir: &Path) {
    // Only scratch files: what can't be removed now goes with the next run's clean-up.
    let _ = std::fs::remove_dir_all(dir);
}
