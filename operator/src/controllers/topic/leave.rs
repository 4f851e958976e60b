//! A Topic that is being deleted: its topic goes first, if that is for it to decide.
//!
//! Of an operator that was killed after it had made the topic, and before it had noted its id, there is a note that the topic was to
//! be made. Such a topic goes only if it is as it was to be made and nobody has written to it: somebody else may have made
//! one of that name since.
//!
//! The finalizer stays only as long as there is something to delete. A Topic whose cluster is gone, or that was only
//! waiting for another one, must not keep its namespace from being deleted.

use klamm_client::ClientError;
use klamm_protocol::error::ErrorCode;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use super::look::Look;
use crate::brokers::Brokers;
use crate::controllers::farewell::{self, Farewell};
use crate::controllers::finalizer::{self, FORCE};
use crate::controllers::known::full_name;
use crate::controllers::{Context, Error};
use crate::crd::Topic;
use crate::crd::common::DeletionPolicy;
use crate::crd::topic::Drift;
use crate::events;
use crate::topics::cluster;
use crate::topics::desired::{desired, is_internal};
use crate::topics::plan::{Facts, Plan, plan};

/// Keeps a Topic until its topic is deleted.
pub const FINALIZER: &str = "klamm.dev/topic";
/// The annotation with the name of the topic that the operator was about to make when it set the finalizer.
pub const MAKES: &str = "klamm.dev/makes-topic";

/// Does what has to be done before a Topic may go, and lets it go.
///
/// # Errors
/// What keeps the topic from being deleted; the Topic stays.
pub async fn leave(topic: &Topic, context: &Context) -> Result<Action, Error> {
    if !finalizer::has(topic, FINALIZER) {
        return Ok(Action::await_change());
    }
    match farewell(topic, context).await {
        Ok(Farewell::Done(told)) => {
            if let Some((kind, reason, note)) = told {
                tracing::info!(topic = full_name(topic), reason, note, "a Topic goes");
                events::publish(context, topic, kind, reason, "Delete", note).await;
            }
            finalizer::keep(&context.client, topic, FINALIZER, false).await?;
            Ok(Action::await_change())
        }
        Ok(Farewell::Later(reason, why, pause)) => {
            let mut look = Look::new(topic);
            look.conditions.waiting(reason, finalizer::with_way_out(topic, &why));
            look.write(context).await?;
            Ok(Action::requeue(pause))
        }
        Err(error) => {
            let reason = match &error {
                Error::Client(error) if error.code().is_none() => "ClusterUnreachable",
                _ => "DeletionFailed",
            };
            let mut look = Look::new(topic);
            let why = format!("deleting the topic: {error}");
            look.conditions.waiting(reason, finalizer::with_way_out(topic, &why));
            look.write(context).await?;
            Err(error)
        }
    }
}

async fn farewell(topic: &Topic, context: &Context) -> Result<Farewell, Error> {
    let what = format!("topic {}", topic.topic_name());
    if finalizer::is_forced(topic) {
        let why = format!("{what} is left as it is: {FORCE} is set");
        return Ok(Farewell::Done(Some((EventType::Warning, "TopicLeft", why))));
    }
    if topic.spec.deletion_policy == DeletionPolicy::Retain {
        return Ok(Farewell::told("TopicRetained", format!("{what} stays: deletionPolicy is Retain")));
    }
    if is_internal(topic.topic_name()) {
        let why = format!("{what} is the brokers' own: it is not touched");
        return Ok(Farewell::Done(Some((EventType::Warning, "TopicLeft", why))));
    }
    let id = topic.status.as_ref().and_then(|status| status.topic_id.as_deref());
    let makes = topic.annotations().get(MAKES).is_some_and(|name| name == topic.topic_name());
    if id.is_none() && !makes {
        let why = format!("{what} was neither made nor taken over by this resource: nothing is deleted");
        return Ok(Farewell::told("TopicLeft", why));
    }
    let brokers = match farewell::brokers(topic, context, &what, "TopicLeft").await? {
        Ok(brokers) => brokers,
        Err(farewell) => return Ok(farewell),
    };
    match brokers.facts(topic.topic_name()).await? {
        None => return Ok(Farewell::Done(None)),
        Some(facts) => {
            let why = match id {
                Some(id) => not_its_own(id, &facts),
                None => not_as_made(topic, &facts, &brokers).await?,
            };
            if let Some(why) = why {
                return Ok(Farewell::Done(Some((EventType::Warning, "TopicLeft", format!("{what} stays: {why}")))));
            }
        }
    }
    match brokers.delete(topic.topic_name()).await {
        Ok(()) => Ok(Farewell::told("TopicDeleted", format!("{what} is deleted"))),
        Err(error) => deletion_refused(&what, error),
    }
}

/// Why a topic must not be deleted with a resource that has made, or taken over, the one with this id.
fn not_its_own(id: &str, facts: &Facts) -> Option<&'static str> {
    if facts.internal {
        return Some("it is the brokers' own");
    }
    (facts.id != id).then_some("somebody else has deleted it and created it again")
}

/// Why a topic must not be deleted with a resource that was about to make one of that name, and may have.
async fn not_as_made(topic: &Topic, facts: &Facts, brokers: &Brokers) -> Result<Option<&'static str>, Error> {
    if !is_as_described(topic, facts) {
        return Ok(Some("it is not as this resource was to make it: it may be somebody else's"));
    }
    let partitions = facts.partitions.len();
    let written = !brokers.ask(async |client| cluster::is_new(client, topic.topic_name(), partitions).await).await?;
    Ok(written.then_some("its id was never noted, so that it may be somebody else's, and it has been written to"))
}

fn is_as_described(topic: &Topic, facts: &Facts) -> bool {
    let plan = desired(topic).map(|desired| plan(&desired, Some(facts), Drift::Enforce, None));
    !facts.internal && plan.is_ok_and(|plan| plan == Plan::default())
}

fn deletion_refused(what: &str, error: ClientError) -> Result<Farewell, Error> {
    match error.code() {
        Some(ErrorCode::UnknownTopicOrPartition) => Ok(Farewell::Done(None)),
        Some(ErrorCode::TopicDeletionDisabled) => {
            let why = format!("{what} is left in place: the brokers do not delete topics");
            Ok(Farewell::Done(Some((EventType::Warning, "TopicLeft", why))))
        }
        _ => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::plan::PartitionFacts;

    #[test]
    fn what_was_to_be_made_is_told_by_all_that_was_described() {
        let spec =
            serde_json::json!({ "bootstrapServers": "b:9092", "partitions": 2, "config": { "retention.ms": 5 } });
        let topic: Topic =
            serde_json::from_value(serde_json::json!({ "metadata": { "name": "t" }, "spec": spec })).expect("a Topic");
        let facts = |partitions: usize, config: &[(&str, &str)]| Facts {
            id: "a".into(),
            partitions: vec![PartitionFacts { replicas: vec![0], in_sync: 1, ..PartitionFacts::default() }; partitions],
            config: config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..Facts::default()
        };
        assert!(is_as_described(&topic, &facts(2, &[("retention.ms", "5")])));
        for (other, why) in [
            (facts(3, &[("retention.ms", "5")]), "partitions"),
            (facts(1, &[("retention.ms", "5")]), "partitions"),
            (facts(2, &[("retention.ms", "6")]), "a value"),
            (facts(2, &[]), "a key"),
            (facts(2, &[("retention.ms", "5"), ("segment.ms", "7")]), "another key"),
            (Facts { internal: true, ..facts(2, &[("retention.ms", "5")]) }, "the brokers' own"),
        ] {
            assert!(!is_as_described(&topic, &other), "{why}");
        }
    }

    #[test]
    fn only_the_topic_that_was_made_or_taken_over_is_deleted() {
        let facts = |id: &str, internal| Facts { id: id.into(), internal, ..Facts::default() };
        assert_eq!(not_its_own("a", &facts("a", false)), None);
        assert!(not_its_own("a", &facts("b", false)).is_some(), "another one of that name");
        assert!(not_its_own("a", &facts("a", true)).is_some());
    }
}
