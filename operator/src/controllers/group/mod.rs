//! Watches consumer groups for ConsumerGroups, moves their offsets where that is asked for, and has as many consumers as
//! there should be.
//!
//! `look` is one look at a group, `offsets` moves its offsets, `scaling` and `pausing` decide about its consumers by what
//! `target` finds of them, `leave` lets a ConsumerGroup go.

mod leave;
mod look;
mod offsets;
mod pausing;
mod scaling;
mod target;

#[cfg(test)]
mod offsets_test;
#[cfg(test)]
mod pausing_test;
#[cfg(test)]
mod scaling_test;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use super::known::of_changed_clusters;
use super::{Context, Error, Reconcile};
use crate::crd::ConsumerGroup;
use crate::status;
use look::Look;

/// How soon to look again while consumers are stopped.
const STOPPED: Duration = Duration::from_secs(3);

impl Reconcile for ConsumerGroup {
    const CONTROLLER: &'static str = "consumergroup";

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    async fn reconcile(group: &Self, context: &Context) -> Result<Action, Error> {
        let fresh;
        let group = match pausing::concerns(group) {
            false => group,
            // A watch may be late: a note that was written a moment ago must be seen, and not be written over.
            true => {
                let api: Api<Self> = Api::namespaced(context.client.clone(), &target::namespace(group));
                let Some(found) = api.get_opt(&group.name_any()).await? else { return Ok(Action::await_change()) };
                fresh = found;
                &fresh
            }
        };
        if group.metadata.deletion_timestamp.is_some() {
            context.group_metrics.forget(&key(group));
            return leave::leave(group, context).await;
        }
        let mut look = Look::new(group);
        let next = look.at(context).await;
        if let Err(error) = &next {
            context.group_metrics.forget(&key(group));
            look.conditions.failed(error);
        }
        let started = look.start_if_late(context).await;
        let stopped = look.status.pause.is_some() && !status::is_paused(group);
        let written = look.write(context).await;
        let next = next?;
        started?;
        written?;
        Ok(if stopped { Action::requeue(STOPPED) } else { next })
    }

    fn watch_more(
        controller: Controller<DeserializeGuard<Self>>,
        context: &Context,
        namespace: Option<&str>,
    ) -> Controller<DeserializeGuard<Self>> {
        controller.reconcile_on(of_changed_clusters(context, namespace))
    }
}

/// What names a group in metrics.
pub fn key(group: &ConsumerGroup) -> [String; 3] {
    [group.namespace().unwrap_or_default(), group.name_any(), group.group_id().to_owned()]
}
