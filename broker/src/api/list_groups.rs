//! ListGroups: versions 0 to 5. The groups this broker coordinates.

use klamm_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use super::{Context, Refusal};

/// Asks every coordinator.
pub async fn handle(cx: &Context<'_>, request: ListGroupsRequest) -> Result<ListGroupsResponse, Refusal> {
    let mut groups = Vec::new();
    let complete = cx.broker.groups.each(|coordinator| groups.extend(coordinator.list_groups(&request)));
    Ok(match complete {
        Ok(()) => ListGroupsResponse { groups, ..Default::default() },
        // A list without those that are being loaded would pass for the whole.
        Err(code) => ListGroupsResponse { error_code: code.code(), ..Default::default() },
    })
}
