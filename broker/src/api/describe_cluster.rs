//! DescribeCluster: versions 0 to 2. Cluster id, brokers, and a controller to talk to.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use klamm_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};

use super::{Context, Refusal};

/// Endpoint type of brokers; 2 would be controllers, which have no listener of their own here.
const BROKERS: i8 = 1;

/// Everything a cluster lets its unauthenticated clients do: no authorizer is configured, so all
/// operations that Kafka knows for a cluster (CREATE, ALTER, DESCRIBE, CLUSTER_ACTION,
/// DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE), as bits.
pub const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// Likewise for a topic: READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// Likewise for a group: READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// Answers from the metadata image.
pub async fn handle(cx: &Context<'_>, request: DescribeClusterRequest) -> Result<DescribeClusterResponse, Refusal> {
    if request.endpoint_type != BROKERS {
        let code = if request.endpoint_type == 2 { ErrorCode::MismatchedEndpointType } else { ErrorCode::UnsupportedEndpointType };
        return Ok(DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some("this listener belongs to a broker: ask for endpoint type 1".into()),
            ..Default::default()
        });
    }
    let nodes = cx.broker.controller.nodes(&cx.connection.listener);
    let brokers = nodes.into_iter().map(|node| DescribeClusterBroker {
        broker_id: node.id,
        host: node.host,
        port: node.port,
        rack: node.rack,
        ..Default::default()
    });
    let mut answer = DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: cx.broker.controller.cluster_id().to_string(),
        controller_id: cx.broker.controller.node_to_ask(),
        brokers: brokers.collect(),
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        answer.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    Ok(answer)
}
