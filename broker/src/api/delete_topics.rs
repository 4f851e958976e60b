//! DeleteTopics: versions 1 to 6, from 6 on also by id. The data goes after `file.delete.delay.ms`.

use klamm_metadata::controller;
use klamm_protocol::messages::delete_topics_response::DeletableTopicResult;
use klamm_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::{Context, Refusal};

/// Lets the controller decide.
pub async fn handle(cx: &Context<'_>, request: DeleteTopicsRequest) -> Result<DeleteTopicsResponse, Refusal> {
    let enabled = cx.broker.config.delete_topics;
    let decided = cx.broker.decide(|image, deciding| controller::delete_topics(image, &request, cx.version, enabled, deciding));
    Ok(decided.await.unwrap_or_else(|code| {
        let named = request.topic_names.iter().map(|name| (Some(name.clone()), Default::default()));
        let both = request.topics.iter().map(|topic| (topic.name.clone(), topic.topic_id));
        let failed = |(name, topic_id)| DeletableTopicResult {
            name,
            topic_id,
            error_code: code.code(),
            error_message: Some(code.message().into()),
            ..Default::default()
        };
        DeleteTopicsResponse { responses: named.chain(both).map(failed).collect(), ..Default::default() }
    }))
}
