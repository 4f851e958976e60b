//! The quorum as callers see it: open, propose, watch, change its voters, shut down.
//!
//! All tasks live on the runtime that called [`Quorum::open`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::error::{CheckIsLeaderError, RaftError};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::codec;
use crate::config::{Bootstrap, QuorumConfig};
use crate::core::{Core, Leadership};
use crate::error::QuorumError;
use crate::journal::Journal;
use crate::lock::Lock;
use crate::log_store::{Failure, LogStore};
use crate::machine::{Machine, SnapshotTrigger, StateMachine};
use crate::metrics::{self, QuorumMetrics, Replica};
use crate::network::Network;
use crate::node::Node;
use crate::propose::{PROPOSAL_BYTES_MAX, Proposal, QUEUE_MAX, propose_all};
use crate::snapshots::Snapshots;
use crate::types::{Entry, LogId, Membership, Raft, Vote, Voter, log_id, term_of};
use crate::vote_copy;
use crate::{election, follow, join, membership, message, receive};

/// A running node of the metadata quorum, voter or observer; which one may change while it runs. Cheap to clone.
#[derive(Clone)]
pub struct Quorum {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) core: Arc<Core>,
    proposals: mpsc::Sender<Proposal>,
}

struct Stored {
    journal: Journal,
    machine: Machine,
    trigger: Arc<SnapshotTrigger>,
    lock: Lock,
    alone: bool,
}

impl Quorum {
    /// Opens the node's files, replays them into `machine` and takes part in the quorum. For a quorum of one this
    /// returns as its leader with everything applied; otherwise at once, and [`Quorum::leader`] tells the rest.
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
        let node = Arc::new(Node::new(config, journal));
        let (id, settings) = (node.config.node_id, Arc::new(node.config.raft()));
        let raft = openraft::Raft::new(id, settings, Network(node.clone()), store, machine).await;
        let raft = match raft {
            Ok(raft) => raft,
            Err(e) => return Err(QuorumError::Stopped(failure.get().map_or(e.to_string(), |f| f.to_string()))),
        };
        // Raft's task answers once it has published what it found on disk; until then the membership looks empty.
        if let Err(e) = raft.with_raft_state(|_| ()).await {
            return Err(QuorumError::Stopped(failure.get().map_or(e.to_string(), |f| f.to_string())));
        }
        let (proposals, queue) = mpsc::channel(QUEUE_MAX);
        let core = Arc::new(Core::new(node, raft, snapshots, failure, lock));
        let quorum = Self { inner: Arc::new(Inner { core: core.clone(), proposals }) };
        core.spawn(watch_leadership(core.clone()));
        core.spawn(propose_all(core.clone(), queue));
        core.spawn(take_snapshots(core.raft.clone(), trigger));
        if alone {
            quorum.lead(last).await?;
        }
        core.observe();
        core.spawn(election::drive(core.clone()));
        core.spawn(follow::follow(core.clone()));
        core.spawn(join::enter(core.clone()));
        Ok(quorum)
    }

    /// Makes a quorum of one its own leader without waiting for any timer, and waits until all is applied.
    async fn lead(&self, last: Option<u64>) -> Result<(), QuorumError> {
        let core = &self.inner.core;
        let id = core.id();
        let leads = core.raft.with_raft_state(|s| s.vote_ref().is_committed()).await;
        if !leads.map_err(|e| core.stopped(e))? {
            core.raft.trigger().elect().await.map_err(|e| core.stopped(e))?;
        }
        let wait = core.raft.wait(None);
        let ready = wait.metrics(
            |m| m.current_leader == Some(id) && m.last_applied.map(|id| id.index) >= last,
            "leading with all entries applied",
        );
        ready.await.map(|_| ()).map_err(|e| core.stopped(e))
    }

    /// Proposes records that must be applied together. Resolves once they are committed and applied here, with
    /// their offset. Only the leader can do this.
    ///
    /// After [`QuorumError::NotLeader`] they are certainly not applied, after [`QuorumError::Undecided`] nobody knows.
    pub async fn propose(&self, records: Vec<Bytes>) -> Result<u64, QuorumError> {
        let term = self.inner.core.leadership.borrow().term;
        self.propose_at(term, records).await
    }

    /// Like [`Quorum::propose`], for records that were decided while this node led in `term`: they are applied in
    /// that term or never.
    pub async fn propose_at(&self, term: u64, records: Vec<Bytes>) -> Result<u64, QuorumError> {
        let core = &self.inner.core;
        let size = codec::records_size(&records);
        // What the others wouldn't take must not get into the log.
        if size > PROPOSAL_BYTES_MAX || records.len() > message::records_max(size) {
            return Err(QuorumError::TooLarge { size, max: PROPOSAL_BYTES_MAX });
        }
        self.running()?;
        if core.leads() != Some(term) {
            return Err(core.not_leader());
        }
        let (answer, answered) = oneshot::channel();
        let sent = self.inner.proposals.send(Proposal { term, records, answer }).await;
        match sent {
            Ok(()) => answered.await.unwrap_or_else(|e| Err(core.stopped(e))),
            Err(_) => Err(core.stopped("shut down")),
        }
    }

    /// Makes sure, by asking a majority, that this node still leads and has applied everything that was committed
    /// when this was called. Returns the term.
    pub async fn ensure_leader(&self) -> Result<u64, QuorumError> {
        let core = &self.inner.core;
        self.running()?;
        let Some(term) = core.leads() else { return Err(core.not_leader()) };
        match timeout(core.node.config.contact_max(), core.raft.ensure_linearizable()).await {
            Ok(Ok(_)) if core.leads() == Some(term) => Ok(term),
            Ok(Err(RaftError::Fatal(e))) => Err(core.stopped(e)),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                Err(QuorumError::NotLeader { leader: to.leader_id.filter(|id| *id != core.id()) })
            }
            Ok(Ok(_) | Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => {
                Err(QuorumError::NotLeader { leader: None })
            }
        }
    }

    /// Who leads, now and from now on.
    pub fn leader(&self) -> watch::Receiver<Leadership> {
        self.inner.core.leadership.subscribe()
    }

    /// Answers a request that another node's transport carried here. Never fails because of what the request
    /// holds: a bad one is answered with the reason.
    pub async fn receive(&self, request: Bytes) -> Result<Bytes, QuorumError> {
        self.running()?;
        receive::receive(&self.inner.core, request).await
    }

    /// Makes a registered node a voter: it receives the log first, and gets its vote when it has caught up. Only
    /// the leader can do this, and one change at a time.
    ///
    /// A node that hasn't caught up within `limit` is taken out again. That happens as well when the caller no
    /// longer waits: the change goes to its end by itself.
    pub async fn add_voter(&self, id: i32, voter: Voter, limit: Duration) -> Result<(), QuorumError> {
        let core = self.inner.core.clone();
        self.inner.core.to_the_end(async move { membership::add(&core, id, voter, limit).await }).await
    }

    /// Takes a node's vote away, or a member that has none yet out of the membership; it goes on as an observer. A
    /// leader asked to remove itself hands over and answers
    /// [`QuorumError::NotLeader`]: ask the next one.
    pub async fn remove_voter(&self, id: i32, directory_id: [u8; 16]) -> Result<(), QuorumError> {
        membership::remove(&self.inner.core, id, directory_id).await
    }

    /// Writes down a voter's new address; the directory must be the one it votes with.
    pub async fn update_voter(&self, id: i32, voter: Voter) -> Result<(), QuorumError> {
        membership::update(&self.inner.core, id, voter).await
    }

    /// One step from the present voters towards `wanted`. Returns whether there is more to do; after
    /// [`QuorumError::NotLeader`] the next leader goes on.
    pub async fn reseat(&self, wanted: &BTreeMap<i32, Voter>) -> Result<bool, QuorumError> {
        membership::reseat(&self.inner.core, wanted).await
    }

    /// Hands leadership to a follower that is up to date. Returns whether this node doesn't lead any more.
    pub async fn resign(&self) -> Result<bool, QuorumError> {
        election::resign(&self.inner.core).await
    }

    /// A momentary view of the quorum.
    pub fn metrics(&self) -> QuorumMetrics {
        metrics::quorum(&self.inner.core)
    }

    /// Voters and observers with how far their logs go and when they were heard, as DescribeQuorum tells them;
    /// complete on the leader. Times are milliseconds on the clock that `now_ms` was read from.
    pub fn replicas(&self, now_ms: i64) -> Vec<Replica> {
        metrics::replicas(&self.inner.core, now_ms)
    }

    /// Tells which brokers are registered. As observers they are remembered whoever else claims to be one.
    pub fn registered(&self, ids: BTreeSet<i32>) {
        self.inner.core.node.contacts.registered(ids);
    }

    /// Takes a snapshot now; resolves when it has been asked for, not when it is there.
    pub async fn snapshot(&self) -> Result<(), QuorumError> {
        let core = &self.inner.core;
        core.raft.trigger().snapshot().await.map_err(|e| core.stopped(e))
    }

    /// Resolves when the nodes that this one was pointed to are all of another cluster, and it holds nothing itself:
    /// with what they said.
    pub async fn refused(&self) -> String {
        let mut refused = self.inner.core.refused.subscribe();
        loop {
            let why = refused.borrow_and_update().clone();
            match why {
                Some(why) => return why,
                None if refused.changed().await.is_err() => return std::future::pending().await,
                None => {}
            }
        }
    }

    /// Resolves when storage or the state machine has failed, with the reason: the process must stop then.
    /// Never resolves after a regular [`Quorum::shutdown`].
    pub async fn failed(&self) -> Arc<QuorumError> {
        let mut watch = self.inner.core.raft.metrics();
        let _ = watch.wait_for(|m| m.running_state.is_err()).await;
        match self.inner.core.failure.get() {
            Some(error) => error,
            None if watch.borrow().running_state == Err(openraft::error::Fatal::Panicked) => {
                Arc::new(QuorumError::Stopped("the Raft task panicked".into()))
            }
            None => std::future::pending().await,
        }
    }

    /// Leaves the quorum in order: a leader hands over first, if anybody can take over. Proposals under way may or
    /// may not be committed.
    pub async fn shutdown(&self) {
        if let Err(error) = self.resign().await {
            tracing::debug!(%error, "leadership isn't handed over");
        }
        self.stop().await;
    }

    pub(crate) async fn stop(&self) {
        let core = &self.inner.core;
        // The core's task result says nothing new: a failure is kept in `failure`.
        let _ = core.raft.shutdown().await;
        for task in core.abort_tasks() {
            // Cancelled, which is what was asked for.
            let _ = task.await;
        }
        // One that is being written on a blocking thread is waited for; one that comes later is dropped.
        let snapshots = core.snapshots.clone();
        let _ = tokio::task::spawn_blocking(move || snapshots.lock().close()).await;
    }

    fn running(&self) -> Result<(), QuorumError> {
        let core = &self.inner.core;
        match &core.raft.metrics().borrow().running_state {
            Ok(()) => Ok(()),
            Err(e) => Err(core.stopped(e)),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.core.abort_tasks();
    }
}

async fn watch_leadership(core: Arc<Core>) {
    let mut metrics = core.raft.metrics();
    loop {
        metrics.borrow_and_update();
        core.observe();
        if metrics.changed().await.is_err() {
            return;
        }
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

/// Opens or creates the files and restores the machine from its snapshot. Blocks.
fn load(config: &QuorumConfig, machine: Box<dyn StateMachine>, failure: Failure) -> Result<Stored, QuorumError> {
    let dir = &config.dir;
    fs::create_dir_all(dir).map_err(|e| QuorumError::io("creating", dir, e))?;
    let lock = Lock::take(dir)?;
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
        None if config.bootstrap == Bootstrap::Alone => form(config)?,
        None => Journal::create(dir, config.owner(), config.segment_bytes, None, &[])?,
    };
    if config.bootstrap == Bootstrap::Alone
        && contents.is_none()
        && journal.last().is_none()
        && journal.vote().is_none()
    {
        form_in(&mut journal, config)?;
    }
    let snapshot_id = contents.as_ref().and_then(|c| c.meta.last_log_id);
    if journal.purged() > snapshot_id {
        let reason = "entries were purged, but the snapshot that holds them is missing".into();
        return Err(QuorumError::Damaged { path: dir.clone(), position: 0, reason });
    }
    if let Some(id) = snapshot_id {
        reconcile(&mut journal, id)?;
    }
    let from_snapshot = contents.as_ref().map(|c| c.meta.last_membership.membership());
    let membership = journal.membership().or(from_snapshot);
    let alone = membership.is_some_and(|m| m.voter_ids().eq([config.node_id]));
    check_vote(&mut journal, alone)?;
    settle(&mut journal, config.node_id, alone)?;
    let trigger = Arc::new(SnapshotTrigger::new(config.snapshot_bytes, config.snapshot_records));
    let mut machine = Machine::new(machine, snapshots, trigger.clone(), failure);
    if let Some(contents) = contents {
        machine.restore(contents)?;
    }
    Ok(Stored { journal, machine, trigger, lock, alone })
}

/// Refuses a journal that has lost the last vote: this node would vote twice in one term, and two leaders of one term
/// are worse than a node that is down. Alone, it has nobody to contradict.
fn check_vote(journal: &mut Journal, alone: bool) -> Result<(), QuorumError> {
    let Some(copy) = vote_copy::read(journal.dir()).filter(|copy| vote_copy::is_newer(copy, journal.vote())) else {
        return Ok(());
    };
    let (path, term) = (journal.dir().to_path_buf(), copy.leader_id.term);
    if alone {
        tracing::warn!(dir = %path.display(), term, "the metadata log has lost its end, with this node's vote in it");
        let _ = journal.set_vote(copy)?;
        return journal.sync_all();
    }
    let reason = format!("its end is gone: this node has voted in term {term}, and the log doesn't know of it");
    Err(QuorumError::Damaged { path, position: journal.size(), reason })
}

/// A received snapshot is written before the log is purged. A crash in between leaves entries beside it, and those
/// that don't agree with it were never committed.
fn reconcile(journal: &mut Journal, snapshot: LogId) -> Result<(), QuorumError> {
    if journal.term_at(snapshot.index).is_none_or(|term| term == term_of(&snapshot)) {
        return Ok(());
    }
    let first = journal.purged().map_or(0, |id| id.index + 1);
    let sync = journal.truncate(first)?;
    sync.run().map_err(|e| journal.fail("syncing", e))?;
    journal.synced(&sync);
    Ok(())
}

/// Writes the first files of a quorum of one: this node leads term 1 and its first entry says so. One flush
/// instead of the four that initialising, electing and confirming would take.
fn form(config: &QuorumConfig) -> Result<Journal, QuorumError> {
    let (vote, first) = founding(config);
    Journal::create(&config.dir, config.owner(), config.segment_bytes, Some(vote), &[first])
}

/// The same in the journal of a node that waited for others in vain and is to be alone now.
fn form_in(journal: &mut Journal, config: &QuorumConfig) -> Result<(), QuorumError> {
    let (vote, first) = founding(config);
    let _ = journal.set_vote(vote)?;
    let _ = journal.append(&[first])?;
    journal.sync_all()
}

fn founding(config: &QuorumConfig) -> (Vote, Entry) {
    let nodes = BTreeMap::from([(config.node_id, config.me.clone())]);
    let membership = Membership::new(vec![[config.node_id].into()], nodes);
    let first = Entry { log_id: log_id(1, 0), payload: EntryPayload::Membership(membership) };
    (Vote::new_committed(1, config.node_id), first)
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

#[cfg(test)]
#[path = "quorum_test.rs"]
mod tests;
