//! What operators may do that tests start: what the chart gives one with these flags, and nothing else, so that a missing
//! right shows wherever it is needed first.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use klamm_tests::{Tool, paths, unique};
use serde_json::{Value, json};

use crate::charts::chart;
use crate::kubernetes::control::program;
use crate::kubernetes::identity::pki;
use crate::kubernetes::kubectl::kubectl;
use crate::kubernetes::{API, Namespace};

/// A service account with the rights of the chart.
#[derive(Clone, Debug)]
pub struct Account {
    /// As the API server calls it.
    pub user: String,
    /// A kubeconfig with its token.
    pub kubeconfig: String,
}

/// Where the accounts are of operators without a Lease: apart from what they look after, as in a chart's release.
static HOME: LazyLock<Namespace> = LazyLock::new(|| Namespace::new("operators"));

/// The account of an operator that looks after these namespaces, or all if there are none. The same again for the next
/// one like it.
#[track_caller]
pub fn of(spaces: &[&Namespace], flags: &[&str]) -> Account {
    static GIVEN: Mutex<BTreeMap<String, Account>> = Mutex::new(BTreeMap::new());
    let watched: Vec<&str> = spaces.iter().map(|space| space.name()).collect();
    let home = value(flags, "--namespace").unwrap_or_else(|| HOME.name());
    let mut set = vec!["crds.create=false".to_owned()];
    if !watched.is_empty() {
        set.push(format!("watchNamespaces={{{}}}", watched.join(",")));
    }
    if let Some(controllers) = value(flags, "--controllers") {
        set.push(format!("controllers={{{controllers}}}"));
    }
    if let Some(allowed) = value(flags, "--allow-scale-targets") {
        set.push(format!("scaleTargets.allowed={allowed}"));
    }
    let key = format!("{home} {set:?}");
    let mut given = GIVEN.lock().expect("no other test has failed here");
    given.entry(key).or_insert_with(|| give(home, &set)).clone()
}

/// The value of a flag, written as one word or as two.
fn value<'a>(flags: &[&'a str], name: &str) -> Option<&'a str> {
    let at = flags.iter().position(|flag| flag.split('=').next() == Some(name))?;
    flags[at].split_once('=').map(|(_, value)| value).or_else(|| flags.get(at + 1).copied())
}

fn give(home: &str, set: &[String]) -> Account {
    let release = unique("op");
    let helm =
        Tool::new(program("helm")).args(["template", &release, "--namespace", home]).arg(chart("klamm-operator"));
    let parts = ["rbac", "serviceaccount"].map(|part| format!("--show-only=templates/{part}.yaml"));
    let rendered = helm.args(parts).args(set.iter().flat_map(|value| ["--set", value])).ok().out;
    // A release that is installed later is not to take these for another one that looks after the same.
    let rendered: Vec<&str> = rendered.lines().filter(|line| !line.trim_start().starts_with("klamm.dev/")).collect();
    kubectl(["apply", "-f", "-"]).stdin(rendered.join("\n")).ok();
    let name = format!("{release}-klamm-operator");
    let token = kubectl(["create", "token", &name, "--namespace", home, "--duration=24h"]).ok().out;
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "own",
        "clusters": [{ "name": "own", "cluster": { "server": API, "certificate-authority": pki("ca.crt") } }],
        "users": [{ "name": "own", "user": { "token": token.trim() } }],
        "contexts": [{ "name": "own", "context": { "cluster": "own", "user": "own" } }],
    });
    let file = paths::scratch_dir("account").join("kubeconfig");
    std::fs::write(&file, config.to_string()).expect("written");
    Account { user: format!("system:serviceaccount:{home}:{name}"), kubeconfig: file.display().to_string() }
}

/// Another kubeconfig that leads the same way, for one who acts as an account and has its rights only.
#[track_caller]
pub fn acting_as(user: &str, kubeconfig: &str) -> String {
    let mut config: Value = serde_json::from_str(kubeconfig).expect("a kubeconfig");
    config["users"][0]["user"]["as"] = user.into();
    let file = paths::scratch_dir("account").join("kubeconfig");
    std::fs::write(&file, config.to_string()).expect("written");
    file.display().to_string()
}
