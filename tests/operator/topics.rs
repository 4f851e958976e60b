//! Topics as their users see them: an operator, an API server and brokers, all real.

use std::time::{Duration, Instant};

use klamm_tests::broker::Peer;
use klamm_tests::{Broker, Random, assert_contains, eventually};
use serde_json::{Value, json};

use crate::kubernetes::audit::requests;
use crate::kubernetes::kubectl::{install_types, kubectl};
use crate::kubernetes::{Namespace, with_control_plane};
use crate::process::{Operator, condition, klamm, until_condition};
use crate::types::object;

/// A topic as the brokers have it; `None` when there is none.
pub fn described(broker: &Broker, topic: &str) -> Option<Value> {
    let out = klamm(broker, &format!("topics describe {topic} -o json")).run();
    if out.code != 0 {
        assert_contains(&out.err, "UNKNOWN_TOPIC_OR_PARTITION");
        return None;
    }
    serde_json::from_str::<Value>(&out.out).ok().map(|all| all[0].clone())
}

/// What is set for the topic itself.
pub fn config(broker: &Broker, topic: &str) -> Value {
    described(broker, topic).map_or(Value::Null, |found| found["configs"].clone())
}

/// Applies a Topic of this broker, or of the Cluster that its description names.
pub fn topic(space: &Namespace, broker: &Broker, name: &str, spec: Value) {
    let mut spec = spec;
    if spec.get("clusterRef").is_none() {
        spec["bootstrapServers"] = broker.bootstrap().into();
    }
    space.apply(&object("Topic", name, &spec));
}

/// A Cluster whose brokers this test runs itself.
fn cluster(space: &Namespace, broker: &Broker, spec: &Value) {
    space.apply(&object("Cluster", "prod", spec));
    let listener = json!({ "name": "plain", "bootstrapServers": broker.bootstrap() });
    space.set_status("kmc", "prod", &json!({ "replicas": 1, "listeners": [listener] })).expect_ok();
}

#[test]
fn a_topic_is_created_changed_and_deleted_with_its_resource() {
    with_control_plane("topics::a_topic_is_created_changed_and_deleted_with_its_resource", || {
        install_types();
        let (space, broker) = (Namespace::new("topics"), Broker::start(&[]));
        let mut operator = Operator::start(&[&space]);
        let spec = |partitions: i32, hours: i32| {
            json!({
                "partitions": partitions, "replicationFactor": 1, "retention": { "time": format!("{hours}h") },
                "cleanupPolicy": ["compact", "delete"], "config": { "max.message.bytes": 2097152 }, "unmanagedConfig": ["compression.type"],
            })
        };
        topic(&space, &broker, "orders", spec(3, 12));
        let ready = until_condition(&space, "kmt", "orders", "Ready", "True/AsDescribed");
        assert_eq!(ready["status"]["partitions"], 3, "{ready}");
        assert_eq!(
            (&ready["status"]["replicationFactor"], &ready["status"]["topicName"]),
            (&json!(1), &json!("orders"))
        );
        for (kind, wanted) in
            [("Reconciling", "False"), ("Stalled", "False"), ("Synced", "True"), ("Available", "True")]
        {
            assert!(condition(&ready, kind).is_some_and(|is| is.starts_with(wanted)), "{kind} of {ready}");
        }
        space.kubectl(["wait", "--for=condition=Ready", "--timeout=5s", "kmt/orders"]).ok();
        let there = described(&broker, "orders").expect("a topic");
        assert_eq!(there["id"], ready["status"]["topicId"], "{there}");
        let set = config(&broker, "orders");
        let wanted =
            json!({ "cleanup.policy": "compact,delete", "max.message.bytes": "2097152", "retention.ms": "43200000" });
        assert_eq!(set, wanted);

        // The description changes; one key goes back to its default, one belongs to others.
        klamm(&broker, "configs alter topic orders --set compression.type=zstd").ok();
        let mut next = spec(5, 24);
        next["config"] = json!({});
        topic(&space, &broker, "orders", next.clone());
        let grown = until_condition(&space, "kmt", "orders", "Ready", "True/AsDescribed");
        assert_eq!(grown["status"]["partitions"], 5);
        let wanted =
            json!({ "cleanup.policy": "compact,delete", "compression.type": "zstd", "retention.ms": "86400000" });
        assert_eq!(config(&broker, "orders"), wanted);
        space.kubectl(["describe", "kmt", "orders"]).ok().expect("TopicCreated").expect("PartitionsAdded");
        // So does a key that is null. Only server-side apply keeps nulls: kubectl takes them out by itself.
        next["unmanagedConfig"] = json!([]);
        next["config"] = json!({ "compression.type": null });
        next["bootstrapServers"] = broker.bootstrap().into();
        let null = object("Topic", "orders", &next).to_string();
        space.kubectl(["apply", "--server-side", "--force-conflicts", "-f", "-"]).stdin(null).ok();
        until_condition(&space, "kmt", "orders", "Ready", "True/AsDescribed");
        assert_eq!(config(&broker, "orders"), wanted);

        // Fewer partitions are refused at once.
        let mut fewer = spec(4, 24);
        fewer["bootstrapServers"] = broker.bootstrap().into();
        let refused = space.send("apply", &object("Topic", "orders", &fewer));
        assert_contains(&refused.err, "a topic's partitions cannot be fewer than it has");

        // What others change is undone at the next look; an annotation asks for one.
        klamm(&broker, "configs alter topic orders --set retention.ms=1").ok();
        space.kubectl(["annotate", "kmt", "orders", "look=now"]).ok();
        eventually("what others changed is undone", 30, || {
            (config(&broker, "orders")["retention.ms"] == "86400000").then_some(())
        });

        space.kubectl(["delete", "kmt", "orders", "--timeout=30s"]).ok();
        assert_eq!(described(&broker, "orders"), None);
        assert_eq!(operator.stop(), 0);
    });
}

#[test]
fn what_others_change_is_only_reported_where_that_is_asked_for() {
    with_control_plane("topics::what_others_change_is_only_reported_where_that_is_asked_for", || {
        install_types();
        let (space, broker) = (Namespace::new("drift"), Broker::start(&[]));
        let _operator = Operator::start(&[&space]);
        let spec = json!({ "partitions": 2, "drift": "Report", "config": { "retention.ms": "1000" }, "deletionPolicy": "Retain" });
        topic(&space, &broker, "t", spec.clone());
        until_condition(&space, "kmt", "t", "Ready", "True");
        klamm(&broker, "configs alter topic t --set retention.ms=5 --set min.insync.replicas=1").ok();
        klamm(&broker, "topics alter t --partitions 4").ok();
        space.kubectl(["annotate", "kmt", "t", "look=now"]).ok();
        let drifted = until_condition(&space, "kmt", "t", "Synced", "False/Drifted");
        let wanted = json!([
            { "key": "min.insync.replicas", "actual": "1" },
            { "key": "partitions", "desired": "2", "actual": "4" },
            { "key": "retention.ms", "desired": "1000", "actual": "5" },
        ]);
        assert_eq!(drifted["status"]["drift"], wanted);
        assert_eq!(config(&broker, "t")["retention.ms"], "5", "it is left alone");
        // What changes in the description is carried out, whatever others did; the rest of theirs stays.
        let mut next = spec;
        next["partitions"] = 4.into();
        next["config"] = json!({ "retention.ms": "2000" });
        topic(&space, &broker, "t", next);
        eventually("the change is carried out", 30, || (config(&broker, "t")["retention.ms"] == "2000").then_some(()));
        assert_eq!(config(&broker, "t"), json!({ "min.insync.replicas": "1", "retention.ms": "2000" }));

        // A paused one is left alone, and one that retains its topic leaves it behind.
        space.kubectl(["annotate", "kmt", "t", "klamm.dev/paused=true"]).ok();
        until_condition(&space, "kmt", "t", "Ready", "True/Paused");
        space.kubectl(["delete", "kmt", "t", "--timeout=30s"]).ok();
        assert!(described(&broker, "t").is_some());
    });
}

#[test]
fn mistakes_are_said_where_they_are() {
    with_control_plane("topics::mistakes_are_said_where_they_are", || {
        install_types();
        let (space, broker) = (Namespace::new("mistakes"), Broker::start(&[]));
        let _operator = Operator::start(&[&space]);
        topic(&space, &broker, "key", json!({ "config": { "no.such.key": 1 } }));
        topic(&space, &broker, "value", json!({ "config": { "retention.ms": "soon" } }));
        topic(&space, &broker, "list", json!({ "config": { "retention.ms": [1] } }));
        topic(&space, &broker, "factor", json!({ "replicationFactor": 3 }));
        space.apply(&object("Topic", "nobody", &json!({ "bootstrapServers": "127.0.0.1:1" })));
        topic(&space, &broker, "fine", json!({}));
        for (name, wanted, said) in [
            ("key", "False/InvalidConfig", "no.such.key"),
            ("value", "False/InvalidConfig", "soon"),
            ("list", "False/InvalidConfig", "config[retention.ms]"),
            ("factor", "False/InvalidReplicationFactor", "3"),
            ("nobody", "Unknown/ClusterUnreachable", "127.0.0.1:1"),
            ("fine", "True/AsDescribed", ""),
        ] {
            let found = until_condition(&space, "kmt", name, "Ready", wanted);
            let conditions = found["status"]["conditions"].as_array().expect("conditions");
            let ready = conditions.iter().find(|c| c["type"] == "Ready").expect("Ready");
            assert_contains(ready["message"].as_str().unwrap_or_default(), said);
            let stalled = condition(&found, "Stalled").unwrap_or_default();
            assert_eq!(stalled.starts_with("True"), wanted.starts_with("False"), "{name}: {stalled}");
        }
        space.kubectl(["describe", "kmt", "key"]).ok().expect("Warning  InvalidConfig");
        // Mended, it goes on.
        topic(&space, &broker, "value", json!({ "config": { "retention.ms": "1000" } }));
        until_condition(&space, "kmt", "value", "Ready", "True");
        // Nothing holds one whose brokers never answered.
        space.kubectl(["delete", "kmt", "nobody", "--timeout=30s"]).ok();
        // One whose brokers nobody reaches any more can be let go by hand.
        space.apply(&object("Topic", "fine", &json!({ "bootstrapServers": "127.0.0.1:1" })));
        until_condition(&space, "kmt", "fine", "Ready", "Unknown/ClusterUnreachable");
        space.kubectl(["delete", "kmt", "fine", "--wait=false"]).ok();
        until_condition(&space, "kmt", "fine", "Ready", "False/ClusterUnreachable");
        space.kubectl(["annotate", "kmt", "fine", "klamm.dev/force-finalize=true"]).ok();
        space.kubectl(["wait", "--for=delete", "--timeout=30s", "kmt/fine"]).ok();
    });
}

#[test]
fn a_cluster_admits_topics_of_the_namespaces_it_names() {
    with_control_plane("topics::a_cluster_admits_topics_of_the_namespaces_it_names", || {
        install_types();
        let (home, away, broker) = (Namespace::new("home"), Namespace::new("away"), Broker::start(&[]));
        let _operator =
            Operator::start_with(&[&home, &away], &["--leader-election=false", "--controllers=topics,consumer-groups"]);
        let here = json!({ "clusterRef": { "name": "prod" } });
        let there = json!({ "clusterRef": { "name": "prod", "namespace": home.name() } });
        home.apply(&object("Topic", "near", &here));
        away.apply(&object("Topic", "far", &there));
        until_condition(&home, "kmt", "near", "Ready", "False/ClusterNotFound");
        home.apply(&object("Cluster", "prod", &json!({})));
        until_condition(&home, "kmt", "near", "Ready", "False/ClusterNotReady");
        cluster(&home, &broker, &json!({}));
        until_condition(&home, "kmt", "near", "Ready", "True");
        until_condition(&away, "kmt", "far", "Ready", "False/NamespaceNotAllowed");
        assert_eq!(described(&broker, "far"), None);

        let tenants = json!({ "from": "Selector", "selector": { "matchLabels": { "tenant": "yes" } } });
        kubectl(["label", "namespace", away.name(), "tenant=yes"]).ok();
        cluster(&home, &broker, &json!({ "allowedNamespaces": tenants }));
        until_condition(&away, "kmt", "far", "Ready", "True");

        // Two for one topic: the older has it, and does not take it along while the other one stays.
        away.apply(&object("Topic", "near", &there));
        let loser = until_condition(&away, "kmt", "near", "Ready", "False/ResourceConflict");
        assert!(loser["metadata"]["finalizers"].is_null(), "{loser}");
        let id = described(&broker, "near").expect("a topic")["id"].clone();
        home.kubectl(["delete", "kmt", "near", "--timeout=30s"]).ok();
        until_condition(&away, "kmt", "near", "Ready", "True");
        assert_eq!(described(&broker, "near").expect("it is still there")["id"], id);
        home.apply(&object("Topic", "near", &here));
        until_condition(&home, "kmt", "near", "Ready", "False/ResourceConflict");
        home.kubectl(["delete", "kmt", "near", "--timeout=30s"]).ok();
        assert_eq!(described(&broker, "near").expect("not the loser's to delete")["id"], id);

        // Without its Cluster a Topic has nothing to delete, and does not keep its namespace.
        kubectl(["delete", "namespace", home.name(), "--timeout=60s"]).ok();
        until_condition(&away, "kmt", "far", "Ready", "False/ClusterNotFound");
        kubectl(["delete", "namespace", away.name(), "--timeout=60s"]).ok();
        assert!(described(&broker, "far").is_some(), "nobody's to delete");
    });
}

#[test]
fn two_thousand_topics() {
    const COUNT: usize = 2000;
    const WRITES: [&str; 5] = ["create", "patch", "update", "delete", "deletecollection"];
    const READS: [&str; 2] = ["get", "list"];
    with_control_plane("topics::two_thousand_topics", || {
        install_types();
        let (space, broker) = (Namespace::new("many"), Broker::start(&[]));
        let spec = json!({ "bootstrapServers": broker.bootstrap(), "config": { "retention.ms": 1000 } });
        let items: Vec<Value> = (0..COUNT).map(|n| object("Topic", &format!("t-{n}"), &spec)).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        space.kubectl(["create", "-f", "-"]).stdin(list.to_string()).limit(300).ok();
        let counts =
            || (requests("topics", space.name(), &WRITES) as f64, requests("topics", space.name(), &READS) as f64);
        let (writes, reads) = counts();
        let since = Instant::now();
        let mut operator = Operator::start(&[&space]);
        let ready = |wanted: f64| {
            eventually("all are reconciled", 240, || {
                let done = operator.metric("klamm_operator_reconcile_total{controller=\"topic\",result=\"ok\"}");
                std::thread::sleep(Duration::from_millis(100));
                (done >= wanted).then_some(())
            });
        };
        ready(COUNT as f64);
        let took = since.elapsed();
        let all =
            space.kubectl(["get", "kmt", "-o", "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}"]);
        let states = all.limit(60).ok().out;
        assert_eq!(states.split_whitespace().filter(|state| *state == "True").count(), COUNT, "{states}");
        let (written, read) = counts();
        let each = (written - writes) / COUNT as f64;
        println!(
            "figures {COUNT} topics: Ready after {:.1} s, {each:.2} writes and {:.2} reads of the API each, operator {} MiB",
            took.as_secs_f64(),
            (read - reads) / COUNT as f64,
            operator.rss_kib() / 1024,
        );
        assert!((2.0..2.1).contains(&each), "the finalizer and the status, once each");
        assert!(operator.rss_kib() < 40 * 1024, "{} KiB", operator.rss_kib());

        // Converged: every topic is looked at again, nothing is written.
        let before = operator.metric("klamm_operator_reconcile_total{controller=\"topic\",result=\"ok\"}");
        let writes = counts().0;
        ready(before + COUNT as f64);
        let written = counts().0 - writes;
        assert!(written == 0.0, "{written} writes once converged");
        // A new operator finds all as it is.
        operator.kill();
        let operator = Operator::start(&[&space]);
        eventually("a new operator has looked at all", 60, || {
            let done = operator.metric("klamm_operator_reconcile_total{controller=\"topic\",result=\"ok\"}");
            std::thread::sleep(Duration::from_millis(100));
            (done >= COUNT as f64).then_some(())
        });
        assert!(counts().0 == writes, "a restart writes nothing");
        println!("figures {COUNT} topics: operator {} MiB after a restart", operator.rss_kib() / 1024);

        let since = Instant::now();
        kubectl(["delete", "namespace", space.name(), "--timeout=240s"]).limit(300).ok();
        println!("figures {COUNT} topics: gone after {:.1} s", since.elapsed().as_secs_f64());
        assert_eq!(described(&broker, "t-7"), None);
    });
}

#[test]
fn the_operator_may_be_killed_at_any_moment() {
    const COUNT: usize = 60;
    with_control_plane("topics::the_operator_may_be_killed_at_any_moment", || {
        install_types();
        let (space, broker) = (Namespace::new("killed"), Broker::start(&[]));
        let mut random = Random::new(u64::from(std::process::id()));
        let mut kills = 0;
        let mut operator = Operator::start(&[&space]);
        let mut disturb = |rounds: usize, operator: &mut Operator| {
            for _ in 0..rounds {
                std::thread::sleep(Duration::from_millis(random.below(600)));
                operator.kill();
                kills += 1;
                *operator = Operator::start(&[&space]);
            }
        };
        let spec =
            json!({ "bootstrapServers": broker.bootstrap(), "partitions": 2, "config": { "retention.ms": 1000 } });
        let items: Vec<Value> = (0..COUNT).map(|n| object("Topic", &format!("t-{n}"), &spec)).collect();
        space.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }));
        disturb(4, &mut operator);
        space.kubectl(["wait", "--for=condition=Ready", "--timeout=90s", "kmt", "--all"]).limit(100).ok();
        let ids = |n: usize| described(&broker, &format!("t-{n}")).map(|found| found["id"].clone());
        let before: Vec<_> = (0..COUNT).map(ids).collect();
        assert!(before.iter().all(Option::is_some), "{before:?}");

        let mut next = spec;
        next["partitions"] = 3.into();
        next["config"] = json!({ "retention.ms": 2000 });
        let items: Vec<Value> = (0..COUNT).map(|n| object("Topic", &format!("t-{n}"), &next)).collect();
        space.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }));
        disturb(4, &mut operator);
        for n in 0..COUNT {
            let found = until_condition(&space, "kmt", &format!("t-{n}"), "Ready", "True");
            assert_eq!(found["status"]["partitions"], 3);
            assert_eq!(config(&broker, &format!("t-{n}")), json!({ "retention.ms": "2000" }));
        }
        assert_eq!((0..COUNT).map(ids).collect::<Vec<_>>(), before, "none was made anew");

        space.kubectl(["delete", "kmt", "--all", "--wait=false"]).ok();
        disturb(4, &mut operator);
        space.kubectl(["wait", "--for=delete", "--timeout=90s", "kmt", "--all"]).limit(100).ok();
        assert!((0..COUNT).all(|n| ids(n).is_none()));
        println!("figures operator killed {kills} times: {COUNT} topics created, changed and deleted");
    });
}

#[test]
fn of_two_operators_one_acts() {
    with_control_plane("topics::of_two_operators_one_acts", || {
        install_types();
        let (space, broker) = (Namespace::new("lease"), Broker::start(&[]));
        let start = |who: &str| {
            let flags = [format!("--namespace={}", space.name()), format!("--identity={who}")];
            Operator::start_with(&[&space], &flags.each_ref().map(String::as_str))
        };
        let leads = |operator: &Operator| operator.metric("klamm_operator_leader") == 1.0;
        let mut first = start("first");
        eventually("one leads", 30, || leads(&first).then_some(()));
        let mut second = start("second");
        topic(&space, &broker, "a", json!({}));
        until_condition(&space, "kmt", "a", "Ready", "True");
        assert!(leads(&first) && !leads(&second));

        // Killed, it leaves the lease to run out; ended, it gives the lease back.
        let since = Instant::now();
        first.kill();
        eventually("the other one leads", 60, || leads(&second).then_some(()));
        println!("figures operator killed: another leads after {:.1} s", since.elapsed().as_secs_f64());
        topic(&space, &broker, "b", json!({}));
        until_condition(&space, "kmt", "b", "Ready", "True");
        let third = start("third");
        let since = Instant::now();
        assert_eq!(second.stop(), 0);
        eventually("the third leads", 60, || leads(&third).then_some(()));
        println!("figures operator ended: another leads after {:.1} s", since.elapsed().as_secs_f64());
        topic(&space, &broker, "c", json!({}));
        until_condition(&space, "kmt", "c", "Ready", "True");

        // Who loses the lease ends at once: it may not write any more.
        let lease = space.kubectl(["get", "lease", "-o", "name"]).ok().text();
        let other = json!({ "spec": { "holderIdentity": "somebody", "renewTime": "2099-01-01T00:00:00.000000Z" } });
        space.kubectl(["patch", lease.trim(), "--type=merge", "--patch", &other.to_string()]).ok();
        let mut third = third;
        let code = eventually("it has ended", 60, || third.ended());
        assert_ne!(code, 0);
    });
}

#[test]
fn topics_of_an_apache_cluster() {
    with_control_plane("topics::topics_of_an_apache_cluster", || {
        install_types();
        let (space, broker) = (Namespace::new("apache"), Broker::start_as(Peer::Apache, &[], &[]));
        let _operator = Operator::start(&[&space]);
        topic(&space, &broker, "orders", json!({ "partitions": 3, "retention": { "time": "12h" } }));
        until_condition(&space, "kmt", "orders", "Ready", "True");
        topic(&space, &broker, "orders", json!({ "partitions": 4, "retention": { "time": "13h" } }));
        let grown = until_condition(&space, "kmt", "orders", "Ready", "True");
        assert_eq!(grown["status"]["partitions"], 4);
        assert_eq!(config(&broker, "orders"), json!({ "retention.ms": "46800000" }));
        space.kubectl(["delete", "kmt", "orders", "--timeout=30s"]).ok();
        assert_eq!(described(&broker, "orders"), None);
    });
}
