//! ListPartitionReassignments: version 0. Always empty: partitions cannot be moved yet, and
//! `kafka-topics --describe` asks all the same.

use klamm_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::{Context, Refusal};

/// No partition is being moved.
pub async fn handle(_: &Context<'_>, _: ListPartitionReassignmentsRequest) -> Result<ListPartitionReassignmentsResponse, Refusal> {
    Ok(ListPartitionReassignmentsResponse::default())
}
