//! AddRaftVoter: versions 0 and 1. Gives a node a seat in the metadata quorum (KIP-853).
//!
//! Seats go to the lowest node ids by themselves, so one given to another node does not last.

use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{AddRaftVoterRequest, AddRaftVoterResponse};
use klamm_quorum::{QuorumError, Voter};

use super::{Context, Refusal};

/// Lets the quorum's leader do it.
pub async fn handle(cx: &Context<'_>, request: AddRaftVoterRequest) -> Result<AddRaftVoterResponse, Refusal> {
    let answer = |code: ErrorCode, message: Option<String>| AddRaftVoterResponse {
        error_code: code.code(),
        error_message: message,
        ..Default::default()
    };
    if let Some(id) = request.cluster_id.filter(|id| **id != *cx.broker.controller.cluster_id()) {
        return Ok(answer(ErrorCode::InconsistentClusterId, Some(format!("this is not cluster {id}"))));
    }
    let wanted = cx.broker.config.quorum_listener();
    let named = request.listeners.iter().find(|l| l.name.eq_ignore_ascii_case(wanted));
    let Some(listener) = named.or(request.listeners.first()).filter(|_| request.voter_id >= 0) else {
        return Ok(answer(ErrorCode::InvalidRequest, Some("a voter needs an id and a listener".into())));
    };
    let quorum = cx.broker.controller.quorum();
    if quorum.metrics().voters.iter().any(|(id, _)| *id == request.voter_id) {
        let why = format!("node {} votes already", request.voter_id);
        return Ok(answer(ErrorCode::DuplicateVoter, Some(why)));
    }
    let directory_id = request.voter_directory_id.0;
    let voter = Voter { host: listener.host.clone(), port: listener.port, directory_id };
    let limit = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0).max(1));
    // The rest of the time is for taking the node out again, so that the answer finds no trace of it.
    let adding = quorum.add_voter(request.voter_id, voter, limit - limit / 8);
    Ok(match tokio::time::timeout(limit, adding).await {
        Ok(Ok(())) => answer(ErrorCode::None, None),
        Ok(Err(error)) => answer(code_of(&error), Some(error.to_string())),
        Err(_) => answer(ErrorCode::RequestTimedOut, Some("the node has not caught up in time".into())),
    })
}

/// The code for what the quorum answers.
pub fn code_of(error: &QuorumError) -> ErrorCode {
    match error {
        QuorumError::NotLeader { .. } => ErrorCode::NotLeaderOrFollower,
        QuorumError::Undecided | QuorumError::Behind { .. } => ErrorCode::RequestTimedOut,
        _ => ErrorCode::InvalidRequest,
    }
}
