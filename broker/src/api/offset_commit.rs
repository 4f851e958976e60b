//! OffsetCommit: versions 2 to 10. Answered once the offsets are in the log.

use klamm_group::{Answer, refuse};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::{Context, Refusal};
use crate::coordinator::Known;

/// Hands the request to the group's coordinator.
pub async fn handle(cx: &Context<'_>, request: OffsetCommitRequest) -> Result<OffsetCommitResponse, Refusal> {
    let topics = Known(cx.broker.controller.image());
    let answer = cx.broker.groups.call(cx.broker, &request.group_id, |coordinator, ticket, now_ms| {
        coordinator.offset_commit(ticket, &request, cx.version, &topics, now_ms)
    });
    Ok(match answer.await {
        Ok(Answer::OffsetCommit(response)) => response,
        Ok(_) => refuse::offset_commit(&request, ErrorCode::UnknownServerError),
        Err(code) => refuse::offset_commit(&request, code),
    })
}
