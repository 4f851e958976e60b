//! Three brokers whose replication, quorum and requests to the controller go over one listener with mutual TLS, while
//! clients use plain text.

use std::io::{Read, Write};
use std::net::TcpStream;

use klamm_tests::{Cluster, Output, Peer, Plan, Tool, assert_contains, eventually, paths, unique};

use crate::authority::{self, Authority, client, connect, replace};

fn klamm(cluster: &Cluster, line: &str) -> Tool {
    Tool::new(paths::klamm()).args(line.split_whitespace()).args(["--bootstrap", &cluster.bootstrap()])
}

fn produce(cluster: &Cluster, topic: &str, from: u32) -> u32 {
    let to = from + 500;
    let values: String = (from..to).map(|n| format!("value {n}\n")).collect();
    klamm(cluster, &format!("produce {topic}")).stdin(values).ok();
    to
}

#[track_caller]
fn all_there(cluster: &Cluster, topic: &str, count: u32) {
    let Output { out, .. } = klamm(cluster, &format!("consume {topic} --from-beginning -n {count}")).ok();
    let mut got: Vec<&str> = out.lines().collect();
    let mut expected: Vec<String> = (0..count).map(|n| format!("value {n}")).collect();
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected);
}

fn metrics(admin: &str) -> String {
    let mut stream = TcpStream::connect(admin).expect("the admin listener");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

/// Waits until every node's log holds `text` `times`.
#[track_caller]
fn all_log(cluster: &Cluster, text: &str, times: usize) {
    for id in cluster.ids() {
        eventually(&format!("node {id} logs {text:?}"), 30, || {
            (cluster.log(id).matches(text).count() >= times).then_some(())
        });
    }
}

#[test]
fn nodes_use_tls_and_strangers_stay_outside_while_certificates_change() {
    let dir = authority::directory();
    let ours = Authority::new("ours");
    replace(&dir.join("ca.pem"), &ours.pem());
    let first = ours.sign("node");
    replace(&dir.join("node.pem"), &first);
    let mut plan = Plan { peer: Peer::Klamm, ..Plan::default() }
        .set("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:SSL")
        .set("inter.broker.listener.name", "CONTROLLER");
    for (key, value) in authority::settings(&dir) {
        plan = plan.set(&format!("listener.name.controller.{key}"), &value);
    }
    let mut cluster = Cluster::start(plan);
    let topic = unique("tls");
    klamm(&cluster, &format!("topics create {topic} --partitions 3")).ok();
    let mut sent = produce(&cluster, &topic, 0);
    all_there(&cluster, &topic, sent);
    all_log(&cluster, "a node has connected", 1);
    assert_contains(&cluster.log(0), "CN=node");

    // Another kind of stranger at each door: each is refused with one line that says what it lacks.
    let refusal = "TLS handshake refused";
    let doors = [
        (None, "does the client speak plain text?"),
        (Some(client(&ours, None)), "the client shows no certificate"),
        (Some(client(&ours, Some(&Authority::new("theirs").sign("node")))), "the client's certificate: "),
    ];
    for (id, (stranger, why)) in doors.into_iter().enumerate() {
        let address = cluster.controller_address(id);
        for _ in 0..3 {
            connect(&address, stranger.clone()).expect_err("a stranger");
        }
        let line = eventually("the refusal", 10, || {
            Some(cluster.log(id).lines().find(|line| line.contains(refusal))?.to_owned())
        });
        assert_contains(&line, why);
        assert_eq!(cluster.log(id).matches(refusal).count(), 1, "{}", cluster.log(id));
        connect(&address, Some(client(&ours, Some(&first)))).expect("one of us");
    }
    sent = produce(&cluster, &topic, sent);

    // What is broken is not taken over.
    replace(&dir.join("node.pem"), "-----BEGIN CERTIFICATE-----\n");
    all_log(&cluster, "changed certificates cannot be used", 1);
    connect(&cluster.controller_address(0), Some(client(&ours, Some(&first)))).expect("still open");

    // To another authority in three steps, and nobody stops: trust both, show the new, trust the new only.
    let new = Authority::new("new");
    let changed = "certificates changed; new connections use them";
    replace(&dir.join("ca.pem"), &(ours.pem() + &new.pem()));
    replace(&dir.join("node.pem"), &first);
    all_log(&cluster, changed, 1);
    let settled = |cluster: &Cluster| cluster.ids().iter().map(|id| cluster.log(*id).matches(changed).count()).max();
    let second = new.sign("second");
    replace(&dir.join("node.pem"), &second);
    all_log(&cluster, "subject=\"CN=second\"", 1);
    for id in cluster.ids() {
        let show = client(&new, Some(&first));
        connect(&cluster.controller_address(id), Some(show)).expect("the new is shown, the old still trusted");
    }
    let times = settled(&cluster).unwrap_or_default() + 1;
    replace(&dir.join("ca.pem"), &new.pem());
    all_log(&cluster, changed, times);
    for id in cluster.ids() {
        connect(&cluster.controller_address(id), Some(client(&new, Some(&first)))).expect_err("no longer trusted");
        connect(&cluster.controller_address(id), Some(client(&new, Some(&second)))).expect("trusted");
    }
    assert_contains(&metrics(&cluster.admin(0)), "klamm_certificate_expiry_seconds{listener=\"CONTROLLER\"} ");
    sent = produce(&cluster, &topic, sent);
    // A node that starts again comes in with the new certificate.
    cluster.restart(1);
    cluster.until_up(1, 3);
    sent = produce(&cluster, &topic, sent);
    all_there(&cluster, &topic, sent);
    assert_eq!(cluster.stop_all(), [0, 0, 0]);
}
