//! OffsetFetch: versions 1 to 10. Committed offsets of one group, or of many from version 8 on.

use klamm_group::{offset_fetch_groups, offset_fetch_response, refuse};
use klamm_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};

use super::{Context, Refusal};
use crate::coordinator::Known;

/// Asks each group's coordinator.
pub async fn handle(cx: &Context<'_>, request: OffsetFetchRequest) -> Result<OffsetFetchResponse, Refusal> {
    let topics = Known(cx.broker.controller.image());
    let require_stable = request.require_stable;
    let mut answers = Vec::new();
    for group in offset_fetch_groups(request, cx.version) {
        let answer = cx.broker.groups.read(cx.broker, &group.group_id, |coordinator| {
            coordinator.offset_fetch(&group, require_stable, cx.version, &topics)
        });
        answers.push(answer.await.unwrap_or_else(|code| refuse::offset_fetch(&group, cx.version, code)));
    }
    Ok(offset_fetch_response(answers, cx.version))
}
