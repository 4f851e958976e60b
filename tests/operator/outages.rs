//! An API server that refuses, breaks off, or keeps silent: in the end everything is as described, nothing was destroyed,
//! and nobody asked in a loop. And one that is out of reach for longer than the Lease: of two operators one acts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use klamm_tests::{Broker, assert_contains, eventually, wait_for};
use serde_json::{Value, json};

use crate::faulty::{Asked, Fault, Plan, Proxy, busiest_second};
use crate::kubernetes::kubectl::install_types;
use crate::kubernetes::{Namespace, with_control_plane};
use crate::process::{Operator, condition, until_condition};
use crate::topics::{config, described, topic};
use crate::types::object;

/// How long each fault lasts.
const LASTS: Duration = Duration::from_secs(5);
/// Requests a second, over a fault, that are no hot loop: there are a dozen objects.
const REQUESTS: usize = 40;
/// A watch that died without a word is noticed within this time: its own limit, and some for a slow machine.
const NOTICED: Duration = Duration::from_secs(90);

/// What there is all the time.
const STAYING: usize = 4;
/// An image that no node has, and what a Cluster says of itself whose brokers are to have it: without nodes, and with some.
const NOWHERE: &str = "klamm.test/nowhere:1";
const PODLESS: [&str; 2] = ["True/Creating", "False/Stalled"];

struct Scene {
    space: Namespace,
    broker: Broker,
    proxy: Proxy,
    operator: Operator,
}

impl Scene {
    fn start() -> Scene {
        install_types();
        let (space, broker, proxy) = (Namespace::new("outages"), Broker::start(&[]), Proxy::start());
        // It begins with nobody there, which is no reason to end.
        proxy.refuse();
        let config = proxy.kubeconfig();
        let mut operator = Operator::launch(Some(&config), &[&space], &["--leader-election=false"]);
        eventually("it says why it waits", 20, || {
            assert_eq!(operator.ended(), None, "{}", operator.log());
            operator.log().contains("a resource type cannot be looked at").then_some(())
        });
        proxy.accept();
        operator.until_ready();
        Scene { space, broker, proxy, operator }
    }

    /// Describes everything as of a round: what stays is changed, one Topic comes, and the last round's goes.
    fn describe(&self, round: usize) {
        let spec = json!({ "partitions": 2 + round, "config": { "retention.ms": 1000 + round } });
        for n in 0..STAYING {
            topic(&self.space, &self.broker, &format!("stays-{n}"), spec.clone());
        }
        topic(&self.space, &self.broker, &format!("comes-{round}"), spec);
        let mut storage = retention(round);
        storage["size"] = "1Gi".into();
        let cluster = json!({ "replicas": 3, "storage": storage, "image": NOWHERE });
        self.space.apply(&object("Cluster", "calm", &cluster));
        let group = json!({
            "bootstrapServers": self.broker.bootstrap(), "topics": ["stays-0"], "lagPolicy": { "maxLag": 100 + round },
        });
        self.space.apply(&object("ConsumerGroup", "readers", &group));
        if let Some(last) = round.checked_sub(1) {
            self.space.kubectl(["delete", "kmt", &format!("comes-{last}"), "--wait=false"]).ok();
        }
    }

    /// What is not as described yet.
    fn amiss(&self, round: usize) -> Vec<String> {
        let list = self.space.kubectl(["get", "kmt,kmg,kmc,statefulset", "--output=json"]).ok().out;
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let all: BTreeMap<String, &Value> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|o| (format!("{}/{}", o["kind"], o["metadata"]["name"]).replace('"', ""), o))
            .collect();
        let mut amiss = Vec::new();
        let mut wants = |name: String, kind: &str, wanted: &[&str]| {
            let is = all.get(&name).and_then(|object| condition(object, kind));
            if !is.as_deref().is_some_and(|is| wanted.contains(&is)) {
                amiss.push(format!("{name}: {kind} is {is:?}"));
            }
        };
        for name in (0..STAYING).map(|n| format!("stays-{n}")).chain([format!("comes-{round}")]) {
            wants(format!("Topic/{name}"), "Ready", &["True/AsDescribed"]);
        }
        wants("ConsumerGroup/readers".into(), "Ready", &["True/Watched"]);
        wants("Cluster/calm".into(), "Reconciling", &PODLESS);
        let kept = all.get("StatefulSet/calm").map(|set| &set["spec"]["persistentVolumeClaimRetentionPolicy"]);
        if kept != Some(&retention(round)) {
            amiss.push(format!("StatefulSet/calm has {kept:?}"));
        }
        if let Some(last) = round.checked_sub(1).filter(|last| all.contains_key(&format!("Topic/comes-{last}"))) {
            amiss.push(format!("Topic/comes-{last} is still there"));
        }
        amiss
    }

    /// Waits until everything is as described, with the brokers as well.
    #[track_caller]
    fn settled(&self, round: usize, limit: Duration) {
        let mut last = Vec::new();
        let settled = wait_for(limit, || {
            last = self.amiss(round);
            if !last.is_empty() {
                std::thread::sleep(Duration::from_millis(300));
            }
            last.is_empty().then_some(())
        });
        assert!(settled.is_some(), "not as described after {limit:?}: {last:#?}\n{}", self.operator.log());
        for name in ["stays-1".to_owned(), format!("comes-{round}")] {
            let there = described(&self.broker, &name).expect("a topic");
            assert_eq!(there["partitions"].as_array().map(Vec::len), Some(2 + round), "{there}");
            assert_eq!(config(&self.broker, &name), json!({ "retention.ms": (1000 + round).to_string() }));
        }
        if let Some(last) = round.checked_sub(1) {
            assert_eq!(described(&self.broker, &format!("comes-{last}")), None);
        }
    }

    /// Who everything is: what must be the same at the end.
    fn identities(&self) -> Value {
        let ids: Vec<_> = (0..STAYING)
            .map(|n| described(&self.broker, &format!("stays-{n}")).expect("a topic")["id"].clone())
            .collect();
        let kinds = "statefulset,service,configmap,serviceaccount,poddisruptionbudget,networkpolicy";
        let path = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid}{\"\\n\"}{end}";
        let objects = self.space.kubectl(["get", kinds, "--output", path]).ok().out;
        // Keys that were made anew would cut brokers off from each other.
        let path = "jsonpath={range .items[*]}{.metadata.uid} {.data}{\"\\n\"}{end}";
        let keys = self.space.kubectl(["get", "secret", "--output", path]).ok().out;
        json!([ids, objects, keys])
    }
}

/// What of a Cluster differs from round to round. Pods would be replaced for another template, and nothing is to be deleted.
fn retention(round: usize) -> Value {
    let word = |delete: bool| if delete { "Delete" } else { "Retain" };
    json!({ "whenScaled": word(round & 1 == 1), "whenDeleted": word(round & 2 == 2) })
}

/// The faults, one after the other.
fn plans() -> Vec<(&'static str, Plan)> {
    let all = |thousandths: u64, faults: &[Fault]| Plan { of: "", faults: faults.to_vec(), thousandths };
    let (conflict, busy) = (Fault::Status(409, None), Fault::Status(429, Some(1)));
    let (broken, away) = (Fault::Status(500, None), Fault::Status(503, None));
    vec![
        ("409", Plan { of: "PATCH ", ..all(700, &[conflict]) }),
        ("429 with Retry-After", all(1000, &[busy])),
        ("500", all(1000, &[broken])),
        ("connections dropped and cut in mid answer", all(600, &[Fault::Dropped, Fault::Cut])),
        ("some of each", all(500, &[conflict, busy, broken, away, Fault::Dropped, Fault::Cut])),
    ]
}

#[test]
fn an_api_server_that_fails_costs_time_and_nothing_else() {
    with_control_plane("outages::an_api_server_that_fails_costs_time_and_nothing_else", || {
        let seed = u64::from(std::process::id());
        let mut scene = Scene::start();
        scene.describe(0);
        scene.settled(0, Duration::from_secs(60));
        let (before, rss) = (scene.identities(), scene.operator.rss_kib());
        let mut round = 0;
        type Act<'a> = &'a dyn Fn(&Proxy);
        let mut fault = |scene: &mut Scene, name: &str, limit: Duration, begin: Act<'_>, end: Act<'_>, more: bool| {
            round += 1;
            let (since, cpu) = (Instant::now(), scene.operator.cpu_seconds());
            begin(&scene.proxy);
            scene.describe(round);
            std::thread::sleep(LASTS.saturating_sub(since.elapsed()));
            let (lasted, asked) = (since.elapsed(), scene.proxy.since(since));
            let cpu = scene.operator.cpu_seconds() - cpu;
            end(&scene.proxy);
            let healed = Instant::now();
            if more {
                round += 1;
                scene.describe(round);
            }
            scene.settled(round, limit);
            println!(
                "figures outage, {name}: in {:.1} s {} requests, {} at most in a second, {cpu:.2} s of a processor; all as described \
                 {:.1} s later; seed {seed}",
                lasted.as_secs_f64(),
                asked.len(),
                busiest_second(&asked),
                healed.elapsed().as_secs_f64(),
            );
            assert_eq!(scene.operator.ended(), None, "{}", scene.operator.log());
            assert!(asked.len() < REQUESTS * (lasted.as_secs() as usize + 1), "{asked:#?}");
            assert!(cpu < lasted.as_secs_f64() / 2.0, "{cpu} s of {lasted:?}");
            let deleted: Vec<Asked> =
                scene.proxy.since(since).into_iter().filter(|a| a.what.starts_with("DELETE")).collect();
            assert!(deleted.is_empty(), "{deleted:#?}");
        };
        let soon = Duration::from_secs(90);
        for (name, plan) in plans() {
            let begin: Act<'_> = &|proxy| proxy.plan(Some(plan.clone()), seed);
            fault(&mut scene, name, soon, begin, &|proxy| proxy.plan(None, 0), false);
        }
        fault(&mut scene, "connections refused", soon, &|proxy| proxy.refuse(), &|proxy| proxy.accept(), false);
        // Half-open: what is asked is never answered, and no watch tells of what is described after it is over.
        let silent = Plan { of: "", faults: vec![Fault::Silent], thousandths: 1000 };
        let begin: Act<'_> = &|proxy| proxy.plan(Some(silent.clone()), seed);
        let end: Act<'_> = &|proxy| {
            assert!(!proxy.since(Instant::now() - LASTS).is_empty(), "somebody waits for an answer");
            proxy.forget();
            proxy.plan(None, 0);
        };
        fault(&mut scene, "nothing answered, watches dead", NOTICED, begin, end, true);

        assert_eq!(scene.identities(), before, "nothing was made anew");
        assert!(!scene.operator.log().contains("panicked"), "{}", scene.operator.log());
        let now = scene.operator.rss_kib();
        println!("figures outage: operator {} MiB before, {} MiB after", rss / 1024, now / 1024);
        assert!(now < rss + 16 * 1024, "{rss} KiB before, {now} KiB after");
        assert_eq!(scene.operator.stop(), 0);
    });
}

#[test]
fn what_the_api_server_does_not_take_is_said() {
    with_control_plane("outages::what_the_api_server_does_not_take_is_said", || {
        let scene = Scene::start();
        // The Topic's finalizer, the Cluster's StatefulSet: no statuses, no Events.
        for (what, kind, name) in [("/topics/told?", "kmt", "told"), ("/statefulsets/told?", "kmc", "told")] {
            scene.proxy.plan(Some(Plan { of: what, faults: vec![Fault::Status(500, None)], thousandths: 1000 }), 0);
            match kind {
                "kmt" => topic(&scene.space, &scene.broker, name, json!({})),
                _ => scene.space.apply(&object("Cluster", name, &json!({ "replicas": 1 }))),
            }
            let found = until_condition(&scene.space, kind, name, "Reconciling", "True/KubernetesError");
            assert_eq!(condition(&found, "Ready").as_deref(), Some("Unknown/KubernetesError"));
            assert_contains(&found["status"]["conditions"].to_string(), "a fault of the test");
            eventually("an Event says it", 20, || {
                let told = scene.space.kubectl(["describe", kind, name]).ok().out;
                let found = told.lines().any(|line| line.contains("Warning") && line.contains("KubernetesError"));
                found.then_some(())
            });
            if kind == "kmt" {
                assert_eq!(described(&scene.broker, name), None, "without a finalizer nothing is made");
            }
            scene.proxy.plan(None, 0);
            match kind {
                "kmt" => until_condition(&scene.space, kind, name, "Ready", "True/AsDescribed"),
                _ => scene.space.until(kind, name, 60, |cluster| {
                    let is = condition(cluster, "Reconciling")?;
                    PODLESS.contains(&is.as_str()).then(|| cluster.clone())
                }),
            };
        }
    });
}

/// An operator that elects itself, with its own way to the API server.
pub fn elect(space: &Namespace, proxy: &Proxy, who: &str) -> Operator {
    let flags = [format!("--namespace={}", space.name()), format!("--identity={who}")];
    let mut operator = Operator::launch(Some(&proxy.kubeconfig()), &[space], &flags.each_ref().map(String::as_str));
    operator.until_ready();
    operator
}

pub fn leads(operator: &Operator) -> bool {
    operator.metric("klamm_operator_leader") == 1.0
}

#[test]
fn who_cannot_renew_the_lease_stops_before_another_begins() {
    with_control_plane("outages::who_cannot_renew_the_lease_stops_before_another_begins", || {
        install_types();
        let broker = Broker::start(&[]);
        // Only the renewals get lost, while all else goes through; and nothing goes through.
        for (name, of) in [("renewals not answered", "/leases/"), ("nothing answered", "")] {
            let (space, ways) = (Namespace::new("lost"), [Proxy::start(), Proxy::start()]);
            let mut first = elect(&space, &ways[0], "first");
            eventually("the first one leads", 60, || leads(&first).then_some(()));
            let second = elect(&space, &ways[1], "second");
            let mut round = 0;
            // There is something to do all the time.
            let mut describe = || {
                round += 1;
                topic(&space, &broker, "busy", json!({ "config": { "retention.ms": 1000 + round } }));
                round
            };
            describe();
            until_condition(&space, "kmt", "busy", "Ready", "True/AsDescribed");

            let cut = Instant::now();
            if of.is_empty() {
                ways[0].forget();
            }
            ways[0].plan(Some(Plan { of, faults: vec![Fault::Silent], thousandths: 1000 }), 0);
            let mut ended = None;
            eventually("the second one leads", 90, || {
                describe();
                if ended.is_none() && first.ended().is_some() {
                    ended = Some(Instant::now());
                }
                leads(&second).then_some(())
            });
            let last = describe();
            until_condition(&space, "kmt", "busy", "Ready", "True/AsDescribed");
            assert_eq!(config(&broker, "busy"), json!({ "retention.ms": (1000 + last).to_string() }));

            let acts = |way: usize| ways[way].since(cut).into_iter().filter(Asked::acts).collect::<Vec<_>>();
            let (one, other) = (acts(0), acts(1));
            let begun = other.first().expect("the second one has acted").at;
            let after = |at: Instant| at.saturating_duration_since(cut).as_secs_f64();
            let ended = ended.expect("the first one has ended");
            println!(
                "figures lease, {name}: the first operator has changed {} things since, the last after {:.1} s; it ended after {:.1} s, \
                 the second one began after {:.1} s",
                one.len(),
                one.last().map_or(0.0, |last| after(last.at)),
                after(ended),
                after(begun),
            );
            assert!(ended < begun, "both acted");
            assert!(one.iter().all(|act| act.at < begun), "{one:#?}");
            assert_eq!(of.is_empty(), one.is_empty(), "it goes on as long as it may");
            assert_ne!(first.ended(), Some(0), "it says that it did not end as it should");
            assert_contains(&first.log(), "the lease is lost");
        }
    });
}
