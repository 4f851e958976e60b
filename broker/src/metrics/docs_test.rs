//! `docs/metrics.md` is written from the table. `UPDATE=1 cargo test` rewrites it, otherwise the test compares.

use std::fmt::Write as _;

use super::table::ALL;

#[test]
fn the_documentation_is_up_to_date() {
    let mut text = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin listener (`klamm.admin.listener`, 127.0.0.1:9644 unless configured) gives all of these \
         in the Prometheus text format. Names that begin with `kafka_` are those that the JMX exporter and kafka_exporter \
         give for Apache Kafka, with the same labels, so that dashboards and alerts made for them work; `klamm_` are ours. \
         The process itself is described by the usual `process_*` metrics. \
         The operator's are on [a page of their own](operator-metrics.md).\n\n\
         This file is generated: `UPDATE=1 cargo test -p klamm` rewrites it from the table in code.\n\n\
         | Metric | Kind | Labels | What it tells |\n| --- | --- | --- | --- |\n",
    );
    for def in ALL {
        let labels: Vec<_> = def.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(text, "| `{}` | {} | {} | {} |", def.name, def.kind.name(), labels.join(", "), def.help);
    }
    crate::docs::check("metrics.md", &text);
}

#[test]
fn names_are_legal_and_come_once() {
    let mut names = std::collections::BTreeSet::new();
    for def in ALL {
        assert!(names.insert(def.name), "{} comes twice", def.name);
        let legal = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        assert!(legal(def.name) && def.labels.iter().all(|label| legal(label)), "{}", def.name);
        assert!(def.help.ends_with('.') && !def.help.contains(['\\', '\n', '|']), "{}", def.name);
    }
}
