//! Disks that are full or slow.
//!
//! Full: one broker's data lies on a small tmpfs with a ballast file that is removed later. Slow: `strace` makes every
//! write and sync of files of one broker take longer than `replica.lag.time.max.ms`, which leaves its sockets as they
//! are. With less it would be in sync by Kafka's rules whenever it has caught up to where the leader was a moment ago,
//! and everybody would wait for it.

use std::time::{Duration, Instant};

use klamm_tests::isolated::{isolated, small_disk};
use klamm_tests::{Cluster, Peer, Plan, Process, strace, wait_for};

use crate::history::{History, Outcome};
use crate::judge::{figure, judge, seed, taken_for_cut_off};
use crate::kills::pass;
use crate::view::View;
use crate::workload::Load;

#[test]
fn a_full_disk_stops_one_broker_and_harms_nothing() {
    isolated("disks::a_full_disk_stops_one_broker_and_harms_nothing", || {
        let seed = seed();
        let cluster = Cluster::prepare(Plan::default().set("log.segment.bytes", "1048576"));
        let small = 1;
        let data = cluster.data(small);
        std::fs::create_dir_all(&data).expect("a data directory");
        small_disk(&data, 96);
        let ballast = data.join("ballast");
        // Beside the data, a file that no broker knows; what is left fills within seconds.
        std::fs::write(&ballast, vec![1; 80 << 20]).expect("the ballast");
        let mut cluster = cluster.started();
        let view = View::of(&cluster);
        view.create(&mut cluster, "full", 3, &[]);
        let load = Load { value_bytes: 1000, rate: 700, ..Load::new("full", 3, seed) };
        let running = load.start(&cluster.bootstrap());
        let before = running.now_ms();
        let full = wait_for(Duration::from_secs(60), || {
            let log = cluster.log(small);
            (log.contains("No space left") || !cluster.alive(small)).then_some(())
        });
        assert!(full.is_some(), "the disk did not fill: {} acknowledged", running.acked());
        let filled_ms = running.now_ms();
        // The others are a majority with enough replicas: they go on.
        let writable = running.writable_since(filled_ms, Duration::from_secs(60));
        pass(Duration::from_secs(3));
        let said = cluster.log(small).contains("No space left");
        let ended = !cluster.alive(small);
        std::fs::remove_file(&ballast).expect("the ballast goes");
        let mut code = None;
        if ended {
            code = Some(cluster.stop(small).1);
            cluster.launch(small);
            cluster.until_up(small, 1);
        }
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
        let notes = format!(
            "full after {} ms, others writable {} ms later, the broker {}",
            filled_ms - before,
            writable.as_millis(),
            code.map_or("stayed".to_owned(), |code| format!("ended with {code}"))
        );
        let klamm = cluster.peer() == Peer::Klamm;
        judge("R10 full disk", cluster, &view, running, &notes);
        assert!(said, "the broker did not say that its disk is full");
        assert!(!klamm || code.is_none_or(|code| code == 3), "a full disk is a storage failure: {code:?}");
    });
}

/// The p99 of the time to an acknowledgement of records sent in a stretch of the run.
fn p99(history: &History, from_ms: u64, to_ms: u64) -> u32 {
    let inside = |ms: u32| (from_ms..to_ms).contains(&u64::from(ms));
    let acked = history.sends.iter().filter(|s| matches!(s.outcome, Outcome::Acked { .. }) && inside(s.sent_ms));
    let mut times: Vec<u32> = acked.map(|s| s.done_ms - s.sent_ms).collect();
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or(0)
}

/// How much longer a slow disk takes, and how far behind a replica may be to count as in sync.
const DELAY: Duration = Duration::from_secs(3);
const LAG: Duration = Duration::from_secs(2);

/// Makes a process's file writes slow until dropped; `None` when that is not permitted or `strace` not there.
fn slow_disk(pid: u32) -> Option<Process> {
    let calls = "pwrite64,pwritev,pwritev2,fdatasync,fsync,sync_file_range";
    strace::inject(pid, calls, &format!("delay_enter={}ms", DELAY.as_millis()), None)
}

#[test]
fn a_slow_disk_takes_its_broker_out_of_sync_and_nobody_else() {
    if !strace::is_installed() {
        println!("figures R12 slow disk: skipped, strace is not installed");
        return;
    }
    let seed = seed();
    let mut cluster = Cluster::start(Plan::default().set("replica.lag.time.max.ms", &LAG.as_millis().to_string()));
    let view = View::of(&cluster);
    view.create(&mut cluster, "slow", 3, &[]);
    let load = Load { rate: 300, members: 0, ..Load::new("slow", 3, seed) };
    let running = load.start(&cluster.bootstrap());
    running.more(1000, Duration::from_secs(60));
    let begun = running.now_ms();
    pass(Duration::from_secs(5));
    let normal_until = running.now_ms();
    let controller = view.controller(&mut cluster);
    let victim = (controller + 1) % 3;
    let Some(mut strace) = slow_disk(cluster.pid(victim).expect("a running node")) else {
        println!("figures R12 slow disk: skipped, strace may not attach here");
        return;
    };
    // Out of every ISR: its followers lag, and what it leads goes to others when it is fenced, or stays and is slow.
    let since = Instant::now();
    let out = wait_for(Duration::from_secs(40), || {
        let partitions = view.partitions(&mut cluster, "slow");
        let follows = partitions.values().filter(|p| p.leader != victim as i32);
        let (inside, all) =
            follows.fold((0, 0), |(inside, all), p| (inside + usize::from(p.isr.contains(&(victim as i32))), all + 1));
        (all > 0 && inside == 0).then_some(())
    });
    let shrunk = since.elapsed();
    // The partitions that it leads now are as slow as their leader, and so is what was on its way to it.
    let led: Vec<i32> =
        view.partitions(&mut cluster, "slow").values().filter(|p| p.leader == victim as i32).map(|p| p.index).collect();
    let slow_from = running.now_ms() + 1000;
    let mut back = 0;
    for _ in 0..figure(6, 30) {
        pass(Duration::from_secs(1));
        let partitions = view.partitions(&mut cluster, "slow");
        back += partitions.values().filter(|p| !led.contains(&p.index) && p.isr.contains(&(victim as i32))).count();
    }
    let slow_until = running.now_ms();
    strace.kill();
    let rejoined = view.until_in_sync(&mut cluster, Duration::from_secs(60));
    assert_eq!(taken_for_cut_off(&cluster), 0, "a slow disk is no cut");
    let history = judge(
        "R12 slow disk",
        cluster,
        &view,
        running,
        &format!(
            "a follower's file writes {DELAY:?} slower by strace: out of the ISRs after {shrunk:.1?}, back {rejoined:.1?} after"
        ),
    );
    let others = History {
        sends: history.sends.iter().filter(|s| !led.contains(&s.partition)).copied().collect(),
        ..History::default()
    };
    let (before, during) = (p99(&others, begun, normal_until), p99(&others, slow_from, slow_until));
    println!(
        "figures R12 slow disk: p99 of the partitions led by others {before} ms before, {during} ms with it out of the ISR"
    );
    assert!(out.is_some(), "a replica that lags stays in the ISR");
    assert_eq!(back, 0, "it is in an ISR again although it lags");
    // Waiting for it would take as long as its disk.
    assert!(during <= (2 * before).max(1000), "others wait for the slow disk: {during} ms, {before} ms without it");
}
