//! Topics that the cluster itself needs, made when first used.

use std::sync::Arc;

use klamm_metadata::controller::internal_topic;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::CreateTopicsRequest;

use crate::broker::Broker;

/// Makes an internal topic unless it exists.
///
/// # Errors
/// `CoordinatorNotAvailable` when it cannot be made now.
pub async fn create(broker: &Arc<Broker>, name: &str) -> Result<(), ErrorCode> {
    let alive = broker.controller.image().brokers().filter(|broker| broker.is_active()).count();
    let topic = internal_topic(name, &broker.internal_topics(alive)).ok_or(ErrorCode::InvalidRequest)?;
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
    let response = broker.forwarder.call(broker, &request).await?;
    match response.topics.first().map(|topic| ErrorCode::from_code(topic.error_code)) {
        None | Some(ErrorCode::None | ErrorCode::TopicAlreadyExists) => Ok(()),
        Some(code) => {
            let why = response.topics.into_iter().find_map(|topic| topic.error_message).unwrap_or_default();
            tracing::error!(topic = name, code = code.name(), why, "internal topic not created");
            Err(ErrorCode::CoordinatorNotAvailable)
        }
    }
}
