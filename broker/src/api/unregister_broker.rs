//! UnregisterBroker: version 0. Forgets a broker that is gone for good, and takes its seat in the quorum away.

use klamm_metadata::controller;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::{Context, Refusal};
use crate::controller::active;

/// Lets the controller decide.
pub async fn handle(cx: &Context<'_>, request: UnregisterBrokerRequest) -> Result<UnregisterBrokerResponse, Refusal> {
    let id = request.broker_id;
    let answer = |code: ErrorCode, message: Option<String>| UnregisterBrokerResponse {
        error_code: code.code(),
        error_message: message,
        ..Default::default()
    };
    let broker = cx.broker;
    if broker.heartbeats.lock().is_alive(&broker.controller.committed_image().0, id, active::now_ms(broker)) {
        let why = format!("broker {id} is alive: stop it first, or it would register again at once");
        return Ok(answer(ErrorCode::InvalidRequest, Some(why)));
    }
    let policy = active::policy(broker);
    let gone = broker.controller.commit_all(|image, _| controller::unregister_broker(image, id, &policy));
    match gone.await {
        Ok(Ok(())) => {}
        Ok(Err(refused)) => return Ok(answer(refused.code, refused.message)),
        Err(code) => return Ok(answer(code, Some(code.message().into()))),
    }
    tracing::info!(broker = id, "broker unregistered");
    let quorum = broker.controller.quorum();
    let voter = quorum.metrics().voters.into_iter().find(|(voter, _)| *voter == id);
    if let Some((_, voter)) = voter
        && let Err(error) = quorum.remove_voter(id, voter.directory_id).await
    {
        let why = format!("broker {id} is unregistered but still votes in the metadata quorum: {error}");
        return Ok(answer(ErrorCode::RequestTimedOut, Some(why)));
    }
    Ok(answer(ErrorCode::None, None))
}
