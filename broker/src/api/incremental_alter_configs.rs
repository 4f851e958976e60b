//! IncrementalAlterConfigs: versions 0 to 1 (KIP-339). Sets, deletes, appends to and subtracts from
//! single keys.

use klamm_metadata::controller;
use klamm_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use klamm_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::{Context, Refusal};

/// Lets the controller decide.
pub async fn handle(cx: &Context<'_>, request: IncrementalAlterConfigsRequest) -> Result<IncrementalAlterConfigsResponse, Refusal> {
    let decided = cx.broker.decide(|image, deciding| controller::incremental_alter_configs(image, &request, deciding));
    Ok(decided.await.unwrap_or_else(|code| IncrementalAlterConfigsResponse {
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
