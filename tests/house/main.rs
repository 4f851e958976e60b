//! The house rules that a machine can check: file sizes, module heads, what the README and the docs promise.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    klamm_tests::paths::tests_dir().parent().expect("the work tree").to_owned()
}

/// All files below a folder with one of these extensions, without build output.
fn files(below: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.')
                && !["target", "node_modules", "klamm-data", "__pycache__"].contains(&name.as_str())
            {
                files(&path, extensions, found);
            }
        } else if path.extension().is_some_and(|e| extensions.contains(&e.to_string_lossy().as_ref())) {
            found.push(path);
        }
    }
}

fn all(extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root(), extensions, &mut found);
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn no_source_file_is_longer_than_a_thousand_lines() {
    let sources = all(&["rs", "py", "java", "js", "go", "sh"]);
    assert!(sources.len() > 100, "{} source files", sources.len());
    let long: Vec<String> = sources
        .iter()
        .map(|p| (p, read(p).lines().count()))
        .filter(|(_, lines)| *lines > 1000)
        .map(|(p, lines)| format!("{} has {lines} lines", p.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn every_rust_file_begins_by_saying_what_it_owns() {
    let silent: Vec<String> = all(&["rs"])
        .iter()
        .filter(|p| !read(p).trim_start().starts_with("//!"))
        .map(|p| p.display().to_string())
        .collect();
    assert!(silent.is_empty(), "no `//!` head:\n{}", silent.join("\n"));
}

#[test]
fn nothing_unfinished_is_left_in_the_code() {
    let marks = ["todo!(", "unimplemented!(", "FIXME", "XXX:"];
    let here = root().join("tests/house/main.rs");
    let mut found = Vec::new();
    for path in all(&["rs"]).iter().filter(|p| **p != here) {
        for (n, line) in read(path).lines().enumerate() {
            if marks.iter().any(|m| line.contains(m)) {
                found.push(format!("{}:{}: {line}", path.display(), n + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for path in all(&["md"]) {
        let text = read(&path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let file = path.parent().expect("a folder").join(target);
            if !file.exists() {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
