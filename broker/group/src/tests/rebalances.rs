//! When a rebalance begins, whom it waits for, and how it ends.

use super::*;

#[test]
fn the_first_rebalance_waits_for_further_members() {
    let mut desk = Desk::default();
    let joiner = Joiner::default().version(3);
    let one = desk.join(&joiner);
    desk.pass(2_999);
    assert_eq!(desk.joined(one), None);
    let two = desk.join(&joiner);
    // Someone came: another 3 s from the end of the first.
    desk.pass(1);
    assert_eq!(desk.state("g"), Some(State::PreparingRebalance));
    desk.pass(2_999);
    assert_eq!(desk.joined(one), None);
    desk.pass(1);
    assert_eq!(desk.joined(one).unwrap().generation_id, 1);
    assert_eq!(desk.joined(two).unwrap().generation_id, 1);
    assert_eq!(desk.state("g"), Some(State::CompletingRebalance));
}

#[test]
fn the_first_rebalance_is_not_extended_beyond_the_rebalance_timeout() {
    let mut desk = Desk::default();
    let joiner = Joiner::default().version(3).rebalance_ms(10_000);
    let first = desk.join(&joiner);
    let start = desk.now;
    while desk.joined(first).is_none() {
        desk.join(&joiner);
        desk.pass(500);
        assert!(desk.now - start <= 10_500, "the members keep coming, the group must not keep waiting");
    }
    assert!(desk.now - start >= 9_000);
}

#[test]
fn members_that_do_not_come_back_are_out_after_the_longest_rebalance_timeout() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default().rebalance_ms(20_000).session_ms(1_800_000), 3);
    // A new member with a longer timeout makes everyone join anew.
    let slow = Joiner::default().rebalance_ms(40_000).session_ms(1_800_000);
    let new_id = desk.member_id(&slow);
    let new = desk.join(&slow.clone().id(&new_id));
    assert_eq!(desk.state("g"), Some(State::PreparingRebalance));
    let back = desk.join(&Joiner::default().rebalance_ms(20_000).session_ms(1_800_000).id(&ids[1]));
    assert_eq!(desk.heartbeat("g", &ids[0], 2), ErrorCode::RebalanceInProgress);
    desk.pass(39_999);
    assert_eq!(desk.joined(new), None);
    desk.pass(1);
    let new = desk.joined(new).unwrap();
    assert_eq!(desk.joined(back).unwrap().generation_id, new.generation_id);
    assert_eq!(new.leader, ids[1], "the leader did not come back");
    let mut expected = vec![ids[1].clone(), new_id];
    expected.sort();
    assert_eq!(desk.members("g"), expected);
    assert_eq!(desk.heartbeat("g", &ids[0], 2), ErrorCode::UnknownMemberId);
}

#[test]
fn a_rebalance_waits_for_ids_that_were_just_handed_out() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 1);
    let first = desk.member_id(&Joiner::default());
    let second = desk.member_id(&Joiner::default());
    let one = desk.join(&Joiner::default().id(&first));
    let leader = desk.join(&Joiner::default().id(&ids[0]));
    assert_eq!(desk.joined(one), None, "the second id is still out");
    let two = desk.join(&Joiner::default().id(&second));
    for ticket in [one, leader, two] {
        assert_eq!(desk.joined(ticket).unwrap().generation_id, 2);
    }
}

#[test]
fn an_id_that_lapses_lets_the_rebalance_go_on() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 1);
    desk.member_id(&Joiner::default());
    let leader = desk.join(&Joiner::default().id(&ids[0]));
    desk.pass(9_999);
    assert_eq!(desk.joined(leader), None);
    desk.pass(1);
    assert_eq!(desk.joined(leader).unwrap().generation_id, 2);
}

#[test]
fn who_joins_again_and_what_follows() {
    // In Stable: the leader always rebalances, a follower only when it says something new.
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 2);
    let generation = desk.generation("g");
    let same = desk.join_now(&Joiner::default().id(&ids[1]));
    assert_eq!((same.error_code, same.generation_id, same.members.len()), (0, generation, 0));
    assert_eq!(desk.state("g"), Some(State::Stable));
    let leader = desk.join(&Joiner::default().id(&ids[0]));
    assert_eq!(desk.state("g"), Some(State::PreparingRebalance));
    assert_eq!(desk.heartbeat("g", &ids[1], generation), ErrorCode::RebalanceInProgress);
    desk.join_now(&Joiner::default().id(&ids[1]));
    assert_eq!(desk.joined(leader).unwrap().generation_id, generation + 1);

    // In CompletingRebalance: a repetition gets the same answer, a change begins anew.
    let again = desk.join_now(&Joiner::default().id(&ids[0]));
    assert_eq!((again.generation_id, again.members.len()), (generation + 1, 2));
    let change = desk.join(&Joiner::default().id(&ids[1]).reads(&["t", "u"]));
    assert_eq!(desk.joined(change), None);
    assert_eq!(desk.state("g"), Some(State::PreparingRebalance));

    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 2);
    let change = desk.join(&Joiner::default().id(&ids[1]).reads(&["u"]));
    assert_eq!(desk.joined(change), None);
    assert_eq!(desk.state("g"), Some(State::PreparingRebalance));
}

#[test]
fn a_dead_member_is_noticed_and_its_work_goes_to_the_others() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 2);
    let generation = desk.generation("g");
    for _ in 0..4 {
        desk.pass(5_000);
        desk.heartbeat("g", &ids[0], generation);
    }
    assert_eq!(desk.members("g"), [ids[0].clone()]);
    assert_eq!(desk.heartbeat("g", &ids[0], generation), ErrorCode::RebalanceInProgress);
    assert_eq!(desk.heartbeat("g", &ids[1], generation), ErrorCode::UnknownMemberId);
    let alone = desk.join_now(&Joiner::default().id(&ids[0]));
    assert_eq!((alone.generation_id, alone.members.len()), (generation + 1, 1));
}

#[test]
fn waiting_is_no_reason_to_lose_a_session_but_new_members_do_not_wait_forever() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default().rebalance_ms(1_000_000), 2);
    let back = desk.join(&Joiner::default().rebalance_ms(1_000_000).id(&ids[0]));
    let new_id = desk.member_id(&Joiner::default());
    let new = desk.join(&Joiner::default().id(&new_id));
    // The absent one keeps everybody waiting as long as it heartbeats.
    for _ in 0..59 {
        desk.pass(5_000);
        assert_eq!(desk.heartbeat("g", &ids[1], 2), ErrorCode::RebalanceInProgress);
    }
    assert_eq!(desk.joined(new), None);
    desk.pass(5_000);
    assert_eq!(desk.joined(new).unwrap().error_code, ErrorCode::UnknownMemberId.code(), "five minutes are enough");
    assert_eq!(desk.joined(back), None, "a known member waits on");
    assert_eq!(desk.members("g").len(), 2);
}

#[test]
fn a_group_that_loses_its_last_member_is_empty_and_says_so_in_the_log() {
    let mut desk = Desk::quick();
    desk.stable(&Joiner::default(), 2);
    let generation = desk.generation("g");
    desk.pass(10_000);
    desk.pass(60_000);
    assert_eq!(desk.state("g"), Some(State::Empty));
    assert!(desk.generation("g") > generation);
    let replayed = desk.replayed();
    let group = replayed.group("g").unwrap();
    assert_eq!((group.state(), group.generation()), (State::Empty, desk.generation("g")));
    assert_eq!(group.protocol_type(), Some("consumer"));
}

#[test]
fn a_timeout_of_zero_or_less_ends_at_once_and_only_once() {
    for ms in [0, -1, i32::MIN] {
        let mut desk = Desk::quick();
        let ids = desk.stable(&Joiner::default().rebalance_ms(ms), 1);
        let other = desk.member_id(&Joiner::default().rebalance_ms(ms));
        desk.join(&Joiner::default().rebalance_ms(ms).id(&other));
        desk.pass(10);
        assert_ne!(desk.members("g").first(), Some(&ids[0]));
    }
}
