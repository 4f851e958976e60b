//! KlammQuorum: a message of the metadata quorum. Who may say what is the quorum's own business; it looks at
//! the cluster, the node and the directory that each message names.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{KlammQuorumRequest, KlammQuorumResponse};

use super::{Context, Refusal};

/// Hands the message to the quorum.
pub async fn handle(cx: &Context<'_>, request: KlammQuorumRequest) -> Result<KlammQuorumResponse, Refusal> {
    Ok(match cx.broker.controller.quorum().receive(request.message).await {
        Ok(message) => KlammQuorumResponse { message, ..Default::default() },
        Err(error) => KlammQuorumResponse {
            error_code: ErrorCode::BrokerNotAvailable.code(),
            error_message: Some(error.to_string()),
            ..Default::default()
        },
    })
}
