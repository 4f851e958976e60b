//! Which groups are guarded (`klamm.new.partitions.guard`), and telling their coordinators when a topic may have grown.
//!
//! Told late or not at all, a coordinator still answers rightly, since it compares the topic with the group's commits
//! whenever it is asked. Told at once, the commits are there for everybody to see, also of groups that commit nothing.

use std::sync::Arc;

use klamm_metadata::{Change, Entries, Image, Resource, ResourceType};

use super::{Groups, Known, Shard};
use crate::broker::Broker;

/// The group key.
const KEY: &str = "klamm.new.partitions.guard";

/// Whether a topic may have grown, or a group be guarded anew.
pub fn is_concerned(changes: &[Change]) -> bool {
    changes.iter().any(|change| match change {
        Change::PartitionChanged { before, .. } => before.is_none(),
        Change::ConfigChanged { resource, .. } => resource.kind == ResourceType::Group,
        _ => false,
    })
}

/// Whether a group is guarded.
pub fn is_guarded(image: &Image, group: &str) -> bool {
    // Nearly always there is no group with a configuration.
    image.group_configs().next().is_some()
        && image.config(&Resource::group(group)).is_some_and(|entries| guards(entries))
}

fn guards(entries: &Entries) -> bool {
    entries.get(KEY).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

impl Groups {
    /// Looks after all guarded groups that are coordinated here.
    pub fn guard(&self, broker: &Arc<Broker>, image: &Arc<Image>) {
        for group in guarded(image) {
            if let Ok(shard) = self.shard_of(group)
                && let Some(coordinator) = shard.coordinator.lock().as_mut()
            {
                let step = coordinator.guard(group, &Known(image.clone()), broker.clock.steady_wall_ms());
                self.carry_out(broker, &shard, coordinator, step);
            }
        }
    }

    /// The same for one shard that has just been loaded.
    pub(super) fn guard_loaded(
        &self,
        broker: &Arc<Broker>,
        shard: &Arc<Shard>,
        coordinator: &mut klamm_group::Coordinator,
    ) {
        let Some(image) = self.image.lock().clone() else { return };
        for group in guarded(&image).filter(|group| self.partition_of(group) == Ok(shard.partition.index)) {
            let step = coordinator.guard(group, &Known(image.clone()), broker.clock.steady_wall_ms());
            self.carry_out(broker, shard, coordinator, step);
        }
    }
}

fn guarded(image: &Image) -> impl Iterator<Item = &str> {
    image.group_configs().filter(|(_, entries)| guards(entries)).map(|(group, _)| group)
}
