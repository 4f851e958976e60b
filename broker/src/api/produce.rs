//! Produce: versions 3 to 13 (0 to 2 are advertised for librdkafka's sake and refused).
//!
//! One batch a partition. The batch is checked by its header and CRC; its records are looked into only
//! where the topic's configuration asks for it. acks=0 gets no answer; when such a produce fails, the
//! connection closes, which is the only way to say so.

use std::sync::Arc;

use bytes::Bytes;
use klamm_log::LogError;
use klamm_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use klamm_protocol::messages::{ProduceRequest, ProduceResponse};
use klamm_protocol::{ErrorCode, Records};

use super::{Context, Refusal, error};
use crate::broker::Broker;
use crate::replica::intake::{self, Refused};
use crate::replica::partition::{Append, Flush, Origin, Partition};
use crate::replica::replicas::Hosted;

/// Clients with this id may write to internal topics, as in Kafka.
const ADMIN_CLIENT: &str = "__admin_client";

/// Where an answer stands in the response, and the partition whose fsync it waits for.
struct Flushing {
    topic: usize,
    partition: usize,
    of: Arc<Partition>,
}

/// Appends each batch, waits for the fsyncs that were asked for, and answers.
pub async fn handle(cx: &Context<'_>, request: ProduceRequest) -> Result<Option<ProduceResponse>, Refusal> {
    let acks = request.acks;
    let now_ms = cx.broker.clock.wall_ms();
    let mut flushing = Vec::new();
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let hosted = if cx.version >= 13 {
            cx.broker.replicas.topic_by_id(topic.topic_id).ok_or(ErrorCode::UnknownTopicId)
        } else {
            cx.broker.replicas.topic(&topic.name).ok_or(ErrorCode::UnknownTopicOrPartition)
        };
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let mut answer = PartitionProduceResponse { index: data.index, base_offset: -1, ..Default::default() };
            match append(cx, acks, hosted.as_deref(), data.index, data.records, now_ms) {
                Ok((of, append)) => {
                    answer.base_offset = append.appended.base_offset;
                    answer.log_append_time_ms = append.appended.log_append_time;
                    answer.log_start_offset = append.appended.log_start_offset;
                    match append.flush {
                        Flush::No => {}
                        Flush::Later => cx.broker.replicas.flusher.flush_later(&of),
                        Flush::BeforeAnswer => {
                            flushing.push(Flushing { topic: responses.len(), partition: partitions.len(), of });
                        }
                    }
                }
                Err(refused) => refuse(&mut answer, refused),
            }
            partitions.push(answer);
        }
        responses.push(TopicProduceResponse {
            name: topic.name,
            topic_id: topic.topic_id,
            partition_responses: partitions,
            ..Default::default()
        });
    }
    if !flushing.is_empty() {
        wait(cx, flushing, &mut responses).await;
    }
    if acks == 0 {
        let failed = responses.iter().flat_map(|t| &t.partition_responses).map(|p| p.error_code).find(|code| *code != 0);
        return failed.map_or(Ok(None), |code| Err(Refusal::Unacknowledged(ErrorCode::from_code(code))));
    }
    Ok(Some(ProduceResponse { responses, ..Default::default() }))
}

/// Appends one partition's batch.
fn append(
    cx: &Context<'_>,
    acks: i16,
    hosted: Result<&Hosted, &ErrorCode>,
    index: i32,
    records: Option<Records>,
    now_ms: i64,
) -> Result<(Arc<Partition>, Append), Refused> {
    if !matches!(acks, -1..=1) {
        return Err(Refused::new(ErrorCode::InvalidRequiredAcks));
    }
    let hosted = hosted.map_err(|code| Refused::new(*code))?;
    let partition = hosted.partition(index).map_err(Refused::new)?;
    let topic = &partition.topic;
    topic.metrics.produce_requests.inc();
    if topic.is_internal() && cx.client_id != ADMIN_CLIENT {
        return Err(Refused::because(ErrorCode::InvalidTopicException, "clients must not write to internal topics"));
    }
    let records = match records {
        Some(Records::Bytes(bytes)) => bytes,
        _ => Bytes::new(),
    };
    let size = records.len() as u64;
    let result = intake::check(records, &topic.config(), cx.version, now_ms).and_then(|taken| {
        let appended = partition.append(&taken.records, Origin::Client, now_ms);
        appended.map_err(|e| of_log(cx.broker, &partition, &e, now_ms)).map(|append| (append, taken.count))
    });
    match result {
        Ok((mut append, count)) => {
            if !append.appended.duplicate {
                topic.metrics.bytes_in.inc_by(size);
                topic.metrics.messages_in.inc_by(count);
            }
            if !topic.config().log_append_time {
                append.appended.log_append_time = -1;
            }
            Ok((partition, append))
        }
        Err(refused) => {
            topic.metrics.failed_produce_requests.inc();
            topic.metrics.bytes_rejected.inc_by(size);
            Err(refused)
        }
    }
}

fn of_log(broker: &Broker, partition: &Partition, e: &LogError, now_ms: i64) -> Refused {
    let code = error::of_log(e);
    if code == ErrorCode::KafkaStorageError {
        let partition = partition.dir_name();
        if let Some(not_logged) = broker.complaints.due(&partition, now_ms) {
            tracing::error!(partition, error = %e, not_logged, "append failed; logged once a minute");
        }
    }
    Refused::because(code, e.to_string())
}

fn refuse(answer: &mut PartitionProduceResponse, refused: Refused) {
    answer.error_code = refused.code.code();
    answer.error_message = refused.message;
    answer.record_errors = refused
        .records
        .into_iter()
        .map(|(batch_index, message)| BatchIndexAndErrorMessage {
            batch_index,
            batch_index_error_message: Some(message),
            ..Default::default()
        })
        .collect();
}

/// Waits for the fsyncs; all are asked for before the first is waited for, so they share a round.
async fn wait(cx: &Context<'_>, flushing: Vec<Flushing>, responses: &mut [TopicProduceResponse]) {
    let tasks: Vec<_> = flushing.iter().map(|f| cx.broker.replicas.flusher.flush(&f.of)).collect();
    for (f, done) in flushing.iter().zip(tasks) {
        let Err(error) = done.await else { continue };
        if let Some(answer) = responses.get_mut(f.topic).and_then(|t| t.partition_responses.get_mut(f.partition)) {
            refuse(answer, Refused::because(ErrorCode::KafkaStorageError, error.to_string()));
            answer.base_offset = -1;
        }
    }
}
