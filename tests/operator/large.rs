//! Resources as large as the API server takes them: whoever may create Topics must not be able to end the operator of all.

use std::time::Instant;

use klamm_tests::{Broker, assert_contains};
use serde_json::{Value, json};

use crate::kubernetes::kubectl::{install_types, kubectl};
use crate::kubernetes::{Namespace, with_control_plane};
use crate::process::{Operator, until_condition};
use crate::topics::described;
use crate::types::object;

const COUNT: usize = 60;
/// What the chart lets it have.
const MOST_KIB: u64 = 64 * 1024;

#[test]
fn large_topics_do_not_end_the_operator() {
    with_control_plane("large::large_topics_do_not_end_the_operator", || {
        install_types();
        let (space, broker) = (Namespace::new("large"), Broker::start(&[]));
        let spec = json!({ "bootstrapServers": broker.bootstrap() });
        let mut operator = Operator::start(&[&space]);
        // Small ones that become large: there is something to undo.
        let mut first = object("Topic", "large-0", &spec);
        space.apply(&first);
        until_condition(&space, "kmt", "large-0", "Ready", "True/AsDescribed");
        let text = "x".repeat(210_000);
        let config: Value =
            (0..5).map(|n| (format!("k{n}"), Value::from(&*text))).collect::<serde_json::Map<_, _>>().into();
        let large = json!({ "bootstrapServers": broker.bootstrap(), "config": config });
        first["spec"] = large.clone();
        space.kubectl(["replace", "-f", "-"]).stdin(first.to_string()).ok();
        let items: Vec<Value> = (1..COUNT)
            .map(|n| {
                let mut topic = object("Topic", &format!("large-{n}"), &large);
                topic["metadata"]["annotations"] = json!({ "somebody/said": "y".repeat(200_000) });
                topic
            })
            .collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        space.kubectl(["create", "-f", "-"]).stdin(list.to_string()).limit(120).ok();

        for round in ["beside", "after"] {
            for n in [0, 1, COUNT - 1] {
                let found = until_condition(&space, "kmt", &format!("large-{n}"), "Stalled", "True/Malformed");
                assert_contains(&found["status"]["conditions"].to_string(), "bytes with its labels and annotations");
            }
            let since = Instant::now();
            space.apply(&object("Topic", round, &spec));
            until_condition(&space, "kmt", round, "Ready", "True/AsDescribed");
            // Whether it is nobody else's is asked of the API server then, of all that there are.
            space.kubectl(["delete", "kmt", round, "--timeout=60s"]).limit(70).ok();
            assert_eq!(described(&broker, round), None, "its topic has gone with it");
            println!(
                "figures {COUNT} Topics of 1.2 MB: operator {} MiB at most, a small one beside them came and went in {:.1} s",
                operator.peak_kib() / 1024,
                since.elapsed().as_secs_f64(),
            );
            assert!(operator.peak_kib() < MOST_KIB, "{round}: {} KiB", operator.peak_kib());
            operator.kill();
            operator = Operator::start(&[&space]);
        }
        // Made smaller it is looked after again, and nothing holds the namespace.
        space.kubectl(["replace", "-f", "-"]).stdin(object("Topic", "large-0", &spec).to_string()).ok();
        until_condition(&space, "kmt", "large-0", "Ready", "True/AsDescribed");
        kubectl(["delete", "namespace", space.name(), "--timeout=60s"]).limit(70).ok();
        assert_eq!(described(&broker, "large-0"), None);
        assert!(operator.peak_kib() < MOST_KIB, "{} KiB", operator.peak_kib());
    });
}
