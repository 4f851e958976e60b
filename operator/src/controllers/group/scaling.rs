//! Has as many consumers as `consumers::replicas` answers: looks at what runs them, asks, sets the number.
//!
//! Nothing is done beside somebody else who scales the same, nor while a reset keeps consumers stopped.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::events::EventType;

use super::look::Look;
use super::target::{self, Scaled, Set, To};
use crate::consumers::replicas::{self, Answer, Facts, Limit, Pending, Policy, Why};
use crate::controllers::{Context, Error};
use crate::crd::consumer_group::{Edge, PendingStatus, Scale, ScaleMode, ScalingStatus};
use crate::events;
use crate::groups::facts::Facts as Group;
use crate::groups::lag;
use crate::topics::desired::{Invalid, span_ms};

/// Goes one step; answers when to look again, if that has to be soon. A right that the operator does not have is nothing to
/// fail for: the group is watched all the same.
///
/// # Errors
/// The API server's.
pub async fn step(
    look: &mut Look<'_>,
    context: &Context,
    group: &Group,
    seconds: Option<i64>,
) -> Result<Option<Duration>, Error> {
    if let Some(why) = look.forbidden.take() {
        inactive(look, "Forbidden", &why);
        return Ok(None);
    }
    match scale(look, context, group, seconds).await {
        Err(error) if target::is_forbidden(&error) => {
            inactive(look, "Forbidden", &target::forbidden(&error));
            Ok(None)
        }
        done => done,
    }
}

async fn scale(
    look: &mut Look<'_>,
    context: &Context,
    group: &Group,
    seconds: Option<i64>,
) -> Result<Option<Duration>, Error> {
    let before = look.status.scaling.clone();
    let Some(scale) = &look.group.spec.scale else {
        look.status.scaling = None;
        return Ok(None);
    };
    if scale.mode == ScaleMode::Manual {
        look.status.scaling = None;
        look.conditions.set("ScalingActive", false, "Manual", "the number of consumers is left to others");
        return Ok(None);
    }
    if !context.settings.allow_scale_targets {
        inactive(look, "NotAllowed", NOT_ALLOWED);
        return Ok(None);
    }
    let policy = match policy(scale) {
        Ok(policy) => policy,
        Err(invalid) => {
            inactive(look, "InvalidSpec", &invalid.to_string());
            return Ok(None);
        }
    };
    if look.status.pause.is_some() {
        look.conditions.set("ScalingActive", false, "ResetUnderWay", "consumers are stopped while offsets are moved");
        return Ok(None);
    }
    let (target, namespace) = (target::of(&scale.target_ref), target::namespace(look.group));
    let name = target::named(&target);
    let found = match target::look(context, &namespace, &target).await? {
        Some(Ok(found)) => found,
        Some(Err(why)) => {
            inactive(look, "TargetRefused", &why);
            return Ok(None);
        }
        None => {
            let why = format!("there is no {name}");
            look.conditions.set("ScalingActive", false, "TargetNotFound", why.clone()).waiting("TargetNotFound", why);
            return Ok(Some(replicas::LOOK));
        }
    };
    if let Some(other) = target::other(context, look.group, &target, To::Scale).await? {
        let why =
            format!("{} scales {name}: only one may. It is left to that, until one of the two is gone", other.who);
        inactive(look, "ScaleConflict", &why);
        return Ok(None);
    }
    let now = Timestamp::now();
    let facts = facts(look, group, seconds, &found, before.as_ref());
    let answer = facts.next(&policy, now);
    let status = ScalingStatus {
        desired_replicas: answer.replicas,
        replicas: found.there,
        pending: answer.pending.as_ref().map(note),
        last_scale_time: before.and_then(|before| before.last_scale_time),
    };
    look.status.scaling = Some(status);
    let (reason, message) = shown(&answer, &policy);
    look.conditions.set("ScalingActive", true, reason, message);
    match answer.limit {
        None => look.conditions.set("ScalingLimited", false, "WithinLimits", ""),
        Some(Limit::Least) => look.conditions.set("ScalingLimited", true, "MinReplicas", "fewer would do"),
        Some(Limit::Most) => look.conditions.set("ScalingLimited", true, "MaxReplicas", "the lag asks for more"),
        Some(Limit::Partitions) => {
            let why = "the lag asks for more, but the records are in so few partitions, each read by one member";
            look.conditions.set("ScalingLimited", true, "Partitions", why)
        }
    };
    if answer.replicas == found.asked {
        return Ok(Some(answer.again));
    }
    // First that the window has ended: one that was noted for this number before must not count when it comes back.
    look.note(context).await?;
    if found.set(context, &namespace, &target, answer.replicas).await? == Set::Changed {
        return Ok(Some(Duration::from_secs(1)));
    }
    if let Some(status) = &mut look.status.scaling {
        status.last_scale_time = Some(Time(now));
    }
    let note = format!("{name}: {} -> {}, {}", found.asked, answer.replicas, why(&answer, &policy));
    let reason = if answer.replicas > found.asked { "ScaledUp" } else { "ScaledDown" };
    events::publish(context, look.group, EventType::Normal, reason, "Scale", note).await;
    Ok(Some(answer.again))
}

/// What an operator says that may not scale.
pub const NOT_ALLOWED: &str =
    "this operator is not allowed to scale Deployments and StatefulSets (chart: scaleTargets.allowed)";

/// Only somebody's doing helps.
fn inactive(look: &mut Look<'_>, reason: &str, why: &str) {
    look.status.scaling = None;
    look.conditions.set("ScalingActive", false, reason, why).stalled(reason, why);
}

fn policy(scale: &Scale) -> Result<Policy, Invalid> {
    let window = |field, text: &str| {
        let ms = span_ms(field, text)?;
        Ok(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
    };
    Ok(Policy {
        least: scale.min_replicas,
        most: scale.max_replicas.unwrap_or(scale.min_replicas),
        per_replica: scale.lag_per_replica,
        wakes_at: scale.activation_lag,
        up: window("scale.upWindow", &scale.up_window)?,
        down: window("scale.downWindow", &scale.down_window)?,
        idle: scale.allow_idle,
    })
}

fn facts(
    look: &Look<'_>,
    group: &Group,
    seconds: Option<i64>,
    found: &Scaled,
    before: Option<&ScalingStatus>,
) -> Facts {
    let from_start = look.group.spec.initial_offsets.as_ref().is_some_and(|at| at.offset == Some(Edge::Earliest));
    let blind = if from_start { 0 } else { group.uncommitted().count() };
    Facts {
        lags: group.partitions.values().map(|partition| lag::behind(partition, from_start)).collect(),
        age: seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs),
        blind,
        unseen: !group.missing.is_empty() || !group.unknown.is_empty(),
        members: group.members,
        asked: found.asked,
        there: found.there,
        pending: before.and_then(|before| before.pending.as_ref()).map(noted),
    }
}

fn note(pending: &Pending) -> PendingStatus {
    let Pending { of, to, since, looked } = pending;
    PendingStatus { from: *of, to: *to, since: Time(*since), looked_at: Time(*looked) }
}

fn noted(status: &PendingStatus) -> Pending {
    Pending { of: status.from, to: status.to, since: status.since.0, looked: status.looked_at.0 }
}

/// A condition's reason and message. No numbers that change all the time.
fn shown(answer: &Answer, policy: &Policy) -> (&'static str, String) {
    match answer.why {
        Why::Held(to, until) => (
            "Stabilizing",
            format!("{to} replicas are wanted, and there will be as many at {until:.0} if that stays so"),
        ),
        Why::Coming(to) => {
            ("WaitingForPods", format!("{to} replicas are wanted, but those that were asked for have not come yet"))
        }
        Why::Unseen => ("TopicsMissing", "not all partitions can be seen: nobody is taken away".into()),
        Why::Enough => ("Enough", String::new()),
        Why::Woken | Why::More | Why::Fewer | Why::Idle | Why::Bounds => ("Scaled", why(answer, policy)),
    }
}

fn why(answer: &Answer, policy: &Policy) -> String {
    match answer.why {
        Why::Woken => "there is something to read".into(),
        Why::More => format!("more were wanted for {} s", policy.up.as_secs()),
        Why::Fewer => format!("fewer were wanted for {} s", policy.down.as_secs()),
        Why::Idle => format!("nothing was unread for {} s", policy.down.as_secs()),
        Why::Bounds => "so many there have to be, or may be".into(),
        Why::Enough | Why::Unseen | Why::Held(..) | Why::Coming(_) => String::new(),
    }
}
