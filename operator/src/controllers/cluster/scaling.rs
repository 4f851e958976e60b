//! Has as many brokers as are asked for: looks, asks who decides (`scale`), and does that one thing.
//!
//! How many brokers there are, and what was begun about it, is written to the StatefulSet in one go, over what was looked at
//! or not at all. Whatever is told to brokers can be told again: an operator that dies in the middle goes on from what it
//! sees. While something is under way nobody is restarted but who cannot run anyway, and the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use klamm_client::admin::configs::{ConfigChange, Resource};
use klamm_client::admin::reassignments::Reassignment;
use klamm_client::{Client, ClientError, TopicPartition};
use klamm_planner::{Broker as Place, Facts as Placement, Wish};
use klamm_protocol::Uuid;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::hindered::hindered;
use super::moves::{self, Moved};
use super::observed::Observed;
use super::{Halt, Pass, recreate, rolling};
use crate::FIELD_MANAGER;
use crate::brokers::Brokers;
use crate::crd::cluster::{BrokerState, OnScaleOut, OperationStep, OperationType, Progress};
use crate::events::publish;
use crate::ids;
use crate::quantity::milli;
use crate::render::names::DRAINING;
use crate::scale::{self, Broker, Facts, Limit, Next, Wait};

/// What Events say that the operator did.
const ACTION: &str = "Scale";
/// Why brokers come that nobody has asked to come, in one word.
pub(super) const TAKEN_AWAY: &str = "BrokersTakenAway";
/// The configuration by which a broker gets no new replicas, and its value for all directories.
const CORDONED: (&str, &str) = ("cordoned.log.dirs", "*");
/// The topic of the metadata, which every broker has.
const METADATA: &str = "__cluster_metadata";

/// How a change of the number of brokers stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scaling {
    /// Out or in.
    pub kind: OperationType,
    /// Why, in one word.
    pub reason: &'static str,
    /// How far it is.
    pub step: OperationStep,
    /// In plain words.
    pub message: String,
    /// The broker that it is about now.
    pub broker: Option<i32>,
    /// Why it does not go on.
    pub blocked_by: Option<String>,
    /// Those that are left to come, to get their share, or to go.
    pub left: Vec<i32>,
    /// How far moving partitions is.
    pub progress: Option<Progress>,
}

/// Why there are not to be as few brokers as are asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limited {
    /// One word.
    pub reason: &'static str,
    /// In plain words.
    pub message: String,
}

/// What brokers tell.
struct Known {
    placement: Placement,
    moving: BTreeMap<TopicPartition, Reassignment>,
    voters: BTreeMap<i32, Uuid>,
}

async fn ask(client: &Client) -> Result<Known, ClientError> {
    let mut placement = client.placement().await?;
    let registered: BTreeSet<i32> = placement.brokers.iter().map(|broker| broker.id).collect();
    let holding = placement.partitions.iter().flat_map(|p| p.replicas.iter().chain(p.moving_to.iter().flatten()));
    let forgotten: BTreeSet<i32> = holding.copied().filter(|id| !registered.contains(id)).collect();
    placement.brokers.extend(forgotten.into_iter().map(|id| Place { alive: false, ..Place::new(id) }));
    let quorum = client.describe_quorum().await?;
    let voters = quorum.nodes.iter().filter(|node| node.votes).map(|node| (node.id, node.directory)).collect();
    Ok(Known { placement, moving: client.reassignments(None).await?, voters })
}

/// Goes one step, be it of a restart or of this.
pub(super) async fn step(pass: &mut Pass<'_>, observed: &Observed) -> Result<(), Halt> {
    let there = observed.replicas();
    let Some(there) = there.filter(|there| !is_settled(pass, observed, *there)) else {
        pass.rolling = rolling::step(pass, observed).await?;
        return Ok(());
    };
    let brokers = pass.context.ways.to(&pass.address());
    let known = match &brokers {
        Some(brokers) => brokers.ask(ask).await.map_err(|error| error.to_string()),
        None => Err("the brokers cannot be reached".to_owned()),
    };
    let mut facts = facts(pass, observed, there, known.as_ref().ok());
    let mut next = facts.next();
    if !(facts.under_way() && next.acts()) {
        pass.rolling = rolling::step(pass, observed).await?;
        facts.rolling = pass.rolling.as_ref().is_some_and(|rolling| rolling.step != OperationStep::Pending);
        next = facts.next();
    }
    let mut blocked = known.as_ref().err().cloned();
    // What the others know may be old: a broker that goes is asked itself.
    if let (Next::GiveUpSeat(_) | Next::Remove(_), Some(brokers)) = (&next, &brokers)
        && facts.brokers.get(&(there - 1)).is_some_and(|broker| broker.alive)
    {
        match brokers.ask(async |client| on_disk(client, there - 1).await).await {
            Ok(holds) => {
                if let Some(broker) = facts.brokers.get_mut(&(there - 1)) {
                    broker.holds = holds;
                }
            }
            Err(error) => {
                facts.unknown = true;
                blocked = Some(error.to_string());
            }
        }
        next = facts.next();
    }
    pass.limited = limited(&facts);
    // What was changed just now has to be seen by others first.
    if pass.applied && next.acts() {
        return Ok(());
    }
    let acting = Acting { observed, facts, brokers, known: known.ok(), blocked };
    pass.scaling = acting.act(pass, next).await?;
    Ok(())
}

/// Whether it takes no question to know that all is done.
pub(super) fn is_settled(pass: &Pass<'_>, observed: &Observed, there: i32) -> bool {
    let told = pass.told.iter().flat_map(|told| told.registered.iter());
    let beyond = observed.pods.keys().chain(told).any(|id| *id >= there);
    pass.checked.spec.replicas == there && observed.begun() == Default::default() && !beyond
}

/// Whether somebody else has taken brokers away: then it is decided that they come back, without asking anybody.
pub(super) fn taken_away(pass: &mut Pass<'_>, observed: &Observed) -> bool {
    let Some(there) = observed.replicas().filter(|_| !observed.set.as_ref().is_some_and(recreate::is_going)) else {
        return false;
    };
    // The note is written before brokers are there, the status after.
    let shown = pass.cluster.status.as_ref().map_or(0, |status| status.brokers.len());
    let noted = observed.noted().unwrap_or(0).min(i32::try_from(shown).unwrap_or(i32::MAX));
    let begun = observed.begun();
    let Some(next) = scale::taken_away(there, noted, &begun) else { return false };
    let after = begun.after(&next, there);
    pass.scaled = Some((next, after));
    true
}

/// Says that they come back.
pub(super) async fn put_back(pass: &mut Pass<'_>, observed: &Observed) {
    let (Some(there), Some((Next::Add(count), _))) = (observed.replicas(), &pass.scaled) else { return };
    let left: Vec<i32> = (there..*count).collect();
    let who = ids::brokers(&left);
    let come = if left.len() == 1 { "comes" } else { "come" };
    let set = &pass.checked.names.cluster;
    let message = format!("somebody else has scaled StatefulSet {set} to {there}: {who} {come} back");
    tracing::info!(message, "brokers come or go");
    publish(pass.context, pass.cluster, EventType::Warning, TAKEN_AWAY, ACTION, message.as_str()).await;
    let (kind, step, reason) = (OperationType::ScaleOut, OperationStep::Running, TAKEN_AWAY);
    pass.scaling = Some(Scaling { kind, reason, step, message, broker: None, blocked_by: None, left, progress: None });
}

/// Labels the pod of the broker that goes, and no other one, so that autoscalers do not count it.
///
/// # Errors
/// The API server's.
pub(super) async fn mark(client: &kube::Client, observed: &Observed) -> Result<(), kube::Error> {
    let there = observed.replicas().unwrap_or(i32::MAX);
    let leaving = observed.begun().leaving;
    for (id, pod) in observed.pods.iter().filter(|(_, pod)| pod.metadata.deletion_timestamp.is_none()) {
        let goes = leaving == Some(*id) || *id >= there;
        if pod.labels().contains_key(DRAINING) == goes {
            continue;
        }
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let patch = json!({ "metadata": { "uid": pod.uid(), "labels": { DRAINING: goes.then_some("true") } } });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        match api.patch(&pod.name_any(), &params, &Patch::Merge(&patch)).await {
            Ok(_) => {}
            // It is another pod by now; or the role is somebody's own, and autoscalers count one too many.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() || status.is_forbidden() => {
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn facts(pass: &Pass<'_>, observed: &Observed, there: i32, known: Option<&Known>) -> Facts {
    let mut brokers: BTreeMap<i32, Broker> = BTreeMap::new();
    for id in observed.pods.keys() {
        let seen = observed.seen(&pass.checked.names, *id);
        let state = seen.state;
        let broker = brokers.entry(*id).or_default();
        broker.pod = true;
        broker.ready = state == BrokerState::Running;
        broker.runs = seen.runs || matches!(state, BrokerState::Running | BrokerState::Starting);
    }
    for place in known.iter().flat_map(|known| &known.placement.brokers) {
        let broker = brokers.entry(place.id).or_default();
        (broker.alive, broker.cordoned) = (place.alive, place.cordoned);
        // Who is only named by a partition has been forgotten.
        broker.registered = place.alive || pass.told.as_ref().is_none_or(|told| told.registered.contains(&place.id));
    }
    let mut replication = 0;
    for partition in known.iter().flat_map(|known| &known.placement.partitions) {
        let target = partition.moving_to.as_ref().unwrap_or(&partition.replicas);
        replication = replication.max(i32::try_from(target.len()).unwrap_or(i32::MAX));
        let holding: BTreeSet<i32> = partition.replicas.iter().chain(target).copied().collect();
        for id in holding {
            brokers.entry(id).or_default().holds += 1;
        }
    }
    for id in known.iter().flat_map(|known| known.voters.keys()) {
        if let Some(broker) = brokers.get_mut(id) {
            broker.voter = true;
        }
    }
    let spec = &pass.checked.spec;
    let rendered = observed.facts(&pass.checked.names, &[], None);
    Facts {
        asked: spec.replicas,
        least: spec.min_replicas,
        replication,
        founders: pass.checked.founders(&rendered),
        there,
        brokers,
        begun: observed.begun(),
        unknown: known.is_none(),
        rolling: false,
        paused: spec.paused,
        spreads: spec.rebalance.on_scale_out == OnScaleOut::Auto,
    }
}

/// How many replicas a broker has on its disks.
async fn on_disk(client: &Client, id: i32) -> Result<usize, ClientError> {
    let dirs = client.log_dirs(id).await?;
    Ok(dirs.iter().flat_map(|dir| dir.partitions.keys()).filter(|at| at.topic != METADATA).count())
}

fn limited(facts: &Facts) -> Option<Limited> {
    let (target, limit) = facts.target();
    let (reason, why) = match limit.filter(|_| !facts.unknown)? {
        Limit::Least => ("MinReplicas", "spec.minReplicas says so".to_owned()),
        Limit::Replication => ("ReplicationFactor", format!("there are partitions with {target} replicas")),
        Limit::Quorum => ("Quorum", format!("the metadata quorum began with {target}")),
    };
    let message = format!("{} brokers are asked for, there are not to be fewer than {target}: {why}", facts.asked);
    Some(Limited { reason, message })
}

/// One decision, and what it was made from.
struct Acting<'a> {
    observed: &'a Observed,
    facts: Facts,
    brokers: Option<Arc<Brokers>>,
    known: Option<Known>,
    blocked: Option<String>,
}

impl Acting<'_> {
    /// Does it; says how that stands.
    async fn act(&self, pass: &mut Pass<'_>, next: Next) -> Result<Option<Scaling>, Halt> {
        let facts = &self.facts;
        // First what is noted only when it is done, then the note, then what is noted before it is done.
        let mut moved = Moved::default();
        if !matches!(next, Next::Cordon(_))
            && let Some(done) = self.tell(pass, &next).await
        {
            match done {
                Ok(done) => moved = done,
                Err(error) => return Ok(Some(self.shown(pass, &next, Moved::blocked(error.to_string())))),
            }
        }
        let next = match next {
            Next::Spread(_) if moved.finished => Next::Joined,
            next => next,
        };
        let noted = facts.begun.after(&next, facts.there);
        if noted != facts.begun || matches!(next, Next::Add(_) | Next::Remove(_)) {
            pass.scaled = Some((next.clone(), noted));
            let tracked = pass.tracked(self.observed);
            pass.apply(self.observed, tracked).await?;
        }
        if matches!(next, Next::Cordon(_))
            && let Some(Err(error)) = self.tell(pass, &next).await
        {
            moved = Moved::blocked(error.to_string());
        }
        if pass.waiting.is_none()
            && let Some((reason, note)) = self.event(&next)
        {
            tracing::info!(reason, note, "brokers come or go");
            publish(pass.context, pass.cluster, EventType::Normal, reason, ACTION, note).await;
        }
        // Of the last step there is nothing left to show.
        Ok((next != Next::Nothing).then(|| self.shown(pass, &next, moved)))
    }

    /// What brokers have to be told; `None` when nothing is.
    async fn tell(&self, pass: &Pass<'_>, next: &Next) -> Option<Result<Moved, ClientError>> {
        let (brokers, known) = (self.brokers.as_ref()?, self.known.as_ref()?);
        let config = async |client: &Client, id: i32, change: ConfigChange| {
            client.alter_configs(&Resource::Broker(id), &[change], false).await
        };
        let uncordoned = || ConfigChange::Delete(CORDONED.0.to_owned());
        let done = async |client: &Client| {
            match next {
                Next::Cordon(id) => {
                    let cordoned = ConfigChange::Set(CORDONED.0.to_owned(), CORDONED.1.to_owned());
                    config(client, *id, cordoned).await?;
                }
                Next::Uncordon(id) => config(client, *id, uncordoned()).await?,
                Next::Unregister(id) => {
                    // Its registration says on that it is cordoned; the next broker of that id is another one.
                    config(client, *id, uncordoned()).await?;
                    client.unregister_broker(*id).await?;
                    moves::unthrottle(client, &known.placement).await?;
                }
                Next::GiveUpSeat(id) => self.give_up_seat(client, known, *id).await?,
                Next::Drain(id) => return self.carry(pass, client, known, Some(*id)).await,
                Next::Spread(_) => {
                    let moved = self.carry(pass, client, known, None).await?;
                    if moved.finished {
                        moves::unthrottle(client, &known.placement).await?;
                    }
                    return Ok(moved);
                }
                Next::Remove(_) => moves::unthrottle(client, &known.placement).await?,
                Next::Nothing | Next::Add(_) | Next::Joined | Next::Wait(_) => {}
            }
            Ok(Moved::default())
        };
        match next {
            Next::Nothing | Next::Add(_) | Next::Joined | Next::Wait(_) => None,
            _ => Some(brokers.ask(done).await),
        }
    }

    /// The brokers give the seat of one that is cordoned to another by themselves, where there is one.
    async fn give_up_seat(&self, client: &Client, known: &Known, id: i32) -> Result<(), ClientError> {
        let takes = |place: &Place| place.alive && !place.cordoned && !known.voters.contains_key(&place.id);
        match known.voters.get(&id) {
            Some(directory) if !known.placement.brokers.iter().any(takes) => client.remove_voter(id, *directory).await,
            _ => Ok(()),
        }
    }

    /// Has partitions move: off one broker, or onto all evenly.
    async fn carry(
        &self,
        pass: &Pass<'_>,
        client: &Client,
        known: &Known,
        off: Option<i32>,
    ) -> Result<Moved, ClientError> {
        let (target, _) = self.facts.target();
        let mut placement = known.placement.clone();
        for place in &mut placement.brokers {
            place.draining = Some(place.id) == off;
            // Nothing is moved to one that goes next.
            place.cordoned |= place.id >= target;
        }
        let rebalance = &pass.checked.spec.rebalance;
        let most = usize::try_from(rebalance.max_concurrent_moves).unwrap_or(1).max(1);
        let rate = milli(&rebalance.throttle).and_then(|milli| u64::try_from(milli / 1000).ok()).unwrap_or(1).max(1);
        let wish = Wish { even: off.is_none(), moves_max: Some(most), ..Wish::default() };
        moves::carry(client, &placement, &known.moving, &wish, rate).await
    }

    /// What an Event tells of a step; nothing of those that were told, or that come again and again.
    fn event(&self, next: &Next) -> Option<(&'static str, String)> {
        let begun = &self.facts.begun;
        Some(match next {
            Next::Add(count) => {
                let there = self.facts.there;
                (
                    "ScaleOut",
                    format!("{count} brokers are asked for: {}", ids::agree(there..*count, "is added", "are added")),
                )
            }
            Next::Cordon(id) if begun.leaving != Some(*id) => {
                ("BrokerCordoned", format!("broker {id} is to go: it gets nothing more, and what it holds is moved"))
            }
            Next::Uncordon(id) if begun.leaving == Some(*id) => {
                ("BrokerUncordoned", format!("broker {id} is to stay: it is let in again"))
            }
            Next::Remove(count) => ("BrokerRemoved", format!("broker {count} holds nothing: its pod is taken away")),
            Next::Unregister(id) => ("BrokerUnregistered", format!("broker {id} is gone and forgotten")),
            Next::Joined => {
                let joined: Vec<i32> = begun.joining.range(..self.facts.there).copied().collect();
                // Those that stay after one has gone are even, which is no news.
                if joined.is_empty() {
                    return None;
                }
                ("ScaledOut", ids::agree(joined, "has its share", "have their share"))
            }
            _ => return None,
        })
    }

    fn shown(&self, pass: &Pass<'_>, next: &Next, moved: Moved) -> Scaling {
        let facts = &self.facts;
        let (target, there) = (facts.target().0, facts.there);
        let kind = if facts.inward() { OperationType::ScaleIn } else { OperationType::ScaleOut };
        let mut left: BTreeSet<i32> = facts.brokers.range(target.max(0)..).map(|(id, _)| *id).collect();
        left.extend(target..there);
        left.extend(there..target);
        left.extend(facts.begun.joining.range(..there));
        let mut scaling = Scaling {
            kind,
            reason: "ReplicasChanged",
            step: OperationStep::Running,
            message: String::new(),
            broker: None,
            blocked_by: moved.blocked,
            left: left.into_iter().collect(),
            progress: (moved.progress != Progress::default()).then_some(moved.progress),
        };
        let (step, broker, message) = match next {
            Next::Nothing => (OperationStep::Running, None, String::new()),
            Next::Add(count) => {
                // Their addresses may have to be known before.
                scaling.blocked_by = pass.waiting.clone();
                (OperationStep::Running, None, ids::agree(there..*count, "is added", "are added"))
            }
            Next::Spread(joining) => {
                let who = match joining.is_empty() {
                    true => "those that stay get their".to_owned(),
                    false => ids::agree(joining.iter().copied(), "gets its", "get their"),
                };
                (OperationStep::Spreading, None, format!("{who} share of partitions and leaders"))
            }
            Next::Joined => (OperationStep::Spreading, None, "all brokers have their share".to_owned()),
            Next::Uncordon(id) => (OperationStep::Cordoning, Some(*id), format!("broker {id} is let in again")),
            Next::Cordon(id) => (OperationStep::Cordoning, Some(*id), format!("broker {id} gets nothing more")),
            Next::Drain(id) => {
                let holds = facts.brokers.get(id).map_or(0, |broker| broker.holds);
                let message = format!("broker {id} gives away what it holds: {holds} replicas");
                (OperationStep::Draining, Some(*id), message)
            }
            Next::GiveUpSeat(id) => {
                (OperationStep::GivingUpSeat, Some(*id), format!("broker {id} gives its seat in the quorum away"))
            }
            Next::Remove(id) => {
                (OperationStep::Removing, Some(*id), format!("broker {id} holds nothing, and is taken away"))
            }
            Next::Unregister(id) => (OperationStep::Unregistering, Some(*id), format!("broker {id} is forgotten")),
            Next::Wait(why) => self.waiting(pass, why, &mut scaling),
        };
        let message = match &scaling.blocked_by {
            Some(why) => format!("{message}: {why}"),
            None => message,
        };
        Scaling { step, broker, message, ..scaling }
    }

    fn waiting(&self, pass: &Pass<'_>, why: &Wait, scaling: &mut Scaling) -> (OperationStep, Option<i32>, String) {
        let facts = &self.facts;
        match why {
            Wait::Paused => {
                let message =
                    format!("{} brokers are asked for, there are {}; spec.paused is true", facts.asked, facts.there);
                (OperationStep::Pending, None, message)
            }
            Wait::Rolling => {
                (OperationStep::WaitingForBroker, None, "brokers are restarted, which comes first".to_owned())
            }
            Wait::Unknown => {
                scaling.blocked_by.clone_from(&self.blocked);
                (OperationStep::Running, None, "the brokers cannot be asked who holds what".to_owned())
            }
            Wait::Gone(id) => (OperationStep::Removing, Some(*id), format!("broker {id} is about to be gone")),
            Wait::Ready(id) => {
                let names = &pass.checked.names;
                // Those that go as well need not be.
                let stay = 0..facts.there.min(facts.target().0);
                let away = |id: &i32| facts.brokers.get(id).is_none_or(|b| !(b.ready && b.alive));
                let mut waited: Vec<i32> = stay.filter(away).collect();
                if !waited.contains(id) {
                    waited = vec![*id];
                }
                let why = hindered(self.observed, names, waited.iter().copied());
                scaling.blocked_by = Some(why.unwrap_or_else(|| match self.observed.seen(names, *id).state {
                    BrokerState::Running => format!("broker {id} does not take part yet"),
                    state => format!("pod {} is {state:?}", names.pod(*id)),
                }));
                let message = match waited.len() {
                    0 | 1 => format!("broker {id} has to be ready first"),
                    _ => format!("{} have to be ready first", ids::brokers(&waited)),
                };
                (OperationStep::WaitingForBroker, Some(*id), message)
            }
        }
    }
}
