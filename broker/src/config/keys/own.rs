//! Keys that Kafka's own table lacks: ours, those of Kafka's standard authorizer, and those that left with ZooKeeper.
//! Rows of the key table; see [`super`] for what the columns mean. Sorted by name.

use super::super::key::{Key, boolean, int, long, string};

/// Klamm's own keys; DescribeConfigs lists them beside Kafka's.
#[rustfmt::skip]
pub(super) const OWN: &[Key] = &[
    string("cluster.id").acts("Identity of a new cluster; read only while the data directory is empty, made up when unset."),
    string("klamm.admin.listener").or("127.0.0.1:9644").acts("Address of the admin HTTP server, as HOST:PORT; off for none."),
    long("klamm.broker.unreachable.ms").or("600").at_least("0").acts("How long the host of a broker of which nothing is heard must leave all knocks unanswered, not even refused, to count as cut off: the controller then fences the broker before broker.session.timeout.ms is over. Heartbeats are sent at least twice in that time. 0: the session alone decides."),
    string("klamm.log.format").or("text").one_of(&["text", "json"]).acts("Form of log lines."),
    string("klamm.log.level").or("info").acts("Log level, or a filter such as info,klamm::net=debug."),
    long("klamm.log.scrub.bytes.per.second").or("10485760").at_least("1").cluster_wide().acts("How fast segments are read to be checked; see klamm.log.scrub.interval.ms."),
    long("klamm.log.scrub.interval.ms").or("604800000").at_least("0").cluster_wide().acts("How often every segment is read and its records are checked, so that damage is found while another replica still has them; 0 for never. The first time is ten minutes after the start."),
    long("klamm.maintenance.until").at_least("0").per_broker().dynamic_only().acts("Maintenance: until then, in milliseconds since 1970, the broker leads nothing that another replica in sync can lead. A week ahead at most. Removed by the controller when the time has come; see `klamm brokers maintenance`."),
    int("klamm.quorum.seats").or("3").between("1", "7").acts("Most voters of the metadata quorum: the nodes with the lowest ids sit, the others follow."),
    int("klamm.worker.threads").or("0").between("0", "1024").acts("Threads that serve connections; 0 for one per core."),
];

/// Keys that Kafka reads through a plug-in of its own, so that they are in no table of its; a file may hold them.
#[rustfmt::skip]
pub(super) const PLUGIN: &[Key] = &[
    boolean("allow.everyone.if.no.acl.found").or("false"),
    string("super.users").or(""),
];

/// Keys that Kafka itself no longer knows. Files carried along for years still hold them, and Kafka 4 starts with
/// them; so does Klamm.
#[rustfmt::skip]
pub(super) const GONE: &[Key] = &[
    string("broker.id.generation.enable"),
    string("control.plane.listener.name"),
    string("controller.message.queue.size"),
    string("inter.broker.protocol.version"),
    string("leader.imbalance.per.broker.percentage"),
    string("log.message.downconversion.enable"),
    string("log.message.format.version"),
    string("log.message.timestamp.difference.max.ms"),
    string("offsets.commit.required.acks"),
    string("password.encoder.secret"),
    string("reserved.broker.max.id"),
    string("zookeeper.connect"),
    string("zookeeper.connection.timeout.ms"),
    string("zookeeper.session.timeout.ms"),
];
