//! Events: what happened to an object, for `kubectl describe`. Told when something changes, never at every look.

use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};

use crate::controllers::Context;

/// The most that fits into an Event's note, in bytes.
const NOTE: usize = 1024;

/// Tells what happened to `object`. That it cannot be told (the namespace is being deleted, say) is no reason to do
/// anything else differently.
pub async fn publish(
    context: &Context,
    object: &impl Resource<DynamicType = ()>,
    kind: EventType,
    reason: &str,
    action: &str,
    note: impl Into<String>,
) {
    let mut note = note.into();
    note.truncate(note.floor_char_boundary(NOTE));
    let event = Event { type_: kind, reason: reason.into(), note: Some(note), action: action.into(), secondary: None };
    if let Err(error) = context.recorder.publish(&event, &object.object_ref(&())).await {
        tracing::debug!(object = object.name_any(), reason, %error, "an Event could not be written");
    }
}
