//! One partition's change at a time: who leads, who is in sync, who is eligible, and what the record names.

use std::sync::LazyLock;

use super::*;

const T: Uuid = Uuid([9; 16]);

/// Nobody is in maintenance.
static EMPTY: LazyLock<Image> = LazyLock::new(|| Image::new("c"));

fn partition(isr: &[i32], elr: &[i32], leader: i32) -> Partition {
    Partition {
        replicas: vec![1, 2, 3],
        directories: vec![Uuid::ZERO; 3],
        isr: isr.to_vec(),
        removing_replicas: Vec::new(),
        adding_replicas: Vec::new(),
        leader,
        leader_epoch: 5,
        partition_epoch: 8,
        leader_recovery_state: RECOVERED,
        elr: elr.to_vec(),
        last_known_elr: Vec::new(),
    }
}

fn change(before: &Partition) -> PartitionChange<'_> {
    PartitionChange::new(&EMPTY, before, T, 0, Policy { min_isr: 2, unclean: false })
}

fn merged(before: &Partition, change: PartitionChange<'_>, alive: &[i32]) -> Partition {
    let mut after = before.clone();
    if let Some(record) = change.build(&|id| alive.contains(&id)) {
        after.merge(&record);
    }
    after
}

#[test]
fn a_leader_that_goes_is_followed_by_one_in_sync() {
    let before = partition(&[1, 2, 3], &[], 1);
    let record = change(&before).without(1).build(&|id| id != 1).unwrap();
    let expected = PartitionChangeRecord {
        topic_id: T,
        partition_id: 0,
        leader: 2,
        isr: Some(vec![2, 3]),
        ..PartitionChangeRecord::default()
    };
    assert_eq!(record, expected, "names what differs and nothing else");
    let after = merged(&before, change(&before).without(1), &[2, 3]);
    assert_eq!((after.leader_epoch, after.partition_epoch), (6, 9));
}

#[test]
fn a_smaller_isr_alone_starts_no_leader_epoch() {
    let before = partition(&[1, 2, 3], &[], 1);
    let after = merged(&before, change(&before).without(3), &[1, 2]);
    assert_eq!((after.isr, after.leader_epoch, after.partition_epoch), (vec![1, 2], 5, 9));
    assert_eq!(change(&before).build(&|_| true), None, "nothing to change");
}

#[test]
fn below_min_isr_former_members_stay_eligible_until_it_is_met_again() {
    let before = partition(&[1, 2], &[], 1);
    let one = merged(&before, change(&before).without(1), &[2]);
    assert_eq!((one.leader, &one.isr, &one.elr), (2, &vec![2], &vec![1]));
    let none = merged(&one, change(&one).without(2), &[]);
    assert_eq!((none.leader, &none.isr, &none.elr), (NO_LEADER, &vec![], &vec![1, 2]));
    assert_eq!(none.last_known_elr, [2]);
    let back = merged(&none, change(&none), &[1, 3]);
    assert_eq!((back.leader, &back.isr, &back.elr), (1, &vec![1], &vec![2]));
    assert_eq!((back.leader_recovery_state, &back.last_known_elr), (RECOVERED, &vec![]));
    let mut grown = change(&back);
    grown.isr = vec![1, 3];
    let full = merged(&back, grown, &[1, 3]);
    assert_eq!((full.isr, full.elr), (vec![1, 3], vec![]));
}

#[test]
fn without_an_eligible_replica_nobody_leads_unless_loss_is_allowed() {
    let before = partition(&[1], &[], 1);
    let gone = merged(&before, change(&before).distrust(1), &[2, 3]);
    assert_eq!((gone.leader, &gone.isr, &gone.elr), (NO_LEADER, &vec![], &vec![]));
    let mut lossy = change(&before).distrust(1);
    lossy.election = Election::Unclean;
    let lost = merged(&before, lossy, &[2, 3]);
    assert_eq!((lost.leader, &lost.isr, lost.leader_recovery_state), (2, &vec![2], RECOVERING));
    // The last leader comes back with its disk, or without it.
    let last = merged(&gone, change(&gone), &[1, 2, 3]);
    assert_eq!((last.leader, &last.isr, last.leader_recovery_state), (1, &vec![1], RECOVERING));
    assert_eq!(last.last_known_elr, [0; 0]);
    let forgotten = merged(&gone, change(&gone).forget(1), &[1, 2, 3]);
    assert_eq!((forgotten.leader, &forgotten.last_known_elr), (NO_LEADER, &vec![]));
}

#[test]
fn the_preferred_replica_leads_again_when_asked() {
    let before = partition(&[1, 2, 3], &[], 3);
    assert_eq!(change(&before).build(&|_| true), None);
    let mut preferred = change(&before);
    preferred.election = Election::Preferred;
    assert_eq!(merged(&before, preferred.clone(), &[1, 2, 3]).leader, 1);
    assert_eq!(merged(&before, preferred, &[2, 3]).leader, 3, "the present leader, not just any");
}

#[test]
fn a_reassignment_ends_when_what_it_brings_is_in_sync() {
    let mut before = partition(&[1, 2], &[], 1);
    (before.replicas, before.directories) = (vec![3, 4, 1, 2], vec![Uuid::ZERO; 4]);
    (before.adding_replicas, before.removing_replicas) = (vec![3, 4], vec![1, 2]);
    let mut half = change(&before);
    half.isr = vec![1, 2, 3];
    let half = merged(&before, half, &[1, 2, 3, 4]);
    assert_eq!((half.leader, half.replicas.len(), half.leader_epoch), (1, 4, 5));
    let mut all = change(&half);
    all.isr = vec![1, 2, 3, 4];
    let done = merged(&half, all, &[1, 2, 3, 4]);
    assert_eq!((&done.replicas, &done.isr, done.leader), (&vec![3, 4], &vec![3, 4], 3));
    assert_eq!((done.leader_epoch, done.is_reassigning(), done.directories.len()), (6, false, 2));
    // Fewer replicas: what stays has to be in sync before anything goes.
    (before.replicas, before.adding_replicas, before.removing_replicas) = (vec![3, 1, 2], vec![], vec![1, 2]);
    before.directories = vec![Uuid::ZERO; 3];
    assert_eq!(change(&before).build(&|_| true), None);
    let mut smaller = change(&before);
    smaller.isr = vec![1, 2, 3];
    let smaller = merged(&before, smaller, &[1, 2, 3]);
    assert_eq!((smaller.replicas, smaller.leader), (vec![3], 3));
}

#[test]
fn who_leads_out_of_the_elr_leaves_none_when_it_alone_is_enough_by_now() {
    let mut before = partition(&[], &[1, 2], NO_LEADER);
    before.last_known_elr = vec![2];
    let lowered = PartitionChange::new(&EMPTY, &before, T, 0, Policy { min_isr: 1, unclean: false });
    let after = merged(&before, lowered, &[1]);
    assert_eq!((after.leader, &after.isr, &after.elr), (1, &vec![1], &vec![]), "2 won't have what 1 commits");
}
