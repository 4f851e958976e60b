//! THE table of API keys. ApiVersions, the docs and the metrics' labels are made from it; a key that
//! is not in it is not served. One file per key holds what the broker does for it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use klamm_protocol::messages::*;
use klamm_protocol::wire::{DecodeError, EncodeError, Encoded, Reader};
use klamm_protocol::{ApiKey, ErrorCode, Request, RequestHeader, frame};

use crate::broker::Broker;
use crate::net::connection::{Connection, Serves};

/// The smallest frame that can hold a request header: key, version, correlation id, null client id.
pub const FRAME_BYTES_MIN: i32 = 10;

/// Frames up to this size may come with any key.
pub const FRAME_BYTES_COMMON: usize = 512 * 1024;

/// Most bytes of a request that carries no records: names and numbers of some 100,000 partitions.
const FRAME_BYTES_NAMES: usize = 6 * 1024 * 1024;

/// Most bytes that a frame with this key may have, given that `size` is within `socket.request.max.bytes`.
pub fn frame_bytes_max(key: i16, size: usize) -> usize {
    use ApiKey::*;
    match ApiKey::from_i16(key) {
        // Records, or what brokers send each other.
        Some(Produce) => size,
        None => FRAME_BYTES_COMMON,
        Some(KlammQuorum) => ::klamm_quorum::MESSAGE_BYTES_MAX,
        Some(_) if key >= ApiKey::PRIVATE_MIN => size,
        // Nothing in them grows with the cluster.
        Some(ApiVersions | SaslHandshake | SaslAuthenticate | InitProducerId | EndTxn | Heartbeat) => {
            FRAME_BYTES_COMMON
        }
        Some(_) => FRAME_BYTES_NAMES,
    }
}

/// What a byte of a large frame costs while its request is handled: records stay where they are, names and numbers are
/// decoded besides.
pub fn memory_per_byte(key: i16) -> usize {
    if key == ApiKey::Produce as i16 { 1 } else { 1 + DECODED_PER_BYTE }
}

/// Bytes that decoding may take for each byte of a large frame.
const DECODED_PER_BYTE: usize = 4;

/// Most memory that decoding a frame of `size` bytes may take beyond the frame. Small requests get plenty; in a large
/// one names and numbers take a few times their bytes, and only a hostile one is made of nothing but empty fields.
fn decoding_bytes_max(size: usize) -> usize {
    const GENEROUS: usize = 64 * 1024;
    GENEROUS + 32 * size.min(GENEROUS) + DECODED_PER_BYTE * size.saturating_sub(GENEROUS)
}

/// One row of THE table.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// The key.
    pub key: ApiKey,
    /// Lowest version served.
    pub min: i16,
    /// Highest version served.
    pub max: i16,
    /// Lowest version that ApiVersions names. Only Produce differs from `min`: librdkafka turns
    /// compression off unless version 0 is named (KAFKA-18659).
    pub advertised_min: i16,
    /// What it leaves out, for the docs; empty when nothing.
    pub gaps: &'static str,
    /// Who may ask.
    pub scope: Scope,
    /// Whether only the active controller can answer; any other broker hands the request on to it.
    pub by_controller: bool,
}

/// Who may send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Anyone, on the listeners on which Kafka serves the key. Only these are advertised.
    Anyone,
    /// Brokers among themselves, on the listener of the quorum.
    Nodes,
    /// A broker of the controller, inside of KlammForward.
    Forwarded,
}

impl Api {
    /// Whether the key is served to those who come over a listener that serves `what`.
    pub fn is_on(&self, what: Serves) -> bool {
        match self.scope {
            Scope::Anyone => (what.clients && self.key.on_broker()) || (what.quorum && self.key.on_controller()),
            Scope::Nodes => what.quorum,
            Scope::Forwarded => false,
        }
    }
}

/// Why a request gets no answer and its connection ends.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The key is unknown or not served.
    #[error("API key {0} is not served")]
    UnknownKey(i16),
    /// The version is not served.
    #[error("{name} version {version} is not served")]
    UnsupportedVersion {
        /// The API's name.
        name: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// The body is not what the key and version say.
    #[error("malformed request: {0}")]
    Decode(#[from] DecodeError),
    /// The answer cannot be written in this version: a defect of ours.
    #[error("answer cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// A produce with acks=0 failed; closing is the only way to say so.
    #[error("produce with acks=0 failed: {}", .0.name())]
    Unacknowledged(ErrorCode),
}

/// What a handler knows of the request besides its body.
#[derive(Debug)]
pub struct Context<'a> {
    /// The broker.
    pub broker: &'a Arc<Broker>,
    /// The connection.
    pub connection: &'a Connection,
    /// Version of the request, inside the table's range.
    pub version: i16,
    /// The client's name for itself; empty when null.
    pub client_id: &'a str,
}

impl Context<'_> {
    /// Whether the peer may act as a broker: fetch as a replica, or reach what brokers ask of each other.
    /// It came over the listener that brokers use among themselves.
    pub fn may_replicate(&self) -> bool {
        *self.connection.listener == *self.broker.config.inter_broker_listener
    }
}

macro_rules! table {
    ($( $key:ident $min:literal ..= $max:literal $(from $adv:literal)? $(by $by:ident)? $(for $scope:ident)? => $module:ident, $request:ident $(, $gaps:literal)? ; )*) => {
        $( pub mod $module; )*

        /// THE table, in the order of the keys.
        pub const TABLE: &[Api] = &[
            $( Api {
                key: ApiKey::$key,
                min: $min,
                max: $max,
                advertised_min: table!(@adv $min $($adv)?),
                gaps: table!(@gaps $($gaps)?),
                scope: table!(@scope $($scope)?),
 by_controller: table!(@by $($by)?),
            }, )*
        ];

        async fn dispatch(cx: &Context<'_>, key: ApiKey, correlation_id: i32, reader: Reader) -> Result<Option<Encoded>, Refusal> {
            match key {
                // Boxed: the task of an idle connection then holds no room for its largest handler.
                $( ApiKey::$key => Box::pin(run::<$request, _, _>(cx, correlation_id, reader, $module::handle)).await, )*
                _ => Err(Refusal::UnknownKey(key as i16)),
            }
        }
    };
    (@adv $min:literal) => { $min };
    (@adv $min:literal $adv:literal) => { $adv };
    (@scope) => { Scope::Anyone };
    (@scope $scope:ident) => { Scope::$scope };
    (@by) => { false };
    (@by controller) => { true };
    (@gaps) => { "" };
    (@gaps $gaps:literal) => { $gaps };
}

pub mod error;

table! {
    Produce 3..=13 from 0 => produce, ProduceRequest, "transactions";
    Fetch 4..=18 => fetch, FetchRequest;
    ListOffsets 1..=11 => list_offsets, ListOffsetsRequest;
    Metadata 0..=13 => metadata, MetadataRequest;
    OffsetCommit 2..=10 => offset_commit, OffsetCommitRequest;
    OffsetFetch 1..=10 => offset_fetch, OffsetFetchRequest;
    FindCoordinator 0..=6 => find_coordinator, FindCoordinatorRequest, "transaction and share coordinators";
    JoinGroup 0..=9 => join_group, JoinGroupRequest;
    Heartbeat 0..=4 => heartbeat, HeartbeatRequest;
    LeaveGroup 0..=5 => leave_group, LeaveGroupRequest;
    SyncGroup 0..=5 => sync_group, SyncGroupRequest;
    DescribeGroups 0..=6 => describe_groups, DescribeGroupsRequest;
    ListGroups 0..=5 => list_groups, ListGroupsRequest;
    ApiVersions 0..=5 => api_versions, ApiVersionsRequest;
    CreateTopics 2..=7 by controller => create_topics, CreateTopicsRequest;
    DeleteTopics 1..=6 by controller => delete_topics, DeleteTopicsRequest;
    DeleteRecords 0..=2 => delete_records, DeleteRecordsRequest;
    InitProducerId 0..=5 => init_producer_id, InitProducerIdRequest, "transactional ids";
    OffsetForLeaderEpoch 2..=4 => offset_for_leader_epoch, OffsetForLeaderEpochRequest;
    DescribeConfigs 1..=4 => describe_configs, DescribeConfigsRequest;
    AlterConfigs 0..=2 by controller => alter_configs, AlterConfigsRequest;
    AlterReplicaLogDirs 1..=2 => alter_replica_log_dirs, AlterReplicaLogDirsRequest, "a second log directory";
    DescribeLogDirs 1..=5 => describe_log_dirs, DescribeLogDirsRequest;
    CreatePartitions 0..=3 by controller => create_partitions, CreatePartitionsRequest;
    DeleteGroups 0..=3 => delete_groups, DeleteGroupsRequest;
    ElectLeaders 0..=2 by controller => elect_leaders, ElectLeadersRequest;
    IncrementalAlterConfigs 0..=1 by controller => incremental_alter_configs, IncrementalAlterConfigsRequest;
    AlterPartitionReassignments 0..=1 by controller => alter_partition_reassignments, AlterPartitionReassignmentsRequest;
    ListPartitionReassignments 0..=0 => list_partition_reassignments, ListPartitionReassignmentsRequest;
    OffsetDelete 0..=0 => offset_delete, OffsetDeleteRequest;
    DescribeQuorum 0..=2 by controller => describe_quorum, DescribeQuorumRequest;
    DescribeCluster 0..=2 => describe_cluster, DescribeClusterRequest;
    UnregisterBroker 0..=0 by controller => unregister_broker, UnregisterBrokerRequest;
    DescribeTopicPartitions 0..=0 => describe_topic_partitions, DescribeTopicPartitionsRequest;
    AddRaftVoter 0..=1 by controller => add_raft_voter, AddRaftVoterRequest;
    RemoveRaftVoter 0..=0 by controller => remove_raft_voter, RemoveRaftVoterRequest;
    AlterPartition 2..=3 by controller for Forwarded => alter_partition, AlterPartitionRequest;
    BrokerRegistration 0..=4 by controller for Forwarded => broker_registration, BrokerRegistrationRequest;
    BrokerHeartbeat 0..=2 by controller for Forwarded => broker_heartbeat, BrokerHeartbeatRequest;
    AllocateProducerIds 0..=0 by controller for Forwarded => allocate_producer_ids, AllocateProducerIdsRequest;
    AssignReplicasToDirs 0..=0 by controller for Forwarded => assign_replicas_to_dirs, AssignReplicasToDirsRequest;
    KlammQuorum 0..=0 for Nodes => klamm_quorum, KlammQuorumRequest;
    KlammForward 0..=0 for Nodes => klamm_forward, KlammForwardRequest;
}

/// The table's row for `key`, if it is served.
pub fn row(key: ApiKey) -> Option<&'static Api> {
    const NONE: u8 = u8::MAX;
    const ROWS: [u8; ApiKey::ALL.len()] = {
        let mut rows = [NONE; ApiKey::ALL.len()];
        let mut i = 0;
        while i < TABLE.len() {
            rows[TABLE[i].key.index()] = i as u8;
            i += 1;
        }
        rows
    };
    ROWS.get(key.index()).filter(|i| **i != NONE).and_then(|i| TABLE.get(usize::from(*i)))
}

/// Answers one request frame (without its size prefix); `None` when it wants no answer.
///
/// # Errors
/// The connection must end, and why.
pub async fn handle(broker: &Arc<Broker>, connection: &Connection, frame: Bytes) -> Result<Option<Encoded>, Refusal> {
    answer(broker, connection, frame, false).await
}

/// As [`handle`], for a request that has been handed to this broker as the controller.
///
/// # Errors
/// The request cannot be answered, and why.
pub async fn handle_as_controller(
    broker: &Arc<Broker>,
    connection: &Connection,
    frame: Bytes,
) -> Result<Option<Encoded>, Refusal> {
    answer(broker, connection, frame, true).await
}

async fn answer(
    broker: &Arc<Broker>,
    connection: &Connection,
    frame: Bytes,
    forwarded: bool,
) -> Result<Option<Encoded>, Refusal> {
    let started = Instant::now();
    let budget = decoding_bytes_max(frame.len());
    // Kept only where it may have to be handed on: a kept frame keeps the connection's buffer.
    let whole = frame.first_chunk::<2>().and_then(|key| ApiKey::from_i16(i16::from_be_bytes(*key))).and_then(row);
    let whole = whole.filter(|row| row.by_controller && !forwarded).map(|_| frame.clone());
    let mut reader = Reader::with_budget(frame, budget);
    let header = RequestHeader::decode(&mut reader)?;
    let (raw_key, version) = (header.api_key, header.api_version);
    let key = ApiKey::from_i16(raw_key).ok_or(Refusal::UnknownKey(raw_key))?;
    let served = |row: &&Api| if forwarded { row.by_controller } else { row.is_on(connection.serves) };
    let row = row(key).filter(served).ok_or(Refusal::UnknownKey(raw_key))?;
    let supported = (row.min..=row.max).contains(&version);
    if !supported && key != ApiKey::ApiVersions {
        return Err(Refusal::UnsupportedVersion { name: key.name(), version });
    }
    if !supported {
        return Ok(Some(api_versions::unsupported(header.correlation_id)?));
    }
    if !broker.is_open() && row.scope == Scope::Anyone && !forwarded && key != ApiKey::ApiVersions {
        broker.opened().await;
    }
    // Without a controller the handler says so in the way of its own response.
    if let Some(whole) = whole.filter(|_| !broker.controller.is_active())
        && let Ok(answer) = Box::pin(broker.forwarder.send(broker, whole)).await
    {
        broker.metrics.request(key, version, started.elapsed());
        return Ok(Some(Encoded::from(answer)));
    }
    let client_id = header.client_id.as_deref().unwrap_or_default();
    let cx = Context { broker, connection, version, client_id };
    let answer = dispatch(&cx, key, header.correlation_id, reader).await;
    broker.metrics.request(key, version, started.elapsed());
    answer
}

/// Decodes a request, handles it, and encodes the answer.
async fn run<'a, R, A, F>(
    cx: &'a Context<'a>,
    correlation_id: i32,
    mut reader: Reader,
    handler: F,
) -> Result<Option<Encoded>, Refusal>
where
    R: Request,
    A: Into<Option<R::Response>>,
    F: AsyncFnOnce(&'a Context<'a>, R) -> Result<A, Refusal>,
{
    let request = R::decode(&mut reader, cx.version)?;
    drop(reader);
    let Some(response) = handler(cx, request).await?.into() else { return Ok(None) };
    let header_version = R::KEY.response_header_version(cx.version);
    Ok(Some(frame::encode_response(header_version, correlation_id, &response, cx.version)?))
}

#[cfg(test)]
mod docs_test;
