//! LeaveGroup and Heartbeat.

use klamm_protocol::Message;

use super::*;

#[test]
fn versions_up_to_2_answer_for_one_member_later_ones_for_each() {
    for version in 0..=5 {
        let mut desk = Desk::quick();
        let ids = desk.stable(&Joiner::default(), 2);
        let good = desk.leave("g", &[(&ids[0], None)], version);
        let bad = desk.leave("g", &[("stranger", None)], version);
        let nowhere = desk.leave("nowhere", &[("stranger", None)], version);
        let unnamed = desk.leave("", &[("stranger", None)], version);
        let unknown = ErrorCode::UnknownMemberId.code();
        assert_eq!(unnamed.error_code, ErrorCode::InvalidGroupId.code());
        if version < 3 {
            assert_eq!([good.error_code, bad.error_code, nowhere.error_code], [0, unknown, unknown]);
        } else {
            assert_eq!([good.error_code, bad.error_code, nowhere.error_code], [0, 0, 0]);
            assert_eq!([&good, &bad, &nowhere].map(|r| r.members[0].error_code), [0, unknown, unknown]);
        }
        for response in [good, bad, nowhere, unnamed] {
            response.to_bytes(version).unwrap();
        }
    }
}

#[test]
fn the_others_rebalance_when_one_leaves_and_the_group_is_empty_when_all_did() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 2);
    let generation = desk.generation("g");
    desk.leave("g", &[(&ids[0], None)], 5);
    assert_eq!(desk.heartbeat("g", &ids[1], generation), ErrorCode::RebalanceInProgress);
    desk.leave("g", &[(&ids[1], None)], 5);
    assert_eq!(desk.state("g"), Some(State::Empty));
    assert_eq!(desk.replayed().group("g").unwrap().state(), State::Empty);
    assert_eq!(desk.heartbeat("g", &ids[1], generation), ErrorCode::UnknownMemberId);
}

#[test]
fn leaving_completes_a_rebalance_that_waited_for_the_one_who_leaves() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 2);
    let leader = desk.join(&Joiner::default().id(&ids[0]));
    assert_eq!(desk.joined(leader), None);
    desk.leave("g", &[(&ids[1], None)], 5);
    assert_eq!(desk.joined(leader).unwrap().members.len(), 1);
}

#[test]
fn an_id_given_back_disturbs_nobody() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 1);
    let spare = desk.member_id(&Joiner::default());
    assert_eq!(desk.leave("g", &[(&spare, None)], 5).members[0].error_code, 0);
    assert_eq!(desk.state("g"), Some(State::Stable));
    let spare = desk.member_id(&Joiner::default());
    let leader = desk.join(&Joiner::default().id(&ids[0]));
    assert_eq!(desk.joined(leader), None);
    desk.leave("g", &[(&spare, None)], 5);
    assert_eq!(desk.joined(leader).unwrap().error_code, 0);
}

#[test]
fn a_parked_join_of_a_member_that_leaves_is_answered() {
    let mut desk = Desk::default();
    let parked = desk.join(&Joiner::default().version(3));
    let id = desk.members("g")[0].clone();
    desk.leave("g", &[(&id, None)], 3);
    assert_eq!(desk.joined(parked).unwrap().error_code, ErrorCode::UnknownMemberId.code());
    desk.pass(3_000);
    assert_eq!(desk.state("g"), Some(State::Empty));
}

#[test]
fn heartbeats_keep_a_member_alive_and_tell_it_of_a_rebalance() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 1);
    let generation = desk.generation("g");
    for _ in 0..10 {
        desk.pass(9_999);
        assert_eq!(desk.heartbeat("g", &ids[0], generation), ErrorCode::None);
    }
    let cases = [
        ("", ids[0].as_str(), generation, ErrorCode::InvalidGroupId),
        ("none", &ids[0], generation, ErrorCode::UnknownMemberId),
        ("g", "stranger", generation, ErrorCode::UnknownMemberId),
        ("g", &ids[0], generation + 1, ErrorCode::IllegalGeneration),
    ];
    for (group, member, generation, code) in cases {
        assert_eq!(desk.heartbeat(group, member, generation), code, "{group} {member} {generation}");
    }
    desk.pass(10_000);
    assert_eq!(desk.heartbeat("g", &ids[0], generation), ErrorCode::UnknownMemberId);
}

#[test]
fn between_join_and_assignment_heartbeats_are_fine() {
    let mut desk = Desk::quick();
    let response = desk.join_now(&Joiner::default().version(3));
    assert_eq!(desk.state("g"), Some(State::CompletingRebalance));
    assert_eq!(desk.heartbeat("g", &response.member_id, 1), ErrorCode::None);
}
