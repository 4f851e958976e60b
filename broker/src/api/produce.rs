//! Produce: versions 3 to 13 (0 to 2 are advertised for librdkafka's sake and refused).
//!
//! One batch a partition. The batch is checked by its header and CRC; its records are looked into only
//! where the topic's configuration asks for it. acks=0 gets no answer; when such a produce fails, the
//! connection closes, which is the only way to say so.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use klamm_protocol::messages::{ProduceRequest, ProduceResponse};
use klamm_protocol::{ErrorCode, Records};

use super::{Context, Refusal, error};
use crate::broker::Broker;
use crate::replica::intake::{self, Refused};
use crate::replica::partition::{Acks, Append, Flush, NotAppended, Origin, Partition};
use crate::replica::replicas::Hosted;
use crate::replica::waiting::Reached;

/// Clients with this id may write to internal topics, as in Kafka.
const ADMIN_CLIENT: &str = "__admin_client";

/// Produce versions whose answers name the leader that should have been asked.
const NEW_LEADER_SINCE: i16 = 10;

/// Where an answer stands in the response, and what it waits for.
struct Waiting {
    topic: usize,
    partition: usize,
    of: Arc<Partition>,
    what: What,
}

/// What keeps an answer from going out.
enum What {
    /// The fsync of this broker's own log.
    Flush,
    /// The high watermark.
    Commit(Reached),
}

/// Appends each batch, waits for the fsyncs and the replicas that were asked for, and answers.
pub async fn handle(cx: &Context<'_>, request: ProduceRequest) -> Result<Option<ProduceResponse>, Refusal> {
    let acks = request.acks;
    let now_ms = cx.broker.clock.wall_ms();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let mut waiting = Vec::new();
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
                    let what = match (append.flush, append.commit) {
                        (Flush::No, None) => None,
                        (Flush::Later, None) => {
                            cx.broker.replicas.flusher.flush_later(&of);
                            None
                        }
                        (Flush::BeforeAnswer, None) => Some(What::Flush),
                        (flush, Some(commit)) => {
                            // The high watermark waits for the fsync where one is due.
                            if flush != Flush::No {
                                cx.broker.replicas.flusher.flush_later(&of);
                            }
                            Some(What::Commit(commit))
                        }
                    };
                    if let Some(what) = what {
                        waiting.push(Waiting { topic: responses.len(), partition: partitions.len(), of, what });
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
    if !waiting.is_empty() {
        wait(cx, waiting, timeout, &mut responses).await;
    }
    if acks == 0 {
        let failed = responses.iter().flat_map(|t| &t.partition_responses).map(|p| p.error_code).find(|code| *code != 0);
        return failed.map_or(Ok(None), |code| Err(Refusal::Unacknowledged(ErrorCode::from_code(code))));
    }
    let node_endpoints = if cx.version >= NEW_LEADER_SINCE { name_leaders(cx, &mut responses) } else { Vec::new() };
    Ok(Some(ProduceResponse { responses, node_endpoints, ..Default::default() }))
}

/// Tells who leads the partitions that were refused because this broker does not (KIP-951).
fn name_leaders(cx: &Context<'_>, responses: &mut [TopicProduceResponse]) -> Vec<NodeEndpoint> {
    let moved = [ErrorCode::NotLeaderOrFollower.code(), ErrorCode::FencedLeaderEpoch.code()];
    let mut leaders = Vec::new();
    for topic in responses {
        for answer in topic.partition_responses.iter_mut().filter(|p| moved.contains(&p.error_code)) {
            let image = cx.broker.controller.image();
            let found = if cx.version >= 13 { image.topic_by_id(topic.topic_id) } else { image.topic(&topic.name) };
            let Some(partition) = found.and_then(|t| t.partition(answer.index)) else { continue };
            let (leader_id, leader_epoch) = (partition.leader, partition.leader_epoch);
            answer.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch, ..Default::default() };
            if leader_id >= 0 && !leaders.contains(&leader_id) {
                leaders.push(leader_id);
            }
        }
    }
    let listener = &cx.connection.listener;
    let nodes = leaders.into_iter().filter_map(|id| cx.broker.controller.node(id, listener));
    nodes
        .map(|node| NodeEndpoint {
            node_id: node.id,
            host: node.host,
            port: node.port,
            rack: node.rack,
            ..Default::default()
        })
        .collect()
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
    if !partition.is_led_here() {
        // Before the batch is looked at: whatever is wrong with it, another broker has to be asked.
        return Err(Refused::new(ErrorCode::NotLeaderOrFollower));
    }
    let acks = if acks == -1 { Acks::All } else { Acks::Leader };
    let result = intake::check(records, &topic.config(), cx.version, now_ms).and_then(|taken| {
        let appended = partition.append(&taken.records, Origin::Client, acks, cx.broker.clock.settled_ms());
        appended.map_err(|e| not_appended(cx.broker, &partition, &e, now_ms)).map(|append| (append, taken.count))
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

fn not_appended(broker: &Broker, partition: &Partition, e: &NotAppended, now_ms: i64) -> Refused {
    let code = match e {
        NotAppended::Log(e) => {
            broker.append_failed(partition, e);
            error::of_log(e)
        }
        NotAppended::Refused(code) => *code,
    };
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

/// Waits for what was asked for, for `timeout` at most where other brokers have a part in it. All fsyncs are asked
/// for before the first is waited for, so they share a round.
async fn wait(cx: &Context<'_>, waiting: Vec<Waiting>, timeout: Duration, responses: &mut [TopicProduceResponse]) {
    let deadline = tokio::time::sleep(timeout);
    tokio::pin!(deadline);
    let mut flushes = Vec::new();
    let mut commits = Vec::new();
    for w in waiting {
        match w.what {
            What::Flush => flushes.push((w.topic, w.partition, cx.broker.replicas.flusher.flush(&w.of))),
            What::Commit(reached) => commits.push((w.topic, w.partition, w.of, reached)),
        }
    }
    let mut fail = |topic: usize, partition: usize, refused: Refused| {
        if let Some(answer) = responses.get_mut(topic).and_then(|t| t.partition_responses.get_mut(partition)) {
            refuse(answer, refused);
            answer.base_offset = -1;
        }
    };
    for (topic, partition, done) in flushes {
        if let Err(error) = done.await {
            fail(topic, partition, Refused::because(ErrorCode::KafkaStorageError, error.to_string()));
        }
    }
    for (topic, partition, of, mut reached) in commits {
        let outcome = tokio::select! {
            biased;
            outcome = &mut reached => outcome.unwrap_or(Err(ErrorCode::NotLeaderOrFollower)),
            () = &mut deadline, if !deadline.is_elapsed() => Err(ErrorCode::RequestTimedOut),
            () = std::future::ready(()), if deadline.is_elapsed() => Err(ErrorCode::RequestTimedOut),
            _ = cx.broker.stopping() => Err(ErrorCode::NotLeaderOrFollower),
        };
        match outcome {
            Ok(()) if of.has_min_isr() => {}
            Ok(()) => fail(topic, partition, Refused::new(ErrorCode::NotEnoughReplicasAfterAppend)),
            Err(code) => fail(topic, partition, Refused::new(code)),
        }
    }
}
