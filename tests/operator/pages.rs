//! The commands that pages of the documentation show, run as a user types them.

use klamm_tests::{Tool, paths};

use crate::kubernetes::control::program;
use crate::kubernetes::identity::as_admin;
use crate::kubernetes::image::static_binary;

/// The commands of a fenced block below a heading of a page, each on a line of its own.
pub fn commands(page: &str, heading: &str) -> Vec<String> {
    let text = std::fs::read_to_string(paths::tests_dir().join("..").join(page)).expect("the page");
    let below = text.split(&format!("\n## {heading}\n")).nth(1).expect("the heading");
    let block = below.split("```\n").nth(1).expect("a block");
    block.lines().map(String::from).collect()
}

/// A command line as a user types it, at the top of the repository.
pub fn shell(line: &str) -> Tool {
    let folder = |program: std::path::PathBuf| program.parent().expect("a folder").display().to_string();
    let programs = [folder(program("kubectl")), folder(static_binary("klamm-operator"))].join(":");
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let tool = as_admin(Tool::new("bash")).args(["-o", "pipefail", "-c", line]);
    tool.env("PATH", path).dir(paths::tests_dir().join("..")).limit(400)
}
