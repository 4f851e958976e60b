//! A Kubernetes that has ended leaves nothing: no process, mount, interface, network, control group or file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use klamm_tests::{eventually, wait_for};

use crate::kubernetes::image::SHELL;
use crate::kubernetes::machine::{self, Machine};
use crate::kubernetes::{Kubernetes, logs};

/// What a machine inside could leave on this one.
#[derive(Debug, PartialEq)]
struct Traces {
    mounts: usize,
    interfaces: BTreeSet<String>,
    groups: Vec<PathBuf>,
    processes: Vec<Started>,
    lock: bool,
}

/// A process, told from a later one of its number by when it began.
type Started = (u32, String);

fn started(pid: u32) -> Option<Started> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces: count from its end.
    let began = stat.rsplit(')').next()?.split_whitespace().nth(19)?.to_owned();
    Some((pid, began))
}

fn entries(dir: &str) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Those who share a namespace with a process. To be asked while it lives: numbers of namespaces are soon used again.
fn companions(first: u32) -> Vec<Started> {
    let spaces = |pid: u32| {
        let link = move |kind: &&str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        ["net", "mnt", "pid"].iter().filter_map(link).collect::<Vec<_>>()
    };
    let own = spaces(first);
    assert_eq!(own.len(), 3);
    let all = entries("/proc").filter_map(|path| path.file_name()?.to_str()?.parse().ok());
    all.filter(|&pid| spaces(pid).iter().any(|space| own.contains(space))).filter_map(started).collect()
}

/// What there is of the machine of that name, and which of the processes live.
fn traces(name: &str, processes: &[Started]) -> Traces {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts").lines().count();
    let interfaces = entries("/sys/class/net").filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let hierarchies = entries("/sys/fs/cgroup").chain(["/sys/fs/cgroup".into()]);
    Traces {
        mounts,
        interfaces: interfaces.collect(),
        groups: hierarchies.map(|dir| dir.join(name)).filter(|dir| dir.exists()).collect(),
        processes: processes.iter().filter(|old| started(old.0).as_ref() == Some(old)).cloned().collect(),
        lock: Path::new("/tmp").join(name).exists(),
    }
}

#[test]
fn nothing_is_left_of_a_cluster_with_pods() {
    if let Some(reason) = machine::refused() {
        println!("figures teardown::nothing_is_left_of_a_cluster_with_pods: skipped, no Kubernetes here: {reason}");
        return;
    }
    let before = traces("nothing", &[]);
    let mut kubernetes = Kubernetes::start(&logs().join("teardown"));
    kubernetes.add_nodes(1);
    // The account that a pod has by default can come a moment after the namespace.
    let run = ["run", "shell", "--image", SHELL, "--image-pull-policy=Never", "--", "sleep", "600"];
    kubernetes.until("a pod runs", 60, |k| {
        k.kubectl(&run).run();
        k.kubectl(&["wait", "--for=condition=Ready", "pod/shell", "--timeout=20s"]).run().code == 0
    });
    let name = kubernetes.machine().name().to_owned();
    let own = companions(kubernetes.machine().first());
    let there = traces(&name, &own);
    assert!(there.processes.len() > 12 && !there.groups.is_empty() && there.lock, "{there:?}");
    let since = Instant::now();
    kubernetes.stop();
    assert_eq!(traces(&name, &own), before);
    println!("figures teardown: nothing is left after {:.1} s", since.elapsed().as_secs_f64());
}

#[test]
fn a_machine_whose_holder_was_killed_is_cleared_away_by_the_next() {
    let test = "teardown::a_machine_whose_holder_was_killed_is_cleared_away_by_the_next";
    if let Some(reason) = machine::refused() {
        println!("figures {test}: skipped, no Kubernetes here: {reason}");
        return;
    }
    let machine = Machine::start();
    let (name, first) = (machine.name().to_owned(), machine.first());
    let other = machine.command().args(["sleep", "600"]).spawn();
    let mut other = other.expect("a process in there");
    let own = eventually("it is inside", 10, || Some(companions(first)).filter(|all| all.len() > 2));
    let there = traces(&name, &own);
    assert!(there.lock && !there.groups.is_empty(), "{there:?}");
    machine.kill_holder();
    assert!(wait_for(Duration::from_secs(10), || other.try_wait().ok().flatten()).is_some(), "it lives on");
    eventually("no process is left", 10, || traces(&name, &own).processes.is_empty().then_some(()));

    // Whoever begins a machine clears away what is left of it.
    let next = Machine::start();
    let left = traces(&name, &own);
    assert!(!left.lock && left.groups.is_empty(), "{left:?}");
    // One that is in use is not mistaken for one that was left.
    let third = Machine::start();
    assert!(traces(next.name(), &[]).lock && !traces(next.name(), &[]).groups.is_empty());
    third.stop();
    next.stop();
}
