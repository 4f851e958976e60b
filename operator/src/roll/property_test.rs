//! Whatever brokers do, one at a time is taken away, and in the end all run as described.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::window::Window;
use super::*;

fn pod() -> impl Strategy<Value = Pod> {
    prop_oneof![
        6 => Just(Pod::Ready),
        1 => Just(Pod::Missing),
        1 => Just(Pod::Going),
        1 => Just(Pod::Stuck),
        2 => (0..1200_u64).prop_map(|s| Pod::Unready(Duration::from_secs(s))),
    ]
}

fn due() -> impl Strategy<Value = Option<Reason>> {
    prop_oneof![
        2 => Just(None),
        2 => Just(Some(Reason::Description)),
        1 => Just(Some(Reason::Asked)),
        1 => Just(Some(Reason::Volume)),
        1 => Just(Some(Reason::Operator)),
    ]
}

fn facts() -> impl Strategy<Value = Facts> {
    let broker = (pod(), due(), 0..9_usize).prop_map(|(pod, due, leaders)| {
        // A pod that is not there is not old.
        let due = due.filter(|_| pod != Pod::Missing);
        Broker { pod, due, leaders }
    });
    let brokers = proptest::collection::vec(broker, 1..7);
    (brokers, proptest::option::of(0..7), any::<bool>(), proptest::bool::weighted(0.9)).prop_map(
        |(brokers, controller, upgrade_rolls, settled)| Facts {
            brokers: (0..).zip(brokers).collect::<BTreeMap<_, _>>(),
            controller,
            settled,
            upgrade_rolls,
            ..Facts::default()
        },
    )
}

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

/// The environment's part of a step: a pod that goes is gone, a missing one is made, one that starts gets ready.
fn live(facts: &mut Facts, random: &mut u64) {
    for broker in facts.brokers.values_mut() {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if *random >> 62 == 0 {
            continue;
        }
        (broker.pod, broker.due) = match broker.pod {
            Pod::Going => (Pod::Missing, None),
            Pod::Missing => (Pod::Unready(Duration::ZERO), None),
            Pod::Unready(_) => (Pod::Ready, broker.due),
            // By the new description it may run.
            Pod::Stuck if broker.due.is_none() => (Pod::Ready, None),
            other => (other, broker.due),
        };
    }
    facts.settled = true;
}

fn delete(facts: &mut Facts, id: i32) {
    facts.brokers.get_mut(&id).unwrap().pod = Pod::Going;
}

proptest! {
    #[test]
    fn nobody_is_taken_away_while_another_is_away(facts in facts()) {
        let away = |but: i32| {
            let late = |b: &Broker| matches!(b.pod, Pod::Unready(since) if since >= PATIENCE) && b.due.is_some();
            facts.brokers.iter().filter(|(id, b)| **id != but && b.pod != Pod::Ready && !late(b)).count()
        };
        match facts.next(now()) {
            Next::Restart(order) => {
                prop_assert!(facts.settled);
                for id in &order {
                    prop_assert!(facts.rolls(*id));
                    prop_assert_eq!(away(*id), 0, "{} of {:?}", id, facts);
                    prop_assert!(matches!(facts.brokers[id].pod, Pod::Ready | Pod::Unready(_)));
                }
                let last = facts.controller.filter(|id| order.contains(id));
                prop_assert!(last.is_none() || last == order.last().copied(), "the controller comes last");
                prop_assert!(!order.is_empty());
            }
            Next::Replace(id) => {
                prop_assert_eq!(facts.brokers[&id].pod, Pod::Stuck);
                prop_assert!(facts.brokers[&id].due.is_some() && facts.settled);
            }
            Next::Nothing => prop_assert_eq!(facts.due().count(), 0),
            Next::Wait(Wait::Deferred) => prop_assert!(!facts.upgrade_rolls && facts.due().all(|(_, r)| r == Reason::Operator)),
            Next::Wait(Wait::Broker(id)) => prop_assert!(facts.brokers[&id].pod != Pod::Ready),
            Next::Wait(Wait::Settling) => prop_assert!(!facts.settled),
            Next::Wait(other) => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn in_the_end_all_run_as_described(mut facts in facts(), mut random: u64) {
        let mut restarts = BTreeMap::<i32, usize>::new();
        for _ in 0..400 {
            match facts.next(now()) {
                Next::Nothing | Next::Wait(Wait::Deferred) => {
                    prop_assert!(restarts.values().all(|times| *times == 1), "{:?}", restarts);
                    return Ok(());
                }
                Next::Replace(id) => {
                    *restarts.entry(id).or_default() += 1;
                    delete(&mut facts, id);
                }
                Next::Restart(order) => {
                    // Which of them is safe to stop the brokers decide.
                    let id = order[usize::try_from(random >> 33).unwrap() % order.len()];
                    *restarts.entry(id).or_default() += 1;
                    delete(&mut facts, id);
                }
                Next::Wait(_) => {}
            }
            live(&mut facts, &mut random);
        }
        prop_assert!(false, "it does not end: {:?}", facts);
    }

    #[test]
    fn what_is_paused_is_left_alone(mut facts in facts()) {
        facts.paused = true;
        prop_assert!(matches!(facts.next(now()), Next::Nothing | Next::Wait(Wait::Paused)));
    }
}

fn three(due: [Option<Reason>; 3]) -> Facts {
    let broker = |due| Broker { pod: Pod::Ready, due, leaders: 1 };
    let brokers = (0..).zip(due.map(broker)).collect();
    Facts { brokers, controller: Some(0), settled: true, ..Facts::default() }
}

#[test]
fn the_controller_is_last_and_who_leads_least_is_first() {
    let mut facts = three([Some(Reason::Description); 3]);
    facts.brokers.get_mut(&1).unwrap().leaders = 5;
    assert_eq!(facts.next(now()), Next::Restart(vec![2, 1, 0]));
    facts.brokers.get_mut(&2).unwrap().pod = Pod::Unready(Duration::from_secs(3));
    assert_eq!(facts.next(now()), Next::Wait(Wait::Broker(2)));
    // By an old description it might be unready for ever.
    facts.brokers.get_mut(&2).unwrap().pod = Pod::Unready(PATIENCE);
    assert_eq!(facts.next(now()), Next::Restart(vec![2]));
}

#[test]
fn a_description_that_nothing_can_run_stops_at_the_first_broker_and_a_better_one_replaces_it() {
    let mut facts = three([Some(Reason::Description), Some(Reason::Description), None]);
    facts.brokers.get_mut(&2).unwrap().pod = Pod::Stuck;
    assert_eq!(facts.next(now()), Next::Wait(Wait::Broker(2)), "the new one does not run: the others stay");
    facts.brokers.get_mut(&2).unwrap().due = Some(Reason::Description);
    assert_eq!(facts.next(now()), Next::Replace(2), "there is a newer one");
}

#[test]
fn windows_hold_up_what_runs_and_nothing_that_does_not() {
    let mut facts = three([Some(Reason::Description); 3]);
    facts.windows = vec![Window::parse("0 2 * * *", "1h").unwrap()];
    let opens = "2026-11-23T02:00:00Z".parse().unwrap();
    assert_eq!(facts.next(now()), Next::Wait(Wait::Window(Some(opens))));
    assert_eq!(facts.next(opens), Next::Restart(vec![1, 2, 0]));
    facts.brokers.get_mut(&1).unwrap().pod = Pod::Stuck;
    assert_eq!(facts.next(now()), Next::Replace(1));
}
