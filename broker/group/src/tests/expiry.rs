//! Offsets and groups that lapse, and those that never do.

use klamm_protocol::messages::OffsetCommitRequest;

use super::*;

const DAY: i64 = 24 * 3_600_000;
const CHECK: i64 = 600_000;

#[test]
fn offsets_without_a_group_last_seven_days_from_the_commit() {
    let mut desk = Desk::quick();
    desk.commit("g", "", -1, "t", (0, 5));
    desk.pass(6 * DAY);
    desk.commit("g", "", -1, "t", (1, 6));
    desk.pass(DAY - CHECK);
    assert_eq!(desk.fetch("g", "t", 0), 5);
    desk.pass(2 * CHECK);
    assert_eq!((desk.fetch("g", "t", 0), desk.fetch("g", "t", 1)), (-1, 6));
    desk.pass(7 * DAY);
    for c in [&desk.c, &desk.replayed()] {
        assert_eq!((c.committed_len(), c.groups().count()), (0, 0), "the group goes with its last offset");
    }
    assert_eq!(desk.c.counters().offset_expirations, 2);
}

#[test]
fn offsets_of_a_group_last_seven_days_from_when_it_became_empty() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default().session_ms(1_800_000), 1);
    let generation = desk.generation("g");
    desk.commit("g", &ids[0], generation, "t", (0, 5));
    for _ in 0..10 * 48 {
        desk.pass(DAY / 48 - 1_000);
        assert_eq!(desk.heartbeat("g", &ids[0], generation), ErrorCode::None);
    }
    assert_eq!(desk.fetch("g", "t", 0), 5, "ten days old, but read");
    desk.leave("g", &[(&ids[0], None)], 5);
    desk.pass(7 * DAY - CHECK);
    assert_eq!(desk.fetch("g", "t", 0), 5);
    desk.restart();
    desk.pass(2 * CHECK);
    assert_eq!(desk.state("g"), None, "when it became empty survives a restart");
    assert_eq!(desk.replayed().committed_len(), 0);
}

#[test]
fn a_topic_the_group_no_longer_reads_lapses_while_the_group_lives() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default().reads(&["t"]).session_ms(1_800_000), 1);
    let generation = desk.generation("g");
    desk.commit("g", &ids[0], generation, "t", (0, 5));
    desk.commit("g", &ids[0], generation, "u", (0, 6));
    let opaque = Joiner { protocols: vec![("x", vec![1].into())], ..Joiner::of("opaque") };
    let others = desk.stable(&opaque.session_ms(1_800_000), 1);
    let other_generation = desk.generation("opaque");
    desk.commit("opaque", &others[0], other_generation, "u", (0, 7));
    for _ in 0..8 * 96 {
        desk.pass(DAY / 96);
        desk.heartbeat("g", &ids[0], generation);
        desk.heartbeat("opaque", &others[0], other_generation);
    }
    assert_eq!((desk.fetch("g", "t", 0), desk.fetch("g", "u", 0)), (5, -1));
    assert_eq!(desk.fetch("opaque", "u", 0), 7, "nobody knows what that one reads");
    assert_eq!(desk.state("g"), Some(State::Stable));
}

#[test]
fn versions_2_to_4_may_ask_for_a_time_of_their_own() {
    let mut desk = Desk::quick();
    let request = OffsetCommitRequest { retention_time_ms: 3 * DAY, ..commit_of("g", "", -1, "t", (0, 5)) };
    desk.commit_request(&request, 4);
    desk.restart();
    desk.pass(3 * DAY - CHECK);
    assert_eq!(desk.fetch("g", "t", 0), 5);
    desk.pass(2 * CHECK);
    assert_eq!(desk.fetch("g", "t", 0), -1);
}

#[test]
fn a_group_with_neither_members_nor_offsets_goes_at_the_next_look() {
    let mut desk = Desk::quick();
    let ids = desk.stable(&Joiner::default(), 1);
    desk.leave("g", &[(&ids[0], None)], 5);
    desk.pass(CHECK);
    assert_eq!(desk.state("g"), None);
    assert_eq!(desk.replayed().groups().count(), 0);
    // Not while someone has an id to join with.
    let mut desk = Desk::quick();
    let patient = Joiner::default().session_ms(1_800_000);
    let id = desk.member_id(&patient);
    desk.pass(2 * CHECK);
    assert_eq!(desk.join_now(&patient.id(&id)).error_code, 0);
}

#[test]
fn many_at_once_are_dealt_with_in_portions() {
    let mut desk = Desk::quick();
    desk.topics.set("wide", 5, 1_000);
    let groups: Vec<String> = (0..12).map(|i| format!("g{i:02}")).collect();
    for group in &groups {
        for p in 0..1_000 {
            desk.commit(group, "", -1, "wide", (p, 1));
        }
    }
    desk.now += 8 * DAY;
    let mut steps = Vec::new();
    while desk.c.next_deadline().is_some_and(|at| at <= desk.now) {
        let step = desk.c.tick(desk.now);
        steps.push(step.records.len());
        desk.settle(step);
    }
    assert_eq!(steps.iter().sum::<usize>(), 12 * 1_001);
    assert!(steps.len() >= 2 && steps.iter().all(|&n| n <= 6_100), "{steps:?}");
    assert_eq!((desk.c.committed_len(), desk.replayed().groups().count()), (0, 0));
}
