//! Files in `docs/` that are generated from tables in code: compared by tests, rewritten with `UPDATE=1`.

use std::path::Path;

/// Fails unless `docs/<name>` holds `text`; with `UPDATE=1` writes it instead.
pub(crate) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE").is_some_and(|v| v == "1") {
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(text.lines()).enumerate().find(|(_, (a, b))| a != b);
    let line = differs.map_or(found.lines().count().min(text.lines().count()), |(line, _)| line) + 1;
    assert!(found == text, "docs/{name} is out of date from line {line} on: UPDATE=1 cargo test -p klamm rewrites it");
}
