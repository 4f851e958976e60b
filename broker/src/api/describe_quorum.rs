//! DescribeQuorum: versions 0 to 2. The metadata quorum as its leader sees it (KIP-595, KIP-836).

use klamm_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use klamm_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use klamm_protocol::{ErrorCode, Uuid};
use klamm_quorum::Replica;

use super::{Context, Refusal};

/// The topic as which Kafka shows its metadata log.
const TOPIC: &str = "__cluster_metadata";

/// Answers for the one partition that there is.
pub async fn handle(cx: &Context<'_>, request: DescribeQuorumRequest) -> Result<DescribeQuorumResponse, Refusal> {
    let asked: Vec<_> = request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (&t.topic_name, p))).collect();
    if !matches!(asked[..], [(name, partition)] if name == TOPIC && partition.partition_index == 0) {
        return Ok(failed(ErrorCode::UnknownTopicOrPartition));
    }
    let quorum = cx.broker.controller.quorum();
    let metrics = quorum.metrics();
    if !cx.broker.controller.is_active() {
        return Ok(failed(ErrorCode::NotLeaderOrFollower));
    }
    let replicas = quorum.replicas(cx.broker.clock.wall_ms());
    let states = |votes: bool| replicas.iter().filter(|r| r.votes == votes).map(state).collect();
    let offset = |offset: Option<u64>| offset.and_then(|offset| i64::try_from(offset).ok()).map_or(0, |last| last + 1);
    let partition = PartitionData {
        partition_index: 0,
        leader_id: metrics.leader.unwrap_or(-1),
        leader_epoch: i32::try_from(metrics.term).unwrap_or(i32::MAX),
        high_watermark: offset(metrics.applied_offset),
        current_voters: states(true),
        observers: states(false),
        ..Default::default()
    };
    let listener = cx.broker.config.quorum_listener();
    let nodes = replicas.iter().filter(|replica| replica.votes).map(|replica| Node {
        node_id: replica.id,
        listeners: vec![Listener {
            name: listener.to_owned(),
            host: replica.voter.host.clone(),
            port: replica.voter.port,
            ..Default::default()
        }],
        ..Default::default()
    });
    let topic = TopicData { topic_name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
    Ok(DescribeQuorumResponse { topics: vec![topic], nodes: nodes.collect(), ..Default::default() })
}

fn state(replica: &Replica) -> ReplicaState {
    ReplicaState {
        replica_id: replica.id,
        replica_directory_id: Uuid(replica.voter.directory_id),
        log_end_offset: replica.log_end_offset.and_then(|offset| i64::try_from(offset).ok()).unwrap_or(-1),
        last_fetch_timestamp: replica.last_fetch_ms.unwrap_or(-1),
        last_caught_up_timestamp: replica.last_caught_up_ms.unwrap_or(-1),
        ..Default::default()
    }
}

fn failed(code: ErrorCode) -> DescribeQuorumResponse {
    DescribeQuorumResponse {
        error_code: code.code(),
        error_message: Some(code.message().into()),
        ..Default::default()
    }
}
