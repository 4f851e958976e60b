//! Heartbeat: versions 0 to 4. A member of a classic group is alive.

use klamm_group::refuse;
use klamm_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{Context, Refusal};

/// Hands the request to the group's coordinator.
pub async fn handle(cx: &Context<'_>, request: HeartbeatRequest) -> Result<HeartbeatResponse, Refusal> {
    let now_ms = cx.broker.clock.steady_wall_ms();
    let answer = cx.broker.groups.with(cx.broker, &request.group_id, |coordinator| coordinator.heartbeat(&request, now_ms));
    Ok(answer.unwrap_or_else(refuse::heartbeat))
}
