//! `docs/api.md` and the table in README.md are written from THE table.

use std::fmt::Write as _;

use klamm_protocol::ApiKey;

use super::{Scope, TABLE, row};
use crate::docs;

const BEGIN: &str = "<!-- api table: written from broker/src/api/mod.rs by `UPDATE=1 cargo test -p klamm` -->\n";
const END: &str = "<!-- end of api table -->\n";

fn served() -> String {
    let mut text = String::from("| key | API | versions | not yet |\n|---|---|---|---|\n");
    for api in TABLE.iter().filter(|api| api.scope == Scope::Anyone) {
        let versions = if api.min == api.max { api.max.to_string() } else { format!("{}–{}", api.min, api.max) };
        let _ = writeln!(text, "| {} | {} | {versions} | {} |", api.key as i16, api.key.name(), api.gaps);
    }
    text
}

fn missing() -> String {
    let names: Vec<_> =
        ApiKey::ALL.iter().filter(|key| key.on_broker() && row(**key).is_none()).map(|key| key.name()).collect();
    format!("Not served, and not advertised: {}.\n", names.join(", "))
}

#[test]
fn the_page_says_what_the_table_says() {
    let text = format!(
        "# API keys\n\nWhat a broker serves, by Kafka's own names and versions. Each version in the range is complete except for what the last\n\
         column names. Produce is advertised from version 0 on: librdkafka turns compression off otherwise (KAFKA-18659); versions\n\
         below 3 are refused, as by Kafka 4.\n\nThis file is generated: `UPDATE=1 cargo test -p klamm` rewrites it from the table in code.\n\n{}\n{}",
        served(),
        missing(),
    );
    docs::check("api.md", &text);
}

#[test]
fn the_readme_says_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(path).expect("README.md");
    let (head, rest) = readme.split_once(BEGIN).expect("README.md has the table's beginning");
    let (_, tail) = rest.split_once(END).expect("README.md has the table's end");
    docs::check("../README.md", &format!("{head}{BEGIN}{}\n{}{END}{tail}", served(), missing()));
}
