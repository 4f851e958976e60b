//! AlterPartitionReassignments: versions 0 and 1. Moves partitions to other brokers, or cancels that.

use klamm_metadata::controller;
use klamm_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};

use super::{Context, Refusal};

/// Lets the controller decide.
pub async fn handle(
    cx: &Context<'_>,
    request: AlterPartitionReassignmentsRequest,
) -> Result<AlterPartitionReassignmentsResponse, Refusal> {
    let decided =
        cx.broker.decide(|image, deciding| controller::alter_partition_reassignments(image, &request, deciding));
    Ok(decided.await.unwrap_or_else(|code| AlterPartitionReassignmentsResponse {
        error_code: code.code(),
        error_message: Some(code.message().into()),
        ..Default::default()
    }))
}
