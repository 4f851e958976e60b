//! OffsetCommit and OffsetFetch: who may commit, for which topics, and what every version is told.

use klamm_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest};
use klamm_protocol::{Message, Uuid};

use super::*;

#[test]
fn a_member_commits_and_finds_it_again_after_a_restart() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 1);
    let generation = desk.generation("g");
    assert_eq!(desk.commit("g", &ids[0], generation, "t", (0, 5)), ErrorCode::None);
    assert_eq!(desk.commit("g", &ids[0], generation, "t", (0, 9)), ErrorCode::None);
    assert_eq!((desk.fetch("g", "t", 0), desk.fetch("g", "t", 1), desk.fetch("h", "t", 0)), (9, -1, -1));
    desk.restart();
    assert_eq!(desk.fetch("g", "t", 0), 9);
    assert_eq!(desk.c.counters().offset_commits, 0, "counted anew");
}

#[test]
fn who_may_commit() {
    enum In {
        Nowhere,
        Empty,
        Simple,
        Preparing,
        Completing,
        Stable,
    }
    use ErrorCode as E;
    // State, member, generation relative to the group's, then the answer of version 8 and of version 9.
    let cases = [
        (In::Nowhere, "", None, E::None, E::None),
        (In::Nowhere, "m", Some(0), E::IllegalGeneration, E::GroupIdNotFound),
        (In::Empty, "", None, E::None, E::None),
        (In::Empty, "stranger", None, E::None, E::None),
        (In::Empty, "member", Some(0), E::UnknownMemberId, E::UnknownMemberId),
        (In::Simple, "", None, E::None, E::None),
        (In::Simple, "m", Some(1), E::UnknownMemberId, E::UnknownMemberId),
        (In::Stable, "", None, E::UnknownMemberId, E::UnknownMemberId),
        (In::Stable, "stranger", Some(0), E::UnknownMemberId, E::UnknownMemberId),
        (In::Stable, "member", Some(-1), E::IllegalGeneration, E::IllegalGeneration),
        (In::Stable, "member", None, E::IllegalGeneration, E::IllegalGeneration),
        (In::Stable, "member", Some(0), E::None, E::None),
        (In::Preparing, "member", Some(0), E::None, E::None),
        (In::Completing, "member", Some(0), E::RebalanceInProgress, E::RebalanceInProgress),
    ];
    for (i, (state, member, generation, v8, v9)) in cases.into_iter().enumerate() {
        for (version, code) in [(8, v8), (9, v9)] {
            let mut desk = Desk::quick();
            let mut id = String::new();
            match state {
                In::Nowhere => {}
                In::Simple => assert_eq!(desk.commit("g", "", -1, "u", (0, 1)), E::None),
                In::Completing => id = desk.join_now(&Joiner::default().version(3)).member_id,
                In::Empty | In::Preparing | In::Stable => {
                    id = desk.stable(&Joiner::default(), 1)[0].clone();
                    match state {
                        In::Empty => drop(desk.leave("g", &[(&id, None)], 5)),
                        In::Preparing => drop(desk.join(&Joiner::default().version(3))),
                        _ => {}
                    }
                }
            }
            let at = generation.map_or(-1, |relative: i32| desk.generation("g").max(1) + relative);
            let member = if member == "member" { id.as_str() } else { member };
            let response = desk.commit_request(&commit_of("g", member, at, "t", (0, 7)), version);
            assert_eq!(response.topics[0].partitions[0].error_code, code.code(), "case {i} v{version}");
            assert_eq!(desk.fetch("g", "t", 0), if code == E::None { 7 } else { -1 }, "case {i} v{version}");
        }
    }
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 1);
    let generation = desk.generation("g");
    for _ in 0..5 {
        desk.pass(9_000);
        assert_eq!(desk.commit("g", &ids[0], generation, "t", (0, 5)), ErrorCode::None);
    }
    assert_eq!(desk.heartbeat("g", &ids[0], generation), ErrorCode::None);
}

#[test]
fn the_empty_group_id_is_good_enough_for_offsets() {
    let mut desk = Desk::quick();
    assert_eq!(desk.commit("", "", -1, "t", (0, 5)), ErrorCode::None);
    assert_eq!(desk.fetch("", "t", 0), 5);
}

fn partitions(of: &[(i32, &str)]) -> Vec<OffsetCommitRequestPartition> {
    let partition = |(index, metadata): &(i32, &str)| OffsetCommitRequestPartition {
        partition_index: *index,
        committed_offset: 1,
        committed_metadata: Some((*metadata).into()),
        ..Default::default()
    };
    of.iter().map(partition).collect()
}

fn topic(name: &str, of: &[(i32, &str)]) -> OffsetCommitRequestTopic {
    OffsetCommitRequestTopic { name: name.into(), partitions: partitions(of), ..Default::default() }
}

#[test]
fn each_partition_has_its_own_error() {
    let mut desk = Desk::new(Config { offset_metadata_max: 4, ..Config::default() });
    desk.topics.forbidden.push("u".into());
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![
            topic("t", &[(0, "1234"), (1, "12345"), (4, ""), (-1, ""), (2, "üüüü"), (3, "😀😀😀")]),
            topic("none", &[(0, "")]),
            topic("u", &[(0, "")]),
        ],
        ..Default::default()
    };
    let response = desk.commit_request(&request, 9);
    let codes: Vec<Vec<ErrorCode>> = response
        .topics
        .iter()
        .map(|t| t.partitions.iter().map(|p| ErrorCode::from_code(p.error_code)).collect())
        .collect();
    use ErrorCode::*;
    assert_eq!(
        codes[0],
        [None, OffsetMetadataTooLarge, UnknownTopicOrPartition, UnknownTopicOrPartition, None, OffsetMetadataTooLarge]
    );
    assert_eq!(codes[1], [UnknownTopicOrPartition]);
    assert_eq!(codes[2], [TopicAuthorizationFailed]);
    assert_eq!(desk.c.committed_len(), 2);
}

#[test]
fn a_request_without_a_valid_partition_does_not_reach_the_group() {
    let mut desk = Desk::quick();
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: 5,
        topics: vec![topic("none", &[(0, "")])],
        ..Default::default()
    };
    let response = desk.commit_request(&request, 9);
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
    let nothing = desk.commit_request(&OffsetCommitRequest { group_id: "g".into(), ..Default::default() }, 9);
    assert!(nothing.topics.is_empty());
    assert_eq!(desk.state("g"), None);
}

fn by_id(id: Uuid) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            topic_id: id,
            partitions: partitions(&[(0, "m")]),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn fetch_by_id(desk: &Desk, id: Uuid) -> (i64, ErrorCode) {
    let request = OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(vec![OffsetFetchRequestTopics { topic_id: id, partition_indexes: vec![0], ..Default::default() }]),
        ..Default::default()
    };
    let response = desk.c.offset_fetch(&request, false, 10, &desk.topics);
    assert_eq!(response.topics[0].topic_id, id);
    let partition = &response.topics[0].partitions[0];
    (partition.committed_offset, ErrorCode::from_code(partition.error_code))
}

#[test]
fn version_10_names_topics_by_id() {
    let mut desk = Desk::quick();
    let response = desk.commit_request(&by_id(topic_id(1)), 10);
    assert_eq!((response.topics[0].topic_id, response.topics[0].partitions[0].error_code), (topic_id(1), 0));
    response.to_bytes(10).unwrap();
    assert_eq!(desk.fetch("g", "t", 0), 1);
    assert_eq!(fetch_by_id(&desk, topic_id(1)), (1, ErrorCode::None));
    assert_eq!(fetch_by_id(&desk, topic_id(2)), (-1, ErrorCode::None));
    for id in [topic_id(9), Uuid::ZERO] {
        assert_eq!(fetch_by_id(&desk, id), (-1, ErrorCode::UnknownTopicId));
        let response = desk.commit_request(&by_id(id), 10);
        assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicId.code());
    }
}

#[test]
fn an_offset_of_a_deleted_topic_is_not_its_namesakes() {
    let mut desk = Desk::quick();
    desk.commit("g", "", -1, "t", (0, 5));
    desk.topics.set("t", 7, 4);
    assert_eq!(desk.fetch("g", "t", 0), -1);
    assert_eq!(fetch_by_id(&desk, topic_id(7)), (-1, ErrorCode::None));
    let late = desk.commit_request(&by_id(topic_id(1)), 10);
    assert_eq!(late.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicId.code());
    desk.restart();
    assert_eq!(desk.fetch("g", "t", 0), -1, "the id is in the log");
    // The old topic's deletion arrives late and leaves the new one's offsets alone.
    desk.commit("g", "", -1, "t", (1, 6));
    let step = desk.c.on_topics_deleted(&[("t".into(), topic_id(1))]);
    desk.settle(step);
    assert_eq!((desk.c.committed_len(), desk.fetch("g", "t", 1)), (1, 6));
}

#[test]
fn fetch_answers_have_the_shape_of_their_version() {
    let mut desk = Desk::quick();
    desk.commit("g", "", -1, "t", (0, 5));
    desk.commit("g", "", -1, "u", (1, 6));
    for version in 1..=10i16 {
        let mut request = OffsetFetchRequest::default();
        if version < 8 {
            request.group_id = "g".into();
            request.topics = Some(vec![OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0, 1] }]);
        } else {
            let topics = vec![OffsetFetchRequestTopics {
                name: if version < 10 { "t".into() } else { String::new() },
                topic_id: if version < 10 { Uuid::ZERO } else { topic_id(1) },
                partition_indexes: vec![0, 1],
            }];
            let group = |id: &str| OffsetFetchRequestGroup {
                group_id: id.into(),
                topics: Some(topics.clone()),
                ..Default::default()
            };
            request.groups = vec![group("g"), group("other")];
        }
        let groups = offset_fetch_groups(request, version);
        let answers = groups.iter().map(|g| desk.c.offset_fetch(g, true, version, &desk.topics)).collect();
        let response = offset_fetch_response(answers, version);
        response.to_bytes(version).unwrap();
        if version < 8 {
            let got: Vec<_> = response.topics[0].partitions.iter().map(|p| p.committed_offset).collect();
            assert_eq!((got, response.groups.len()), (vec![5, -1], 0), "v{version}");
        } else {
            let got: Vec<Vec<_>> = response
                .groups
                .iter()
                .map(|g| g.topics[0].partitions.iter().map(|p| p.committed_offset).collect())
                .collect();
            assert_eq!(got, [vec![5, -1], vec![-1, -1]], "v{version}");
        }
    }
}

#[test]
fn null_topics_mean_all_and_no_topics_mean_none() {
    let mut desk = Desk::quick();
    desk.commit("g", "", -1, "t", (0, 5));
    desk.commit("g", "", -1, "u", (1, 6));
    let ask = |desk: &Desk, topics, version| {
        let group = OffsetFetchRequestGroup { group_id: "g".into(), topics, ..Default::default() };
        desk.c.offset_fetch(&group, false, version, &desk.topics).topics
    };
    for version in [2, 7, 8, 10] {
        let all = ask(&desk, None, version);
        let names: Vec<_> = all.iter().map(|t| (t.name.as_str(), t.partitions[0].committed_offset)).collect();
        assert_eq!(names, [("t", 5), ("u", 6)]);
        assert_eq!(all[0].topic_id, topic_id(1));
        assert_eq!(ask(&desk, Some(vec![]), version), []);
    }
    desk.topics.forbidden.push("u".into());
    assert_eq!(ask(&desk, None, 8).len(), 1);
    desk.topics.all.remove("t");
    assert_eq!(ask(&desk, None, 8).len(), 1, "by name what is gone can still be told");
    assert_eq!(ask(&desk, None, 10).len(), 0, "by id it cannot");
}

#[test]
fn a_refused_group_has_its_error_where_the_version_has_room() {
    let group = OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(vec![OffsetFetchRequestTopics {
            name: "t".into(),
            partition_indexes: vec![3],
            ..Default::default()
        }]),
        ..Default::default()
    };
    for version in 1..=10 {
        let answer = refuse::offset_fetch(&group, version, ErrorCode::NotCoordinator);
        let response = offset_fetch_response(vec![answer], version);
        response.to_bytes(version).unwrap();
        let code = match version {
            1 => response.topics[0].partitions[0].error_code,
            2..=7 => response.error_code,
            _ => response.groups[0].error_code,
        };
        assert_eq!(code, ErrorCode::NotCoordinator.code(), "v{version}");
    }
}
