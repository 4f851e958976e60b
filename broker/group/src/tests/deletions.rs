//! OffsetDelete, DeleteGroups, and topics that go.

use klamm_protocol::messages::OffsetDeleteRequest;
use klamm_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};

use super::*;

/// Deletes offsets; gives the error of the whole or those of the partitions.
fn delete(desk: &mut Desk, group: &str, topics: &[(&str, i32)]) -> Result<Vec<ErrorCode>, ErrorCode> {
    let ticket = desk.ticket();
    let request = OffsetDeleteRequest {
        group_id: group.into(),
        topics: topics
            .iter()
            .map(|(name, partition)| OffsetDeleteRequestTopic {
                name: (*name).into(),
                partitions: vec![OffsetDeleteRequestPartition { partition_index: *partition }],
            })
            .collect(),
    };
    let step = desk.c.offset_delete(ticket, &request, &desk.topics);
    desk.settle(step);
    match desk.take(ticket) {
        Some(Answer::OffsetDelete(r)) if r.error_code != 0 => Err(ErrorCode::from_code(r.error_code)),
        Some(Answer::OffsetDelete(r)) => {
            Ok(r.topics.iter().flat_map(|t| &t.partitions).map(|p| ErrorCode::from_code(p.error_code)).collect())
        }
        other => panic!("{other:?}"),
    }
}

fn delete_groups(desk: &mut Desk, ids: &[&str]) -> Vec<(String, ErrorCode)> {
    let ticket = desk.ticket();
    let step = desk.c.delete_groups(ticket, ids.iter().copied());
    desk.settle(step);
    match desk.take(ticket) {
        Some(Answer::DeleteGroups(results)) => {
            results.into_iter().map(|r| (r.group_id, ErrorCode::from_code(r.error_code))).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn offsets_of_a_topic_the_group_reads_stay() {
    use ErrorCode::*;
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default().reads(&["t"]), 1);
    let generation = desk.generation("g");
    desk.commit("g", &ids[0], generation, "t", (0, 5));
    desk.commit("g", &ids[0], generation, "u", (0, 6));
    desk.topics.set("secret", 3, 1);
    desk.topics.forbidden.push("secret".into());
    let codes = delete(&mut desk, "g", &[("t", 0), ("u", 0), ("u", 9), ("none", 0), ("secret", 0), ("u", 1)]);
    assert_eq!(
        codes,
        Ok(vec![
            GroupSubscribedToTopic,
            None,
            UnknownTopicOrPartition,
            UnknownTopicOrPartition,
            TopicAuthorizationFailed,
            None
        ])
    );
    assert_eq!((desk.fetch("g", "t", 0), desk.fetch("g", "u", 0)), (5, -1));
    desk.leave("g", &[(&ids[0], Option::None)], 5);
    assert_eq!(delete(&mut desk, "g", &[("t", 0)]), Ok(vec![None]));
    assert_eq!(desk.replayed().committed_len(), 0);
    assert_eq!(desk.c.counters().offset_deletions, 2);
}

#[test]
fn groups_whose_subscriptions_are_unknown() {
    // Consumers that say nothing readable may be reading anything.
    let mut desk = Desk::quick();
    let opaque = Joiner { protocols: vec![("range", vec![0xff].into())], ..Joiner::default() };
    desk.stable(&opaque, 1);
    assert_eq!(delete(&mut desk, "g", &[("t", 0)]), Ok(vec![ErrorCode::GroupSubscribedToTopic]));
    // Others have to be empty.
    let connect = Joiner { group: "c", protocol_type: "connect", ..Joiner::default() };
    desk.stable(&connect, 1);
    assert_eq!(delete(&mut desk, "c", &[("t", 0)]), Err(ErrorCode::NonEmptyGroup));
    assert_eq!(delete(&mut desk, "nowhere", &[("t", 0)]), Err(ErrorCode::GroupIdNotFound));
    assert_eq!(delete(&mut desk, "", &[("t", 0)]), Err(ErrorCode::InvalidGroupId));
}

#[test]
fn only_empty_groups_are_deleted_and_their_offsets_with_them() {
    use ErrorCode::*;
    let mut desk = Desk::quick();
    desk.commit("simple", "", -1, "t", (0, 5));
    desk.commit("simple", "", -1, "u", (3, 5));
    let ids = desk.stable(&Joiner::of("used"), 1);
    let old = desk.stable(&Joiner::of("left"), 1);
    desk.leave("left", &[(&old[0], Option::None)], 5);
    let results = delete_groups(&mut desk, &["simple", "used", "left", "nowhere", "", "simple"]);
    let expected = [
        ("simple", None),
        ("used", NonEmptyGroup),
        ("left", None),
        ("nowhere", GroupIdNotFound),
        ("", GroupIdNotFound),
    ];
    assert_eq!(results, expected.map(|(id, code)| (id.to_string(), code)));
    for c in [&desk.c, &desk.replayed()] {
        assert_eq!(c.groups().map(|g| g.id().to_owned()).collect::<Vec<_>>(), ["used"]);
        assert_eq!(c.committed_len(), 0);
    }
    assert_eq!(desk.heartbeat("used", &ids[0], desk.generation("used")), None);
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default().reads(&["t"]), 1);
    let generation = desk.generation("g");
    desk.commit("g", &ids[0], generation, "t", (0, 5));
    desk.commit("g", &ids[0], generation, "t", (1, 5));
    desk.commit("g", &ids[0], generation, "u", (0, 6));
    desk.commit("h", "", -1, "t", (2, 7));
    let step = desk.c.on_topics_deleted(&[("t".into(), topic_id(1)), ("never".into(), topic_id(8))]);
    assert_eq!(step.records.len(), 3);
    desk.settle(step);
    for c in [&desk.c, &desk.replayed()] {
        assert_eq!(c.committed().map(|(g, t, p, e)| (g, t, p, e.offset)).collect::<Vec<_>>(), [("g", "u", 0, 6)]);
    }
}

#[test]
fn a_deleted_topic_of_many_groups_goes_in_portions_and_despite_a_log_that_refuses_for_a_while() {
    let mut desk = Desk::quick();
    desk.topics.set("wide", 5, 1_000);
    for group in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        for p in 0..1_000 {
            desk.commit(group, "", -1, "wide", (p, 1));
        }
    }
    desk.refuse_appends = Some(ErrorCode::KafkaStorageError);
    let step = desk.c.on_topics_deleted(&[("wide".into(), topic_id(5))]);
    assert!(step.records.len() <= 6_000, "{}", step.records.len());
    desk.settle(step);
    assert_eq!(desk.c.committed_len(), 8_000);
    assert!(desk.c.next_deadline().unwrap() > desk.now, "not tried again at once");
    desk.refuse_appends = None;
    desk.pass(10_000);
    assert_eq!((desk.c.committed_len(), desk.replayed().committed_len()), (0, 0));
    assert!(desk.c.next_deadline().unwrap() > desk.now, "and that is the end of it");
}
