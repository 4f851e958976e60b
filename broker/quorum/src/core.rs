//! A running node: Raft, its files and what its tasks share. Also who leads, as callers may rely on it.
//!
//! Openraft's own view of leadership isn't enough: a leader that reaches no majority goes on calling itself
//! leader. Here it counts only while a majority answers.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::ServerState;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::QuorumError;
use crate::lock::Lock;
use crate::log_store::Failure;
use crate::message::Identity;
use crate::node::Node;
use crate::receive::Incoming;
use crate::snapshots::Snapshots;
use crate::types::{Membership, Raft, Vote, Voter, term_of};

/// Who leads, as far as this node can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The leader. On a leader that has lost contact to a majority: None.
    pub leader: Option<i32>,
    /// The term it leads in: Kafka's leader epoch of the metadata log.
    pub term: u64,
    /// This node leads and has applied an entry of its own term, and so everything committed before it.
    pub ready: bool,
}

/// See the module's head.
pub struct Core {
    pub node: Arc<Node>,
    pub raft: Raft,
    pub snapshots: Arc<Mutex<Snapshots>>,
    pub failure: Failure,
    pub leadership: watch::Sender<Leadership>,
    /// Held while the membership is changed: one change at a time.
    pub changing: tokio::sync::Mutex<()>,
    /// Held while a proposal is written.
    pub writing: tokio::sync::Mutex<()>,
    /// This leader steps down: it takes no proposals and sends no heartbeats.
    pub resigning: AtomicBool,
    /// The leader asked this node to stand for election at once.
    pub elect_now: Notify,
    pub incoming: tokio::sync::Mutex<Option<Incoming>>,
    /// Why this empty node cannot become part of the cluster that it was pointed to.
    pub refused: watch::Sender<Option<String>>,
    /// Since when this node leads, and in which term. Held while leadership is worked out, so that an older view
    /// never replaces a newer one.
    leads_since: Mutex<(u64, Option<Instant>)>,
    /// Members that don't answer this leader.
    silent: Mutex<BTreeSet<i32>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Held until the last clone is gone and with it the last writer.
    _lock: Lock,
}

impl Core {
    pub fn new(node: Arc<Node>, raft: Raft, snapshots: Arc<Mutex<Snapshots>>, failure: Failure, lock: Lock) -> Self {
        Self {
            node,
            raft,
            snapshots,
            failure,
            leadership: watch::Sender::default(),
            changing: tokio::sync::Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            resigning: AtomicBool::new(false),
            elect_now: Notify::new(),
            incoming: tokio::sync::Mutex::default(),
            refused: watch::Sender::default(),
            leads_since: Mutex::default(),
            silent: Mutex::default(),
            tasks: Mutex::default(),
            _lock: lock,
        }
    }

    pub fn id(&self) -> i32 {
        self.node.config.node_id
    }

    /// The newest membership in this node's log, committed or not, as Raft wants it.
    pub fn members(&self) -> Membership {
        self.raft.server_metrics().borrow().membership_config.membership().clone()
    }

    /// Whether this node, with this directory, is a voter.
    pub fn is_voter(&self, members: &Membership) -> bool {
        members.voter_ids().any(|id| id == self.id()) && self.my_entry(members).is_some_and(|v| self.is_me(v))
    }

    /// This node's entry in a membership, whatever directory it names.
    pub fn my_entry<'a>(&self, members: &'a Membership) -> Option<&'a Voter> {
        members.get_node(&self.id())
    }

    pub fn is_me(&self, voter: &Voter) -> bool {
        voter.directory_id == self.node.config.me.directory_id
    }

    /// Whether this node is the only member.
    pub fn is_alone(&self, members: &Membership) -> bool {
        members.nodes().count() == 1 && members.voter_ids().eq([self.id()])
    }

    /// The vote and what this node is.
    pub fn state(&self) -> (Vote, ServerState) {
        let server = self.raft.server_metrics();
        let server = server.borrow();
        (server.vote, server.state)
    }

    /// The leader as a node that can be called, when known.
    pub fn leader_node(&self) -> Option<(i32, Voter)> {
        let leader = self.leadership.borrow().leader?;
        Some((leader, self.members().get_node(&leader)?.clone()))
    }

    pub fn stopped(&self, otherwise: impl ToString) -> QuorumError {
        let reason = self.failure.get().map_or_else(|| otherwise.to_string(), |e| e.to_string());
        QuorumError::Stopped(reason)
    }

    pub fn not_leader(&self) -> QuorumError {
        let leader = self.leadership.borrow().leader.filter(|id| *id != self.id());
        QuorumError::NotLeader { leader }
    }

    /// This node's term if it leads and a majority knows it.
    pub fn leads(&self) -> Option<u64> {
        let now = *self.leadership.borrow();
        (now.leader == Some(self.id()) && !self.resigning.load(Ordering::Relaxed)).then_some(now.term)
    }

    /// Works out anew who leads, and tells who waits for it.
    pub fn observe(&self) {
        let mut since = self.leads_since.lock();
        let metrics = self.raft.metrics();
        let (term, mut leader, leads, applied) = {
            let m = metrics.borrow();
            let leads = m.state == ServerState::Leader && m.current_leader == Some(self.id());
            (m.current_term, m.current_leader, leads, m.last_applied)
        };
        if leads {
            if since.0 != term || since.1.is_none() {
                *since = (term, Some(Instant::now()));
            }
            if self.resigning.load(Ordering::Relaxed) || !self.has_majority(since.1) {
                leader = None;
            }
        } else {
            since.1 = None;
            let lost = leader == Some(self.id()) || self.is_voter(&self.members()) && !self.hears_leader();
            if lost {
                leader = None;
            }
        }
        let ready = leads && leader.is_some() && applied.is_some_and(|id| term_of(&id) == term);
        let next = Leadership { leader, term, ready };
        self.leadership.send_if_modified(|now| std::mem::replace(now, next) != next);
    }

    fn hears_leader(&self) -> bool {
        self.node.contacts.leader().is_some_and(|at| at.elapsed() < self.node.config.contact_max())
    }

    /// How long this node has been leading.
    pub fn leads_for(&self) -> Duration {
        self.leads_since.lock().1.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Says when a member stops answering this leader, and when it answers again.
    pub fn watch_members(&self, members: &Membership) {
        let patience = self.node.config.contact_max() * 4;
        if self.leads_for() < patience {
            return;
        }
        let mut silent = self.silent.lock();
        for (id, voter) in members.nodes().filter(|(id, _)| **id != self.id()) {
            let heard = self.node.contacts.member(*id, voter).and_then(|c| c.heard);
            if heard.is_some_and(|at| at.elapsed() < patience) {
                if silent.remove(id) {
                    tracing::info!(node = id, "a member of the metadata quorum answers again");
                }
            } else if silent.insert(*id) {
                tracing::warn!(node = id, address = %voter.peer(*id), "a member of the metadata quorum doesn't answer");
            }
        }
    }

    fn has_majority(&self, since: Option<Instant>) -> bool {
        let contact_max = self.node.config.contact_max();
        let recent = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < contact_max);
        if recent(since) {
            return true;
        }
        let members = self.members();
        let reached = members.nodes().filter(|(id, voter)| {
            **id == self.id() || recent(self.node.contacts.member(**id, voter).and_then(|c| c.heard))
        });
        is_majority(&members, &reached.map(|(id, _)| *id).collect())
    }

    /// Makes room for `bytes` in the journal before Raft knows of what comes: a full disk then refuses one thing
    /// instead of ending the process, which an append that fails half-way must do.
    pub async fn reserve(&self, bytes: u64) -> Result<(), QuorumError> {
        if self.node.journal.lock().has_room(bytes) {
            return Ok(());
        }
        let journal = self.node.journal.clone();
        match tokio::task::spawn_blocking(move || journal.lock().reserve(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error @ QuorumError::NoSpace { .. })) => Err(error),
            Ok(Err(error)) => Err(self.stopped(self.failure.storage(error))),
            Err(error) => Err(self.stopped(error)),
        }
    }

    /// Runs a task for as long as the quorum is open.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        tasks.retain(|t| !t.is_finished());
        tasks.push(tokio::spawn(task));
    }

    /// Runs `work` to its end, whether or not the caller waits that long.
    pub async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, QuorumError>> + Send + 'static,
    ) -> Result<T, QuorumError> {
        let (answer, answered) = oneshot::channel();
        self.spawn(async move {
            // Nobody waits any more, which is what this is for.
            let _ = answer.send(work.await);
        });
        answered.await.unwrap_or_else(|e| Err(self.stopped(e)))
    }

    /// Ends all tasks; they hold this core, which holds the lock on the folder.
    pub fn abort_tasks(&self) -> Vec<JoinHandle<()>> {
        let tasks: Vec<_> = self.tasks.lock().drain(..).collect();
        tasks.iter().for_each(JoinHandle::abort);
        tasks
    }

    pub fn identity(&self) -> Identity {
        self.node.config.identity()
    }

    pub fn heartbeat(&self) -> Duration {
        self.node.config.heartbeat
    }
}

/// Whether `ids` hold a majority in each configuration that counts.
pub fn is_majority(members: &Membership, ids: &BTreeSet<i32>) -> bool {
    let configs = members.get_joint_config();
    !configs.is_empty() && configs.iter().all(|c| c.intersection(ids).count() * 2 > c.len())
}
