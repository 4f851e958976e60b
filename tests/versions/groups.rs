//! The keys of consumer groups.

use bytes::Bytes;
use klamm_protocol::Uuid;
use klamm_protocol::messages::*;
use klamm_tests::{eventually, unique};

use crate::ask::{Topic, ask, call, topic};

const ILLEGAL_GENERATION: i16 = 22;
const INVALID_GROUP_ID: i16 = 24;
const UNKNOWN_MEMBER_ID: i16 = 25;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;
const MEMBER_ID_REQUIRED: i16 = 79;

/// Every coordinator is up: the first questions about groups may come too early.
fn coordinator() {
    // Enough names to meet each of the few partitions of the offsets topic.
    for group in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        eventually("the coordinator is there", 30, || {
            let request = FindCoordinatorRequest { key: group.into(), ..Default::default() };
            let found = call(&request, 3).error_code == 0;
            let request = HeartbeatRequest { group_id: group.into(), member_id: "m".into(), ..Default::default() };
            (found && ![14, 15, 16].contains(&call(&request, 3).error_code)).then_some(())
        });
    }
}

#[test]
fn find_coordinator() {
    let request = |version: i16| match version {
        0..4 => FindCoordinatorRequest { key: "g".into(), ..Default::default() },
        _ => FindCoordinatorRequest { coordinator_keys: vec!["g".into(), "h".into()], ..Default::default() },
    };
    coordinator();
    ask("a group's", &[0], request, |r: &FindCoordinatorResponse| {
        let many = r.coordinators.iter().map(|c| c.error_code);
        many.chain([r.error_code]).collect()
    });
}

fn join(group: &str, member: &str) -> JoinGroupRequest {
    use join_group_request::JoinGroupRequestProtocol;
    let protocol = JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(b"meta") };
    JoinGroupRequest {
        group_id: group.into(),
        member_id: member.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..Default::default()
    }
}

/// A group of one member, synced; gives member id and generation.
fn stable(group: &str) -> (String, i32) {
    use sync_group_request::SyncGroupRequestAssignment;
    coordinator();
    let joined = call(&join(group, ""), 3);
    assert_eq!(joined.error_code, 0, "{joined:?}");
    let assignment =
        SyncGroupRequestAssignment { member_id: joined.member_id.clone(), assignment: Bytes::from_static(b"mine") };
    let request = SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: vec![assignment],
        ..Default::default()
    };
    let synced = call(&request, 3);
    assert_eq!(synced.error_code, 0, "{synced:?}");
    (joined.member_id, joined.generation_id)
}

#[test]
fn join_group() {
    coordinator();
    let joined = |r: &JoinGroupResponse| vec![r.error_code];
    // From version 4 on the first answer only gives the member its id.
    ask("a new member", &[0, MEMBER_ID_REQUIRED], |v| join(&unique(&format!("join-{v}")), ""), joined);
    ask("no group id", &[INVALID_GROUP_ID], |_| join("", ""), joined);
    ask("an unknown member", &[UNKNOWN_MEMBER_ID], |_| join(&unique("join-x"), "nobody"), joined);
}

#[test]
fn sync_group() {
    let group = unique("sync");
    let (member, generation) = stable(&group);
    let request = |member: &str, version: i16| SyncGroupRequest {
        group_id: group.clone(),
        generation_id: generation,
        member_id: member.into(),
        protocol_type: (version >= 5).then(|| "consumer".into()),
        protocol_name: (version >= 5).then(|| "range".into()),
        ..Default::default()
    };
    ask(
        "again",
        &[0],
        |v| request(&member, v),
        |r: &SyncGroupResponse| {
            assert_eq!(r.assignment, Bytes::from_static(b"mine"));
            vec![r.error_code]
        },
    );
    ask("a stranger", &[UNKNOWN_MEMBER_ID], |v| request("nobody", v), |r: &SyncGroupResponse| vec![r.error_code]);
}

#[test]
fn heartbeat() {
    let group = unique("beat");
    let (member, generation) = stable(&group);
    let request = |member: &str, generation: i32| HeartbeatRequest {
        group_id: group.clone(),
        member_id: member.into(),
        generation_id: generation,
        ..Default::default()
    };
    let codes = |r: &HeartbeatResponse| vec![r.error_code];
    ask("a member", &[0], |_| request(&member, generation), codes);
    ask("a stranger", &[UNKNOWN_MEMBER_ID], |_| request("nobody", generation), codes);
    ask("an old generation", &[ILLEGAL_GENERATION], |_| request(&member, generation + 5), codes);
}

#[test]
fn leave_group() {
    use leave_group_request::MemberIdentity;
    coordinator();
    let request = |group: &str, member: &str, version: i16| {
        let many = version >= 3;
        let identity = MemberIdentity { member_id: member.into(), ..Default::default() };
        LeaveGroupRequest {
            group_id: group.into(),
            member_id: if many { String::new() } else { member.into() },
            members: if many { vec![identity] } else { Vec::new() },
        }
    };
    let codes = |r: &LeaveGroupResponse| r.members.iter().map(|m| m.error_code).chain([r.error_code]).collect();
    ask(
        "a member",
        &[0],
        |v| {
            let group = unique("leave");
            let (member, _) = stable(&group);
            request(&group, &member, v)
        },
        codes,
    );
    let group = unique("leave-x");
    stable(&group);
    ask("a stranger", &[0, UNKNOWN_MEMBER_ID], |v| request(&group, "nobody", v), codes);
}

fn commit_to(topic: &Topic, group: &str, offset: i64, version: i16) -> OffsetCommitRequest {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let partition = OffsetCommitRequestPartition { partition_index: 0, committed_offset: offset, ..Default::default() };
    let by_id = version >= 10;
    let topic = OffsetCommitRequestTopic {
        name: if by_id { String::new() } else { topic.name.clone() },
        topic_id: if by_id { topic.id } else { Uuid::ZERO },
        partitions: vec![partition],
    };
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

fn fetch_of(topic: &Topic, group: &str, version: i16) -> OffsetFetchRequest {
    use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};
    if version < 8 {
        let topic = OffsetFetchRequestTopic { name: topic.name.clone(), partition_indexes: vec![0, 1] };
        return OffsetFetchRequest { group_id: group.into(), topics: Some(vec![topic]), ..Default::default() };
    }
    let by_id = version >= 10;
    let topic = OffsetFetchRequestTopics {
        name: if by_id { String::new() } else { topic.name.clone() },
        topic_id: if by_id { topic.id } else { Uuid::ZERO },
        partition_indexes: vec![0, 1],
    };
    let group = OffsetFetchRequestGroup { group_id: group.into(), topics: Some(vec![topic]), ..Default::default() };
    OffsetFetchRequest { groups: vec![group], ..Default::default() }
}

#[test]
fn offsets_are_committed_and_fetched() {
    coordinator();
    let (topic, group) = (topic("offsets"), unique("offsets-g"));
    let committed = |r: &OffsetCommitResponse| vec![r.topics[0].partitions[0].error_code];
    ask("a simple group", &[0], |v| commit_to(&topic, &group, 42, v), committed);
    let stranger = |v: i16| OffsetCommitRequest {
        member_id: "nobody".into(),
        generation_id_or_member_epoch: 3,
        ..commit_to(&topic, &unique("offsets-x"), 1, v)
    };
    let refused = [ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, GROUP_ID_NOT_FOUND];
    ask("a stranger", &refused, stranger, committed);
    let fetched = |expected: i64| {
        move |r: &OffsetFetchResponse| {
            let old = r.topics.iter().flat_map(|t| &t.partitions).map(|p| (p.committed_offset, p.error_code));
            let topics = r.groups.iter().flat_map(|g| &g.topics).flat_map(|t| &t.partitions);
            let both: Vec<(i64, i16)> = old.chain(topics.map(|p| (p.committed_offset, p.error_code))).collect();
            assert_eq!(both.iter().map(|b| b.0).collect::<Vec<_>>(), [expected, -1], "{r:?}");
            both.into_iter().map(|b| b.1).chain([r.error_code]).chain(r.groups.iter().map(|g| g.error_code)).collect()
        }
    };
    ask("what was committed", &[0], |v| fetch_of(&topic, &group, v), fetched(42));
    ask("what never was", &[0], |v| fetch_of(&topic, &unique("offsets-none"), v), fetched(-1));
    use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
    let delete = |group: &str| {
        let partitions = vec![OffsetDeleteRequestPartition { partition_index: 0 }];
        let topic = OffsetDeleteRequestTopic { name: topic.name.clone(), partitions };
        OffsetDeleteRequest { group_id: group.into(), topics: vec![topic] }
    };
    let deleted = |r: &OffsetDeleteResponse| {
        let topics = r.topics.iter().flat_map(|t| &t.partitions);
        topics.map(|p| p.error_code).chain([r.error_code]).collect()
    };
    ask("an offset", &[0], |_| delete(&group), deleted);
    ask("no such group", &[GROUP_ID_NOT_FOUND], |_| delete("nowhere"), deleted);
}

#[test]
fn groups_are_described_listed_and_deleted() {
    let group = unique("described");
    stable(&group);
    let describe = |group: &str| DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() };
    ask(
        "a group",
        &[0],
        |_| describe(&group),
        |r: &DescribeGroupsResponse| {
            assert_eq!(r.groups[0].group_state, "Stable", "{r:?}");
            assert_eq!(r.groups[0].members.len(), 1, "{r:?}");
            vec![r.groups[0].error_code]
        },
    );
    let codes = |r: &DescribeGroupsResponse| vec![r.groups[0].error_code];
    ask("no such group", &[0, GROUP_ID_NOT_FOUND], |_| describe("nowhere"), codes);
    ask(
        "all",
        &[0],
        |_| ListGroupsRequest::default(),
        |r: &ListGroupsResponse| {
            assert!(r.groups.iter().any(|g| g.group_id == group));
            vec![r.error_code]
        },
    );
    let delete = |group: &str| DeleteGroupsRequest { groups_names: vec![group.into()] };
    let codes = |r: &DeleteGroupsResponse| vec![r.results[0].error_code];
    ask("a group with members", &[NON_EMPTY_GROUP], |_| delete(&group), codes);
    ask("no such group", &[GROUP_ID_NOT_FOUND], |_| delete("nowhere"), codes);
    let topic = topic("deleted");
    ask(
        "an empty group",
        &[0],
        |_| {
            let group = unique("empty");
            call(&commit_to(&topic, &group, 1, 8), 8);
            delete(&group)
        },
        codes,
    );
}
