//! DeleteRecords: versions 0 to 2. Moves a partition's log start forward.

use klamm_log::LogError;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use klamm_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::{Context, Refusal, error};

/// "Up to the high watermark".
const ALL: i64 = -1;

/// Answers each partition on its own.
pub async fn handle(cx: &Context<'_>, request: DeleteRecordsRequest) -> Result<DeleteRecordsResponse, Refusal> {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let mut result = DeleteRecordsPartitionResult {
                partition_index: asked.partition_index,
                low_watermark: -1,
                ..Default::default()
            };
            match delete(cx, &topic.name, asked.partition_index, asked.offset) {
                Ok(low_watermark) => result.low_watermark = low_watermark,
                Err(code) => result.error_code = code.code(),
            }
            partitions.push(result);
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions, ..Default::default() });
    }
    Ok(DeleteRecordsResponse { topics, ..Default::default() })
}

/// The log start after the deletion.
fn delete(cx: &Context<'_>, topic: &str, index: i32, offset: i64) -> Result<i64, ErrorCode> {
    let partition = cx.broker.replicas.by_name(topic, index)?;
    if !partition.topic.config().log.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let high_watermark = partition.offsets().high_watermark;
    let to = if offset == ALL { high_watermark } else { offset };
    if to < 0 || to > high_watermark {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let deleted = partition.with_log(|log| log.delete_records(to, cx.broker.clock.wall_ms()));
    deleted.map_err(|e| {
        if !matches!(e, LogError::OffsetOutOfRange { .. }) {
            tracing::error!(topic, partition = index, error = %e, "records could not be deleted");
        }
        error::of_log(&e)
    })
}
