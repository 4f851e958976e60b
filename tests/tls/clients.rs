//! Clients over an SSL listener: librdkafka by kcat, Java with PEM stores.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use klamm_tests::jvm::Java;
use klamm_tests::{Broker, Peer, Tool, assert_contains, eventually, paths, ports, unique};

use crate::authority::{self, Authority, client, connect, replace};

struct Secure {
    broker: Broker,
    address: String,
    dir: PathBuf,
    authority: Authority,
}

/// A broker with a second listener, of protocol SSL, and `client.pem` for its clients.
fn secure(more: &[(&str, &str)]) -> Secure {
    let mut broker = Broker::start_as(Peer::Klamm, &[], &[]);
    let dir = authority::directory();
    let authority = Authority::new("ours");
    replace(&dir.join("ca.pem"), &authority.pem());
    replace(&dir.join("node.pem"), &authority.sign("broker"));
    replace(&dir.join("client.pem"), &authority.sign("client"));
    let address = format!("127.0.0.1:{}", ports::free_port());
    broker.set("listeners", &format!("PLAINTEXT://{},SSL://{address}", broker.bootstrap()));
    for (key, value) in authority::settings(&dir) {
        broker.set(&key, &value);
    }
    for (key, value) in more {
        broker.set(key, value);
    }
    broker.restart();
    Secure { broker, address, dir, authority }
}

fn values() -> String {
    (0..20_000).map(|n| format!("value {n} {}\n", "x".repeat(n % 300))).collect()
}

#[test]
fn kcat_produces_and_consumes_with_a_certificate_and_not_without() {
    let Secure { broker, address, dir, authority } = secure(&[]);
    let topic = unique("kcat");
    let path = |name: &str| dir.join(name).display().to_string();
    let kcat = |line: &str| {
        Tool::new("kcat")
            .args(["-b", &address, "-X", "security.protocol=ssl"])
            .args(["-X", &format!("ssl.ca.location={}", path("ca.pem"))])
            .args(line.split_whitespace())
    };
    let own = format!("-X ssl.certificate.location={0} -X ssl.key.location={0}", path("client.pem"));
    let sent = values();
    kcat(&format!("-P -t {topic} -p 0 -X acks=all {own}")).stdin(sent.clone()).ok();
    assert!(kcat(&format!("-C -t {topic} -p 0 -o beginning -e -q {own}")).ok().out == sent);
    // The same records over the other listener.
    let plain = Tool::new("kcat").args(["-b", broker.bootstrap(), "-C", "-t", &topic, "-o", "beginning", "-e", "-q"]);
    assert!(plain.ok().out == sent);
    let file = dir.join("client.properties");
    let (ca, own) = (path("ca.pem"), path("client.pem"));
    let properties = format!(
        "security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={ca}\nssl.keystore.type=PEM\n\
         ssl.keystore.location={own}\n"
    );
    std::fs::write(&file, properties).expect("written");
    let klamm = |line: &str| Tool::new(paths::klamm()).args(line.split_whitespace()).args(["--bootstrap", &address]);
    let listed = klamm("topics list").arg("--command-config").arg(&file);
    assert_contains(&listed.ok().out, &topic);
    let read = klamm(&format!("consume {topic} --from-beginning --exit-at-end")).arg("--command-config").arg(&file);
    assert!(read.ok().out == sent);
    let refused = kcat("-L -m 5").run();
    assert!(!refused.out.contains("1 brokers"), "{}", refused.out);
    connect(&address, Some(client(&authority, None))).expect_err("no certificate");
    assert_contains(&broker.log(), "the client shows no certificate");
}

#[test]
fn java_clients_come_in_over_tls_1_2_and_1_3() {
    let Secure { broker: _running, address, dir, .. } = secure(&[("ssl.client.auth", "requested")]);
    for (version, with_own) in [("TLSv1.2", true), ("TLSv1.3", false)] {
        let topic = unique("java");
        let mut properties = format!(
            "security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={}\nssl.enabled.protocols={version}\n",
            dir.join("ca.pem").display()
        );
        if with_own {
            let own = dir.join("client.pem");
            properties += &format!("ssl.keystore.type=PEM\nssl.keystore.location={}\n", own.display());
        }
        let file = dir.join(format!("{version}.properties"));
        std::fs::write(&file, properties).expect("written");
        let java = |class: &str, flag: &str| {
            Java::new(class)
                .args(["--bootstrap-server", &address, "--topic", &topic, flag])
                .args([file.display().to_string()])
        };
        let sent = values();
        java("org.apache.kafka.tools.ConsoleProducer", "--command-config").stdin(sent.clone()).ok();
        let read = java("org.apache.kafka.tools.consumer.ConsoleConsumer", "--command-config")
            .args(["--from-beginning", "--max-messages", "20000", "--timeout-ms", "60000"])
            .ok();
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert!(sorted(&read.out) == sorted(&sent), "{version}");
    }
}

#[test]
fn a_listener_gets_another_certificate_by_its_dynamic_configuration() {
    let Secure { broker, address, dir, authority } = secure(&[("ssl.client.auth", "none")]);
    let new = Authority::new("new");
    replace(&dir.join("other.pem"), &new.sign("other"));
    connect(&address, Some(client(&authority, None))).expect("the first certificate");
    let klamm = |line: &str| {
        let line = line.replace("DIR", &dir.display().to_string());
        Tool::new(paths::klamm()).args(line.split_whitespace()).args(["--bootstrap", broker.bootstrap()])
    };
    let alter = "configs alter broker 0 --set listener.name.ssl.ssl.keystore.";
    // What cannot be honoured is refused, and changes nothing.
    let refused = klamm(&format!("{alter}type=JKS")).run();
    assert!(refused.code != 0 && refused.err.contains("only PEM is supported"), "{refused:?}");
    klamm(&format!("{alter}location=DIR/other.pem")).ok();
    eventually("the other certificate", 20, || connect(&address, Some(client(&new, None))).ok());
    connect(&address, Some(client(&authority, None))).expect_err("no longer shown");
    klamm("configs alter broker 0 --delete listener.name.ssl.ssl.keystore.location").ok();
    eventually("the first certificate again", 20, || connect(&address, Some(client(&authority, None))).ok());
}

#[test]
fn who_begins_a_handshake_and_does_not_go_on_is_let_go() {
    let Secure { broker, address, .. } = secure(&[]);
    let mut halves: Vec<TcpStream> = [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"]
        .iter()
        .map(|bytes| {
            let mut stream = TcpStream::connect(&address).expect("connected");
            stream.write_all(bytes).expect("written");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
            stream
        })
        .collect();
    let since = Instant::now();
    for stream in &mut halves {
        let mut rest = Vec::new();
        // An alert may come, then the end.
        stream.read_to_end(&mut rest).expect("the broker closes");
    }
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    assert_contains(&broker.log(), "no handshake within 10s");
}
