//! Which configuration keys can change while brokers run, and which are the operator's own.
//!
//! The list is the broker's, by way of docs/config.md, and a test holds the two together. Brokers of another version may
//! see it otherwise: they are asked, and what they refuse is shown.

/// Keys that change on all brokers while they run, in order.
const LIVE: &[&str] = &[
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "follower.replication.throttled.rate",
    "klamm.log.scrub.bytes.per.second",
    "klamm.log.scrub.interval.ms",
    "leader.replication.throttled.rate",
    "log.cleaner.delete.retention.ms",
    "log.cleaner.max.compaction.lag.ms",
    "log.cleaner.min.cleanable.ratio",
    "log.cleaner.min.compaction.lag.ms",
    "log.cleanup.policy",
    "log.flush.interval.messages",
    "log.flush.interval.ms",
    "log.index.interval.bytes",
    "log.index.size.max.bytes",
    "log.message.timestamp.after.max.ms",
    "log.message.timestamp.before.max.ms",
    "log.message.timestamp.type",
    "log.retention.bytes",
    "log.retention.ms",
    "log.roll.jitter.ms",
    "log.roll.ms",
    "log.segment.bytes",
    "log.segment.delete.delay.ms",
    "max.connections",
    "max.connections.per.ip",
    "message.max.bytes",
    "min.insync.replicas",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
    "producer.id.expiration.ms",
    "unclean.leader.election.enable",
];

/// When a key takes effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// At once, on all brokers.
    Live,
    /// When a broker starts.
    Start,
}

/// When `key` takes effect.
pub fn scope(key: &str) -> Scope {
    if LIVE.binary_search(&key).is_ok() { Scope::Live } else { Scope::Start }
}

/// Why a key cannot be set in a Cluster; `None` when it can.
pub fn reserved(key: &str) -> Option<&'static str> {
    const OPERATOR: &str = "the operator sets it";
    const ONE_BROKER: &str = "it is about a single broker";
    let base = key.strip_prefix("listener.name.").and_then(|rest| rest.split_once('.'));
    if base.is_some_and(|(listener, _)| listener.eq_ignore_ascii_case("replication")) {
        return Some("it is about the brokers' own listener, which the operator sets up");
    }
    let base = base.map_or(key, |(_, base)| base);
    if base.starts_with("ssl.keystore.")
        || base.starts_with("ssl.truststore.")
        || matches!(base, "ssl.client.auth" | "ssl.key.password" | "ssl.endpoint.identification.algorithm")
    {
        return Some("listeners get it by their tls");
    }
    match key {
        "node.id"
        | "broker.id"
        | "process.roles"
        | "cluster.id"
        | "listeners"
        | "advertised.listeners"
        | "listener.security.protocol.map"
        | "inter.broker.listener.name"
        | "security.inter.broker.protocol"
        | "controller.listener.names"
        | "controller.quorum.voters"
        | "controller.quorum.bootstrap.servers"
        | "log.dir"
        | "log.dirs"
        | "metadata.log.dir"
        | "klamm.admin.listener" => Some(OPERATOR),
        "broker.rack" => Some("see rack"),
        "cordoned.log.dirs" | "klamm.maintenance.until" => Some(ONE_BROKER),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_that_of_the_brokers() {
        let docs = std::fs::read_to_string("../docs/config.md").expect("docs/config.md");
        let rows = docs.lines().take_while(|line| !line.starts_with("## Topic keys"));
        let live = rows.filter(|line| line.contains("| per broker, all brokers |"));
        let mut keys: Vec<&str> = live.filter_map(|line| line.split('`').nth(1)).collect();
        keys.sort_unstable();
        assert!(keys.len() > 30, "docs/config.md reads otherwise than it did");
        assert_eq!(LIVE, keys);
    }

    #[test]
    fn what_the_operator_sets_cannot_be_set() {
        for key in ["listeners", "node.id", "ssl.keystore.location", "listener.name.plain.ssl.client.auth"] {
            assert!(reserved(key).is_some(), "{key}");
        }
        for key in ["listener.name.Replication.ssl.cipher.suites", "cordoned.log.dirs"] {
            assert!(reserved(key).is_some(), "{key}");
        }
        for key in ["num.partitions", "ssl.enabled.protocols", "listener.name.plain.ssl.cipher.suites"] {
            assert!(reserved(key).is_none(), "{key}");
        }
    }
}
