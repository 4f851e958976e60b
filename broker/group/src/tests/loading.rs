//! A coordinator that takes over a partition, and one that gives it away.

use super::*;

#[test]
fn members_go_on_after_a_restart_as_if_nothing_had_happened() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 3);
    let generation = desk.generation("g");
    desk.restart();
    assert_eq!(desk.state("g"), Some(State::Stable));
    let group = desk.c.group("g").unwrap();
    assert_eq!(
        (group.leader(), group.protocol(), group.generation()),
        (Some(ids[0].as_str()), Some("range"), generation)
    );
    for (i, id) in ids.iter().enumerate() {
        assert_eq!(desk.heartbeat("g", id, generation), ErrorCode::None);
        assert_eq!(desk.assignment("g", id), format!("a{i}"));
    }
    assert_eq!(desk.commit("g", &ids[1], generation, "t", (0, 5)), ErrorCode::None);
    let same = desk.join_now(&Joiner::default().id(&ids[1]));
    assert_eq!((same.error_code, same.generation_id), (0, generation));
}

#[test]
fn members_that_died_with_the_broker_time_out() {
    let mut desk = Desk::quick();
    desk.stable(&Joiner::default(), 2);
    desk.restart();
    desk.pass(9_999);
    assert_eq!(desk.members("g").len(), 2);
    desk.pass(60_001);
    assert_eq!(desk.state("g"), Some(State::Empty));
}

#[test]
fn a_rebalance_that_was_under_way_falls_back_to_the_generation_before() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 1);
    let generation = desk.generation("g");
    desk.join(&Joiner::default().version(3));
    desk.join_now(&Joiner::default().id(&ids[0]));
    assert_eq!(desk.generation("g"), generation + 1);
    desk.restart();
    assert_eq!((desk.state("g"), desk.generation("g")), (Some(State::Stable), generation));
    assert_eq!(desk.heartbeat("g", &ids[0], generation + 1), ErrorCode::IllegalGeneration);
}

#[test]
fn a_group_above_a_lowered_limit_rebalances_when_loaded() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 3);
    desk.c.set_config(Config { group_members_max: 2, ..Config::default() });
    desk.restart();
    assert_eq!(desk.state("g"), Some(State::PreparingRebalance));
    let tickets: Vec<_> = ids.iter().map(|id| desk.join(&Joiner::default().id(id))).collect();
    let codes: Vec<_> = tickets.into_iter().map(|t| desk.joined(t).unwrap().error_code).collect();
    assert_eq!(codes, [0, 0, ErrorCode::GroupMaxSizeReached.code()]);
}

#[test]
fn who_waits_is_told_that_the_coordinator_moved() {
    let mut desk = Desk::default();
    let join = desk.join(&Joiner::of("a").version(3));
    let other = desk.join(&Joiner::of("b").version(3));
    let (one, two) = (desk.join(&Joiner::of("c").version(3)), desk.join(&Joiner::of("c").version(3)));
    desk.pass(6_000);
    let (leader, follower) = (desk.joined(one).unwrap().member_id, desk.joined(two).unwrap().member_id);
    assert_ne!(leader, follower);
    let sync = desk.sync("c", &follower, 1, &[]);
    desk.joined(join).unwrap();
    let late = desk.join(&Joiner::of("d").version(3));
    desk.joined(other).unwrap();
    let mut told: Vec<_> = desk.c.unload().into_iter().collect();
    told.sort_by_key(|(ticket, _)| *ticket);
    let not_coordinator = ErrorCode::NotCoordinator.code();
    match &told[..] {
        [(a, Answer::SyncGroup(s)), (b, Answer::JoinGroup(j))] => {
            assert_eq!((*a, *b), (sync, late));
            assert_eq!((s.error_code, j.error_code), (not_coordinator, not_coordinator));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((desk.c.groups().count(), desk.c.next_deadline()), (0, None));
}

#[test]
fn offsets_whose_group_record_is_gone_can_still_be_fetched() {
    let mut desk = Desk::quick();
    desk.commit("g", "", -1, "t", (0, 5));
    // As a group that changed its kind leaves it.
    let tombstone = crate::records::group_tombstone("g").unwrap();
    desk.log.push(tombstone);
    desk.restart();
    assert_eq!((desk.fetch("g", "t", 0), desk.state("g")), (5, Some(State::Empty)));
    desk.pass(8 * 24 * 3_600_000);
    assert_eq!(desk.state("g"), None);
}
