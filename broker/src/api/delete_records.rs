//! DeleteRecords: versions 0 to 2. Moves a partition's log start forward.

use std::time::Duration;

use klamm_log::LogError;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use klamm_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use tokio::time::Instant;

use super::{Context, Refusal, error};
use crate::replica::roles::FollowerRefused;

/// "Up to the high watermark".
const ALL: i64 = -1;

/// Answers each partition on its own.
pub async fn handle(cx: &Context<'_>, request: DeleteRecordsRequest) -> Result<DeleteRecordsResponse, Refusal> {
    let deadline = Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let mut result = DeleteRecordsPartitionResult {
                partition_index: asked.partition_index,
                low_watermark: -1,
                ..Default::default()
            };
            match delete(cx, &topic.name, asked.partition_index, asked.offset, deadline).await {
                Ok(low_watermark) => result.low_watermark = low_watermark,
                Err(code) => result.error_code = code.code(),
            }
            partitions.push(result);
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions, ..Default::default() });
    }
    Ok(DeleteRecordsResponse { topics, ..Default::default() })
}

/// The log start after the deletion, once every live replica has it.
async fn delete(
    cx: &Context<'_>,
    topic: &str,
    index: i32,
    offset: i64,
    deadline: Instant,
) -> Result<i64, ErrorCode> {
    let partition = cx.broker.replicas.by_name(topic, index)?;
    partition.check_leads(-1)?;
    if !partition.topic.config().log.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let high_watermark = partition.offsets().high_watermark;
    let to = if offset == ALL { high_watermark } else { offset };
    if to < 0 || to > high_watermark {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    match partition.delete_records(to, cx.broker.clock.settled_ms()) {
        Ok((low_watermark, None)) => Ok(low_watermark),
        Ok((_, Some(reached))) => tokio::select! {
            outcome = reached => outcome.unwrap_or(Err(ErrorCode::NotLeaderOrFollower)).map(|()| partition.low_watermark()),
            () = tokio::time::sleep_until(deadline) => Err(ErrorCode::RequestTimedOut),
            _ = cx.broker.stopping() => Err(ErrorCode::NotLeaderOrFollower),
        },
        Err(FollowerRefused::Code(code)) => Err(code),
        Err(FollowerRefused::Log(e)) => {
            if !matches!(e, LogError::OffsetOutOfRange { .. }) {
                tracing::error!(topic, partition = index, error = %e, "records could not be deleted");
            }
            Err(error::of_log(&e))
        }
    }
}
