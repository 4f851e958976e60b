//! What a call gives back: records to append, and what happens once they are appended or could not be.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::delete_groups_response::DeletableGroupResult;
use klamm_protocol::messages::{
    JoinGroupResponse, LeaveGroupResponse, OffsetCommitResponse, OffsetDeleteResponse, SyncGroupResponse,
};

use crate::classic::Group;
use crate::offsets::OffsetEntry;

/// Names a waiting request. Chosen by the caller; each ticket handed in is answered exactly once.
pub type Ticket = u64;

/// One record for `__consumer_offsets`; no value is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorRecord {
    /// Key, with its two-byte type.
    pub key: Bytes,
    /// Value, with its two-byte version.
    pub value: Option<Bytes>,
}

/// The answer to a request that came with a ticket.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To JoinGroup.
    JoinGroup(JoinGroupResponse),
    /// To SyncGroup.
    SyncGroup(SyncGroupResponse),
    /// To LeaveGroup.
    LeaveGroup(LeaveGroupResponse),
    /// To OffsetCommit.
    OffsetCommit(OffsetCommitResponse),
    /// To OffsetDelete.
    OffsetDelete(OffsetDeleteResponse),
    /// To DeleteGroups, for the groups of this coordinator.
    DeleteGroups(Vec<DeletableGroupResult>),
}

/// What follows from a call. Append [`Step::records`], then hand the step to [`commit`](crate::Coordinator::commit)
/// or [`fail`](crate::Coordinator::fail). A step without records has nothing to append and is committed at once.
#[derive(Debug, Default)]
#[must_use = "append its records, then commit or fail it"]
pub struct Step {
    /// To append, in this order. They may be split over several batches.
    pub records: Vec<CoordinatorRecord>,
    pub(crate) answers: Vec<(Ticket, Answer)>,
    /// The request that asked for the records: the one whose answer turns into an error when they cannot be appended.
    pub(crate) owner: Option<Ticket>,
    pub(crate) effects: Vec<Effect>,
}

/// What becomes of the state when the records are in the log.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A group appeared with this step.
    Created(Arc<str>),
    /// A group lost its last member; memory already knows.
    Emptied(Arc<str>),
    /// The leader's assignment.
    Assigned { group: Arc<str>, generation: i32, assignments: BTreeMap<String, Bytes> },
    /// A group as it is once a static member came back under a new member id.
    Replaced { group: Box<Group>, answers: Vec<(Ticket, Answer)>, failed: Box<(Ticket, JoinGroupResponse)> },
    /// Committed offsets.
    Committed { group: Arc<str>, offsets: Vec<(Arc<str>, i32, OffsetEntry)> },
    /// Offsets that are gone.
    Forgotten { group: Arc<str>, offsets: Vec<(Arc<str>, i32)>, loss: Loss },
    /// A group that is gone.
    Removed(Arc<str>),
}

/// Why offsets are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// By request.
    Deleted,
    /// They lapsed.
    Expired,
    /// Their topic was deleted.
    Topic,
}

impl Step {
    pub(crate) fn of(ticket: Ticket) -> Self {
        Self { owner: Some(ticket), ..Self::default() }
    }

    pub(crate) fn answered(ticket: Ticket, answer: Answer) -> Self {
        Self { answers: vec![(ticket, answer)], owner: Some(ticket), ..Self::default() }
    }

    pub(crate) fn join(&mut self, ticket: Ticket, response: JoinGroupResponse) {
        self.answers.push((ticket, Answer::JoinGroup(response)));
    }

    pub(crate) fn sync(&mut self, ticket: Ticket, response: SyncGroupResponse) {
        self.answers.push((ticket, Answer::SyncGroup(response)));
    }

    /// True when there is neither anything to append nor anything to answer.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.answers.is_empty() && self.effects.is_empty()
    }
}

impl Answer {
    /// The same answer when its records could not be appended. What already was an error stays.
    pub(crate) fn failed(self, code: ErrorCode) -> Self {
        let code = code.code();
        let or = |old: i16| if old == 0 { code } else { old };
        match self {
            Self::JoinGroup(r) if r.error_code != 0 && r.error_code != ErrorCode::MemberIdRequired.code() => {
                Self::JoinGroup(r)
            }
            Self::JoinGroup(r) => Self::JoinGroup(JoinGroupResponse {
                error_code: code,
                generation_id: -1,
                protocol_type: None,
                protocol_name: r.protocol_name.map(|_| String::new()),
                leader: String::new(),
                skip_assignment: false,
                members: Vec::new(),
                ..r
            }),
            Self::SyncGroup(r) => Self::SyncGroup(SyncGroupResponse {
                error_code: or(r.error_code),
                assignment: Bytes::new(),
                protocol_type: None,
                protocol_name: None,
                ..r
            }),
            Self::LeaveGroup(r) => {
                Self::LeaveGroup(LeaveGroupResponse { error_code: or(r.error_code), members: Vec::new(), ..r })
            }
            Self::OffsetCommit(mut r) => {
                for partition in r.topics.iter_mut().flat_map(|t| &mut t.partitions) {
                    partition.error_code = or(partition.error_code);
                }
                Self::OffsetCommit(r)
            }
            Self::OffsetDelete(r) => {
                Self::OffsetDelete(OffsetDeleteResponse { error_code: or(r.error_code), topics: Vec::new(), ..r })
            }
            Self::DeleteGroups(mut results) => {
                for result in results.iter_mut().filter(|r| r.error_code == 0) {
                    result.error_code = code;
                }
                Self::DeleteGroups(results)
            }
        }
    }
}

/// What a client is told when an append fails: the coordinator's own words for the log's errors, as Kafka maps them.
pub(crate) fn append_error(code: ErrorCode) -> ErrorCode {
    use ErrorCode::*;
    match code {
        UnknownTopicOrPartition | NotEnoughReplicas | NotEnoughReplicasAfterAppend | RequestTimedOut => {
            CoordinatorNotAvailable
        }
        NotLeaderOrFollower | KafkaStorageError => NotCoordinator,
        MessageTooLarge | RecordListTooLarge | InvalidFetchSize => UnknownServerError,
        None => UnknownServerError,
        other => other,
    }
}
