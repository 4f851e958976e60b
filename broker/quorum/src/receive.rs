//! Answers to other nodes. Everything that arrives is checked before Raft sees it: openraft trusts its peers, and
//! would panic or follow on bytes that no honest peer sends.
//!
//! Invariant: votes, entries and snapshots are taken only from members of this node's membership, under the
//! directory ids they have there, and only when meant for this node's directory. A node without any entry takes
//! them from whoever knows its directory id. A node that has missed how the membership changed learns it by
//! pulling committed entries (see [`crate::follow`]) before it takes a new member's word.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use tokio::time::{Instant, timeout_at};

use crate::codec::Malformed;
use crate::core::Core;
use crate::error::QuorumError;
use crate::message::{Answer, Appended, Ask, Head, Identity, Refusal, Reply, Request};
use crate::types::{Entry, LogId, Snapshot, SnapshotFile, Vote, Voter, term_of};
use crate::{election, join, network, snapshots};

/// Largest snapshot that is taken from another node.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
/// Most bytes of entries or of a snapshot in one answer.
const ANSWER_BYTES_MAX: u32 = 1 << 20;
/// Longest time that a fetch waits for news.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A snapshot that is being received.
pub struct Incoming {
    from: i32,
    upto: LogId,
    size: u64,
    bytes: BytesMut,
}

/// Answers one request.
///
/// The body is decoded only when the head speaks for it: anyone can send one that takes much memory.
pub async fn receive(core: &Arc<Core>, mut request: Bytes) -> Result<Bytes, QuorumError> {
    if let Some(failure) = core.failure.get() {
        return Err(QuorumError::Stopped(failure.to_string()));
    }
    let malformed = |from, what: Malformed| (from, Refusal::Malformed, format!("malformed {}", what.0));
    let checked = match Head::decode(&mut request) {
        Err(what) => Err(malformed(-1, what)),
        Ok(head) => {
            let from = head.from.id;
            let head = check_head(core, &head).map(|()| head).map_err(|(why, reason)| (from, why, reason));
            let whole = head.and_then(|head| head.with_body(request).map_err(|what| malformed(from, what)));
            whole.and_then(|request| match check(core, &request) {
                Err((why, reason)) => Err((from, why, reason)),
                Ok(()) => Ok(request),
            })
        }
    };
    let reply = match checked {
        Err((from, why, reason)) => core.node.refuse(from, why, reason),
        Ok(request) => answer(core, request).await?,
    };
    Ok(Answer { from: core.identity(), reply }.encode())
}

type Check = Result<(), (Refusal, String)>;

fn check_head(core: &Core, request: &Head) -> Check {
    let mine = &core.node.config.cluster_id;
    if request.cluster_id != *mine {
        return Err((Refusal::OtherCluster, format!("this is cluster {mine}, the sender's is {}", request.cluster_id)));
    }
    let me = core.identity();
    if request.to.as_ref().is_some_and(|to| *to != me) {
        let to = request.to.as_ref().map_or(-1, |to| to.id);
        let what = if to == me.id { "another directory of this node" } else { "another node" };
        return Err((Refusal::OtherNode, format!("meant for {what} (node {to}), this is node {}", me.id)));
    }
    if !request.is_of_members() {
        return Ok(());
    }
    if request.to.is_none() {
        return Err((Refusal::Malformed, "target".to_owned()));
    }
    member(core, &request.from)
}

fn check(core: &Core, request: &Request) -> Check {
    let malformed = |what: &str| Err((Refusal::Malformed, what.to_owned()));
    match &request.ask {
        Ask::Probe { .. } => return Ok(()),
        Ask::Join { me: voter } | Ask::Fetch { me: voter, .. } => {
            if request.from == core.identity() {
                return Err((Refusal::OtherNode, "sent by this node itself".into()));
            }
            return match voter.directory_id == request.from.directory_id && request.from.id >= 0 {
                true => Ok(()),
                false => malformed("sender's directory"),
            };
        }
        Ask::FetchSnapshot { .. } => return Ok(()),
        Ask::PreVote { .. } => {}
        Ask::Vote { vote, .. } if vote.committed || vote.leader_id.voted_for != Some(request.from.id) => {
            return malformed("vote of another node");
        }
        Ask::Append { vote, .. } | Ask::Snapshot { vote, .. }
            if !vote.committed || vote.leader_id.voted_for != Some(request.from.id) =>
        {
            return malformed("entries of another leader");
        }
        Ask::Append { vote, prev, entries, .. } => follows(vote, *prev, entries)?,
        Ask::Vote { .. } | Ask::Snapshot { .. } | Ask::Transfer { .. } => {}
    }
    Ok(())
}

fn member(core: &Core, from: &Identity) -> Check {
    let members = core.members();
    if from.id == core.id() {
        return Err((Refusal::Stranger, format!("node id {} is this node's", from.id)));
    }
    match members.get_node(&from.id) {
        Some(voter) if voter.directory_id == from.directory_id => Ok(()),
        Some(_) => Err((Refusal::Stranger, format!("node {} is a member with another directory", from.id))),
        None if members.nodes().next().is_none() => Ok(()),
        None => Err((Refusal::Stranger, format!("node {} is no member of the quorum", from.id))),
    }
}

/// Entries must follow each other and what they are said to follow, and be no newer than the leader.
fn follows(vote: &Vote, prev: Option<LogId>, entries: &[Entry]) -> Check {
    let mut before = prev;
    for entry in entries {
        let next = before.map_or(0, |id| id.index + 1);
        let term = term_of(&entry.log_id);
        let falls = before.is_some_and(|id| term < term_of(&id));
        if entry.log_id.index != next || falls || term > vote.leader_id.term {
            return Err((Refusal::Malformed, "entries out of order".into()));
        }
        before = Some(entry.log_id);
    }
    Ok(())
}

async fn answer(core: &Arc<Core>, request: Request) -> Result<Reply, QuorumError> {
    let from = request.from;
    Ok(match request.ask {
        Ask::Probe { voters } => join::probed(core, &voters),
        Ask::PreVote { term, last } => Reply::PreVote { granted: election::would_vote(core, term, last) },
        Ask::Vote { vote, last } => {
            let voted = core.raft.vote(VoteRequest::new(vote, last)).await.map_err(|e| core.stopped(e))?;
            Reply::Vote { vote: voted.vote, granted: voted.vote_granted, last: voted.last_log_id }
        }
        Ask::Append { vote, prev, commit, entries } => append(core, vote, prev, commit, entries).await?,
        Ask::Snapshot { vote, upto, size, position, data } => {
            snapshot(core, from.id, vote, upto, size, position, data).await?
        }
        Ask::Transfer { term } => {
            let (vote, _) = core.state();
            if vote.committed && vote.leader_id.voted_for == Some(from.id) && vote.leader_id.term == term {
                tracing::info!(from = from.id, "the leader of the metadata quorum hands over to this node");
                core.elect_now.notify_one();
                Reply::Transfer
            } else {
                busy("the sender isn't this node's leader")
            }
        }
        Ask::Join { me } => join::asked(core, from.id, me).await,
        Ask::Fetch { me, last, applied, bytes_max, wait_ms } => {
            let until = Instant::now() + Duration::from_millis(wait_ms.into()).min(WAIT_MAX);
            fetch(core, from.id, me, last, applied, bytes_max.min(ANSWER_BYTES_MAX), until).await?
        }
        Ask::FetchSnapshot { upto, position, bytes_max } => {
            snapshot_part(core, upto, position, bytes_max.min(ANSWER_BYTES_MAX)).await?
        }
    })
}

fn busy(reason: &str) -> Reply {
    Reply::Refused { why: Refusal::Busy, reason: reason.to_owned(), leader: None }
}

async fn append(
    core: &Arc<Core>,
    vote: Vote,
    prev_log_id: Option<LogId>,
    leader_commit: Option<LogId>,
    entries: Vec<Entry>,
) -> Result<Reply, QuorumError> {
    if !entries.is_empty() {
        match core.reserve(network::size(&entries) as u64).await {
            Ok(()) => {}
            Err(QuorumError::NoSpace { .. }) => return Ok(busy("no space left for the metadata log")),
            Err(e) => return Err(e),
        }
    }
    let rpc = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit };
    let done = core.raft.append_entries(rpc).await.map_err(|e| core.stopped(e))?;
    if !matches!(done, AppendEntriesResponse::HigherVote(_)) {
        core.node.contacts.leader_heard();
    }
    Ok(Reply::Append(match done {
        AppendEntriesResponse::Success => Appended::Done,
        AppendEntriesResponse::PartialSuccess(upto) => Appended::Partly(upto),
        AppendEntriesResponse::Conflict => Appended::Conflict,
        AppendEntriesResponse::HigherVote(vote) => Appended::HigherVote(vote),
    }))
}

async fn snapshot(
    core: &Arc<Core>,
    from: i32,
    vote: Vote,
    upto: LogId,
    size: u64,
    position: u64,
    data: Bytes,
) -> Result<Reply, QuorumError> {
    let (mine, _) = core.state();
    // Two candidates of one term compare as neither more nor less.
    if vote.partial_cmp(&mine).is_none_or(|order| order.is_lt()) {
        return Ok(Reply::Snapshot { position: size, vote: Some(mine) });
    }
    core.node.contacts.leader_heard();
    if size > SNAPSHOT_BYTES_MAX {
        let reason = format!("a snapshot of {size} bytes is larger than {SNAPSHOT_BYTES_MAX}");
        return Ok(core.node.refuse(from, Refusal::Malformed, reason));
    }
    let mut incoming = core.incoming.lock().await;
    if position == 0 {
        *incoming = Some(Incoming { from, upto, size, bytes: BytesMut::new() });
    }
    let Some(begun) = incoming.as_mut().filter(|i| i.from == from && i.upto == upto && i.size == size) else {
        return Ok(busy("this part belongs to no snapshot that was begun"));
    };
    let have = begun.bytes.len() as u64;
    if position != have || have + data.len() as u64 > size {
        // A repeated part: the sender is told where to go on.
        return Ok(Reply::Snapshot { position: have, vote: None });
    }
    begun.bytes.extend_from_slice(&data);
    let have = begun.bytes.len() as u64;
    if have < size {
        return Ok(Reply::Snapshot { position: have, vote: None });
    }
    let whole = incoming.take().map(|i| i.bytes.freeze()).unwrap_or_default();
    let vote = match install(core, vote, upto, whole).await? {
        Ok(vote) => vote,
        Err(reason) => return Ok(core.node.refuse(from, Refusal::Malformed, reason)),
    };
    core.node.contacts.leader_heard();
    Ok(Reply::Snapshot { position: size, vote: Some(vote) })
}

/// Takes over a whole snapshot; a text says why the bytes are none.
///
/// It is on disk before Raft hears of it: openraft purges the log while the machine still installs, and a crash
/// between the two would leave neither.
pub async fn install(
    core: &Arc<Core>,
    vote: Vote,
    upto: LogId,
    file: Bytes,
) -> Result<Result<Vote, String>, QuorumError> {
    let (snapshots, bytes) = (core.snapshots.clone(), file.clone());
    let work = move || {
        let meta = match snapshots::decode(&bytes) {
            Ok(contents) if contents.meta.last_log_id == Some(upto) => contents.meta,
            Ok(_) => return Ok(Err("a snapshot of another offset".to_owned())),
            Err(malformed) => return Ok(Err(format!("malformed {}", malformed.0))),
        };
        match snapshots.lock().install(meta.clone(), &bytes) {
            Err(QuorumError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                Ok(Err("no space left for the snapshot".to_owned()))
            }
            other => other.map(|()| Ok(meta)),
        }
    };
    let written = core.failure.blocking(work).await.map_err(|e| core.stopped(e))?;
    let meta = match written {
        Ok(meta) => meta,
        Err(reason) => return Ok(Err(reason)),
    };
    let snapshot = Snapshot { meta, snapshot: Box::new(SnapshotFile(file)) };
    let done = core.raft.install_full_snapshot(vote, snapshot).await.map_err(|e| core.stopped(e))?;
    Ok(Ok(done.vote))
}

/// Committed entries for a node that pulls them; waits for new ones until `until`.
async fn fetch(
    core: &Arc<Core>,
    from: i32,
    voter: Voter,
    last: Option<LogId>,
    applied: Option<u64>,
    bytes_max: u32,
    until: Instant,
) -> Result<Reply, QuorumError> {
    let mut data = core.raft.data_metrics();
    loop {
        let (vote, _) = core.state();
        let leader = core.leader_node();
        if !core.is_voter(&core.members()) {
            let reason = "this node isn't a voter itself".to_owned();
            return Ok(Reply::Refused { why: Refusal::NotLeader, reason, leader });
        }
        if !vote.committed {
            return Ok(busy("there is no leader at the moment"));
        }
        let commit = data.borrow_and_update().last_applied;
        let committed = commit.map(|id| id.index);
        core.node.contacts.observed(from, voter.clone(), last.map(|id| id.index), committed);
        let index = last.map(|id| id.index);
        if index <= committed {
            let next = index.map_or(0, |i| i + 1);
            let entries = {
                let journal = core.node.journal.lock();
                let purged = journal.purged();
                if purged.is_some_and(|p| p.index >= next) {
                    return Ok(Reply::SnapshotNeeded { vote });
                }
                let known = last.is_none_or(|id| purged == Some(id) || journal.term_at(id.index) == Some(term_of(&id)));
                if !known {
                    return Ok(Reply::Unknown);
                }
                let end = committed.map_or(0, |i| i + 1);
                journal.read(next..end.max(next), bytes_max as usize)
            };
            let entries = entries.map_err(|e| core.stopped(core.failure.storage(e)))?;
            if !entries.is_empty() || committed > applied {
                return Ok(Reply::Entries { vote, commit, entries, leader });
            }
        }
        match timeout_at(until, data.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(core.stopped(e)),
            Err(_) if index > committed => return Ok(Reply::Unknown),
            Err(_) => return Ok(Reply::Entries { vote, commit, entries: Vec::new(), leader }),
        }
    }
}

async fn snapshot_part(
    core: &Arc<Core>,
    upto: Option<LogId>,
    position: u64,
    bytes_max: u32,
) -> Result<Reply, QuorumError> {
    let snapshots = core.snapshots.clone();
    let part = core.failure.blocking(move || snapshots.lock().part(upto, position, bytes_max as usize));
    let part = part.await.map_err(|e| core.stopped(e))?;
    Ok(match part {
        Some((upto, size, data)) => Reply::SnapshotPart { upto, size, data },
        None => busy("there is no snapshot"),
    })
}
