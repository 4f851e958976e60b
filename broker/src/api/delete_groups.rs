//! DeleteGroups: versions 0 to 3. Deletes empty groups with their offsets.

use std::collections::BTreeMap;

use klamm_group::{Answer, refuse};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::{Context, Refusal};

/// Asks each coordinator once for all of its groups.
pub async fn handle(cx: &Context<'_>, request: DeleteGroupsRequest) -> Result<DeleteGroupsResponse, Refusal> {
    let mut results = Vec::with_capacity(request.groups_names.len());
    let mut by_partition: BTreeMap<i32, Vec<&str>> = BTreeMap::new();
    for id in &request.groups_names {
        match cx.broker.groups.partition_of(id) {
            Ok(partition) => by_partition.entry(partition).or_default().push(id),
            Err(code) => results.push(refuse::delete_group(id, code)),
        }
    }
    for ids in by_partition.values() {
        let Some(first) = ids.first() else { continue };
        let answer = cx.broker.groups.call(cx.broker, first, |coordinator, ticket, _| {
            coordinator.delete_groups(ticket, ids.iter().copied())
        });
        let refused = |code: ErrorCode| ids.iter().map(move |id| refuse::delete_group(id, code));
        match answer.await {
            Ok(Answer::DeleteGroups(deleted)) => results.extend(deleted),
            Ok(_) => results.extend(refused(ErrorCode::UnknownServerError)),
            Err(code) => results.extend(refused(code)),
        }
    }
    Ok(DeleteGroupsResponse { results, ..Default::default() })
}
