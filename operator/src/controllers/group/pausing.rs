//! Stops a group's consumers for a reset, and starts them again: what `consumers::pause` says, one step at a time, each noted
//! in the status before it is done.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::events::EventType;

use super::look::{FINALIZER, Look};
use super::scaling::NOT_ALLOWED;
use super::target::{self, Scaled, Set, To};
use crate::consumers::pause::{Due, Facts, Next, Note, Target, Wait};
use crate::controllers::{Context, Error, finalizer};
use crate::crd::ConsumerGroup;
use crate::crd::consumer_group::{PauseStatus, Reset, WhenActive};
use crate::events;
use crate::topics::desired::span_ms;

/// Whether offsets can be moved now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stopped {
    /// They can.
    Yes,
    /// Not yet; why, in a word and in plain words.
    NotYet(&'static str, String),
    /// Not at all; why.
    Never(String),
}

/// Whether consumers of this group may be stopped, by what is described or noted.
pub fn concerns(group: &ConsumerGroup) -> bool {
    let stops = group.spec.reset.as_ref().is_some_and(|wanted| wanted.when_active == WhenActive::PauseTarget);
    stops || group.status.as_ref().is_some_and(|status| status.pause.is_some())
}

fn noted(status: &PauseStatus) -> Note {
    Note {
        reset: status.reset.clone(),
        target: Target { kind: status.kind.clone(), name: status.name.clone() },
        uid: status.uid.clone(),
        replicas: status.replicas,
        stopped: status.stopped_at.as_ref().map(|at| at.0),
    }
}

fn status(note: Note) -> PauseStatus {
    let Target { kind, name } = note.target;
    let (reset, uid, replicas) = (note.reset, note.uid, note.replicas);
    PauseStatus { reset, kind, name, uid, replicas, stopped_at: note.stopped.map(Time) }
}

/// What a reset stops.
fn due(look: &Look<'_>, wanted: &Reset) -> Result<Due, String> {
    let Some(scale) = &look.group.spec.scale else {
        return Err("whenActive is PauseTarget, and there is no scale.targetRef".into());
    };
    let limit = span_ms("reset.pauseLimit", &wanted.pause_limit).map_err(|invalid| invalid.to_string())?;
    let limit = Duration::from_millis(u64::try_from(limit).unwrap_or(0));
    Ok(Due { id: wanted.id.clone(), target: target::of(&scale.target_ref), limit })
}

/// Whether consumers have been stopped for a reset for longer than they may be. Where nobody noted since when, it is since now.
pub fn is_late(look: &mut Look<'_>, wanted: &Reset, now: Timestamp) -> bool {
    let Some(pause) = &mut look.status.pause else { return false };
    let stopped = pause.stopped_at.get_or_insert(Time(now)).0;
    let limit = span_ms("reset.pauseLimit", &wanted.pause_limit).unwrap_or(0);
    now.as_millisecond().saturating_sub(stopped.as_millisecond()) >= limit
}

/// Goes on stopping consumers for a reset that is to be done now. `blocked`: something else than members is in the way.
///
/// # Errors
/// The API server's.
pub async fn stop(
    look: &mut Look<'_>,
    context: &Context,
    wanted: &Reset,
    empty: bool,
    blocked: bool,
) -> Result<Stopped, Error> {
    match step(look, context, wanted, empty, blocked).await {
        Err(error) if target::is_forbidden(&error) => {
            let why = target::forbidden(&error);
            look.forbidden = Some(why.clone());
            Ok(Stopped::NotYet("Forbidden", why))
        }
        done => done,
    }
}

async fn step(
    look: &mut Look<'_>,
    context: &Context,
    wanted: &Reset,
    empty: bool,
    blocked: bool,
) -> Result<Stopped, Error> {
    look.decided = true;
    let due = match due(look, wanted) {
        Ok(due) => due,
        Err(why) => return Ok(Stopped::Never(why)),
    };
    let (target, name) = (due.target.clone(), target::named(&due.target));
    let namespace = target::namespace(look.group);
    let found = match target::look(context, &namespace, &target).await? {
        Some(Ok(found)) => Some(found),
        Some(Err(why)) => return Ok(Stopped::Never(why)),
        None => None,
    };
    let note = look.status.pause.as_ref().map(noted);
    let begun = note.is_some();
    let seen = Scaled::seen(found.as_ref());
    let next = Facts { due: Some(due.clone()), note, seen, empty, blocked }.next(Timestamp::now());
    let why = match next {
        Next::Reset | Next::Nothing => return Ok(Stopped::Yes),
        Next::GiveUp => {
            return Ok(Stopped::Never(format!(
                "{name} was stopped for {}, and the offsets could not be moved: the group has members, or partitions \
                 that cannot be seen",
                wanted.pause_limit
            )));
        }
        Next::Note(note) => {
            if !begun {
                if !context.settings.allow_scale_targets {
                    return Ok(Stopped::NotYet("NotAllowed", NOT_ALLOWED.into()));
                }
                let other = target::other(context, look.group, &target, To::Stop).await?;
                if let Some(other) = other.filter(|other| other.from_zero) {
                    let why = format!("{} scales {name}, and would start it again", other.who);
                    return Ok(Stopped::NotYet("ScaleConflict", why));
                }
                // Whoever deletes the resource meanwhile has to wait until consumers run again.
                if !finalizer::keep(&context.client, look.group, FINALIZER, true).await? {
                    return Ok(Stopped::NotYet("Waiting", "the resource is gone".into()));
                }
            }
            look.status.pause = Some(status(note));
            look.note(context).await?;
            if !begun && let Some(found) = &found {
                halt(look, context, found, &target).await?;
            }
            format!("{name} is stopped")
        }
        Next::Stop => {
            if let Some(found) = &found {
                halt(look, context, found, &target).await?;
            }
            format!("{name} is stopped")
        }
        // For another reset, or of another target: that comes first.
        Next::Start(_) | Next::Forget => {
            start(look, context).await?;
            "consumers that were stopped before are started first".into()
        }
        Next::Wait(Wait::Target) => {
            let why = format!("there is no {name} to stop, and the group has members");
            return Ok(Stopped::NotYet("TargetNotFound", why));
        }
        Next::Wait(Wait::Pods) => format!("pods of {name} are about to go"),
        Next::Wait(Wait::Members) => {
            format!("{name} has no pods; the group has members still, which are somebody else's, or not given up yet")
        }
        Next::Wait(Wait::Blocked) => "not all partitions can be seen".into(),
    };
    Ok(Stopped::NotYet("Stopping", why))
}

async fn halt(look: &mut Look<'_>, context: &Context, found: &Scaled, target: &Target) -> Result<(), Error> {
    let namespace = target::namespace(look.group);
    if found.set(context, &namespace, target, 0).await? == Set::Changed {
        return Ok(());
    }
    if let Some(pause) = &mut look.status.pause {
        pause.stopped_at.get_or_insert(Time(Timestamp::now()));
    }
    let note = format!("{}: {} -> 0, to move the group's offsets", target::named(target), found.asked);
    events::publish(context, look.group, EventType::Normal, "ConsumersStopped", "Reset", note).await;
    Ok(())
}

/// Starts consumers that are stopped for a reset which is not to be done, or is done. What came of it is written first.
///
/// # Errors
/// The API server's; they are stopped still.
pub async fn start(look: &mut Look<'_>, context: &Context) -> Result<(), Error> {
    let Some(note) = look.status.pause.as_ref().map(noted) else { return Ok(()) };
    let (namespace, target) = (target::namespace(look.group), note.target.clone());
    let found = target::look(context, &namespace, &target).await?.and_then(Result::ok);
    let seen = Scaled::seen(found.as_ref());
    let next = Facts { due: None, note: Some(note), seen, empty: false, blocked: false }.next(Timestamp::now());
    if let (Next::Start(replicas), Some(found)) = (&next, &found) {
        look.note(context).await?;
        if found.set(context, &namespace, &target, *replicas).await? == Set::Changed {
            return Ok(());
        }
        let note = format!("{}: 0 -> {replicas}, as before the reset", target::named(&target));
        events::publish(context, look.group, EventType::Normal, "ConsumersStarted", "Reset", note).await;
    }
    look.status.pause = None;
    Ok(())
}
