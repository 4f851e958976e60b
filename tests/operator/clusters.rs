//! Clusters on real nodes: from a description to records, and to nothing again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use klamm_client::Client;
use klamm_tests::workload::options;
use klamm_tests::{Tool, assert_contains};
use serde_json::{Value, json};

use crate::converged::stays_as_it_is;
use crate::kubernetes::image::{self, Image};
use crate::kubernetes::kubectl::install_types;
use crate::kubernetes::{Namespace, with_control_plane, with_nodes};
use crate::pages::{commands, shell};
use crate::process::{Operator, until_condition};
use crate::types::object;

/// The image of the brokers.
pub const BROKER: &str = "klamm.test/broker:1";

/// A namespace with the strictest pod security, an operator for it, and the brokers' image on every node.
pub struct World {
    pub space: Namespace,
    pub operator: Operator,
}

impl World {
    pub fn new(what: &str) -> World {
        image::load(&broker(BROKER));
        install_types();
        let space = Namespace::new(what);
        let label = ["label", "namespace", space.name(), "pod-security.kubernetes.io/enforce=restricted"];
        crate::kubernetes::kubectl::kubectl(label).ok();
        let operator = Operator::start(&[&space]);
        World { space, operator }
    }

    /// Applies a Cluster and waits until it is ready.
    pub fn create(&self, name: &str, spec: Value) {
        let since = Instant::now();
        self.space.apply(&cluster(name, spec));
        self.wait(name, "condition=Ready");
        println!("figures cluster {name}: ready {:.1} s after apply", since.elapsed().as_secs_f64());
    }

    #[track_caller]
    fn wait(&self, name: &str, what: &str) {
        let wait = ["wait", &format!("--for={what}"), &format!("cluster/{name}"), "--timeout=120s"];
        let output = self.space.kubectl(wait).limit(130).run();
        if output.code != 0 {
            let shown = self.space.kubectl(["get", "clusters,sts,svc,cm,pdb,networkpolicy,sa", "--output=yaml"]).run();
            let pods = self.space.kubectl(["describe", "pods"]).run();
            let logs = self.space.kubectl(["logs", "-l", "app.kubernetes.io/name=klamm", "--tail=30"]).run();
            let events = self.space.kubectl(["get", "events"]).run();
            panic!("{output}\n{shown}\n{pods}\n{logs}\n{events}\noperator: {}", self.operator.log());
        }
    }

    pub fn klamm(&self, bootstrap: &str, args: &[&str]) -> Tool {
        Tool::new(image::static_binary("klamm")).args(["--bootstrap", bootstrap]).args(args)
    }

    pub fn bootstrap(&self, name: &str, listener: &str) -> String {
        let cluster = self.space.get("cluster", name).expect("a cluster");
        let all = cluster["status"]["listeners"].as_array().expect("listeners").clone();
        let found = all.iter().find(|one| one["name"] == listener).expect("the listener");
        found["bootstrapServers"].as_str().expect("servers").to_owned()
    }

    /// Nodes take a moment to know a new port.
    #[track_caller]
    pub fn until_open(&self, bootstrap: &str) {
        klamm_tests::eventually("the port is open", 60, || {
            (self.klamm(bootstrap, &["topics", "list"]).run().code == 0).then_some(())
        });
    }

    /// Writes records and reads them again.
    fn use_it(&self, bootstrap: &str, topic: &str) {
        self.until_open(bootstrap);
        // It may be there, from a Topic.
        self.klamm(bootstrap, &["topics", "create", topic, "--partitions", "3"]).run();
        let lines: String = (0..100).map(|n| format!("line-{n}\n")).collect();
        self.klamm(bootstrap, &["produce", topic]).stdin(&*lines).ok();
        let read = self.klamm(bootstrap, &["consume", topic, "--from-beginning", "--exit-at-end"]).ok();
        assert_eq!(read.out.lines().count(), 100);
    }
}

/// An image of brokers.
pub fn broker(name: &str) -> Image {
    Image::new(name, &["/klamm"]).file(image::static_binary("klamm"), "/klamm").user("65532:65532")
}

fn cluster(name: &str, mut spec: Value) -> Value {
    // Of a version the operator knows the image.
    if spec["version"].is_null() {
        spec["image"] = BROKER.into();
    }
    spec["podTemplate"]["spec"]["containers"] = json!([{ "name": "broker", "imagePullPolicy": "Never" }]);
    json!({ "apiVersion": "klamm.dev/v1alpha1", "kind": "Cluster", "metadata": { "name": name }, "spec": spec })
}

impl World {
    /// As a version of the operator that knows this image for brokers.
    fn restart_operator(&mut self, image: &str) {
        let (image, _) = image.rsplit_once(':').expect("a tag");
        self.operator.kill();
        let flags = ["--leader-election=false", &format!("--broker-image={image}")];
        self.operator = Operator::start_with(&[&self.space], &flags);
    }

    /// A version of the operator that makes other pods of the same description restarts nobody until it is told to.
    fn upgrade_operator(&mut self) {
        image::load(&broker("klamm.test/next:1"));
        let pods = self.uids("one");
        self.restart_operator("klamm.test/next:1");
        let shown = self.until("one", "UpToDate", "False/RestartRequired");
        let operation = &shown["status"]["operation"];
        assert_eq!((&operation["reason"], &operation["step"]), (&json!("OperatorUpgraded"), &json!("Pending")));
        let set = self.space.get("statefulset", "one").expect("brokers");
        assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["image"], "klamm.test/next:1", "{set:#}");
        self.until("one", "Ready", "True/Serving");
        assert_eq!(self.uids("one"), pods, "nobody is restarted for it");
        self.edit("one", &json!({ "rolling": { "onOperatorUpgrade": "Roll" } }));
        self.until("one", "UpToDate", "True/AsDescribed");
        self.until("one", "Ready", "True/Serving");
        let image = "jsonpath={.items[*].spec.containers[0].image}";
        let running = self.space.kubectl(["get", "pods", "--output", image]).ok().out;
        assert_eq!(running, "klamm.test/next:1");
    }
}

/// What everything of a Cluster is called.
const PARTS: &str = "statefulset,service,configmap,secret,poddisruptionbudget,networkpolicy,serviceaccount,pod,pvc";

impl World {
    /// Names and versions of all objects: what changes when anything is written to what the Cluster is made of.
    fn versions(&self) -> String {
        let path = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
        let kinds = "statefulset,service,configmap,secret,poddisruptionbudget,networkpolicy,serviceaccount";
        self.space.kubectl(["get", kinds, "--output", path]).ok().out
    }

    /// Changes a Cluster's description.
    fn edit(&self, name: &str, spec: &Value) {
        let patch = json!({ "spec": spec }).to_string();
        self.space.kubectl(["patch", "cluster", name, "--type=merge", "--patch", &patch]).ok();
    }

    fn until(&self, name: &str, kind: &str, wanted: &str) -> Value {
        until_condition(&self.space, "cluster", name, kind, wanted)
    }

    /// The pods of a cluster: which they are, by name.
    fn uids(&self, name: &str) -> BTreeMap<String, String> {
        let path = "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{\"\\n\"}{end}";
        let selector = format!("app.kubernetes.io/instance={name}");
        let all = self.space.kubectl(["get", "pods", "--selector", &selector, "--output", path]).ok().out;
        let pairs = all.lines().filter_map(|line| line.split_once(' '));
        pairs.map(|(name, uid)| (name.to_owned(), uid.to_owned())).collect()
    }

    /// How many of a cluster's brokers are not ready.
    fn away(&self, name: &str) -> i64 {
        let set = self.space.get("statefulset", name).expect("brokers");
        set["spec"]["replicas"].as_i64().unwrap_or(0) - set["status"]["readyReplicas"].as_i64().unwrap_or(0)
    }
}

#[test]
fn a_single_broker_serves_and_leaves_nothing() {
    with_nodes("clusters::a_single_broker_serves_and_leaves_nothing", || {
        let mut world = World::new("one");
        world.restart_operator(BROKER);
        let spec = json!({
            "replicas": 1, "version": "1", "storage": { "size": "1Gi", "whenDeleted": "Delete" },
            "resources": { "requests": { "cpu": "0.05", "memory": "64Mi" }, "limits": { "memory": "128Mi" } },
            // No listener that the operator could use but the brokers' own.
            "listeners": [{ "name": "plain", "port": 9092, "type": "nodeport" }],
        });
        let named = json!({ "clusterRef": { "name": "one" }, "partitions": 3 });
        world.space.apply(&object("Topic", "orders", &named));
        world.space.apply(&object(
            "ConsumerGroup",
            "billing",
            &json!({ "clusterRef": { "name": "one" }, "topics": ["orders"] }),
        ));
        world.create("one", spec);
        until_condition(&world.space, "topic", "orders", "Ready", "True/AsDescribed");
        until_condition(&world.space, "consumergroup", "billing", "Ready", "True/Watched");
        world.use_it(&world.bootstrap("one", "plain"), "orders");
        let columns = world.space.kubectl(["get", "cluster", "one"]).ok();
        columns.expect("READY").expect("True");
        world.upgrade_operator();

        world.space.kubectl(["delete", "cluster", "one", "--wait", "--timeout=60s"]).limit(70).ok();
        klamm_tests::eventually("nothing is left", 90, || {
            let left =
                world.space.kubectl(["get", PARTS, "--selector=app.kubernetes.io/instance=one", "--output=name"]).ok();
            if left.out.trim().is_empty() { Some(()) } else { pause() }
        });
        // With its cluster the topic is gone: its resource can be deleted.
        until_condition(&world.space, "topic", "orders", "Ready", "False/ClusterNotFound");
        world.space.kubectl(["delete", "topic/orders", "consumergroup/billing", "--timeout=30s"]).limit(40).ok();
    });
}

/// How many replicas each partition of a topic has, all of them in sync.
fn held(bootstrap: &str, topic: &str) -> Vec<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let topic = runtime.block_on(async {
        let client = Client::connect(bootstrap, options()).await?;
        client.topic(topic).await
    });
    let partitions = topic.expect("a topic").partitions;
    assert!(partitions.iter().all(|partition| partition.isr.len() == partition.replicas.len()), "{partitions:?}");
    partitions.iter().map(|partition| partition.replicas.len()).collect()
}

#[test]
fn three_brokers_follow_their_description() {
    with_nodes("clusters::three_brokers_follow_their_description", || {
        let mut world = World::new("three");
        // Names that brokers are reached by inside, for a listener with certificates of the user's own.
        let host = format!("*.three-brokers.{0}.svc.cluster.local", world.space.name());
        let start = format!("three-bootstrap.{}.svc.cluster.local", world.space.name());
        let authority = certificate(&world.space, "clients", &[host, start]);
        let spec = json!({
            "replicas": 3, "storage": { "size": "1Gi" }, "rack": {},
            "config": {
                "default.replication.factor": 3, "min.insync.replicas": 2, "log.retention.ms": 86_400_000,
                "offsets.topic.num.partitions": 5,
            },
            "listeners": [
                { "name": "plain", "port": 9092 },
                { "name": "outside", "port": 9094, "type": "nodeport" },
                { "name": "tls", "port": 9095, "tls": { "secretName": "clients" } },
            ],
        });
        world.create("three", spec.clone());

        // Each in a rack of its own, each in sync, and reached by every way that there is.
        let status = world.space.get("cluster", "three").expect("a cluster")["status"].clone();
        let racks: std::collections::BTreeSet<_> =
            status["brokers"].as_array().expect("brokers").iter().map(|b| b["rack"].to_string()).collect();
        assert_eq!(racks.len(), 3, "{status:#}");
        assert_eq!((&status["readyReplicas"], &status["updatedReplicas"]), (&json!(3), &json!(3)));
        world.use_it(&world.bootstrap("three", "plain"), "inside");
        world.use_it(&world.bootstrap("three", "outside"), "outside");
        let file = klamm_tests::paths::scratch_dir("authority").join("client.properties");
        let trust = authority.replace('\n', "\\n");
        let text = format!("security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.certificates={trust}\n");
        std::fs::write(&file, text).expect("written");
        let topics = ["--command-config", &file.display().to_string(), "topics", "list"];
        world.klamm(&world.bootstrap("three", "tls"), &topics).ok().expect("inside");
        let plain = world.bootstrap("three", "plain");
        let configs = ["configs", "describe", "brokers"];
        world.klamm(&plain, &configs).ok().expect("log.retention.ms").expect("min.insync.replicas");

        // Nothing is written when nothing happens, however often the operator looks.
        let before = world.versions();
        let (space, operator) = (&world.space, &mut world.operator);
        stays_as_it_is(space, operator, || Operator::start(&[space]), &[("kmc", "cluster", &["three"])]);
        assert_eq!(world.versions(), before);

        // A key that changes while brokers run does so, and restarts nobody.
        let pods = world.uids("three");
        world.edit("three", &json!({ "config": { "log.retention.ms": null, "log.segment.bytes": 2_000_000 } }));
        world.until("three", "ConfigApplied", "True/Applied");
        let told = klamm_tests::eventually("the brokers have the key", 30, || {
            let told = world.klamm(&plain, &configs).ok().out;
            let done = told.contains("log.segment.bytes") && !told.contains("log.retention.ms");
            if done { Some(told) } else { pause() }
        });
        assert_contains(&told, "2000000");
        world.until("three", "UpToDate", "True/AsDescribed");

        // What needs a restart waits for its window.
        let closed = json!([{ "cron": "0 0 29 2 *", "duration": "1m" }]);
        world.edit("three", &json!({ "config": { "num.partitions": 7 }, "rolling": { "windows": closed } }));
        let shown = world.until("three", "UpToDate", "False/RestartRequired");
        assert_eq!(shown["status"]["operation"]["type"], "RollingRestart", "{shown:#}");
        assert_contains(&shown["status"]["operation"]["message"].to_string(), "02-29T00:00:00Z");
        let plan = shell(&format!("klamm-operator plan --namespace {} three", world.space.name())).ok();
        plan.expect("when the next window opens").expect("TemplateChanged");
        world.edit("three", &json!({ "config": { "num.partitions": null } }));
        world.until("three", "UpToDate", "True/AsDescribed");
        // So does a listener that is taken away: as long as brokers have it clients come by it.
        let (outside, all) = (world.bootstrap("three", "outside"), spec["listeners"].clone());
        world.edit("three", &json!({ "listeners": [all[0], all[2]] }));
        world.until("three", "UpToDate", "False/RestartRequired");
        world.use_it(&outside, "by-the-last");
        world.edit("three", &json!({ "listeners": all }));
        world.until("three", "UpToDate", "True/AsDescribed");

        // What makes no sense stalls, and the brokers go on.
        world.edit("three", &json!({ "config": { "node.id": 7 } }));
        world.until("three", "Stalled", "True/InvalidConfig");
        world.edit("three", &json!({ "config": { "node.id": null } }));
        world.until("three", "Ready", "True/Serving");
        assert_eq!(world.uids("three"), pods, "no pod was replaced");

        // One broker is restarted when its pod is asked for, all are when the Cluster is: in turn, once in the window.
        world.space.kubectl(["annotate", "pod", "three-2", "klamm.dev/restart=now"]).ok();
        world.edit("three", &json!({ "rolling": null }));
        let others = |uids: &BTreeMap<String, String>| -> Vec<String> {
            uids.iter().filter(|(name, _)| *name != "three-2").map(|(_, uid)| uid.clone()).collect()
        };
        klamm_tests::eventually("broker 2 has another pod", 90, || {
            let now = world.uids("three");
            if now.get("three-2").is_some_and(|uid| *uid != pods["three-2"]) { Some(()) } else { pause() }
        });
        world.until("three", "BrokersReady", "True");
        world.until("three", "UpToDate", "True/AsDescribed");
        assert_eq!(others(&world.uids("three")), others(&pods));
        // All of them as the page says.
        let pods = world.uids("three");
        let here = format!("--namespace {}", world.space.name());
        let lines = commands("docs/clusters.md", "Restarts");
        let run = |line: &String| shell(&line.replace("--namespace streaming", &here).replace("prod", "three")).ok();
        let (last, first) = lines.split_last().expect("commands");
        let said: Vec<String> = first.iter().map(|line| run(line).out).collect();
        assert_contains(&said[0], "no broker would be restarted");
        klamm_tests::eventually("all have other pods", 240, || {
            let now = world.uids("three");
            let away = world.away("three");
            assert!(away <= 1, "{away} brokers are away at once");
            if now.len() == 3 && now.iter().all(|(name, uid)| pods.get(name) != Some(uid)) { Some(()) } else { pause() }
        });
        run(last);
        let events = world.space.kubectl(["get", "events", "--output", "jsonpath={.items[*].reason}"]).ok();
        assert_contains(&events.out, "RestartAsked");

        // Copies of a topic come, by reassignment.
        let copies =
            |count: i32| json!({ "clusterRef": { "name": "three" }, "partitions": 3, "replicationFactor": count });
        for count in [1, 3, 2] {
            world.space.apply(&object("Topic", "copies", &copies(count)));
            until_condition(&world.space, "topic", "copies", "Ready", "True/AsDescribed");
            assert_eq!(held(&plain, "copies"), [usize::try_from(count).expect("a number"); 3]);
        }

        // Volumes grow, those of brokers that are to come as well, and no pod is replaced.
        let pods = world.uids("three");
        world.edit("three", &json!({ "storage": { "size": "2Gi" } }));
        klamm_tests::eventually("the claims are larger", 30, || {
            let path = "jsonpath={.items[*].spec.resources.requests.storage}";
            let sizes = world.space.kubectl(["get", "pvc", "--output", path]).ok().out;
            if sizes == "2Gi 2Gi 2Gi" { Some(()) } else { pause() }
        });
        klamm_tests::eventually("the next claims are as large", 60, || {
            let path = "jsonpath={.spec.volumeClaimTemplates[0].spec.resources.requests.storage}";
            let size = world.space.kubectl(["get", "statefulset", "three", "--output", path]).run().out;
            if size == "2Gi" { Some(()) } else { pause() }
        });
        world.until("three", "StorageReady", "True/AsDescribed");
        world.until("three", "Ready", "True/Serving");
        assert_eq!(world.uids("three"), pods, "the StatefulSet was made anew around them");

        // A pod that is lost is missed, and comes back with what it had.
        world.space.kubectl(["delete", "pod", "three-1", "--wait=false"]).ok();
        world.until("three", "BrokersReady", "False");
        world.until("three", "BrokersReady", "True");
        world.use_it(&world.bootstrap("three", "outside"), "afterwards");

        // Deleted, the claims stay; the same description finds the records again.
        let spec = world.space.get("cluster", "three").expect("a cluster")["spec"].clone();
        let id = world.space.get("cluster", "three").expect("a cluster")["status"]["clusterId"].clone();
        world.space.kubectl(["delete", "cluster", "three", "--wait", "--timeout=60s"]).limit(70).ok();
        klamm_tests::eventually("only the claims are left", 90, || {
            let left = world
                .space
                .kubectl(["get", PARTS, "--selector=app.kubernetes.io/instance=three", "--output=name"])
                .ok();
            if left.out.lines().count() == 3 && left.out.contains("persistentvolumeclaim") { Some(()) } else { pause() }
        });
        world.create("three", spec);
        let again = world.space.get("cluster", "three").expect("a cluster");
        assert_eq!(again["status"]["clusterId"], id, "its disks say who it is");
        let read = ["consume", "inside", "--from-beginning", "--exit-at-end"];
        let read = world.klamm(&world.bootstrap("three", "plain"), &read).ok();
        assert_eq!(read.out.lines().count(), 100);
        println!("figures operator: {} KiB resident", world.operator.rss_kib());
    });
}

#[test]
fn load_balancers_are_waited_for() {
    with_nodes("clusters::load_balancers_are_waited_for", || {
        let world = World::new("balanced");
        let listeners = json!([{ "name": "lb", "port": 9094, "type": "loadbalancer" }]);
        let storage = json!({ "type": "Ephemeral", "size": "1Gi" });
        let spec = json!({ "replicas": 1, "storage": storage, "listeners": listeners });
        world.space.apply(&cluster("balanced", spec));
        world.until("balanced", "Reconciling", "True/WaitingForAddress");
        assert!(world.space.get("statefulset", "balanced").is_none(), "a broker that does not know its address");
        // Who gives addresses elsewhere is a program of the cloud.
        for (service, host) in [("balanced-lb-0", "broker.example"), ("balanced-bootstrap-lb", "start.example")] {
            let status = json!({ "loadBalancer": { "ingress": [{ "hostname": host }] } });
            world.space.set_status("service", service, &status).expect_ok();
        }
        world.wait("balanced", "condition=Ready");
        assert_eq!(world.bootstrap("balanced", "lb"), "start.example:9094");
        let own = format!("balanced-brokers.{}.svc.cluster.local:9644", world.space.name());
        let status = Tool::new("curl").args(["-sf", &format!("http://{own}/v1/status")]).ok().out;
        assert_contains(&status, "broker.example:9094");
    });
}

#[test]
fn an_authority_is_replaced_without_a_restart() {
    with_nodes("clusters::an_authority_is_replaced_without_a_restart", || {
        let world = World::new("authority");
        let spec = json!({
            "replicas": 3, "storage": { "type": "Ephemeral", "size": "1Gi" },
            "config": { "default.replication.factor": 3, "min.insync.replicas": 2 },
        });
        world.create("authority", spec);
        world.use_it(&world.bootstrap("authority", "plain"), "before");
        let pods = world.uids("authority");
        let logs = |wanted: usize| {
            let selector = "--selector=app.kubernetes.io/instance=authority";
            let what = format!("all brokers have taken what is new {wanted} times");
            klamm_tests::eventually(&what, 180, || {
                let logs = world.space.kubectl(["logs", selector, "--tail=-1"]).ok().out;
                let taken = logs.lines().filter(|line| line.contains("certificates changed")).count();
                if taken >= 3 * wanted { Some(()) } else { pause() }
            });
        };
        let step = |field: &str| {
            let patch = json!({ "stringData": { field: "2020-01-01T00:00:00Z" } }).to_string();
            world.space.kubectl(["patch", "secret", "authority-brokers-ca", "--patch", &patch]).ok();
            // The next look at the Cluster comes within a minute; a change of it is looked at right away.
            world.space.kubectl(["annotate", "cluster", "authority", "--overwrite", &format!("step={field}")]).ok();
        };
        // The worst case: it is lost. A new one is trusted first, then signs, then the old one is trusted no more; the
        // times between are cut short here.
        world.space.kubectl(["delete", "secret", "authority-brokers-ca"]).ok();
        world.space.kubectl(["annotate", "cluster", "authority", "step=lost"]).ok();
        logs(1);
        step("next-signs-at");
        logs(2);
        step("old-trusted-until");
        logs(3);
        // Connections from now on rest on the new one alone.
        assert_eq!(world.uids("authority"), pods, "no pod was replaced");
        world.space.kubectl(["delete", "pod", "authority-1", "--wait"]).limit(130).ok();
        world.until("authority", "BrokersReady", "True/AllReady");
        world.use_it(&world.bootstrap("authority", "plain"), "after");
        assert!(!world.operator.log().contains("PRIVATE KEY"));
    });
}

#[test]
fn an_image_that_is_not_there_stalls() {
    with_nodes("clusters::an_image_that_is_not_there_stalls", || {
        let world = World::new("stalls");
        let spec =
            json!({ "replicas": 1, "storage": { "type": "Ephemeral", "size": "1Gi" }, "config": { "no.such.key": 1 } });
        world.space.apply(&cluster("odd", spec));
        let shown = world.until("odd", "Stalled", "True/BrokersFail");
        let text = shown["status"]["conditions"].to_string();
        assert!(text.contains("no.such.key") && text.contains("unknown key"), "{text}");
        let mut absent = cluster("absent", json!({ "replicas": 1, "storage": { "type": "Ephemeral", "size": "1Gi" } }));
        absent["spec"]["image"] = "klamm.test/none:1".into();
        world.space.apply(&absent);
        let shown = world.until("absent", "Stalled", "True/BrokersFail");
        assert_contains(&shown["status"]["conditions"].to_string(), "ErrImageNeverPull");
    });
}

#[test]
fn why_pods_cannot_be_created_is_told() {
    with_control_plane("clusters::why_pods_cannot_be_created_is_told", || {
        install_types();
        let space = Namespace::new("quota");
        space.kubectl(["create", "quota", "none", "--hard=pods=0"]).ok();
        let operator = Operator::start(&[&space]);
        space.apply(&cluster("prod", json!({ "replicas": 1 })));
        let told = klamm_tests::wait_for(Duration::from_secs(90), || {
            let shown = space.get("cluster", "prod")?["status"]["conditions"].to_string();
            shown.contains("prod-0 (FailedCreate: pods \\\"prod-0\\\" is forbidden: exceeded quota").then_some(())
        });
        let shown = || space.kubectl(["get", "cluster,events", "--output=yaml"]).run();
        assert!(told.is_some(), "{}\noperator: {}", shown(), operator.log());
    });
}

fn pause<T>() -> Option<T> {
    std::thread::sleep(Duration::from_millis(200));
    None
}

/// Puts a Secret of type `kubernetes.io/tls` there, and gives the authority that signed it.
fn certificate(space: &Namespace, name: &str, hosts: &[String]) -> String {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(hosts.to_vec()).expect("parameters");
    let signed = params.signed_by(&key, &authority).expect("signed");
    space.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": signed.pem(), "tls.key": key.serialize_pem(), "ca.crt": authority.pem() },
    }));
    authority.pem()
}

#[test]
fn the_examples_of_the_page_are_taken() {
    with_control_plane("clusters::the_examples_of_the_page_are_taken", || {
        install_types();
        let space = Namespace::new("examples");
        let page =
            std::fs::read_to_string(klamm_tests::paths::tests_dir().join("../docs/clusters.md")).expect("the page");
        let mut found = 0;
        let examples = page.split("```yaml\n").skip(1).map(|example| example.split("```").next().unwrap_or_default());
        // What an adapter is configured with is for no API server; `alerts` checks it.
        for text in examples.filter(|text| !text.starts_with("rules:")) {
            let apply = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
            space.kubectl(apply).stdin(text).ok();
            found += 1;
        }
        assert!(found >= 3, "{found} examples");
    });
}
