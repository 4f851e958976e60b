//! What the quorum tells about itself, for status, metrics and DescribeQuorum.

use openraft::ServerState;
use tokio::time::Instant;

use crate::core::Core;
use crate::types::Voter;

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
    /// The members without a vote: they are to get one, or were left behind by a change that broke off.
    pub learners: Vec<(i32, Voter)>,
    /// On the leader, how far each other node's log matches.
    pub replication: Vec<(i32, Option<u64>)>,
    /// Requests of other nodes refused because of who sent them or what they held.
    pub refusals: u64,
}

/// A node that keeps a copy of the metadata log, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Node id.
    pub id: i32,
    /// Address and directory.
    pub voter: Voter,
    /// False for observers, and for voters to be.
    pub votes: bool,
    /// One past its last offset, when known.
    pub log_end_offset: Option<u64>,
    /// When it was last heard.
    pub last_fetch_ms: Option<i64>,
    /// When it last had all that was in the log.
    pub last_caught_up_ms: Option<i64>,
}

/// A momentary view of the quorum.
pub fn quorum(core: &Core) -> QuorumMetrics {
    let (journal_bytes, last_offset) = {
        let journal = core.node.journal.lock();
        (journal.size(), journal.last().map(|id| id.index))
    };
    let leadership = *core.leadership.borrow();
    let watch = core.raft.metrics();
    let m = watch.borrow();
    let nodes = m.membership_config.membership();
    let member = |id| (id, nodes.get_node(&id).cloned().unwrap_or_default());
    let replication = m.replication.iter().flatten().map(|(id, at)| (*id, at.map(|l| l.index)));
    QuorumMetrics {
        role: role(m.state),
        term: m.current_term,
        leader: leadership.leader,
        voted_for: m.vote.leader_id.voted_for,
        last_offset,
        applied_offset: m.last_applied.map(|id| id.index),
        snapshot_offset: m.snapshot.map(|id| id.index),
        purged_offset: m.purged.map(|id| id.index),
        journal_bytes,
        voters: nodes.voter_ids().map(member).collect(),
        learners: nodes.learner_ids().map(member).collect(),
        replication: replication.collect(),
        refusals: core.node.refusals(),
    }
}

/// All nodes this one knows to keep the log.
pub fn replicas(core: &Core, now_ms: i64) -> Vec<Replica> {
    let now = Instant::now();
    let ms = |at: Option<Instant>| at.map(|at| now_ms - i64::try_from((now - at).as_millis()).unwrap_or(i64::MAX / 2));
    let members = core.members();
    let mut replicas = Vec::new();
    for (id, voter) in members.nodes() {
        let votes = members.voter_ids().any(|v| v == *id);
        let mut replica = Replica {
            id: *id,
            voter: voter.clone(),
            votes,
            log_end_offset: None,
            last_fetch_ms: None,
            last_caught_up_ms: None,
        };
        if *id == core.id() {
            replica.log_end_offset = core.node.journal.lock().last().map(|id| id.index + 1);
            (replica.last_fetch_ms, replica.last_caught_up_ms) = (Some(now_ms), Some(now_ms));
        } else if let Some(contact) = core.node.contacts.member(*id, voter) {
            replica.log_end_offset = contact.last.map(|i| i + 1);
            (replica.last_fetch_ms, replica.last_caught_up_ms) = (ms(contact.heard), ms(contact.caught_up));
        }
        replicas.push(replica);
    }
    for (id, contact) in core.node.contacts.observers() {
        if members.get_node(&id).is_none_or(|v| v.directory_id != contact.voter.directory_id) {
            replicas.push(Replica {
                id,
                votes: false,
                log_end_offset: contact.last.map(|i| i + 1),
                last_fetch_ms: ms(contact.heard),
                last_caught_up_ms: ms(contact.caught_up),
                voter: contact.voter,
            });
        }
    }
    replicas
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Candidate => Role::Candidate,
        ServerState::Follower => Role::Follower,
        ServerState::Learner | ServerState::Shutdown => Role::Observer,
    }
}
