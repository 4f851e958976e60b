//! Whatever comes in, and whenever the operator is killed: the number stays within bounds, nobody waits unread at zero,
//! and it is not changed back and forth.

use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::replicas::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn policy() -> Policy {
    Policy {
        least: 0,
        most: 10,
        per_replica: 100,
        wakes_at: 1,
        up: Duration::from_secs(30),
        down: Duration::from_secs(300),
        idle: false,
    }
}

fn facts(lags: &[i64], asked: i32) -> Facts {
    let members = usize::try_from(asked).unwrap();
    Facts { lags: lags.to_vec(), asked, there: asked, members, ..Facts::default() }
}

/// Looks every ten seconds from `from` to `to`, and notes; answers the first look that changes the number.
fn changes(facts: &mut Facts, policy: &Policy, from: i64, to: i64) -> Option<(i64, i32, Why)> {
    for second in (from..=to).step_by(10) {
        let answer = facts.next(policy, at(second));
        facts.pending = answer.pending;
        if answer.replicas != facts.asked {
            return Some((second, answer.replicas, answer.why));
        }
    }
    None
}

/// A group whose consumers read as they can.
#[derive(Clone, Debug)]
struct World {
    facts: Facts,
    seconds: i64,
}

impl World {
    fn live(&mut self, comes: &[i64], fast: i64) {
        self.seconds += 10;
        self.facts.there += (self.facts.asked - self.facts.there).signum();
        self.facts.members = usize::try_from(self.facts.there).unwrap();
        for (lag, comes) in self.facts.lags.iter_mut().zip(comes) {
            *lag += comes;
        }
        for (place, lag) in self.facts.lags.iter_mut().enumerate() {
            // Members that have several partitions read each of them slower.
            if let Some(others) = place.checked_div(self.facts.members) {
                *lag = (*lag - fast / i64::try_from(1 + others).unwrap()).max(0);
            }
        }
    }
}

fn policies() -> impl Strategy<Value = Policy> {
    (0..4_i32, 0..12_i32, 1..300_i64, 1..500_i64, 0..120_u64, 30..400_u64, any::<bool>()).prop_map(
        |(least, more, per_replica, wakes_at, up, down, idle)| Policy {
            least,
            most: (least + more).max(1),
            per_replica,
            wakes_at,
            up: Duration::from_secs(up),
            down: Duration::from_secs(down),
            idle,
        },
    )
}

proptest! {
    #[test]
    fn whatever_is_seen_it_stays_within_bounds(
        policy in policies(),
        lags in proptest::collection::vec(-5..2000_i64, 0..9),
        (asked, there, blind, unseen) in (0..20_i32, 0..20_i32, 0..3_usize, any::<bool>()),
        noted in proptest::option::of((0..20_i32, 0..20_i32, -2000..2000_i64, -2000..2000_i64)),
    ) {
        let noted = noted.map(|(of, to, since, looked)| Pending { of, to, since: at(since), looked: at(looked) });
        let read = lags.clone();
        let members = usize::try_from(there).unwrap();
        let facts = Facts { lags, asked, there, members, blind, unseen, pending: noted, age: None };
        let answer = facts.next(&policy, at(0));
        prop_assert!(answer.replicas >= policy.least && answer.replicas <= policy.most, "{:?}", answer);
        let partitions = i32::try_from(read.len()).unwrap().max(1);
        if !policy.idle && !unseen && !read.is_empty() {
            prop_assert!(answer.replicas <= partitions.max(policy.least).max(asked.min(policy.most)), "{:?}", answer);
        }
        if answer.replicas > asked && !policy.idle {
            prop_assert!(answer.replicas <= partitions.max(policy.least), "{:?}", answer);
        }
        // To zero only when nothing is unread, or can be.
        let nothing = read.iter().all(|lag| *lag <= 0) && blind == 0 && !unseen && !read.is_empty();
        if asked > 0 && answer.replicas == 0 {
            prop_assert!(nothing, "{:?}", facts);
        }
        // What is not seen takes nobody away that may be there.
        if unseen {
            prop_assert!(answer.replicas >= asked.min(policy.most), "{:?}", answer);
        }
        prop_assert!(answer.again <= LOOK && !answer.again.is_zero());
        prop_assert_eq!(facts.next(&policy, at(0)), answer);
    }

    #[test]
    fn any_record_ends_zero(policy in policies(), lags in proptest::collection::vec(0..500_i64, 1..9), age in 0..900_u64) {
        let total: i64 = lags.iter().sum();
        let policy = Policy { least: 0, ..policy };
        let facts = Facts { age: Some(Duration::from_secs(age)), ..facts(&lags, 0) };
        let back = facts.next(&policy, at(0)).replicas > 0;
        let old = Duration::from_secs(age) >= policy.down;
        prop_assert_eq!(back, total >= policy.wakes_at || (total > 0 && old));
        let any = Policy { wakes_at: 1, ..policy };
        prop_assert_eq!(facts.next(&any, at(0)).replicas > 0, total > 0);
    }

    #[test]
    fn it_is_not_changed_back_and_forth(
        policy in policies(),
        (partitions, fast) in (1..9_usize, 20..300_i64),
        comes in proptest::collection::vec(proptest::collection::vec(0..120_i64, 9), 200),
        dies in proptest::collection::vec(0..3_u8, 200),
    ) {
        let mut world = World { facts: facts(&vec![0; partitions], policy.least), seconds: 0 };
        let (mut last, mut quiet) = (None::<(i64, bool)>, None::<i64>);
        for (comes, dies) in comes.iter().zip(&dies) {
            let asked = world.facts.asked;
            let answer = world.facts.next(&policy, at(world.seconds));
            let unread = world.facts.lags.iter().any(|lag| *lag > 0);
            // One that dies before it writes anything has not looked.
            if *dies > 0 {
                quiet = if unread { None } else { quiet.or(Some(world.seconds)) };
            }
            if answer.replicas != asked && *dies > 1 {
                let up = answer.replicas > asked;
                if let Some((then, before)) = last {
                    let window = if up { policy.up } else { policy.down };
                    let window = i64::try_from(window.as_secs()).unwrap();
                    // But from zero, where every moment counts.
                    let far = world.seconds - then >= window || (asked == 0 && up);
                    prop_assert!(far || up == before, "{} s after {:?}: {:?}", world.seconds, then, answer);
                    prop_assert!(far, "nor twice in a window: {:?}", answer);
                }
                last = Some((world.seconds, up));
                if answer.replicas == 0 {
                    let down = i64::try_from(policy.down.as_secs()).unwrap();
                    prop_assert!(quiet.is_some_and(|since| world.seconds - since >= down), "{:?}: {:?}", quiet, answer);
                }
            }
            // Killed before it does anything, between note and act, or not.
            match dies {
                0 => {}
                1 => world.facts.pending = answer.pending,
                _ => (world.facts.asked, world.facts.pending) = (answer.replicas, answer.pending),
            }
            world.live(comes, fast);
        }
        // Nothing comes any more: all is read, and it ends where it should.
        for _ in 0..2000 {
            let answer = world.facts.next(&policy, at(world.seconds));
            (world.facts.asked, world.facts.pending) = (answer.replicas, answer.pending);
            if world.facts.asked == 0 {
                // What is below the threshold wakes nobody before it is old.
                world.facts.age = Some(policy.down);
            }
            // However slow each of them was until now.
            world.live(&[], fast * 100);
        }
        prop_assert_eq!(world.facts.lags.iter().sum::<i64>(), 0);
        prop_assert_eq!(world.facts.asked, policy.least.min(policy.most));
        prop_assert_eq!(world.facts.next(&policy, at(world.seconds)).pending, None, "and nothing is left to note");
    }
}

#[test]
fn a_partition_asks_for_one_consumer() {
    let wanted = |lags: &[i64], idle: bool| {
        let policy = Policy { up: Duration::ZERO, idle, ..policy() };
        let answer = facts(lags, 1).next(&policy, at(0));
        (answer.replicas, answer.limit)
    };
    assert_eq!(wanted(&[50, 50, 50, 50], false), (2, None));
    assert_eq!(wanted(&[1000, 0, 0, 0], false), (1, Some(Limit::Partitions)));
    assert_eq!(wanted(&[1000, 120, 1, 0], false), (3, Some(Limit::Partitions)));
    assert_eq!(wanted(&[1000, 0, 0, 0], true), (10, None));
    assert_eq!(wanted(&[5000, 0, 0, 0], true), (10, Some(Limit::Most)));
    assert_eq!(wanted(&[i64::MAX, i64::MAX], true), (10, Some(Limit::Most)));
    assert_eq!(wanted(&[i64::MAX, i64::MAX], false), (2, Some(Limit::Partitions)));
    assert_eq!(wanted(&[100; 20], false), (10, Some(Limit::Most)));
}

#[test]
fn what_a_person_wrote_as_the_least_counts_most() {
    let least = Policy { least: 3, ..policy() };
    let answer = facts(&[0], 0).next(&least, at(0));
    assert_eq!((answer.replicas, answer.limit, answer.why), (3, Some(Limit::Least), Why::Bounds));
    assert_eq!(facts(&[0], 3).next(&least, at(0)).why, Why::Enough);
    // A person's slip.
    let answer = facts(&[500, 500], 50).next(&policy(), at(0));
    assert_eq!((answer.replicas, answer.why), (10, Why::Bounds));
}

#[test]
fn more_than_partitions_with_commits_stay_for_a_while() {
    // Without `topics` the partitions are those with commits: another topic may just have been begun.
    let mut world = facts(&[500], 10);
    assert!(matches!(world.next(&policy(), at(0)).why, Why::Held(1, _)));
    let down = i64::try_from(policy().down.as_secs()).unwrap();
    assert_eq!(changes(&mut world, &policy(), 0, 2 * down), Some((down, 1, Why::Fewer)));
}

#[test]
fn more_and_fewer_are_wanted_for_a_while() {
    let policy = policy();
    let mut world = facts(&[500, 90, 90], 1);
    assert_eq!(changes(&mut world, &policy, 0, 600), Some((30, 3, Why::More)));
    // Those that were asked for are waited for.
    (world.asked, world.pending) = (2, None);
    assert_eq!(changes(&mut world, &policy, 100, 600), None);
    assert_eq!(world.next(&policy, at(610)).why, Why::Coming(3));
    (world.there, world.members) = (2, 0);
    assert_eq!(world.next(&policy, at(620)).why, Why::Coming(3));
    world.members = 1;
    assert_eq!(world.next(&policy, at(630)).replicas, 3);

    let mut less = facts(&[0, 0, 0], 3);
    assert_eq!(changes(&mut less, &policy, 0, 90), None);
    // The most that was wanted meanwhile.
    less.lags = vec![90, 90, 0];
    assert_eq!(changes(&mut less, &policy, 100, 100), None);
    less.lags = vec![0, 0, 0];
    assert_eq!(changes(&mut less, &policy, 110, 600), Some((300, 2, Why::Fewer)));
    (less.asked, less.pending) = (2, None);
    assert_eq!(changes(&mut less, &policy, 310, 900), Some((610, 0, Why::Idle)));
}

#[test]
fn lag_that_never_falls_asks_for_no_more_than_can_read() {
    let policy = policy();
    let mut world = facts(&[9000, 9000, 9000], 1);
    assert_eq!(changes(&mut world, &policy, 0, 600), Some((30, 3, Why::More)));
    for members in [3, 0] {
        (world.asked, world.there, world.members) = (3, 3, members);
        for second in (40..9000).step_by(10) {
            world.lags.iter_mut().for_each(|lag| *lag += 500);
            let answer = world.next(&policy, at(second));
            world.pending = answer.pending.clone();
            assert_eq!((answer.replicas, answer.limit, answer.pending), (3, Some(Limit::Partitions), None));
        }
    }
    // Consumers that never come to read: more of them would not either.
    let mut world = Facts { members: 0, ..facts(&[9000, 9000, 9000], 1) };
    assert_eq!(changes(&mut world, &policy, 0, 9000), None);
}

#[test]
fn a_window_that_nobody_watched_begins_anew() {
    let policy = policy();
    let mut world = facts(&[0, 0], 2);
    assert_eq!(changes(&mut world, &policy, 0, 200), None);
    assert_eq!(changes(&mut world, &policy, 1000, 1290), None, "what was in between nobody knows");
    assert_eq!(changes(&mut world, &policy, 1300, 1300), Some((1300, 0, Why::Idle)));
    // A short absence, as of an operator that is replaced.
    let mut world = facts(&[0, 0], 2);
    assert_eq!(changes(&mut world, &policy, 0, 200), None);
    assert_eq!(changes(&mut world, &policy, 280, 300), Some((300, 0, Why::Idle)));
}

#[test]
fn what_is_not_known_keeps_and_wakes() {
    let policy = policy();
    let unseen = Facts { unseen: true, ..facts(&[0, 0], 2) };
    assert_eq!(changes(&mut unseen.clone(), &policy, 0, 2000), None);
    assert_eq!(unseen.next(&policy, at(0)).why, Why::Unseen);
    // Without a commit, and without a place to begin at, nothing would ever count.
    let blind = Facts { blind: 1, ..facts(&[0, 0], 0) };
    assert_eq!(blind.next(&policy, at(0)).replicas, 1);
    assert_eq!(changes(&mut Facts { blind: 1, ..facts(&[0, 0], 2) }, &policy, 0, 2000), Some((300, 1, Why::Fewer)));
    assert_eq!(facts(&[], 0).next(&policy, at(0)).replicas, 1);
    assert_eq!(changes(&mut facts(&[], 1), &policy, 0, 2000), None);
    // Members that have not committed anything yet read something.
    assert_eq!(changes(&mut facts(&[], 4), &policy, 0, 2000), None);
    assert_eq!(changes(&mut facts(&[], 40), &policy, 0, 2000), Some((0, 10, Why::Bounds)));
}
