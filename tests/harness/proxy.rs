//! The network where namespaces are refused: every listener behind a TCP proxy that can hold bytes back, by who sends to whom.
//!
//! Brokers advertise their proxies, so all of them and all clients come through. Who has connected is found out by the
//! socket's owner in `/proc`, since brokers connect from anywhere. A cut holds bytes back and closes nothing, as TCP
//! does until packets pass again; a connection that is made meanwhile is accepted and stays silent.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::network::CLIENT;

/// How often a held-back direction looks whether it may go on.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
struct State {
    cut: Mutex<BTreeSet<(usize, usize)>>,
    /// Processes of the brokers, by node.
    pids: Mutex<BTreeMap<usize, u32>>,
}

impl State {
    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).contains(&(from, to))
    }
}

/// All proxies of a cluster.
#[derive(Debug, Default)]
pub struct Proxies {
    state: Arc<State>,
}

impl Proxies {
    /// Opens a proxy in front of a node's listener; gives its port.
    #[track_caller]
    pub fn listen(&self, node: usize, behind: SocketAddr) -> u16 {
        let port = crate::ports::free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let state = self.state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                thread::spawn(move || carry(&state, stream, node, behind));
            }
        });
        port
    }

    /// A node runs as this process from now on.
    pub fn runs_as(&self, node: usize, pid: u32) {
        self.state.pids.lock().unwrap_or_else(PoisonError::into_inner).insert(node, pid);
    }

    /// Holds bytes in one direction back from now on, or lets them go on.
    pub fn set(&self, from: usize, to: usize, cut: bool) {
        let mut cuts = self.state.cut.lock().unwrap_or_else(PoisonError::into_inner);
        if cut {
            cuts.insert((from, to));
        } else {
            cuts.remove(&(from, to));
        }
    }
}

fn carry(state: &Arc<State>, near: TcpStream, node: usize, behind: SocketAddr) {
    let ends = near.peer_addr().and_then(|peer| near.local_addr().map(|own| (peer.port(), own.port())));
    let from = ends.map_or(CLIENT, |ends| owner(state, ends));
    // Nobody there: the connection ends, which is what its maker would have seen.
    let Ok(far) = TcpStream::connect_timeout(&behind, Duration::from_secs(2)) else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (Ok(near_in), Ok(far_in)) = (near.try_clone(), far.try_clone()) else { return };
    let back = state.clone();
    thread::spawn(move || pump(&back, far_in, near, node, from));
    pump(state, near_in, far, from, node);
}

fn pump(state: &State, mut source: TcpStream, mut sink: TcpStream, from: usize, to: usize) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = source.read(&mut buffer).unwrap_or(0);
        while state.is_cut(from, to) {
            thread::sleep(LOOK);
        }
        if read == 0 || sink.write_all(&buffer[..read]).is_err() {
            // The end of one direction is the end of both: no party here half-closes.
            let _ = (source.shutdown(Shutdown::Both), sink.shutdown(Shutdown::Both));
            return;
        }
    }
}

/// Which node's process holds the socket between these ports; the test program's own are the clients.
fn owner(state: &State, ends: (u16, u16)) -> usize {
    // The kernel gives the table out in pieces: one that changes meanwhile may lack a line.
    let Some(inode) = (0..20).find_map(|_| inode(ends)) else { return CLIENT };
    let inode = format!("socket:[{inode}]");
    let pids = state.pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let holds = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|f| std::fs::read_link(f.path()).ok()).any(|link| link.as_os_str() == inode.as_str())
    };
    pids.iter().find(|(_, pid)| holds(pid)).map_or(CLIENT, |(node, _)| *node)
}

/// The number of the socket with this local and this remote port. Others have the same local port: connections to
/// elsewhere, and those that are over and belong to nobody.
fn inode((local, remote): (u16, u16)) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let mut port = |skip| u16::from_str_radix(words.nth(skip)?.rsplit(':').next()?, 16).ok();
        let ends = (port(1)?, port(0)?);
        // State, queues, timer, retransmits, user, timeout, inode.
        let inode = words.nth(6)?.parse().ok()?;
        (ends == (local, remote) && inode != 0).then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_cut_holds_bytes_back_in_its_direction_and_only_for_its_sender() {
        let behind = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = behind.local_addr().expect("an address");
        thread::spawn(move || {
            for mut stream in behind.incoming().flatten() {
                thread::spawn(move || {
                    let mut byte = [0; 1];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                });
            }
        });
        let proxies = Proxies::default();
        let port = proxies.listen(0, address);
        let echo = |limit: u64| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the proxy accepts");
            stream.set_read_timeout(Some(Duration::from_millis(limit))).expect("a limit");
            stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0; 1])).is_ok()
        };
        assert!(echo(5000));
        for (from, to) in [(CLIENT, 0), (0, CLIENT)] {
            proxies.set(from, to, true);
            assert!(!echo(200));
            proxies.set(from, to, false);
            assert!(echo(5000));
        }
        // Another party is known by its process: this one, for the moment, is node 2.
        proxies.set(CLIENT, 0, true);
        proxies.runs_as(2, std::process::id());
        assert!(echo(5000));
        proxies.set(2, 0, true);
        let since = Instant::now();
        assert!(!echo(200) && since.elapsed() >= Duration::from_millis(200));
    }
}
