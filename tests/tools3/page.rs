//! docs/operations.md: every command in its `console` blocks, in order, as a reader would type them, and after those
//! that change something a look whether they did. Commands that stand in the text are tried in a situation that is
//! made for them ([`DRILLS`]); a command that is neither run by a block nor by a drill fails the test.

use klamm_tests::{Tool, paths, ports};

use crate::cluster;
use crate::page_effects::{DRILLS, EFFECTS, FUNCTIONS};

/// How the page's addresses begin; a digit follows.
const ADDRESSES: [&str; 3] = ["127.0.0.1:1909", "127.0.0.1:1919", "127.0.0.1:1964"];

/// Ends what the page starts, however the page ends.
const PROLOGUE: &str = "set -eu -o pipefail
trap 'for f in node-*.pid; do kill -9 $(cat $f) 2> /dev/null || true; done' EXIT
";

/// How commands begin that a reader may type.
const COMMANDS: [&str; 5] = ["klamm ", "kafka-", "curl ", "head ", "GET "];

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
    let tools = paths::cached("kafka/bin", "java.sh");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{}:{path}", klamm.parent().expect("a directory").display(), tools.display());
    let bash = Tool::new("bash").args(["-c", &script]).dir(&dir).env("PATH", path).limit(600);
    let ran = bash.run();
    assert_eq!(ran.code, 0, "{ran}\n{}", logs(&dir));
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn no_command_of_the_page_goes_untried() {
    let page = std::fs::read_to_string(paths::tests_dir().join("../docs/operations.md")).expect("the page");
    let script = commands(&page);
    for (command, _) in EFFECTS {
        assert!(
            script.contains(&format!("\n{command}\n")),
            "the page has no command `{command}`, whose effect is checked"
        );
    }
    for drill in DRILLS {
        assert!(page.contains(&format!("\n## {}\n", drill.section)), "the page has no section {}", drill.section);
        for said in drill.tries {
            assert!(spans(&page).iter().any(|span| span == said), "the page does not say `{said}`");
        }
    }
    let runs = |span: &str| match span.strip_prefix("GET ") {
        // `/v1/brokers/ID/restart-safety`: what comes before the placeholder will do.
        Some(path) => script.contains(path.split("ID").next().unwrap_or(path)),
        None => script.contains(span),
    };
    let tried = |span: &str| runs(span) || DRILLS.iter().any(|drill| drill.tries.contains(&span));
    let is_command = |span: &&String| COMMANDS.iter().any(|begin| span.starts_with(begin)) && !span.ends_with(".md");
    let spans = spans(&page);
    let untried: Vec<&String> = spans.iter().filter(is_command).filter(|span| !tried(span)).collect();
    assert!(untried.is_empty(), "said, but not tried: {untried:?}");
    assert!(spans.iter().filter(is_command).count() > 15, "{spans:?}");
}

/// What stands between back quotes outside of blocks, each on one line.
fn spans(page: &str) -> Vec<String> {
    let mut text = String::new();
    let mut inside = false;
    for line in page.lines() {
        match line.starts_with("```") {
            true => inside = !inside,
            false if !inside => text.push_str(&format!("{line}\n")),
            false => {}
        }
    }
    text.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect()
}

/// The page's commands as one script that says what it is about to run.
fn commands(page: &str) -> String {
    let mut script = format!("{PROLOGUE}{FUNCTIONS}");
    let mut inside = false;
    let mut section = String::new();
    for line in page.lines().chain(["## "]) {
        match line {
            "```console" => inside = true,
            _ if line.starts_with("```") => inside = false,
            _ if !inside => {
                if let Some(next) = line.strip_prefix("## ") {
                    for drill in DRILLS.iter().filter(|drill| drill.section == section) {
                        script.push_str(&format!("echo '=== {}'\n{}\n", drill.tries.join(", "), drill.script));
                    }
                    next.clone_into(&mut section);
                }
            }
            _ => {
                if let Some(command) = line.strip_prefix("$ ") {
                    script.push_str(&format!("echo '--- {}'\n{command}\n", command.replace('\'', " ")));
                    for (_, check) in EFFECTS.iter().filter(|(of, _)| *of == command) {
                        script.push_str(&format!("echo '=== {}'\n{check}\n", check.replace('\'', " ")));
                    }
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
    (0..7).map(tail).collect()
}
