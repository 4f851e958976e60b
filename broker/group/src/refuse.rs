//! Answers that are an error as a whole, in the shape each version has: for the coordinator itself, and for the broker
//! when a group's coordinator is elsewhere, still loading, or not for this principal.

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::delete_groups_response::DeletableGroupResult;
use klamm_protocol::messages::describe_groups_response::DescribedGroup;
use klamm_protocol::messages::leave_group_response::MemberResponse;
use klamm_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use klamm_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use klamm_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use klamm_protocol::messages::{
    HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteResponse, SyncGroupResponse,
};

/// The protocol name of a JoinGroup answer: null for "none" from version 7 on, empty before.
pub(crate) fn protocol_name(name: Option<String>, version: i16) -> Option<String> {
    if version >= 7 { name.filter(|n| !n.is_empty()) } else { Some(name.unwrap_or_default()) }
}

pub(crate) fn joining(version: i16, member_id: &str, code: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: code.code(),
        member_id: member_id.to_owned(),
        protocol_name: protocol_name(None, version),
        ..Default::default()
    }
}

pub(crate) fn syncing(code: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse { error_code: code.code(), ..Default::default() }
}

/// A refused JoinGroup.
pub fn join_group(request: &JoinGroupRequest, version: i16, code: ErrorCode) -> JoinGroupResponse {
    joining(version, &request.member_id, code)
}

/// A refused SyncGroup.
pub fn sync_group(code: ErrorCode) -> SyncGroupResponse {
    syncing(code)
}

/// A refused Heartbeat. While the coordinator loads, a heartbeat is accepted blindly: the member could do nothing.
pub fn heartbeat(code: ErrorCode) -> HeartbeatResponse {
    let code = if code == ErrorCode::CoordinatorLoadInProgress { ErrorCode::None } else { code };
    HeartbeatResponse { error_code: code.code(), ..Default::default() }
}

/// A refused LeaveGroup.
pub fn leave_group(code: ErrorCode) -> LeaveGroupResponse {
    LeaveGroupResponse { error_code: code.code(), ..Default::default() }
}

/// The answer to members of a group that does not exist.
pub(crate) fn leave_unknown(request: &LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    let code = ErrorCode::UnknownMemberId;
    if version < 3 {
        return leave_group(code);
    }
    let members = request.members.iter().map(|m| MemberResponse {
        member_id: m.member_id.clone(),
        group_instance_id: m.group_instance_id.clone(),
        error_code: code.code(),
    });
    LeaveGroupResponse { members: members.collect(), ..Default::default() }
}

/// A refused OffsetCommit: the error stands with every partition.
pub fn offset_commit(request: &OffsetCommitRequest, code: ErrorCode) -> OffsetCommitResponse {
    let topics = request.topics.iter().map(|t| OffsetCommitResponseTopic {
        name: t.name.clone(),
        topic_id: t.topic_id,
        partitions: t
            .partitions
            .iter()
            .map(|p| OffsetCommitResponsePartition { partition_index: p.partition_index, error_code: code.code() })
            .collect(),
    });
    OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}

/// A refused group of an OffsetFetch. Version 1 has no place for it but the partitions.
pub fn offset_fetch(group: &OffsetFetchRequestGroup, version: i16, code: ErrorCode) -> OffsetFetchResponseGroup {
    let mut response = OffsetFetchResponseGroup { group_id: group.group_id.clone(), ..Default::default() };
    if version >= 2 {
        response.error_code = code.code();
        return response;
    }
    response.topics = group
        .topics
        .iter()
        .flatten()
        .map(|t| OffsetFetchResponseTopics {
            name: t.name.clone(),
            topic_id: t.topic_id,
            partitions: t.partition_indexes.iter().map(|&p| offset_fetch_partition(p, code)).collect(),
        })
        .collect();
    response
}

/// A partition of an OffsetFetch without an offset.
pub(crate) fn offset_fetch_partition(partition_index: i32, code: ErrorCode) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(String::new()),
        error_code: code.code(),
    }
}

/// A refused OffsetDelete.
pub fn offset_delete(code: ErrorCode) -> OffsetDeleteResponse {
    OffsetDeleteResponse { error_code: code.code(), ..Default::default() }
}

/// A refused group of a DescribeGroups.
pub fn describe_group(group_id: &str, code: ErrorCode) -> DescribedGroup {
    DescribedGroup { group_id: group_id.to_owned(), error_code: code.code(), ..Default::default() }
}

/// A refused group of a DeleteGroups.
pub fn delete_group(group_id: &str, code: ErrorCode) -> DeletableGroupResult {
    DeletableGroupResult { group_id: group_id.to_owned(), error_code: code.code(), ..Default::default() }
}
