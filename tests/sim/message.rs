//! What travels between brokers, the controller and clients in the simulation.

use std::sync::Arc;

use bytes::Bytes;
use klamm::replica::follower::Position;
use klamm::replica::partition::Acks;
use klamm_metadata::Image;
use klamm_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, AssignReplicasToDirsRequest, BrokerHeartbeatRequest,
    BrokerHeartbeatResponse, BrokerRegistrationRequest, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use klamm_protocol::{ErrorCode, Uuid};

/// A topic's id and a partition's number.
pub type Key = (Uuid, i32);

/// A process, by its boot, and a moment of it.
pub type Stamp = (u32, u64);

/// Who sends and who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Node(i32),
    Client(usize),
}

/// A question, named so that its answer can be told apart, or an answer.
#[derive(Clone, Debug)]
pub enum Message {
    Ask(u64, Ask),
    Answer(u64, Answer),
}

#[derive(Clone, Debug)]
pub enum Ask {
    /// A follower's fetch: its registration, where each partition is, under which leader epoch, and the stamp of the answer
    /// before, as the connection would tell.
    Fetch(i64, Vec<(Key, i32, Position)>, Stamp),
    Control(Control),
    Produce(Key, Bytes, Acks),
    /// A consumer's fetch from an offset, under the leader epoch it believes in.
    Read(Key, i32, i64),
    /// The published image.
    Metadata,
    Group(GroupAsk),
    /// Deletes the records below an offset.
    Delete(Key, i64),
}

/// Questions for the group's coordinator.
#[derive(Clone, Debug)]
pub enum GroupAsk {
    /// For this group, as this member of this generation, an offset.
    Commit(&'static str, String, i32, i64),
    /// The offset that the group without members has committed.
    Committed,
    Join(JoinGroupRequest),
    Sync(SyncGroupRequest),
    Beat(HeartbeatRequest),
}

/// Questions for the controller.
#[derive(Clone, Debug)]
pub enum Control {
    Register(BrokerRegistrationRequest),
    Heartbeat(BrokerHeartbeatRequest),
    AlterPartition(AlterPartitionRequest),
    AssignDirs(AssignReplicasToDirsRequest),
}

#[derive(Clone, Debug)]
pub enum Answer {
    Fetch(Stamp, Result<Vec<Part>, ErrorCode>),
    Register(Result<i64, ErrorCode>),
    Heartbeat(Result<BrokerHeartbeatResponse, ErrorCode>),
    AlterPartition(AlterPartitionResponse),
    /// It was not committed, or nobody knows: ask the controller that there is now.
    NotController,
    /// The base offset.
    Produced(Result<i64, ErrorCode>),
    Read(Result<Bytes, ErrorCode>),
    Metadata(Option<Arc<Image>>),
    Group(Result<i64, ErrorCode>),
    Joined(JoinGroupResponse),
    Synced(SyncGroupResponse),
    Deleted(Result<i64, ErrorCode>),
}

/// One partition's part of the answer to a follower.
#[derive(Clone, Debug)]
pub struct Part {
    pub key: Key,
    pub epoch: i32,
    pub asked: Position,
    pub code: ErrorCode,
    pub diverging: Option<(i32, i64)>,
    pub records: Bytes,
    pub high_watermark: i64,
    pub log_start: i64,
}

impl Message {
    /// A word for the trace.
    pub fn name(&self) -> String {
        match self {
            Message::Ask(id, Ask::Fetch(epoch, parts, _)) => {
                let at: Vec<_> =
                    parts.iter().map(|(key, epoch, p)| format!("{}@{} e{epoch}", key.1, p.fetch_offset)).collect();
                format!("#{id} fetch b{epoch} {}", at.join(","))
            }
            Message::Ask(id, Ask::Control(Control::Register(r))) => {
                format!("#{id} register, before: {}", r.previous_broker_epoch)
            }
            Message::Ask(id, Ask::Control(Control::Heartbeat(r))) => {
                format!(
                    "#{id} heartbeat b{} at {}{}",
                    r.broker_epoch,
                    r.current_metadata_offset,
                    if r.want_shut_down { ", leaving" } else { "" }
                )
            }
            Message::Ask(id, Ask::Control(Control::AlterPartition(r))) => {
                let partitions = r.topics.iter().flat_map(|t| &t.partitions);
                let isr = |p: &klamm_protocol::messages::alter_partition_request::PartitionData| {
                    let ids: Vec<_> = p.new_isr_with_epochs.iter().map(|m| m.broker_id).collect();
                    format!("{} e{} v{} {ids:?}", p.partition_index, p.leader_epoch, p.partition_epoch)
                };
                format!("#{id} isr {}", partitions.map(isr).collect::<Vec<_>>().join(", "))
            }
            Message::Ask(id, Ask::Control(Control::AssignDirs(_))) => format!("#{id} damaged"),
            Message::Ask(id, Ask::Produce(key, batch, acks)) => {
                format!("#{id} produce {} {} bytes {acks:?}", key.1, batch.len())
            }
            Message::Ask(id, Ask::Read(key, epoch, offset)) => format!("#{id} read {}@{offset} e{epoch}", key.1),
            Message::Ask(id, Ask::Metadata) => format!("#{id} metadata"),
            Message::Ask(id, Ask::Group(GroupAsk::Commit(group, _, generation, offset))) => {
                format!("#{id} commit {offset} of {group} g{generation}")
            }
            Message::Ask(id, Ask::Group(GroupAsk::Committed)) => format!("#{id} committed?"),
            Message::Ask(id, Ask::Group(GroupAsk::Join(r))) => format!("#{id} join {:?}", r.member_id),
            Message::Ask(id, Ask::Group(GroupAsk::Sync(r))) => format!("#{id} sync g{}", r.generation_id),
            Message::Ask(id, Ask::Group(GroupAsk::Beat(r))) => format!("#{id} beat g{}", r.generation_id),
            Message::Ask(id, Ask::Delete(key, to)) => format!("#{id} delete {} to {to}", key.1),
            Message::Answer(id, Answer::Fetch(_, Ok(parts))) => {
                let part = |p: &Part| match (p.code, p.diverging) {
                    (ErrorCode::None, None) => format!("{} {} bytes hw{}", p.key.1, p.records.len(), p.high_watermark),
                    (ErrorCode::None, Some((epoch, end))) => format!("{} diverges e{epoch} ends {end}", p.key.1),
                    (code, _) => format!("{} {}", p.key.1, code.name()),
                };
                format!("#{id} fetched {}", parts.iter().map(part).collect::<Vec<_>>().join(", "))
            }
            Message::Answer(id, Answer::Joined(r)) => {
                format!(
                    "#{id} joined {} g{} leads={}",
                    ErrorCode::from_code(r.error_code).name(),
                    r.generation_id,
                    r.leader == r.member_id
                )
            }
            Message::Answer(id, Answer::Synced(r)) => {
                format!("#{id} synced {} {:?}", ErrorCode::from_code(r.error_code).name(), &r.assignment[..])
            }
            Message::Answer(id, Answer::Read(Ok(bytes))) => format!("#{id} {} bytes", bytes.len()),
            Message::Answer(id, Answer::Metadata(image)) => format!("#{id} metadata {}", image.is_some()),
            Message::Answer(id, Answer::AlterPartition(r)) => {
                let each = r.topics.iter().flat_map(|t| &t.partitions);
                let each = each.map(|p| {
                    format!(
                        "{} {} {:?} v{}",
                        p.partition_index,
                        ErrorCode::from_code(p.error_code).name(),
                        p.isr,
                        p.partition_epoch
                    )
                });
                format!(
                    "#{id} isr {} {}",
                    ErrorCode::from_code(r.error_code).name(),
                    each.collect::<Vec<_>>().join(", ")
                )
            }
            Message::Answer(id, Answer::Heartbeat(Ok(r))) => {
                format!("#{id} heartbeat fenced={} stop={}", r.is_fenced, r.should_shut_down)
            }
            Message::Answer(id, answer) => format!("#{id} {answer:?}"),
        }
    }
}
