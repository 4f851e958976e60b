//! The log refuses: what was to be does not come to be, everybody is told, and later things go well again.

use super::*;

const DOWN: ErrorCode = ErrorCode::KafkaStorageError;
const TOLD: ErrorCode = ErrorCode::NotCoordinator;

#[test]
fn the_logs_errors_in_the_coordinators_words() {
    use ErrorCode::*;
    let cases = [
        (NotEnoughReplicas, CoordinatorNotAvailable),
        (RequestTimedOut, CoordinatorNotAvailable),
        (NotLeaderOrFollower, NotCoordinator),
        (KafkaStorageError, NotCoordinator),
        (MessageTooLarge, UnknownServerError),
        (RecordListTooLarge, UnknownServerError),
        (NotCoordinator, NotCoordinator),
    ];
    for (log, told) in cases {
        let mut desk = Desk::quick();
        desk.refuse_appends = Some(log);
        assert_eq!(desk.commit("g", "", -1, "t", (0, 5)), told);
        assert_eq!((desk.fetch("g", "t", 0), desk.state("g")), (-1, Option::None));
    }
}

#[test]
fn a_group_that_is_not_in_the_log_is_not_there() {
    for version in [3, 9] {
        let mut desk = Desk::default();
        desk.refuse_appends = Some(DOWN);
        let response = desk.join_now(&Joiner::default().version(version));
        assert_eq!(response.error_code, TOLD.code());
        assert_eq!(desk.state("g"), None);
        assert!(desk.c.next_deadline().is_none_or(|at| at >= desk.now + 600_000), "no timer is left behind");
        desk.refuse_appends = None;
        desk.stable(&Joiner::default(), 1);
    }
}

#[test]
fn an_assignment_that_is_not_in_the_log_reaches_nobody() {
    let mut desk = Desk::default();
    let joiner = Joiner::default().version(3);
    let (one, two) = (desk.join(&joiner), desk.join(&joiner));
    desk.pass(6_000);
    let (leader, follower) = (desk.joined(one).unwrap().member_id, desk.joined(two).unwrap().member_id);
    let parked = desk.sync("g", &follower, 1, &[]);
    desk.refuse_appends = Some(DOWN);
    let lead = desk.sync("g", &leader, 1, &[(&leader, "x"), (&follower, "y")]);
    for ticket in [lead, parked] {
        let response = desk.synced(ticket).unwrap();
        assert_eq!((response.error_code, response.assignment.len()), (TOLD.code(), 0));
    }
    assert_eq!(desk.state("g"), Some(State::PreparingRebalance));
    assert_eq!(desk.assignment("g", &leader), "");
    desk.refuse_appends = None;
    let ids = [leader, follower];
    desk.stabilize(&joiner, &ids);
}

#[test]
fn a_static_member_that_is_not_in_the_log_did_not_come_back() {
    let mut desk = Desk::quick();
    let member = Joiner::default().instance("i");
    let first = desk.join_now(&member).member_id;
    desk.sync("g", &first, 1, &[(&first, "mine")]);
    desk.refuse_appends = Some(DOWN);
    let response = desk.join_now(&member);
    assert_eq!((response.error_code, response.member_id.as_str()), (TOLD.code(), ""));
    assert_eq!(desk.members("g"), std::slice::from_ref(&first));
    assert_eq!(desk.heartbeat("g", &first, 1), ErrorCode::None, "the old id still stands");
    desk.refuse_appends = None;
    let again = desk.join_now(&member);
    assert_eq!(again.error_code, 0);
    assert_eq!(desk.assignment("g", &again.member_id), "mine");
}

#[test]
fn that_a_group_is_empty_is_written_as_soon_as_the_log_takes_it() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 1);
    desk.refuse_appends = Some(DOWN);
    let response = desk.leave("g", &[(&ids[0], None)], 5);
    assert_eq!(response.error_code, TOLD.code());
    assert_eq!(desk.state("g"), Some(State::Empty));
    assert_eq!(desk.replayed().group("g").unwrap().state(), State::Stable);
    desk.pass(60_000);
    desk.refuse_appends = None;
    desk.pass(10_000);
    assert_eq!(desk.replayed().group("g").unwrap().state(), State::Empty);
    assert_eq!(desk.replayed().group("g").unwrap().generation(), desk.generation("g"));
}

#[test]
fn what_was_to_be_deleted_stays() {
    let mut desk = Desk::quick();
    desk.commit("g", "", -1, "t", (0, 5));
    desk.refuse_appends = Some(DOWN);
    let step = desk.c.delete_groups(1, ["g", "none"]);
    desk.settle(step);
    let Some(Answer::DeleteGroups(results)) = desk.take(1) else { panic!() };
    let codes: Vec<_> = results.iter().map(|r| ErrorCode::from_code(r.error_code)).collect();
    assert_eq!(codes, [TOLD, ErrorCode::GroupIdNotFound]);
    let step = desk.c.on_topics_deleted(&[("t".into(), topic_id(1))]);
    desk.settle(step);
    desk.now += 8 * 24 * 3_600_000;
    let step = desk.c.tick(desk.now);
    assert!(!step.records.is_empty());
    desk.settle(step);
    assert_eq!((desk.fetch("g", "t", 0), desk.state("g")), (5, Some(State::Empty)));
    desk.refuse_appends = None;
    desk.pass(600_000);
    assert_eq!(desk.c.groups().count(), 0);
}

#[test]
fn a_tick_that_fails_spares_whom_it_does_not_concern() {
    let mut desk = Desk::default();
    // One group ends its first rebalance in the very moment another loses its last member.
    let ids = desk.stable(&Joiner::of("dies").version(9).session_ms(6_000), 1);
    desk.pass(3_000);
    desk.refuse_appends = None;
    let joins = desk.join(&Joiner::of("lives").version(3));
    desk.refuse_appends = Some(DOWN);
    assert!(!ids.is_empty());
    desk.now += 10_000;
    let step = desk.c.tick(desk.now);
    assert!(!step.records.is_empty());
    desk.settle(step);
    assert_eq!(desk.joined(joins).unwrap().error_code, 0);
    assert_eq!(desk.state("dies"), Some(State::Empty));
}
