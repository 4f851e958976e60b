//! What becomes of a topic or group when its resource is deleted, as far as that is the same for both.

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::events::EventType;

use super::owner::{self, OfCluster, Seen};
use super::{Context, Error};
use crate::brokers::Brokers;
use crate::clusters::{self, Resolved};

/// How a resource goes.
pub enum Farewell {
    /// Nothing is to be deleted, or nothing is left; with what to tell.
    Done(Option<(EventType, &'static str, String)>),
    /// Not yet, with a condition's reason and message, and how soon to look again.
    Later(&'static str, String, Duration),
}

impl Farewell {
    /// As it should be, with an Event's reason and note.
    pub fn told(reason: &'static str, note: String) -> Self {
        Self::Done(Some((EventType::Normal, reason, note)))
    }
}

/// The brokers that are to delete what `object` stands for, or how it goes without them: it belongs to another resource, its
/// cluster is gone, or not its to say anything about. `what` names it (`topic orders`), `left` is the reason that an
/// Event gives where it stays.
///
/// # Errors
/// The API server's.
pub async fn brokers<K: OfCluster>(
    object: &K,
    context: &Context,
    what: &str,
    left: &'static str,
) -> Result<Result<Arc<Brokers>, Farewell>, Error> {
    let seen = Seen { cluster: object.cluster_id(), subject: object.subject_id() };
    if owner::owner(object, &seen, context).await?.is_some() {
        return Ok(Err(Farewell::Done(None)));
    }
    let later = |why| Farewell::Later("ClusterNotReady", why, clusters::LOOK_AGAIN);
    let address = match clusters::resolve(context, object).await? {
        Resolved::At(address) => address,
        Resolved::NotReady(why) => return Ok(Err(later(why))),
        // It has no say over that cluster.
        Resolved::Refused(why) => return Ok(Err(Farewell::told(left, format!("{what} stays: {why}")))),
        Resolved::Gone(why) => {
            return Ok(Err(match clusters::surely_gone(context, object).await? {
                true => Farewell::told("ClusterGone", format!("there is nothing to delete: {why}")),
                false => later(why),
            }));
        }
    };
    if let Some(heir) = owner::heir(object, context).await? {
        return Ok(Err(Farewell::told(left, format!("{what} stays: {heir} describes it, too"))));
    }
    let brokers = clusters::way(context, &address)?;
    if clusters::go_together(context, object).await? && brokers.ask(async |_| Ok(())).await.is_err() {
        let why = "its brokers were those of a Cluster of this namespace, which is gone or being deleted";
        return Ok(Err(Farewell::told("ClusterGone", format!("there is nothing to delete: {why}"))));
    }
    Ok(Ok(brokers))
}
