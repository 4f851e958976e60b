//! One look at a group: what is to be done is done, and what there is becomes the ConsumerGroup's status.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use super::{key, offsets, pausing, scaling, target};
use crate::brokers::Brokers;
use crate::clusters::{self, Resolved};
use crate::controllers::owner::{Seen, owner};
use crate::controllers::{Context, Error, finalizer};
use crate::crd::ConsumerGroup;
use crate::crd::consumer_group::{
    ConsumerGroupStatus, GroupDeletionPolicy, Lag as LagStatus, Reset, ResetResult, ScaleMode, TopicLag, WhenActive,
};
use crate::events;
use crate::groups::facts::Facts;
use crate::groups::lag::{self, Lag};
use crate::groups::{cluster, reset};
use crate::status::{self, Conditions, Is};
use crate::topics::desired::span_ms;

/// Keeps a ConsumerGroup until its group is deleted.
pub const FINALIZER: &str = "klamm.dev/consumergroup";
/// How often a group is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// While somebody waits for it to become empty.
const LOOK_SOON: Duration = Duration::from_secs(3);
/// Topics that a status names at most.
const TOPICS: usize = 256;

/// See the module's head.
pub struct Look<'a> {
    /// What it is about.
    pub group: &'a ConsumerGroup,
    /// What is to be said of it.
    pub conditions: Conditions,
    /// The rest of what is to be said.
    pub status: ConsumerGroupStatus,
    /// What a reset waits for, in a word and in plain words.
    pub waits: Option<(&'static str, String)>,
    /// Whether it was decided about stopped consumers by what the group's brokers tell.
    pub decided: bool,
    /// What the operator has no right to do about consumers, as the API server says it.
    pub forbidden: Option<String>,
}

impl<'a> Look<'a> {
    /// Begins it.
    pub fn new(group: &'a ConsumerGroup) -> Self {
        let before = group.status.clone().unwrap_or_default();
        let generation = group.metadata.generation;
        let conditions = Conditions::new(&before.conditions, generation, Timestamp::now());
        let status =
            ConsumerGroupStatus { observed_generation: generation, group_id: Some(group.group_id().into()), ..before };
        Self { group, conditions, status, waits: None, decided: false, forbidden: None }
    }

    /// Does what is to be done. What comes of it is in the status then.
    ///
    /// # Errors
    /// What is worth another try.
    pub async fn at(&mut self, context: &Context) -> Result<Action, Error> {
        if status::is_paused(self.group) {
            self.conditions.paused(self.status.state.is_some() || self.status.pause.is_some());
            if let Some(pause) = &self.status.pause {
                let (kind, name, count) = (&pause.kind, &pause.name, pause.replicas);
                let left = format!("; {kind} {name} stays stopped for reset {}: it had {count} replicas", pause.reset);
                self.conditions.append("Ready", &left);
            }
            return Ok(Action::await_change());
        }
        let max_age = self.group.spec.lag_policy.as_ref().and_then(|policy| policy.max_lag_time.as_deref());
        let max_age = match max_age.map(|text| span_ms("lagPolicy.maxLagTime", text)).transpose() {
            Ok(ms) => ms.map(|ms| ms / 1000),
            Err(invalid) => {
                self.conditions.stalled("InvalidSpec", invalid.to_string());
                return Ok(Action::await_change());
            }
        };
        self.start_if_in_vain(context).await?;
        let address = match clusters::resolve(context, self.group).await? {
            Resolved::At(address) => address,
            Resolved::NotReady(why) => return Ok(self.waiting(context, "ClusterNotReady", why)),
            Resolved::Gone(why) => return Ok(self.waiting(context, "ClusterNotFound", why)),
            Resolved::Refused(why) => {
                self.conditions.stalled("NamespaceNotAllowed", why);
                return Ok(Action::requeue(clusters::LOOK_AGAIN));
            }
        };
        if let Some(owner) = owner(self.group, &Seen::default(), context).await? {
            return Ok(self.belongs_to(&owner));
        }
        // Consumers that are stopped are started before it goes.
        let stays =
            self.group.spec.deletion_policy == GroupDeletionPolicy::DeleteWhenEmpty || self.status.pause.is_some();
        if !stays && !finalizer::keep(&context.client, self.group, FINALIZER, false).await? {
            return Ok(Action::await_change());
        }
        let brokers = clusters::way(context, &address)?;
        brokers.ask(async |_| Ok(())).await?;
        // Not before somebody has answered: where nobody ever did there is nothing to wait for.
        if stays && !finalizer::keep(&context.client, self.group, FINALIZER, true).await? {
            return Ok(Action::await_change());
        }
        self.status.cluster_id = brokers.cluster_id();
        let seen = Seen { cluster: self.status.cluster_id.as_deref(), subject: None };
        if let Some(owner) = owner(self.group, &seen, context).await? {
            return Ok(self.belongs_to(&owner));
        }
        self.guard(&brokers).await?;
        let mut facts = self.facts(&brokers).await?;
        self.conditions.ready("Watched", "the group is watched");
        let due = self.group.spec.reset.as_ref().filter(|wanted| self.is_due(wanted));
        let moved = match due {
            Some(wanted) => offsets::reset(self, context, &brokers, wanted, &facts).await?,
            None => offsets::begin(self, context, &brokers, &facts).await?,
        };
        self.start_if_in_vain(context).await?;
        if moved {
            facts = self.facts(&brokers).await?;
        }
        let seconds = self.saw(context, &brokers, &facts, max_age).await?;
        self.told_of_reset();
        let again = scaling::step(self, context, &facts, seconds).await?.unwrap_or(LOOK_AGAIN);
        let waits = self.group.spec.reset.as_ref().is_some_and(|wanted| self.is_due(wanted));
        let soon = waits || self.status.pause.is_some();
        Ok(Action::requeue(if soon { LOOK_SOON } else { again.min(LOOK_AGAIN) }))
    }

    /// Another resource has it.
    fn belongs_to(&mut self, owner: &str) -> Action {
        self.conditions.stalled("ResourceConflict", format!("{owner} names the same group and is older"));
        Action::requeue(LOOK_AGAIN)
    }

    /// Starts consumers that are stopped for a reset which is done, or asked for no longer.
    async fn start_if_in_vain(&mut self, context: &Context) -> Result<(), Error> {
        let Some(paused) = &self.status.pause else { return Ok(()) };
        let wanted = self.group.spec.reset.as_ref().filter(|wanted| self.is_due(wanted));
        let stops = |wanted: &Reset| wanted.when_active == WhenActive::PauseTarget && wanted.id == paused.reset;
        if wanted.is_some_and(stops) {
            return Ok(());
        }
        match pausing::start(self, context).await {
            Err(error) if target::is_forbidden(&error) => {
                self.forbidden = Some(target::forbidden(&error));
                Ok(())
            }
            done => done,
        }
    }

    /// Starts consumers that have been stopped for too long while nobody came to decide about them: the brokers do not answer,
    /// say, or another resource has the group.
    ///
    /// # Errors
    /// The API server's; they are stopped still.
    pub async fn start_if_late(&mut self, context: &Context) -> Result<(), Error> {
        let Some(wanted) = self.group.spec.reset.as_ref().filter(|wanted| self.is_due(wanted)) else { return Ok(()) };
        let now = Timestamp::now();
        if self.decided || status::is_paused(self.group) || !pausing::is_late(self, wanted, now) {
            return Ok(());
        }
        let why = format!("consumers were stopped for {}, and the group could not be looked at", wanted.pause_limit);
        offsets::ended(self, context, wanted, ResetResult::Failed, Some(why)).await;
        pausing::start(self, context).await
    }

    fn is_due(&self, wanted: &Reset) -> bool {
        reset::is_due(wanted, self.status.last_reset.as_ref(), &self.status.past_resets)
    }

    /// Has the brokers look after what topics gain while the group reads them, where it is told where to begin.
    async fn guard(&self, brokers: &Brokers) -> Result<(), Error> {
        let id = self.group.group_id();
        let wanted = self.group.spec.initial_offsets.is_some();
        // What others have set for a group that was never told is theirs.
        let told = |status: &ConsumerGroupStatus| status.conditions.iter().any(|is| is.type_ == "OffsetsInitialized");
        if wanted || self.group.status.as_ref().is_some_and(told) {
            brokers.ask(async |client| cluster::guard(client, id, wanted).await).await?;
        }
        Ok(())
    }

    async fn facts(&self, brokers: &Brokers) -> Result<Facts, Error> {
        let (id, topics) = (self.group.group_id(), &self.group.spec.topics);
        Ok(brokers.ask(async |client| cluster::facts(client, id, topics).await).await?)
    }

    /// What there is; answers how old the oldest record is that is not committed.
    async fn saw(
        &mut self,
        context: &Context,
        brokers: &Brokers,
        facts: &Facts,
        max_age: Option<i64>,
    ) -> Result<Option<i64>, Error> {
        let lag = lag::lag(facts, self.group.spec.initial_offsets.as_ref());
        let now = Timestamp::now();
        let now_ms = now.as_millisecond();
        let seconds = brokers.ask(async |client| cluster::oldest(client, facts, now_ms).await).await?;
        context.group_metrics.found(&key(self.group), facts.members, &lag, seconds);

        self.status.state = Some(facts.state.clone());
        self.status.members = i32::try_from(facts.members).ok();
        match facts.members {
            0 => self.conditions.set("Active", false, "NoMembers", "the group has no members"),
            _ => self.conditions.set("Active", true, "Members", ""),
        };
        if let Some(one) = facts.stale.first() {
            let more =
                if facts.stale.len() > 1 { format!(" and {} more", facts.stale.len() - 1) } else { String::new() };
            let why =
                format!("{}-{}{more}: what is committed is not there, the topic was deleted", one.topic, one.partition);
            self.conditions.set("OffsetsStale", true, "TopicRecreated", why);
        }
        let unseen = facts
            .missing
            .iter()
            .cloned()
            .chain(facts.unknown.iter().map(|at| format!("{}-{}", at.topic, at.partition)));
        let unseen: Vec<String> = unseen.take(4).collect();
        if !unseen.is_empty() {
            let why = format!("not there, or without a leader: {}", unseen.join(", "));
            self.conditions.set("Ready", true, "TopicsMissing", why);
        }
        if let Some(policy) = &self.group.spec.lag_policy {
            let far = policy.max_lag.filter(|most| lag.total > *most);
            let late = match max_age {
                Some(age)
                    if brokers.ask(async |client| cluster::is_older(client, facts, age, now_ms).await).await? =>
                {
                    Some(age)
                }
                _ => None,
            };
            match (far, late) {
                (Some(most), _) => {
                    // Not the number: it changes all the time, and is in the status.
                    self.conditions.set("LagHealthy", false, "TooFarBehind", format!("more than {most} records behind"))
                }
                (None, Some(age)) => {
                    self.conditions.set("LagHealthy", false, "TooLate", format!("records are older than {age} s"))
                }
                (None, None) if !unseen.is_empty() => {
                    self.conditions.set("LagHealthy", Is::Unknown, "TopicsMissing", "not all partitions can be seen")
                }
                (None, None) if lag.tells_nothing(facts) => {
                    let why =
                        "there are records, and the group has committed nothing: nobody can tell what it has not read";
                    self.conditions.set("LagHealthy", Is::Unknown, "NothingCommitted", why)
                }
                (None, None) => self.conditions.set("LagHealthy", true, "WithinPolicy", ""),
            };
        }
        self.count(&lag, seconds, now);
        Ok(seconds)
    }

    /// Puts numbers into the status, if they say something new.
    fn count(&mut self, lag: &Lag, seconds: Option<i64>, now: Timestamp) {
        let before = self.status.lag.as_ref();
        let same = before.is_some_and(|before| {
            !lag::differs(before.total, lag.total)
                && !lag::differs(before.seconds.unwrap_or(0) / 10, seconds.unwrap_or(0) / 10)
                && before.uncommitted_partitions == lag.uncommitted
                && self.status.topics.len() == lag.topics.len().min(TOPICS)
        });
        let recent = before.is_some_and(|before| {
            let age = now.duration_since(before.observed_at.0).as_secs();
            lag.total != 0 && before.total != 0 && age < i64::try_from(LOOK_AGAIN.as_secs()).unwrap_or(0)
        });
        if same || recent {
            return;
        }
        let partition = lag.max_partition.as_ref().map(|at| format!("{}-{}", at.topic, at.partition));
        self.status.lag = Some(LagStatus {
            total: lag.total,
            max: lag.max,
            max_partition: partition,
            seconds,
            uncommitted_partitions: lag.uncommitted,
            observed_at: Time(now),
        });
        let topics = lag.topics.iter().take(TOPICS);
        let topic = |(name, (partitions, lag)): (&String, &(i32, i64))| TopicLag {
            name: name.clone(),
            partitions: *partitions,
            lag: *lag,
        };
        self.status.topics = topics.map(topic).collect();
    }

    /// What came of the reset, if there is one.
    pub fn told_of_reset(&mut self) {
        use crate::crd::consumer_group::ResetResult::{Applied, DryRun, Failed, Started};
        let Some(wanted) = &self.group.spec.reset else { return };
        let last = self.status.last_reset.as_ref().filter(|last| last.id == wanted.id);
        let other = last.is_some_and(|last| reset::is_other(wanted, last));
        match last.map(|last| (last.result, last.message.clone().unwrap_or_default())) {
            Some((Applied, _)) if other => {
                let why = "a reset with this id was done, to somewhere else: it is not done again. Give it another id";
                self.conditions.set("ResetComplete", true, "DoneBefore", why)
            }
            Some((Applied, message)) => self.conditions.set("ResetComplete", true, "Applied", message),
            Some((DryRun, message)) if wanted.dry_run => self.conditions.set("ResetComplete", true, "DryRun", message),
            Some((Failed, message)) if other => {
                let why = format!("{message}; what is described now was not tried: give it another id");
                self.conditions.set("ResetComplete", false, "Failed", why)
            }
            Some((Failed, message)) => self.conditions.set("ResetComplete", false, "Failed", message),
            None if !self.is_due(wanted) => {
                let why = "a reset with this id was done before another one: it is not done again";
                self.conditions.set("ResetComplete", true, "DoneBefore", why)
            }
            Some((Started | DryRun, _)) | None => {
                let members = ("Waiting", "it waits until the group has no members".to_owned());
                let (reason, why) = self.waits.take().unwrap_or(members);
                self.conditions.set("ResetComplete", false, reason, why)
            }
        };
    }

    fn waiting(&mut self, context: &Context, reason: &str, why: String) -> Action {
        context.group_metrics.forget(&key(self.group));
        self.conditions.waiting(reason, why);
        Action::requeue(clusters::LOOK_AGAIN)
    }

    /// That nobody could look at the group takes no consumers away, nor brings any: it is said where they are scaled by lag.
    fn conditions_of_unseen(&mut self) {
        let scaled = self.group.spec.scale.as_ref().is_some_and(|scale| scale.mode == ScaleMode::Auto);
        if scaled && self.conditions.reason("ScalingActive").is_none() {
            let reason = self.conditions.reason("Ready").unwrap_or("Unseen").to_owned();
            let why = "the group was not looked at: there are as many consumers as before";
            self.conditions.set("ScalingActive", Is::Unknown, &reason, why);
        }
    }

    /// Writes what was found, and tells of it when something has begun to be wrong.
    ///
    /// # Errors
    /// The API server's.
    pub async fn write(mut self, context: &Context) -> Result<(), Error> {
        self.conditions_of_unseen();
        let status = ConsumerGroupStatus { conditions: self.conditions.finish(), ..self.status };
        let before = self.group.status.as_ref();
        let written = status::write(&context.client, self.group, before, &status).await?;
        let was = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
        if let Some(is) = status::trouble(was, &status.conditions).filter(|_| written) {
            events::publish(context, self.group, EventType::Warning, &is.reason, "Reconcile", &is.message).await;
        }
        Ok(())
    }

    /// Writes the status as it is so far, conditions as they were: what is done next must be known to whoever comes
    /// after.
    ///
    /// # Errors
    /// The API server's; nothing may be done then.
    pub async fn note(&self, context: &Context) -> Result<(), Error> {
        status::write(&context.client, self.group, self.group.status.as_ref(), &self.status).await?;
        Ok(())
    }
}
