//! RemoveRaftVoter: version 0. Takes a node's seat in the metadata quorum away (KIP-853).

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};
use klamm_quorum::Voter;

use super::add_raft_voter::code_of;
use super::{Context, Refusal};

/// Lets the quorum's leader do it.
pub async fn handle(cx: &Context<'_>, request: RemoveRaftVoterRequest) -> Result<RemoveRaftVoterResponse, Refusal> {
    let answer = |code: ErrorCode, message: Option<String>| RemoveRaftVoterResponse {
        error_code: code.code(),
        error_message: message,
        ..Default::default()
    };
    if let Some(id) = request.cluster_id.filter(|id| **id != *cx.broker.controller.cluster_id()) {
        return Ok(answer(ErrorCode::InconsistentClusterId, Some(format!("this is not cluster {id}"))));
    }
    let quorum = cx.broker.controller.quorum();
    let metrics = quorum.metrics();
    let named = |members: &[(i32, Voter)]| {
        let is = |(id, voter): &(i32, Voter)| {
            *id == request.voter_id && voter.directory_id == request.voter_directory_id.0
        };
        members.iter().any(is)
    };
    let votes = named(&metrics.voters);
    // A member without a vote is what a change that broke off has left behind.
    if !votes && !named(&metrics.learners) {
        let why = format!("node {} with directory {} does not vote", request.voter_id, request.voter_directory_id);
        return Ok(answer(ErrorCode::VoterNotFound, Some(why)));
    }
    if votes && metrics.voters.len() == 1 {
        return Ok(answer(ErrorCode::InvalidRequest, Some("the last voter cannot be removed".into())));
    }
    Ok(match quorum.remove_voter(request.voter_id, request.voter_directory_id.0).await {
        Ok(()) => answer(ErrorCode::None, None),
        Err(error) => answer(code_of(&error), Some(error.to_string())),
    })
}
