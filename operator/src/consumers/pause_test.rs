//! Wherever the operator is killed: offsets move once and only while nobody reads, and as many consumers run in the end as
//! ran before.

use proptest::prelude::*;

use super::pause::*;
use std::time::Duration;

use jiff::Timestamp;

const LIMIT: Duration = Duration::from_secs(600);

fn target() -> Target {
    Target { kind: "Deployment".into(), name: "billing".into() }
}

fn due() -> Due {
    Due { id: "r1".into(), target: target(), limit: LIMIT }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn there(asked: i32, there: i32) -> Seen {
    Seen::There { uid: "u".into(), asked, there }
}

fn noted(replicas: i32, stopped: Option<i64>) -> Note {
    Note { reset: "r1".into(), target: target(), uid: "u".into(), replicas, stopped: stopped.map(at) }
}

fn next(due: Option<Due>, note: Option<Note>, seen: Seen, empty: bool, now: i64) -> Next {
    Facts { due, note, seen, empty, blocked: false }.next(at(now))
}

/// A target whose pods are members, in their own time; and a status that survives.
#[derive(Clone, Debug)]
struct World {
    asked: i32,
    pods: i32,
    members: i32,
    note: Option<Note>,
    /// How the reset ended, as the status has it.
    result: Option<bool>,
    /// How often offsets have moved.
    moved: i32,
    now: i64,
}

impl World {
    fn new(asked: i32) -> Self {
        Self { asked, pods: asked, members: asked, note: None, result: None, moved: 0, now: 0 }
    }

    fn facts(&self, blocked: bool) -> Facts {
        let due = (self.result.is_none()).then(due);
        Facts { due, note: self.note.clone(), seen: there(self.asked, self.pods), empty: self.members == 0, blocked }
    }

    /// Does it as the controller does: the note, the act. `dies` after so many writes.
    fn obey(&mut self, next: &Next, dies: u32) {
        let mut left = dies;
        let mut write = || {
            left = left.saturating_sub(1);
            left > 0
        };
        match next {
            Next::Nothing | Next::Wait(_) => {}
            Next::Note(note) => self.note = Some(note.clone()),
            Next::Stop => {
                self.asked = 0;
                if write()
                    && let Some(note) = &mut self.note
                {
                    note.stopped.get_or_insert(at(self.now));
                }
            }
            Next::Reset => {
                assert!(self.members == 0, "the brokers refuse");
                // That it was begun stands in the status, and the commits tell whether it was done.
                self.moved = 1;
                if write() {
                    self.result = Some(true);
                }
            }
            Next::GiveUp => self.result = Some(false),
            Next::Start(count) => {
                self.asked = *count;
                if write() {
                    self.note = None;
                }
            }
            Next::Forget => self.note = None,
        }
    }

    fn live(&mut self, random: u32) {
        self.now += 3;
        // Pods first, members some time after.
        if random & 1 == 0 {
            self.pods += (self.asked - self.pods).signum();
        }
        if random & 2 == 0 {
            self.members += (self.pods - self.members).signum();
        }
    }
}

proptest! {
    #[test]
    fn consumers_run_again_and_offsets_have_moved(
        replicas in 1..6_i32,
        deaths in proptest::collection::vec(1..4_u32, 0..40),
        random in proptest::collection::vec(any::<u32>(), 300),
    ) {
        let mut world = World::new(replicas);
        let mut deaths = deaths.into_iter();
        for (step, random) in random.into_iter().enumerate() {
            let facts = world.facts(random % 7 == 0);
            let next = facts.next(at(world.now));
            if matches!(next, Next::Stop) {
                let note = world.note.as_ref().expect("it is noted before it is stopped");
                prop_assert_eq!(note.replicas, world.asked);
            }
            if matches!(next, Next::Reset) {
                prop_assert!(world.members == 0 && world.pods == 0 && world.asked == 0);
                prop_assert!(world.result.is_none(), "once");
            }
            if matches!(next, Next::Start(_)) {
                prop_assert!(world.result.is_some(), "what came of it is noted first");
            }
            if next == Next::Nothing {
                prop_assert_eq!((world.asked, world.result, world.moved), (replicas, Some(true), 1), "step {}", step);
                return Ok(());
            }
            world.obey(&next, deaths.next().unwrap_or(9));
            world.live(random);
        }
        prop_assert!(false, "it does not end: {:?}", world);
    }

    #[test]
    fn a_reset_that_is_taken_back_leaves_consumers_as_they_were(
        replicas in 1..6_i32,
        until in 0..60_usize,
        deaths in proptest::collection::vec(1..4_u32, 80),
        random in proptest::collection::vec(any::<u32>(), 80),
    ) {
        let mut world = World::new(replicas);
        for step in 0..80 {
            let mut facts = world.facts(false);
            if step >= until {
                facts.due = None;
            }
            let next = facts.next(at(world.now));
            world.obey(&next, deaths[step]);
            world.live(random[step]);
        }
        prop_assert_eq!((world.asked, world.note), (replicas, None));
    }
}

#[test]
fn it_is_given_up_when_members_do_not_go() {
    let note = Some(noted(3, Some(0)));
    assert_eq!(next(Some(due()), note.clone(), there(0, 0), false, 599), Next::Wait(Wait::Members));
    assert_eq!(next(Some(due()), note.clone(), there(0, 1), false, 599), Next::Wait(Wait::Pods));
    assert_eq!(next(Some(due()), note.clone(), there(0, 0), false, 600), Next::GiveUp);
    assert_eq!(next(Some(due()), note.clone(), there(0, 0), true, 9000), Next::Reset, "they have gone after all");
    assert_eq!(next(Some(due()), note, there(2, 2), false, 600), Next::GiveUp, "somebody starts them again and again");
    // Nobody was there to stop them: the time has not begun.
    assert_eq!(next(Some(due()), Some(noted(3, None)), there(3, 3), false, 9000), Next::Stop);
    assert_eq!(next(Some(due()), Some(noted(3, None)), there(0, 0), false, 9000), Next::Note(noted(3, Some(9000))));
}

#[test]
fn pods_that_are_not_gone_may_still_commit() {
    assert_eq!(next(Some(due()), Some(noted(3, Some(0))), there(0, 1), true, 9), Next::Wait(Wait::Pods));
}

#[test]
fn consumers_that_come_meanwhile_are_stopped_and_are_as_many_afterwards() {
    let note = noted(3, Some(0));
    assert_eq!(next(Some(due()), Some(note.clone()), there(5, 0), true, 9), Next::Note(noted(5, Some(0))));
    assert_eq!(next(Some(due()), Some(noted(5, Some(0))), there(5, 0), true, 9), Next::Stop);
    assert_eq!(next(None, Some(note.clone()), there(5, 5), false, 9), Next::Forget, "it was a person");
    assert_eq!(next(None, Some(note), there(0, 0), false, 9), Next::Start(3));
}

#[test]
fn a_target_that_is_another_one_is_left_alone() {
    let other = Seen::There { uid: "v".into(), asked: 0, there: 0 };
    for seen in [other, Seen::Gone] {
        for due in [Some(due()), None] {
            assert_eq!(next(due, Some(noted(3, Some(0))), seen.clone(), true, 9), Next::Forget);
        }
    }
    let elsewhere = Due { target: Target { name: "other".into(), ..target() }, ..due() };
    assert_eq!(next(Some(elsewhere), Some(noted(3, Some(0))), there(0, 0), true, 9), Next::Start(3));
    let another = Due { id: "r2".into(), ..due() };
    assert_eq!(next(Some(another), Some(noted(3, Some(0))), there(0, 0), true, 9), Next::Start(3));
}

#[test]
fn nobody_is_stopped_without_need() {
    assert_eq!(next(Some(due()), None, there(3, 3), true, 0), Next::Reset);
    assert_eq!(next(Some(due()), None, Seen::Gone, true, 0), Next::Reset);
    assert_eq!(next(Some(due()), None, Seen::Gone, false, 0), Next::Wait(Wait::Target));
    assert_eq!(next(Some(due()), None, there(0, 0), false, 0), Next::Wait(Wait::Members), "others, whom nobody stops");
    assert_eq!(next(Some(due()), None, there(0, 2), false, 0), Next::Wait(Wait::Pods));
    let blocked = Facts { due: Some(due()), note: None, seen: there(3, 3), empty: false, blocked: true };
    assert_eq!(blocked.next(at(0)), Next::Wait(Wait::Blocked));
    assert_eq!(Facts { note: Some(noted(3, Some(0))), ..blocked }.next(at(600)), Next::GiveUp);
}
