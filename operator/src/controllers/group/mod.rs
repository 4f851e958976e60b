//! Watches consumer groups for ConsumerGroups, and moves their offsets where that is asked for.

mod leave;
mod look;
mod offsets;

use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::Action;

use super::known::of_changed_clusters;
use super::{Context, Error, Reconcile};
use crate::crd::ConsumerGroup;
use look::Look;

impl Reconcile for ConsumerGroup {
    const CONTROLLER: &'static str = "consumergroup";

    async fn reconcile(group: &Self, context: &Context) -> Result<Action, Error> {
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
        let written = look.write(context).await;
        let next = next?;
        written?;
        Ok(next)
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
