//! The quorum as callers see it: open, propose, watch, shut down.
//!
//! Proposals that arrive while one is being written travel together in the next entry, so many callers share
//! one disk flush. All tasks live on the runtime that called [`Quorum::open`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{ClientWriteError, RaftError};
use openraft::{Config, EntryPayload, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::codec;
use crate::error::QuorumError;
use crate::journal::{Journal, Owner};
use crate::log_store::{Failure, LogStore};
use crate::machine::{Machine, SnapshotTrigger, StateMachine};
use crate::network::NoPeers;
use crate::snapshots::Snapshots;
use crate::types::{Batch, Entry, Membership, Raft, Vote, Voter, log_id};

/// Waiting proposals; more callers than this wait for room.
const QUEUE_MAX: usize = 1024;
/// Proposals of up to this many bytes share an entry.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// A single proposal may have this many bytes: far more than the largest allowed request makes.
const PROPOSAL_BYTES_MAX: usize = 16 << 20;

/// How often a quorum of one wakes up for nothing.
const HEARTBEAT_ALONE: Duration = Duration::from_secs(10);

/// Where and as whom to run.
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    /// Folder of the journal and the snapshots; created when missing.
    pub dir: PathBuf,
    /// This node's id.
    pub node_id: i32,
    /// The cluster's id; a folder written under another one is refused.
    pub cluster_id: String,
    /// Where this node can be reached by later voters.
    pub me: Voter,
    /// A snapshot is taken after this many bytes of records.
    pub snapshot_bytes: u64,
    /// A snapshot is taken after this many records.
    pub snapshot_records: u64,
    /// Entries that stay in the journal after a snapshot, so that peers a little behind need no snapshot.
    pub entries_kept: u64,
    /// A journal file is closed at this size.
    pub segment_bytes: u64,
    /// Time between a leader's heartbeats. Election windows start at four times of it.
    pub heartbeat: Duration,
}

impl QuorumConfig {
    /// A node with the usual limits.
    pub fn new(dir: impl Into<PathBuf>, node_id: i32, cluster_id: impl Into<String>) -> Self {
        Self {
            dir: dir.into(),
            node_id,
            cluster_id: cluster_id.into(),
            me: Voter::default(),
            snapshot_bytes: 8 << 20,
            snapshot_records: 50_000,
            entries_kept: 1_000,
            segment_bytes: 4 << 20,
            heartbeat: Duration::from_millis(100),
        }
    }

    fn owner(&self) -> Owner {
        Owner { cluster_id: self.cluster_id.clone(), node_id: self.node_id }
    }

    /// openraft draws its election timeout once per process, so two survivors could draw the same and split
    /// votes for ever. Each voter therefore gets a window of its own, by its rank among the voters.
    ///
    /// A quorum of one has nobody to send heartbeats to; openraft's timer runs all the same, so it gets a long one.
    fn raft(&self, rank: u64, alone: bool) -> Config {
        let heartbeat = if alone { HEARTBEAT_ALONE } else { self.heartbeat };
        let heartbeat = heartbeat.as_millis().max(1) as u64;
        let window = heartbeat * 2;
        Config {
            cluster_name: self.cluster_id.clone(),
            heartbeat_interval: heartbeat,
            election_timeout_min: heartbeat * 4 + rank * window,
            election_timeout_max: heartbeat * 4 + rank * window + window,
            install_snapshot_timeout: 10_000,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.entries_kept,
            ..Config::default()
        }
    }
}

/// What this node is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes proposals.
    Leader,
    /// Follows a leader, may vote.
    Follower,
    /// Stands for election.
    Candidate,
    /// Receives the log, doesn't vote.
    Observer,
}

/// A momentary view of the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumMetrics {
    /// What this node is.
    pub role: Role,
    /// Current term: Kafka's leader epoch of the metadata log.
    pub term: u64,
    /// The leader, when known.
    pub leader: Option<i32>,
    /// The node this one voted for in the current term.
    pub voted_for: Option<i32>,
    /// Last offset in the log.
    pub last_offset: Option<u64>,
    /// Last offset applied to the state machine; everything up to it is committed.
    pub applied_offset: Option<u64>,
    /// Offset of the newest snapshot.
    pub snapshot_offset: Option<u64>,
    /// Entries up to this offset are only in the snapshot.
    pub purged_offset: Option<u64>,
    /// Bytes of journal files.
    pub journal_bytes: u64,
    /// The voters.
    pub voters: Vec<(i32, Voter)>,
    /// On the leader, how far each other node's log matches.
    pub replication: Vec<(i32, Option<u64>)>,
}

struct Proposal {
    records: Vec<Bytes>,
    answer: oneshot::Sender<Result<u64, QuorumError>>,
}

/// A running member of the metadata quorum. Cheap to clone.
#[derive(Clone)]
pub struct Quorum {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft,
    journal: Arc<Mutex<Journal>>,
    snapshots: Arc<Mutex<Snapshots>>,
    failure: Failure,
    proposals: mpsc::Sender<Proposal>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Held until the last clone is gone and with it the last writer.
    _lock: File,
}

struct Stored {
    journal: Journal,
    machine: Machine,
    trigger: Arc<SnapshotTrigger>,
    lock: File,
    alone: bool,
}

impl Quorum {
    /// Opens the node's files, replays them into `machine` and joins the quorum. A node without files forms a
    /// quorum of one. For a quorum of one this returns as its leader with everything applied.
    pub async fn open(config: QuorumConfig, machine: impl StateMachine) -> Result<Self, QuorumError> {
        let failure = Failure::default();
        let (opened, kept) = (config.clone(), failure.clone());
        let stored = tokio::task::spawn_blocking(move || load(&opened, Box::new(machine), kept)).await;
        let stored = stored.map_err(|e| QuorumError::Stopped(format!("opening the metadata log failed: {e}")))??;
        let Stored { journal, machine, trigger, lock, alone } = stored;
        let last = journal.last().map(|id| id.index);
        let snapshots = machine.snapshots();
        let journal = Arc::new(Mutex::new(journal));
        let store = LogStore { journal: journal.clone(), failure: failure.clone() };
        let raft = openraft::Raft::new(config.node_id, Arc::new(config.raft(0, alone)), NoPeers, store, machine).await;
        let raft = raft.map_err(|e| stopped(&failure, e))?;
        let (proposals, queue) = mpsc::channel(QUEUE_MAX);
        let tasks = vec![
            tokio::spawn(propose_all(raft.clone(), journal.clone(), failure.clone(), config.dir.clone(), queue)),
            tokio::spawn(take_snapshots(raft.clone(), trigger)),
        ];
        let tasks = Mutex::new(tasks);
        let quorum =
            Self { inner: Arc::new(Inner { raft, journal, snapshots, failure, proposals, tasks, _lock: lock }) };
        if alone {
            quorum.lead(config.node_id, last).await?;
        }
        Ok(quorum)
    }

    /// Makes a quorum of one its own leader without waiting for any timer, and waits until all is applied.
    async fn lead(&self, node_id: i32, last: Option<u64>) -> Result<(), QuorumError> {
        let raft = &self.inner.raft;
        // Nothing to send heartbeats to and nobody to elect.
        raft.runtime_config().tick(false);
        let failure = &self.inner.failure;
        let leads = raft.with_raft_state(|s| s.vote_ref().is_committed()).await;
        if !leads.map_err(|e| stopped(failure, e))? {
            raft.trigger().elect().await.map_err(|e| stopped(failure, e))?;
        }
        let wait = raft.wait(None);
        let ready = wait.metrics(
            |m| m.current_leader == Some(node_id) && m.last_applied.map(|id| id.index) >= last,
            "leading with all entries applied",
        );
        ready.await.map(|_| ()).map_err(|e| stopped(failure, e))
    }

    /// Proposes records that must be applied together. Resolves once they are committed and applied here, with
    /// their offset. Only the leader can do this.
    pub async fn propose(&self, records: Vec<Bytes>) -> Result<u64, QuorumError> {
        let size = codec::records_size(&records);
        if size > PROPOSAL_BYTES_MAX {
            return Err(QuorumError::TooLarge { size, max: PROPOSAL_BYTES_MAX });
        }
        let (answer, answered) = oneshot::channel();
        let sent = self.inner.proposals.send(Proposal { records, answer }).await;
        match sent {
            Ok(()) => answered.await.unwrap_or_else(|e| Err(stopped(&self.inner.failure, e))),
            Err(_) => Err(stopped(&self.inner.failure, "shut down")),
        }
    }

    /// The leader, when known.
    pub fn leader(&self) -> Option<i32> {
        self.inner.raft.server_metrics().borrow().current_leader
    }

    /// Waits until the leader or this node's role is another one than `(leader, role)`, and returns both.
    pub async fn leader_changed(&self, from: (Option<i32>, Role)) -> Result<(Option<i32>, Role), QuorumError> {
        let mut watch = self.inner.raft.server_metrics();
        let changed = watch.wait_for(|m| (m.current_leader, role(m.state)) != from).await;
        let now = changed.map(|m| (m.current_leader, role(m.state)));
        now.map_err(|e| stopped(&self.inner.failure, e))
    }

    /// A momentary view of the quorum.
    pub fn metrics(&self) -> QuorumMetrics {
        let journal_bytes = self.inner.journal.lock().size();
        let watch = self.inner.raft.metrics();
        let m = watch.borrow();
        let nodes = m.membership_config.membership();
        let voters = nodes.voter_ids().map(|id| (id, nodes.get_node(&id).cloned().unwrap_or_default()));
        let replication = m.replication.iter().flatten().map(|(id, at)| (*id, at.map(|l| l.index)));
        QuorumMetrics {
            role: role(m.state),
            term: m.current_term,
            leader: m.current_leader,
            voted_for: m.vote.leader_id.voted_for,
            last_offset: m.last_log_index,
            applied_offset: m.last_applied.map(|id| id.index),
            snapshot_offset: m.snapshot.map(|id| id.index),
            purged_offset: m.purged.map(|id| id.index),
            journal_bytes,
            voters: voters.collect(),
            replication: replication.collect(),
        }
    }

    /// Takes a snapshot now; resolves when it has been asked for, not when it is there.
    pub async fn snapshot(&self) -> Result<(), QuorumError> {
        self.inner.raft.trigger().snapshot().await.map_err(|e| stopped(&self.inner.failure, e))
    }

    /// Resolves when storage or the state machine has failed, with the reason: the process must stop then.
    /// Never resolves after a regular [`Quorum::shutdown`].
    pub async fn failed(&self) -> Arc<QuorumError> {
        let mut watch = self.inner.raft.metrics();
        let _ = watch.wait_for(|m| m.running_state.is_err()).await;
        match self.inner.failure.get() {
            Some(error) => error,
            None if watch.borrow().running_state == Err(openraft::error::Fatal::Panicked) => {
                Arc::new(QuorumError::Stopped("the Raft task panicked".into()))
            }
            None => std::future::pending().await,
        }
    }

    /// Leaves the quorum in order. Proposals under way may or may not be committed.
    pub async fn shutdown(&self) {
        // The core's task result says nothing new: a failure is kept in `failure`.
        let _ = self.inner.raft.shutdown().await;
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
        // One that is being written on a blocking thread is waited for; one that comes later is dropped.
        let snapshots = self.inner.snapshots.clone();
        let _ = tokio::task::spawn_blocking(move || snapshots.lock().close()).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Candidate => Role::Candidate,
        ServerState::Follower => Role::Follower,
        ServerState::Learner | ServerState::Shutdown => Role::Observer,
    }
}

fn stopped(failure: &Failure, otherwise: impl ToString) -> QuorumError {
    let reason = failure.get().map_or_else(|| otherwise.to_string(), |e| e.to_string());
    QuorumError::Stopped(reason)
}

/// Opens or creates the files and restores the machine from its snapshot. Blocks.
fn load(config: &QuorumConfig, machine: Box<dyn StateMachine>, failure: Failure) -> Result<Stored, QuorumError> {
    let dir = &config.dir;
    fs::create_dir_all(dir).map_err(|e| QuorumError::io("creating", dir, e))?;
    let lock = lock(dir)?;
    let (snapshots, contents) = Snapshots::open(dir)?;
    let mut journal = match Journal::open(dir, config.owner(), config.segment_bytes)? {
        Some(journal) => journal,
        None if contents.is_some() => {
            return Err(QuorumError::Damaged {
                path: dir.clone(),
                position: 0,
                reason: "there is a snapshot, but no journal, so the vote is unknown".into(),
            });
        }
        None => form(config)?,
    };
    let snapshot_id = contents.as_ref().and_then(|c| c.meta.last_log_id);
    if journal.purged() > snapshot_id {
        let reason = "entries were purged, but the snapshot that holds them is missing".into();
        return Err(QuorumError::Damaged { path: dir.clone(), position: 0, reason });
    }
    let from_snapshot = contents.as_ref().map(|c| c.meta.last_membership.membership());
    let membership = journal.membership().or(from_snapshot);
    let alone = membership.is_some_and(|m| m.voter_ids().eq([config.node_id]));
    settle(&mut journal, config.node_id, alone)?;
    let trigger = Arc::new(SnapshotTrigger::new(config.snapshot_bytes, config.snapshot_records));
    let mut machine = Machine::new(machine, snapshots, trigger.clone(), failure);
    if let Some(contents) = contents {
        machine.restore(contents)?;
    }
    Ok(Stored { journal, machine, trigger, lock, alone })
}

/// Writes the first files of a quorum of one: this node leads term 1 and its first entry says so. One flush
/// instead of the four that initialising, electing and confirming would take.
fn form(config: &QuorumConfig) -> Result<Journal, QuorumError> {
    let nodes = std::collections::BTreeMap::from([(config.node_id, config.me.clone())]);
    let membership = Membership::new(vec![[config.node_id].into()], nodes);
    let first = Entry { log_id: log_id(1, 0), payload: EntryPayload::Membership(membership) };
    let vote = Vote::new_committed(1, config.node_id);
    Journal::create(&config.dir, config.owner(), config.segment_bytes, Some(vote), &[first])
}

/// Decides what the stored vote is worth after a restart.
///
/// openraft lets a restarted leader go on in its old term. With peers that isn't safe here: an entry may have
/// been sent to them before it was durable at home, and a crash would let this node write another entry under the
/// same log id. So with peers the vote is taken back to "cast", and the next leader gets a term of its own. A
/// quorum of one has told nobody and goes on at once.
fn settle(journal: &mut Journal, node_id: i32, alone: bool) -> Result<(), QuorumError> {
    if alone {
        return Ok(());
    }
    // What a crashed process left in the page cache must be durable before Raft counts on it.
    journal.sync_all()?;
    if journal.vote().is_some_and(|vote| vote.leader_id.voted_for == Some(node_id)) {
        journal.uncommit_vote();
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, QuorumError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(|e| QuorumError::io("creating", &path, e))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(QuorumError::Foreign { dir: dir.to_path_buf(), reason: "another process runs on it".into() })
        }
        Err(e) => Err(QuorumError::io("locking", &path, e.into())),
    }
}

/// Turns waiting proposals into entries, one entry at a time.
async fn propose_all(
    raft: Raft,
    journal: Arc<Mutex<Journal>>,
    failure: Failure,
    dir: PathBuf,
    mut queue: mpsc::Receiver<Proposal>,
) {
    let mut next = queue.recv().await;
    while let Some(proposal) = next.take() {
        let mut size = codec::records_size(&proposal.records);
        let mut records = proposal.records;
        let mut answers = vec![proposal.answer];
        while let Ok(more) = queue.try_recv() {
            let more_size = codec::records_size(&more.records);
            if size + more_size > GROUP_BYTES_MAX {
                next = Some(more);
                break;
            }
            size += more_size;
            records.extend(more.records);
            answers.push(more.answer);
        }
        let outcome = propose_one(&raft, &journal, &failure, records, size).await;
        for answer in answers {
            // A caller that went away doesn't need the answer.
            let _ = answer.send(match &outcome {
                Ok(offset) => Ok(*offset),
                Err(Refusal::NotLeader(leader)) => Err(QuorumError::NotLeader { leader: *leader }),
                Err(Refusal::NoSpace) => Err(QuorumError::NoSpace { dir: dir.clone() }),
                Err(Refusal::Stopped(reason)) => Err(QuorumError::Stopped(reason.clone())),
            });
        }
        if next.is_none() {
            next = queue.recv().await;
        }
    }
}

enum Refusal {
    NotLeader(Option<i32>),
    NoSpace,
    Stopped(String),
}

async fn propose_one(
    raft: &Raft,
    journal: &Arc<Mutex<Journal>>,
    failure: &Failure,
    records: Vec<Bytes>,
    size: usize,
) -> Result<u64, Refusal> {
    // Room is made before Raft knows of the records: a full disk then refuses a request instead of ending the
    // process, which an append that fails half-way must do.
    let room = journal.clone();
    let reserved = tokio::task::spawn_blocking(move || room.lock().reserve(size as u64 + 1024)).await;
    match reserved {
        Ok(Ok(())) => {}
        Ok(Err(QuorumError::NoSpace { .. })) => return Err(Refusal::NoSpace),
        Ok(Err(e)) => {
            let text = e.to_string();
            failure.storage(e);
            return Err(Refusal::Stopped(text));
        }
        Err(e) => return Err(Refusal::Stopped(e.to_string())),
    }
    match raft.client_write(Batch(records.into())).await {
        Ok(written) => Ok(written.data),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => Err(Refusal::NotLeader(to.leader_id)),
        Err(e) => Err(Refusal::Stopped(failure.get().map_or_else(|| e.to_string(), |f| f.to_string()))),
    }
}

async fn take_snapshots(raft: Raft, trigger: Arc<SnapshotTrigger>) {
    loop {
        trigger.due.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[path = "quorum_test.rs"]
mod tests;
