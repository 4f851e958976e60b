//! How an empty node gets its metadata log, and how a member tells its new address or disk.
//!
//! A quorum of several forms only when every named voter has answered that it is empty and means the same list;
//! the lowest of them then writes the first entry, the others receive it. So a voter whose disk was wiped never
//! forms a second quorum beside the first, nor helps to elect a leader that lacks what the old disk had confirmed:
//! it has another directory id, and asks the leader to be taken in anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::config::{Bootstrap, QuorumConfig};
use crate::core::Core;
use crate::membership;
use crate::message::{Ask, Refusal, Reply, VoterList};
use crate::node::CallError;
use crate::transport::Peer;
use crate::types::Voter;

/// How long a probe may take.
const PROBE_WAIT: Duration = Duration::from_millis(500);
/// Pause between two looks at the others while there is no quorum yet.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause between two requests to join.
const AGAIN: Duration = Duration::from_secs(1);
/// A voter that is silent for this long may be replaced by a node with its id at another address.
const SILENT: Duration = Duration::from_secs(30);
/// What is missing is said in every so many looks, or requests to join.
const SAY_EVERY: [u32; 2] = [100, 20];

/// What came of asking all the addresses once.
#[derive(Default)]
struct Round {
    asked: usize,
    /// Those that answered as nodes of another cluster.
    elsewhere: usize,
    missing: Vec<String>,
}

impl Round {
    fn odd(&mut self, what: String) {
        self.asked += 1;
        self.missing.push(what);
    }

    fn failed(&mut self, peer: &Peer, error: &CallError) {
        self.asked += 1;
        self.elsewhere += usize::from(matches!(error, CallError::Refused { why: Refusal::OtherCluster, .. }));
        self.missing.push(format!("{peer}: {error}"));
    }

    /// Whether an empty node has nothing to wait for. One address of another cluster among others may be a slip in
    /// the list, and with all silent ones the right cluster may come yet.
    fn is_elsewhere(&self) -> bool {
        self.asked > 0 && self.elsewhere == self.asked
    }

    fn missing(&self) -> String {
        self.missing.join("; ")
    }
}

/// Other nodes' addresses from the configuration.
pub fn addresses(config: &QuorumConfig) -> Vec<Peer> {
    match &config.bootstrap {
        Bootstrap::Alone => Vec::new(),
        Bootstrap::Voters(voters) => {
            let others = voters.iter().filter(|(id, ..)| *id != config.node_id);
            others.map(|(_, host, port)| Peer { id: -1, host: host.clone(), port: *port }).collect()
        }
        Bootstrap::Join(servers) => {
            let others = servers.iter().filter(|(host, port)| *host != config.me.host || *port != config.me.port);
            others.map(|(host, port)| Peer { id: -1, host: host.clone(), port: *port }).collect()
        }
    }
}

fn voter_list(config: &QuorumConfig) -> VoterList {
    let Bootstrap::Voters(voters) = &config.bootstrap else { return Vec::new() };
    let mut voters = voters.clone();
    voters.sort();
    voters
}

fn is_formed(core: &Core) -> bool {
    core.node.journal.lock().last().is_some()
}

/// The answer to a probe.
pub fn probed(core: &Core, voters: &VoterList) -> Reply {
    let members = core.members();
    Reply::Probe {
        formed: is_formed(core),
        agrees: *voters == voter_list(&core.node.config),
        leader: core.leader_node(),
        members: members.nodes().map(|(id, voter)| (*id, voter.clone())).collect(),
    }
}

/// Forms a quorum if that is this node's to do, then keeps this node's entry in the membership true.
pub async fn enter(core: Arc<Core>) {
    let fresh = !is_formed(&core);
    if fresh && matches!(core.node.config.bootstrap, Bootstrap::Voters(_)) {
        form(&core).await;
    }
    announce(&core, fresh).await;
}

/// Returns when this node has formed a quorum, or has a log, or another node has one.
async fn form(core: &Arc<Core>) {
    let list = voter_list(&core.node.config);
    let lowest = list.first().is_some_and(|(id, ..)| *id == core.id());
    let mut tries = 0;
    while !is_formed(core) {
        let mut nodes = BTreeMap::from([(core.id(), core.node.config.me.clone())]);
        let mut round = Round::default();
        for (id, host, port) in list.iter().filter(|(id, ..)| *id != core.id()) {
            let peer = Peer { id: *id, host: host.clone(), port: *port };
            let ask = Ask::Probe { voters: list.clone() };
            match core.node.ask_anyone(peer.clone(), ask, PROBE_WAIT).await {
                Ok(answer) => match answer.reply {
                    Reply::Probe { formed: true, .. } => return,
                    Reply::Probe { agrees: true, .. } if answer.from.id == *id => {
                        let directory_id = answer.from.directory_id;
                        nodes.insert(*id, Voter { host: host.clone(), port: *port, directory_id });
                    }
                    Reply::Probe { agrees: false, .. } => round.odd(format!("{peer} names other voters")),
                    _ => round.odd(format!("{peer} is node {}", answer.from.id)),
                },
                Err(error) => round.failed(&peer, &error),
            }
        }
        if round.is_elsewhere() {
            core.refused.send_replace(Some(round.missing()));
        }
        if round.missing.is_empty() && lowest {
            tracing::info!(voters = ?nodes.keys().collect::<Vec<_>>(), "forming the metadata quorum");
            if let Err(error) = core.raft.initialize(nodes).await {
                tracing::debug!(%error, "not formed by this node");
            }
            return;
        }
        if !round.missing.is_empty() && tries % SAY_EVERY[0] == SAY_EVERY[0] / 4 {
            tracing::warn!(missing = round.missing(), "waiting for all voters before the metadata quorum forms");
        }
        tries += 1;
        sleep(PAUSE).await;
    }
}

/// Tells the leader when this node's entry isn't what it should be; a fresh node asks for a seat.
async fn announce(core: &Arc<Core>, mut fresh: bool) {
    let mut server = core.raft.server_metrics();
    let mut tries = 0;
    loop {
        server.borrow_and_update();
        let members = core.members();
        let me = &core.node.config.me;
        let wanted = match core.my_entry(&members) {
            Some(voter) if voter == me => {
                fresh = false;
                false
            }
            Some(_) => true,
            None => fresh,
        };
        if !wanted {
            if server.changed().await.is_err() {
                return;
            }
            continue;
        }
        if core.leads().is_some() {
            // A leader's own entry; a change of its directory can't be, or it wouldn't lead.
            if let Err(error) = membership::update(core, core.id(), me.clone()).await {
                tracing::warn!(%error, "this node's address in the metadata quorum isn't up to date");
            }
        } else {
            let mut round = Round::default();
            if ask_leader(core, &mut round).await == Some(false) {
                // The controller gives out seats from now on.
                fresh = false;
                continue;
            }
            if fresh && round.is_elsewhere() && !is_formed(core) {
                core.refused.send_replace(Some(round.missing()));
            }
            if !round.missing.is_empty() && tries % SAY_EVERY[1] == SAY_EVERY[1] / 4 {
                tracing::warn!(
                    missing = round.missing(),
                    "not taken into the metadata quorum yet; are these its listeners?"
                );
            }
            tries += 1;
        }
        sleep(AGAIN).await;
        if core.raft.metrics().borrow().running_state.is_err() {
            return;
        }
    }
}

/// Asks the leader to be taken in; answers whether as a voter, when it answers.
async fn ask_leader(core: &Arc<Core>, round: &mut Round) -> Option<bool> {
    let ask = || Ask::Join { me: core.node.config.me.clone() };
    let mut leader = core.leader_node().filter(|(id, _)| *id != core.id());
    let members = core.members();
    let voters = members.voter_ids().filter_map(|id| Some(members.get_node(&id)?.peer(id)));
    let others = voters.filter(|peer| peer.id != core.id() && !peer.host.is_empty());
    let mut peers: Vec<Peer> = others.chain(addresses(&core.node.config)).collect();
    loop {
        let (peer, answer) = match leader.take() {
            Some((id, voter)) => (voter.peer(id), core.node.ask(id, &voter, ask(), PROBE_WAIT).await),
            None => {
                let peer = if peers.is_empty() { return None } else { peers.remove(0) };
                let answer = core.node.ask_anyone(peer.clone(), ask(), PROBE_WAIT).await;
                (peer, answer.map(|answer| answer.reply))
            }
        };
        if let Err(error) = &answer {
            round.failed(&peer, error);
        }
        match answer {
            Ok(Reply::Join { voter }) => return Some(voter),
            Err(CallError::Refused { why: Refusal::NotLeader, leader: Some((id, voter)), .. }) if id != core.id() => {
                // Once; then the next address is tried.
                if let Ok(Reply::Join { voter }) = core.node.ask(id, &voter, ask(), PROBE_WAIT).await {
                    return Some(voter);
                }
            }
            _ => {}
        }
    }
}

/// Answers a node that asks to be taken in, and does so when it may.
pub async fn asked(core: &Arc<Core>, id: i32, voter: Voter) -> Reply {
    if core.leads().is_none() || !core.leadership.borrow().ready {
        let leader = core.leader_node().filter(|(id, _)| *id != core.id());
        return Reply::Refused { why: Refusal::NotLeader, reason: "this node doesn't lead".into(), leader };
    }
    let members = core.members();
    let votes = members.voter_ids().any(|v| v == id);
    match members.get_node(&id).cloned() {
        Some(known) if known == voter => Reply::Join { voter: votes },
        Some(known) if known.directory_id == voter.directory_id => {
            let task = core.clone();
            core.spawn(async move { told("address changed", id, membership::update(&task, id, voter).await) });
            Reply::Join { voter: votes }
        }
        Some(known) => {
            let peer = Peer { id, ..known.peer(id) };
            let probe = core.node.ask_anyone(peer, Ask::Probe { voters: Vec::new() }, PROBE_WAIT).await;
            if probe.is_ok_and(|a| a.from.id == id && a.from.directory_id == known.directory_id) {
                let reason = format!("node id {id} is taken: its voter runs at {}:{}", known.host, known.port);
                return core.node.refuse(id, Refusal::IdTaken, reason);
            }
            // Who sits at its address has taken its place. Elsewhere it may be a mistake, made while the true voter
            // restarts, which would then find itself a stranger.
            let moved = known.host != voter.host || known.port != voter.port;
            let heard = core.node.contacts.member(id, &known).and_then(|c| c.heard);
            if moved && (core.leads_for() < SILENT || heard.is_some_and(|at| at.elapsed() < SILENT)) {
                let reason = format!("node {id} was heard at {}:{} a moment ago", known.host, known.port);
                return Reply::Refused { why: Refusal::Busy, reason, leader: None };
            }
            let task = core.clone();
            core.spawn(async move { told("disk replaced", id, membership::replace(&task, id, known, voter).await) });
            Reply::Join { voter: true }
        }
        None => {
            let mut ids: BTreeSet<i32> = members.voter_ids().collect();
            let free = ids.len() < core.node.config.seats;
            ids.insert(id);
            if !free || !membership::wanted_voters(&ids, core.node.config.seats).contains(&id) {
                return Reply::Join { voter: false };
            }
            let task = core.clone();
            core.spawn(async move {
                told("seat given", id, membership::add(&task, id, voter, membership::CATCH_UP_WAIT).await)
            });
            Reply::Join { voter: true }
        }
    }
}

fn told(what: &str, node: i32, done: Result<(), crate::QuorumError>) {
    match done {
        Ok(()) => tracing::info!(node, "metadata quorum: {what}"),
        Err(error) => tracing::debug!(node, %error, "metadata quorum: not done: {what}"),
    }
}
