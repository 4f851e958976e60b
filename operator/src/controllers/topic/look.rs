//! One look at a topic: what is to be done is done, and what there is becomes the Topic's status.

use std::time::Duration;

use jiff::Timestamp;
use klamm_client::ClientError;
use klamm_protocol::error::ErrorCode;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use super::leave::{FINALIZER, MAKES};
use crate::clusters::{self, Resolved};
use crate::controllers::finalizer;
use crate::controllers::known::full_name;
use crate::controllers::owner::{Seen, owner};
use crate::controllers::{Context, Error};
use crate::crd::Topic;
use crate::crd::common::DeletionPolicy;
use crate::crd::topic::{Applied, TopicStatus};
use crate::events;
use crate::status::{self, Conditions};
use crate::topics::cluster;
use crate::topics::desired::{self, Invalid};
use crate::topics::plan::{self, Facts, Plan, Step};

/// How often a topic is looked at without a change of its resource: others may have changed it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// While replicas move.
const LOOK_SOON: Duration = Duration::from_secs(5);

/// One look at a topic, on its way to a status.
pub struct Look<'a> {
    topic: &'a Topic,
    /// What is to be said of it.
    pub conditions: Conditions,
    status: TopicStatus,
}

impl<'a> Look<'a> {
    /// Begins it.
    pub fn new(topic: &'a Topic) -> Self {
        let before = topic.status.clone().unwrap_or_default();
        let generation = topic.metadata.generation;
        let conditions = Conditions::new(&before.conditions, generation, Timestamp::now());
        let status =
            TopicStatus { observed_generation: generation, topic_name: Some(topic.topic_name().into()), ..before };
        Self { topic, conditions, status }
    }

    /// What was carried out last, if it was on this topic and not on another one of its name: a topic is taken over, or
    /// was made, by this resource once its id is in the status.
    fn last(&self, facts: Option<&Facts>) -> Option<Applied> {
        let id = facts.map(|facts| facts.id.as_str());
        self.status.applied.clone().filter(|_| id.is_some() && self.status.topic_id.as_deref() == id)
    }

    /// Does what is to be done. What comes of it is in the status then.
    ///
    /// # Errors
    /// What is worth another try.
    pub async fn at(&mut self, context: &Context) -> Result<Action, Error> {
        let spec = &self.topic.spec;
        if status::is_paused(self.topic) {
            self.conditions.paused(self.status.topic_id.is_some());
            return Ok(Action::await_change());
        }
        let desired = match desired::desired(self.topic) {
            Ok(desired) => desired,
            Err(invalid) => return Ok(self.stalled(invalid.reason(), invalid.to_string(), Action::await_change())),
        };
        let address = match clusters::resolve(context, self.topic).await? {
            Resolved::At(address) => address,
            Resolved::NotReady(why) => return Ok(self.waiting("ClusterNotReady", why)),
            Resolved::Gone(why) => return Ok(self.waiting("ClusterNotFound", why)),
            Resolved::Refused(why) => {
                return Ok(self.stalled("NamespaceNotAllowed", why, Action::requeue(clusters::LOOK_AGAIN)));
            }
        };
        if let Some(owner) = owner(self.topic, &Seen::default(), context).await? {
            return Ok(self.belongs_to(&owner));
        }
        let deletes = spec.deletion_policy == DeletionPolicy::Delete;
        if !deletes && !finalizer::keep(&context.client, self.topic, FINALIZER, false).await? {
            return Ok(Action::await_change());
        }
        let brokers = clusters::way(context, &address)?;
        let facts = match brokers.facts(&desired.name).await {
            Err(error) => return self.refused("looking at it", error),
            Ok(Some(facts)) if facts.internal => {
                let own = Invalid::Internal(desired.name);
                return Ok(self.stalled(own.reason(), own.to_string(), Action::requeue(LOOK_AGAIN)));
            }
            Ok(facts) => facts,
        };
        self.status.cluster_id = brokers.cluster_id();
        let seen =
            Seen { cluster: self.status.cluster_id.as_deref(), subject: facts.as_ref().map(|facts| facts.id.as_str()) };
        if let Some(owner) = owner(self.topic, &seen, context).await? {
            return Ok(self.belongs_to(&owner));
        }
        let last = self.last(facts.as_ref());
        let plan = plan::plan(&desired, facts.as_ref(), spec.drift, last.as_ref());
        if let Some(facts) = facts.as_ref().filter(|_| last.is_none()) {
            (self.status.topic_id, self.status.applied) = (None, None);
            if plan.too_many {
                self.saw(Some(facts));
                return Ok(self.stalled("NotSupported", not_taken_over(facts), Action::requeue(LOOK_AGAIN)));
            }
        }
        // Not before there is something that has to be undone: a resource that nothing was done for may go at once.
        if deletes {
            // An operator that is killed before it has noted the id of what it makes leaves this.
            let note = facts.is_none().then_some((MAKES, desired.name.as_str()));
            if !finalizer::keep_and_note(&context.client, self.topic, FINALIZER, true, note).await? {
                return Ok(Action::await_change());
            }
        }
        for (number, step) in plan.steps.iter().enumerate() {
            tracing::info!(topic = full_name(self.topic), ?step, "changing a topic");
            match cluster::carry_out(&brokers, &desired, step).await {
                Ok(made) => self.status.topic_id = made.or_else(|| facts.as_ref().map(|facts| facts.id.clone())),
                Err(error) => {
                    self.saw(facts.as_ref());
                    return self.refused(doing(step), error);
                }
            }
            let left = plan.steps.get(number + 1..).unwrap_or_default();
            self.status.applied = Some(plan::applied(&desired, last.as_ref(), left));
            let (reason, note) = told(&desired.name, step);
            events::publish(context, self.topic, EventType::Normal, reason, "Change", note).await;
        }
        let facts = match plan.steps.is_empty() {
            true => facts,
            false => brokers.facts(&desired.name).await?,
        };
        self.saw(facts.as_ref());
        self.status.topic_id = facts.as_ref().map(|facts| facts.id.clone()).or(self.status.topic_id.take());
        self.status.applied = Some(plan::applied(&desired, last.as_ref(), &[]));
        Ok(self.judged(facts.as_ref(), &plan))
    }

    /// Writes what was found, and tells of it when something has begun to be wrong.
    ///
    /// # Errors
    /// The API server's.
    pub async fn write(self, context: &Context) -> Result<(), Error> {
        let status = TopicStatus { conditions: self.conditions.finish(), ..self.status };
        let before = self.topic.status.as_ref();
        let written = status::write(&context.client, self.topic, before, &status).await?;
        let was = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
        if let Some(is) = status::trouble(was, &status.conditions).filter(|_| written) {
            events::publish(context, self.topic, EventType::Warning, &is.reason, "Reconcile", &is.message).await;
        }
        Ok(())
    }

    /// What there is.
    fn saw(&mut self, facts: Option<&Facts>) {
        self.status.partitions = facts.map(|facts| i32::try_from(facts.partitions.len()).unwrap_or(i32::MAX));
        self.status.replication_factor = facts.map(Facts::replication_factor);
        let Some(facts) = facts else { return };
        let short = facts
            .partitions
            .iter()
            .filter(|p| p.leader.is_none() || p.in_sync < facts.min_in_sync.min(p.replicas.len()));
        match short.count() {
            0 => self.conditions.set(
                "Available",
                true,
                "InSync",
                "every partition has a leader and in-sync replicas enough",
            ),
            n => self.conditions.set(
                "Available",
                false,
                "UnderMinIsr",
                format!("{n} partitions lack a leader or in-sync replicas"),
            ),
        };
    }

    /// All that could be done has been done.
    fn judged(&mut self, facts: Option<&Facts>, plan: &Plan) -> Action {
        self.status.drift = plan.drift.iter().take(32).cloned().collect();
        self.status.replicas_change = plan.replicas_change.clone();
        if facts.is_none() {
            return self.waiting("NotThereYet", "the brokers do not show the topic yet".into());
        }
        let keys: Vec<&str> = plan.drift.iter().take(4).map(|drifted| drifted.key.as_str()).collect();
        let more = if plan.drift.len() > keys.len() { ", …" } else { "" };
        match keys.is_empty() {
            true => self.conditions.set("Synced", true, "AsDescribed", "nothing differs from the description"),
            false => {
                let what = format!("changed by others: {}{more}", keys.join(", "));
                self.conditions.set("Synced", false, "Drifted", what)
            }
        };
        if plan.too_many {
            let why = "the topic has more partitions than described, and partitions cannot be taken away".into();
            return self.stalled("NotSupported", why, Action::requeue(LOOK_AGAIN));
        }
        if let Some(change) = &plan.replicas_change {
            let what = format!("{} partitions do not have {} replicas yet", change.partitions_left, change.target);
            self.conditions.ready("Reassigning", what.clone()).set("Reconciling", true, "Reassigning", what);
            return Action::requeue(LOOK_SOON);
        }
        self.conditions.ready("AsDescribed", "the topic is as described");
        Action::requeue(LOOK_AGAIN)
    }

    /// The brokers refused something. What asking again does not change waits for a change of the description.
    fn refused(&mut self, what: &str, error: ClientError) -> Result<Action, Error> {
        let reason = match error.code() {
            Some(ErrorCode::InvalidConfig) => "InvalidConfig",
            Some(ErrorCode::InvalidReplicationFactor) => "InvalidReplicationFactor",
            Some(ErrorCode::InvalidPartitions) => "InvalidPartitions",
            Some(ErrorCode::InvalidTopicException) => "InvalidName",
            Some(ErrorCode::PolicyViolation) => "PolicyViolation",
            Some(ErrorCode::TopicAuthorizationFailed | ErrorCode::ClusterAuthorizationFailed) => "NotAuthorized",
            _ => return Err(error.into()),
        };
        Ok(self.stalled(reason, format!("{what}: {error}"), Action::requeue(LOOK_AGAIN)))
    }

    fn stalled(&mut self, reason: &str, why: String, next: Action) -> Action {
        self.conditions.stalled(reason, why);
        next
    }

    /// Another resource has the topic: this one has none.
    fn belongs_to(&mut self, owner: &str) -> Action {
        (self.status.topic_id, self.status.applied) = (None, None);
        let why = format!("{owner} names the same topic and is older");
        self.stalled("ResourceConflict", why, Action::requeue(LOOK_AGAIN))
    }

    /// Something has to come from elsewhere first.
    fn waiting(&mut self, reason: &str, why: String) -> Action {
        self.conditions.waiting(reason, why);
        Action::requeue(clusters::LOOK_AGAIN)
    }
}

/// Why a topic is left to itself that was there before.
fn not_taken_over(facts: &Facts) -> String {
    let there = facts.partitions.len();
    format!(
        "the topic was there before, with {there} partitions, more than described: it is not taken over, nor deleted"
    )
}

/// A step, as a message names it.
fn doing(step: &Step) -> &'static str {
    match step {
        Step::Create => "creating it",
        Step::Grow(_) => "adding partitions",
        Step::Configure { .. } => "configuring it",
        Step::Replicate { .. } => "changing its replication factor",
    }
}

/// What an Event says of a step.
fn told(name: &str, step: &Step) -> (&'static str, String) {
    match step {
        Step::Create => ("TopicCreated", format!("topic {name} is created")),
        Step::Grow(count) => ("PartitionsAdded", format!("topic {name} has {count} partitions now")),
        Step::Configure { set, reset } => {
            let set = set.iter().map(|(key, value)| format!("{key}={value}"));
            let keys: Vec<String> = set.chain(reset.iter().map(|key| format!("{key} by default"))).collect();
            ("ConfigChanged", format!("topic {name}: {}", keys.join(", ")))
        }
        Step::Replicate { target, partitions } => {
            let count = partitions.len();
            ("ReplicasChanging", format!("topic {name}: {count} partitions get {target} replicas"))
        }
    }
}
