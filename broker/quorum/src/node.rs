//! What all parts of a running node share: who it is, its way to others, whom it heard of, what it refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::QuorumConfig;
use crate::contacts::Contacts;
use crate::journal::Journal;
use crate::message::{Answer, Ask, Identity, Refusal, Reply, Request};
use crate::transport::{Peer, TransportError};
use crate::types::Voter;

/// One refusal of a kind and peer is logged in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Peers whose refusals are told apart; strangers can't grow the memory.
const PEERS_MAX: usize = 256;

/// See the module's head.
pub struct Node {
    pub config: QuorumConfig,
    pub journal: Arc<Mutex<Journal>>,
    pub contacts: Contacts,
    refusals: AtomicU64,
    logged: Mutex<BTreeMap<(i32, Refusal, bool), Instant>>,
}

/// Why a peer gave no useful answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("refused: {reason}")]
    Refused { why: Refusal, reason: String, leader: Option<(i32, Voter)> },
    #[error("unusable answer: {0}")]
    Answer(&'static str),
}

impl Node {
    pub fn new(config: QuorumConfig, journal: Arc<Mutex<Journal>>) -> Self {
        Self { config, journal, contacts: Contacts::default(), refusals: AtomicU64::new(0), logged: Mutex::default() }
    }

    /// Asks a node that is known by its directory id.
    pub async fn ask(&self, id: i32, voter: &Voter, ask: Ask, timeout: Duration) -> Result<Reply, CallError> {
        let to = Identity { id, directory_id: voter.directory_id };
        self.call(voter.peer(id), Some(to), ask, timeout).await.map(|answer| answer.reply)
    }

    /// Asks whoever listens at an address.
    pub async fn ask_anyone(&self, peer: Peer, ask: Ask, timeout: Duration) -> Result<Answer, CallError> {
        self.call(peer, None, ask, timeout).await
    }

    async fn call(&self, peer: Peer, to: Option<Identity>, ask: Ask, timeout: Duration) -> Result<Answer, CallError> {
        let from = self.config.identity();
        let request = Request { cluster_id: self.config.cluster_id.clone(), from, to: to.clone(), ask }.encode();
        let call = self.config.transport.call(peer.clone(), request, timeout);
        // The transport keeps the time as well; this one is for a transport that doesn't.
        let bytes = tokio::time::timeout(timeout, call).await.map_err(|_| TransportError::Timeout)??;
        let answer = Answer::decode(bytes).map_err(|e| CallError::Answer(e.0))?;
        match answer.reply {
            Reply::Refused { why, reason, leader } => {
                if !matches!(why, Refusal::NotLeader | Refusal::Busy) {
                    self.log_once((peer.id, why, true), || {
                        tracing::warn!(%peer, reason, "a node of the metadata quorum refused a request of this one");
                    });
                }
                Err(CallError::Refused { why, reason, leader })
            }
            _ if to.is_some_and(|to| to != answer.from) => Err(CallError::Answer("sender")),
            _ => Ok(answer),
        }
    }

    /// Counts a refusal and says it, at most once a minute for each peer and reason.
    pub fn refuse(&self, from: i32, why: Refusal, reason: String) -> Reply {
        if !matches!(why, Refusal::NotLeader | Refusal::Busy) {
            self.refusals.fetch_add(1, Ordering::Relaxed);
            self.log_once((from, why, false), || {
                tracing::warn!(from, reason, "refused a request of another node of the metadata quorum");
            });
        }
        Reply::Refused { why, reason, leader: None }
    }

    /// Requests refused so far because of who sent them or what they held.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    fn log_once(&self, key: (i32, Refusal, bool), log: impl FnOnce()) {
        let now = Instant::now();
        let mut logged = self.logged.lock();
        if logged.get(&key).is_some_and(|at| now.duration_since(*at) < LOG_EVERY) {
            return;
        }
        logged.retain(|_, at| now.duration_since(*at) < LOG_EVERY);
        if logged.len() < PEERS_MAX {
            logged.insert(key, now);
            drop(logged);
            log();
        }
    }
}
