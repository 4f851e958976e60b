//! DescribeGroups: versions 0 to 6. State and members of classic groups.

use klamm_group::refuse;
use klamm_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use super::describe_cluster::GROUP_OPERATIONS;
use super::{Context, Refusal};

/// Asks each group's coordinator.
pub async fn handle(cx: &Context<'_>, request: DescribeGroupsRequest) -> Result<DescribeGroupsResponse, Refusal> {
    let groups = request.groups.iter().map(|id| {
        let answer = cx.broker.groups.with(cx.broker, id, |coordinator| coordinator.describe_group(id, cx.version));
        let mut described = answer.unwrap_or_else(|code| refuse::describe_group(id, code));
        if request.include_authorized_operations && described.error_code == 0 {
            described.authorized_operations = GROUP_OPERATIONS;
        }
        described
    });
    Ok(DescribeGroupsResponse { groups: groups.collect(), ..Default::default() })
}
