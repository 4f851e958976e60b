//! A ConsumerGroup that is being deleted: its group goes first, if that is asked for, once it has no members.

use std::time::Duration;

use klamm_protocol::error::ErrorCode;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use super::look::{FINALIZER, Look};
use crate::clusters::{self, Resolved};
use crate::controllers::{Context, Error, finalizer, owner};
use crate::crd::ConsumerGroup;
use crate::crd::consumer_group::GroupDeletionPolicy;
use crate::events;

/// How soon to look whether a group is empty.
const LOOK_SOON: Duration = Duration::from_secs(3);

/// How a ConsumerGroup goes.
enum Farewell {
    /// Nothing is to be deleted, or nothing is left; with what to tell.
    Done(Option<(EventType, &'static str, String)>),
    /// Not yet.
    Later(&'static str, String, Duration),
}

/// Does what has to be done before a ConsumerGroup may go, and lets it go.
///
/// # Errors
/// What keeps the group from being deleted; the ConsumerGroup stays.
pub async fn leave(group: &ConsumerGroup, context: &Context) -> Result<Action, Error> {
    if !finalizer::has(group, FINALIZER) {
        return Ok(Action::await_change());
    }
    match farewell(group, context).await {
        Ok(Farewell::Done(told)) => {
            if let Some((kind, reason, note)) = told {
                events::publish(context, group, kind, reason, "Delete", note).await;
            }
            finalizer::keep(&context.client, group, FINALIZER, false).await?;
            Ok(Action::await_change())
        }
        Ok(Farewell::Later(reason, why, pause)) => {
            let mut look = Look::new(group);
            look.conditions.waiting(reason, why);
            look.write(context).await?;
            Ok(Action::requeue(pause))
        }
        Err(error) => {
            let mut look = Look::new(group);
            look.conditions.waiting(error.reason(), format!("deleting the group: {error}"));
            look.write(context).await?;
            Err(error)
        }
    }
}

async fn farewell(group: &ConsumerGroup, context: &Context) -> Result<Farewell, Error> {
    let id = group.group_id();
    let left = |reason, why: String| Ok(Farewell::Done(Some((EventType::Normal, reason, why))));
    if finalizer::is_forced(group) || group.spec.deletion_policy == GroupDeletionPolicy::Retain {
        return left("GroupLeft", format!("group {id} stays as it is"));
    }
    if owner::owner(group, context).await.is_some() {
        return Ok(Farewell::Done(None));
    }
    let address = match clusters::resolve(context, group).await? {
        Resolved::At(address) => address,
        Resolved::NotReady(why) => return Ok(Farewell::Later("ClusterNotReady", why, clusters::LOOK_AGAIN)),
        Resolved::Refused(why) => return left("GroupLeft", format!("group {id} stays: {why}")),
        Resolved::Gone(why) => {
            return match clusters::surely_gone(context, group).await? {
                true => left("ClusterGone", format!("there is nothing to delete: {why}")),
                false => Ok(Farewell::Later("ClusterNotReady", why, clusters::LOOK_AGAIN)),
            };
        }
    };
    if let Some(heir) = owner::heir(group, context).await? {
        return left("GroupLeft", format!("group {id} stays: {heir} describes it, too"));
    }
    match clusters::way(context, &address)?.ask(async |client| client.delete_group(id).await).await {
        Ok(()) => left("GroupDeleted", format!("group {id} is deleted")),
        Err(error) => match error.code() {
            Some(ErrorCode::GroupIdNotFound) => Ok(Farewell::Done(None)),
            Some(ErrorCode::NonEmptyGroup) => {
                Ok(Farewell::Later("GroupActive", format!("group {id} has members"), LOOK_SOON))
            }
            _ => Err(error.into()),
        },
    }
}
