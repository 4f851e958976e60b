//! Replicas whose log cannot be opened, because a power loss left it damaged: the controller is asked to do without them,
//! and they are filled again from another replica. As `broker/src/replica/repair.rs` and `server/follow.rs` do it.

use crate::message::{Ask, Control, Who};
use crate::world::World;

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
