//! OffsetDelete: version 0. Deletes committed offsets of topics that the group does not read.

use klamm_group::{Answer, refuse};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::{Context, Refusal};
use crate::coordinator::Known;

/// Hands the request to the group's coordinator.
pub async fn handle(cx: &Context<'_>, request: OffsetDeleteRequest) -> Result<OffsetDeleteResponse, Refusal> {
    let topics = Known(cx.broker.controller.image());
    let answer = cx.broker.groups.call(cx.broker, &request.group_id, |coordinator, ticket, _| {
        coordinator.offset_delete(ticket, &request, &topics)
    });
    Ok(match answer.await {
        Ok(Answer::OffsetDelete(response)) => response,
        Ok(_) => refuse::offset_delete(ErrorCode::UnknownServerError),
        Err(code) => refuse::offset_delete(code),
    })
}
