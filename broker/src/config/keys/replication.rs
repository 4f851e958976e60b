//! Replication, leader balance, quotas.
//! Rows of the key table; see [`super`] for what the columns mean. Sorted by name.

use super::super::key::{Key, boolean, class, int, long, string};

#[rustfmt::skip]
pub(super) const REPLICATION: &[Key] = &[
    int("alter.log.dirs.replication.quota.window.num").or("11").at_least("1"),
    int("alter.log.dirs.replication.quota.window.size.seconds").or("1").at_least("1"),
    boolean("auto.leader.rebalance.enable").or("true").acts("Whether the controller gives leaderships back to preferred leaders by itself."),
    class("client.quota.callback.class"),
    long("follower.replication.throttled.rate").or("9223372036854775807").at_least("0").cluster_wide().dynamic_only().acts("Bytes a second that throttled replicas here may take from their leaders while they are out of sync."),
    long("leader.imbalance.check.interval.seconds").or("300").at_least("1").acts("How often the controller looks whether preferred leaders should lead again."),
    long("leader.replication.throttled.rate").or("9223372036854775807").at_least("0").cluster_wide().dynamic_only().acts("Bytes a second that leaders here send of throttled replicas to followers that are out of sync."),
    int("num.replica.alter.log.dirs.threads"),
    int("num.replica.fetchers").or("1").at_least("1").cluster_wide().acts("Connections to each broker that followers here fetch from."),
    int("quota.window.num").or("11").at_least("1"),
    int("quota.window.size.seconds").or("1").at_least("1"),
    long("replica.alter.log.dirs.io.max.bytes.per.second").or("9223372036854775807").at_least("0").cluster_wide().dynamic_only(),
    int("replica.fetch.backoff.ms").or("1000").at_least("0").acts("Milliseconds a follower waits after a failed fetch."),
    int("replica.fetch.max.bytes").or("1048576").at_least("0").acts("Bytes a follower asks of one partition at a time."),
    int("replica.fetch.min.bytes").or("1").acts("Bytes a leader waits for before it answers a follower."),
    int("replica.fetch.response.max.bytes").or("10485760").at_least("0").acts("Bytes a follower asks of all partitions at a time."),
    int("replica.fetch.wait.max.ms").or("500").acts("Milliseconds a leader waits before it answers a follower without data."),
    long("replica.high.watermark.checkpoint.interval.ms").or("5000").acts("Milliseconds between two writes of the high watermarks."),
    long("replica.lag.time.max.ms").or("30000").acts("A replica that has not caught up for so many milliseconds is not in sync."),
    string("replica.selector.class").acts("With RackAwareReplicaSelector consumers are sent to a replica in their rack."),
    int("replica.socket.receive.buffer.bytes").or("65536"),
    int("replica.socket.timeout.ms").or("30000").acts("Milliseconds a follower waits for the answer to a fetch, beyond what the leader may wait."),
    int("replication.quota.window.num").or("11").at_least("1"),
    int("replication.quota.window.size.seconds").or("1").at_least("1"),
];
