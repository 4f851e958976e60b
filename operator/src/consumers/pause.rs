//! A reset that stops the group's consumers first: what comes next, by what is noted and seen. Pure.
//!
//! What the target's number of pods was is noted before it is set to zero, and what came of the reset before it is set
//! back; so whoever comes after an operator that was killed goes on from where things are. Consumers that somebody starts
//! meanwhile are stopped again, and that number is the one to go back to. A target that was deleted, or made anew, is
//! nobody's to set. Whatever the reset comes to, consumers are started again.

use std::time::Duration;

use jiff::Timestamp;

/// What runs the consumers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// `Deployment` or `StatefulSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What is noted while consumers are stopped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    /// The reset's id.
    pub reset: String,
    /// Whose pods are stopped.
    pub target: Target,
    /// The very one.
    pub uid: String,
    /// How many there were.
    pub replicas: i32,
    /// When they were stopped, or seen to be.
    pub stopped: Option<Timestamp>,
}

/// A reset that is to be done, and to stop consumers for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Due {
    /// Its id.
    pub id: String,
    /// What runs them.
    pub target: Target,
    /// How long they may be stopped.
    pub limit: Duration,
}

/// How a target was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Seen {
    /// It is not there.
    Gone,
    /// It is.
    There {
        /// Which one.
        uid: String,
        /// How many pods it is to have.
        asked: i32,
        /// How many it has.
        there: i32,
    },
}

/// What is seen.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What is to be done.
    pub due: Option<Due>,
    /// What was noted.
    pub note: Option<Note>,
    /// The target that is noted, or else the one that is to be stopped.
    pub seen: Seen,
    /// Whether the group has no members.
    pub empty: bool,
    /// Whether something else than members keeps the offsets from being moved.
    pub blocked: bool,
}

/// What comes next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next {
    /// Nothing is stopped, and nothing to be.
    Nothing,
    /// Note this; then it is looked again.
    Note(Note),
    /// Set the target to zero.
    Stop,
    /// Not now.
    Wait(Wait),
    /// Move the offsets.
    Reset,
    /// It has taken too long: the reset has failed.
    GiveUp,
    /// Set the target to so many.
    Start(i32),
    /// Note that nothing is stopped.
    Forget,
}

/// Why nothing is done now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// There is no target.
    Target,
    /// Its pods are about to go.
    Pods,
    /// The group has members that are not the target's, or are not given up yet.
    Members,
    /// Something else, that others tell of.
    Blocked,
}

impl Facts {
    /// See the module's head.
    pub fn next(&self, now: Timestamp) -> Next {
        match (&self.due, &self.note) {
            (None, None) => Next::Nothing,
            (Some(due), None) => self.begin(due),
            (due, Some(note)) => match due.as_ref().filter(|due| due.id == note.reset && due.target == note.target) {
                Some(due) => self.go_on(due, note, now),
                None => self.end(note),
            },
        }
    }

    fn begin(&self, due: &Due) -> Next {
        match &self.seen {
            _ if self.blocked => Next::Wait(Wait::Blocked),
            _ if self.empty => Next::Reset,
            Seen::Gone => Next::Wait(Wait::Target),
            Seen::There { uid, asked: asked @ 1.., .. } => Next::Note(Note {
                reset: due.id.clone(),
                target: due.target.clone(),
                uid: uid.clone(),
                replicas: *asked,
                stopped: None,
            }),
            Seen::There { there: 1.., .. } => Next::Wait(Wait::Pods),
            Seen::There { .. } => Next::Wait(Wait::Members),
        }
    }

    fn go_on(&self, due: &Due, note: &Note, now: Timestamp) -> Next {
        let Seen::There { uid, asked, there } = &self.seen else { return Next::Forget };
        if *uid != note.uid {
            return Next::Forget;
        }
        if *asked == 0 && *there == 0 && self.empty && !self.blocked {
            return Next::Reset;
        }
        let waited = note.stopped.map(|stopped| Duration::try_from(now.duration_since(stopped)).unwrap_or_default());
        if waited.is_some_and(|waited| waited >= due.limit) {
            return Next::GiveUp;
        }
        match (asked, there) {
            (1.., _) if *asked != note.replicas => Next::Note(Note { replicas: *asked, ..note.clone() }),
            (1.., _) => Next::Stop,
            // Whoever stopped them did not come to note when.
            _ if note.stopped.is_none() => Next::Note(Note { stopped: Some(now), ..note.clone() }),
            (_, 1..) => Next::Wait(Wait::Pods),
            _ if self.blocked => Next::Wait(Wait::Blocked),
            _ => Next::Wait(Wait::Members),
        }
    }

    fn end(&self, note: &Note) -> Next {
        match &self.seen {
            Seen::There { uid, asked: 0, .. } if *uid == note.uid && note.replicas > 0 => Next::Start(note.replicas),
            _ => Next::Forget,
        }
    }
}
