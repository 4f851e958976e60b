//! DescribeCluster: versions 0 to 2. Cluster id and brokers (KIP-700, KIP-1073), or the voters of the metadata
//! quorum when the listener of the quorum is asked for controllers (KIP-919). In fields of our own, which Kafka's clients
//! pass over: whether a broker is cordoned, and until when it is in maintenance.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use klamm_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};

use super::{Context, Refusal};

/// Endpoint type of brokers.
const BROKERS: i8 = 1;
/// Endpoint type of controllers: the nodes that vote in the metadata quorum.
const CONTROLLERS: i8 = 2;

/// Everything a cluster lets its unauthenticated clients do: no authorizer is configured, so all
/// operations that Kafka knows for a cluster (CREATE, ALTER, DESCRIBE, CLUSTER_ACTION,
/// DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE), as bits.
pub const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// Likewise for a topic: READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// Likewise for a group: READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// Answers from the metadata image, or from the quorum's membership.
pub async fn handle(cx: &Context<'_>, request: DescribeClusterRequest) -> Result<DescribeClusterResponse, Refusal> {
    let serves = cx.connection.serves;
    let refused = match request.endpoint_type {
        BROKERS if serves.clients => None,
        CONTROLLERS if serves.quorum => None,
        BROKERS => Some((ErrorCode::MismatchedEndpointType, "this listener belongs to a controller: ask for endpoint type 2")),
        CONTROLLERS => Some((ErrorCode::MismatchedEndpointType, "this listener belongs to a broker: ask for endpoint type 1")),
        _ => Some((ErrorCode::UnsupportedEndpointType, "endpoint types are 1, brokers, and 2, controllers")),
    };
    if let Some((code, why)) = refused {
        return Ok(DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some(why.into()),
            ..Default::default()
        });
    }
    let controller = &cx.broker.controller;
    let (nodes, controller_id) = if request.endpoint_type == CONTROLLERS {
        (voters(cx), controller.leader_id().unwrap_or(-1))
    } else {
        let nodes = controller.registered(&cx.connection.listener).into_iter();
        let seen = nodes.filter(|(_, fenced)| request.include_fenced_brokers || !fenced);
        let image = controller.image();
        let brokers = seen.map(|(node, is_fenced)| DescribeClusterBroker {
            klamm_is_cordoned: image.broker(node.id).is_some_and(|b| b.is_cordoned()),
            klamm_maintenance_until: image.maintenance().get(&node.id).copied().unwrap_or(-1),
            broker_id: node.id,
            host: node.host,
            port: node.port,
            rack: node.rack,
            is_fenced,
        });
        (brokers.collect(), controller.node_to_ask())
    };
    let mut answer = DescribeClusterResponse {
        endpoint_type: request.endpoint_type,
        cluster_id: controller.cluster_id().to_string(),
        controller_id,
        brokers: nodes,
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        answer.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    Ok(answer)
}

/// The nodes that vote, where the quorum reaches them. One that runs alone has told nobody an address: it is where it
/// was asked.
fn voters(cx: &Context<'_>) -> Vec<DescribeClusterBroker> {
    let own = cx.broker.config.advertised.iter().chain(&cx.broker.config.listeners);
    let own = own.into_iter().find(|listener| *listener.name == *cx.connection.listener);
    let voters = cx.broker.controller.quorum().metrics().voters.into_iter();
    let voters = voters.map(|(broker_id, voter)| {
        let (host, port) = match own {
            Some(own) if voter.host.is_empty() => (own.address.host.clone(), own.address.port),
            _ => (voter.host, voter.port),
        };
        DescribeClusterBroker { broker_id, host, port: i32::from(port), ..Default::default() }
    });
    let mut voters: Vec<_> = voters.collect();
    voters.sort_by_key(|voter| voter.broker_id);
    voters
}
