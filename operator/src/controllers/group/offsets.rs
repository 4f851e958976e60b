//! Moving a group's offsets: once for a reset, and at the beginning of partitions that have none.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use klamm_client::ClientError;
use klamm_protocol::error::ErrorCode;
use kube::runtime::events::EventType;

use super::look::Look;
use super::pausing::{self, Stopped};
use crate::brokers::Brokers;
use crate::controllers::{Context, Error};
use crate::crd::consumer_group::{Edge, Reset, ResetResult, ResetStatus, WhenActive};
use crate::events;
use crate::groups::cluster;
use crate::groups::facts::Facts;
use crate::groups::reset::{self, Begun, Move};

/// Does a reset that is due, if it can be done now. Answers whether offsets have moved.
///
/// # Errors
/// What is worth another try.
pub async fn reset(
    look: &mut Look<'_>,
    context: &Context,
    brokers: &Brokers,
    wanted: &Reset,
    facts: &Facts,
) -> Result<bool, Error> {
    let started =
        look.status.last_reset.as_ref().filter(|last| last.id == wanted.id && last.result == ResetResult::Started);
    match started.map(|started| reset::begun(started, facts)) {
        Some(Begun::Done) => {
            ended(look, context, wanted, ResetResult::Applied, None).await;
            return Ok(false);
        }
        Some(Begun::Unknown) => {
            let why = "the operator was interrupted, and the group's members have committed since: it is not known \
                whether the offsets have moved. Look at them, and try again with another id";
            ended(look, context, wanted, ResetResult::Failed, Some(why.into())).await;
            return Ok(false);
        }
        // It begins anew, or waits like one that was never begun.
        Some(Begun::NotDone) => look.status.last_reset = None,
        None => {}
    }
    if !wanted.dry_run
        && look.group.status.as_ref().is_none_or(|was| was.last_reset.is_none())
        && reset::is_marked(wanted, facts)
    {
        let why = "the group's commits carry this id: it was done for a resource that is gone";
        ended(look, context, wanted, ResetResult::Applied, Some(why.into())).await;
        return Ok(false);
    }
    let unseen = reset::unseen(wanted, facts).unseen();
    if !unseen.is_empty() {
        // Consumers are not stopped for ever.
        if look.status.pause.is_some()
            && let Stopped::Never(why) = pausing::stop(look, context, wanted, facts.is_empty(), true).await?
        {
            ended(look, context, wanted, ResetResult::Failed, Some(why)).await;
            return Ok(false);
        }
        let why = format!("the reset waits: {unseen}");
        look.conditions.waiting("TopicsMissing", why.clone());
        look.waits = Some(("TopicsMissing", why));
        return Ok(false);
    }
    if facts.partitions.is_empty() {
        let why = "there is nothing to move: the group has committed nothing, and the resource names no topics";
        look.status.last_reset = None;
        ended(look, context, wanted, ResetResult::Failed, Some(why.into())).await;
        return Ok(false);
    }
    let found = match &wanted.to.timestamp {
        None => Default::default(),
        Some(time) => {
            let all = facts.partitions.keys().cloned().collect();
            let ms = time.0.as_millisecond();
            brokers.ask(async |client| cluster::at_time(client, &all, ms).await).await?
        }
    };
    let plan = match reset::plan(wanted, facts, &found) {
        Ok(plan) => plan,
        Err(invalid) => {
            look.status.last_reset = None;
            ended(look, context, wanted, ResetResult::Failed, Some(invalid.to_string())).await;
            return Ok(false);
        }
    };
    let moves = &plan.moves;
    remember_last(look, wanted);
    look.status.last_reset = Some(ResetStatus {
        id: wanted.id.clone(),
        result: ResetResult::Started,
        message: None,
        partitions: i32::try_from(moves.len()).unwrap_or(i32::MAX),
        preview: reset::preview(moves),
        clamped: reset::clamped(&plan),
        asked: Some(reset::asked(wanted)),
        at: Time(Timestamp::now()),
    });
    if wanted.dry_run {
        ended(look, context, wanted, ResetResult::DryRun, None).await;
        return Ok(false);
    }
    match stopped(look, context, wanted, facts).await? {
        Stopped::Yes => {}
        Stopped::Never(why) => {
            look.status.last_reset = None;
            ended(look, context, wanted, ResetResult::Failed, Some(why)).await;
            return Ok(false);
        }
        Stopped::NotYet(reason, why) => {
            look.conditions.ready("Watched", "the group is watched");
            look.conditions.set("Reconciling", true, "ResetWaiting", why.clone());
            look.waits = Some((reason, why));
            return Ok(false);
        }
    }
    if moves.is_empty() {
        ended(look, context, wanted, ResetResult::Applied, Some("all offsets are there already".into())).await;
        return Ok(false);
    }
    look.note(context).await?;
    let id = look.group.group_id();
    let targets = || moves.iter().map(|(at, Move { to, .. })| (at.clone(), *to));
    match brokers.ask(async |client| cluster::commit(client, id, Some(&wanted.id), targets()).await).await {
        Ok(()) => {
            ended(look, context, wanted, ResetResult::Applied, None).await;
            Ok(true)
        }
        // Somebody has joined meanwhile: as if it had been so before.
        Err(error) if has_members(&error) => {
            look.status.last_reset = None;
            let why = "the reset waits until the group has no members";
            look.conditions.ready("Watched", "the group is watched").set("Reconciling", true, "ResetWaiting", why);
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the group has no members that would commit after the reset; sees to that, if it is to.
async fn stopped(look: &mut Look<'_>, context: &Context, wanted: &Reset, facts: &Facts) -> Result<Stopped, Error> {
    if facts.is_empty() && look.status.pause.is_none() {
        return Ok(Stopped::Yes);
    }
    // Not begun: nothing is to be remembered of it.
    let before = look.group.status.as_ref().and_then(|status| status.last_reset.clone());
    let before = before.filter(|last| last.result != ResetResult::Started);
    let begun = std::mem::replace(&mut look.status.last_reset, before);
    let stopped = match wanted.when_active {
        WhenActive::PauseTarget => pausing::stop(look, context, wanted, facts.is_empty(), false).await?,
        _ if facts.is_empty() => Stopped::Yes,
        WhenActive::Fail => Stopped::Never(format!("the group has {} members, and whenActive is Fail", facts.members)),
        WhenActive::Wait => {
            let why = format!("the reset waits until the group has no members: it has {}", facts.members);
            Stopped::NotYet("Waiting", why)
        }
    };
    if stopped == Stopped::Yes {
        look.status.last_reset = begun;
    }
    Ok(stopped)
}

/// Keeps the id of the reset that another one takes the place of: as the status had it before this look.
fn remember_last(look: &mut Look<'_>, wanted: &Reset) {
    let last = look.group.status.as_ref().and_then(|status| status.last_reset.as_ref());
    if let Some(last) = last.filter(|last| last.id != wanted.id) {
        reset::remember(&mut look.status.past_resets, last);
    }
}

/// Says what came of a reset, in the status and in an Event.
pub async fn ended(look: &mut Look<'_>, context: &Context, wanted: &Reset, result: ResetResult, why: Option<String>) {
    remember_last(look, wanted);
    let before = look.status.last_reset.take().filter(|last| last.id == wanted.id);
    // One that was begun is what was asked for then, whatever the description says by now.
    let asked = before.as_ref().filter(|last| last.result == ResetResult::Started).and_then(|last| last.asked.clone());
    let asked = asked.or_else(|| Some(reset::asked(wanted)));
    let begun = before.map(|last| (last.partitions, last.preview, last.clamped));
    let (partitions, preview, clamped) = begun.unwrap_or_default();
    let mut message = why.unwrap_or_else(|| match result {
        ResetResult::DryRun => format!("the offsets of {partitions} partitions would move"),
        _ => format!("the offsets of {partitions} partitions have moved"),
    });
    if let Some(odd) = reset::clamped_text(&clamped).filter(|_| result != ResetResult::Failed) {
        message = format!("{message}; {odd}");
    }
    let (kind, reason) = match result {
        ResetResult::Failed => (EventType::Warning, "ResetFailed"),
        ResetResult::DryRun => (EventType::Normal, "ResetPreviewed"),
        ResetResult::Started | ResetResult::Applied => (EventType::Normal, "ResetApplied"),
    };
    let id = &wanted.id;
    events::publish(context, look.group, kind, reason, "Reset", format!("reset {id}: {message}")).await;
    let id = wanted.id.clone();
    let at = Time(Timestamp::now());
    let message = Some(message);
    look.status.last_reset = Some(ResetStatus { id, result, message, partitions, preview, clamped, asked, at });
}

/// Commits where the group is to begin in partitions that it has not committed anything in. Answers whether it has.
///
/// # Errors
/// What is worth another try.
pub async fn begin(look: &mut Look<'_>, context: &Context, brokers: &Brokers, facts: &Facts) -> Result<bool, Error> {
    let Some(initial) = &look.group.spec.initial_offsets else { return Ok(false) };
    // Where a commit is stale it is not for the operator to say where to go on.
    let open = facts.uncommitted().filter(|at| !facts.stale.contains(*at)).cloned();
    let open: std::collections::BTreeSet<_> = open.collect();
    // Who waits for it before consumers start must not be told too soon.
    if !facts.missing.is_empty() || facts.partitions.is_empty() {
        let names = facts.missing.iter().cloned().collect::<Vec<_>>().join(", ");
        let why = if names.is_empty() {
            "there are no partitions yet".into()
        } else {
            format!("there is no topic {names} yet")
        };
        look.conditions.set("OffsetsInitialized", false, "TopicsMissing", why);
        if open.is_empty() {
            return Ok(false);
        }
    } else if open.is_empty() {
        look.conditions.set("OffsetsInitialized", true, "Committed", "every partition has a commit");
        return Ok(false);
    }
    if !facts.is_empty() {
        let why = format!("{} partitions have no commit: they get one when the group has no members", open.len());
        look.conditions.set("OffsetsInitialized", false, "GroupActive", why);
        return Ok(false);
    }
    let edge = initial.offset;
    let found = match &initial.timestamp {
        None => Default::default(),
        Some(time) => {
            let ms = time.0.as_millisecond();
            brokers.ask(async |client| cluster::at_time(client, &open, ms).await).await?
        }
    };
    let offsets = || {
        open.iter().filter_map(|at| {
            let partition = facts.partitions.get(at)?;
            let offset = match edge {
                Some(Edge::Earliest) => partition.start,
                Some(Edge::Latest) => partition.end,
                None => found.get(at).copied().filter(|offset| *offset >= 0).unwrap_or(partition.end),
            };
            Some((at.clone(), offset))
        })
    };
    let id = look.group.group_id();
    match brokers.ask(async |client| cluster::commit(client, id, None, offsets()).await).await {
        Ok(()) => {
            let note = format!("group {id} begins in {} more partitions", open.len());
            events::publish(context, look.group, EventType::Normal, "OffsetsInitialized", "Commit", note).await;
            look.conditions.set("OffsetsInitialized", true, "Committed", "every partition has a commit");
            Ok(true)
        }
        Err(error) if has_members(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a commit was refused because the group has members.
fn has_members(error: &ClientError) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration | ErrorCode::RebalanceInProgress)
    )
}
