//! The producer's background task: takes ready batches, sends them to their leaders, sees to retries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use klamm_protocol::Records;
use klamm_protocol::batch::{BatchBuilder, BuildError};
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::accumulator::{Batch, Identity, Ready};
use super::lookout::Lookout;
use super::{Acks, Delivered, ProducerOptions, Shared};
use crate::TopicPartition;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::error::{ClientError, Result};

/// Metadata is asked for this often, to see new partitions.
const METADATA_AGE_MAX: Duration = Duration::from_secs(60);

/// An answer that takes this long is late enough for others to be asked whether the leader still leads.
pub(super) const LATE: Duration = Duration::from_millis(500);
/// How often they are asked from then on: a leader that is gone is replaced any moment.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A batch that came back.
struct Answered {
    at: TopicPartition,
    batch: Batch,
    result: Result<Delivered>,
}

/// Runs until the producer is dropped.
pub(super) async fn run(client: Client, shared: Arc<Shared>) {
    let lookout = Arc::new(Lookout::of(&client));
    let mut out: JoinSet<Vec<Answered>> = JoinSet::new();
    let mut metadata_due = Instant::now() + METADATA_AGE_MAX;
    loop {
        let ready = shared.accumulator().take_ready(Instant::now(), &shared.options);
        let Ready { batches, look_again, needs_identity } = ready;
        for (leader, batches) in by_leader(&client.cluster(), batches) {
            out.spawn(send(client.clone(), Arc::clone(&lookout), Arc::clone(&shared), leader, batches));
        }
        if needs_identity {
            obtain_identity(&client, &shared).await;
            continue;
        }
        let wake = look_again.unwrap_or(metadata_due).min(metadata_due);
        tokio::select! {
            Some(answered) = out.join_next(), if !out.is_empty() => {
                // A task that was cancelled or panicked dropped its batches, which tells their owners.
                for answered in answered.unwrap_or_default() {
                    finish(&client, &shared, answered);
                }
            }
            () = shared.work.notified() => {}
            () = sleep_until(wake) => {}
        }
        if Instant::now() >= metadata_due {
            metadata_due = Instant::now() + METADATA_AGE_MAX;
            let lookout = Arc::clone(&lookout);
            out.spawn(async move {
                // When it fails, the next send or the next round tells.
                let _ = lookout.look().await;
                Vec::new()
            });
        }
    }
}

/// Groups batches by leader; those without one go to broker -1, who always fails.
fn by_leader(cluster: &Cluster, batches: Vec<(TopicPartition, Batch)>) -> BTreeMap<i32, Vec<(TopicPartition, Batch)>> {
    let mut leaders: BTreeMap<i32, Vec<(TopicPartition, Batch)>> = BTreeMap::new();
    for (at, batch) in batches {
        let leader = cluster.partition(&at.topic, at.partition).map_or(-1, |p| p.leader);
        leaders.entry(leader).or_default().push((at, batch));
    }
    leaders
}

fn finish(client: &Client, shared: &Shared, answered: Answered) {
    let Answered { at, batch, result } = answered;
    let retry = result
        .as_ref()
        .is_err_and(|error| error.is_retriable() && batch.created.elapsed() < shared.options.delivery_timeout);
    if retry {
        if let Err(error) = &result {
            tracing::debug!(partition = %at, %error, age = ?batch.created.elapsed(), "trying the batch again");
        }
        let not_before = Instant::now() + client.pause_after(batch.created.elapsed());
        shared.accumulator().give_back(&at, batch, not_before);
    } else {
        shared.accumulator().settled(&at, result.is_err());
        batch.settle(result);
    }
}

/// Gets a producer id for the partitions that lack one; when that's impossible, their batches fail.
async fn obtain_identity(client: &Client, shared: &Shared) {
    let request =
        InitProducerIdRequest { transactional_id: None, transaction_timeout_ms: i32::MAX, ..Default::default() };
    let answer = client.retry(|| async {
        let answer = client.ask_any(&request).await?;
        ClientError::check("producer id", answer.error_code, None)?;
        Ok(Identity { id: answer.producer_id, epoch: answer.producer_epoch })
    });
    match answer.await {
        Ok(identity) => shared.accumulator().identity = Some(identity),
        Err(error) => {
            let waiting = shared.accumulator().take_waiting();
            for batch in waiting {
                batch.settle(Err(error.clone()));
            }
        }
    }
}

/// Sends batches of different partitions to one broker in one request.
async fn send(
    client: Client,
    lookout: Arc<Lookout>,
    shared: Arc<Shared>,
    leader: i32,
    batches: Vec<(TopicPartition, Batch)>,
) -> Vec<Answered> {
    let placed = produce(&client, &lookout, &shared.options, leader, &batches).await;
    let (mut stale, mut lonely) = (false, false);
    let answered = batches.into_iter().map(|(at, batch)| {
        let result = match &placed {
            Ok(placed) => {
                placed.get(&at).cloned().unwrap_or_else(|| Err(ClientError::missing(format!("the batch for {at}"))))
            }
            Err(error) => Err(error.clone()),
        };
        lonely |= result.as_ref().is_err_and(|error| is_lonely(error.code()));
        stale |= result.as_ref().is_err_and(ClientError::is_stale_metadata);
        Answered { at, batch, result }
    });
    let answered = answered.collect();
    if lonely {
        // It may have been cut off and replaced without knowing: the others are asked first.
        client.doubt(leader);
    }
    if stale || lonely {
        // When this fails too, so does the retry, which says why.
        let _ = lookout.look().await;
    }
    answered
}

/// Whether a leader says that the other replicas do not follow it.
fn is_lonely(code: Option<ErrorCode>) -> bool {
    use ErrorCode::{NotEnoughReplicas, NotEnoughReplicasAfterAppend, RequestTimedOut};
    matches!(code, Some(RequestTimedOut | NotEnoughReplicas | NotEnoughReplicasAfterAppend))
}

/// Where each partition's batch begins, or why it was refused.
type Placed = BTreeMap<TopicPartition, Result<Delivered>>;

async fn produce(
    client: &Client,
    lookout: &Lookout,
    options: &ProducerOptions,
    leader: i32,
    batches: &[(TopicPartition, Batch)],
) -> Result<Placed> {
    // The way to it may be as dead as a connection that was made before.
    let connection = tokio::select! {
        biased;
        connection = client.to_leader(leader) => connection?,
        () = replaced(client, lookout, leader, batches) => {
            return Err(ClientError::Timeout { what: format!("a connection to broker {leader}"), after: LATE });
        }
    };
    let cluster = client.cluster();
    let timeout = client.options().connection.request_timeout;
    let mut request = ProduceRequest {
        transactional_id: None,
        acks: match options.acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        },
        timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        ..Default::default()
    };
    let mut all_ids_known = true;
    for (at, batch) in batches {
        let data = PartitionProduceData { index: at.partition, records: Some(Records::Bytes(encode(batch, options)?)) };
        match request.topic_data.last_mut().filter(|topic| topic.name == at.topic) {
            Some(topic) => topic.partition_data.push(data),
            None => {
                let topic_id = cluster.topics.get(&at.topic).map(|t| t.id).unwrap_or_default();
                all_ids_known &= !topic_id.is_zero();
                request.topic_data.push(TopicProduceData {
                    name: at.topic.clone(),
                    topic_id,
                    partition_data: vec![data],
                });
            }
        }
    }
    // From version 13 on topics go by id alone.
    let version = connection.version_below::<ProduceRequest>(if all_ids_known { i16::MAX } else { 12 })?;
    if options.acks == Acks::None {
        connection.send_unanswered(&request, version).await?;
        let unknown = |(at, _): &(TopicPartition, Batch)| {
            (at.clone(), Ok(Delivered { partition: at.partition, offset: -1, leader }))
        };
        return Ok(batches.iter().map(unknown).collect());
    }
    // The broker may park the request for `timeout_ms` before it answers.
    let pending = connection.start(&request, version, timeout + Duration::from_secs(5)).await?;
    tokio::select! {
        biased;
        answer = pending.answer() => Ok(placed(&cluster, leader, answer?)),
        () = replaced(client, lookout, leader, batches) => Err(connection.give_up("others lead its partitions by now")),
    }
}

/// Resolves when others lead all of these partitions. One that is cut off can't say so, nor that it gives up: the
/// others know, and are asked when an answer is late.
async fn replaced(client: &Client, lookout: &Lookout, leader: i32, batches: &[(TopicPartition, Batch)]) {
    sleep(LATE).await;
    loop {
        client.doubt(leader);
        if let Ok(cluster) = lookout.look().await {
            let leads =
                |at: &TopicPartition| cluster.partition(&at.topic, at.partition).is_none_or(|p| p.leader == leader);
            if !batches.iter().any(|(at, _)| leads(at)) {
                return;
            }
        }
        sleep(ASK_AGAIN).await;
    }
}

fn placed(cluster: &Cluster, leader: i32, answer: ProduceResponse) -> Placed {
    let mut placed = Placed::new();
    for topic in answer.responses {
        let name = if topic.name.is_empty() {
            match cluster.topics.values().find(|t| t.id == topic.topic_id) {
                Some(known) => known.name.clone(),
                None => continue,
            }
        } else {
            topic.name
        };
        for p in topic.partition_responses {
            let at = TopicPartition::new(name.clone(), p.index);
            let checked = if p.error_code == ErrorCode::DuplicateSequenceNumber.code() {
                // Written before; only the offset has been forgotten.
                Ok(-1)
            } else {
                let what = format!("producing to {at}");
                ClientError::check(what, p.error_code, p.error_message.as_deref()).map(|()| p.base_offset)
            };
            let result = checked.map(|offset| Delivered { partition: p.index, offset, leader });
            placed.insert(at, result);
        }
    }
    placed
}

fn encode(batch: &Batch, options: &ProducerOptions) -> Result<Bytes> {
    let invalid = |error: BuildError| ClientError::Invalid(format!("the records can't be sent: {error}"));
    let mut builder = BatchBuilder::new(0).compression(options.compression, None);
    if let Some((identity, sequence)) = batch.sequence {
        builder = builder.producer(identity.id, identity.epoch, sequence);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    for record in &batch.records {
        let timestamp = record.timestamp.unwrap_or(now_ms);
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.push(timestamp, key, value, &record.headers).map_err(invalid)?;
    }
    builder.build().map_err(invalid)
}
