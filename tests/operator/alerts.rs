//! Alerts and dashboards as Prometheus reads them, and that operator and brokers really print what they ask for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klamm_tests::{Broker, Tool, eventually, paths};
use serde_json::{Value, json};

use crate::charts::{chart, metrics, render};
use crate::kubernetes::kubectl::install_types;
use crate::kubernetes::{Namespace, with_control_plane};
use crate::process::{Operator, klamm, until_condition};
use crate::types::object;

const ALERTS: &[&str] =
    &["crds.create=false", "monitoring.prometheusRule.enabled=true", "monitoring.prometheusRule.maxConsumerLag=1000"];

fn promtool(args: &[&str], file: &Path) -> Tool {
    Tool::new(paths::cached("bin/promtool", "prometheus.sh")).args(args).arg(file)
}

/// The chart's rules, as a file of Prometheus.
fn rules() -> String {
    let rendered = render("klamm-operator", ALERTS);
    let rule = rendered.split("kind: PrometheusRule").nth(1).and_then(|rest| rest.split("\n---").next());
    let spec = rule.and_then(|rule| rule.split("\nspec:\n").nth(1)).expect("a PrometheusRule");
    spec.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect()
}

/// The expressions of the dashboards, with values in place of what Grafana fills in.
fn panels() -> Vec<String> {
    let mut all = Vec::new();
    for board in ["brokers", "operator"] {
        let file = chart("klamm-operator").join(format!("files/dashboards/{board}.json"));
        let text = std::fs::read_to_string(file).expect("a dashboard");
        let board: Value = serde_json::from_str(&text).expect("JSON");
        let targets =
            board["panels"].as_array().expect("panels").iter().filter_map(|panel| panel["targets"].as_array());
        let own = targets.flatten().map(|target| target["expr"].as_str().expect("an expression"));
        all.extend(own.map(|expr| {
            let mut expr = expr.replace("$__rate_interval", "5m").replace("$__range", "1h");
            while let Some(at) = expr.find('$') {
                let name = expr[at + 1..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').count();
                expr.replace_range(at..=at + name, "x");
            }
            expr
        }));
    }
    assert!(all.len() > 20, "{all:?}");
    all
}

fn written(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    std::fs::write(&file, text).expect("written");
    file
}

#[test]
fn prometheus_takes_them_and_they_tell_what_they_should() {
    let dir = paths::scratch_dir("alerts");
    promtool(&["check", "rules"], &written(&dir, "rules.yaml", &rules())).ok().expect("SUCCESS");
    let cases = std::fs::read_to_string(paths::tests_dir().join("operator/fixtures/alerts-test.yaml")).expect("cases");
    promtool(&["test", "rules"], &written(&dir, "test.yaml", &cases)).ok().expect("SUCCESS");
    // That it can fail: the same without one of the alerts.
    written(&dir, "rules.yaml", &rules().replace("KlammPartitionsOffline", "Another"));
    let failed = promtool(&["test", "rules"], &dir.join("test.yaml")).run();
    assert_ne!(failed.code, 0, "{failed}");
    // What is no alert is read as if it was to be recorded.
    let record = |(n, expr): (usize, String)| json!({ "record": format!("panel:{n}"), "expr": expr });
    let recorded: Vec<Value> = panels().into_iter().enumerate().map(record).collect();
    let file = json!({ "groups": [{ "name": "panels", "rules": recorded }] });
    promtool(&["check", "rules"], &written(&dir, "panels.yaml", &file.to_string())).ok().expect("SUCCESS");
    std::fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn the_rule_for_an_adapter_tells_how_full_the_fullest_directory_is() {
    let page = std::fs::read_to_string(paths::tests_dir().join("../docs/clusters.md")).expect("the page");
    let rule = page.split("```yaml\n").find(|block| block.starts_with("rules:")).expect("the rule");
    let query = rule.lines().find_map(|line| line.trim().strip_prefix("metricsQuery: ")).expect("a query");
    // As the adapter fills it in.
    let query =
        query.replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", r#"namespace="a",pod=~"prod-0|prod-1""#);
    let dir = paths::scratch_dir("adapter");
    let series = |name: &str, pod: &str, dir: &str, value: i64| {
        let labels = format!("namespace=\"a\",pod=\"{pod}\",dir=\"{dir}\"");
        json!({ "series": format!("klamm_log_dir_{name}_bytes{{{labels}}}"), "values": value.to_string() })
    };
    let all = [("prod-0", "/a", 75), ("prod-0", "/b", 10), ("prod-1", "/a", 60), ("other", "/a", 0)];
    let input: Vec<Value> = all
        .iter()
        .flat_map(|(pod, dir, free)| [series("total", pod, dir, 100), series("free", pod, dir, *free)])
        .collect();
    let sample = |pod: &str, value: f64| json!({ "labels": format!("{{pod=\"{pod}\"}}"), "value": value });
    let expected = [sample("prod-0", 0.9), sample("prod-1", 0.4)];
    let case = json!({ "tests": [{
        "interval": "1m", "input_series": input,
        "promql_expr_test": [{ "expr": query, "eval_time": "0s", "exp_samples": expected }],
    }] });
    promtool(&["test", "rules"], &written(&dir, "test.yaml", &case.to_string())).ok().expect("SUCCESS");
    std::fs::remove_dir_all(dir).expect("removed");
}

/// Names of what a text of Prometheus' format has.
fn printed(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter(|line| !line.starts_with('#'));
    names.filter_map(|line| line.split(['{', ' ']).next()).map(String::from).collect()
}

#[test]
fn what_they_ask_for_is_printed() {
    with_control_plane("alerts::what_they_ask_for_is_printed", || {
        install_types();
        let (space, broker) = (Namespace::new("alerts"), Broker::start(&[]));
        let operator = Operator::start(&[&space]);
        let here = |more: Value| {
            let mut spec = json!({ "bootstrapServers": broker.bootstrap() });
            spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            spec
        };
        space.apply(&object("Cluster", "one", &json!({ "replicas": 1 })));
        space.apply(&object("Topic", "orders", &here(json!({ "partitions": 1, "replicationFactor": 1 }))));
        let begins = json!({ "topics": ["orders"], "initialOffsets": { "offset": "Earliest" } });
        space.apply(&object("ConsumerGroup", "billing", &here(begins)));
        until_condition(&space, "kmt", "orders", "Ready", "True");
        klamm(&broker, "produce orders").stdin("record\n").ok();
        until_condition(&space, "kmg", "billing", "OffsetsInitialized", "True");
        let wanted: BTreeSet<String> =
            panels().iter().map(String::as_str).chain([rules().as_str()]).flat_map(metrics).collect();
        assert!(wanted.len() > 30, "{wanted:?}");
        // Of listeners with TLS only, which this broker has none of; and a label, which the scrape adds; and one that there
        // is while a reconciliation lasts.
        let elsewhere =
            ["klamm_certificate_expiry_seconds", "klamm_cluster", "klamm_operator_in_progress_start_time_seconds"];
        let mut missing = Vec::new();
        let found = klamm_tests::wait_for(std::time::Duration::from_secs(60), || {
            let mut there = printed(&operator.get("/metrics")?);
            let url = format!("http://{}/metrics", broker.admin());
            there.extend(printed(&Tool::new("curl").args(["-sf", "--max-time", "5", &url]).run().out));
            missing = wanted
                .iter()
                .filter(|name| !there.contains(*name) && !elsewhere.contains(&name.as_str()))
                .cloned()
                .collect();
            missing.is_empty().then_some(())
        });
        assert!(found.is_some(), "nobody prints {missing:?}");
        // Series of a Cluster go with it.
        space.kubectl(["delete", "kmc", "one", "--timeout=60s"]).limit(70).ok();
        let own = format!("namespace=\"{}\"", space.name());
        eventually("its series are gone", 30, || {
            let text = operator.get("/metrics")?;
            let left = text.lines().any(|line| line.starts_with("klamm_operator_cluster_") && line.contains(&own));
            (!left).then_some(())
        });
    });
}
