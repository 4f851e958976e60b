//! The way to other voters. A quorum of one has none, and openraft then never calls it; should it ever, every
//! call answers "unreachable" and Raft keeps trying, which is what an absent peer looks like.

use std::future::Future;
use std::io;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{OptionalSend, RaftNetwork, RaftNetworkFactory};

use crate::types::{Snapshot, Types, Vote, Voter};

type RpcError = RPCError<i32, Voter, RaftError<i32>>;

/// Makes connections that reach nobody.
pub struct NoPeers;

/// A connection to a peer that isn't there.
pub struct NoPeer(i32);

impl NoPeer {
    fn unreachable(&self) -> Unreachable {
        Unreachable::new(&io::Error::new(io::ErrorKind::NotConnected, format!("no way to node {}", self.0)))
    }
}

impl RaftNetworkFactory<Types> for NoPeers {
    type Network = NoPeer;

    async fn new_client(&mut self, target: i32, _node: &Voter) -> NoPeer {
        NoPeer(target)
    }
}

impl RaftNetwork<Types> for NoPeer {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<i32>, RpcError> {
        Err(self.unreachable().into())
    }

    async fn vote(&mut self, _rpc: VoteRequest<i32>, _option: RPCOption) -> Result<VoteResponse<i32>, RpcError> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<i32>, StreamingError<Types, Fatal<i32>>> {
        Err(self.unreachable().into())
    }
}
