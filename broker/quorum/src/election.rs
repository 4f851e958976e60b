//! Heartbeats and elections. Openraft's own timers are off: they know no window of one's own for each voter, and
//! no question before an election, so that any node that was cut off or stalled deposes a healthy leader.
//!
//! A voter that hears no leader asks the others whether they would vote for it. They say yes only when they hear
//! none either and its log isn't behind theirs. Only with a majority of such answers is the term raised.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use openraft::ServerState;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::core::{Core, is_majority};
use crate::error::QuorumError;
use crate::membership;
use crate::message::{Ask, Reply};
use crate::types::{LogId, Membership, Voter};

/// Elections a node stands for when the leader asked it to.
const TRANSFER_TRIES: u32 = 3;
/// Heartbeats for which a leader that steps down waits for a follower to catch up, or to take over.
const RESIGN_HEARTBEATS: u32 = 20;

/// Sends heartbeats as leader, stands for election as follower; until Raft stops.
pub async fn drive(core: Arc<Core>) {
    let mut server = core.raft.server_metrics();
    let mut not_before = Instant::now();
    loop {
        server.borrow_and_update();
        core.observe();
        let (vote, state) = core.state();
        let members = core.members();
        if state == ServerState::Leader {
            if core.is_alone(&members) {
                if server.changed().await.is_err() {
                    return;
                }
                continue;
            }
            if !core.resigning.load(Ordering::Relaxed) {
                beat(&core, &members).await;
                core.watch_members(&members);
            }
            tokio::select! {
                () = sleep(core.heartbeat()) => {}
                changed = server.changed() => if changed.is_err() { return },
            }
            continue;
        }
        if !core.is_voter(&members) {
            tokio::select! {
                () = core.elect_now.notified() => {}
                changed = server.changed() => if changed.is_err() { return },
            }
            continue;
        }
        let config = &core.node.config;
        let rank = members.voter_ids().filter(|id| *id < core.id()).count() as u32;
        let heard = core.node.contacts.leader();
        let due = heard.map(|at| at + config.election_timeout(rank)).max(Some(not_before)).unwrap_or(not_before);
        tokio::select! {
            () = sleep_until(due) => {}
            () = core.elect_now.notified() => {
                take_over(&core).await;
                not_before = Instant::now() + config.election_retry(rank);
                continue;
            }
            changed = server.changed() => {
                if changed.is_err() {
                    return;
                }
                if server.borrow().vote != vote {
                    // Somebody stands for election, or has won.
                    not_before = Instant::now() + config.election_retry(rank);
                }
                continue;
            }
        }
        if core.node.contacts.leader() > heard {
            continue;
        }
        if (members.voter_ids().count() == 1 || would_win(&core, &members).await)
            && core.node.contacts.leader() == heard
        {
            tracing::info!(term = vote.leader_id.term + 1, "no leader heard: standing for election");
            if core.raft.trigger().elect().await.is_err() {
                return;
            }
        }
        not_before = Instant::now() + config.election_retry(rank);
    }
}

/// Openraft's heartbeats go the way of the entries, and wait behind them. Whoever was silent for a while gets one
/// that overtakes them.
async fn beat(core: &Arc<Core>, members: &Membership) {
    // An error says that Raft has stopped, which the caller's watch tells too.
    let _ = core.raft.trigger().heartbeat().await;
    let (vote, state) = core.state();
    if state != ServerState::Leader || !vote.committed || vote.leader_id.voted_for != Some(core.id()) {
        return;
    }
    let silence = core.heartbeat() * 2;
    for (id, voter) in members.nodes() {
        let contact = core.node.contacts.member(*id, voter).and_then(|c| c.heard);
        if *id == core.id() || contact.is_some_and(|at| at.elapsed() < silence) {
            continue;
        }
        let (node, id, voter) = (core.node.clone(), *id, voter.clone());
        let wait = core.heartbeat() * 4;
        core.spawn(async move {
            let asked = Instant::now();
            let ask = Ask::Append { vote, prev: None, commit: None, entries: Vec::new() };
            if node.ask(id, &voter, ask, wait).await.is_ok() {
                node.contacts.answered(id, &voter, asked);
            }
        });
    }
}

/// Whether a majority would vote for this node now.
async fn would_win(core: &Arc<Core>, members: &Membership) -> bool {
    let last = core.node.journal.lock().last();
    let term = core.state().0.leader_id.term + 1;
    let mut asked = JoinSet::new();
    for (id, voter) in members.nodes() {
        if *id != core.id() && members.voter_ids().any(|v| v == *id) {
            let (node, id, voter) = (core.node.clone(), *id, voter.clone());
            let wait = core.node.config.vote_timeout();
            asked.spawn(async move { (id, node.ask(id, &voter, Ask::PreVote { term, last }, wait).await) });
        }
    }
    let mut granted = BTreeSet::from([core.id()]);
    while let Some(answer) = asked.join_next().await {
        if let Ok((id, Ok(Reply::PreVote { granted: true }))) = answer {
            granted.insert(id);
        }
        if is_majority(members, &granted) {
            return true;
        }
    }
    false
}

/// Answers whether this node would vote for another one in `term`.
pub fn would_vote(core: &Core, term: u64, last: Option<LogId>) -> bool {
    let (vote, state) = core.state();
    let lease = core.node.config.lease();
    let content = match state {
        ServerState::Leader => core.leads().is_some(),
        _ => core.node.contacts.leader().is_some_and(|at| at.elapsed() < lease),
    };
    !content && term > vote.leader_id.term && last >= core.node.journal.lock().last()
}

/// Stands for election because the leader asked for it. The others deny their votes until they haven't heard the
/// leader for a while, so with more than three voters it takes a second try.
async fn take_over(core: &Arc<Core>) {
    let mut server = core.raft.server_metrics();
    let term = core.state().0.leader_id.term;
    for _ in 0..TRANSFER_TRIES {
        if core.raft.trigger().elect().await.is_err() {
            return;
        }
        let wait = core.node.config.vote_timeout() + core.heartbeat() / 3;
        let decided = server.wait_for(|m| m.vote.committed && m.vote.leader_id.term > term);
        if timeout(wait, decided).await.is_ok() {
            return;
        }
    }
}

/// Hands leadership to the follower that is best up to date. Returns whether another node leads now.
pub async fn resign(core: &Arc<Core>) -> Result<bool, QuorumError> {
    let Some(term) = core.leads() else { return Ok(true) };
    let members = core.members();
    let Some(_changing) = core.changing.try_lock().ok().filter(|_| !core.is_alone(&members)) else {
        return Ok(false);
    };
    let _resigning = Resigning::begin(core);
    Ok(hand_over(core, term, &members).await)
}

/// A leader that steps down, until this is dropped: also when nobody waits for the outcome any more. One that went on
/// like that would win elections and never send a heartbeat.
struct Resigning<'a>(&'a Core);

impl<'a> Resigning<'a> {
    fn begin(core: &'a Core) -> Self {
        core.resigning.store(true, Ordering::Relaxed);
        core.observe();
        Self(core)
    }
}

impl Drop for Resigning<'_> {
    fn drop(&mut self) {
        self.0.resigning.store(false, Ordering::Relaxed);
        self.0.observe();
    }
}

async fn hand_over(core: &Arc<Core>, term: u64, members: &Membership) -> bool {
    let patience = core.heartbeat() * RESIGN_HEARTBEATS;
    if !members.nodes().any(|(id, voter)| may_succeed(core, members, *id, voter)) {
        return false;
    }
    // A proposal that is under way would leave the successor behind.
    let Ok(_idle) = timeout(patience, core.writing.lock()).await else { return false };
    let Ok(Some((id, voter))) = timeout(patience, successor(core, members)).await else { return false };
    let asked = core.node.ask(id, &voter, Ask::Transfer { term }, core.node.config.vote_timeout()).await;
    if let Err(error) = asked {
        tracing::warn!(to = id, %error, "leadership of the metadata quorum isn't handed over");
        return false;
    }
    // This node keeps out of the election it asked for.
    core.node.contacts.leader_heard();
    let mut server = core.raft.server_metrics();
    let taken = server.wait_for(|m| m.vote.committed && m.current_leader != Some(core.id()));
    matches!(timeout(patience, taken).await, Ok(Ok(_)))
}

/// Another voter that answers.
fn may_succeed(core: &Core, members: &Membership, id: i32, voter: &Voter) -> bool {
    let heard = core.node.contacts.member(id, voter).and_then(|c| c.heard);
    let alive = heard.is_some_and(|at| at.elapsed() < core.heartbeat() * 4);
    alive && id != core.id() && membership::stays(members, id)
}

/// The first voter that is heard and has the whole log.
async fn successor(core: &Arc<Core>, members: &Membership) -> Option<(i32, Voter)> {
    let mut data = core.raft.data_metrics();
    loop {
        let last = core.node.journal.lock().last();
        let matched = data.borrow_and_update().replication.clone().unwrap_or_default();
        let fit = members.nodes().find(|(id, voter)| {
            may_succeed(core, members, **id, voter) && matched.get(id).is_some_and(|at| *at == last)
        });
        if let Some((id, voter)) = fit {
            return Some((*id, voter.clone()));
        }
        data.changed().await.ok()?;
    }
}
