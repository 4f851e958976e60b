//! Whatever is asked for, and however often that changes half way: nobody goes who holds something, one goes at a time,
//! and in the end there are as many as there should be, each with its share.

use proptest::prelude::*;

use super::*;

/// A small cluster that does what it is told, in its own time.
#[derive(Clone, Debug)]
struct World {
    facts: Facts,
    random: u64,
}

impl World {
    fn chance(&mut self, of: u64) -> bool {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33).is_multiple_of(of)
    }

    /// Pods come and go, brokers register and are fenced, replicas move.
    fn live(&mut self) {
        let there = self.facts.there;
        for id in 0..there {
            self.facts.brokers.entry(id).or_default();
        }
        let ids: Vec<i32> = self.facts.brokers.keys().copied().collect();
        for id in ids {
            if self.chance(3) {
                continue;
            }
            let seats = self.facts.brokers.values().filter(|broker| broker.voter).count();
            let broker = self.facts.brokers.get_mut(&id).expect("it is there");
            if id >= there {
                // The pod goes, then the session ends.
                match broker.pod {
                    true => (broker.pod, broker.runs, broker.ready) = (false, false, false),
                    false => broker.alive = false,
                }
                continue;
            }
            match (broker.pod, broker.registered && broker.alive) {
                (false, _) => (broker.pod, broker.runs) = (true, true),
                (true, false) => {
                    (broker.registered, broker.alive, broker.ready) = (true, true, true);
                    broker.voter |= seats < 3;
                }
                // It was back before its session ended.
                (true, true) => broker.ready = true,
            }
        }
        let (brokers, there) = (&mut self.facts.brokers, self.facts.there);
        brokers.retain(|id, broker| *id < there || broker.pod || broker.registered);
    }

    /// Carries out what was decided, as the controller does; and sometimes dies before it is through.
    fn obey(&mut self, next: &Next) {
        let there = self.facts.there;
        let dies = self.chance(4);
        let after = self.facts.begun.after(next, there);
        let brokers = &mut self.facts.brokers;
        match next {
            // One write.
            Next::Add(_) | Next::Remove(_) | Next::Joined => {
                if !dies {
                    (self.facts.there, self.facts.begun) = (next.replicas(there), after);
                }
            }
            Next::Spread(joining) => {
                for id in joining {
                    brokers.get_mut(id).expect("it is there").holds += 1;
                }
                if !dies {
                    self.facts.begun = self.facts.begun.after(&Next::Joined, there);
                }
            }
            Next::Uncordon(id) => {
                if let Some(broker) = brokers.get_mut(id) {
                    broker.cordoned = false;
                }
                if !dies {
                    self.facts.begun = after;
                }
            }
            Next::Cordon(id) => {
                self.facts.begun = after;
                if !dies {
                    brokers.get_mut(id).expect("it is there").cordoned = true;
                }
            }
            Next::Drain(id) => {
                let broker = brokers.get_mut(id).expect("it is there");
                broker.holds -= 1;
                let other = brokers.iter_mut().find(|(other, b)| *other != id && !b.cordoned && b.alive);
                other.expect("somebody takes it").1.holds += 1;
            }
            Next::GiveUpSeat(id) => brokers.get_mut(id).expect("it is there").voter = false,
            Next::Unregister(id) => {
                // Its seat goes with it.
                let broker = brokers.get_mut(id).expect("it is there");
                (broker.registered, broker.voter) = (false, false);
            }
            Next::Nothing | Next::Wait(_) => {}
        }
    }
}

fn well() -> Broker {
    Broker { pod: true, runs: true, ready: true, registered: true, alive: true, ..Broker::default() }
}

fn world() -> impl Strategy<Value = World> {
    let broker = (0..5_usize, any::<bool>());
    let floors = (0..4_i32, 0..4_i32, 0..4_i32);
    (proptest::collection::vec(broker, 1..7), 1..9_i32, floors, any::<bool>(), any::<u64>()).prop_map(
        |(brokers, asked, (least, replication, founders), spreads, random)| {
            let there = i32::try_from(brokers.len()).expect("few");
            let one = |(id, (holds, voter)): (i32, (usize, bool))| {
                let voter = voter || id < 3;
                (id, Broker { holds, voter, ..well() })
            };
            let brokers = (0..).zip(brokers).map(one).collect();
            let (replication, founders) = (replication.min(there), founders.min(there));
            let facts = Facts { asked, least, replication, founders, there, brokers, spreads, ..Facts::default() };
            World { facts, random }
        },
    )
}

/// What holds at every step.
fn check(before: &Facts, next: &Next) -> Result<(), TestCaseError> {
    let after = next.replicas(before.there);
    prop_assert!(after >= before.there - 1, "one at a time");
    if after < before.there {
        let id = before.there - 1;
        let victim = before.brokers.get(&id).cloned().unwrap_or_default();
        prop_assert!(!victim.alive || victim.cordoned, "nothing may land there any more: {:?}", victim);
        prop_assert_eq!((victim.holds, victim.voter && victim.registered), (0, false), "{:?}", victim);
        let floor = before.replication.max(before.least).max(before.founders).max(1);
        prop_assert!(after >= floor.min(before.there), "{:?}", before);
        let well = (0..after).all(|other| before.brokers.get(&other).is_some_and(|broker| broker.ready));
        prop_assert!(well || !victim.registered || after > before.asked, "{:?}", before);
        prop_assert!(!victim.runs || victim.registered, "{:?}", victim);
    }
    if let Next::Unregister(id) = next {
        let ghost = &before.brokers[id];
        prop_assert!(*id >= before.there && !ghost.pod && !ghost.alive && ghost.holds == 0);
    }
    prop_assert!(!matches!(next, Next::Cordon(id) | Next::GiveUpSeat(id) if *id != before.there - 1));
    prop_assert!(!matches!(next, Next::Drain(id) if *id < before.there - 1));
    prop_assert!(!before.unknown || !next.acts() || after > before.there, "{:?}", next);
    Ok(())
}

proptest! {
    #[test]
    fn in_the_end_there_are_as_many_as_there_should_be(mut world in world(), wishes in proptest::collection::vec(1..9_i32, 0..6),
        by_hand in proptest::collection::vec(0..40_i32, 0..3)) {
        let held: usize = world.facts.brokers.values().map(|broker| broker.holds).sum();
        let mut wishes = wishes.into_iter();
        for step in 0..600 {
            // Minds are changed half way.
            if step % 7 == 6 && let Some(wish) = wishes.next() {
                world.facts.asked = wish;
            }
            // Somebody else makes the StatefulSet smaller.
            if by_hand.contains(&step) {
                world.facts.there = (world.facts.there - 1 - step % 2).max(1);
            }
            let next = world.facts.next();
            check(&world.facts, &next)?;
            if next == Next::Nothing && wishes.len() == 0 && step > 40 {
                let facts = &world.facts;
                prop_assert_eq!(facts.there, facts.target().0);
                prop_assert!(facts.brokers.values().all(|broker| !broker.cordoned), "nobody is left out: {:?}", facts);
                prop_assert!(facts.brokers.keys().all(|id| *id < facts.there));
                let now: usize = facts.brokers.values().map(|broker| broker.holds).sum();
                prop_assert!(now >= held, "{} of {}", now, held);
                return Ok(());
            }
            world.obey(&next);
            world.live();
        }
        prop_assert!(false, "it does not end: {:?}", world.facts);
    }

    #[test]
    fn whatever_is_paused_stays(mut world in world()) {
        world.facts.paused = true;
        prop_assert_eq!(world.facts.next().replicas(world.facts.there), world.facts.there);
    }
}

proptest! {
    #[test]
    fn who_is_noted_comes_back_unless_one_was_about_to_go(there in 1..9_i32, noted in 0..9_i32,
        leaving in proptest::option::of(0..9_i32), joining in proptest::collection::btree_set(0..9_i32, 0..3)) {
        let begun = Begun { leaving, joining };
        let next = taken_away(there, noted, &begun);
        prop_assert_eq!(next.is_some(), there < noted && leaving.is_none());
        if let Some(next) = next {
            prop_assert_eq!(next.replicas(there), noted);
            // They get their share, or are let in again, as any that come.
            let after = begun.after(&next, there);
            prop_assert!((there..noted).all(|id| after.joining.contains(&id)));
        }
    }
}

fn five() -> Facts {
    let one = |id: i32| (id, Broker { holds: 3, voter: id < 3, ..well() });
    Facts { asked: 5, least: 1, replication: 3, there: 5, brokers: (0..5).map(one).collect(), ..Facts::default() }
}

#[test]
fn a_wish_for_none_or_for_fifty_does_no_harm() {
    let mut facts = five();
    facts.asked = 0;
    assert_eq!(facts.target(), (3, Some(Limit::Replication)));
    assert_eq!(facts.next(), Next::Cordon(4));
    facts.least = 4;
    assert_eq!(facts.target(), (4, Some(Limit::Least)));
    facts.asked = 50;
    assert_eq!(facts.next(), Next::Add(50));
    // It was a mistake: those that came hold nothing, and go one by one.
    facts.there = 50;
    facts.asked = 5;
    assert_eq!(facts.next(), Next::Remove(49), "no node took it");
    for id in 5..50 {
        facts.brokers.insert(id, Broker { ready: id != 7, ..well() });
    }
    assert_eq!(facts.next(), Next::Cordon(49), "7 is to go itself");
    facts.brokers.get_mut(&2).unwrap().ready = false;
    assert_eq!(
        facts.next(),
        Next::Wait(Wait::Ready(2)),
        "one that takes part goes only while those that stay are well"
    );
    facts.brokers.insert(49, Broker { pod: true, runs: true, ..Broker::default() });
    assert_eq!(facts.next(), Next::Wait(Wait::Ready(49)), "it may take part at any moment");
}

#[test]
fn a_wish_that_is_taken_back_lets_the_broker_in_again() {
    let mut facts = five();
    facts.asked = 4;
    assert_eq!(facts.next(), Next::Cordon(4));
    facts.begun.leaving = Some(4);
    facts.brokers.get_mut(&4).unwrap().cordoned = true;
    assert_eq!(facts.next(), Next::Drain(4));
    facts.asked = 5;
    assert_eq!(facts.next(), Next::Uncordon(4));
    facts.rolling = true;
    assert_eq!(facts.next(), Next::Uncordon(4), "also while brokers are restarted");
    facts.asked = 4;
    assert_eq!(facts.next(), Next::Wait(Wait::Rolling));
}

#[test]
fn a_broker_that_a_person_has_cordoned_is_none_that_leaves() {
    let mut facts = five();
    facts.brokers.get_mut(&2).unwrap().cordoned = true;
    assert_eq!(facts.next(), Next::Nothing);
}

#[test]
fn a_broker_that_a_person_has_cordoned_stays_so_when_the_one_above_it_goes() {
    let begun = Begun { leaving: Some(4), joining: BTreeSet::new() }.after(&Next::Remove(4), 5);
    let mut facts = Facts { there: 4, asked: 4, begun, spreads: true, ..five() };
    facts.brokers.remove(&4);
    facts.brokers.get_mut(&3).unwrap().cordoned = true;
    assert_eq!(facts.next(), Next::Spread(BTreeSet::new()), "those that stay are made even");
}

#[test]
fn a_broker_that_is_let_in_again_gets_its_share_again() {
    let begun = Begun { leaving: Some(4), joining: BTreeSet::new() };
    let after = begun.after(&Next::Uncordon(4), 5);
    assert_eq!(after, Begun { leaving: None, joining: [4].into() });
    let facts = Facts { begun: after, spreads: true, ..five() };
    assert_eq!(facts.next(), Next::Spread([4].into()));
    assert_eq!(Facts { spreads: false, ..facts }.next(), Next::Joined);
}

#[test]
fn those_that_stay_are_made_even_in_the_end() {
    let begun = Begun { leaving: Some(4), joining: [1].into() };
    let after = begun.after(&Next::Remove(4), 5);
    assert_eq!(after, Begun { leaving: None, joining: [1, 4].into() });
    let facts = Facts { there: 4, asked: 4, begun: after.clone(), spreads: true, ..five() };
    let facts = Facts { brokers: facts.brokers.into_iter().filter(|(id, _)| *id < 4).collect(), ..facts };
    assert_eq!(facts.next(), Next::Spread([1].into()));
    assert_eq!(after.after(&Next::Joined, 4), Begun::default());
    let next = after.after(&Next::Cordon(3), 4);
    assert_eq!(next.after(&Next::Remove(3), 4), Begun { leaving: None, joining: [1, 3].into() });
    assert_eq!(after.after(&Next::Add(6), 4).joining, [1, 4, 5].into(), "another one of that id is one that comes");
    assert_eq!(begun.after(&Next::Remove(0), 1).joining, BTreeSet::new());
}

#[test]
fn while_nobody_can_be_asked_brokers_come_and_none_goes() {
    let mut facts = Facts { unknown: true, ..five() };
    assert_eq!(facts.next(), Next::Wait(Wait::Unknown));
    facts.asked = 4;
    assert_eq!(facts.next(), Next::Wait(Wait::Unknown));
    facts.asked = 6;
    assert_eq!(facts.next(), Next::Add(6));
    // Somebody has made the StatefulSet smaller, and those that are left are too few to tell.
    let lost = Facts { there: 1, asked: 3, unknown: true, ..five() };
    assert_eq!(lost.next(), Next::Add(3));
    facts.rolling = true;
    assert_eq!(facts.next(), Next::Add(6), "more brokers may be what a restart waits for");
}

#[test]
fn what_a_broker_that_is_gone_holds_is_moved_before_it_is_forgotten() {
    let mut facts = Facts { there: 4, asked: 4, ..five() };
    assert_eq!(facts.next(), Next::Add(5), "a topic was made in the last moment: it comes back, and goes in order");
    let gone = facts.brokers.get_mut(&4).unwrap();
    (gone.pod, gone.alive) = (false, false);
    assert_eq!(facts.next(), Next::Add(5));
    facts.brokers.get_mut(&4).unwrap().holds = 0;
    facts.asked = 5;
    assert_eq!(facts.next(), Next::Unregister(4), "before another one of that id comes");
}

#[test]
fn a_set_that_somebody_else_made_smaller_is_as_large_as_asked_for_again() {
    let mut facts = Facts { there: 2, asked: 3, ..five() };
    facts.brokers.retain(|id, _| *id < 3);
    let gone = facts.brokers.get_mut(&2).unwrap();
    (gone.pod, gone.ready, gone.alive) = (false, false, false);
    assert_eq!(facts.next(), Next::Add(3), "nobody else could take what it holds");
    // Made anew with fewer than before: they come to give away what they hold.
    let mut facts = Facts { there: 3, asked: 3, ..five() };
    for id in 3..5 {
        facts.brokers.insert(id, Broker { registered: true, holds: 3, ..Broker::default() });
    }
    assert_eq!(facts.next(), Next::Add(4));
    facts.there = 4;
    assert_eq!(facts.next(), Next::Add(5));
    facts.there = 5;
    for id in 3..5 {
        facts.brokers.insert(id, Broker { holds: 3, ..well() });
    }
    assert_eq!(facts.next(), Next::Cordon(4));
}

#[test]
fn brokers_that_come_back_are_none_that_go() {
    let by_hand = Facts { there: 1, ..five() };
    assert_eq!((by_hand.next(), by_hand.inward()), (Next::Add(5), false));
    assert!(!Facts { unknown: true, ..by_hand.clone() }.inward());
    assert!(Facts { asked: 4, ..by_hand }.inward(), "the last one comes back to go in order");
    assert!(Facts { asked: 4, ..five() }.inward());
    let gone = Facts { there: 4, asked: 4, begun: Begun::default(), ..five() };
    assert!(gone.inward(), "it is to be forgotten");
    assert!(!Facts { asked: 7, ..five() }.inward());
}

#[test]
fn the_quorum_is_not_made_smaller_than_it_was_made() {
    let facts = Facts { asked: 1, replication: 1, founders: 3, ..five() };
    assert_eq!(facts.target(), (3, Some(Limit::Quorum)));
    assert_eq!(Facts { founders: 1, ..facts }.target(), (1, None));
}
