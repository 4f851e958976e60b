//! The rules one by one; `model_test.rs` runs them together.

use super::*;

const LAG: i64 = 30_000;

fn rules(min_isr: i32) -> Rules {
    Rules { min_isr, lag_max_ms: LAG }
}

fn live() -> LiveBrokers {
    [(1, 10), (2, 20), (3, 30)].into()
}

fn assigned(isr: &[i32], partition_epoch: i32) -> Assigned {
    Assigned { leader_epoch: 5, partition_epoch, replicas: vec![1, 2, 3], isr: isr.to_vec(), recovering: false }
}

/// Broker 1 leads from offset 100 on, and knew 80 as committed.
fn leader(isr: &[i32], min_isr: i32) -> Leader {
    Leader::new(1, assigned(isr, 7), rules(min_isr), 100, 80, 0)
}

fn fetch(leader: &mut Leader, follower: i32, offset: i64, now_ms: i64) -> Result<(), ErrorCode> {
    let epoch = i64::from(follower) * 10;
    let progress = Progress { follower, broker_epoch: epoch, fetch_offset: offset, log_start: 0, sent_after: 0 };
    let end = leader.log_end;
    leader.on_fetch(progress, end, now_ms, &live())
}

#[test]
fn the_high_watermark_is_what_all_in_sync_have() {
    let mut leader = leader(&[1, 2, 3], 2);
    assert_eq!(leader.on_append(110, &live()), 80);
    fetch(&mut leader, 2, 110, 0).unwrap();
    assert_eq!(leader.high_watermark(), 80);
    fetch(&mut leader, 3, 105, 0).unwrap();
    assert_eq!(leader.high_watermark(), 105);
    fetch(&mut leader, 3, 90, 0).unwrap();
    assert_eq!(leader.high_watermark(), 105, "it does not go back");
}

#[test]
fn a_single_replica_needs_nobody() {
    let one = Assigned { replicas: vec![1], isr: vec![1], ..assigned(&[1], 0) };
    let mut leader = Leader::new(1, one, rules(2), 100, 100, 0);
    assert!(leader.has_min_isr());
    assert_eq!(leader.on_append(101, &live()), 101);
}

#[test]
fn a_leader_makes_way_only_where_the_others_can_take_writes() {
    assert!(leader(&[1, 2, 3], 2).is_dispensable());
    assert!(!leader(&[1, 2], 2).is_dispensable(), "one is less than min ISR");
    assert!(leader(&[1, 2], 1).is_dispensable());
    assert!(!leader(&[1], 1).is_dispensable(), "nobody else has it all");
    let one = Assigned { replicas: vec![1], isr: vec![1], ..assigned(&[1], 0) };
    assert!(!Leader::new(1, one, rules(2), 100, 100, 0).is_dispensable());
}

#[test]
fn own_records_count_only_once_they_are_told_of() {
    let mut leader = leader(&[1, 2], 1);
    let progress = Progress { follower: 2, broker_epoch: 20, fetch_offset: 120, log_start: 0, sent_after: 0 };
    leader.on_fetch(progress, 120, 0, &live()).unwrap();
    assert_eq!(leader.high_watermark(), 100, "the leader's own log is not flushed");
    assert_eq!(leader.on_append(120, &live()), 120);
}

#[test]
fn below_min_isr_nothing_is_committed() {
    let mut leader = leader(&[1], 2);
    assert!(!leader.has_min_isr());
    assert_eq!(leader.on_append(110, &live()), 80);
    // A replica that is about to join makes no difference until the controller has agreed.
    fetch(&mut leader, 2, 110, 0).unwrap();
    let proposal = leader.expansion(2, 0, &live()).unwrap();
    assert_eq!(leader.advance(&live()), 80);
    let done = Verdict::Done { leader_epoch: 5, partition_epoch: 8, isr: vec![1, 2], recovering: false };
    assert_eq!(leader.on_verdict(proposal.id, done), After::Settled);
    assert_eq!(leader.advance(&live()), 110);
}

#[test]
fn who_is_waited_for_is_known_so_that_no_throttle_holds_it_back() {
    let mut leader = leader(&[1, 3], 1);
    leader.on_append(110, &live());
    assert!(leader.waits_for(3, &live()), "in sync");
    fetch(&mut leader, 2, 50, 0).unwrap();
    assert!(!leader.waits_for(2, &live()), "far behind");
    fetch(&mut leader, 2, 110, 1).unwrap();
    fetch(&mut leader, 3, 110, 1).unwrap();
    leader.on_append(120, &live());
    fetch(&mut leader, 3, 120, 2).unwrap();
    assert_eq!(leader.high_watermark(), 110, "the other one had everything a moment ago");
    assert!(leader.waits_for(2, &live()));
    assert!(!leader.waits_for(2, &LiveBrokers::from([(1, 10), (3, 30)])), "gone");
    fetch(&mut leader, 3, 120, LAG + 2).unwrap();
    assert!(!leader.waits_for(2, &live()) && leader.high_watermark() == 120, "not for ever");
}

#[test]
fn who_joins_must_have_all_that_is_committed_and_all_of_earlier_epochs() {
    let mut leader = leader(&[1], 1);
    assert_eq!(leader.on_append(110, &live()), 110);
    fetch(&mut leader, 2, 109, 0).unwrap();
    assert_eq!(leader.expansion(2, 0, &live()), None, "below the high watermark");
    fetch(&mut leader, 2, 110, 1).unwrap();
    let proposal = leader.expansion(2, 0, &live()).unwrap();
    assert_eq!((proposal.partition_epoch, proposal.isr.clone()), (7, vec![(1, -1), (2, 20)]));
    assert_eq!(leader.expansion(3, 0, &live()), None, "one proposal at a time");
    // While the controller thinks about it, the newcomer counts already.
    assert_eq!(leader.on_append(120, &live()), 110);
    assert_eq!(leader.on_verdict(proposal.id, Verdict::Refused(ErrorCode::IneligibleReplica)), After::Settled);
    assert_eq!(leader.pending(), None);

    let mut behind = Leader::new(1, assigned(&[1, 3], 7), rules(1), 100, 80, 0);
    fetch(&mut behind, 2, 90, 0).unwrap();
    assert_eq!(behind.expansion(2, 0, &live()), None, "below the start of the epoch");
}

#[test]
fn who_still_has_deleted_records_cannot_join() {
    let mut leader = leader(&[1], 1);
    let progress = |log_start| Progress { follower: 2, broker_epoch: 20, fetch_offset: 100, log_start, sent_after: 0 };
    leader.on_fetch(progress(40), 100, 0, &live()).unwrap();
    assert_eq!(leader.expansion(2, 50, &live()), None);
    leader.on_fetch(progress(50), 100, 0, &live()).unwrap();
    assert!(leader.expansion(2, 50, &live()).is_some());
}

#[test]
fn the_fenced_and_the_reborn_cannot_join() {
    let mut leader = leader(&[1], 1);
    fetch(&mut leader, 2, 100, 0).unwrap();
    let fenced: LiveBrokers = [(1, 10)].into();
    assert_eq!(leader.expansion(2, 0, &fenced), None);
    let reborn: LiveBrokers = [(1, 10), (2, 21)].into();
    assert_eq!(leader.expansion(2, 0, &reborn), None);
    let old = Progress { follower: 2, broker_epoch: 20, fetch_offset: 100, log_start: 0, sent_after: 0 };
    assert_eq!(leader.on_fetch(old, 100, 0, &reborn), Err(ErrorCode::NotLeaderOrFollower));
    let stranger = Progress { follower: 9, ..old };
    assert_eq!(leader.on_fetch(stranger, 100, 0, &live()), Err(ErrorCode::UnknownLeaderEpoch));
}

#[test]
fn a_fetch_that_does_not_say_in_which_life_counts_for_nothing() {
    let mut leader = leader(&[1, 2], 1);
    leader.on_append(110, &live());
    fetch(&mut leader, 2, 105, 0).unwrap();
    let nameless = Progress { follower: 2, broker_epoch: -1, fetch_offset: 110, log_start: 0, sent_after: 0 };
    assert_eq!(leader.on_fetch(nameless, 110, 0, &live()), Err(ErrorCode::NotLeaderOrFollower));
    assert_eq!(leader.high_watermark(), 105);
    let nameless = Progress { follower: 3, ..nameless };
    assert_eq!(leader.on_fetch(nameless, 110, 0, &live()), Err(ErrorCode::NotLeaderOrFollower));
    assert_eq!(leader.expansion(3, 0, &live()), None);
}

#[test]
fn who_lags_too_long_is_dropped() {
    let mut leader = leader(&[1, 2, 3], 1);
    leader.on_append(110, &live());
    fetch(&mut leader, 2, 110, 10).unwrap();
    fetch(&mut leader, 3, 105, 10).unwrap();
    assert_eq!(leader.shrinking(110, LAG), None, "the time since the election is not over");
    let proposal = leader.shrinking(110, LAG + 1).unwrap();
    assert_eq!(proposal.isr, [(1, -1), (2, 20)]);
    // Until the controller agrees, the one to be dropped still counts.
    assert_eq!(leader.advance(&live()), 105);
    assert_eq!(leader.on_verdict(proposal.id, Verdict::Refused(ErrorCode::NotController)), After::Again);
    assert_eq!(leader.pending(), Some(proposal.clone()));
    let done = Verdict::Done { leader_epoch: 5, partition_epoch: 8, isr: vec![1, 2], recovering: false };
    leader.on_verdict(proposal.id, done);
    assert_eq!(leader.advance(&live()), 110);
}

#[test]
fn a_fetch_that_reaches_what_was_there_at_the_last_one_counts_as_caught_up_then() {
    let mut leader = leader(&[1, 2], 1);
    for round in 1..100 {
        // The follower never reaches the end, but always what was there when it fetched last.
        let end = leader.log_end;
        leader.on_append(end + 10, &live());
        let progress = Progress { follower: 2, broker_epoch: 20, fetch_offset: end, log_start: 0, sent_after: 0 };
        leader.on_fetch(progress, end + 10, round * 1000, &live()).unwrap();
        assert_eq!(leader.shrinking(end + 10, round * 1000), None);
    }
}

#[test]
fn a_leader_led_until_all_that_may_be_elected_followed_it() {
    let mut leader = leader(&[1, 2], 1);
    let followed = |leader: &mut Leader, id: i32, sent_after: u64| {
        let epoch = i64::from(id) * 10;
        let progress = Progress { follower: id, broker_epoch: epoch, fetch_offset: 100, log_start: 0, sent_after };
        leader.on_fetch(progress, 100, 0, &live()).unwrap();
    };
    assert_eq!(leader.led_until(), 0);
    followed(&mut leader, 2, 7);
    assert_eq!(leader.led_until(), 7);
    followed(&mut leader, 2, 5);
    assert_eq!(leader.led_until(), 7, "a fetch that was under way for longer takes nothing back");
    followed(&mut leader, 3, 4);
    assert_eq!(leader.led_until(), 7, "it cannot be elected");
    // From now on it may be, whether or not the answer of the controller arrives.
    leader.expansion(3, 0, &live()).expect("it has caught up");
    assert_eq!(leader.led_until(), 4);
    leader.assign(assigned(&[1], 8), 0);
    assert_eq!(leader.led_until(), u64::MAX, "nobody else can be elected");
    let mut again = Leader::new(1, Assigned { leader_epoch: 6, ..assigned(&[1, 2], 9) }, rules(1), 100, 100, 0);
    assert_eq!(again.led_until(), 0, "what was said in one epoch does not count in the next");
    followed(&mut again, 2, 9);
    assert_eq!(again.led_until(), 9);
}

#[test]
fn an_answer_to_an_older_proposal_changes_nothing() {
    let mut leader = leader(&[1, 2, 3], 1);
    let old = leader.shrinking(200, LAG + 1).unwrap();
    leader.assign(assigned(&[1, 2], 9), 0);
    assert_eq!(leader.pending(), None);
    let done = Verdict::Done { leader_epoch: 5, partition_epoch: 8, isr: vec![1], recovering: false };
    assert_eq!(leader.on_verdict(old.id, done), After::Settled);
    assert_eq!(leader.assigned().isr, [1, 2]);
    leader.assign(assigned(&[1, 2, 3], 8), 0);
    assert_eq!(leader.assigned().isr, [1, 2], "older news");
}

#[test]
fn a_version_conflict_waits_for_the_controllers_news() {
    let mut leader = leader(&[1], 1);
    fetch(&mut leader, 2, 100, 0).unwrap();
    let proposal = leader.expansion(2, 0, &live()).unwrap();
    let refused = Verdict::Refused(ErrorCode::InvalidUpdateVersion);
    assert_eq!(leader.on_verdict(proposal.id, refused), After::Settled);
    // The expansion may have been made: the newcomer counts until we know.
    assert_eq!(leader.on_append(105, &LiveBrokers::new()), 100);
    leader.assign(assigned(&[1], 8), 0);
    assert_eq!(leader.on_append(105, &LiveBrokers::new()), 105);
}

/// Found by the simulator: a proposal that was on its way for long was carried out after the same one, sent again, had been
/// refused, and the newcomer was in sync without what had been committed meanwhile.
#[test]
fn a_proposal_that_may_still_be_on_its_way_counts_until_it_cannot_be_carried_out_any_more() {
    let mut leader = leader(&[1], 1);
    fetch(&mut leader, 2, 100, 0).unwrap();
    let proposal = leader.expansion(2, 0, &live()).unwrap();
    assert_eq!(leader.send(), Some(proposal.clone()));
    assert_eq!(leader.send(), Some(proposal.clone()), "no answer came");
    let premature = || Verdict::Refused(ErrorCode::IneligibleReplica);
    assert_eq!(leader.on_verdict(proposal.id, premature()), After::Again);
    assert_eq!(leader.on_append(105, &LiveBrokers::new()), 100);
    let withdrawal = leader.send().unwrap();
    assert_eq!((withdrawal.partition_epoch, &withdrawal.isr[..]), (7, &[(1, -1)][..]), "what there is");
    assert_eq!(leader.on_verdict(withdrawal.id, premature()), After::Again);
    assert_eq!(leader.on_append(110, &LiveBrokers::new()), 100);
    let done = Verdict::Done { leader_epoch: 5, partition_epoch: 8, isr: vec![1], recovering: false };
    assert_eq!(leader.on_verdict(withdrawal.id, done), After::Settled);
    assert_eq!(leader.on_append(110, &LiveBrokers::new()), 110);
}

#[test]
fn a_replica_to_read_from_is_in_sync_and_has_the_offset() {
    let mut leader = leader(&[1, 2], 1);
    fetch(&mut leader, 2, 90, 0).unwrap();
    fetch(&mut leader, 3, 100, 0).unwrap();
    assert_eq!(leader.read_replica(85, &[2, 3]), Some(2));
    assert_eq!(leader.read_replica(95, &[2, 3]), None);
    assert_eq!(leader.read_replica(85, &[3]), None);
    assert_eq!(leader.low_watermark(40, &live()), 0);
    assert_eq!(leader.low_watermark(40, &LiveBrokers::new()), 40);
}

#[test]
fn a_proposal_that_is_sent_again_does_not_speak_for_a_later_life_of_a_member() {
    let mut leader = leader(&[1, 2], 2);
    fetch(&mut leader, 3, 100, 0).unwrap();
    let proposal = leader.expansion(3, 0, &live()).expect("it has caught up");
    assert_eq!(proposal.isr, [(1, -1), (2, -1), (3, 30)]);
    // It went down with what it had, and is back under another registration.
    let back = Progress { follower: 3, broker_epoch: 31, fetch_offset: 50, log_start: 0, sent_after: 0 };
    leader.on_fetch(back, 100, 0, &[(1, 10), (2, 20), (3, 31)].into()).unwrap();
    assert_eq!(leader.pending(), Some(proposal));
}
