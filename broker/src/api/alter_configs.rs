//! AlterConfigs: versions 0 to 2. Replaces a resource's whole configuration; kept for older clients.

use klamm_metadata::controller;
use klamm_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use klamm_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::{Context, Refusal};

/// Lets the controller decide.
pub async fn handle(cx: &Context<'_>, request: AlterConfigsRequest) -> Result<AlterConfigsResponse, Refusal> {
    let decided = cx.broker.decide(|image, deciding| controller::alter_configs(image, &request, deciding));
    Ok(decided.await.unwrap_or_else(|code| AlterConfigsResponse {
        responses: request
            .resources
            .iter()
            .map(|resource| AlterConfigsResourceResponse {
                error_code: code.code(),
                error_message: Some(code.message().into()),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
            })
            .collect(),
        ..Default::default()
    }))
}
