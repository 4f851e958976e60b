//! The two configuration keys that decide about leaders, as they stand for a topic: its own value, else the one
//! set for all brokers while the cluster ran, else the controller's static one.
//!
//! Values set for a single broker don't count: a partition's rules must not depend on who leads it.

use crate::image::{Image, Resource};

/// `min.insync.replicas`.
pub const MIN_ISR: &str = "min.insync.replicas";
/// `unclean.leader.election.enable`.
pub const UNCLEAN: &str = "unclean.leader.election.enable";

/// What the controller's static configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `min.insync.replicas`.
    pub min_isr: i32,
    /// `unclean.leader.election.enable`.
    pub unclean: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { min_isr: 1, unclean: false }
    }
}

impl Policy {
    /// What holds for a topic.
    pub fn of(&self, image: &Image, topic: &str) -> Self {
        let (own, all) = (image.config(&Resource::topic(topic)), image.config(&Resource::all_brokers()));
        let find = |key: &str| [own, all].into_iter().flatten().find_map(|entries| entries.get(key));
        Self {
            min_isr: find(MIN_ISR).and_then(|v| v.trim().parse().ok()).unwrap_or(self.min_isr),
            unclean: find(UNCLEAN).map_or(self.unclean, |v| v.trim().eq_ignore_ascii_case("true")),
        }
    }

    /// In-sync replicas that a partition of `replicas` replicas needs for its high watermark to move, as its
    /// leader counts them too.
    pub fn effective_min_isr(&self, replicas: usize) -> usize {
        usize::try_from(self.min_isr).unwrap_or(0).min(replicas).max(1)
    }
}
