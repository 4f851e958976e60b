//! Group configurations. Groups of the newer protocols are not served yet, so Kafka's keys are only accepted.
//! `inherits` names the broker keys a value comes from when the group sets none, with the factor of their unit.

use super::super::key::{Custom, Key, boolean, int, string};

#[rustfmt::skip]
pub(super) const GROUP: &[Key] = &[
    int("consumer.assignment.interval.ms").or("1000").at_least("0").inherits(&[("group.consumer.assignment.interval.ms", 1)]),
    int("consumer.heartbeat.interval.ms").or("5000").at_least("1").inherits(&[("group.consumer.heartbeat.interval.ms", 1)]),
    int("consumer.session.timeout.ms").or("45000").at_least("1").inherits(&[("group.consumer.session.timeout.ms", 1)]),
    boolean("klamm.new.partitions.guard").or("false").acts("Whether a partition that is added to a topic which the group has committed offsets in counts as committed at its beginning. Consumers hear of it later than producers; with `auto.offset.reset=latest` they would pass over what was written meanwhile. Holds for partitions added from then on."),
    int("share.assignment.interval.ms").or("1000").at_least("0").inherits(&[("group.share.assignment.interval.ms", 1)]),
    string("share.auto.offset.reset").or("latest").custom(Custom::ShareOffsetReset),
    int("share.delivery.count.limit").or("5").at_least("2").inherits(&[("group.share.delivery.count.limit", 1)]),
    int("share.heartbeat.interval.ms").or("5000").at_least("1").inherits(&[("group.share.heartbeat.interval.ms", 1)]),
    string("share.isolation.level").or("read_uncommitted").one_of(&["read_committed", "read_uncommitted"]),
    int("share.partition.max.record.locks").or("2000").at_least("100").inherits(&[("group.share.partition.max.record.locks", 1)]),
    int("share.record.lock.duration.ms").or("30000").at_least("1000").inherits(&[("group.share.record.lock.duration.ms", 1)]),
    boolean("share.renew.acknowledge.enable").or("true"),
    int("share.session.timeout.ms").or("45000").at_least("1").inherits(&[("group.share.session.timeout.ms", 1)]),
    int("streams.assignment.interval.ms").or("1000").at_least("0").inherits(&[("group.streams.assignment.interval.ms", 1)]),
    int("streams.heartbeat.interval.ms").or("5000").at_least("1").inherits(&[("group.streams.heartbeat.interval.ms", 1)]),
    int("streams.initial.rebalance.delay.ms").or("3000").at_least("0").inherits(&[("group.streams.initial.rebalance.delay.ms", 1)]),
    int("streams.num.standby.replicas").or("0").at_least("0").inherits(&[("group.streams.num.standby.replicas", 1)]),
    int("streams.session.timeout.ms").or("45000").at_least("1").inherits(&[("group.streams.session.timeout.ms", 1)]),
];
