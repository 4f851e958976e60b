//! How a node learns what is committed when no leader sends it entries: it pulls them from a voter.
//!
//! Observers live on this, and a member that was away while the membership changed around it. What is pulled goes
//! into the node's own Raft as if its leader had sent it, so that journal, snapshots and state are those of any
//! member, and a seat can be taken or given up at any time without a restart.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use openraft::ServerState;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use tokio::time::{Instant, sleep};

use crate::core::Core;
use crate::error::QuorumError;
use crate::message::{Answer, Ask, Identity, Refusal, Reply};
use crate::network;
use crate::node::CallError;
use crate::receive::install;
use crate::transport::Peer;
use crate::types::{LogId, Vote, Voter};

/// A voter answers after this time when there is nothing new.
const WAIT: Duration = Duration::from_secs(1);
/// Beyond the wait: reading, and the way.
const GRACE: Duration = Duration::from_secs(2);
/// Pause after a voter couldn't help.
const PAUSE: Duration = Duration::from_millis(100);
/// Time after which the leader is tried again by who pulls from another voter.
const STRAY: Duration = Duration::from_secs(5);
/// Most that is asked for at once.
const BYTES: u32 = 1 << 20;

/// A voter to ask; the directory id isn't known of a mere address.
#[derive(Clone, PartialEq)]
struct Source {
    id: i32,
    directory_id: Option<[u8; 16]>,
    peer: Peer,
}

impl Source {
    fn member(id: i32, voter: &Voter) -> Self {
        Self { id, directory_id: Some(voter.directory_id), peer: voter.peer(id) }
    }
}

enum Pulled {
    /// Something, or at least the word that nothing is new.
    Done,
    /// Ask again from what is known to be committed.
    FromApplied,
    /// Ask somebody else; the leader when one was named.
    Elsewhere(Option<(i32, Voter)>),
}

/// Pulls whenever this node isn't led, until Raft stops.
pub async fn follow(core: Arc<Core>) {
    let mut server = core.raft.server_metrics();
    let mut hint = None;
    let mut turn = 0usize;
    let mut from_applied = false;
    let mut led_by = (None, Instant::now());
    loop {
        let vote = server.borrow_and_update().vote;
        if led_by.0 != Some(vote) || led_by.1.elapsed() > STRAY {
            led_by = (Some(vote), Instant::now());
            turn = 0;
        }
        if core.is_alone(&core.members()) {
            if server.changed().await.is_err() {
                return;
            }
            continue;
        }
        if led(&core) {
            tokio::select! {
                () = sleep(WAIT) => {}
                changed = server.changed() => if changed.is_err() { return },
            }
            continue;
        }
        let sources = sources(&core, hint.take());
        if sources.is_empty() {
            sleep(PAUSE).await;
            continue;
        }
        let source = &sources[turn % sources.len()];
        match pull(&core, source, from_applied).await {
            Ok(Pulled::Done) => {
                from_applied = false;
                core.observe();
            }
            Ok(Pulled::FromApplied) if from_applied => {
                tracing::warn!(from = %source.peer, "what this node holds of the metadata log isn't known there");
                turn += 1;
                sleep(WAIT).await;
            }
            Ok(Pulled::FromApplied) => from_applied = true,
            Ok(Pulled::Elsewhere(leader)) => {
                turn = if leader.is_some() { 0 } else { turn + 1 };
                hint = leader;
                sleep(PAUSE).await;
            }
            Err(QuorumError::Stopped(_)) => return,
            Err(error) => {
                tracing::debug!(%error, "committed metadata isn't taken over now");
                sleep(WAIT).await;
            }
        }
        if core.raft.metrics().borrow().running_state.is_err() {
            return;
        }
    }
}

/// Whether this node leads, or is a member that a leader speaks to.
fn led(core: &Core) -> bool {
    if core.state().1 == ServerState::Leader {
        return true;
    }
    let members = core.members();
    let member = core.my_entry(&members).is_some_and(|v| core.is_me(v));
    // A voter first tries to elect a leader, which takes a while.
    let patience = core.node.config.contact_max() * 2;
    member && core.node.contacts.leader().is_some_and(|at| at.elapsed() < patience)
}

/// Whom to ask: the leader first, then the voters, then the addresses of the configuration.
fn sources(core: &Core, hint: Option<(i32, Voter)>) -> Vec<Source> {
    let members = core.members();
    let vote = core.state().0;
    let leader = vote.leader_id.voted_for.filter(|_| vote.committed);
    let leader = leader.and_then(|id| Some((id, members.get_node(&id)?.clone())));
    let voters = members.voter_ids().filter_map(|id| Some((id, members.get_node(&id)?.clone())));
    let mut sources: Vec<Source> = Vec::new();
    for (id, voter) in hint.into_iter().chain(leader).chain(voters) {
        let source = Source::member(id, &voter);
        if id != core.id() && !voter.host.is_empty() && !sources.contains(&source) {
            sources.push(source);
        }
    }
    let known = crate::join::addresses(&core.node.config);
    sources.extend(known.into_iter().map(|peer| Source { id: -1, directory_id: None, peer }));
    sources
}

async fn call(core: &Core, source: &Source, ask: Ask, wait: Duration) -> Result<Reply, Option<(i32, Voter)>> {
    let answer = match source.directory_id {
        Some(directory_id) => {
            let voter = Voter { host: source.peer.host.clone(), port: source.peer.port, directory_id };
            let from = Identity { id: source.id, directory_id };
            core.node.ask(source.id, &voter, ask, wait).await.map(|reply| Answer { from, reply })
        }
        None => core.node.ask_anyone(source.peer.clone(), ask, wait).await,
    };
    match answer {
        Ok(answer) => Ok(answer.reply),
        Err(CallError::Refused { why: Refusal::NotLeader, leader, .. }) => Err(leader),
        Err(error) => {
            tracing::debug!(from = %source.peer, %error, "no committed metadata from there");
            Err(None)
        }
    }
}

async fn pull(core: &Arc<Core>, source: &Source, from_applied: bool) -> Result<Pulled, QuorumError> {
    let applied = core.raft.data_metrics().borrow().last_applied;
    let last = if from_applied { applied } else { core.node.journal.lock().last().max(applied) };
    let me = core.node.config.me.clone();
    let wait_ms = WAIT.as_millis() as u32;
    let ask = Ask::Fetch { me, last, applied: applied.map(|id| id.index), bytes_max: BYTES, wait_ms };
    match call(core, source, ask, WAIT + GRACE).await {
        Err(leader) => Ok(Pulled::Elsewhere(leader)),
        Ok(Reply::Unknown) => Ok(Pulled::FromApplied),
        Ok(Reply::SnapshotNeeded { vote }) if lawful(core, &vote) => pull_snapshot(core, source, vote).await,
        Ok(Reply::Entries { vote, commit, entries, leader }) if lawful(core, &vote) => {
            let first = last.map_or(0, |id| id.index + 1);
            let orderly = |(next, id): (u64, LogId)| id.index == next && Some(id) <= commit;
            if !(first..).zip(entries.iter().map(|e| e.log_id)).all(orderly) {
                return Ok(Pulled::Elsewhere(None));
            }
            core.reserve(network::size(&entries) as u64).await?;
            let rpc = AppendEntriesRequest { vote, prev_log_id: last, entries, leader_commit: commit };
            match core.raft.append_entries(rpc).await.map_err(|e| core.stopped(e))? {
                AppendEntriesResponse::HigherVote(mine) => {
                    tracing::debug!(%mine, theirs = %vote, "a node that is behind was asked for committed metadata");
                    Ok(Pulled::Elsewhere(leader))
                }
                AppendEntriesResponse::Conflict => Ok(Pulled::FromApplied),
                AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => Ok(Pulled::Done),
            }
        }
        Ok(_) => Ok(Pulled::Elsewhere(None)),
    }
}

/// A leader's vote, and another's than this node.
fn lawful(core: &Core, vote: &Vote) -> bool {
    vote.committed && vote.leader_id.voted_for.is_some_and(|id| id != core.id())
}

async fn pull_snapshot(core: &Arc<Core>, source: &Source, vote: Vote) -> Result<Pulled, QuorumError> {
    let mut begun: Option<LogId> = None;
    let mut bytes = BytesMut::new();
    loop {
        let ask = Ask::FetchSnapshot { upto: begun, position: bytes.len() as u64, bytes_max: BYTES };
        let reply = match call(core, source, ask, GRACE).await {
            Ok(reply) => reply,
            Err(leader) => return Ok(Pulled::Elsewhere(leader)),
        };
        let Reply::SnapshotPart { upto, size, data } = reply else { return Ok(Pulled::Elsewhere(None)) };
        if begun != Some(upto) {
            // Another one is the newest by now; its first part came.
            bytes.clear();
            begun = Some(upto);
        }
        if data.is_empty() || bytes.len() as u64 + data.len() as u64 > size {
            return Ok(Pulled::Elsewhere(None));
        }
        bytes.extend_from_slice(&data);
        if bytes.len() as u64 == size {
            tracing::info!(from = %source.peer, offset = upto.index, bytes = size, "taking over a metadata snapshot");
            return Ok(match install(core, vote, upto, bytes.freeze()).await? {
                Ok(_) => Pulled::Done,
                Err(reason) => {
                    tracing::warn!(from = %source.peer, reason, "an unusable snapshot of the metadata");
                    Pulled::Elsewhere(None)
                }
            });
        }
    }
}
