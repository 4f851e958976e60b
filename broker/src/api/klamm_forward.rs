//! KlammForward: a broker hands a request to this one as the active controller.

use std::sync::atomic::Ordering;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{KlammForwardRequest, KlammForwardResponse};

use super::{Context, Refusal, handle_as_controller};

/// Answers the request inside, unless this broker is not the active controller.
pub async fn handle(cx: &Context<'_>, request: KlammForwardRequest) -> Result<KlammForwardResponse, Refusal> {
    let controller = &cx.broker.controller;
    let refuse = |code: ErrorCode, why: String| KlammForwardResponse {
        error_code: code.code(),
        error_message: Some(why),
        controller_id: controller.leader_id().unwrap_or(-1),
        ..Default::default()
    };
    if request.cluster_id != *controller.cluster_id() {
        let why = format!("this is cluster {}, not {}", controller.cluster_id(), request.cluster_id);
        tracing::warn!(peer = %cx.connection.handle.peer, broker = request.broker_id, why, "request not taken over");
        return Ok(refuse(ErrorCode::InconsistentClusterId, why));
    }
    let not_controller = || refuse(ErrorCode::NotController, "this broker is not the active controller".into());
    if !controller.is_active() {
        return Ok(not_controller());
    }
    cx.connection.broker_id.store(request.broker_id, Ordering::Relaxed);
    let answer = Box::pin(handle_as_controller(cx.broker, cx.connection, request.request)).await?;
    if !controller.is_active() {
        // It may have refused for this very reason; the next controller is asked.
        return Ok(not_controller());
    }
    let response = match answer.map(|answer| answer.into_bytes()) {
        Some(Ok(bytes)) => bytes,
        Some(Err(_)) | None => {
            return Ok(refuse(ErrorCode::InvalidRequest, "the request inside has no answer to give back".into()));
        }
    };
    let metadata_offset = i64::try_from(controller.published_offset()).unwrap_or(i64::MAX);
    Ok(KlammForwardResponse { metadata_offset, response, ..Default::default() })
}
