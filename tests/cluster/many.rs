//! P9: very many partitions on three brokers of one machine: what creating, keeping, losing and restarting them takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use klamm_client::Client;
use klamm_client::admin::topics::NewTopic;
use klamm_tests::{Cluster, Peer, Plan, eventually};

use crate::judge::{figure, http_get};
use crate::view::View;
use crate::workload::options;

const TOPICS: u64 = 10;

/// What a process takes: kibibytes that are its own, open files, processor time.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    kib: u64,
    files: u64,
    cpu: Duration,
}

fn taken(cluster: &Cluster, id: usize) -> Taken {
    let process = format!("/proc/{}", cluster.pid(id).expect("a process"));
    let status = std::fs::read_to_string(format!("{process}/status")).expect("its status");
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = anonymous.and_then(|kib| kib.trim().split(' ').next()?.parse().ok()).expect("its memory");
    let files = std::fs::read_dir(format!("{process}/fd")).expect("its files").count() as u64;
    let stat = std::fs::read_to_string(format!("{process}/stat")).expect("its times");
    let ticks = stat
        .rsplit_once(") ")
        .map(|(_, fields)| fields.split(' ').skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>());
    // A hundred a second on every Linux.
    Taken { kib, files, cpu: Duration::from_millis(ticks.expect("its ticks") * 10) }
}

/// The largest of what the brokers took since `before`.
fn growth(cluster: &Cluster, before: &BTreeMap<usize, Taken>) -> Taken {
    let mut most = Taken::default();
    for (id, before) in before {
        let now = taken(cluster, *id);
        most.kib = most.kib.max(now.kib.saturating_sub(before.kib));
        most.files = most.files.max(now.files.saturating_sub(before.files));
        most.cpu = most.cpu.max(now.cpu.saturating_sub(before.cpu));
    }
    most
}

#[track_caller]
fn ready(cluster: &Cluster, ids: &[usize]) {
    let ready = |id: &usize| http_get(&cluster.admin(*id), "/readyz").is_some_and(|text| text.starts_with("ready"));
    eventually("the brokers are ready", 120, || ids.iter().all(ready).then_some(()));
}

/// How many partitions each broker leads, by a broker that is there.
fn leaders(cluster: &Cluster, view: &View, ask: usize) -> Option<BTreeMap<i32, u64>> {
    let mut leaders = BTreeMap::new();
    let topics = view.metadata(cluster, ask, None)?.topics;
    for partition in topics.into_iter().filter(|t| !t.is_internal).flat_map(|t| t.partitions) {
        *leaders.entry(partition.leader_id).or_default() += 1;
    }
    Some(leaders)
}

#[test]
fn very_many_partitions_cost_little() {
    let count = figure(2_000, 10_000);
    let mut cluster = Cluster::start(Plan::default());
    let apache = cluster.peer() == Peer::Apache;
    let view = View::of(&cluster);
    let ids = cluster.ids();
    if !apache {
        ready(&cluster, &ids);
    }
    let before: BTreeMap<usize, Taken> = ids.iter().map(|id| (*id, taken(&cluster, *id))).collect();

    let since = Instant::now();
    view.run(async {
        let client = Client::connect(&cluster.bootstrap(), options()).await?;
        for n in 0..TOPICS {
            let partitions = i32::try_from(count / TOPICS).ok();
            client.create_topic(&NewTopic { name: format!("many-{n}"), partitions, ..Default::default() }).await?;
        }
        Ok::<_, klamm_client::ClientError>(())
    })
    .expect("the topics");
    match apache {
        true => drop(view.until_in_sync(&mut cluster, Duration::from_secs(120))),
        false => ready(&cluster, &ids),
    }
    let created = (since.elapsed(), growth(&cluster, &before));
    // Idle, with all there is of background work.
    let idle: BTreeMap<usize, Taken> = ids.iter().map(|id| (*id, taken(&cluster, *id))).collect();
    std::thread::sleep(Duration::from_secs(figure(5, 30)));
    let cpu = growth(&cluster, &idle).cpu.as_secs_f64() / figure(5, 30) as f64 * 100.0;
    let kept = growth(&cluster, &before);
    let micros = created.1.cpu.as_micros() as f64 / count as f64;
    let bytes = |taken: Taken| taken.kib as f64 * 1024.0 / count as f64;
    let made = format!(
        "{count} partitions of three replicas on three brokers: created and in sync in {:.1?}, {micros:.0} µs of processor a \
         replica, {:.0} bytes of memory each ({:.0} when created), {} open files in all; {cpu:.1} % of a processor idle",
        created.0,
        bytes(kept),
        bytes(created.1),
        kept.files,
    );
    if apache {
        println!("figures P9, Apache's: {made}");
        return;
    }

    let since = Instant::now();
    cluster.stop(2);
    let stopped = since.elapsed();
    cluster.launch(2);
    ready(&cluster, &[2]);
    let restarted = since.elapsed();
    view.run(async {
        let client = Client::connect(&cluster.bootstrap(), options()).await?;
        client.elect_leaders(klamm_client::admin::cluster::Election::Preferred, None).await.map(drop)
    })
    .expect("elections");

    let led = leaders(&cluster, &view, 0).and_then(|l| l.get(&1).copied()).unwrap_or(0);
    assert!(led >= count / 4, "broker 1 leads {led}");
    let since = Instant::now();
    cluster.kill(1);
    eventually("others lead", 60, || {
        leaders(&cluster, &view, 0).filter(|l| !l.contains_key(&1) && !l.contains_key(&-1))
    });
    let failed_over = since.elapsed();
    let since = Instant::now();
    cluster.launch(1);
    ready(&cluster, &[1]);
    let back = since.elapsed();
    cluster.kill_all();
    let since = Instant::now();
    ids.iter().for_each(|id| cluster.launch(*id));
    ready(&cluster, &ids);
    let all_back = since.elapsed();
    let since = Instant::now();
    view.run(async {
        let client = Client::connect(&cluster.bootstrap(), options()).await?;
        for n in 0..TOPICS {
            client.delete_topic(&format!("many-{n}")).await?;
        }
        Ok::<_, klamm_client::ClientError>(())
    })
    .expect("deleted");
    eventually("nobody has any", 60, || leaders(&cluster, &view, 0)?.is_empty().then_some(()));
    let deleted = since.elapsed();
    println!(
        "figures P9: {made}; stop {stopped:.2?}, ready again {restarted:.2?} after; {led} leaders failed over in \
         {failed_over:.2?}; ready {back:.2?} after a kill, {all_back:.2?} after a kill of all; deleted in {deleted:.2?}"
    );
    // Connections to each other, and what the metadata log has open.
    assert!(kept.files <= 20, "{} open files", kept.files);
    assert!(bytes(kept) <= 4700.0, "{} bytes a partition", bytes(kept));
    assert!(micros <= 1000.0, "{micros} µs a partition");
    assert!(
        failed_over <= Duration::from_secs(5) && back <= Duration::from_secs(20) && all_back <= Duration::from_secs(20)
    );
}
