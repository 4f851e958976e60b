//! What whole configurations become, and which are refused.

use super::*;

fn load(text: &str) -> Result<Loaded, ConfigErrors> {
    let mut settings = Settings::new();
    settings.add_properties("f", text.as_bytes())?;
    BrokerConfig::from_settings(&settings)
}

fn good(text: &str) -> BrokerConfig {
    load(text).unwrap().config
}

fn refused(text: &str, part: &str) {
    let error = load(text).unwrap_err().to_string();
    assert!(error.contains(part), "{text:?}: {error}");
}

fn shown(listeners: &[Listener]) -> Vec<String> {
    listeners.iter().map(ToString::to_string).collect()
}

/// The file an Apache distribution ships for a combined node, with addresses filled in.
pub(super) const APACHE: &str = "\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:9093
listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=2
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

#[test]
fn nothing_configured_is_a_single_node_on_loopback() {
    let Loaded { config, warnings } = load("").unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(shown(&config.listeners), ["PLAINTEXT://127.0.0.1:9092"]);
    assert_eq!(config.advertised, config.listeners);
    assert_eq!(config.inter_broker_listener, "PLAINTEXT");
    assert_eq!(config.admin_listener.as_ref().map(ToString::to_string).as_deref(), Some("127.0.0.1:9644"));
    assert_eq!(config.log_dirs, [std::path::PathBuf::from("./klamm-data")]);
    assert_eq!(config.metadata_dir, config.log_dirs[0]);
    assert_eq!((config.node_id, config.controller, config.num_partitions), (0, true, 1));
    assert_eq!(config.groups.offsets_replicas.with_brokers(1), 1);
    assert_eq!(config.groups.offsets_replicas.with_brokers(5), 3);
    assert_eq!(config.groups.offsets_retention_ms, 7 * 24 * 3_600_000);
    assert_eq!((config.request_max_bytes, config.connections_max_idle_ms), (104_857_600, Some(600_000)));
}

#[test]
fn a_file_of_an_apache_combined_node_starts() {
    let Loaded { config, warnings } = load(APACHE).unwrap();
    assert_eq!(shown(&config.listeners), ["PLAINTEXT://127.0.0.1:9092", "CONTROLLER://127.0.0.1:9093"]);
    assert_eq!(shown(&config.advertised), ["PLAINTEXT://127.0.0.1:9092"]);
    assert_eq!(config.controller_listener_names, ["CONTROLLER"]);
    assert_eq!(config.bootstrap_servers[0].to_string(), "127.0.0.1:9093");
    assert_eq!(config.groups.offsets_replicas, InternalReplicas { wanted: 1, explicit: true });
    let mut keys: Vec<_> = warnings.iter().map(|w| w.split(' ').next().unwrap_or_default()).collect();
    keys.sort_unstable();
    let expected = [
        "num.io.threads",
        "num.network.threads",
        "share.coordinator.state.topic.min.isr",
        "share.coordinator.state.topic.replication.factor",
        "socket.receive.buffer.bytes",
        "socket.send.buffer.bytes",
        "transaction.state.log.min.isr",
        "transaction.state.log.replication.factor",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn three_voters_with_one_listener_for_quorum_and_brokers() {
    let config = good(
        "node.id=2\nlisteners=CLIENT://:9092,INTERNAL://:9093\nadvertised.listeners=CLIENT://a:9092,INTERNAL://b:9093\n\
         listener.security.protocol.map=CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT\ninter.broker.listener.name=internal\n\
         controller.listener.names=INTERNAL\ncontroller.quorum.voters=0@x:9093,1@y:9093,2@z:9093",
    );
    assert_eq!(shown(&config.advertised), ["CLIENT://a:9092", "INTERNAL://b:9093"]);
    assert_eq!(config.inter_broker_listener, "INTERNAL");
    assert_eq!(config.voters.len(), 3);
}

#[test]
fn wildcards_are_advertised_under_the_machines_name() {
    let Loaded { config, warnings } = load("listeners=PLAINTEXT://:9092").unwrap();
    assert_eq!(config.listeners[0].address.host, "");
    assert!(!config.advertised[0].address.host.is_empty());
    assert_eq!(warnings.len(), 1);
    refused("advertised.listeners=PLAINTEXT://0.0.0.0:9092", "nobody can connect");
}

#[test]
fn a_session_of_hardly_one_heartbeat_is_warned_of() {
    let warnings = |text: &str| load(text).unwrap().warnings.len();
    assert_eq!(warnings("broker.session.timeout.ms=4000"), 0);
    assert_eq!(warnings("broker.session.timeout.ms=3999"), 1);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    refused("node.id=1\nbroker.id=2", "broker.id=2 (f:2): must be the same as node.id, which is 1");
    refused("node.id=-1", "must be at least 0");
    refused("process.roles=controller", "only controllers");
    refused("process.roles=broker", "has to name controllers");
    refused("controller.quorum.voters=0@a:1,0@b:1", "there already");
    refused("controller.quorum.voters=0@a:1,1@a:1", "there already");
    refused("cordoned.log.dirs=/x", "/x is none of the data directories");
    for twice in ["/a,/b,/a/", "/a,/./a", "x,./x"] {
        refused(&format!("log.dirs={twice}"), "names one directory twice");
    }
    let link = tempfile::tempdir().unwrap();
    std::fs::create_dir(link.path().join("a")).unwrap();
    std::os::unix::fs::symlink(link.path().join("a"), link.path().join("b")).unwrap();
    refused(&format!("log.dirs={0}/a,{0}/b", link.path().display()), "names one directory twice");
    refused("listeners=SASL_SSL://:9093", "SASL_SSL is not available yet");
    refused("listeners=SSL://:9093", "ssl.keystore.location: SSL speaks SSL: name here");
    refused("listeners=SSL://:9093\nssl.keystore.location=/k.jks", "SSL has a keystore of type JKS, and only PEM");
    refused("listeners=SSL://:9093\nssl.keystore.type=PEM", "ssl.keystore.location: SSL speaks SSL: name here");
    let keys = "listeners=SSL://:9093\nssl.keystore.type=PEM\nssl.keystore.location=/k.pem";
    refused(keys, "ssl.truststore.location: nodes connect to SSL");
    refused(
        &format!("{keys}\nssl.truststore.location=/t.jks"),
        "ssl.truststore.type: SSL has a truststore of type JKS",
    );
    refused("listeners=X://:9093", "names no protocol for X");
    refused("listeners=PLAINTEXT://h:1,PLAINTEXT://h:2", "different name");
    refused("controller.listener.names=C", "C is not among the listeners");
    refused("controller.listener.names=PLAINTEXT", "at least one listener");
    refused("inter.broker.listener.name=X", "must be one of the listeners PLAINTEXT");
    refused("inter.broker.listener.name=PLAINTEXT\nsecurity.inter.broker.protocol=PLAINTEXT", "only one of");
    refused(
        "listener.security.protocol.map=A:PLAINTEXT\nlisteners=A://:1\nadvertised.listeners=B://h:1",
        "names no protocol for B",
    );
    refused("controller.quorum.voters=1@h:1", "must hold this node, 0");
    refused("log.retention.ms=0", "must be at least 1, or -1");
    refused("log.roll.ms=0", "log.roll.ms=0 (f:1): must be at least 1");
    refused("max.connections.per.ip=0", "overrides");
    refused("group.min.session.timeout.ms=9\ngroup.max.session.timeout.ms=8", "must not be larger");
    refused("log.cleaner.min.compaction.lag.ms=9\nlog.cleaner.max.compaction.lag.ms=8", "must not be larger");
    refused("klamm.admin.listener=nowhere", "klamm.admin.listener=nowhere (f:1): nowhere names no port");
    refused("log.dirs=a,,b", "values must not be empty");
}

#[test]
fn the_admin_server_can_be_off_and_limits_are_read() {
    let config = good(
        "klamm.admin.listener=off\nmax.connections.per.ip=0\nmax.connections.per.ip.overrides=10.0.0.1:5\n\
         connections.max.idle.ms=-1\nsocket.send.buffer.bytes=-1\nlog.dirs=/a, /b\nmetadata.log.dir=/m",
    );
    assert_eq!(config.admin_listener, None);
    assert_eq!(config.max_connections_per_ip, 0);
    assert_eq!(config.connections_max_idle_ms, None);
    assert_eq!(config.log_dirs.len(), 2);
    assert_eq!(config.metadata_dir, std::path::PathBuf::from("/m"));
}

#[test]
fn dynamic_values_are_taken_over() {
    let entries = |k: &str, v: &str| Entries::from([(k.to_owned(), v.to_owned())]);
    let config = good("log.retention.hours=1");
    let changed = config.with_dynamic(entries("max.connections", "7"), entries("log.retention.ms", "5")).unwrap();
    assert_eq!(changed.max_connections, 7);
    assert_eq!(changed.topic(&Entries::new()).log.retention_ms, 5);
    assert!(config.with_dynamic(entries("log.retention.ms", "0"), Entries::new()).is_err());
}

#[test]
fn a_listener_is_the_brokers_own_when_clients_have_another() {
    let both = good(
        "listeners=CLIENT://127.0.0.1:1,INTERNAL://127.0.0.1:2\n\
         listener.security.protocol.map=CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT\ninter.broker.listener.name=INTERNAL",
    );
    assert!(both.is_brokers_own("INTERNAL") && !both.is_brokers_own("CLIENT"));
    assert!(!good("").is_brokers_own("PLAINTEXT"));
    let apache = good(APACHE);
    assert!(!apache.is_brokers_own("PLAINTEXT") && !apache.is_brokers_own("CONTROLLER"));
}
