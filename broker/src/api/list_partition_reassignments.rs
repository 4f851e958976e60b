//! ListPartitionReassignments: version 0. Partitions on their way to other brokers.

use klamm_metadata::controller;
use klamm_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::{Context, Refusal};

/// Answers from the published image.
pub async fn handle(
    cx: &Context<'_>,
    request: ListPartitionReassignmentsRequest,
) -> Result<ListPartitionReassignmentsResponse, Refusal> {
    Ok(controller::list_partition_reassignments(&cx.broker.controller.image(), &request, &|_, _| true))
}
