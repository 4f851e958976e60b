//! Fetch: versions 4 to 18. Reads records for consumers, by session or without, with long poll.
//!
//! A fetch is done once `min_bytes` are there, something failed, or `max_wait_ms` is over; until
//! then it parks with the partitions it asked for. Records leave as file ranges. The first partition
//! with records gives at least one whole batch, however small the limits (KIP-74).
//!
//! Followers fetch with a replica id; one broker alone has none, so they are refused.

use std::sync::Arc;
use std::time::Duration;

use klamm_log::LogError;
use klamm_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_protocol::{ErrorCode, Records};
use parking_lot::Mutex;

use super::{Context, Refusal, error};
use crate::replica::partition::{Isolation, Partition};
use crate::replica::session::{Opened, Session, Told, TopicKey, Wanted};
use crate::replica::waiting::FetchWaiter;

/// One answer under construction.
struct Read {
    data: Vec<(usize, PartitionData)>,
    bytes: i64,
    /// Something other than records makes the answer due at once: an error, a diverging epoch.
    due: bool,
}

/// What does not change from one try to the next.
struct Limits {
    isolation: Isolation,
    max_bytes: i64,
    min_bytes: i64,
    follower: bool,
    incremental: bool,
}

/// Answers a fetch.
pub async fn handle(cx: &Context<'_>, request: FetchRequest) -> Result<FetchResponse, Refusal> {
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let max_bytes = i64::from(request.max_bytes.min(cx.broker.config.fetch_max_bytes));
    let replica_id = if cx.version >= 15 { request.replica_state.replica_id } else { request.replica_id };
    let mut limits = Limits {
        isolation: Isolation::from_wire(request.isolation_level),
        max_bytes,
        min_bytes: i64::from(request.min_bytes).min(max_bytes),
        follower: replica_id >= 0,
        incremental: false,
    };
    let fresh_id = cx.broker.random.positive_i32();
    let opened = cx.broker.sessions.open(request, cx.version, fresh_id, cx.broker.clock.now_ms());
    let (session_id, session) = match opened {
        Err(code) => return Ok(FetchResponse { error_code: code.code(), ..Default::default() }),
        Ok(Opened::Sessionless(session)) => (0, Arc::new(Mutex::new(session))),
        Ok(Opened::Full(id, session)) => (id, session),
        Ok(Opened::Incremental(id, session)) => {
            limits.incremental = true;
            (id, session)
        }
    };
    let read = long_poll(cx, &session, &limits, max_wait).await;
    let responses = assemble(&mut session.lock(), read, limits.incremental);
    Ok(FetchResponse { session_id, responses, ..Default::default() })
}

/// Reads until the answer is due.
async fn long_poll(cx: &Context<'_>, session: &Mutex<Session>, limits: &Limits, max_wait: Duration) -> Read {
    let mut read = read_all(cx, &mut session.lock(), limits);
    count(&session.lock());
    if is_due(&read, limits) || max_wait.is_zero() {
        return read;
    }
    let deadline = tokio::time::sleep(max_wait);
    tokio::pin!(deadline);
    loop {
        let waiter = FetchWaiter::new((limits.min_bytes - read.bytes).max(1));
        park(&session.lock(), &waiter);
        // What was appended between the read and the registration woke nobody: look once more.
        read = read_all(cx, &mut session.lock(), limits);
        if is_due(&read, limits) {
            return read;
        }
        tokio::select! {
            () = waiter.woken() => {}
            () = &mut deadline => return read_all(cx, &mut session.lock(), limits),
            _ = cx.broker.stopping() => return read,
        }
        read = read_all(cx, &mut session.lock(), limits);
        if is_due(&read, limits) {
            return read;
        }
    }
}

/// Counts the fetch, once for each partition, as Kafka does.
fn count(session: &Session) {
    for wanted in session.rotation().filter_map(|slot| session.get(slot)) {
        if let Some(partition) = &wanted.partition {
            partition.topic.metrics.fetch_requests.inc();
        }
    }
}

fn is_due(read: &Read, limits: &Limits) -> bool {
    read.due || read.bytes >= limits.min_bytes
}

fn park(session: &Session, waiter: &Arc<FetchWaiter>) {
    for slot in session.rotation() {
        if let Some(partition) = session.get(slot).and_then(|wanted| wanted.partition.as_ref()) {
            partition.waiters().register(waiter);
        }
    }
}

/// One pass over the session's partitions, within the answer's byte limit.
fn read_all(cx: &Context<'_>, session: &mut Session, limits: &Limits) -> Read {
    let mut read = Read { data: Vec::new(), bytes: 0, due: false };
    let mut any = false;
    for slot in session.rotation() {
        any = true;
        let Some(wanted) = session.get_mut(slot) else { continue };
        let left = (limits.max_bytes - read.bytes).max(0);
        let data = match find(cx, wanted) {
            Ok(partition) => read_one(&partition, wanted, limits, left, read.bytes == 0),
            Err(code) => failed(wanted.wants.partition, code),
        };
        let bytes = data.records.as_ref().map_or(0, |records| records.len() as i64);
        read.bytes += bytes;
        read.due |= data.error_code != 0 || data.diverging_epoch != EpochEndOffset::default();
        if bytes > 0 || data.error_code != 0 || !limits.incremental || changed(wanted, &data) {
            read.data.push((slot, data));
        }
    }
    // A fetch of nothing is answered at once: there is nothing that could wake it.
    read.due |= !any;
    read
}

/// The partition that `wanted` names, remembered between the fetches of a session.
fn find(cx: &Context<'_>, wanted: &mut Wanted) -> Result<Arc<Partition>, ErrorCode> {
    if let Some(partition) = wanted.partition.as_ref().filter(|p| !p.is_deleted()) {
        return Ok(partition.clone());
    }
    wanted.partition = None;
    let index = wanted.wants.partition;
    let partition = match &wanted.topic {
        TopicKey::Name(name) => cx.broker.replicas.by_name(name, index)?,
        TopicKey::Id(id) => cx.broker.replicas.by_id(*id, index)?,
    };
    wanted.partition = Some(partition.clone());
    Ok(partition)
}

fn read_one(partition: &Partition, wanted: &Wanted, limits: &Limits, left: i64, min_one: bool) -> PartitionData {
    let wants = &wanted.wants;
    if limits.follower {
        return failed(wants.partition, ErrorCode::NotLeaderOrFollower);
    }
    if let Err(code) = partition.check_leader_epoch(wants.current_leader_epoch) {
        return failed(wants.partition, code);
    }
    let offsets = partition.offsets();
    let mut data = PartitionData {
        partition_index: wants.partition,
        high_watermark: offsets.high_watermark,
        last_stable_offset: offsets.last_stable,
        log_start_offset: offsets.log_start,
        records: Some(Records::default()),
        ..Default::default()
    };
    if let Some(diverging) = diverging(partition, wants.last_fetched_epoch, wants.fetch_offset) {
        data.diverging_epoch = diverging;
        return data;
    }
    let max_bytes = usize::try_from(i64::from(wants.partition_max_bytes).min(left)).unwrap_or(0);
    match partition.read(wants.fetch_offset, max_bytes, limits.isolation, min_one) {
        Ok(read) => {
            if limits.isolation == Isolation::ReadCommitted {
                data.aborted_transactions = Some(match aborted(partition, wants.fetch_offset, read.next_offset) {
                    Ok(aborted) => aborted,
                    Err(e) => return PartitionData { error_code: error::of_log(&e).code(), records: Some(Records::default()), ..data },
                });
            }
            if let Some(range) = read.range {
                data.records = Some(Records::File(range));
            }
            data
        }
        Err(e) => {
            partition.topic.metrics.failed_fetch_requests.inc();
            if !matches!(e, LogError::OffsetOutOfRange { .. }) {
                tracing::error!(partition = %partition.dir_name(), error = %e, "read failed");
            }
            PartitionData { error_code: error::of_log(&e).code(), ..data }
        }
    }
}

/// Transactions that were aborted within a range of offsets, for the consumer to leave out.
fn aborted(partition: &Partition, from: i64, to: i64) -> Result<Vec<AbortedTransaction>, LogError> {
    let found = partition.with_log(|log| log.aborted_transactions(from, to))?;
    let wire = |txn: klamm_log::AbortedTxn| AbortedTransaction {
        producer_id: txn.producer_id,
        first_offset: txn.first_offset,
    };
    Ok(found.into_iter().map(wire).collect())
}

/// Where the client's log parts from ours, if it does (KIP-595): it must truncate first.
fn diverging(partition: &Partition, last_fetched_epoch: i32, fetch_offset: i64) -> Option<EpochEndOffset> {
    if last_fetched_epoch < 0 {
        return None;
    }
    let (epoch, end_offset) = partition.with_log(|log| log.epoch_end_offset(last_fetched_epoch)).unwrap_or((-1, -1));
    (epoch < last_fetched_epoch || end_offset < fetch_offset)
        .then(|| EpochEndOffset { epoch, end_offset, ..Default::default() })
}

fn failed(partition_index: i32, code: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index,
        error_code: code.code(),
        high_watermark: -1,
        records: Some(Records::default()),
        ..Default::default()
    }
}

fn told(data: &PartitionData) -> Told {
    Told {
        high_watermark: data.high_watermark,
        last_stable: data.last_stable_offset,
        log_start: data.log_start_offset,
    }
}

fn changed(wanted: &Wanted, data: &PartitionData) -> bool {
    wanted.told != Some(told(data)) || data.diverging_epoch != EpochEndOffset::default()
}

/// Groups the partitions by topic and remembers what the client is told.
fn assemble(session: &mut Session, read: Read, incremental: bool) -> Vec<FetchableTopicResponse> {
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let mut last: Option<TopicKey> = None;
    let mut served = None;
    for (slot, data) in read.data {
        let Some(wanted) = session.get_mut(slot) else { continue };
        let bytes = data.records.as_ref().map_or(0, |records| records.len() as u64);
        if let Some(partition) = &wanted.partition {
            partition.topic.metrics.bytes_out.inc_by(bytes);
        }
        // An answer with records or an error must not silence the next one.
        wanted.told = (data.error_code == 0).then(|| told(&data));
        if bytes > 0 {
            served = Some(slot);
        }
        if last.as_ref() == Some(&wanted.topic) {
            if let Some(topic) = responses.last_mut() {
                topic.partitions.push(data);
            }
            continue;
        }
        last = Some(wanted.topic.clone());
        let mut topic = FetchableTopicResponse { partitions: vec![data], ..Default::default() };
        match &wanted.topic {
            TopicKey::Name(name) => topic.topic = name.to_string(),
            TopicKey::Id(id) => topic.topic_id = *id,
        }
        responses.push(topic);
    }
    if let Some(slot) = served.filter(|_| incremental) {
        session.served(slot);
    }
    responses
}
