//! DescribeConfigs: versions 1 to 4. What is in force for topics, brokers and groups, and where it comes from.

use klamm_metadata::Resource;
use klamm_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::{Context, Refusal};
use crate::config::describe::{Facts, describe};

/// Answers from the table of keys, the broker's configuration and the published image.
pub async fn handle(cx: &Context<'_>, request: DescribeConfigsRequest) -> Result<DescribeConfigsResponse, Refusal> {
    let image = cx.broker.controller.image();
    let entries = |resource| image.config(&resource).map(|entries| (**entries).clone()).unwrap_or_default();
    let config = cx.broker.replicas.config();
    let facts = Facts {
        broker: &config,
        topic: &|name| image.topic(name).map(|_| entries(Resource::topic(name))),
        group: &|name| entries(Resource::group(name)),
        // Log levels are set at the start, for the process as a whole.
        loggers: &|| vec![("ROOT".into(), config.log_level.to_uppercase())],
    };
    Ok(describe(&request, &facts))
}
