//! An operator that is killed after it has made a topic, and before it has noted which: whose topic that is then.
//!
//! A proxy keeps its notes from the API server; so what is there afterwards is what such an operator leaves.

use klamm_tests::{Broker, assert_contains, eventually};
use serde_json::json;

use crate::faulty::{Fault, Plan, Proxy};
use crate::kubernetes::kubectl::install_types;
use crate::kubernetes::{Namespace, with_control_plane};
use crate::process::{Operator, klamm, until_condition};
use crate::topics::{described, topic};

#[test]
fn a_topic_that_was_made_and_not_noted_goes_with_its_resource_if_nobody_has_it() {
    with_control_plane("unnoted::a_topic_that_was_made_and_not_noted_goes_with_its_resource_if_nobody_has_it", || {
        install_types();
        let (space, broker, proxy) = (Namespace::new("unnoted"), Broker::start(&[]), Proxy::start());
        let spec = json!({ "partitions": 2, "config": { "retention.ms": 1000 } });
        let create = |name: &str, partitions: u32| {
            let config = "--config retention.ms=1000 --replication-factor 1";
            klamm(&broker, &format!("topics create {name} --partitions {partitions} {config}")).ok();
        };
        let flags = ["--leader-election=false", "--controllers=topics"];
        let mut operator = Operator::launch(Some(&proxy.kubeconfig()), &[&space], &flags);
        operator.until_ready();

        // What was there before is not its own until that is noted.
        create("theirs", 2);
        let notes = Plan { of: "/status", faults: vec![Fault::Status(500, None)], thousandths: 1000 };
        proxy.plan(Some(notes), 0);
        let own = ["new", "written", "replaced", "goes-on"];
        for name in own.iter().chain(&["theirs"]) {
            topic(&space, &broker, name, spec.clone());
            space.until("kmt", name, 30, |found| found["metadata"]["finalizers"].as_array().map(|_| ()));
            eventually("it is made", 30, || described(&broker, name));
        }
        operator.kill();
        for name in own.iter().chain(&["theirs"]) {
            assert!(space.get("kmt", name).expect("a Topic")["status"]["topicId"].is_null(), "{name} is noted");
        }
        klamm(&broker, "produce written").stdin("one\n").ok();
        klamm(&broker, "topics delete replaced").ok();
        eventually("it is gone", 30, || described(&broker, "replaced").is_none().then_some(()));
        create("replaced", 3);
        space.kubectl(["delete", "kmt", "new", "written", "replaced", "theirs", "--wait=false"]).ok();
        let id = described(&broker, "goes-on").expect("a topic")["id"].clone();

        let _next = Operator::start_with(&[&space], &flags);
        for name in ["new", "written", "replaced", "theirs"] {
            space.kubectl(["wait", "--for=delete", "--timeout=30s", &format!("kmt/{name}")]).ok();
        }
        assert_eq!(described(&broker, "new"), None, "nobody else has it, and nothing is in it");
        for name in ["written", "replaced", "theirs"] {
            assert!(described(&broker, name).is_some(), "{name} may be somebody else's");
            let about = format!("--field-selector=reason=TopicLeft,involvedObject.name={name}");
            let told = space.kubectl(["get", "events", &about, "--output=jsonpath={.items[*].message}"]).ok().out;
            assert_contains(&told, &format!("topic {name}"));
        }
        // One that stays is looked after as if nothing had been.
        let found = until_condition(&space, "kmt", "goes-on", "Ready", "True/AsDescribed");
        assert_eq!(found["status"]["topicId"], id);
        space.kubectl(["delete", "kmt", "goes-on", "--timeout=30s"]).ok();
        assert_eq!(described(&broker, "goes-on"), None);
    });
}
