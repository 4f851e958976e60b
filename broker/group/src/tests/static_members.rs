//! Static members: they come back under a new member id, without a rebalance where that can be, and fence who they
//! were.

use super::*;

fn member(instance: &str) -> Joiner {
    Joiner::default().instance(instance)
}

/// A stable group of static members `i0`, `i1`, …; gives their member ids, leader first.
fn stable(desk: &mut Desk, n: usize) -> Vec<String> {
    let tickets: Vec<_> = (0..n).map(|i| desk.join(&member(&format!("i{i}")))).collect();
    desk.pass(6_000);
    let answers: Vec<_> = tickets.iter().map(|&t| desk.joined(t).unwrap()).collect();
    let ids: Vec<_> = answers.iter().map(|a| a.member_id.clone()).collect();
    assert!(answers.iter().all(|a| a.leader == ids[0]));
    let names: Vec<_> = (0..n).map(|i| format!("a{i}")).collect();
    let all: Vec<_> = ids.iter().map(String::as_str).zip(names.iter().map(String::as_str)).collect();
    for id in ids.iter().rev() {
        desk.sync("g", id, 1, &all);
    }
    assert_eq!(desk.state("g"), Some(State::Stable));
    ids
}

#[test]
fn they_need_no_second_join_and_are_named_after_the_instance() {
    let mut desk = Desk::quick();
    let response = desk.join_now(&member("kitchen"));
    assert_eq!(response.error_code, 0);
    assert!(response.member_id.starts_with("kitchen-"), "{}", response.member_id);
    assert_eq!(response.members[0].group_instance_id.as_deref(), Some("kitchen"));
}

#[test]
fn one_that_restarts_gets_its_assignment_back_and_nobody_notices() {
    for (version, who) in [(5, 1), (8, 1), (9, 1), (5, 0), (8, 0), (9, 0)] {
        let mut desk = Desk::default();
        let ids = stable(&mut desk, 2);
        let response = desk.join_now(&member(&format!("i{who}")).version(version));
        let new_id = response.member_id.clone();
        assert_eq!((response.error_code, response.generation_id), (0, 1), "v{version}");
        assert_ne!(new_id, ids[who]);
        assert_eq!(desk.state("g"), Some(State::Stable));
        let leads = who == 0;
        if version >= 9 {
            assert_eq!(response.skip_assignment, leads);
            assert_eq!(response.members.len(), if leads { 2 } else { 0 });
            assert_eq!(response.leader, if leads { new_id.clone() } else { ids[0].clone() });
        } else {
            // Told the old leader's id, it does not take itself for the leader.
            assert_eq!((response.leader.as_str(), response.members.len()), (ids[0].as_str(), 0));
        }
        let sync = desk.sync("g", &new_id, 1, &[]);
        assert_eq!(desk.synced(sync).unwrap().assignment, format!("a{who}"));
        assert_eq!(desk.heartbeat("g", &ids[who], 1), ErrorCode::UnknownMemberId);
        let replayed = desk.replayed();
        let group = replayed.group("g").unwrap();
        assert!(group.members().any(|m| m.id() == new_id && *m.assignment() == format!("a{who}")), "it is in the log");
        assert!(!group.members().any(|m| m.id() == ids[who]));
    }
}

#[test]
fn who_it_was_is_fenced_everywhere() {
    let mut desk = Desk::default();
    let ids = stable(&mut desk, 2);
    desk.join_now(&member("i1"));
    let fenced = ErrorCode::FencedInstanceId;
    let old = ids[1].as_str();
    assert_eq!(desk.join_now(&member("i1").id(old)).error_code, fenced.code());
    let heartbeat = klamm_protocol::messages::HeartbeatRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: old.into(),
        group_instance_id: Some("i1".into()),
    };
    assert_eq!(desk.c.heartbeat(&heartbeat, desk.now).error_code, fenced.code());
    let sync = desk.sync_request(klamm_protocol::messages::SyncGroupRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: old.into(),
        group_instance_id: Some("i1".into()),
        ..Default::default()
    });
    assert_eq!(desk.synced(sync).unwrap().error_code, fenced.code());
    let mut commit = commit_of("g", old, 1, "t", (0, 5));
    commit.group_instance_id = Some("i1".into());
    assert_eq!(desk.commit_request(&commit, 9).topics[0].partitions[0].error_code, fenced.code());
    let left = desk.leave("g", &[(old, Some("i1"))], 5);
    assert_eq!(left.members[0].error_code, fenced.code());
}

#[test]
fn two_with_one_instance_id_the_later_wins() {
    let mut desk = Desk::default();
    let first = desk.join(&member("i"));
    let second = desk.join(&member("i"));
    let fenced = desk.joined(first).unwrap();
    assert_eq!(fenced.error_code, ErrorCode::FencedInstanceId.code());
    desk.pass(6_000);
    assert_eq!(desk.joined(second).unwrap().error_code, 0);
    assert_eq!(desk.members("g").len(), 1);
}

#[test]
fn a_parked_sync_of_the_old_id_is_fenced() {
    let mut desk = Desk::default();
    let (one, two) = (desk.join(&member("i0")), desk.join(&member("i1")));
    desk.pass(6_000);
    let (leader, follower) = (desk.joined(one).unwrap().member_id, desk.joined(two).unwrap().member_id);
    let parked = desk.sync("g", &follower, 1, &[]);
    // The leader may be assigning to the old id: everybody joins again.
    let back = desk.join(&member("i1"));
    assert_eq!(desk.synced(parked).unwrap().error_code, ErrorCode::FencedInstanceId.code());
    assert_eq!(desk.joined(back), None);
    assert_eq!(desk.state("g"), Some(State::PreparingRebalance));
    desk.join_now(&member("i0").id(&leader));
    assert_eq!(desk.joined(back).unwrap().generation_id, 2);
}

#[test]
fn one_that_comes_back_with_another_protocol_makes_a_rebalance() {
    let mut desk = Desk::default();
    let both = |i: &str| member(i).speaks(&["range", "sticky"]);
    let (one, two) = (desk.join(&both("i0")), desk.join(&both("i1")));
    desk.pass(6_000);
    let leader = desk.joined(one).unwrap().member_id;
    let follower = desk.joined(two).unwrap().member_id;
    desk.sync("g", &follower, 1, &[]);
    desk.sync("g", &leader, 1, &[]);
    let back = desk.join(&member("i1").speaks(&["sticky"]));
    assert_eq!(desk.joined(back), None);
    let leader = desk.join_now(&both("i0").id(&leader)).member_id;
    let follower = desk.joined(back).unwrap();
    assert_eq!((follower.protocol_name.as_deref(), follower.generation_id), (Some("sticky"), 2));
    desk.sync("g", &follower.member_id, 2, &[]);
    desk.sync("g", &leader, 2, &[]);
    // What the group speaks is still what it would choose: no rebalance.
    let again = desk.join_now(&both("i0"));
    assert_eq!((again.error_code, again.generation_id), (0, 2));
}

#[test]
fn an_absent_one_keeps_its_place_until_its_session_ends() {
    let mut desk = Desk::default();
    let ids = stable(&mut desk, 2);
    desk.pass(5_000);
    // The leader asks for a rebalance, i1 is away.
    let leader = desk.join(&member("i0").id(&ids[0]).session_ms(1_000_000));
    desk.pass(4_999);
    assert_eq!(desk.joined(leader), None);
    desk.pass(1);
    assert_eq!(desk.joined(leader).unwrap().members.len(), 1, "its session ended");

    let mut desk = Desk::default();
    let patient = |i: &str| member(i).session_ms(1_000_000);
    let (one, two) = (desk.join(&patient("i0")), desk.join(&patient("i1")));
    desk.pass(6_000);
    let leader = desk.joined(one).unwrap().member_id;
    desk.joined(two);
    let again = desk.join(&patient("i0").id(&leader).reads(&["u"]));
    desk.pass(60_000);
    assert_eq!(desk.joined(again).unwrap().members.len(), 2, "the rebalance timeout does not remove it");
}

#[test]
fn an_administrator_removes_them_by_instance_id() {
    let mut desk = Desk::default();
    let ids = stable(&mut desk, 2);
    let response = desk.leave("g", &[("", Some("i1")), ("", Some("i7")), ("", None)], 5);
    let codes: Vec<_> = response.members.iter().map(|m| ErrorCode::from_code(m.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownMemberId, ErrorCode::UnknownMemberId]);
    assert_eq!(desk.members("g"), [ids[0].clone()]);
    assert_eq!(desk.state("g"), Some(State::PreparingRebalance));
}

#[test]
fn when_only_absent_ones_are_left_their_sessions_end_it() {
    let mut desk = Desk::default();
    let one = desk.join(&member("i0").rebalance_ms(5_000).session_ms(30_000));
    desk.pass(6_000);
    let leader = desk.joined(one).unwrap().member_id;
    desk.sync("g", &leader, 1, &[]);
    let new = desk.join(&Joiner::default().version(3).rebalance_ms(5_000));
    let new_id = desk.members("g").into_iter().find(|id| *id != leader).unwrap();
    desk.leave("g", &[(&new_id, None)], 3);
    assert_eq!(desk.joined(new).unwrap().error_code, ErrorCode::UnknownMemberId.code());
    desk.pass(20_000);
    assert_eq!(desk.state("g"), Some(State::PreparingRebalance));
    desk.pass(20_000);
    assert_eq!(desk.state("g"), Some(State::Empty));
}
