//! `examples/three-brokers/run`: one command for a cluster, tried as its README says.

use std::time::Duration;

use klamm_tests::{Peer, Tool, paths, wire};

const BOOTSTRAP: &str = "127.0.0.1:19092,127.0.0.1:29092,127.0.0.1:39092";

#[test]
fn the_example_starts_three_brokers_with_one_command_and_stops_them() {
    if Peer::chosen() != Peer::Klamm {
        return;
    }
    // Its ports are fixed, so it runs where nobody else has them.
    klamm_tests::isolated::isolated(
        "example::the_example_starts_three_brokers_with_one_command_and_stops_them",
        || {
            let folder = paths::tests_dir().parent().expect("the work tree").join("examples/three-brokers");
            let data = paths::scratch_dir("three");
            let mut run = Tool::new(folder.join("run")).arg(&data).env("KLAMM", paths::klamm()).dir(&data).start();
            let said = run.until("the bootstrap string", 60, |out| {
                Some(out.lines().find(|l| l.contains("--bootstrap"))?.to_owned())
            });
            assert!(said.contains(BOOTSTRAP), "{said}");
            klamm_tests::eventually("three brokers", 30, || {
                (wire::brokers("127.0.0.1:39092").ok()? == 3).then_some(())
            });
            let klamm = |args: &[&str]| Tool::new(paths::klamm()).args(args).args(["--bootstrap", BOOTSTRAP]);
            klamm(&["topics", "create", "greetings", "--partitions", "3"]).ok();
            klamm(&["produce", "greetings"]).stdin("hello\n").ok();
            klamm(&["topics", "describe", "greetings"]).ok().expect("greetings");
            // Ctrl-C is SIGINT; a shell without a terminal may be told by SIGTERM as well.
            run.signal("TERM");
            let ended = run.wait(Duration::from_secs(30));
            assert!(ended.is_some_and(|s| s.code() == Some(0)), "{ended:?}: {}", run.stderr());
            assert!(wire::brokers("127.0.0.1:19092").is_err(), "a broker is left behind");
        },
    );
}
