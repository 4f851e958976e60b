//! Configuration that is wrong stops the start, naming the key, the value and the reason.

use klamm_tests::{Peer, Tool, assert_contains, paths};

/// Starts `klamm broker` with one more setting and gives what it says when it refuses.
#[track_caller]
fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let dir = paths::scratch_dir("settings");
    let mut tool = Tool::new(paths::klamm())
        .args(["broker", "--set", "listeners=PLAINTEXT://127.0.0.1:0", "--set", "klamm.admin.listener=127.0.0.1:0"])
        .args(["--set", &format!("log.dirs={}", dir.join("data").display())])
        .args(arguments)
        .limit(20);
    for (key, value) in environment {
        tool = tool.env(key, value);
    }
    let output = tool.run();
    assert_eq!(output.code, 2, "bad configuration exits with 2: {output}");
    assert!(!output.text().contains("panicked"), "{output}");
    output.text()
}

#[test]
fn an_unknown_key_or_a_bad_value_stops_the_start_and_says_why() {
    if Peer::chosen() != Peer::Klamm {
        return;
    }
    for (key, value) in [
        ("no.such.key", "1"),
        ("num.partitions", "many"),
        ("num.partitions", "0"),
        ("num.partitions", ""),
        ("log.retention.ms", "99999999999999999999"),
        ("log.segment.bytes", "1"),
        ("auto.create.topics.enable", "maybe"),
        ("log.cleanup.policy", "burn"),
        ("compression.type", "rar"),
        ("listeners", "PLAINTEXT:/127.0.0.1:9092"),
        ("listeners", "CARRIER-PIGEON://127.0.0.1:9092"),
        ("listeners", "PLAINTEXT://127.0.0.1:99999"),
        ("klamm.admin.listener", "nowhere"),
        ("klamm.no.such.key", "1"),
        ("node.id", "-7"),
    ] {
        let text = refused(&["--set", &format!("{key}={value}")], &[]);
        assert_contains(&text, key);
        assert_contains(&text, value);
        assert!(text.lines().count() <= 3, "{key}={value}: one line says it all:\n{text}");
    }
}

#[test]
fn the_file_and_the_environment_are_held_to_the_same_rules() {
    if Peer::chosen() != Peer::Klamm {
        return;
    }
    let file = paths::scratch_dir("settings-file").join("server.properties");
    std::fs::write(&file, "# a comment\nnum.partitions=3\nno.such.key = 7\n").expect("the file");
    let text = refused(&["--config", &file.display().to_string()], &[]);
    assert_contains(&text, "no.such.key");
    let text = refused(&["--config", "/no/such/file"], &[]);
    assert_contains(&text, "/no/such/file");
    let text = refused(&[], &[("KLAMM_NUM_PARTITIONS", "many")]);
    assert_contains(&text, "num.partitions");
    let text = refused(&["--set", "no-equals-sign"], &[]);
    assert_contains(&text, "no-equals-sign");
}

#[test]
fn a_log_directory_that_can_not_be_used_is_a_storage_failure() {
    if Peer::chosen() != Peer::Klamm {
        return;
    }
    let file = paths::scratch_dir("settings-dir").join("a-file");
    std::fs::write(&file, "in the way").expect("the file");
    let output = Tool::new(paths::klamm())
        .args(["broker", "--set", "listeners=PLAINTEXT://127.0.0.1:0", "--set", "klamm.admin.listener=127.0.0.1:0"])
        .args(["--set", &format!("log.dirs={}", file.display())])
        .limit(20)
        .run();
    assert_eq!(output.code, 3, "{output}");
    assert_contains(&output.text(), &file.display().to_string());
}
