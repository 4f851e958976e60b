//! ListOffsets: versions 1 to 11. Looks offsets up by timestamp or by one of the special marks.

use klamm_protocol::ErrorCode;
use klamm_protocol::compress::Limits;
use klamm_protocol::messages::list_offsets_request::ListOffsetsPartition;
use klamm_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use klamm_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::{Context, Refusal, error};
use crate::replica::partition::Isolation;

/// End of what the consumer may see.
const LATEST: i64 = -1;
/// Log start.
const EARLIEST: i64 = -2;
/// The record with the largest timestamp (KIP-734), from version 7.
const MAX_TIMESTAMP: i64 = -3;
/// Log start of what is held locally (KIP-405), from version 8.
const EARLIEST_LOCAL: i64 = -4;
/// End of what is tiered (KIP-1005), from version 9.
const LATEST_TIERED: i64 = -5;
/// First offset not yet tiered (KIP-1023), from version 11.
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// What looking into one batch may take. Beyond it the batch as a whole answers, to within its records.
const LIMITS: Limits = Limits { total: 64 << 20, window: 5 << 20 };

/// The id of tools that compare replicas: any of them may answer.
const DEBUGGING_REPLICA: i32 = -2;

/// Who asks.
#[derive(Clone, Copy)]
struct Reader {
    isolation: Isolation,
    any_replica: bool,
}

/// Answers each partition on its own.
pub async fn handle(cx: &Context<'_>, request: ListOffsetsRequest) -> Result<ListOffsetsResponse, Refusal> {
    let isolation = Isolation::from_wire(request.isolation_level);
    let reader = Reader { isolation, any_replica: request.replica_id == DEBUGGING_REPLICA };
    let topics = request.topics.into_iter().map(|topic| ListOffsetsTopicResponse {
        partitions: topic.partitions.iter().map(|p| one(cx, &topic.name, p, reader)).collect(),
        name: topic.name,
        ..Default::default()
    });
    Ok(ListOffsetsResponse { topics: topics.collect(), ..Default::default() })
}

fn one(cx: &Context<'_>, topic: &str, asked: &ListOffsetsPartition, reader: Reader) -> ListOffsetsPartitionResponse {
    let mut answer = ListOffsetsPartitionResponse { partition_index: asked.partition_index, ..Default::default() };
    match look_up(cx, topic, asked, reader) {
        Ok((offset, timestamp, leader_epoch)) => {
            answer.offset = offset;
            answer.timestamp = timestamp;
            // Older versions have no place for it.
            if cx.version >= 4 {
                answer.leader_epoch = leader_epoch;
            }
        }
        Err(code) => answer.error_code = code.code(),
    }
    answer
}

/// Offset, timestamp and leader epoch, each −1 where there is none.
fn look_up(cx: &Context<'_>, topic: &str, asked: &ListOffsetsPartition, reader: Reader) -> Result<(i64, i64, i32), ErrorCode> {
    let served_from = match asked.timestamp {
        LATEST | EARLIEST | 0.. => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => i16::MAX,
    };
    if cx.version < served_from {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let partition = cx.broker.replicas.by_name(topic, asked.partition_index)?;
    if reader.any_replica {
        partition.check_leader_epoch(asked.current_leader_epoch)?;
    } else {
        partition.check_leads(asked.current_leader_epoch)?;
        if !matches!(asked.timestamp, EARLIEST | EARLIEST_LOCAL) && !partition.knows_high_watermark() {
            // What an earlier leader acknowledged is here, but this one can't tell yet how much it is: an end below
            // it would take a consumer back.
            return Err(if cx.version >= 5 { ErrorCode::OffsetNotAvailable } else { ErrorCode::LeaderNotAvailable });
        }
    }
    let offsets = partition.offsets();
    let end = match reader.isolation {
        Isolation::ReadUncommitted => offsets.high_watermark,
        Isolation::ReadCommitted => offsets.last_stable,
    };
    let epoch = partition.leader_epoch();
    let found = match asked.timestamp {
        LATEST => return Ok((end, -1, epoch)),
        EARLIEST | EARLIEST_LOCAL => {
            let epoch = partition.with_log(|log| log.epochs().at_offset(offsets.log_start)).unwrap_or(epoch);
            return Ok((offsets.log_start, -1, epoch));
        }
        // Nothing is tiered.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => return Ok((-1, -1, -1)),
        MAX_TIMESTAMP => partition.with_log(|log| log.max_timestamp_offset(LIMITS)),
        timestamp => partition.with_log(|log| log.offset_for_timestamp(timestamp, LIMITS)),
    };
    match found {
        Ok(Some(found)) if found.offset < end => Ok((found.offset, found.timestamp, found.leader_epoch)),
        Ok(_) => Ok((-1, -1, -1)),
        Err(e) => {
            tracing::error!(topic, partition = asked.partition_index, error = %e, "offset lookup failed");
            Err(error::of_log(&e))
        }
    }
}
