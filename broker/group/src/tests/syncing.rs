//! SyncGroup: the leader's assignment reaches everyone, once it is in the log.

use klamm_protocol::messages::SyncGroupRequest;

use super::*;

/// Two members whose generation is long open and whose sessions are over.
fn completing(desk: &mut Desk) -> (String, String) {
    let joiner = Joiner::default().version(3);
    let (one, two) = (desk.join(&joiner), desk.join(&joiner));
    desk.pass(60_000);
    (desk.joined(one).unwrap().member_id, desk.joined(two).unwrap().member_id)
}

/// Two members of generation 1, not yet synced: leader, follower.
fn joined(desk: &mut Desk) -> (String, String) {
    let joiner = Joiner::default().version(3);
    let (one, two) = (desk.join(&joiner), desk.join(&joiner));
    desk.pass(6_000);
    (desk.joined(one).unwrap().member_id, desk.joined(two).unwrap().member_id)
}

#[test]
fn followers_wait_for_the_leader_and_the_log_comes_first() {
    let mut desk = Desk::default();
    let (leader, follower) = joined(&mut desk);
    let parked = desk.sync("g", &follower, 1, &[]);
    assert_eq!(desk.synced(parked), None);
    let written = desk.log.len();
    let lead = desk.sync("g", &leader, 1, &[(&leader, "one"), (&follower, "two"), ("stranger", "x")]);
    assert_eq!(desk.log.len(), written + 1);
    let (lead, follow) = (desk.synced(lead).unwrap(), desk.synced(parked).unwrap());
    assert_eq!((&lead.assignment[..], &follow.assignment[..]), (&b"one"[..], &b"two"[..]));
    assert_eq!(follow.protocol_name.as_deref(), Some("range"));
    assert_eq!(follow.protocol_type.as_deref(), Some("consumer"));
    let replayed = desk.replayed();
    let members: Vec<_> = replayed.group("g").unwrap().members().map(|m| m.assignment().clone()).collect();
    assert_eq!(members.len(), 2);
    assert!(members.iter().all(|a| a == "one" || a == "two"));
    // Asking again in Stable gives the same.
    let again = desk.sync("g", &follower, 1, &[]);
    assert_eq!(&desk.synced(again).unwrap().assignment[..], b"two");
}

#[test]
fn an_assignment_too_large_to_keep_is_refused_and_the_group_goes_on() {
    let mut desk = Desk::default();
    let (leader, follower) = joined(&mut desk);
    let large = "x".repeat((1 << 20) + 1);
    let refused = desk.sync("g", &leader, 1, &[(&follower, &large)]);
    assert_eq!(desk.synced(refused).unwrap().error_code, ErrorCode::MessageTooLarge.code());
    let lead = desk.sync("g", &leader, 1, &[(&leader, "all")]);
    assert_eq!(desk.synced(lead).unwrap().error_code, 0);
}

#[test]
fn whom_the_leader_forgot_gets_nothing_to_do() {
    let mut desk = Desk::default();
    let (leader, follower) = joined(&mut desk);
    let parked = desk.sync("g", &follower, 1, &[]);
    let lead = desk.sync("g", &leader, 1, &[(&leader, "all")]);
    assert_eq!(desk.synced(lead).unwrap().error_code, 0);
    let follow = desk.synced(parked).unwrap();
    assert_eq!((follow.error_code, follow.assignment.len()), (0, 0));
}

#[test]
fn what_is_refused() {
    let cases: &[(&str, &str, i32, Option<&str>, ErrorCode)] = &[
        ("", "leader", 1, None, ErrorCode::InvalidGroupId),
        ("none", "leader", 1, None, ErrorCode::UnknownMemberId),
        ("g", "stranger", 1, None, ErrorCode::UnknownMemberId),
        ("g", "leader", 0, None, ErrorCode::IllegalGeneration),
        ("g", "leader", 2, None, ErrorCode::IllegalGeneration),
        ("g", "leader", 1, Some("other"), ErrorCode::InconsistentGroupProtocol),
    ];
    for (group, member, generation, protocol, code) in cases {
        let mut desk = Desk::default();
        let (leader, _) = joined(&mut desk);
        let member = if *member == "leader" { leader.as_str() } else { member };
        let ticket = desk.sync_request(SyncGroupRequest {
            group_id: (*group).into(),
            member_id: member.into(),
            generation_id: *generation,
            protocol_type: protocol.map(|_| "consumer".into()),
            protocol_name: protocol.map(Into::into),
            ..Default::default()
        });
        assert_eq!(desk.synced(ticket).unwrap().error_code, code.code(), "{group} {member} {generation}");
    }
    // From version 5 on the protocol has to be named.
    let mut desk = Desk::default();
    let (leader, _) = joined(&mut desk);
    let request = SyncGroupRequest { group_id: "g".into(), member_id: leader, generation_id: 1, ..Default::default() };
    let step = desk.c.sync_group(77, &request, 5, desk.now);
    desk.settle(step);
    assert_eq!(desk.synced(77).unwrap().error_code, ErrorCode::InconsistentGroupProtocol.code());
}

#[test]
fn a_rebalance_sends_those_who_wait_back_to_join() {
    let mut desk = Desk::default();
    let (leader, follower) = joined(&mut desk);
    let parked = desk.sync("g", &follower, 1, &[]);
    desk.join(&Joiner::default().version(3));
    assert_eq!(desk.synced(parked).unwrap().error_code, ErrorCode::RebalanceInProgress.code());
    let late = desk.sync("g", &leader, 1, &[]);
    assert_eq!(desk.synced(late).unwrap().error_code, ErrorCode::RebalanceInProgress.code());
}

#[test]
fn members_that_send_no_sync_are_out_after_the_rebalance_timeout() {
    let mut desk = Desk::default();
    let joiner = Joiner::default().version(3).session_ms(1_800_000);
    let (one, two) = (desk.join(&joiner), desk.join(&joiner));
    desk.pass(6_000);
    let (leader, follower) = (desk.joined(one).unwrap().member_id, desk.joined(two).unwrap().member_id);
    let parked = desk.sync("g", &follower, 1, &[]);
    desk.pass(59_999);
    assert_eq!(desk.synced(parked), None);
    desk.pass(1);
    assert_eq!(desk.synced(parked).unwrap().error_code, ErrorCode::RebalanceInProgress.code());
    assert_eq!(desk.members("g"), std::slice::from_ref(&follower));
    assert_eq!(desk.heartbeat("g", &leader, 1), ErrorCode::UnknownMemberId);
    let alone = desk.join_now(&joiner.id(&follower));
    assert_eq!((alone.leader, alone.generation_id), (follower, 2));
}

#[test]
fn a_group_whose_members_all_miss_the_sync_is_empty() {
    let mut desk = Desk::default();
    completing(&mut desk);
    desk.pass(120_000);
    assert_eq!(desk.state("g"), Some(State::Empty));
    assert_eq!(desk.replayed().group("g").unwrap().generation(), desk.generation("g"));
}

#[test]
fn a_member_that_leaves_while_it_waits_is_answered() {
    let mut desk = Desk::default();
    let (_, follower) = joined(&mut desk);
    let parked = desk.sync("g", &follower, 1, &[]);
    desk.leave("g", &[(&follower, None)], 3);
    assert_eq!(desk.synced(parked).unwrap().error_code, ErrorCode::UnknownMemberId.code());
}

#[test]
fn a_repeated_sync_answers_the_one_before() {
    let mut desk = Desk::default();
    let (leader, follower) = joined(&mut desk);
    let first = desk.sync("g", &follower, 1, &[]);
    let second = desk.sync("g", &follower, 1, &[]);
    assert_eq!(desk.synced(first).unwrap().error_code, ErrorCode::RebalanceInProgress.code());
    desk.sync("g", &leader, 1, &[]);
    assert_eq!(desk.synced(second).unwrap().error_code, 0);
}

#[test]
fn sessions_begin_anew_with_the_assignment() {
    let mut desk = Desk::default();
    let (leader, follower) = joined(&mut desk);
    let parked = desk.sync("g", &follower, 1, &[]);
    desk.pass(9_000);
    desk.heartbeat("g", &leader, 1);
    desk.pass(9_000);
    // The follower's session ran out meanwhile, but it was waiting.
    desk.sync("g", &leader, 1, &[]);
    assert_eq!(desk.synced(parked).unwrap().error_code, 0);
    desk.pass(9_999);
    assert_eq!(desk.heartbeat("g", &follower, 1), ErrorCode::None);
}
