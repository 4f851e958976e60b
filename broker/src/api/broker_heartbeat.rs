//! BrokerHeartbeat: versions 0 to 2, asked by brokers of the active controller (KIP-631).

use klamm_protocol::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse};

use super::{Context, Refusal};
use crate::controller::active;

/// Takes the heartbeat and says how the broker stands.
pub async fn handle(cx: &Context<'_>, request: BrokerHeartbeatRequest) -> Result<BrokerHeartbeatResponse, Refusal> {
    let broker = cx.broker;
    let policy = active::policy(broker);
    let now_ms = active::now_ms(broker);
    let heard = broker.controller.commit_all(|image, applied| {
        broker.heartbeats.lock().heartbeat(image, &request, applied, now_ms, &policy)
    });
    let failed = |code: i16| BrokerHeartbeatResponse { error_code: code, ..Default::default() };
    Ok(match heard.await {
        Ok(Ok(response)) => response,
        Ok(Err(refused)) => {
            tracing::debug!(broker = request.broker_id, why = %refused, "heartbeat refused");
            failed(refused.code.code())
        }
        Err(code) => failed(code.code()),
    })
}
