//! A partition as clients and dashboards are to see it: the published image, corrected by what this broker
//! knows better about itself.

use klamm_metadata::image::NO_LEADER;
use klamm_metadata::{Image, Partition};
use klamm_protocol::{ErrorCode, Uuid};

use crate::broker::Broker;

/// See the module's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visible {
    /// The leader, −1 when there is none.
    pub leader: i32,
    /// Replicas in sync.
    pub isr: Vec<i32>,
    /// Replicas on brokers that are away or cannot open them.
    pub offline: Vec<i32>,
    /// `LeaderNotAvailable` without a leader.
    pub error: ErrorCode,
}

impl Visible {
    /// Partition `index` of the topic `id`, which `image` describes as `partition`.
    pub fn of(broker: &Broker, image: &Image, id: Uuid, index: i32, partition: &Partition) -> Self {
        let mut visible = Self {
            leader: partition.leader,
            isr: partition.isr.clone(),
            offline: partition.replicas.iter().copied().filter(|replica| !image.is_active(*replica)).collect(),
            error: ErrorCode::None,
        };
        let node_id = broker.config.node_id;
        if broker.replicas.is_offline(id, index) {
            // Its log could not be opened here: whatever the image says, this broker does not lead it.
            visible.isr.retain(|replica| *replica != node_id);
            if !visible.offline.contains(&node_id) {
                visible.offline.push(node_id);
            }
            if visible.leader == node_id {
                visible.leader = NO_LEADER;
            }
        }
        if visible.leader == NO_LEADER {
            visible.error = ErrorCode::LeaderNotAvailable;
        }
        visible
    }
}
