//! InitProducerId: versions 0 to 5, for idempotent producers. Transactional ids are refused: there is no
//! transaction coordinator yet.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::{Context, Refusal};

/// A new producer id with epoch 0.
pub async fn handle(cx: &Context<'_>, request: InitProducerIdRequest) -> Result<InitProducerIdResponse, Refusal> {
    let given = match request.transactional_id {
        Some(_) => Err(ErrorCode::TransactionalIdAuthorizationFailed),
        None => cx.broker.producer_ids.next(cx.broker).await,
    };
    Ok(match given {
        Ok(producer_id) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
        Err(code) => InitProducerIdResponse { error_code: code.code(), producer_id: -1, producer_epoch: -1, ..Default::default() },
    })
}
