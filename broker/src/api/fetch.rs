//! Fetch: versions 4 to 18. Reads records for consumers and followers, by session or without, with long poll.
//!
//! A fetch is done once `min_bytes` are there, something failed, or `max_wait_ms` is over; until
//! then it parks with the partitions it asked for. Records leave as file ranges. The first partition
//! with records gives at least one whole batch, however small the limits (KIP-74).
//!
//! Followers fetch with their replica id and the epoch of their registration, over the listener of brokers. They read
//! up to the log's end, and what they ask for tells the leader what they have; so who merely says that it is a replica
//! is refused, or records would count as held where they are not. Consumers read up to the high watermark, from version 11 on from any
//! replica; one that names its rack may be sent to a replica there (KIP-392).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_log::{Damage, LogError, Unchecked};
use klamm_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_protocol::{ErrorCode, Records};
use parking_lot::Mutex;

use super::{Context, Refusal, error};
use crate::replica::leader::Progress;
use crate::replica::partition::{Isolation, Offsets, Partition};
use crate::replica::repair;
use crate::replica::roles::{FollowerFetch, FollowerRead, FollowerRefused};
use crate::replica::session::{Lease, Opened, Session, Told, TopicKey, Wanted};
use crate::replica::waiting::FetchWaiter;

/// One answer under construction.
struct Read {
    data: Vec<(usize, PartitionData)>,
    bytes: i64,
    /// Something other than records makes the answer due at once: an error, a diverging epoch.
    due: bool,
    /// What was found on disk and nobody has checked yet.
    unchecked: Vec<(Arc<Partition>, Unchecked)>,
    /// Damage that was met.
    damaged: Vec<(Arc<Partition>, Box<Damage>)>,
}

/// What does not change from one try to the next.
struct Limits {
    isolation: Isolation,
    max_bytes: i64,
    min_bytes: i64,
    reader: Reader,
    incremental: bool,
    /// The consumer's rack, where replicas are chosen by racks.
    rack: Option<String>,
}

/// Who fetches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// A consumer; old ones don't know that they may read from a follower.
    Consumer { any_replica: bool },
    /// A broker, in the life of this epoch; the fetch was sent after this moment.
    Follower { id: i32, epoch: i64, sent_after: u64 },
}

/// The replica id of tools that compare replicas: a consumer that may read from any of them.
const DEBUGGING_REPLICA: i32 = -2;

/// Fetch versions whose consumers may read from followers.
const ANY_REPLICA_SINCE: i16 = 11;

/// How long a leader waits to hear of the registration that a follower claims.
const NEWS_WAIT_MAX: Duration = Duration::from_millis(500);

/// Fetch versions whose answers name the leader that should have been asked (KIP-951).
const NEW_LEADER_SINCE: i16 = 16;

/// Answers a fetch.
pub async fn handle(cx: &Context<'_>, request: FetchRequest) -> Result<FetchResponse, Refusal> {
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let max_bytes = i64::from(request.max_bytes.min(cx.broker.config.fetch_max_bytes));
    let (replica_id, epoch) = if cx.version >= 15 {
        (request.replica_state.replica_id, request.replica_state.replica_epoch)
    } else {
        (request.replica_id, -1)
    };
    let reader = match replica_id {
        // It asks again only when it has the answer to what it asked before.
        id if id >= 0 => {
            let sent_after = cx.connection.answered_follower.load(Ordering::Acquire);
            Reader::Follower { id, epoch, sent_after }
        }
        id => Reader::Consumer { any_replica: id == DEBUGGING_REPLICA || cx.version >= ANY_REPLICA_SINCE },
    };
    if let Reader::Follower { id, epoch, .. } = reader
        && let Err(code) = check_replica(cx, id, epoch, max_wait).await
    {
        return Ok(FetchResponse { error_code: code.code(), ..Default::default() });
    }
    if let Reader::Follower { .. } = reader {
        cx.broker.replicas.around.fetched_ms.store(cx.broker.clock.now_ms(), Ordering::Release);
    }
    let rack_aware = cx.broker.config.replication.rack_aware_reads && !request.rack_id.is_empty();
    let mut limits = Limits {
        isolation: Isolation::from_wire(request.isolation_level),
        max_bytes,
        min_bytes: i64::from(request.min_bytes).min(max_bytes),
        reader,
        incremental: false,
        rack: rack_aware.then(|| request.rack_id.clone()),
    };
    let fresh_id = cx.broker.random.positive_i32();
    let opened = cx.broker.sessions.open(request, cx.version, fresh_id, cx.broker.clock.now_ms());
    let (session_id, session) = match opened {
        Err(code) => return Ok(FetchResponse { error_code: code.code(), ..Default::default() }),
        Ok(Opened::Sessionless(session)) => (0, Arc::new(Mutex::new(session))),
        Ok(Opened::Full(id, session)) => {
            if let Reader::Follower { .. } = reader {
                *cx.connection.follows.lock() = Some(Lease::new(&cx.broker.sessions, id));
            }
            (id, session)
        }
        Ok(Opened::Incremental(id, session)) => {
            limits.incremental = true;
            (id, session)
        }
    };
    let read = long_poll(cx, &session, &limits, max_wait).await;
    if let Reader::Follower { .. } = reader {
        let moment = cx.broker.replicas.around.moment.load(Ordering::Acquire);
        cx.connection.answered_follower.store(moment, Ordering::Release);
    }
    let leaders = leaders(&read);
    let responses = assemble(&mut session.lock(), read, limits.incremental, reader, cx.broker.clock.now_ms());
    let node_endpoints = if cx.version >= NEW_LEADER_SINCE { endpoints(cx, leaders) } else { Vec::new() };
    Ok(FetchResponse { session_id, responses, node_endpoints, ..Default::default() })
}

/// Whether it is really broker `id` that fetches: it comes over the listener of brokers, and knows the epoch that the
/// controller gave it. A client that poses as a replica would read what is not committed, and hold back or fake what is.
async fn check_replica(cx: &Context<'_>, id: i32, epoch: i64, max_wait: Duration) -> Result<(), ErrorCode> {
    let registered = || cx.broker.controller.image().broker(id).map_or(-1, |broker| broker.epoch);
    let code = if !cx.may_replicate() {
        ErrorCode::ClusterAuthorizationFailed
    } else {
        if epoch > registered() {
            // It may just have registered, and this broker be about to hear of it.
            let mut news = cx.broker.controller.publications();
            let limit = max_wait.min(NEWS_WAIT_MAX);
            let _ = tokio::time::timeout(limit, news.wait_for(|_| registered() >= epoch)).await;
        }
        if epoch >= 0 && epoch == registered() {
            return Ok(());
        }
        ErrorCode::StaleBrokerEpoch
    };
    let peer = cx.connection.handle.peer;
    let cause = format!("replica {id} {}", peer.ip());
    if let Some(held_back) = cx.broker.complaints.due(&cause, cx.broker.clock.now_ms()) {
        let (listener, known) = (&cx.connection.listener, registered());
        tracing::warn!(%listener, %peer, broker = id, epoch, known, code = code.name(), held_back, "a fetch as a replica is refused");
    }
    Err(code)
}

/// The leaders that the answer names.
fn leaders(read: &Read) -> Vec<i32> {
    let mut leaders: Vec<i32> = read.data.iter().map(|(_, d)| d.current_leader.leader_id).filter(|id| *id >= 0).collect();
    leaders.sort_unstable();
    leaders.dedup();
    leaders
}

fn endpoints(cx: &Context<'_>, leaders: Vec<i32>) -> Vec<NodeEndpoint> {
    let node = |id| cx.broker.controller.node(id, &cx.connection.listener);
    let endpoint = |node: crate::controller::Node| NodeEndpoint {
        node_id: node.id,
        host: node.host,
        port: node.port,
        rack: node.rack,
        ..Default::default()
    };
    leaders.into_iter().filter_map(node).map(endpoint).collect()
}

/// Reads until the answer is due.
async fn long_poll(cx: &Context<'_>, session: &Mutex<Session>, limits: &Limits, max_wait: Duration) -> Read {
    let mut read = read_checked(cx, session, limits, true).await;
    count(&session.lock());
    if is_due(&read, limits) || max_wait.is_zero() {
        return read;
    }
    let deadline = tokio::time::sleep(max_wait);
    tokio::pin!(deadline);
    loop {
        let waiter = FetchWaiter::new((limits.min_bytes - read.bytes).max(1));
        park(&session.lock(), &waiter, limits.reader);
        // What was appended between the read and the registration woke nobody: look once more.
        read = read_checked(cx, session, limits, false).await;
        if is_due(&read, limits) {
            return read;
        }
        tokio::select! {
            () = waiter.woken() => {}
            () = &mut deadline => return read_checked(cx, session, limits, false).await,
            _ = cx.broker.stopping() => return read,
        }
        read = read_checked(cx, session, limits, false).await;
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

fn park(session: &Session, waiter: &Arc<FetchWaiter>, reader: Reader) {
    for slot in session.rotation() {
        if let Some(partition) = session.get(slot).and_then(|wanted| wanted.partition.as_ref()) {
            match reader {
                Reader::Consumer { .. } => partition.waiters().register(waiter),
                Reader::Follower { .. } => partition.follower_waiters().register(waiter),
            }
        }
    }
}

/// How often one answer is begun again because more of it had to be checked.
const CHECKS_MAX: usize = 8;

/// One pass over the session's partitions, of which nothing is given away that was found on disk unchecked. That is rare:
/// each range is checked once after the broker's start, and again when it was out of the page cache.
async fn read_checked(cx: &Context<'_>, session: &Mutex<Session>, limits: &Limits, fresh: bool) -> Read {
    let mut read = read_all(cx, &mut session.lock(), limits, fresh);
    for _ in 0..CHECKS_MAX {
        for (partition, damage) in read.damaged.drain(..) {
            repair::met(cx.broker, &partition, &damage);
        }
        if read.unchecked.is_empty() {
            return read;
        }
        repair::check(cx.broker, std::mem::take(&mut read.unchecked)).await;
        read = read_all(cx, &mut session.lock(), limits, false);
    }
    for (_, data) in &mut read.data {
        // Something keeps pushing them out of the cache. The next fetch may have more luck.
        data.records = Some(Records::default());
    }
    read.bytes = 0;
    read
}

/// One pass over the session's partitions, within the answer's byte limit.
fn read_all(cx: &Context<'_>, session: &mut Session, limits: &Limits, fresh: bool) -> Read {
    let mut read = Read { data: Vec::new(), bytes: 0, due: false, unchecked: Vec::new(), damaged: Vec::new() };
    let mut any = false;
    for slot in session.rotation() {
        any = true;
        let Some(wanted) = session.get_mut(slot) else { continue };
        let left = (limits.max_bytes - read.bytes).max(0);
        let mut data = match find(cx, wanted) {
            Ok(partition) => {
                let budget = Budget { left, min_one: read.bytes == 0 };
                match limits.reader {
                    Reader::Consumer { any_replica } => {
                        read_one(cx, &partition, wanted, limits, budget, any_replica, &mut read)
                    }
                    Reader::Follower { id, epoch, sent_after } => {
                        let now_ms = cx.broker.clock.now_ms();
                        read.due |= partition.wants_fetch_after(sent_after);
                        let who = (id, epoch, sent_after);
                        read_for_follower(&partition, wanted, who, budget, fresh, now_ms, &mut read)
                    }
                }
            }
            Err(code) => failed(wanted.wants.partition, code),
        };
        if matches!(ErrorCode::from_code(data.error_code), ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch) {
            data.current_leader = current_leader(cx, wanted);
        }
        let bytes = data.records.as_ref().map_or(0, |records| records.len() as i64);
        read.bytes += bytes;
        // A follower that keeps what was deleted here is told at once: only then it may join the ISR.
        let follower = matches!(limits.reader, Reader::Follower { .. });
        read.due |= follower
            && wanted.wants.log_start_offset < data.log_start_offset
            && wanted.told.is_none_or(|told| told.log_start != data.log_start_offset);
        read.due |= data.error_code != 0
            || data.diverging_epoch != EpochEndOffset::default()
            || data.preferred_read_replica >= 0;
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

/// Who leads the partition, for a client that asked another broker.
fn current_leader(cx: &Context<'_>, wanted: &Wanted) -> LeaderIdAndEpoch {
    let image = cx.broker.controller.image();
    let topic = match &wanted.topic {
        TopicKey::Name(name) => image.topic(name),
        TopicKey::Id(id) => image.topic_by_id(*id),
    };
    let partition = topic.and_then(|topic| topic.partition(wanted.wants.partition));
    partition.map_or_else(LeaderIdAndEpoch::default, |p| LeaderIdAndEpoch {
        leader_id: p.leader,
        leader_epoch: p.leader_epoch,
        ..Default::default()
    })
}

/// What is left of the answer for a partition.
#[derive(Clone, Copy)]
struct Budget {
    left: i64,
    /// Nothing is in the answer yet: one batch may be larger than the budget.
    min_one: bool,
}

impl Budget {
    fn bytes(self, partition_max: i32) -> usize {
        usize::try_from(i64::from(partition_max).min(self.left)).unwrap_or(0)
    }
}

fn answer(partition_index: i32, offsets: Offsets) -> PartitionData {
    PartitionData {
        partition_index,
        high_watermark: offsets.high_watermark,
        last_stable_offset: offsets.last_stable,
        log_start_offset: offsets.log_start,
        records: Some(Records::default()),
        ..Default::default()
    }
}

#[allow(clippy::too_many_arguments, reason = "each is one thing that the read depends on")]
fn read_for_follower(
    partition: &Arc<Partition>,
    wanted: &Wanted,
    (follower, broker_epoch, sent_after): (i32, i64, u64),
    budget: Budget,
    fresh: bool,
    now_ms: i64,
    found: &mut Read,
) -> PartitionData {
    let wants = &wanted.wants;
    let fetch = FollowerFetch {
        progress: Progress {
            follower,
            broker_epoch,
            fetch_offset: wants.fetch_offset,
            log_start: wants.log_start_offset,
            sent_after,
        },
        leader_epoch: wants.current_leader_epoch,
        last_fetched_epoch: wants.last_fetched_epoch,
        max_bytes: budget.bytes(wants.partition_max_bytes),
        min_one: budget.min_one,
        fresh,
    };
    match partition.read_for_follower(&fetch, now_ms) {
        Ok((FollowerRead::Records(read), offsets)) => {
            let mut data = answer(wants.partition, offsets);
            found.unchecked.extend(read.unchecked.map(|unchecked| (partition.clone(), *unchecked)));
            if let Some(range) = read.range {
                data.records = Some(Records::File(range));
            }
            data
        }
        Ok((FollowerRead::Diverging(epoch, end_offset), offsets)) => PartitionData {
            diverging_epoch: EpochEndOffset { epoch, end_offset, ..Default::default() },
            ..answer(wants.partition, offsets)
        },
        Err(FollowerRefused::Code(code)) => failed(wants.partition, code),
        Err(FollowerRefused::Log(e)) => refused(partition, wants.partition, e, found),
    }
}

/// The answer to a read that the log refuses.
fn refused(partition: &Arc<Partition>, index: i32, e: LogError, found: &mut Read) -> PartitionData {
    partition.topic.metrics.failed_fetch_requests.inc();
    let code = match &e {
        // Nobody else has it: the consumer is told that these records are damaged, rather than to try again for ever.
        LogError::Corrupt(_) if partition.is_alone() => ErrorCode::CorruptMessage,
        e => error::of_log(e),
    };
    match e {
        LogError::OffsetOutOfRange { .. } => {}
        LogError::Corrupt(damage) => found.damaged.push((partition.clone(), damage)),
        e => tracing::error!(partition = %partition.dir_name(), error = %e, "read failed"),
    }
    PartitionData { error_code: code.code(), ..answer(index, partition.offsets()) }
}

#[allow(clippy::too_many_arguments, reason = "each is one thing that the read depends on")]
fn read_one(
    cx: &Context<'_>,
    partition: &Arc<Partition>,
    wanted: &Wanted,
    limits: &Limits,
    budget: Budget,
    any_replica: bool,
    found: &mut Read,
) -> PartitionData {
    let wants = &wanted.wants;
    let allowed = if any_replica {
        partition.check_leader_epoch(wants.current_leader_epoch)
    } else {
        partition.check_leads(wants.current_leader_epoch)
    };
    if let Err(code) = allowed {
        return failed(wants.partition, code);
    }
    let mut data = answer(wants.partition, partition.offsets());
    if let Some(replica) = limits.rack.as_deref().and_then(|rack| nearer_replica(cx, partition, wants.fetch_offset, rack)) {
        data.preferred_read_replica = replica;
        return data;
    }
    if let Some(diverging) = diverging(partition, wants.last_fetched_epoch, wants.fetch_offset) {
        data.diverging_epoch = diverging;
        return data;
    }
    match partition.read(wants.fetch_offset, budget.bytes(wants.partition_max_bytes), limits.isolation, budget.min_one) {
        Ok(read) => {
            if limits.isolation == Isolation::ReadCommitted {
                data.aborted_transactions = Some(match aborted(partition, wants.fetch_offset, read.next_offset) {
                    Ok(aborted) => aborted,
                    Err(e) => return PartitionData { error_code: error::of_log(&e).code(), records: Some(Records::default()), ..data },
                });
            }
            found.unchecked.extend(read.unchecked.map(|unchecked| (partition.clone(), *unchecked)));
            if let Some(range) = read.range {
                data.records = Some(Records::File(range));
            }
            data
        }
        Err(e) => refused(partition, wants.partition, e, found),
    }
}

/// A replica in the consumer's rack that it had better read from, unless this broker is there itself. Only the leader
/// chooses, since only it knows what the others have.
fn nearer_replica(cx: &Context<'_>, partition: &Partition, offset: i64, rack: &str) -> Option<i32> {
    let here = cx.broker.config.rack.as_deref() == Some(rack);
    if here || !partition.is_led_here() {
        return None;
    }
    let image = cx.broker.controller.image();
    let near = image.brokers().filter(|b| b.is_active() && b.rack.as_deref() == Some(rack)).map(|b| b.id);
    partition.read_replica(offset, &near.collect::<Vec<_>>())
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
    wanted.told != Some(told(data))
        || data.diverging_epoch != EpochEndOffset::default()
        || data.preferred_read_replica >= 0
}

/// Groups the partitions by topic and remembers what the client is told.
fn assemble(
    session: &mut Session,
    read: Read,
    incremental: bool,
    reader: Reader,
    now_ms: i64,
) -> Vec<FetchableTopicResponse> {
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let mut last: Option<TopicKey> = None;
    let mut served = None;
    for (slot, data) in read.data {
        let Some(wanted) = session.get_mut(slot) else { continue };
        let bytes = data.records.as_ref().map_or(0, |records| records.len() as u64);
        if let Some(partition) = &wanted.partition {
            match reader {
                Reader::Consumer { .. } => partition.topic.metrics.bytes_out.inc_by(bytes),
                Reader::Follower { .. } => {
                    partition.around().replication_bytes_out.fetch_add(bytes, Ordering::Relaxed);
                    if partition.is_throttled_leader() {
                        partition.around().throttles.leader.passes(bytes, now_ms);
                    }
                }
            }
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
