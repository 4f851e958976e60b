//! `docs/config.md` is written from the key table. `UPDATE=1 cargo test` rewrites it, otherwise the test compares.

use std::fmt::Write as _;

use super::key::{Key, Update};
use super::keys;

const HEAD: &str = "# Configuration\n\n\
    Klamm is configured with Kafka's own keys, in Kafka's own `.properties` format:\n\n\
    ```\nklamm broker --config server.properties --set num.partitions=3\n```\n\n\
    Four layers, each over the one before: defaults, the file, environment variables, `--set`. The variable of a key is \
    `KLAMM_` and the key in upper case with `_` for `.`: `KLAMM_LOG_DIRS` is `log.dirs`. Keys that begin with `klamm.` \
    need not repeat it: `KLAMM_ADMIN_LISTENER` is `klamm.admin.listener`. Values in a file may have variables in them, as \
    `${env:NAME}`; one that is unset or empty stops the start.\n\n\
    An unknown key or a bad value stops the start with exit code 2 and a line that names the key, the value, where it was \
    set and why it is refused. Keys that Kafka has and Klamm does not need are accepted, each with one warning that says \
    so; a file that starts a combined Apache Kafka node starts a Klamm node.\n\n\
    *Changes* tells whether a key can change while the broker runs (`kafka-configs`, `klamm configs`): for one broker, or \
    for all at once. Everything else needs a restart. A topic's configuration comes from the topic itself, else from the \
    broker key in the last column.\n\n\
    This file is generated: `UPDATE=1 cargo test -p klamm` rewrites it from the table in code.\n";

fn cell(text: Option<&str>) -> String {
    match text {
        None => "null".to_owned(),
        Some("") => "empty".to_owned(),
        Some(text) => format!("`{text}`"),
    }
}

fn changes(key: &Key) -> &'static str {
    match key.update {
        Update::Static => "",
        Update::PerBroker => "per broker",
        Update::ClusterWide => "per broker, all brokers",
    }
}

/// Keys without effect, as one paragraph.
fn accepted(text: &mut String, keys: &[&Key]) {
    if !keys.is_empty() {
        let names: Vec<_> = keys.iter().map(|key| format!("`{}`", key.name)).collect();
        let _ = writeln!(text, "\nAccepted without effect: {}.", names.join(", "));
    }
}

#[test]
fn the_documentation_is_up_to_date() {
    let mut text = HEAD.to_owned();
    text.push_str("\n## Broker keys\n");
    for (area, keys) in keys::BROKER_AREAS {
        let (used, unused): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(|key| key.doc.is_some());
        let _ = writeln!(text, "\n### {area}");
        if !used.is_empty() {
            text.push_str("\n| Key | Type | Default | Changes | What it does |\n| --- | --- | --- | --- | --- |\n");
        }
        for key in used {
            let (kind, doc) = (key.kind.name().to_lowercase(), key.documentation());
            let _ = writeln!(text, "| `{}` | {kind} | {} | {} | {doc} |", key.name, cell(key.default), changes(key));
        }
        accepted(&mut text, &unused);
    }
    for (title, table) in [("Topic keys", keys::TOPIC), ("Group keys", keys::GROUP)] {
        let (used, unused): (Vec<&Key>, Vec<&Key>) = table.iter().partition(|key| key.doc.is_some());
        let _ = writeln!(text, "\n## {title}");
        if !used.is_empty() {
            text.push_str(
                "\n| Key | Type | Default | What it does | Default of all topics |\n| --- | --- | --- | --- | --- |\n",
            );
        }
        for key in used {
            let from: Vec<_> = key.from_broker.iter().map(|(name, _)| format!("`{name}`")).collect();
            let (kind, doc) = (key.kind.name().to_lowercase(), key.documentation());
            let _ = writeln!(text, "| `{}` | {kind} | {} | {doc} | {} |", key.name, cell(key.default), from.join(", "));
        }
        accepted(&mut text, &unused);
    }
    let gone: Vec<&Key> = keys::GONE.iter().collect();
    text.push_str("\n## Keys that Kafka has dropped\n");
    accepted(&mut text, &gone);
    crate::docs::check("config.md", &text);
}
