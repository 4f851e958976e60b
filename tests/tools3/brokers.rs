//! kafka-configs for one broker and for all, kafka-log-dirs, kafka-features, kafka-broker-api-versions.

use klamm_tests::{assert_contains, eventually};

use crate::{cluster, create, java, produce};

const CONFIGS: &str = "kafka.admin.ConfigCommand";
const LOG_DIRS: &str = "org.apache.kafka.tools.LogDirsCommand";

#[test]
fn each_broker_takes_configs_of_its_own_whoever_is_the_controller() {
    let cluster = cluster();
    for id in cluster.ids() {
        let entity = format!("--entity-type brokers --entity-name {id}");
        let value = "log.cleaner.threads=2";
        java(&cluster, CONFIGS, &format!("--alter {entity} --add-config {value}"))
            .ok()
            .expect(&format!("Completed updating config for broker {id}"));
        eventually("the broker shows it", 10, || {
            let shown = java(&cluster, CONFIGS, &format!("--describe {entity}")).ok();
            shown.out.contains(&format!("{value} sensitive=false")).then_some(())
        });
    }
    for id in cluster.ids() {
        java(
            &cluster,
            CONFIGS,
            &format!("--alter --entity-type brokers --entity-name {id} --delete-config log.cleaner.threads"),
        )
        .ok();
    }
}

#[test]
fn a_default_of_the_cluster_reaches_every_broker() {
    let cluster = cluster();
    let all = "--entity-type brokers --entity-default";
    java(&cluster, CONFIGS, &format!("--alter {all} --add-config log.retention.ms=604800001")).ok();
    java(&cluster, CONFIGS, &format!("--describe {all}"))
        .ok()
        .expect("log.retention.ms=604800001 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=604800001}");
    for id in cluster.ids() {
        eventually("the broker shows it", 10, || {
            let shown =
                java(&cluster, CONFIGS, &format!("--describe --all --entity-type brokers --entity-name {id}")).ok();
            shown.out.contains("log.retention.ms=604800001").then_some(())
        });
    }
    java(&cluster, CONFIGS, &format!("--alter {all} --delete-config log.retention.ms")).ok();
}

#[test]
fn log_dirs_tell_what_each_broker_holds() {
    let cluster = cluster();
    let topic = create(&cluster, "sized", "0:1,1:2");
    produce(&cluster, &topic, 0, 1000);
    let sizes = eventually("both replicas have it all", 10, || {
        let described = java(&cluster, LOG_DIRS, &format!("--describe --topic-list {topic}")).ok();
        let line = described.out.lines().find(|l| l.starts_with('{')).expect("JSON").to_owned();
        let all: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let brokers = all["brokers"].as_array().expect("brokers");
        let sizes = brokers.iter().flat_map(|broker| {
            let dir = &broker["logDirs"][0];
            assert!(dir["error"].is_null() && dir["logDir"].as_str().is_some_and(|d| d.starts_with('/')), "{dir}");
            let partitions = dir["partitions"].as_array().cloned().unwrap_or_default();
            let id = broker["broker"].as_u64();
            partitions.into_iter().map(move |p| (p["partition"].as_str().map(str::to_owned), id, p["size"].as_u64()))
        });
        let mut sizes: Vec<_> = sizes.collect();
        sizes.sort();
        let full = |at: usize| sizes.get(at).and_then(|(.., size)| *size).filter(|size| *size > 1000);
        (full(0).is_some() && full(0) == full(1)).then_some(sizes)
    });
    let held: Vec<_> = sizes.iter().map(|(name, id, _)| (name.clone().unwrap_or_default(), id.unwrap_or(9))).collect();
    let (p0, p1) = (format!("{topic}-0"), format!("{topic}-1"));
    assert_eq!(held, [(p0.clone(), 0), (p0, 1), (p1.clone(), 1), (p1, 2)]);
}

#[test]
fn versions_and_features_are_told_by_every_broker() {
    let cluster = cluster();
    let versions = java(&cluster, "org.apache.kafka.tools.BrokerApiVersionsCommand", "").ok();
    for id in cluster.ids() {
        assert_contains(&versions.out, &format!("{} (id: {id} rack: null isFenced: false)", cluster.address(id)));
    }
    assert_eq!(versions.out.matches("DescribeLogDirs(35): 1 to 5").count(), 3, "{versions}");
    java(&cluster, "org.apache.kafka.tools.FeatureCommand", "describe").ok();
}
