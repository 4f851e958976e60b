//! CreatePartitions: versions 0 to 3. Partitions only grow in number; old data stays where it is.

use klamm_metadata::controller;
use klamm_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use klamm_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::{Context, Refusal};

/// Lets the controller decide.
pub async fn handle(cx: &Context<'_>, request: CreatePartitionsRequest) -> Result<CreatePartitionsResponse, Refusal> {
    let decided = cx.broker.decide(|image, deciding| controller::create_partitions(image, &request, deciding));
    Ok(decided.await.unwrap_or_else(|code| CreatePartitionsResponse {
        results: request
            .topics
            .iter()
            .map(|topic| CreatePartitionsTopicResult {
                name: topic.name.clone(),
                error_code: code.code(),
                error_message: Some(code.message().into()),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }))
}
