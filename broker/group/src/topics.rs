//! What the coordinator asks about topics: the broker answers from its metadata image.

use klamm_protocol::Uuid;

/// A topic as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicFacts {
    /// Its id. A topic that was deleted and made again has another one.
    pub id: Uuid,
    /// How many partitions it has.
    pub partitions: i32,
}

/// Names and ids of topics, as the asking client may see them.
pub trait Topics {
    /// The topic of this name.
    fn topic(&self, name: &str) -> Option<TopicFacts>;

    /// The name of the topic with this id.
    fn name(&self, id: Uuid) -> Option<String>;

    /// Whether partitions that topics gain count as committed at their beginning by this group
    /// (`klamm.new.partitions.guard`).
    fn guarded(&self, _group: &str) -> bool {
        false
    }

    /// Whether the asking principal may do to the topic what the request does (READ for commits and deletions,
    /// DESCRIBE for fetches).
    fn authorized(&self, _name: &str) -> bool {
        true
    }
}
