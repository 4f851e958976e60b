//! CreateTopics: versions 2 to 7. Answered once the partitions of the new topics can be written to.

use klamm_metadata::controller;
use klamm_protocol::messages::create_topics_response::CreatableTopicResult;
use klamm_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};

use super::{Context, Refusal};

/// Lets the controller decide.
pub async fn handle(cx: &Context<'_>, request: CreateTopicsRequest) -> Result<CreateTopicsResponse, Refusal> {
    let decided = cx.broker.decide(|image, deciding| controller::create_topics(image, &request, deciding));
    Ok(decided.await.unwrap_or_else(|code| CreateTopicsResponse {
        topics: request
            .topics
            .iter()
            .map(|topic| CreatableTopicResult {
                name: topic.name.clone(),
                error_code: code.code(),
                error_message: Some(code.message().into()),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }))
}
