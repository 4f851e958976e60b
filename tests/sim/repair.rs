//! What was found on disk is checked before it is given away, and replicas whose log cannot be opened, because a
//! power loss left it damaged, are written off by the controller and filled again from another one. As `broker/src/replica/repair.rs` and `server/follow.rs` do it.

use std::sync::Arc;

use klamm::replica::partition::Partition;
use klamm_log::Unchecked;

use crate::message::{Ask, Control, Who};
use crate::node::Process;
use crate::world::World;

impl Process {
    /// Checks what a read found on disk, as is done before it is first given to anyone; then it is read again.
    pub fn check_found(&self, partition: &Arc<Partition>, unchecked: Unchecked) {
        let checked = unchecked.check().unwrap_or_else(|e| panic!("a file cannot be read: {e}"));
        if partition.with_log(|log| log.checked(&checked)).is_some() {
            self.replicas.damaged.add(partition.topic.id, partition.index);
        }
    }
}

impl World {
    /// Asks the controller to do without damaged replicas, and opens what may be rebuilt by now.
    pub fn repair(&mut self, id: i32) {
        let Some(up) = self.nodes[id as usize].up.as_mut() else { return };
        if up.replicas.damaged.count() == 0 {
            return;
        }
        let (image, controller) = (up.published.0.clone(), up.controller);
        let before = up.replicas.offline_count();
        let followed = up.replicas.reopen(&image, &up.clock);
        let reopened = before - up.replicas.offline_count();
        up.list();
        let request = up.replicas.damaged.request(&image, true, id, up.epoch);
        self.followed(id, followed);
        *self.counts.entry("repaired").or_default() += reopened as u64;
        if let Some(request) = request {
            self.ask(Who::Node(id), controller, Ask::Control(Control::AssignDirs(request)));
        }
    }
}
