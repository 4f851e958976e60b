//! Exit codes and messages that don't depend on a working broker.

use std::io::Read;
use std::net::TcpListener;
use std::time::Instant;

use klamm_tests::paths;
use klamm_tests::process::Tool;

use crate::refused;

fn klamm(arguments: &[&str]) -> Tool {
    Tool::new(paths::klamm()).args(arguments).limit(30)
}

#[test]
fn version_and_help_are_printed() {
    klamm(&["--version"]).ok().expect("klamm 0.");
    for arguments in [&["help"][..], &["--help"], &["topics", "--help"], &["help", "consume"]] {
        klamm(arguments).ok().expect("Usage: klamm");
    }
}

#[test]
fn wrong_arguments_exit_with_two() {
    for arguments in
        [&["nonsense"][..], &["topics", "create"], &["topics", "list", "-o", "xml"], &["produce", "t", "--acks", "2"]]
    {
        refused(&klamm(arguments).run(), 2, "For more information, try '--help'");
    }
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let output = klamm(&["--bootstrap", "127.0.0.1:1", "topics", "list"]).run();
    refused(&output, 1, "cannot connect to 127.0.0.1:1");
    refused(&output, 1, "hint: is a broker running there?");
    refused(&klamm(&["-b", "127.0.0.1", "topics", "list"]).run(), 1, "expected host:port");
    refused(
        &klamm(&["-b", "127.0.0.1:1,127.0.0.1:2", "topics", "list"]).run(),
        1,
        "no broker of 127.0.0.1:1, 127.0.0.1:2",
    );
}

#[test]
fn a_listener_that_is_no_broker_does_not_hang_the_command() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("its address").to_string();
    let since = Instant::now();
    let output = klamm(&["-b", &address, "--timeout", "1", "topics", "list"]).run();
    refused(&output, 1, "no answer within 1s");
    assert!(since.elapsed().as_secs() < 10);

    let rude = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = rude.local_addr().expect("its address").to_string();
    let closing = std::thread::spawn(move || {
        let (mut stream, _) = rude.accept().expect("a client");
        let _ = stream.read(&mut [0; 64]);
    });
    refused(&klamm(&["-b", &address, "--timeout", "1", "topics", "list"]).run(), 1, "lost");
    closing.join().expect("the listener ends");
}

#[test]
fn a_file_without_end_is_refused() {
    let output = klamm(&["--command-config", "/dev/zero", "topics", "list"]).run();
    refused(&output, 2, "more than 1048576 bytes");
}
