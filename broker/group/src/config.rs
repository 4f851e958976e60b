//! The settings the coordinator follows. The broker fills them from its configuration; nothing is read here.

/// Settings of a [`Coordinator`](crate::Coordinator); the defaults are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members of one group.
    pub group_members_max: usize,
    /// Member ids of one group that were handed out (MEMBER_ID_REQUIRED) and not yet used. Kafka has no such limit;
    /// without one a client could grow a group's memory by asking for ids.
    pub pending_members_max: usize,
    /// Most bytes that one member may bring (its protocols' metadata together) or be assigned. They are held for as long
    /// as the member lives; Kafka has no limit but the size of a request.
    pub member_bytes_max: usize,
    /// How long a new member may wait for its first JoinGroup answer. Its client cannot heartbeat while it waits.
    pub new_member_join_timeout_ms: i32,
    /// `offset.metadata.max.bytes`: longest text of a commit, in UTF-16 units as Kafka counts them.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            group_members_max: i32::MAX as usize,
            pending_members_max: 10_000,
            member_bytes_max: 1 << 20,
            new_member_join_timeout_ms: 300_000,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offsets_retention_check_interval_ms: 600_000,
        }
    }
}
