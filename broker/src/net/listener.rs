//! Listeners: accept, limits, the idle reaper, and the graceful stop.
//!
//! Each configured listener has one accept loop. A broker-wide reaper looks at every connection once
//! a second: it ends those idle for longer than `connections.max.idle.ms` and takes the read buffer
//! of those that merely pause.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tracing::{info, warn};

use crate::broker::Broker;
use crate::net::connection::{self, Connection, Handle, Serves};
use crate::net::handshake;
use crate::tls::ListenerTls;

/// A connection that did not move bytes for this long gives its read buffer back.
const TRIM_AFTER_MS: i64 = 2_000;

/// How long the stop waits for requests under way.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// All open connections of the broker.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    by_id: HashMap<u64, Arc<Handle>>,
    /// Those that count towards the limits.
    limited: HashSet<u64>,
    per_ip: HashMap<IpAddr, usize>,
}

impl Connections {
    /// Number of open connections.
    pub fn len(&self) -> usize {
        self.open.lock().by_id.len()
    }

    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a place for a new connection, unless a limit is reached. Without limits it doesn't count towards those
    /// of others either: the quorum must not wait for clients to leave, nor the other way round.
    fn admit(&self, peer: SocketAddr, now_ms: i64, limits: Option<Limits>) -> Result<(u64, Arc<Handle>), &'static str> {
        let mut open = self.open.lock();
        let id = open.next_id + 1;
        if let Some(limits) = limits {
            if open.limited.len() >= limits.total {
                return Err("max.connections is reached");
            }
            let here = open.per_ip.get(&peer.ip()).copied().unwrap_or(0);
            if here >= limits.per_ip {
                return Err("max.connections.per.ip is reached");
            }
            open.per_ip.insert(peer.ip(), here + 1);
            open.limited.insert(id);
        }
        open.next_id = id;
        let handle = Arc::new(Handle::new(peer, now_ms));
        open.by_id.insert(id, handle.clone());
        Ok((id, handle))
    }

    fn release(&self, id: u64) {
        let mut open = self.open.lock();
        let Some(handle) = open.by_id.remove(&id) else { return };
        if !open.limited.remove(&id) {
            return;
        }
        let ip = handle.peer.ip();
        match open.per_ip.get_mut(&ip) {
            Some(n) if *n > 1 => *n -= 1,
            _ => {
                open.per_ip.remove(&ip);
            }
        }
    }

    /// One round of the reaper; the number of connections that it ended. `short`: somebody waits for memory that
    /// unfinished requests hold.
    pub fn reap(&self, now_ms: i64, idle_max_ms: Option<i64>, short: bool) -> usize {
        let mut expired = 0;
        for handle in self.open.lock().by_id.values() {
            let idle_ms = handle.idle_ms(now_ms);
            if handle.is_stuck(short) {
                warn!(peer = %handle.peer, "connection closed: its request comes too slowly for the memory it holds");
                handle.expire();
                expired += 1;
            } else if idle_max_ms.is_some_and(|max| idle_ms > max) {
                handle.expire();
                expired += 1;
            } else if idle_ms > TRIM_AFTER_MS && idle_ms <= 2 * TRIM_AFTER_MS {
                handle.trim();
            }
        }
        expired
    }

    /// Asks every connection to end and waits, up to a few seconds, until they have.
    pub async fn stop(&self) {
        for handle in self.open.lock().by_id.values() {
            handle.close();
        }
        let deadline = tokio::time::Instant::now() + STOP_GRACE;
        while !self.is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for handle in self.open.lock().by_id.values() {
            handle.expire();
        }
    }
}

#[derive(Clone, Copy)]
struct Limits {
    total: usize,
    per_ip: usize,
}

/// A bound listener, not yet accepting.
#[derive(Debug)]
pub struct Listener {
    name: Arc<str>,
    serves: Serves,
    tls: Option<Arc<ListenerTls>>,
    /// Whether `max.connections` and `max.connections.per.ip` are for it.
    limited: bool,
    socket: TcpListener,
}

impl Listener {
    /// Binds a port of `host` (empty for all interfaces) with room for `backlog` waiting connections.
    ///
    /// With `tls`, every connection begins with a handshake.
    ///
    /// # Errors
    /// The name cannot be resolved, or the port cannot be bound.
    pub async fn bind(
        name: &str,
        serves: Serves,
        tls: Option<Arc<ListenerTls>>,
        host: &str,
        port: u16,
        backlog: u32,
    ) -> io::Result<Self> {
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in tokio::net::lookup_host((host, port)).await? {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // A restart must not wait for connections of the last run to time out.
            socket.set_reuseaddr(true)?;
            match socket.bind(address).and_then(|()| socket.listen(backlog)) {
                Ok(socket) => {
                    let limited = serves.clients || !serves.quorum;
                    return Ok(Self { name: name.into(), serves, tls, limited, socket });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Takes it out of the limits on connections: it is the brokers' own, although clients could use it.
    pub fn unlimited(self) -> Self {
        Self { limited: false, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether no client has business here.
    pub fn serves_only_nodes(&self) -> bool {
        self.serves.quorum && !self.serves.clients
    }

    /// The address that was bound; tells the port when 0 was asked for.
    ///
    /// # Errors
    /// The socket's own error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the broker stops.
    pub async fn accept(self, broker: Arc<Broker>) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = broker.stopping() => break,
            };
            match accepted {
                Ok((stream, peer)) => self.start(&broker, stream, peer),
                Err(e) => {
                    // Out of descriptors, most likely: accepting again at once would spin.
                    warn!(listener = %self.name, error = %e, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        info!(listener = %self.name, "listener stopped");
    }

    fn start(&self, broker: &Arc<Broker>, stream: TcpStream, peer: SocketAddr) {
        // Both limits can be changed while the broker runs.
        let config = broker.replicas.config();
        let limits = Limits { total: config.max_connections, per_ip: config.max_connections_per_ip };
        let limits = self.limited.then_some(limits);
        let admitted = broker.connections.admit(peer, broker.clock.now_ms(), limits);
        let (id, handle) = match admitted {
            Ok(admitted) => admitted,
            Err(reason) => {
                broker.metrics.connection_refused();
                warn!(listener = %self.name, %peer, reason, "connection refused");
                return;
            }
        };
        broker.metrics.connection_created();
        if let Err(e) = stream.set_nodelay(true) {
            warn!(listener = %self.name, %peer, error = %e, "TCP_NODELAY refused");
        }
        let mut connection = Connection {
            handle,
            listener: self.name.clone(),
            serves: self.serves,
            broker_id: AtomicI32::new(-1),
            subject: None,
            software: Mutex::default(),
            follows: Mutex::default(),
            answered_follower: AtomicU64::default(),
        };
        let broker = broker.clone();
        // Also released when the task panics: a panic closes one connection and is counted.
        let place = Place { broker: broker.clone(), id };
        match self.tls.clone() {
            None => tokio::spawn(async move {
                let _place = place;
                connection::serve(broker, stream, BytesMut::new(), connection).await;
            }),
            Some(tls) => tokio::spawn(async move {
                let _place = place;
                if let Some((stream, input)) = handshake::shake(&broker, &tls, stream, &mut connection).await {
                    connection::serve(broker, stream, input, connection).await;
                }
            }),
        };
    }
}

struct Place {
    broker: Arc<Broker>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.broker.connections.release(self.id);
        if std::thread::panicking() {
            self.broker.metrics.panic();
            tracing::error!("a request handler panicked; its connection is closed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_for_clients_alone() {
        let connections = Connections::default();
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        let limits = |total, per_ip| Some(Limits { total, per_ip });
        let nodes: Vec<u64> = (0..5).map(|_| connections.admit(peer, 0, None).expect("no limit").0).collect();
        let (client, _) = connections.admit(peer, 0, limits(1, 1)).expect("the nodes don't count");
        assert_eq!(connections.admit(peer, 0, limits(1, 9)).err(), Some("max.connections is reached"));
        assert_eq!(connections.admit(peer, 0, limits(9, 1)).err(), Some("max.connections.per.ip is reached"));
        connections.admit(peer, 0, None).expect("nodes get in past clients");
        assert_eq!(connections.len(), 7);
        // Nodes that leave make no room.
        nodes.into_iter().for_each(|id| connections.release(id));
        assert!(connections.admit(peer, 0, limits(1, 1)).is_err());
        connections.release(client);
        connections.admit(peer, 0, limits(1, 1)).expect("the client has left");
        assert_eq!(connections.len(), 2);
    }

    #[tokio::test]
    async fn a_listener_of_nodes_has_no_limits() {
        let limited = async |clients, quorum| {
            let bound = Listener::bind("L", Serves { clients, quorum }, None, "127.0.0.1", 0, 1).await;
            bound.expect("bound").limited
        };
        assert!(limited(true, true).await && limited(true, false).await);
        assert!(!limited(false, true).await);
    }
}
