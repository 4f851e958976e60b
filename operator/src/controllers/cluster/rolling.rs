//! Restarts the broker whose turn it is: looks, asks who decides (`roll`), asks the brokers whether it hurts, and deletes
//! that pod and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use klamm_client::{Client, ClientError};
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt};

use super::Pass;
use super::observed::Observed;
use super::storage;
use crate::brokers::Brokers;
use crate::crd::cluster::{ADMIN_PORT, BrokerState, OnOperatorUpgrade, OperationStep, StorageType};
use crate::events::publish;
use crate::ids;
use crate::render::Checked;
use crate::render::names::{RESTART, RESTARTED_FOR, TEMPLATE_HASH};
use crate::roll::{self, Facts, Next, Reason, Wait, safety};

/// A container that has ended again and again runs when it has not done so for this long.
const STEADY: Duration = Duration::from_secs(10);
/// How long the kubelet may take to let the file system of a pod that runs grow, where the driver can do that.
const GROWS_ALONE: Duration = Duration::from_secs(300);
/// What Events say that the operator did.
const ACTION: &str = "RestartBroker";
/// How many brokers are asked before nobody is taken to answer.
const ASKED: usize = 3;

/// How a roll stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rolling {
    /// Why brokers are restarted, in one word.
    pub reason: &'static str,
    /// How far it is.
    pub step: OperationStep,
    /// In plain words.
    pub message: String,
    /// The broker that it is about now.
    pub broker: Option<i32>,
    /// Why that one may not be stopped yet.
    pub blocked_by: Option<String>,
    /// Those that have not been restarted.
    pub left: Vec<i32>,
}

impl Rolling {
    fn new(facts: &Facts, step: OperationStep, broker: Option<i32>, message: impl Into<String>) -> Self {
        let reason = facts.due().map(|(_, reason)| reason).min().map_or("", Reason::word);
        let left = facts.due().map(|(id, _)| id).collect();
        Self { reason, step, message: message.into(), broker, blocked_by: None, left }
    }
}

/// What is seen of the cluster, but for who leads what.
pub fn facts(checked: &Checked, observed: &Observed, now: Timestamp) -> Facts {
    let set = observed.set.as_ref();
    let replicas = observed.replicas().unwrap_or(0);
    let brokers = (0..replicas).map(|id| {
        let pod = stands(checked, observed, id, now);
        let due = due(checked, observed, id, now).filter(|_| pod != roll::Pod::Missing);
        (id, roll::Broker { pod, due, leaders: 0 })
    });
    Facts {
        brokers: brokers.collect(),
        controller: None,
        settled: set.is_some_and(|set| settled(checked, set)),
        paused: checked.spec.paused,
        upgrade_rolls: checked.spec.rolling.on_operator_upgrade == OnOperatorUpgrade::Roll,
        windows: checked.windows.clone(),
    }
}

/// Whether new pods would be as described. Else one that is restarted would be as it was, and be restarted again.
fn settled(checked: &Checked, set: &StatefulSet) -> bool {
    let template = set.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref()?.annotations.as_ref());
    let has = |annotation: &str| template.and_then(|all| all.get(annotation));
    let generation = set.metadata.generation;
    generation.is_some()
        && set.status.as_ref().and_then(|status| status.observed_generation) >= generation
        && has(TEMPLATE_HASH) == Some(&checked.template_hash())
        && has(RESTARTED_FOR) == checked.restart.as_ref()
}

fn stands(checked: &Checked, observed: &Observed, id: i32, now: Timestamp) -> roll::Pod {
    let Some(pod) = observed.pods.get(&id) else { return roll::Pod::Missing };
    if pod.metadata.deletion_timestamp.is_some() {
        return roll::Pod::Going;
    }
    let seen = observed.seen(&checked.names, id);
    match seen.state {
        // Ready for the moment between two of its ends.
        BrokerState::Running if ends_again_and_again(pod, now) => roll::Pod::Unready(roll::PATIENCE),
        BrokerState::Running => roll::Pod::Ready,
        // Another container of the pod fails, and will not stop: only a restart helps. But the broker serves, so that whether
        // that hurts is asked as ever.
        BrokerState::Failing if seen.in_sync => roll::Pod::Unready(roll::PATIENCE),
        BrokerState::Failing if seen.runs => roll::Pod::Unready(unready_for(pod, now)),
        BrokerState::Failing => roll::Pod::Stuck,
        // No node takes it.
        BrokerState::Pending if seen.why.is_some() => roll::Pod::Stuck,
        BrokerState::Pending | BrokerState::Starting => roll::Pod::Unready(unready_for(pod, now)),
    }
}

/// Whether a container that has ended more than once has begun again just now. (A broker that is told its rack has ended once.)
fn ends_again_and_again(pod: &Pod, now: Timestamp) -> bool {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.filter(|container| container.restart_count > 1).any(|container| {
        let runs = container.state.as_ref().and_then(|state| state.running.as_ref()?.started_at.as_ref());
        runs.is_some_and(|since| Duration::try_from(now.duration_since(since.0)).unwrap_or_default() < STEADY)
    })
}

fn unready_for(pod: &Pod, now: Timestamp) -> Duration {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let since = conditions.filter(|c| c.type_ == "Ready").find_map(|c| c.last_transition_time.as_ref());
    let since = since.or(pod.metadata.creation_timestamp.as_ref());
    since.and_then(|since| Duration::try_from(now.duration_since(since.0)).ok()).unwrap_or_default()
}

fn due(checked: &Checked, observed: &Observed, id: i32, now: Timestamp) -> Option<Reason> {
    let pod = observed.pods.get(&id)?;
    let seen = observed.seen(&checked.names, id);
    let other_pod = seen.template.as_deref() != Some(&checked.template_hash());
    if other_pod && seen.description.as_deref() != Some(&checked.description_hash()) {
        return Some(Reason::Description);
    }
    if is_asked(checked, pod) {
        return Some(Reason::Asked);
    }
    if other_pod {
        return Some(Reason::Operator);
    }
    // A volume that did not grow at one start of its pod will not at the next one.
    let grown = storage::waits_for_start(observed.claims.get(&id)?)?;
    let started = pod.metadata.creation_timestamp.as_ref()?.0;
    (started < grown && now >= grown + GROWS_ALONE).then_some(Reason::Volume)
}

/// Whether somebody has asked for this pod's restart, whatever else it is due for.
fn is_asked(checked: &Checked, pod: &Pod) -> bool {
    let wish = checked.restart.as_ref();
    pod.annotations().contains_key(RESTART)
        || wish.is_some_and(|wish| pod.annotations().get(RESTARTED_FOR) != Some(wish))
}

/// How it stands, without a step: what was changed just now has to be seen by others first.
pub(super) fn look(checked: &Checked, observed: &Observed, now: Timestamp) -> Option<Rolling> {
    let facts = facts(checked, observed, now);
    match facts.next(now) {
        Next::Nothing => None,
        Next::Wait(why) => Some(waiting(&facts, &why)),
        Next::Replace(_) | Next::Restart(_) => Some(waiting(&facts, &Wait::Settling)),
    }
}

/// Goes one step. `None` when all run as described.
///
/// # Errors
/// The API server's.
pub(super) async fn step(pass: &mut Pass<'_>, observed: &Observed) -> Result<Option<Rolling>, kube::Error> {
    let now = pass.now;
    let mut facts = facts(&pass.checked, observed, now);
    let mut next = facts.next(now);
    let brokers = pass.brokers();
    let mut lagging = BTreeSet::new();
    if matches!(next, Next::Restart(_)) {
        // Who comes last is known only now, and costs a look at all partitions.
        let asked = match &brokers {
            Some(brokers) => brokers.ask(leadership).await.map_err(|error| error.to_string()),
            None => Err("the brokers cannot be reached".to_owned()),
        };
        match asked {
            Ok(told) => {
                facts.controller = Some(told.controller);
                lagging = told.lagging;
                for (id, count) in told.leaders {
                    if let Some(broker) = facts.brokers.get_mut(&id) {
                        broker.leaders = count;
                    }
                }
                next = facts.next(now);
            }
            Err(error) => return Ok(Some(blocked(&facts, None, error))),
        }
    }
    Ok(match next {
        Next::Nothing => None,
        Next::Wait(why) => Some(waiting(&facts, &why)),
        Next::Replace(id) => Some(restart(pass, observed, &facts, id, Ok("it cannot run as it is")).await?),
        Next::Restart(order) => Some(first_safe(pass, observed, &facts, &order, &lagging).await?),
    })
}

/// Who leads what.
struct Leadership {
    /// The active controller.
    controller: i32,
    /// How many partitions each broker leads.
    leaders: BTreeMap<i32, usize>,
    /// Brokers that hold a replica that is not in sync.
    lagging: BTreeSet<i32>,
}

async fn leadership(client: &Client) -> Result<Leadership, ClientError> {
    let quorum = client.describe_quorum().await?;
    let known = client.refresh(None).await?;
    let (mut leaders, mut lagging) = (BTreeMap::new(), BTreeSet::new());
    for partition in known.topics.values().flat_map(|topic| &topic.partitions) {
        *leaders.entry(partition.leader).or_default() += 1;
        lagging.extend(partition.replicas.iter().filter(|id| !partition.isr.contains(id)));
    }
    Ok(Leadership { controller: quorum.leader, leaders, lagging })
}

/// Restarts the first broker of `order` that may be stopped.
async fn first_safe(
    pass: &mut Pass<'_>,
    observed: &Observed,
    facts: &Facts,
    order: &[i32],
    lagging: &BTreeSet<i32>,
) -> Result<Rolling, kube::Error> {
    let mut first = None;
    for id in order {
        let answer = match ask(pass, observed, facts, *id).await {
            Ok(answer) => answer,
            // Who does not tell about one will not tell about the next.
            Err(why) => return Ok(first.unwrap_or_else(|| blocked(facts, Some(*id), why))),
        };
        let lost = lost_with(&pass.checked, observed.pods.get(id), &answer);
        match answer.blocked().map(|why| with_lagging(why, *id, lagging)).or(lost) {
            Some(why) => {
                first.get_or_insert_with(|| blocked(facts, Some(*id), why));
            }
            None => {
                let hurt = answer.hurt_text();
                let why = hurt.as_deref().map_or(Ok("the others carry on"), Err);
                return restart(pass, observed, facts, *id, why).await;
            }
        }
    }
    Ok(first.unwrap_or_else(|| blocked(facts, None, "nobody may be stopped".into())))
}

/// Why a broker may not be stopped, with the others that this waits for.
pub(super) fn with_lagging(why: String, id: i32, lagging: &BTreeSet<i32>) -> String {
    let others: Vec<i32> = lagging.iter().copied().filter(|other| *other != id).collect();
    match others.len() {
        0 => why,
        1 => format!("{why}; {} is not in sync yet", ids::brokers(&others)),
        _ => format!("{why}; {} are not in sync yet", ids::brokers(&others)),
    }
}

/// What a pod would take with it that is nowhere else: such a one is restarted only when somebody asks for it.
pub(super) fn lost_with(checked: &Checked, pod: Option<&Pod>, answer: &safety::Answer) -> Option<String> {
    let goes = checked.spec.storage.kind == StorageType::Ephemeral && !pod.is_some_and(|pod| is_asked(checked, pod));
    answer.only_here().filter(|_| goes).map(|which| {
        format!(
            "its disk goes with its pod, and the records of {which} are nowhere else. Set the annotation {RESTART} of the \
             Cluster to a new value to restart it all the same"
        )
    })
}

/// Asks others than the broker itself, as long as there are some.
async fn ask(pass: &Pass<'_>, observed: &Observed, facts: &Facts, id: i32) -> Result<safety::Answer, String> {
    let in_sync = facts.brokers.keys().copied().filter(|id| observed.seen(&pass.checked.names, *id).in_sync);
    let (own, mut others): (Vec<i32>, Vec<i32>) = in_sync.partition(|other| *other == id);
    others.sort_by_key(|other| facts.brokers[other].pod != roll::Pod::Ready);
    others.extend(own);
    let mut said = "no broker is ready".to_owned();
    for other in others.into_iter().take(ASKED) {
        let address = format!("{}:{ADMIN_PORT}", pass.checked.names.broker_host(other));
        match safety::ask(&address, id).await {
            Ok(answer) => return Ok(answer),
            Err(error) => said = error,
        }
    }
    Err(said)
}

fn blocked(facts: &Facts, broker: Option<i32>, why: String) -> Rolling {
    let who = broker.map_or_else(|| "no broker".to_owned(), |id| format!("broker {id}"));
    let message = match broker {
        Some(_) => format!("{who} waits to be restarted: {why}"),
        None => format!("{who} is restarted: {why}"),
    };
    Rolling { blocked_by: Some(why), ..Rolling::new(facts, OperationStep::WaitingForSafety, broker, message) }
}

fn waiting(facts: &Facts, why: &Wait) -> Rolling {
    let pending = |message: String| Rolling::new(facts, OperationStep::Pending, None, message);
    let left = || facts.due().map(|(id, _)| id);
    let old = || ids::agree(left(), "runs by an older description", "run by an older description");
    match why {
        Wait::Paused => pending(format!("{}; spec.paused is true", old())),
        Wait::Deferred => pending(format!(
            "another version of the operator makes other pods: {} at the next start. \
             Set the annotation {RESTART} of the Cluster to a new value for that to be now",
            ids::agree(left(), "gets one", "get theirs")
        )),
        Wait::Window(Some(opens)) => pending(format!("{}; the next window opens at {opens}", old())),
        Wait::Window(None) => pending(format!("{}; none of the windows ever opens", old())),
        Wait::Settling => {
            Rolling::new(facts, OperationStep::Running, None, "the StatefulSet is about to take the new description")
        }
        Wait::Broker(id) => Rolling::new(facts, OperationStep::WaitingForBroker, Some(*id), awaited(facts)),
    }
}

/// Whom a roll waits for, and who comes after that: the one that is being restarted is not among the latter.
fn awaited(facts: &Facts) -> String {
    let away = facts.brokers.iter().filter_map(|(id, broker)| {
        let how = match broker.pod {
            roll::Pod::Ready => return None,
            roll::Pod::Missing => "is about to start",
            roll::Pod::Going => "is stopping",
            roll::Pod::Stuck => "does not run",
            // In sync or not: something else may keep its pod from being ready.
            roll::Pod::Unready(since) if since >= roll::PATIENCE => "is not ready",
            roll::Pod::Unready(_) => "is not in sync yet",
        };
        Some(format!("broker {id}, which {how}"))
    });
    let away = away.collect::<Vec<_>>().join("; ");
    let later = |id: &i32| facts.brokers.get(id).is_none_or(|broker| broker.pod != roll::Pod::Going);
    let left: Vec<i32> = facts.due().map(|(id, _)| id).filter(later).collect();
    match left.is_empty() {
        true => format!("waits for {away}"),
        false => format!("waits for {away}; left to restart: {}", ids::brokers(&left)),
    }
}

/// Deletes the pod that was looked at, and no other one of that name. `why`: that nothing suffers by it, or what does.
async fn restart(
    pass: &mut Pass<'_>,
    observed: &Observed,
    facts: &Facts,
    id: i32,
    why: Result<&str, &str>,
) -> Result<Rolling, kube::Error> {
    let reason = facts.brokers[&id].due.unwrap_or(Reason::Description);
    let going = Rolling::new(facts, OperationStep::Restarting, Some(id), format!("broker {id} is restarted"));
    let Some(pod) = observed.pods.get(&id) else { return Ok(going) };
    let api: Api<Pod> = Api::namespaced(pass.context.client.clone(), &pass.checked.names.namespace);
    let preconditions =
        Preconditions { uid: pod.metadata.uid.clone(), resource_version: pod.metadata.resource_version.clone() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    match api.delete(&pod.name_any(), &params).await {
        Ok(_) => {}
        // It is another one by now, or gone: the next look tells.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => return Ok(going),
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            return Ok(forbidden(pass, facts, id, &status.message).await);
        }
        Err(error) => return Err(error),
    }
    pass.applied = true;
    tracing::info!(broker = id, reason = reason.word(), "a broker is restarted");
    let (kind, why) = match why {
        Ok(why) => (EventType::Normal, why),
        Err(hurt) => (EventType::Warning, hurt),
    };
    let note = format!("broker {id} ({}) is restarted: {why}", pod.name_any());
    publish(pass.context, pass.cluster, kind, reason.word(), ACTION, note).await;
    Ok(going)
}

/// The operator's role is of an older chart, or of somebody's own. It is tried again at the usual looks: nobody tells when
/// that has changed.
async fn forbidden(pass: &Pass<'_>, facts: &Facts, id: i32, said: &str) -> Rolling {
    let why = format!("the operator needs the right to delete pods: {said}");
    let message = format!("broker {id} waits to be restarted: {why}");
    let told = pass.cluster.status.as_ref().and_then(|status| status.operation.as_ref());
    if told.is_none_or(|told| told.message != message) {
        publish(pass.context, pass.cluster, EventType::Warning, "Forbidden", ACTION, message.as_str()).await;
    }
    Rolling { blocked_by: Some(why), ..Rolling::new(facts, OperationStep::Pending, Some(id), message) }
}

impl Pass<'_> {
    fn brokers(&self) -> Option<Arc<Brokers>> {
        self.context.ways.to(&self.address())
    }
}
