//! Figures, by hand: `cargo test --release -p klamm-log --test figures -- --ignored --nocapture --test-threads 1`.
//!
//! CPU time of this thread from /proc, so that other work on the machine matters less.

mod common;

use common::*;
use klamm_log::{Log, LogConfig, RealDisk, Recovery};

/// CPU nanoseconds of this thread.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn measure(what: &str, rounds: u32, mut f: impl FnMut(u32)) {
    let mut best = u64::MAX;
    for _ in 0..5 {
        let before = cpu_ns();
        for i in 0..rounds {
            f(i);
        }
        best = best.min((cpu_ns() - before) / u64::from(rounds));
    }
    println!("{what}: {:.2} us CPU", best as f64 / 1e3);
}

fn fresh(dir: &std::path::Path) -> Log {
    open(dir, LogConfig::default())
}

#[test]
#[ignore = "prints figures; run by hand in release"]
fn append_and_read() {
    let tmp = tempfile::tempdir_in(std::env::var_os("KLAMM_FIGURES_DIR").unwrap_or("/tmp".into())).unwrap();
    for (name, len, rounds) in
        [("100 B", 30, 20_000), ("1 KiB", 950, 20_000), ("16 KiB", 16_300, 5_000), ("256 KiB", 262_000, 400)]
    {
        let mut log = fresh(&tmp.path().join(format!("a{len}-0")));
        let records = batch(1, len, 1_000);
        let total = records.len();
        measure(&format!("append {name} batch ({total} bytes)"), rounds, |_| {
            log.append_as_leader(&records, 0, 0).unwrap();
        });
        let mut sequence = -1;
        let mut log2 = fresh(&tmp.path().join(format!("b{len}-0")));
        let batches: Vec<_> = (0..rounds as i32).map(|i| batch_of(1, 0, i, 1, 5)).collect();
        if name == "100 B" {
            measure("append one-record idempotent batch", rounds, |i| {
                sequence += 1;
                if i == 0 && sequence > 0 {
                    log2.truncate_fully_and_start_at(0, 0).unwrap();
                }
                log2.append_as_leader(&batches[i as usize], 0, 0).unwrap();
            });
        }
        let end = log.log_end_offset();
        let mut offset = 0;
        measure(&format!("read on, 1 MiB of {name} batches"), 20_000, |_| {
            let result = log.read(offset, 1 << 20, end, true).unwrap();
            offset = if result.next_offset >= end { 0 } else { result.next_offset };
        });
        let mut at = 7;
        measure(&format!("read at a random offset of {name} batches"), 20_000, |_| {
            at = (at * 1_103_515_245 + 12_345) % end;
            log.read(at, 1 << 20, end, true).unwrap();
        });
        let direct = {
            let file = std::fs::File::create(tmp.path().join("direct")).unwrap();
            let mut position = 0;
            let mut best = u64::MAX;
            for _ in 0..5 {
                let before = cpu_ns();
                for _ in 0..rounds {
                    for part in records.chunks(256 * 1024) {
                        std::os::unix::fs::FileExt::write_all_at(&file, part, position).unwrap();
                        position += part.len() as u64;
                    }
                }
                best = best.min((cpu_ns() - before) / u64::from(rounds));
            }
            best
        };
        println!("  bare pwrite of the same bytes: {:.2} us CPU", direct as f64 / 1e3);
    }
}

#[test]
#[ignore = "prints figures; run by hand in release"]
fn many_partitions_and_recovery() {
    let tmp = tempfile::tempdir_in(std::env::var_os("KLAMM_FIGURES_DIR").unwrap_or("/tmp".into())).unwrap();
    let rss = || {
        let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = text.lines().find(|l| l.starts_with("Rss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let count = 5_000;
    let config = std::sync::Arc::new(LogConfig::default());
    let new = |name: &str, recovery: Recovery| {
        Log::open(RealDisk::shared(), &tmp.path().join(name), TOPIC, config.clone(), recovery, 0).unwrap()
    };
    let (before, memory) = (cpu_ns(), rss());
    let mut logs: Vec<Log> = (0..count).map(|i| new(&format!("t-{i}"), Recovery::default())).collect();
    println!(
        "create {count} empty partitions: {:.1} us CPU, {:.2} kB RSS each",
        (cpu_ns() - before) as f64 / 1e3 / f64::from(count),
        (rss() - memory) as f64 / f64::from(count)
    );
    let records = batch(16, 1_000, 5);
    for log in &mut logs[..2_000] {
        for _ in 0..60 {
            log.append_as_leader(&records, 0, 0).unwrap();
        }
    }
    let bytes: u64 = logs.iter().map(Log::size).sum();
    for log in &mut logs {
        log.close_idle_files().unwrap();
        log.close_idle_files().unwrap();
    }
    println!("idle again after writing: {:.2} kB RSS each", (rss() - memory) as f64 / f64::from(count));
    for clean in [false, true] {
        if clean {
            for log in &mut logs {
                log.close(true).unwrap();
            }
        }
        logs.clear();
        let before = cpu_ns();
        for i in 0..count {
            logs.push(new(&format!("t-{i}"), Recovery { clean, ..Recovery::default() }));
        }
        println!(
            "open {count} partitions, {} MB in 2,000 of them, clean {clean}: {:.3} s CPU",
            bytes >> 20,
            (cpu_ns() - before) as f64 / 1e9
        );
    }
}
