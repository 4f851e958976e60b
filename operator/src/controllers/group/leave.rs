//! A ConsumerGroup that is being deleted: its group goes first, if that is asked for, once it has no members.

use std::time::Duration;

use klamm_protocol::error::ErrorCode;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use super::look::{FINALIZER, Look};
use super::{pausing, target};
use crate::clusters;
use crate::controllers::farewell::{self, Farewell};
use crate::controllers::{Context, Error, finalizer};
use crate::crd::ConsumerGroup;
use crate::crd::consumer_group::GroupDeletionPolicy;
use crate::events;
use crate::groups::cluster;

/// How soon to look whether a group is empty.
const LOOK_SOON: Duration = Duration::from_secs(3);

/// Does what has to be done before a ConsumerGroup may go, and lets it go.
///
/// # Errors
/// What keeps the group from being deleted; the ConsumerGroup stays.
pub async fn leave(group: &ConsumerGroup, context: &Context) -> Result<Action, Error> {
    if !finalizer::has(group, FINALIZER) {
        return Ok(Action::await_change());
    }
    if !start(group, context).await? {
        return Ok(Action::requeue(LOOK_SOON));
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
            look.conditions.waiting(reason, finalizer::with_way_out(group, &why));
            look.write(context).await?;
            Ok(Action::requeue(pause))
        }
        Err(error) => {
            let mut look = Look::new(group);
            let why = finalizer::with_way_out(group, &format!("deleting the group: {error}"));
            look.conditions.waiting(error.reason(), why);
            look.write(context).await?;
            Err(error)
        }
    }
}

/// Starts consumers that are stopped for a reset: nobody would after that. Answers whether that is done.
async fn start(group: &ConsumerGroup, context: &Context) -> Result<bool, Error> {
    let mut look = Look::new(group);
    let Some(pause) = look.status.pause.clone().filter(|_| !finalizer::is_forced(group)) else { return Ok(true) };
    match pausing::start(&mut look, context).await {
        Ok(()) => Ok(look.status.pause.is_none()),
        // A namespace that is being deleted may have lost its roles first; then its pods go as well.
        Err(error) if target::is_forbidden(&error) && goes(group, context).await? => {
            let note = format!("{} {} stays at zero: {error}", pause.kind, pause.name);
            events::publish(context, group, EventType::Warning, "ConsumersLeft", "Delete", note).await;
            Ok(true)
        }
        Err(error) => {
            let why = format!("starting {} {} again: {error}", pause.kind, pause.name);
            look.conditions.waiting(error.reason(), finalizer::with_way_out(group, &why));
            look.write(context).await?;
            Err(error)
        }
    }
}

/// Whether the group's namespace is being deleted, as far as can be told.
async fn goes(group: &ConsumerGroup, context: &Context) -> Result<bool, Error> {
    Ok(clusters::namespace_goes(context, &group.namespace().unwrap_or_default()).await?.unwrap_or(true))
}

async fn farewell(group: &ConsumerGroup, context: &Context) -> Result<Farewell, Error> {
    let id = group.group_id();
    if finalizer::is_forced(group) || group.spec.deletion_policy == GroupDeletionPolicy::Retain {
        return Ok(Farewell::told("GroupLeft", format!("group {id} stays as it is")));
    }
    let brokers = match farewell::brokers(group, context, &format!("group {id}"), "GroupLeft").await? {
        Ok(brokers) => brokers,
        Err(farewell) => return Ok(farewell),
    };
    let farewell = match brokers.ask(async |client| client.delete_group(id).await).await {
        Ok(()) => Farewell::told("GroupDeleted", format!("group {id} is deleted")),
        Err(error) => match error.code() {
            Some(ErrorCode::GroupIdNotFound) => Farewell::Done(None),
            Some(ErrorCode::NonEmptyGroup) => {
                return Ok(Farewell::Later("GroupActive", format!("group {id} has members"), LOOK_SOON));
            }
            _ => return Err(error.into()),
        },
    };
    if group.spec.initial_offsets.is_some() {
        brokers.ask(async |client| cluster::guard(client, id, false).await).await?;
    }
    Ok(farewell)
}
