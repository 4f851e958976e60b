//! AllocateProducerIds: version 0, asked by brokers of the active controller when their block is used up.

use klamm_metadata::controller::{self, Decision};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};

use super::{Context, Refusal};

/// Gives the next block.
pub async fn handle(
    cx: &Context<'_>,
    request: AllocateProducerIdsRequest,
) -> Result<AllocateProducerIdsResponse, Refusal> {
    let decided = cx.broker.controller.commit(|image, _| {
        Decision::or_refusal(controller::allocate_producer_ids(image, request.broker_id, request.broker_epoch))
    });
    let failed = |code: ErrorCode| AllocateProducerIdsResponse { error_code: code.code(), ..Default::default() };
    Ok(match decided.await {
        Ok((Ok(block), _)) => AllocateProducerIdsResponse {
            producer_id_start: block.start,
            producer_id_len: i32::try_from(block.end - block.start).unwrap_or(i32::MAX),
            ..Default::default()
        },
        Ok((Err(refused), _)) => failed(refused.code),
        Err(code) => failed(code),
    })
}
