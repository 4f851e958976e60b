//! AlterPartition: versions 2 and 3, asked by leaders of the active controller when an ISR is to change.

use klamm_metadata::controller::{self, Decision};
use klamm_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};

use super::{Context, Refusal};
use crate::controller::active;

/// Lets the controller decide. Answered once the records are committed.
pub async fn handle(cx: &Context<'_>, request: AlterPartitionRequest) -> Result<AlterPartitionResponse, Refusal> {
    let policy = active::policy(cx.broker);
    let decided = cx.broker.controller.commit(|image, _| {
        match controller::alter_partition(image, &request, cx.version, &policy) {
            Ok(decision) => decision,
            Err(refused) => {
                Decision::only(AlterPartitionResponse { error_code: refused.code.code(), ..Default::default() })
            }
        }
    });
    Ok(match decided.await {
        Ok((response, _)) => response,
        Err(code) => AlterPartitionResponse { error_code: code.code(), ..Default::default() },
    })
}
