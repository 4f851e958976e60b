//! docs/operations.md: every command in its `console` blocks, in order, as a reader would type them.

use klamm_tests::{Tool, paths, ports};

use crate::cluster;

/// How the page's addresses begin; a digit follows.
const ADDRESSES: [&str; 3] = ["127.0.0.1:1909", "127.0.0.1:1919", "127.0.0.1:1964"];

/// Ends what the page starts, however the page ends.
const PROLOGUE: &str = "set -eu -o pipefail
trap 'for f in node-*.pid; do kill -9 $(cat $f) 2> /dev/null || true; done' EXIT
";

#[test]
fn the_page_of_operations_does_what_it_says() {
    // Not beside the other tests' cluster: both would be slow.
    let _alone = cluster();
    let page = std::fs::read_to_string(paths::tests_dir().join("../docs/operations.md")).expect("the page");
    let mut script = commands(&page);
    assert!(script.matches("echo '---").count() > 20, "the page's commands were not found:\n{script}");
    let mut taken = Vec::new();
    for address in ADDRESSES {
        assert!(script.contains(address), "the page does not use {address}");
        script = script.replace(address, &format!("127.0.0.1:{}", ten_ports(&mut taken)));
    }
    let dir = paths::scratch_dir("operations");
    let klamm = paths::klamm();
    let path =
        format!("{}:{}", klamm.parent().expect("a directory").display(), std::env::var("PATH").unwrap_or_default());
    let bash = Tool::new("bash").args(["-c", &script]).dir(&dir).env("PATH", path).limit(200);
    let ran = bash.run();
    assert_eq!(ran.code, 0, "{ran}\n{}", logs(&dir));
    let _ = std::fs::remove_dir_all(dir);
}

/// The page's commands as one script that says what it is about to run.
fn commands(page: &str) -> String {
    let mut script = PROLOGUE.to_owned();
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```console" => inside = true,
            _ if line.starts_with("```") => inside = false,
            _ if !inside => {}
            _ => {
                if let Some(command) = line.strip_prefix("$ ") {
                    script.push_str(&format!("echo '--- {}'\n{command}\n", command.replace('\'', " ")));
                } else if let Some(more) = line.strip_prefix("> ") {
                    script.push_str(&format!("{more}\n"));
                }
            }
        }
    }
    script
}

/// The beginning of ten port numbers that are free: `2314` for 23140 to 23149.
fn ten_ports(taken: &mut Vec<u16>) -> u16 {
    loop {
        let tens = ports::free_port() / 10;
        let free = |last: u16| std::net::TcpListener::bind(("127.0.0.1", tens * 10 + last)).is_ok();
        if tens >= 1000 && !taken.contains(&tens) && (0..10).all(free) {
            taken.push(tens);
            return tens;
        }
    }
}

/// The ends of the brokers' logs.
fn logs(dir: &std::path::Path) -> String {
    let tail = |id| {
        let text = std::fs::read_to_string(dir.join(format!("node-{id}.log"))).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        format!("--- node {id}\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
    };
    (0..6).map(tail).collect()
}
