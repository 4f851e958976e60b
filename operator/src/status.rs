//! Conditions and how a status is written.
//!
//! A condition keeps the time of its last change as long as its status stays, all of them are sorted, and a status that
//! says nothing new is not written: a converged object causes no traffic.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::FIELD_MANAGER;
use crate::apply::is_mistyped;
use crate::controllers::Error;
use crate::words::cut;

/// How long a message may be, in bytes: Kubernetes' own conditions take 32,768.
const MESSAGE: usize = 32_000;

/// Set to "true" it keeps the operator from doing anything about an object that is not being deleted.
pub const PAUSED: &str = "klamm.dev/paused";

/// Whether an object is to be left alone.
pub fn is_paused(object: &impl ResourceExt) -> bool {
    object.annotations().get(PAUSED).is_some_and(|value| value == "true")
}

/// Whether all is as the description of this generation says, and nothing is under way.
pub fn is_as_described(conditions: &[Condition], generation: Option<i64>) -> bool {
    let is = |kind: &str| {
        let found = conditions.iter().find(|condition| condition.type_ == kind);
        found.is_some_and(|found| found.status == "True" && found.observed_generation == generation)
    };
    is("Ready") && !is("Reconciling") && !is("Stalled")
}

/// The new reason why an object is not ready, if that has changed: what an Event is made of.
pub fn trouble<'a>(before: &[Condition], now: &'a [Condition]) -> Option<&'a Condition> {
    let ready = |condition: &&Condition| condition.type_ == "Ready";
    let was = before.iter().find(ready);
    now.iter().find(ready).filter(|is| is.status != "True" && was.is_none_or(|was| was.reason != is.reason))
}

/// What a condition may say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Is {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell.
    Unknown,
}

impl Is {
    fn text(self) -> &'static str {
        match self {
            Is::True => "True",
            Is::False => "False",
            Is::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Is {
    fn from(holds: bool) -> Self {
        if holds { Is::True } else { Is::False }
    }
}

/// The conditions of one object, on their way to its status.
#[derive(Clone, Debug)]
pub struct Conditions {
    before: Vec<Condition>,
    now: Vec<Condition>,
    generation: Option<i64>,
    at: Timestamp,
}

impl Conditions {
    /// Begins anew, knowing what the status says so far. `generation` is the object's `metadata.generation`.
    pub fn new(before: &[Condition], generation: Option<i64>, at: Timestamp) -> Self {
        Self { before: before.to_vec(), now: Vec::new(), generation, at }
    }

    /// Sets a condition; the last word counts. `reason` is one CamelCase word that programs may rely on.
    pub fn set(&mut self, kind: &str, is: impl Into<Is>, reason: &str, message: impl Into<String>) -> &mut Self {
        let status = is.into().text();
        let before = self.before.iter().find(|condition| condition.type_ == kind);
        let since = before
            .filter(|condition| condition.status == status)
            .map(|condition| condition.last_transition_time.clone());
        self.now.retain(|condition| condition.type_ != kind);
        self.now.push(Condition {
            type_: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: cut(message.into(), MESSAGE),
            observed_generation: self.generation,
            last_transition_time: since.unwrap_or(Time(self.at)),
        });
        self
    }

    /// All is as described.
    pub fn ready(&mut self, reason: &str, message: impl Into<String>) -> &mut Self {
        self.set("Ready", true, reason, message).set("Reconciling", false, reason, "").set("Stalled", false, reason, "")
    }

    /// Something has to come from elsewhere first.
    pub fn waiting(&mut self, reason: &str, why: impl Into<String>) -> &mut Self {
        let why = why.into();
        self.set("Ready", false, reason, why.clone()).set("Reconciling", true, reason, why);
        self.set("Stalled", false, reason, "")
    }

    /// Only another description helps.
    pub fn stalled(&mut self, reason: &str, why: impl Into<String>) -> &mut Self {
        let why = why.into();
        self.set("Ready", false, reason, why.clone()).set("Reconciling", false, reason, "");
        self.set("Stalled", true, reason, why)
    }

    /// Something went wrong that may go well the next time.
    pub fn failed(&mut self, error: &Error) -> &mut Self {
        let (reason, why) = (error.reason(), error.to_string());
        self.set("Ready", Is::Unknown, reason, why.clone()).set("Reconciling", true, reason, why);
        self.set("Stalled", false, reason, "")
    }

    /// Nothing is looked at, nothing is done: what was true stays so. `begun`: whether anything was ever done, or seen.
    pub fn paused(&mut self, begun: bool) -> &mut Self {
        if !begun {
            let why = format!("{PAUSED} is set: nothing is done, and nothing has been done for this resource so far");
            return self.ready("Paused", "").set("Ready", false, "Paused", why);
        }
        let ready = self.before.iter().find(|condition| condition.type_ == "Ready");
        let is = match ready.map(|ready| ready.status.as_str()) {
            Some("True") => Is::True,
            Some("False") => Is::False,
            _ => Is::Unknown,
        };
        self.ready("Paused", "").set("Ready", is, "Paused", format!("{PAUSED} is set: nothing is done"))
    }

    /// What was said of it before holds, if anything was.
    pub fn keep(&mut self, kind: &str) -> bool {
        let before = self.before.iter().find(|condition| condition.type_ == kind).cloned();
        let Some(before) = before else { return false };
        self.now.retain(|condition| condition.type_ != kind);
        self.now.push(Condition { observed_generation: self.generation, ..before });
        true
    }

    /// Says more about a condition that was set.
    pub fn append(&mut self, kind: &str, more: &str) {
        self.now.iter_mut().filter(|condition| condition.type_ == kind).for_each(|condition| condition.message += more);
    }

    /// The reason of a condition, if it was set.
    pub fn reason(&self, kind: &str) -> Option<&str> {
        self.now.iter().find(|condition| condition.type_ == kind).map(|condition| condition.reason.as_str())
    }

    /// The conditions, sorted by type. Those that were not set are gone.
    pub fn finish(mut self) -> Vec<Condition> {
        self.now.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.now
    }
}

/// Writes a status if it differs from the one the object has; answers whether it did.
///
/// # Errors
/// The API server's. An object that is gone is none.
pub async fn write<K, S>(client: &Client, object: &K, before: Option<&S>, status: &S) -> Result<bool, kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Serialize + PartialEq,
{
    if before == Some(status) {
        return Ok(false);
    }
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let patch = json!({ "apiVersion": K::api_version(&()), "kind": K::kind(&()), "status": status });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let mut done = api.patch_status(&object.name_any(), &params, &Patch::Apply(&patch)).await;
    // The resource types are of an older version, without some of these fields: of a merge it drops those.
    if matches!(&done, Err(kube::Error::Api(status)) if is_mistyped(status)) {
        done = api.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await;
    }
    match done {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let mut first = Conditions::new(&[], Some(1), at(100));
        first.set("Ready", false, "Starting", "0 of 3").set("Available", true, "Led", "");
        let first = first.finish();
        assert_eq!(first.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(), ["Available", "Ready"]);

        let mut second = Conditions::new(&first, Some(2), at(200));
        second.set("Ready", false, "Starting", "1 of 3").set("Available", Is::Unknown, "Unreachable", "");
        let second = second.finish();
        let [available, ready] = second.as_slice() else { panic!("two conditions") };
        assert_eq!((ready.last_transition_time.0, ready.observed_generation), (at(100), Some(2)));
        assert_eq!(ready.message, "1 of 3");
        assert_eq!((available.last_transition_time.0, available.status.as_str()), (at(200), "Unknown"));
    }

    #[test]
    fn one_that_was_paused_before_anything_was_done_is_not_ready() {
        let paused = |before: &[Condition], begun| {
            let mut conditions = Conditions::new(before, Some(1), at(1));
            conditions.paused(begun);
            conditions.finish()
        };
        let said = |conditions: &[Condition]| {
            let of = |kind: &str| conditions.iter().find(|is| is.type_ == kind).map(|is| is.status.clone());
            ["Ready", "Reconciling", "Stalled"].map(|kind| of(kind).unwrap_or_default())
        };
        let never = paused(&[], false);
        assert_eq!(said(&never), ["False", "False", "False"]);
        assert_eq!(paused(&never, false), never, "it is said once");
        for (was, is) in [(Is::True, "True"), (Is::False, "False"), (Is::Unknown, "Unknown")] {
            let mut before = Conditions::new(&[], Some(1), at(0));
            before.set("Ready", was, "AsDescribed", "");
            assert_eq!(said(&paused(&before.finish(), true)), [is, "False", "False"]);
        }
    }

    #[test]
    fn what_is_no_longer_said_is_gone_and_the_last_word_counts() {
        let mut first = Conditions::new(&[], None, at(1));
        first.set("Stalled", true, "InvalidConfig", "").set("Stalled", false, "Fine", "");
        let first = first.finish();
        assert_eq!((first.len(), first[0].reason.as_str()), (1, "Fine"));
        assert!(Conditions::new(&first, None, at(2)).finish().is_empty());
    }
}
