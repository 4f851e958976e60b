//! `klamm log`, on the files that a broker leaves behind (also Apache's: the format is the same).

use klamm_tests::broker::Broker;
use klamm_tests::paths;
use klamm_tests::process::Tool;
use serde_json::{Value, json};

use crate::{parse, refused};

fn klamm(arguments: &[&str]) -> Tool {
    Tool::new(paths::klamm()).args(arguments).limit(60)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(parse).collect()
}

#[test]
fn files_are_shown_and_damage_is_explained() {
    let mut broker = Broker::start(&[]);
    let bootstrap = broker.bootstrap().to_owned();
    let ask = |arguments: &[&str]| klamm(arguments).args(["-b", &bootstrap]);
    ask(&["topics", "create", "seen", "--partitions", "1"]).ok();
    ask(&["topics", "create", "empty", "--partitions", "2"]).ok();
    let text: String = (0..300).map(|i| format!("key-{i}:value-{i}\n")).collect();
    ask(&["produce", "seen", "--key-separator", ":", "--compression", "gzip"]).stdin(text).ok();
    ask(&["produce", "seen", "--key-separator", ":"]).stdin("last:\u{1b}[31mred\n").ok();
    assert_eq!(broker.stop(), 0);
    let data = broker.data();
    let dir = data.join("seen-0");
    let dir = dir.to_str().unwrap();

    klamm(&["log", "verify", dir]).ok().expect("seen-0");
    let all = parse(&klamm(&["log", "verify", data.to_str().unwrap(), "-o", "json"]).ok().out);
    let of = |name: &str| {
        let ends = |p: &&Value| p["dir"].as_str().is_some_and(|dir| dir.ends_with(name));
        all.as_array().unwrap().iter().find(ends).unwrap_or_else(|| panic!("{name}: {all}")).clone()
    };
    let seen = of("/seen-0");
    assert_eq!((&seen["records"], &seen["end_offset"], &seen["problems"]), (&json!(301), &json!(301), &json!([])));
    assert_eq!(of("/empty-1")["records"], json!(0));

    let records = lines(&klamm(&["log", "dump", dir, "-o", "json"]).ok().out);
    let keys: Vec<_> = records.iter().map(|r| (r["offset"].as_i64().unwrap(), r["key"].as_str().unwrap())).collect();
    assert_eq!((keys.len(), keys[0], keys[299], keys[300]), (301, (0, "key-0"), (299, "key-299"), (300, "last")));
    let batches = lines(&klamm(&["log", "dump", dir, "--batches", "-o", "json"]).ok().out);
    assert_eq!(batches.iter().map(|b| b["records"].as_i64().unwrap()).sum::<i64>(), 301);
    assert_eq!(batches[0]["compression"], json!("gzip"));
    let tail = klamm(&["log", "dump", dir, "--from", "300"]).ok();
    assert!(tail.out.contains("offset 300") && !tail.out.contains("offset 299 "), "{tail}");
    assert!(tail.out.contains("\\u{1b}[31mred") && !tail.out.contains('\u{1b}'), "no control sequence may pass");
    let mark = klamm(&["log", "dump", &format!("{dir}/partition.metadata")]).ok();
    mark.expect("topic_id ");

    // A flipped bit in the first batch: its place is told, and what is behind it is still counted.
    let segment = format!("{dir}/00000000000000000000.log");
    let good = std::fs::read(&segment).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    std::fs::write(&segment, &bad).unwrap();
    let damaged = klamm(&["log", "verify", dir]).run();
    refused(&damaged, 1, "damaged in 1 places");
    assert!(damaged.out.contains(", byte 0, offset 0: CRC is "), "{damaged}");
    assert!(damaged.out.contains("Sound batches follow from byte "), "{damaged}");
    let problem = &parse(&klamm(&["log", "verify", dir, "-o", "json"]).run().out)[0]["problems"][0];
    assert_eq!((&problem["severity"], &problem["position"]), (&json!("damage"), &json!(0)));
    refused(&klamm(&["log", "dump", dir]).run(), 1, "klamm log verify");
    // A cut tail.
    std::fs::write(&segment, &good[..good.len() - 3]).unwrap();
    let cut = klamm(&["log", "verify", dir]).run();
    refused(&cut, 1, "damaged");
    assert!(cut.out.contains("offset 300: ") && cut.out.contains("No sound batch follows"), "{cut}");
    std::fs::write(&segment, &good).unwrap();
    // Files that are made again are told apart.
    std::fs::write(format!("{dir}/leader-epoch-checkpoint"), "nonsense").unwrap();
    let garbled = klamm(&["log", "verify", dir]).run();
    refused(&garbled, 1, "no record is damaged");
    assert!(garbled.out.contains("leader-epoch-checkpoint: it is garbled"), "{garbled}");

    refused(&klamm(&["log", "verify", "/nonexistent"]).run(), 1, "/nonexistent: ");
    refused(&klamm(&["log", "verify", paths::klamm().parent().unwrap().to_str().unwrap()]).run(), 1, "holds neither");
    refused(&klamm(&["log", "dump", "/etc/hostname"]).run(), 1, "not a file of a log");
}
