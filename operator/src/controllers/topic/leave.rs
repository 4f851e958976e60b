//! A Topic that is being deleted: its topic goes first, if that is for it to decide.
//!
//! The finalizer stays only as long as there is something to delete. A Topic whose cluster is gone, or that was only
//! waiting for another one, must not keep its namespace from being deleted.

use klamm_client::ClientError;
use klamm_protocol::error::ErrorCode;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use super::look::Look;
use crate::clusters::{self, Resolved};
use crate::controllers::finalizer::{self, FORCE};
use crate::controllers::known::full_name;
use crate::controllers::{Context, Error, owner};
use crate::crd::Topic;
use crate::crd::common::DeletionPolicy;
use crate::events;

/// Keeps a Topic until its topic is deleted.
pub const FINALIZER: &str = "klamm.dev/topic";

/// How a Topic goes.
enum Farewell {
    /// Nothing is to be deleted, or nothing is left; with what to tell.
    Done(Option<(EventType, &'static str, String)>),
    /// Not yet.
    Later(&'static str, String),
}

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
        Ok(Farewell::Later(reason, why)) => {
            let mut look = Look::new(topic);
            let next = look.waiting(reason, why);
            look.write(context).await?;
            Ok(next)
        }
        Err(error) => {
            let reason = match &error {
                Error::Client(error) if error.code().is_none() => "ClusterUnreachable",
                _ => "DeletionFailed",
            };
            let mut look = Look::new(topic);
            look.waiting(reason, format!("deleting the topic: {error}"));
            look.write(context).await?;
            Err(error)
        }
    }
}

async fn farewell(topic: &Topic, context: &Context) -> Result<Farewell, Error> {
    let spec = &topic.spec;
    let left = |reason, why: String| Ok(Farewell::Done(Some((EventType::Normal, reason, why))));
    if finalizer::is_forced(topic) {
        let why = format!("topic {} is left as it is: {FORCE} is set", topic.topic_name());
        return Ok(Farewell::Done(Some((EventType::Warning, "TopicLeft", why))));
    }
    if spec.deletion_policy == DeletionPolicy::Retain {
        return left("TopicRetained", format!("topic {} stays: deletionPolicy is Retain", topic.topic_name()));
    }
    if owner::owner(topic, context).await.is_some() {
        return Ok(Farewell::Done(None));
    }
    let address = match clusters::resolve(context, topic).await? {
        Resolved::At(address) => address,
        Resolved::NotReady(why) => return Ok(Farewell::Later("ClusterNotReady", why)),
        // It has no say over that cluster.
        Resolved::Refused(why) => return left("TopicLeft", format!("topic {} stays: {why}", topic.topic_name())),
        Resolved::Gone(why) => {
            return match clusters::surely_gone(context, topic).await? {
                true => left("ClusterGone", format!("there is nothing to delete: {why}")),
                false => Ok(Farewell::Later("ClusterNotReady", why)),
            };
        }
    };
    if let Some(heir) = owner::heir(topic, context).await? {
        return left("TopicLeft", format!("topic {} stays: {heir} describes it, too", topic.topic_name()));
    }
    match clusters::way(context, &address)?.delete(topic.topic_name()).await {
        Ok(()) => left("TopicDeleted", format!("topic {} is deleted", topic.topic_name())),
        Err(error) => deletion_refused(topic, error),
    }
}

fn deletion_refused(topic: &Topic, error: ClientError) -> Result<Farewell, Error> {
    match error.code() {
        Some(ErrorCode::UnknownTopicOrPartition) => Ok(Farewell::Done(None)),
        Some(ErrorCode::TopicDeletionDisabled) => {
            let why = format!("topic {} is left in place: the brokers do not delete topics", topic.topic_name());
            Ok(Farewell::Done(Some((EventType::Warning, "TopicLeft", why))))
        }
        _ => Err(error.into()),
    }
}
