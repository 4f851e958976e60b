//! OffsetForLeaderEpoch: versions 2 to 4. Where an epoch ends, for clients that look for truncation.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use klamm_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use klamm_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::{Context, Refusal};

/// Answers each partition on its own.
pub async fn handle(cx: &Context<'_>, request: OffsetForLeaderEpochRequest) -> Result<OffsetForLeaderEpochResponse, Refusal> {
    let topics = request.topics.into_iter().map(|topic| OffsetForLeaderTopicResult {
        partitions: topic.partitions.iter().map(|p| one(cx, &topic.topic, p)).collect(),
        topic: topic.topic,
        ..Default::default()
    });
    Ok(OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() })
}

fn one(cx: &Context<'_>, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let mut answer = EpochEndOffset { partition: asked.partition, ..Default::default() };
    match look_up(cx, topic, asked) {
        Ok((epoch, end_offset)) => {
            answer.leader_epoch = epoch;
            answer.end_offset = end_offset;
        }
        Err(code) => answer.error_code = code.code(),
    }
    answer
}

fn look_up(cx: &Context<'_>, topic: &str, asked: &OffsetForLeaderPartition) -> Result<(i32, i64), ErrorCode> {
    let partition = cx.broker.replicas.by_name(topic, asked.partition)?;
    partition.check_leads(asked.current_leader_epoch)?;
    Ok(partition.with_log(|log| log.epoch_end_offset(asked.leader_epoch)).unwrap_or((-1, -1)))
}
