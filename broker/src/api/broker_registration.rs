//! BrokerRegistration: versions 0 to 4, asked by brokers of the active controller (KIP-631).

use klamm_metadata::controller::{Registration, register_broker};
use klamm_protocol::messages::{BrokerRegistrationRequest, BrokerRegistrationResponse};

use super::{Context, Refusal};
use crate::controller::active;

/// Registers the broker, fenced until its first heartbeat that has caught up.
pub async fn handle(
    cx: &Context<'_>,
    request: BrokerRegistrationRequest,
) -> Result<BrokerRegistrationResponse, Refusal> {
    let broker = cx.broker;
    let policy = active::policy(broker);
    let registered = broker.controller.commit_all(|image, offset| {
        let alive = broker.heartbeats.lock().is_alive(image, request.broker_id, active::now_ms(broker));
        let mut wanted = Registration::of(image, &request, alive)?;
        // Alone, nobody could take over what this broker leads: it goes on without a break.
        let alone = image.brokers().all(|other| other.id == request.broker_id);
        if alone && request.broker_id == broker.config.node_id {
            wanted.broker.fenced = false;
        }
        register_broker(image, &wanted, offset.saturating_add(1), &policy)
    });
    let answer = |code: i16, broker_epoch| BrokerRegistrationResponse { error_code: code, broker_epoch, ..Default::default() };
    Ok(match registered.await {
        Ok(Ok(epoch)) => {
            tracing::info!(broker = request.broker_id, epoch, "broker registered");
            answer(0, epoch)
        }
        Ok(Err(refused)) => {
            tracing::warn!(broker = request.broker_id, why = %refused, "broker not registered");
            answer(refused.code.code(), -1)
        }
        Err(code) => answer(code.code(), -1),
    })
}
