//! Brings topics in line with Topics.

mod leave;
mod look;
#[cfg(test)]
mod topic_test;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::Action;

use super::known::of_changed_clusters;
use super::{Context, Error, Reconcile};
use crate::crd::Topic;
pub use leave::MAKES;
use look::Look;

impl Reconcile for Topic {
    const CONTROLLER: &'static str = "topic";

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    async fn reconcile(topic: &Self, context: &Context) -> Result<Action, Error> {
        if topic.metadata.deletion_timestamp.is_some() {
            return leave::leave(topic, context).await;
        }
        let mut look = Look::new(topic);
        let next = look.at(context).await;
        if let Err(error) = &next {
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
