//! The machine's clock jumps an hour and a day, forth and back, under a running broker: nobody is expired, and retention
//! deletes nothing that is not old.
//!
//! A small library that a C compiler makes here comes between the process and its clock, so that only the broker's jumps.
//! Without a compiler, or with a static binary, the test says so and is skipped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm_tests::{Broker, Peer, Tool, paths, wait_for};

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t which, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    static int file = -1;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(which, at);
    if (which != CLOCK_REALTIME) return done;
    if (file < 0) { const char *name = getenv("CLOCK_SHIFT"); file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1; }
    char text[32] = {0};
    if (file >= 0 && pread(file, text, sizeof text - 1, 0) > 0) at->tv_sec += atol(text);
    return done;
}
"#;

fn compiled(dir: &Path) -> Option<PathBuf> {
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, SHIM).expect("the source");
    let line =
        format!("command -v cc > /dev/null && cc -shared -fPIC -O1 -o {} {} -ldl", library.display(), source.display());
    (Tool::new("sh").args(["-c", &line]).run().code == 0).then_some(library)
}

fn kcat(broker: &Broker, line: &str) -> Tool {
    Tool::new("kcat").args(["-b", broker.bootstrap()]).args(line.split_whitespace())
}

#[test]
fn a_clock_that_jumps_expires_nobody_and_deletes_nothing() {
    if Peer::chosen() != Peer::Klamm || klamm_tests::broker::nodes() > 1 {
        return;
    }
    let dir = paths::scratch_dir("clock");
    let Some(shim) = compiled(&dir) else {
        println!("figures R13 clock jumps: skipped, no C compiler");
        return;
    };
    let shift = dir.join("shift");
    std::fs::write(&shift, "0\n").expect("the shift");
    let (preload, variable) = (format!("LD_PRELOAD={}", shim.display()), format!("CLOCK_SHIFT={}", shift.display()));
    let settings = [
        ("log.retention.check.interval.ms", "500"),
        ("log.segment.bytes", "1048576"),
        ("log.cleaner.backoff.ms", "500"),
        ("producer.id.expiration.ms", "600000"),
        ("connections.max.idle.ms", "600000"),
        ("log.flush.scheduler.interval.ms", "500"),
    ];
    let mut broker = Broker::start_as(Peer::Klamm, &settings, &["env", &preload, &variable]);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", broker.pid())).unwrap_or_default();
    if !maps.contains("shim.so") {
        println!("figures R13 clock jumps: skipped, nothing comes between this binary and its clock");
        return;
    }
    let klamm = |broker: &Broker, line: &str| {
        Tool::new(paths::klamm()).args(["-b", broker.bootstrap()]).args(line.split_whitespace()).ok()
    };
    klamm(&broker, "topics create kept --partitions 1 --config retention.ms=3000000 --config flush.ms=1000");
    let line = |i: usize| format!("{i} {}", "x".repeat(700));
    let produce_to = |broker: &Broker, topic: &str, range: std::ops::Range<usize>| {
        let lines: Vec<String> = range.map(line).collect();
        let to = format!("-P -t {topic} -p 0 -X acks=all -X enable.idempotence=true");
        kcat(broker, &to).stdin(lines.join("\n")).ok();
    };
    let produce = |broker: &Broker, range| produce_to(broker, "kept", range);
    // Its records are stamped by the broker's clock, also while that is back.
    let config = "--config retention.ms=-1 --config flush.ms=1000 --config message.timestamp.type=LogAppendTime";
    klamm(&broker, &format!("topics create stamped --partitions 1 {config}"));
    let mut stamped = 0;
    // Two segments: retention may take the first, and rolls the last when that is due.
    produce(&broker, 0..2500);
    // A member of a group, and a producer that goes on with its sequence numbers.
    let mut member =
        kcat(&broker, "-G jumpers -X session.timeout.ms=6000 -X heartbeat.interval.ms=1000 -q kept").start();
    let describe = |broker: &Broker| {
        let asked = ["-b", broker.bootstrap(), "groups", "describe", "jumpers", "-o", "json"];
        let out = Tool::new(paths::klamm()).args(asked).run();
        let group: serde_json::Value = (out.code == 0).then(|| serde_json::from_str(&out.out).ok())??;
        group.to_string().contains("kept").then_some(group)
    };
    let member_id = |group: &serde_json::Value| {
        let text = group.to_string();
        let at = text.find("member_id").unwrap_or(0);
        text[at..].split('"').nth(2).unwrap_or_default().to_owned()
    };
    let before = klamm_tests::eventually("a member", 30, || describe(&broker).filter(|g| !member_id(g).is_empty()));
    let mut produced = 2500;
    let mut jumps = 0;
    let long = std::env::var_os("KLAMM_LONG").is_some();
    let all = [3_600i64, 0, -3_600, 0, 86_400, 0, -86_400, 0];
    for seconds in if long { all.to_vec() } else { vec![3_600, 0, 86_400, 0, -86_400, 0] } {
        std::fs::write(&shift, format!("{seconds}\n")).expect("the clock is set");
        let words = if seconds == 0 { "is back where it was" } else { "clock has jumped" };
        jumps += usize::from(seconds != 0);
        let said = wait_for(Duration::from_secs(10), || {
            let times = broker.log().matches(words).count();
            (times >= jumps).then_some(())
        });
        assert!(said.is_some(), "by {seconds} s: the broker has not noticed\n{}", broker.log());
        // Several rounds of retention, and a whole session of the member.
        std::thread::sleep(Duration::from_millis(match seconds {
            0 => 1000,
            3_600 if !long => 1500,
            _ => 6500,
        }));
        // While the clock is ahead the records are of its past, and taken. While it is back they are of its future, and
        // refused as Kafka does, beyond an hour: nobody's sequence numbers may suffer from that. Unless the topic stamps them
        // itself.
        let refuses = seconds <= -3_600;
        let topic = if refuses { "stamped" } else { "kept" };
        produce_to(&broker, topic, produced..produced + 10);
        if refuses {
            stamped += 10;
            let read = kcat(&broker, "-C -t stamped -p 0 -o beginning -e -q -f %o\\n").ok();
            assert_eq!(read.lines().len(), stamped, "by {seconds} s: produced while the clock is back");
        } else {
            produced += 10;
        }
        let read = kcat(&broker, "-C -t kept -p 0 -o beginning -e -q -f %o\\n").ok();
        assert_eq!(read.lines().len(), produced, "by {seconds} s: {:?}", read.lines().first());
        let now = describe(&broker).expect("the group");
        assert_eq!(member_id(&now), member_id(&before), "by {seconds} s: the member was expired: {now}");
        assert!(member.ended().is_none(), "by {seconds} s: the member has gone");
    }
    member.kill();
    println!(
        "figures R13 clock jumps: {jumps} jumps of an hour and a day forth and back, {produced} records with a retention of 50 minutes all there, {stamped} more written while it was back, the group's member stayed"
    );
    assert!(stamped > 0);
    assert_eq!(broker.stop(), 0);
}
