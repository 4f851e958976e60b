//! The signals that a broker heeds, and those that whoever started it wants ignored.

use std::time::Duration;

use klamm_tests::{Process, Tool, eventually, paths, ports, wire};

/// A broker of its own, started through `wrapper`.
fn start(wrapper: &[&str]) -> Process {
    let port = ports::free_port();
    let klamm = paths::klamm().display().to_string();
    let dir = paths::scratch_dir("signals");
    let settings = [
        format!("log.dirs={}", dir.join("data").display()),
        format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{}", ports::free_port()),
        "controller.listener.names=CONTROLLER".into(),
        "klamm.admin.listener=".into(),
    ];
    let mut line: Vec<&str> = wrapper.to_vec();
    line.extend([klamm.as_str(), "broker"]);
    let mut tool = Tool::new(line[0]).args(&line[1..]).dir(&dir);
    for setting in &settings {
        tool = tool.args(["--set", setting]);
    }
    let process = tool.start();
    let address = format!("127.0.0.1:{port}");
    eventually("a broker that answers", 30, || wire::brokers(&address).ok());
    process
}

#[test]
fn a_broker_stops_in_order_on_each_signal_that_asks_for_it() {
    for signal in ["TERM", "INT", "HUP"] {
        // The tests themselves may have been started by `nohup`.
        let mut broker = start(&["env", "--default-signal=INT,HUP"]);
        broker.signal(signal);
        let status = broker.wait(Duration::from_secs(10)).unwrap_or_else(|| panic!("still there after {signal}"));
        assert_eq!(status.code(), Some(0), "{signal}: {}", broker.stderr());
    }
}

#[test]
fn a_broker_under_nohup_outlives_its_terminal() {
    let mut broker = start(&["nohup"]);
    broker.signal("HUP");
    assert!(broker.wait(Duration::from_secs(1)).is_none(), "ended: {}", broker.stderr());
    broker.signal("TERM");
    let status = broker.wait(Duration::from_secs(10)).expect("it stops");
    assert_eq!(status.code(), Some(0), "{}", broker.stderr());
}
