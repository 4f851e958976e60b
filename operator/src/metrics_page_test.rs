//! `docs/operator-metrics.md` is made of what `/metrics` says: compared here, rewritten with `UPDATE=1`.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::controllers::mock::Server;
use crate::crd::ClusterStatus;
use crate::groups::lag::Lag;
use crate::metrics::Outcome;

const HEAD: &str = "# The operator's metrics\n\n\
    `GET /metrics` on the operator's port 8080 gives all of these in the Prometheus text format. Those of the brokers are \
    on [their own page](metrics.md).\n\n\
    `controller` is `cluster`, `topic` or `consumergroup`. `namespace` and `name` are the resource's: a scrape that sets labels \
    of these names itself needs `honor_labels: true`. What is told of a resource ends with it. A `queue_depth` that stays above \
    zero asks for a larger `concurrency`.\n\n\
    This file is generated: `UPDATE=1 cargo test -p klamm-operator` rewrites it from the metrics in code.\n\n\
    | Metric | Kind | Labels | What it tells |\n| --- | --- | --- | --- |\n";

#[tokio::test]
async fn the_page_has_every_metric() {
    let context = Server::default().context();
    // Each has to say something to be seen.
    let metrics = &context.metrics;
    metrics.starts("topic");
    metrics.begun("topic", ["a", "done"]);
    metrics.ended("topic", ["a", "done"], Outcome::Steady, Duration::ZERO);
    metrics.begun("topic", ["a", "under-way"]);
    metrics.malformed("topic");
    metrics.leads(true);
    let lag = Lag { topics: [("t".to_owned(), (1, 7))].into(), ..Lag::default() };
    context.group_metrics.found(&["a", "g", "g"].map(str::to_owned), 1, &lag, Some(1));
    let operation = json!({
        "type": "RollingRestart", "reason": "ConfigChanged", "step": "Pending", "message": "", "startedAt": "2026-10-01T00:00:00Z",
    });
    let status: ClusterStatus = serde_json::from_value(json!({ "operation": operation })).expect("a status");
    context.cluster_metrics.found("a", "c", 3, &status);

    let (mut text, families) = (HEAD.to_owned(), metrics.registry().gather());
    for family in &families {
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        let one = family.get_metric().first().expect("a series");
        let labels: Vec<_> = one.get_label().iter().map(|label| format!("`{}`", label.name())).collect();
        let _ = writeln!(text, "| `{}` | {kind} | {} | {}. |", family.name(), labels.join(", "), family.help());
    }
    // As many as are registered: one that said nothing would be missed.
    assert_eq!(families.len(), 17, "{text}");
    crate::crd::docs_test::check("docs/operator-metrics.md", &text);
}
