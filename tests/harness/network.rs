//! A network of the test's own: every broker in a network namespace, joined by a bridge; cuts between any two, each way.
//!
//! A direction is cut by giving the sender a wrong hardware address for the receiver: packets leave and reach nobody,
//! as in a network that drops them, and TCP finds out by itself. That needs neither nftables nor netem, which many
//! kernels lack. Random loss is made of such cuts too: in every slot of 20 ms each direction is cut with the given
//! probability, so packets are lost in short bursts. Only inside of [`crate::isolated::isolated`]; where that is
//! refused, [`Proxies`] take its place, and lost packets are stalls.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ChildStdin;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::isolated::run;
use crate::process::Tool;
use crate::proxy::Proxies;
use crate::random::Random;

/// The party that is no broker: the test program with its clients.
pub const CLIENT: usize = 99;
const SLOT: Duration = Duration::from_millis(20);

/// Who can reach whom.
#[derive(Debug)]
pub struct Network {
    nodes: usize,
    ways: Ways,
}

#[derive(Debug)]
enum Ways {
    /// One `ip -batch` in each namespace, which takes changes without starting a program.
    Namespaces(Mutex<BTreeMap<usize, ChildStdin>>),
    Proxies(Proxies),
}

/// A broker's address.
pub fn host(party: usize) -> String {
    if party == CLIENT { "10.77.0.254".into() } else { format!("10.77.0.{}", party + 1) }
}

fn namespace(party: usize) -> String {
    format!("n{party}")
}

fn hardware(party: usize) -> String {
    format!("02:00:00:00:00:{party:02}")
}

/// What a program that shall run on a broker's host has in front of its command line.
pub fn wrapper(party: usize) -> Vec<String> {
    ["ip", "netns", "exec"].into_iter().map(String::from).chain([namespace(party)]).collect()
}

impl Network {
    /// The network for `nodes` brokers, of namespaces or of proxies as it must be here.
    #[track_caller]
    pub fn new(nodes: usize) -> Network {
        if crate::isolated::is_inside() {
            Network::of_namespaces(nodes)
        } else {
            Network { nodes, ways: Ways::Proxies(Proxies::default()) }
        }
    }

    /// The proxies, if it is made of such.
    pub fn proxies(&self) -> Option<&Proxies> {
        match &self.ways {
            Ways::Proxies(proxies) => Some(proxies),
            Ways::Namespaces(_) => None,
        }
    }

    #[track_caller]
    fn of_namespaces(nodes: usize) -> Network {
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        run("ip", &["link", "set", "br0", "address", &hardware(CLIENT)]);
        run("ip", &["addr", "add", "10.77.0.254/24", "dev", "br0"]);
        run("ip", &["link", "set", "br0", "up"]);
        for node in 0..nodes {
            let (space, port) = (namespace(node), format!("v{node}"));
            run("ip", &["netns", "add", &space]);
            run("ip", &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space]);
            run("ip", &["link", "set", &port, "master", "br0", "up"]);
            let inside = |args: &[&str]| run("ip", &[&["-n", &space], args].concat());
            inside(&["link", "set", "lo", "up"]);
            inside(&["link", "set", "eth0", "address", &hardware(node), "up"]);
            inside(&["addr", "add", &format!("{}/24", host(node)), "dev", "eth0"]);
        }
        let mut shells = BTreeMap::new();
        for party in (0..nodes).chain([CLIENT]) {
            let line = if party == CLIENT { Vec::new() } else { wrapper(party) };
            let mut line = line.into_iter().chain(["ip".to_owned(), "-force".into(), "-batch".into(), "-".into()]);
            let (input, _output) = Tool::new(line.next().unwrap_or_default()).args(line).converse();
            shells.insert(party, input);
        }
        let network = Network { nodes, ways: Ways::Namespaces(Mutex::new(shells)) };
        network.heal();
        network
    }

    fn parties(&self) -> Vec<usize> {
        (0..self.nodes).chain([CLIENT]).collect()
    }

    fn set(&self, from: usize, to: usize, cut: bool) {
        let shells = match &self.ways {
            Ways::Proxies(proxies) => return proxies.set(from, to, cut),
            Ways::Namespaces(shells) => shells,
        };
        let address = if cut { "02:00:00:00:ff:ff".to_owned() } else { hardware(to) };
        let device = if from == CLIENT { "br0" } else { "eth0" };
        let line = format!("neigh replace {} lladdr {address} dev {device} nud permanent\n", host(to));
        let mut shells = shells.lock().expect("the shells");
        let shell = shells.get_mut(&from).expect("a known party");
        let written = shell.write_all(line.as_bytes()).and_then(|()| shell.flush());
        assert!(written.is_ok(), "`ip -batch` of party {from} has ended");
    }

    /// Packets from one party to another get lost from now on.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.set(from, to, true);
    }

    /// Packets between two parties get lost from now on.
    pub fn cut(&self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Cuts a broker off from all other brokers, and from the clients too when `clients`.
    pub fn isolate(&self, node: usize, clients: bool) {
        for other in self.parties() {
            if other != node && (other != CLIENT || clients) {
                self.cut(node, other);
            }
        }
    }

    /// Lets packets pass in one direction again.
    pub fn join_one_way(&self, from: usize, to: usize) {
        self.set(from, to, false);
    }

    /// Everybody reaches everybody again.
    pub fn heal(&self) {
        for from in self.parties() {
            for to in self.parties() {
                if from != to {
                    self.join_one_way(from, to);
                }
            }
        }
    }

    /// Loses packets at random, in every direction, for a while; then heals.
    pub fn lose(&self, thousandths: u64, time: Duration, random: &mut Random) {
        let parties = self.parties();
        let mut cut = std::collections::BTreeSet::new();
        let start = Instant::now();
        let mut slot = 0u32;
        while start.elapsed() < time {
            for from in &parties {
                for to in parties.iter().filter(|to| *to != from) {
                    let lost = random.chance(thousandths);
                    if lost && cut.insert((*from, *to)) {
                        self.cut_one_way(*from, *to);
                    } else if !lost && cut.remove(&(*from, *to)) {
                        self.join_one_way(*from, *to);
                    }
                }
            }
            slot += 1;
            std::thread::sleep((SLOT * slot).saturating_sub(start.elapsed()));
        }
        self.heal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    fn reach(address: &SocketAddr) -> bool {
        TcpStream::connect_timeout(address, Duration::from_millis(600)).is_ok()
    }

    #[test]
    fn a_cut_loses_packets_one_way_or_both_and_heals() {
        crate::isolated::isolated("network::tests::a_cut_loses_packets_one_way_or_both_and_heals", || {
            let network = Network::new(2);
            // A listener on each side: python because this program can't leave its namespace.
            let script = "import socket,sys\ns=socket.create_server(('0.0.0.0',9092))\nwhile 1: s.accept()";
            let line = wrapper(0).into_iter().chain(["python3", "-c", script].map(String::from));
            let line: Vec<String> = line.collect();
            let _listener = Tool::new(&line[0]).args(&line[1..]).start();
            let there = SocketAddr::new(host(0).parse().expect("an address"), 9092);
            crate::eventually("a listener in the namespace", 20, || reach(&there).then_some(()));
            for (from, to) in [(CLIENT, 0), (0, CLIENT)] {
                network.cut_one_way(from, to);
                crate::eventually("the cut", 5, || (!reach(&there)).then_some(()));
                network.join_one_way(from, to);
                crate::eventually("the joint", 5, || reach(&there).then_some(()));
            }
            // A cut between others does not matter here.
            network.cut(0, 1);
            assert!(reach(&there));
            let _own = TcpListener::bind((host(CLIENT), 0)).expect("the bridge's address is ours");
        });
    }
}
