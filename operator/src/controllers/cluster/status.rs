//! What all that was seen of a Cluster comes to: its status. Pure: the same observations give the same status, whatever
//! was said before, but for times and for whether the cluster has ever been complete.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::live::{Configured, Told};
use super::observed::Seen;
use super::rolling::Rolling;
use super::scaling::{Limited, Scaling, TAKEN_AWAY};
use super::storage::Volumes;
use crate::controllers::Error;
use crate::crd::cluster::{
    BrokerState, BrokerStatus, ClusterStatus, ListenerStatus, Operation, OperationStep, OperationType,
};
use crate::ids;
use crate::roll::Reason;
use crate::status::{Conditions, Is};

const PAUSED: &str = "spec.paused is true: nothing is changed";

/// Why the operator does not go on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// One word.
    pub reason: String,
    /// In plain words.
    pub message: String,
}

/// What a status is made of.
#[derive(Clone, Debug)]
pub struct View {
    /// The Cluster's `metadata.generation`.
    pub generation: Option<i64>,
    /// `spec.replicas`.
    pub asked: i32,
    /// How many brokers the StatefulSet has; `None` before there is one.
    pub replicas: Option<i32>,
    /// The brokers by id.
    pub brokers: BTreeMap<i32, Seen>,
    /// By what a pod is known to run as described.
    pub template: Option<String>,
    /// The labels of the brokers' pods.
    pub selector: String,
    /// Whether the operator holds back.
    pub paused: bool,
    /// Why nothing is done until a person does something.
    pub problem: Option<Problem>,
    /// What is waited for, before there can be brokers.
    pub waiting: Option<String>,
    /// What is allowed and hardly meant.
    pub warnings: Vec<String>,
    /// The brokers' answers.
    pub told: Option<Told>,
    /// Brokers that tell clients another address than they have outside by now.
    pub moved: BTreeSet<i32>,
    /// What came of the configuration.
    pub configured: Configured,
    /// How the volumes stand.
    pub volumes: Volumes,
    /// Whether the StatefulSet is about to be made anew.
    pub renewing: bool,
    /// How far restarting is; `None` when nobody has to be, or nobody has looked.
    pub rolling: Option<Rolling>,
    /// Whether it takes another look to know that there are as many brokers as there are to be.
    pub unsettled: bool,
    /// Why brokers that are waited for do not come.
    pub hindered: Option<String>,
    /// How far coming to the number of brokers that is asked for is; `None` when there are as many, or nobody has looked.
    pub scaling: Option<Scaling>,
    /// Why there are not to be as few as are asked for.
    pub limited: Option<Limited>,
    /// Where clients begin.
    pub listeners: Vec<(String, String)>,
}

/// The status.
pub fn build(view: &View, before: Option<&ClusterStatus>, now: Timestamp) -> ClusterStatus {
    let known = before.map(|before| before.conditions.as_slice()).unwrap_or_default();
    let mut conditions = Conditions::new(known, view.generation, now);
    let count = |test: &dyn Fn(i32, &Seen) -> bool| {
        i32::try_from(view.brokers.iter().filter(|(id, seen)| test(**id, seen)).count()).unwrap_or(i32::MAX)
    };
    let current =
        |id: i32, seen: &Seen| view.template.is_some() && seen.template == view.template && !view.moved.contains(&id);
    let ready = count(&|_, seen| seen.state == BrokerState::Running);
    let wanted = view.replicas.unwrap_or(view.asked);
    let complete = view.replicas.is_some() && ready >= wanted;
    let creating = is_creating(before) && !(complete && view.configured != Configured::NotAsked);
    let failing = in_words(view, &|seen| seen.state == BrokerState::Failing);
    let operation = operation(view, creating, before, now);

    brokers_ready(&mut conditions, view, ready, wanted);
    up_to_date(&mut conditions, view, operation.as_ref());
    match &view.configured {
        Configured::Applied => conditions.set("ConfigApplied", true, "Applied", ""),
        Configured::Paused => conditions.set("ConfigApplied", Is::Unknown, "Paused", PAUSED),
        Configured::NotAsked if view.problem.is_some() => {
            conditions.set("ConfigApplied", Is::Unknown, "NotAsked", "the brokers were not asked")
        }
        Configured::NotAsked => conditions.set("ConfigApplied", Is::Unknown, "NoBroker", "no broker is ready yet"),
        Configured::Later if conditions.keep("ConfigApplied") => &mut conditions,
        Configured::Later => conditions.set("ConfigApplied", Is::Unknown, "NotAsked", "the brokers were not asked"),
        Configured::Refused(why) => conditions.set("ConfigApplied", false, "Refused", why.as_str()),
        Configured::Unreachable(why) => conditions.set("ConfigApplied", Is::Unknown, "Unreachable", why.as_str()),
    };
    match &view.volumes {
        Volumes::Fit => conditions.set("StorageReady", true, "AsDescribed", ""),
        Volumes::Growing(which) => conditions.set("StorageReady", false, "Growing", format!("growing: {which}")),
        Volumes::Refused(why) => conditions.set("StorageReady", false, "CannotGrow", why.as_str()),
    };
    if let Some(limited) = &view.limited {
        conditions.set("ScalingLimited", true, limited.reason, limited.message.as_str());
    }
    if !view.warnings.is_empty() {
        conditions.set("Warning", true, "HardlyMeant", view.warnings.join("; "));
    }
    readiness(&mut conditions, view, ready, wanted, creating);
    progress(&mut conditions, view, complete, operation.as_ref(), &failing);

    let brokers = view.brokers.iter().filter(|(id, _)| **id < wanted).map(|(id, seen)| BrokerStatus {
        id: *id,
        pod: seen.pod.clone(),
        rack: view.told.as_ref().and_then(|told| told.racks.get(id).cloned().flatten()),
        state: seen.state,
        up_to_date: current(*id, seen),
    });
    let versions: Vec<_> = view.brokers.values().map(|seen| seen.version.clone()).collect();
    let version =
        versions.first().cloned().flatten().filter(|first| versions.iter().all(|v| v.as_ref() == Some(first)));
    ClusterStatus {
        observed_generation: view.generation,
        replicas: count(&|_, seen| seen.exists),
        ready_replicas: ready,
        updated_replicas: count(&current),
        selector: Some(view.selector.clone()),
        cluster_id: match &view.told {
            Some(told) => Some(told.cluster_id.clone()),
            None => before.and_then(|before| before.cluster_id.clone()),
        },
        version,
        listeners: view
            .listeners
            .iter()
            .map(|(name, servers)| ListenerStatus { name: name.clone(), bootstrap_servers: servers.clone() })
            .collect(),
        brokers: brokers.collect(),
        operation,
        conditions: conditions.finish(),
    }
}

/// The status after a look that did not come to its end: what was true stays so, of the description that it was of.
pub fn interrupted(
    before: Option<&ClusterStatus>,
    generation: Option<i64>,
    error: &Error,
    now: Timestamp,
) -> ClusterStatus {
    let mut status = before.cloned().unwrap_or_default();
    let mut conditions = Conditions::new(&status.conditions, generation, now);
    conditions.set("Reconciling", true, error.reason(), error.to_string());
    if status.conditions.iter().all(|condition| condition.type_ != "Ready") {
        conditions.set("Ready", Is::Unknown, error.reason(), error.to_string());
    }
    let said = conditions.finish();
    status.conditions.retain(|known| said.iter().all(|said| said.type_ != known.type_));
    status.conditions.extend(said);
    status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    status
}

/// Whether the cluster has never been complete.
fn is_creating(before: Option<&ClusterStatus>) -> bool {
    // A look that was interrupted says nothing of brokers.
    let looked = |before: &&ClusterStatus| before.conditions.iter().any(|condition| condition.type_ == "BrokersReady");
    let Some(before) = before.filter(looked) else { return true };
    before.operation.as_ref().is_some_and(|operation| operation.kind == OperationType::Create)
}

/// The brokers of which something holds, each with why.
fn in_words(view: &View, test: &dyn Fn(&Seen) -> bool) -> Option<String> {
    let one = |seen: &Seen| match &seen.why {
        Some(why) => format!("{} ({why})", seen.pod),
        None => seen.pod.clone(),
    };
    let all: Vec<_> = view.brokers.values().filter(|seen| test(seen)).map(one).collect();
    let (shown, more) = (all.iter().take(5).cloned().collect::<Vec<_>>().join(", "), all.len().saturating_sub(5));
    match (all.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(shown),
        (false, more) => Some(format!("{shown} and {more} more")),
    }
}

fn brokers_ready(conditions: &mut Conditions, view: &View, ready: i32, wanted: i32) {
    match in_words(view, &|seen| seen.state != BrokerState::Running) {
        None if view.replicas.is_some() => {
            conditions.set("BrokersReady", true, "AllReady", format!("{ready} of {wanted}"))
        }
        None => conditions.set("BrokersReady", false, "NoBroker", "there are no brokers yet"),
        Some(away) => {
            let message = format!("{ready} of {wanted} brokers are ready; not ready: {away}");
            conditions.set("BrokersReady", false, "NotAllReady", message)
        }
    };
}

fn up_to_date(conditions: &mut Conditions, view: &View, operation: Option<&Operation>) {
    match operation.filter(|operation| operation.kind != OperationType::Create) {
        Some(pending) => {
            let reason = match (pending.kind, pending.step) {
                (OperationType::RollingRestart, OperationStep::Pending) => "RestartRequired",
                (OperationType::RollingRestart, _) => "Rolling",
                (_, OperationStep::Pending) => "ScalingPending",
                _ => "Scaling",
            };
            conditions.set("UpToDate", false, reason, pending.message.as_str())
        }
        None if view.replicas.is_none() => {
            conditions.set("UpToDate", Is::Unknown, "NoBroker", "there are no brokers yet")
        }
        None if view.template.is_none() => {
            conditions.set("UpToDate", Is::Unknown, "NotChecked", "nothing can be made of the description")
        }
        // The first brokers start, and some by a description that has been corrected since.
        None if let Some(rolling) = &view.rolling => {
            let reason = if rolling.step == OperationStep::Pending { "RestartRequired" } else { "Rolling" };
            conditions.set("UpToDate", false, reason, rolling.message.as_str())
        }
        None => conditions.set("UpToDate", true, "AsDescribed", ""),
    };
}

fn readiness(conditions: &mut Conditions, view: &View, ready: i32, wanted: i32, creating: bool) {
    if let Some(problem) = &view.problem {
        conditions.set("Ready", false, &problem.reason, problem.message.as_str());
        return;
    }
    if view.configured == Configured::Later {
        // Whether those that are left serve nobody was asked.
        if ready < wanted || !conditions.keep("Ready") {
            conditions.set("Ready", Is::Unknown, "NotAsked", format!("{ready} of {wanted} brokers are ready"));
        }
        return;
    }
    let hindered = in_words(view, &|seen| seen.state != BrokerState::Running && seen.why.is_some());
    let hindered = hindered.map(|which| format!("; not ready: {which}")).unwrap_or_default();
    let told = format!("{ready} of {wanted} brokers are ready{hindered}");
    if creating {
        let message = view.waiting.clone().unwrap_or(told);
        conditions.set("Ready", false, "Creating", message);
        return;
    }
    // There may be fewer than there should be, for whatever reason.
    let enough = ready >= wanted;
    let served = matches!(view.told.as_ref().map(|told| told.unavailable), Some(None | Some(0)));
    if enough && (wanted >= view.asked || served) {
        conditions.set("Ready", true, "Serving", told);
        return;
    }
    match view.told.as_ref().map(|told| told.unavailable) {
        // All were ready when they were asked, and were not asked for more.
        Some(None) => conditions.set("Ready", true, "Degraded", told),
        Some(Some(0)) => {
            conditions.set("Ready", true, "Degraded", format!("{told}; every partition can be written to"))
        }
        Some(Some(short)) => {
            let message = format!("{told}; {short} partitions cannot be written to");
            conditions.set("Ready", false, "PartitionsUnavailable", message)
        }
        None => conditions.set("Ready", false, "BrokersUnreachable", told),
    };
}

/// What kstatus reads: whether something goes on, or will not go on by itself.
fn progress(
    conditions: &mut Conditions,
    view: &View,
    complete: bool,
    operation: Option<&Operation>,
    failing: &Option<String>,
) {
    let under_way = operation.filter(|operation| operation.step != OperationStep::Pending);
    let creating = under_way.is_some_and(|operation| operation.kind == OperationType::Create);
    // What will not be without somebody's doing.
    let stalled = match (&view.problem, failing, &view.configured, &view.volumes) {
        (Some(problem), ..) => Some((problem.reason.as_str(), problem.message.as_str())),
        (_, Some(failing), ..) => Some(("BrokersFail", failing.as_str())),
        (_, _, Configured::Refused(why), _) => Some(("ConfigRefused", why.as_str())),
        (.., Volumes::Refused(why)) => Some(("CannotGrow", why.as_str())),
        _ => None,
    };
    match stalled {
        Some((reason, message)) => conditions.set("Stalled", true, reason, message),
        None => conditions.set("Stalled", false, "Fine", ""),
    };
    let (going, reason, message) = match (&view.volumes, &view.waiting) {
        _ if stalled.is_some() => (false, "Stalled", String::new()),
        _ if view.paused => (false, "Paused", PAUSED.to_owned()),
        (_, Some(waiting)) => (true, "WaitingForAddress", waiting.clone()),
        _ if creating => (true, "Creating", String::new()),
        _ if let Some(operation) = under_way => {
            let rolling = operation.kind == OperationType::RollingRestart;
            (true, if rolling { "Rolling" } else { "Scaling" }, operation.message.clone())
        }
        _ if !complete => (true, "BrokersNotReady", String::new()),
        (Volumes::Growing(which), _) => (true, "VolumesGrow", which.clone()),
        _ => (false, "Done", String::new()),
    };
    conditions.set("Reconciling", going, reason, message);
}

fn operation(view: &View, creating: bool, before: Option<&ClusterStatus>, now: Timestamp) -> Option<Operation> {
    let wanted = view.replicas.unwrap_or(view.asked);
    let outdated = |seen: &Seen| seen.exists && view.template.is_some() && seen.template != view.template;
    let old: Vec<i32> = view.brokers.iter().filter(|(_, seen)| outdated(seen)).map(|(id, _)| *id).collect();
    let asked = view.asked;
    // Of a restart that only waits nobody need hear while brokers come or go.
    let acts = |step: OperationStep| step != OperationStep::Pending;
    let scaling = view.scaling.as_ref();
    let scaling = scaling.filter(|scaling| acts(scaling.step) || view.rolling.is_none());
    let scaling = scaling.filter(|_| !view.rolling.as_ref().is_some_and(|rolling| acts(rolling.step)));
    let held = view.replicas.is_none() && (view.problem.is_some() || view.paused);
    let (kind, reason, step, message, brokers) = if creating && held {
        let why = if view.problem.is_some() { "see Stalled" } else { PAUSED };
        let message = format!("the first brokers are to start, and nothing goes on: {why}");
        (OperationType::Create, "NewCluster", OperationStep::Pending, message, Vec::new())
    } else if creating {
        let message = "the first brokers start".to_owned();
        (OperationType::Create, "NewCluster", OperationStep::Running, message, Vec::new())
    } else if let Some(scaling) = scaling {
        (scaling.kind, scaling.reason, scaling.step, scaling.message.clone(), scaling.left.clone())
    } else if let Some(rolling) = &view.rolling {
        let kind = OperationType::RollingRestart;
        (kind, rolling.reason, rolling.step, rolling.message.clone(), rolling.left.clone())
    } else if let Some(last) = last_of_a_roll(view, before) {
        last
    } else if !old.is_empty() {
        let who = ids::agree(old.iter().copied(), "runs", "run");
        let message = format!("{who} by an older description, and nothing goes on: see Stalled");
        (OperationType::RollingRestart, "TemplateChanged", OperationStep::Pending, message, old)
    } else if !view.moved.is_empty() {
        let who = ids::agree(view.moved.iter().copied(), "tells", "tell");
        let message =
            format!("{who} clients old addresses: it takes effect when pods are deleted, one after the other");
        let moved = view.moved.iter().copied().collect();
        (OperationType::RollingRestart, "AddressChanged", OperationStep::Pending, message, moved)
    } else if (asked != wanted || view.unsettled) && view.limited.is_none() {
        // Nobody has looked yet, or nobody can: a description that makes no sense.
        let about: Vec<i32> = (wanted.min(asked)..wanted.max(asked)).collect();
        let whom = if about.is_empty() { String::new() } else { format!(": {}", ids::brokers(&about)) };
        let message = format!("{asked} brokers are asked for, there are {wanted}{whom}");
        let step = if view.problem.is_some() { OperationStep::Pending } else { OperationStep::Running };
        match asked >= wanted {
            true => (OperationType::ScaleOut, "ReplicasChanged", step, message, (wanted..asked).collect()),
            false => (OperationType::ScaleIn, "ReplicasChanged", step, message, (asked..wanted).collect()),
        }
    } else {
        return None;
    };
    let pending = |step: OperationStep| step == OperationStep::Pending;
    let same = before.and_then(|before| before.operation.as_ref());
    // What is made even after brokers went is the end of that, and so it is when they are to stay after all; not so when others
    // are added.
    let inward = same.is_some_and(|before| before.kind == OperationType::ScaleIn)
        && asked == wanted
        && step != OperationStep::Running;
    let kind = if kind == OperationType::ScaleOut && inward { OperationType::ScaleIn } else { kind };
    let same = same.filter(|op| op.kind == kind && pending(op.step) == pending(step));
    // Those that were taken away are on their way back until all is as it was.
    let back = same.is_some_and(|op| op.reason == TAKEN_AWAY) && kind == OperationType::ScaleOut && asked == wanted;
    let reason = if back { TAKEN_AWAY } else { reason };
    let started_at = same.map_or(Time(now), |operation| operation.started_at.clone());
    let (broker, blocked_by, progress) = match (&view.rolling, scaling) {
        (_, Some(scaling)) if kind != OperationType::Create => {
            (scaling.broker, scaling.blocked_by.clone(), scaling.progress)
        }
        (Some(rolling), _) if kind == OperationType::RollingRestart => {
            (rolling.broker, rolling.blocked_by.clone(), None)
        }
        _ => (None, None, None),
    };
    // Whatever goes on: it waits for those that do not come.
    let waits = matches!(step, OperationStep::Running | OperationStep::WaitingForBroker);
    let blocked_by = blocked_by.or_else(|| view.hindered.clone().filter(|_| waits));
    Some(Operation { kind, reason: reason.into(), step, message, broker, blocked_by, brokers, progress, started_at })
}

/// A roll is not over before its last broker is back.
fn last_of_a_roll(
    view: &View,
    before: Option<&ClusterStatus>,
) -> Option<(OperationType, &'static str, OperationStep, String, Vec<i32>)> {
    let rolled = before.and_then(|before| before.operation.as_ref());
    let rolled = rolled.filter(|op| op.kind == OperationType::RollingRestart && op.step != OperationStep::Pending)?;
    let reason = Reason::of(&rolled.reason).unwrap_or(Reason::Description).word();
    let away: Vec<i32> =
        view.brokers.iter().filter(|(_, b)| b.state != BrokerState::Running).map(|(id, _)| *id).collect();
    let old = view.brokers.values().any(|seen| seen.exists && seen.template != view.template);
    if away.is_empty() || old || view.template.is_none() {
        return None;
    }
    let message = format!("all run by the newest description; not ready yet: {}", ids::brokers(&away));
    Some((OperationType::RollingRestart, reason, OperationStep::WaitingForBroker, message, Vec::new()))
}
