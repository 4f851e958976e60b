//! From proposals to entries. Those that arrive while one is being written travel together in the next, so many
//! callers share one disk flush.
//!
//! An entry carries the term its records were decided in; in another term they are void on every node. So a
//! decision that rests on an older leader's view is never applied, whenever Raft gets to append it.

use std::sync::Arc;

use bytes::Bytes;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::codec;
use crate::core::Core;
use crate::error::QuorumError;
use crate::types::Batch;

/// Waiting proposals; more callers than this wait for room.
pub const QUEUE_MAX: usize = 1024;
/// Proposals of up to this many bytes share an entry.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// A single proposal may have this many bytes: far more than the largest allowed request makes.
pub const PROPOSAL_BYTES_MAX: usize = 16 << 20;

/// Bytes of a message to another node: the largest proposal, and what else there is in it.
pub const MESSAGE_BYTES_MAX: usize = PROPOSAL_BYTES_MAX + (2 << 20);

/// Records to be applied together, decided in `term`.
pub struct Proposal {
    pub term: u64,
    pub records: Vec<Bytes>,
    pub answer: oneshot::Sender<Result<u64, QuorumError>>,
}

/// Turns waiting proposals into entries, one entry at a time.
pub async fn propose_all(core: Arc<Core>, mut queue: mpsc::Receiver<Proposal>) {
    let mut next = queue.recv().await;
    while let Some(proposal) = next.take() {
        let term = proposal.term;
        let mut size = codec::records_size(&proposal.records);
        let mut records = proposal.records;
        let mut answers = vec![proposal.answer];
        while let Ok(more) = queue.try_recv() {
            let more_size = codec::records_size(&more.records);
            if size + more_size > GROUP_BYTES_MAX || more.term != term {
                next = Some(more);
                break;
            }
            size += more_size;
            records.extend(more.records);
            answers.push(more.answer);
        }
        let outcome = propose_one(&core, term, records, size).await;
        for answer in answers {
            // A caller that went away doesn't need the answer.
            let _ = answer.send(match &outcome {
                Ok(offset) => Ok(*offset),
                Err(Failed::NotLeader) => Err(core.not_leader()),
                Err(Failed::NoSpace) => Err(QuorumError::NoSpace { dir: core.node.config.dir.clone() }),
                Err(Failed::Undecided) => Err(QuorumError::Undecided),
                Err(Failed::Stopped(reason)) => Err(QuorumError::Stopped(reason.clone())),
            });
        }
        if next.is_none() {
            next = queue.recv().await;
        }
    }
}

enum Failed {
    NotLeader,
    NoSpace,
    Undecided,
    Stopped(String),
}

async fn propose_one(core: &Arc<Core>, term: u64, records: Vec<Bytes>, size: usize) -> Result<u64, Failed> {
    let _writing = core.writing.lock().await;
    if core.leads() != Some(term) && core.failure.get().is_none() {
        return Err(Failed::NotLeader);
    }
    match core.reserve(size as u64 + 1024).await {
        Ok(()) => {}
        Err(QuorumError::NoSpace { .. }) => return Err(Failed::NoSpace),
        Err(e) => return Err(Failed::Stopped(e.to_string())),
    }
    let mut write = std::pin::pin!(core.raft.client_write(Batch { records: records.into(), term: Some(term) }));
    let mut leadership = core.leadership.subscribe();
    let id = core.id();
    let lost = async move {
        // An error says that the quorum stops, which ends the write as well.
        let _ = leadership.wait_for(|l| l.leader != Some(id) || l.term != term).await;
    };
    let written = tokio::select! {
        written = &mut write => written,
        () = lost => {
            // The next leader decides about the entry; soon, or this node may not learn of it for long.
            let patience = core.node.config.contact_max() * 2;
            timeout(patience, &mut write).await.map_err(|_| Failed::Undecided)?
        }
    };
    match written {
        Ok(written) if written.data.applied => Ok(written.data.offset),
        Ok(_) | Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(Failed::NotLeader),
        Err(e) => Err(Failed::Stopped(core.failure.get().map_or_else(|| e.to_string(), |f| f.to_string()))),
    }
}
