//! Partitions that a topic gains while a guarded group reads it.

use klamm_protocol::messages::OffsetDeleteRequest;
use klamm_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};

use super::*;

fn guarded() -> Desk {
    let mut desk = Desk::quick();
    desk.topics.guarded.push("g".into());
    desk
}

impl Desk {
    fn guard(&mut self) {
        let step = self.c.guard("g", &self.topics, self.now);
        self.settle(step);
    }

    fn fetched(&self) -> Vec<i64> {
        (0..6).map(|partition| self.fetch("g", "t", partition)).collect()
    }
}

#[test]
fn a_new_partition_begins_at_its_first_record_and_an_old_one_does_not() {
    let mut desk = guarded();
    assert_eq!(desk.fetched(), [-1; 6], "a group that starts is not guarded");
    // It commits where it has read something only.
    assert_eq!(desk.commit("g", "", -1, "t", (1, 5)), ErrorCode::None);
    assert_eq!(desk.fetched(), [-1, 5, -1, -1, 0, 0], "even before this broker hears of them");
    desk.topics.set("t", 1, 6);
    assert_eq!(desk.fetched(), [-1, 5, -1, -1, 0, 0]);
    desk.restart();
    assert_eq!(desk.fetched(), [-1, 5, -1, -1, 0, 0], "and after another one took over");
    let before = desk.log.len();
    desk.guard();
    assert_eq!(desk.log.len() - before, 3, "both are committed, and one says so besides");
    assert_eq!(desk.c.committed().filter(|(_, _, partition, entry)| *partition > 3 && entry.offset == 0).count(), 2);
    desk.guard();
    assert_eq!(desk.log.len() - before, 3, "once");
    desk.topics.guarded.clear();
    assert_eq!(desk.fetched(), [-1, 5, -1, -1, 0, 0], "what is committed stays");
}

#[test]
fn without_the_guard_nothing_is_new() {
    let mut desk = Desk::quick();
    assert_eq!(desk.commit("g", "", -1, "t", (0, 5)), ErrorCode::None);
    desk.topics.set("t", 1, 6);
    assert_eq!(desk.fetched(), [5, -1, -1, -1, -1, -1]);
    assert_eq!(desk.commit("g", "", -1, "t", (1, 5)), ErrorCode::None);
    assert_eq!(desk.log.len(), 2);
    // From here on only, since nobody knows what was new before.
    desk.topics.guarded.push("g".into());
    desk.guard();
    assert_eq!(desk.fetched(), [5, 5, -1, -1, -1, -1]);
    desk.topics.set("t", 1, 7);
    assert_eq!(desk.fetch("g", "t", 6), 0);
    assert_eq!(desk.fetch("h", "t", 6), -1);
}

#[test]
fn the_groups_own_commits_bring_the_new_partitions_with_them() {
    let mut desk = guarded();
    let ids = desk.stable(&Joiner::default(), 1);
    let generation = desk.generation("g");
    assert_eq!(desk.commit("g", &ids[0], generation, "t", (0, 5)), ErrorCode::None);
    desk.topics.set("t", 1, 6);
    assert_eq!(desk.commit("g", &ids[0], generation, "t", (5, 9)), ErrorCode::None);
    assert_eq!(desk.fetched(), [5, -1, -1, -1, 0, 9], "its own one stands");
    let live: Vec<_> = desk.c.committed().map(|(g, t, p, e)| (g.to_owned(), t.to_owned(), p, e.clone())).collect();
    desk.restart();
    assert!(desk.c.committed().map(|(g, t, p, e)| (g.to_owned(), t.to_owned(), p, e.clone())).eq(live));
    // A refused commit brings nothing.
    desk.topics.set("t", 1, 7);
    let before = desk.log.len();
    assert_eq!(desk.commit("g", "stranger", generation, "t", (0, 5)), ErrorCode::UnknownMemberId);
    assert_eq!(desk.log.len(), before);
}

#[test]
fn what_was_deleted_lapsed_or_made_anew_is_not_new() {
    let mut desk = guarded();
    for partition in 0..4 {
        assert_eq!(desk.commit("g", "", -1, "t", (partition, 5)), ErrorCode::None);
    }
    desk.topics.set("t", 1, 5);
    desk.guard();
    let topic = OffsetDeleteRequestTopic {
        name: "t".into(),
        partitions: [2, 4].map(|partition_index| OffsetDeleteRequestPartition { partition_index }).into(),
    };
    let (ticket, request) = (desk.ticket(), OffsetDeleteRequest { group_id: "g".into(), topics: vec![topic] });
    let step = desk.c.offset_delete(ticket, &request, &desk.topics);
    desk.settle(step);
    assert_eq!(desk.fetched()[..5], [5, 5, -1, 5, -1]);
    desk.guard();
    assert_eq!(desk.fetched()[..5], [5, 5, -1, 5, -1]);
    // A namesake is another topic: the group starts there.
    desk.topics.set("t", 9, 8);
    desk.guard();
    assert_eq!(desk.fetched(), [-1; 6]);
    desk.topics.set("t", 1, 5);
    desk.pass(8 * 24 * 3_600_000);
    assert_eq!(desk.fetched(), [-1; 6], "all has lapsed");
    desk.guard();
    assert_eq!(desk.c.committed().count(), 0);
}
