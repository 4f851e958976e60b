//! Listeners, connections, requests.
//! Rows of the key table; see [`super`] for what the columns mean. Sorted by name.

use super::super::key::{Custom, Key, int, list, long, string};

#[rustfmt::skip]
pub(super) const NET: &[Key] = &[
    list("advertised.listeners").not_empty().custom(Custom::Listeners).acts("Addresses told to clients and brokers; without it the listeners themselves are told."),
    int("background.threads").or("10").at_least("1").cluster_wide(),
    long("connections.max.idle.ms").or("600000").acts("A connection silent for this long is closed."),
    int("delete.records.purgatory.purge.interval.requests").or("1"),
    int("fetch.max.bytes").or("57671680").at_least("1024").acts("Most bytes one fetch answer carries."),
    int("fetch.purgatory.purge.interval.requests").or("1000"),
    string("inter.broker.listener.name").acts("The listener brokers use among themselves."),
    string("listener.security.protocol.map").or("SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT").custom(Custom::ProtocolMap).acts("Which security protocol each listener name speaks."),
    list("listeners").or("PLAINTEXT://127.0.0.1:9092").not_empty().custom(Custom::Listeners).acts("Addresses to listen on, as NAME://HOST:PORT; an empty host means every interface."),
    int("max.connection.creation.rate").or("2147483647").at_least("0").cluster_wide(),
    int("max.connections").or("2147483647").at_least("0").cluster_wide().acts("Connections of all listeners that clients use, together; the brokers' own listeners have no limit."),
    int("max.connections.per.ip").or("2147483647").at_least("0").cluster_wide().acts("Connections of one client address; not on the brokers' own listeners."),
    string("max.connections.per.ip.overrides").or("").custom(Custom::HostCounts).cluster_wide(),
    int("max.incremental.fetch.session.cache.slots").or("1000").at_least("0").acts("Fetch sessions kept at the same time."),
    int("max.request.partition.size.limit").or("2000").at_least("1").acts("Partitions one answer to a topic description carries."),
    int("num.io.threads").or("8").at_least("1").cluster_wide(),
    int("num.network.threads").or("3").at_least("1").cluster_wide(),
    int("producer.purgatory.purge.interval.requests").or("1000"),
    long("queued.max.request.bytes").or("-1").acts("Memory for requests that are being received, all connections together; -1 takes a quarter of the memory there is, 32 MiB to 512 MiB. Requests up to 64 KiB are not counted."),
    int("queued.max.requests").or("500").at_least("1"),
    int("request.timeout.ms").or("30000"),
    long("socket.connection.setup.timeout.max.ms").or("30000"),
    long("socket.connection.setup.timeout.ms").or("10000"),
    int("socket.listen.backlog.size").or("50").at_least("1").acts("Connections the kernel may queue before they are accepted."),
    int("socket.receive.buffer.bytes").or("102400"),
    int("socket.request.max.bytes").or("104857600").at_least("1").acts("Largest request frame that is read; a bigger one closes the connection."),
    int("socket.send.buffer.bytes").or("102400"),
];
