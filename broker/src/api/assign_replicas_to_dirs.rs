//! AssignReplicasToDirs: version 0, asked by brokers of the active controller, which learns from it that a replica is
//! damaged, or where it is kept.

use klamm_metadata::controller::{self, Decision};
use klamm_protocol::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};

use super::{Context, Refusal};
use crate::controller::active;

/// Lets the controller decide. Answered once the records are committed.
pub async fn handle(
    cx: &Context<'_>,
    request: AssignReplicasToDirsRequest,
) -> Result<AssignReplicasToDirsResponse, Refusal> {
    let policy = active::policy(cx.broker);
    let decided = cx.broker.controller.commit(|image, _| {
        controller::assign_replicas_to_dirs(image, &request, &policy).unwrap_or_else(|refused| {
            Decision::only(AssignReplicasToDirsResponse { error_code: refused.code.code(), ..Default::default() })
        })
    });
    Ok(match decided.await {
        Ok((response, _)) => response,
        Err(code) => AssignReplicasToDirsResponse { error_code: code.code(), ..Default::default() },
    })
}
