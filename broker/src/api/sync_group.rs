//! SyncGroup: versions 0 to 5. Parks until the group's leader has sent the assignments.

use klamm_group::{Answer, refuse};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{Context, Refusal};

/// Hands the request to the group's coordinator.
pub async fn handle(cx: &Context<'_>, request: SyncGroupRequest) -> Result<SyncGroupResponse, Refusal> {
    let answer = cx.broker.groups.call(cx.broker, &request.group_id, |coordinator, ticket, now_ms| {
        coordinator.sync_group(ticket, &request, cx.version, now_ms)
    });
    Ok(match answer.await {
        Ok(Answer::SyncGroup(response)) => response,
        Ok(_) => refuse::sync_group(ErrorCode::UnknownServerError),
        Err(code) => refuse::sync_group(code),
    })
}
