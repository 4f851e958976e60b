//! JoinGroup: versions 0 to 9. Parks until the group's rebalance is over.

use klamm_group::{Answer, Client, refuse};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::{Context, Refusal};

/// Hands the request to the group's coordinator.
pub async fn handle(cx: &Context<'_>, request: JoinGroupRequest) -> Result<JoinGroupResponse, Refusal> {
    let client = Client { id: cx.client_id, host: cx.connection.handle.peer.ip() };
    let answer = cx.broker.groups.call(cx.broker, &request.group_id, |coordinator, ticket, now_ms| {
        let mut random = || cx.broker.random.uuid();
        coordinator.join_group(ticket, client, &request, cx.version, now_ms, &mut random)
    });
    Ok(match answer.await {
        Ok(Answer::JoinGroup(response)) => response,
        Ok(_) => refuse::join_group(&request, cx.version, ErrorCode::UnknownServerError),
        Err(code) => refuse::join_group(&request, cx.version, code),
    })
}
