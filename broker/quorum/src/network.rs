//! Openraft's calls to other members, over the [`Transport`](crate::Transport).
//!
//! Each call names the directory that the member is known by, so whoever else answers there is no member. Time
//! limits grow with the bytes under way: openraft's own limit is the same for a heartbeat and for 16 MiB.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{EntryPayload, OptionalSend, RaftNetwork, RaftNetworkFactory};
use tokio::time::Instant;

use crate::codec;
use crate::message::{Appended, Ask, Reply};
use crate::node::{CallError, Node};
use crate::transport::TransportError;
use crate::types::{Entry, Snapshot, Types, Vote, Voter};

type RpcError = RPCError<i32, Voter, RaftError<i32>>;

/// A heartbeat's answer needs no disk unless the term is new.
const HEARTBEAT_WAIT: Duration = Duration::from_millis(500);
/// Entries are synced before the answer.
const ENTRIES_WAIT: Duration = Duration::from_secs(1);
/// Slowest network that replication is made for.
const BYTES_PER_MS: usize = 1 << 10;
/// Pauses after a member couldn't be reached; the last one repeats.
const PAUSES_MS: [u64; 4] = [50, 100, 200, 400];
/// Bytes of a snapshot in one message.
const PART_BYTES: usize = 1 << 20;
/// The last part's answer comes after the snapshot is on disk and applied.
const PART_WAIT: Duration = Duration::from_secs(10);

/// Makes the clients.
pub struct Network(pub Arc<Node>);

/// The way to one member.
pub struct Client {
    node: Arc<Node>,
    id: i32,
    voter: Voter,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: i32, voter: &Voter) -> Client {
        Client { node: self.0.clone(), id: target, voter: voter.clone() }
    }
}

fn unreachable(text: String) -> Unreachable {
    Unreachable::new(&io::Error::new(io::ErrorKind::NotConnected, text))
}

impl From<CallError> for RpcError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Transport(e @ TransportError::Timeout) => NetworkError::new(&e).into(),
            other => unreachable(other.to_string()).into(),
        }
    }
}

fn unexpected() -> RpcError {
    CallError::Answer("kind of answer").into()
}

/// About the bytes that entries take.
pub fn size(entries: &[Entry]) -> usize {
    let size = |e: &Entry| match &e.payload {
        EntryPayload::Normal(batch) => 64 + codec::records_size(&batch.records),
        _ => 1024,
    };
    entries.iter().map(size).sum()
}

impl RaftNetwork<Types> for Client {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<i32>, RpcError> {
        let (node, id, voter) = (&self.node, self.id, &self.voter);
        let end = node.journal.lock().last().map(|id| id.index);
        let asked = Instant::now();
        let (prev, term) = (rpc.prev_log_id, rpc.vote.leader_id.term);
        let last = rpc.entries.last().map(|e| e.log_id).or(prev);
        let wait = match rpc.entries.is_empty() {
            true => HEARTBEAT_WAIT,
            false => ENTRIES_WAIT + Duration::from_millis((size(&rpc.entries) / BYTES_PER_MS) as u64),
        };
        let ask = Ask::Append { vote: rpc.vote, prev, commit: rpc.leader_commit, entries: rpc.entries };
        let Reply::Append(appended) = node.ask(id, voter, ask, wait).await? else { return Err(unexpected()) };
        Ok(match appended {
            Appended::Done => {
                node.contacts.confirmed(id, voter, asked, term, last, end);
                AppendEntriesResponse::Success
            }
            Appended::Partly(upto) if upto >= prev && upto <= last => {
                node.contacts.confirmed(id, voter, asked, term, upto, end);
                AppendEntriesResponse::PartialSuccess(upto)
            }
            Appended::Partly(_) => return Err(unexpected()),
            Appended::Conflict if node.contacts.lost_log(id, voter, term, prev) => {
                let text = format!("node {id} lost entries of the metadata log that it had confirmed");
                tracing::error!(node = id, "{text}; clear its directory, so that it joins as a new voter");
                return Err(unreachable(text).into());
            }
            Appended::Conflict if prev.is_none() => return Err(unexpected()),
            Appended::Conflict => {
                node.contacts.answered(id, voter, asked);
                AppendEntriesResponse::Conflict
            }
            Appended::HigherVote(vote) if vote > rpc.vote => AppendEntriesResponse::HigherVote(vote),
            Appended::HigherVote(_) => return Err(unexpected()),
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<i32>, _option: RPCOption) -> Result<VoteResponse<i32>, RpcError> {
        let ask = Ask::Vote { vote: rpc.vote, last: rpc.last_log_id };
        match self.node.ask(self.id, &self.voter, ask, self.node.config.vote_timeout()).await? {
            Reply::Vote { vote, granted, last } => Ok(VoteResponse::new(vote, last, granted)),
            _ => Err(unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<i32>, StreamingError<Types, Fatal<i32>>> {
        let Some(upto) = snapshot.meta.last_log_id else {
            return Err(unreachable("an empty snapshot isn't sent".into()).into());
        };
        let file = snapshot.snapshot.0;
        let size = file.len() as u64;
        tracing::info!(to = self.id, offset = upto.index, bytes = size, "sending a snapshot of the metadata");
        let mut cancel = std::pin::pin!(cancel);
        let mut position = 0;
        loop {
            let data = file.slice(position..file.len().min(position + PART_BYTES));
            let asked = Instant::now();
            let ask = Ask::Snapshot { vote, upto, size, position: position as u64, data };
            let reply = tokio::select! {
                closed = &mut cancel => return Err(closed.into()),
                reply = self.node.ask(self.id, &self.voter, ask, PART_WAIT) => reply,
            };
            let reply = reply.map_err(|e| unreachable(e.to_string()))?;
            let Reply::Snapshot { position: next, vote: done } = reply else {
                return Err(unreachable("unexpected answer to a snapshot".into()).into());
            };
            self.node.contacts.answered(self.id, &self.voter, asked);
            if let Some(vote) = done {
                return Ok(SnapshotResponse::new(vote));
            }
            if next <= position as u64 || next > size {
                return Err(unreachable("the snapshot doesn't get on".into()).into());
            }
            position = next as usize;
        }
    }

    fn backoff(&self) -> Backoff {
        let last = PAUSES_MS[PAUSES_MS.len() - 1];
        Backoff::new(PAUSES_MS.into_iter().chain(std::iter::repeat(last)).map(Duration::from_millis))
    }
}
