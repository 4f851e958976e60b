//! FindCoordinator: versions 0 to 6. Which broker coordinates a group.
//!
//! Makes the offsets topic on first use, as Kafka does. Transaction and share coordinators are not
//! served yet: nothing that needs them is advertised.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::find_coordinator_response::Coordinator;
use klamm_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};

use super::{Context, Refusal};
use crate::cluster::internal_topics;
use crate::coordinator::OFFSETS_TOPIC;

/// Key type of a consumer group.
const GROUP: i8 = 0;

/// Answers each key on its own.
pub async fn handle(cx: &Context<'_>, request: FindCoordinatorRequest) -> Result<FindCoordinatorResponse, Refusal> {
    let keys = if cx.version >= 4 { request.coordinator_keys } else { vec![request.key] };
    let code = ready(cx, request.key_type).await.err();
    let mut coordinators: Vec<Coordinator> = keys.into_iter().map(|key| one(cx, key, code)).collect();
    if cx.version >= 4 {
        return Ok(FindCoordinatorResponse { coordinators, ..Default::default() });
    }
    let only = coordinators.pop().unwrap_or_default();
    Ok(FindCoordinatorResponse {
        error_code: only.error_code,
        error_message: only.error_message,
        node_id: only.node_id,
        host: only.host,
        port: only.port,
        ..Default::default()
    })
}

/// Makes sure that the topic behind the coordinator exists.
async fn ready(cx: &Context<'_>, key_type: i8) -> Result<(), ErrorCode> {
    if key_type != GROUP {
        return Err(ErrorCode::InvalidRequest);
    }
    if cx.broker.controller.image().topic(OFFSETS_TOPIC).is_some() {
        return Ok(());
    }
    internal_topics::create(cx.broker, OFFSETS_TOPIC).await
}

/// Who leads the partition that a group lives in.
fn leader_of(cx: &Context<'_>, group: &str) -> Option<i32> {
    let image = cx.broker.controller.image();
    let topic = image.topic(OFFSETS_TOPIC)?;
    let index = klamm_group::partition_for(group, i32::try_from(topic.partitions.len()).ok()?);
    topic.partition(index).map(|partition| partition.leader)
}

fn one(cx: &Context<'_>, key: String, code: Option<ErrorCode>) -> Coordinator {
    let node = leader_of(cx, &key).and_then(|id| cx.broker.controller.node(id, &cx.connection.listener));
    match (code, node) {
        (None, Some(node)) => Coordinator {
            key,
            node_id: node.id,
            host: node.host,
            port: node.port,
            error_message: Some(String::new()),
            ..Default::default()
        },
        (code, _) => {
            let code = code.unwrap_or(ErrorCode::CoordinatorNotAvailable);
            let message = if code == ErrorCode::InvalidRequest {
                "only group coordinators are served; transactions and share groups are not available"
            } else {
                code.message()
            };
            Coordinator {
                key,
                node_id: -1,
                port: -1,
                error_code: code.code(),
                error_message: Some(message.into()),
                ..Default::default()
            }
        }
    }
}
