//! A network in memory: it loses, delays and repeats messages, cuts links in one direction, and stops nodes from
//! hearing or saying anything for a while. One seed, one sequence of decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::{BoxFuture, Peer, Quorum, Transport, TransportError};

/// A small generator: seeds must give the same run everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }
}

struct Rules {
    running: BTreeMap<u16, Quorum>,
    cut: BTreeSet<(u16, u16)>,
    /// Messages lost, of a thousand.
    loss: u64,
    delay_max: Duration,
    random: Random,
    sent: u64,
}

pub struct Net {
    rules: Mutex<Rules>,
    held: watch::Sender<BTreeSet<u16>>,
}

/// The network as one node uses it.
pub struct Link {
    net: Arc<Net>,
    port: u16,
}

impl Net {
    pub fn new(seed: u64) -> Arc<Self> {
        let rules = Rules {
            running: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss: 0,
            delay_max: Duration::from_millis(2),
            random: Random::new(seed),
            sent: 0,
        };
        Arc::new(Self { rules: Mutex::new(rules), held: watch::Sender::default() })
    }

    pub fn link(self: &Arc<Self>, port: u16) -> Arc<Link> {
        Arc::new(Link { net: self.clone(), port })
    }

    pub fn plug(&self, port: u16, quorum: Quorum) {
        self.rules.lock().running.insert(port, quorum);
    }

    pub fn unplug(&self, port: u16) {
        let gone = self.rules.lock().running.remove(&port);
        drop(gone);
    }

    pub fn loss(&self, of_a_thousand: u64, delay_max: Duration) {
        let mut rules = self.rules.lock();
        rules.loss = of_a_thousand;
        rules.delay_max = delay_max;
    }

    /// Nothing goes from one to the other; the other direction stays.
    pub fn cut(&self, from: u16, to: u16) {
        self.rules.lock().cut.insert((from, to));
    }

    /// Cuts a node off from all others of `ports`.
    pub fn isolate(&self, port: u16, ports: &[u16]) {
        for other in ports.iter().filter(|other| **other != port) {
            self.cut(port, *other);
            self.cut(*other, port);
        }
    }

    pub fn heal(&self) {
        self.rules.lock().cut.clear();
        self.held.send_modify(BTreeSet::clear);
    }

    /// A node neither hears nor says anything until released; then all of it arrives.
    pub fn hold(&self, port: u16) {
        self.held.send_modify(|held| _ = held.insert(port));
    }

    pub fn release(&self, port: u16) {
        self.held.send_modify(|held| _ = held.remove(&port));
    }

    pub fn sent(&self) -> u64 {
        self.rules.lock().sent
    }

    /// One way: None when the message is lost.
    async fn way(&self, from: u16, to: u16) -> Option<Option<Quorum>> {
        let delay = {
            let mut rules = self.rules.lock();
            rules.sent += 1;
            let lost = rules.loss > 0 && {
                let loss = rules.loss;
                rules.random.below(1000) < loss
            };
            if lost || rules.cut.contains(&(from, to)) {
                return None;
            }
            let max = rules.delay_max.as_micros() as u64;
            Duration::from_micros(rules.random.below(max + 1))
        };
        sleep(delay).await;
        let mut held = self.held.subscribe();
        // The sender of the watch lives as long as this.
        let _ = held.wait_for(|held| !held.contains(&from) && !held.contains(&to)).await;
        let rules = self.rules.lock();
        if rules.cut.contains(&(from, to)) { None } else { Some(rules.running.get(&to).cloned()) }
    }
}

impl Transport for Link {
    fn call(&self, to: Peer, request: Bytes, timeout: Duration) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (net, from) = (self.net.clone(), self.port);
        let work = async move {
            let Some(target) = net.way(from, to.port).await else {
                return std::future::pending().await;
            };
            let Some(quorum) = target else { return Err(TransportError::Unreachable("refused".into())) };
            // A task of its own: a caller that gives up doesn't stop what it asked for.
            let answer = tokio::spawn(async move { quorum.receive(request).await }).await;
            let answer = answer.map_err(|e| TransportError::Unreachable(e.to_string()))?;
            let answer = answer.map_err(|e| TransportError::Unreachable(e.to_string()))?;
            match net.way(to.port, from).await {
                Some(_) => Ok(answer),
                None => std::future::pending().await,
            }
        };
        Box::pin(async move { tokio::time::timeout(timeout, work).await.map_err(|_| TransportError::Timeout)? })
    }
}
