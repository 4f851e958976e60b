//! Which of several operators acts: the one that holds the Lease `klamm-operator`.
//!
//! A holder renews it again and again. It is lost as soon as that has not worked for [`RENEWED_WITHIN`], whatever the API
//! server says or doesn't say; another operator takes it when it has seen no renewal for [`DURATION`], by its own clock.
//! So the one has ended before the other begins. Every write names the version that it was decided on: of two that want
//! it, one gets it. Who loses it ends the process: work that is under way must not go on beside the next holder's.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::FIELD_MANAGER;
use crate::settings::Settings;

const NAME: &str = "klamm-operator";
/// After this time without a renewal the holder is replaced.
pub const DURATION: Duration = Duration::from_secs(15);
/// After this time without a renewal of its own the holder has lost it.
pub const RENEWED_WITHIN: Duration = Duration::from_secs(10);
/// How often the holder renews it, and the others look.
const EVERY: Duration = Duration::from_secs(2);
/// How long an answer is waited for: a lost one leaves time for another try.
const ANSWER: Duration = Duration::from_secs(4);

/// The Lease, held or waited for.
pub struct Lease {
    held: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Lease {
    /// Begins to try for it.
    pub fn watch(client: Client, settings: &Settings) -> Self {
        let (held, told) = watch::channel(false);
        let keeper = Keeper {
            api: Api::namespaced(client, &settings.namespace),
            me: settings.identity.clone(),
            last: None,
            seen: None,
            failing: false,
        };
        Self { held: told, task: tokio::spawn(keeper.keep(held)) }
    }

    /// Resolves once it is held.
    pub async fn acquired(&mut self) {
        if self.held.wait_for(|held| *held).await.is_err() {
            std::future::pending().await
        }
    }

    /// Resolves once it is lost.
    pub async fn lost(&mut self) {
        // A task that has ended renews nothing.
        let _ = self.held.wait_for(|held| !*held).await;
    }

    /// Gives it back, for the next one to have it at its next look.
    pub async fn release(self) {
        drop(self.held);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the lease is not given back");
        }
    }
}

/// What is to be done about a Lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// It is ours.
    Renew,
    /// It is nobody's, or its holder is silent.
    Take,
    /// Somebody else's.
    Wait,
}

/// `seen_for`: how long it has been seen as it is.
fn step(spec: &LeaseSpec, me: &str, seen_for: Duration) -> Step {
    match spec.holder_identity.as_deref().unwrap_or_default() {
        "" => Step::Take,
        holder if holder == me => Step::Renew,
        _ => {
            let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            if seen_for >= seconds.map_or(DURATION, Duration::from_secs) { Step::Take } else { Step::Wait }
        }
    }
}

struct Keeper {
    api: Api<Object>,
    me: String,
    /// As it was after our last write, if nothing else is known of it.
    last: Option<Object>,
    /// What others have written, and since when it is known.
    seen: Option<(LeaseSpec, Instant)>,
    /// Whether the last try failed: told of once.
    failing: bool,
}

impl Keeper {
    /// Until nobody wants to know any longer, or it is lost.
    async fn keep(mut self, held: watch::Sender<bool>) {
        let mut renewed = None;
        loop {
            let began = Instant::now();
            let deadline =
                renewed.map_or(began + ANSWER, |renewed: Instant| (renewed + RENEWED_WITHIN).min(began + ANSWER));
            let tried = tokio::select! {
                () = held.closed() => break,
                tried = timeout_at(deadline, self.attempt()) => tried,
            };
            match tried {
                Ok(Ok(true)) => {
                    // From when the write was sent: it may have arrived at once.
                    renewed = Some(began);
                    held.send_if_modified(|held| !std::mem::replace(held, true));
                }
                // Somebody else's, beyond doubt.
                Ok(Ok(false)) if renewed.is_some() => {
                    held.send_replace(false);
                    return;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => self.failed(&error.to_string()),
                Err(_) => self.failed("the API server does not answer"),
            }
            let next = match renewed.map(|renewed| renewed + RENEWED_WITHIN) {
                Some(end) if Instant::now() >= end => {
                    tracing::error!("the lease could not be renewed for {} s", RENEWED_WITHIN.as_secs());
                    held.send_replace(false);
                    return;
                }
                Some(end) => end.min(Instant::now() + EVERY),
                None => Instant::now() + EVERY,
            };
            tokio::select! {
                () = held.closed() => break,
                () = sleep_until(next) => {}
            }
        }
        if let Some(renewed) = renewed
            && let Err(why) = self.give_back(renewed + RENEWED_WITHIN).await
        {
            tracing::warn!(why, "the lease is not given back");
        }
    }

    fn failed(&mut self, why: &str) {
        self.last = None;
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(why, "the lease cannot be looked at or renewed");
        }
    }

    /// Whether it is ours now.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let mut lease = match self.last.take() {
            Some(lease) => lease,
            None => self.get().await?,
        };
        loop {
            let spec = lease.spec.clone().unwrap_or_default();
            let (_, since) = match self.seen.take().filter(|(seen, _)| *seen == spec) {
                Some(seen) => self.seen.insert(seen),
                None => self.seen.insert((spec.clone(), Instant::now())),
            };
            let now = MicroTime(Timestamp::now());
            let next = match step(&spec, &self.me, since.elapsed()) {
                Step::Wait => {
                    self.failing = false;
                    return Ok(false);
                }
                Step::Renew => LeaseSpec { renew_time: Some(now), ..spec },
                Step::Take => LeaseSpec {
                    holder_identity: Some(self.me.clone()),
                    acquire_time: Some(now.clone()),
                    renew_time: Some(now),
                    lease_transitions: Some(spec.lease_transitions.unwrap_or(0).saturating_add(1)),
                    ..spec
                },
            };
            let next = LeaseSpec { lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(), ..next };
            match self.replace(Object { spec: Some(next), ..lease }).await {
                Ok(lease) => {
                    self.last = Some(lease);
                    self.failing = false;
                    return Ok(true);
                }
                // Somebody was faster, or has only changed a label.
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                    lease = self.get().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A patch, as roles of the first chart allow it, that names the version it was decided on.
    async fn replace(&self, lease: Object) -> Result<Object, kube::Error> {
        let spec = lease.spec.unwrap_or_default();
        let patch = json!({
            "metadata": { "resourceVersion": lease.metadata.resource_version },
            "spec": {
                "holderIdentity": spec.holder_identity, "leaseDurationSeconds": spec.lease_duration_seconds,
                "acquireTime": spec.acquire_time, "renewTime": spec.renew_time,
                "leaseTransitions": spec.lease_transitions,
            },
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        self.api.patch(NAME, &params, &Patch::Merge(&patch)).await
    }

    /// As the API server has it; made when there is none.
    async fn get(&self) -> Result<Object, kube::Error> {
        if let Some(found) = self.api.get_opt(NAME).await? {
            return Ok(found);
        }
        let metadata = ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() };
        let new = Object { metadata, spec: Some(LeaseSpec::default()) };
        match self.api.create(&PostParams::default(), &new).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => self.api.get(NAME).await,
            made => made,
        }
    }

    async fn give_back(&mut self, deadline: Instant) -> Result<(), String> {
        let back = async {
            let lease = match self.last.take() {
                Some(lease) => lease,
                None => self.get().await?,
            };
            let spec = lease.spec.clone().unwrap_or_default();
            if step(&spec, &self.me, Duration::ZERO) != Step::Renew {
                return Ok(());
            }
            let free = LeaseSpec { holder_identity: None, acquire_time: None, renew_time: None, ..spec };
            self.replace(Object { spec: Some(free), ..lease }).await.map(drop)
        };
        match timeout_at(deadline, back).await {
            Ok(done) => done.map_err(|error: kube::Error| error.to_string()),
            Err(_) => Err("the API server does not answer".into()),
        }
    }
}

#[cfg(test)]
#[path = "lease_test.rs"]
mod tests;
