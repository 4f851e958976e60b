//! LeaveGroup: versions 0 to 5. Members leave a classic group; from version 3 on several at once.

use klamm_group::{Answer, refuse};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::{Context, Refusal};

/// Hands the request to the group's coordinator.
pub async fn handle(cx: &Context<'_>, request: LeaveGroupRequest) -> Result<LeaveGroupResponse, Refusal> {
    let answer = cx.broker.groups.call(cx.broker, &request.group_id, |coordinator, ticket, now_ms| {
        coordinator.leave_group(ticket, &request, cx.version, now_ms)
    });
    Ok(match answer.await {
        Ok(Answer::LeaveGroup(response)) => response,
        Ok(_) => refuse::leave_group(ErrorCode::UnknownServerError),
        Err(code) => refuse::leave_group(code),
    })
}
