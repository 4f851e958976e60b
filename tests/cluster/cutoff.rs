//! A leader that is cut off without a word, from its clients, too: no connection breaks, no port refuses.

use std::time::{Duration, Instant};

use klamm_client::{Client, ClientError, ClientOptions, Producer, ProducerOptions, ProducerRecord};
use klamm_tests::isolated::isolated_if_possible;
use klamm_tests::{Cluster, Plan};

use crate::view::View;

/// The session (9 s), an election where the controller is cut off as well, and time for a slow machine: less than a client
/// waits for an answer by default (30 s), which is what it took when nobody asked the others.
const LIMIT: Duration = Duration::from_secs(25);

#[test]
fn a_producer_goes_on_where_its_leader_was_replaced_and_cannot_say_so() {
    isolated_if_possible("cutoff::a_producer_goes_on_where_its_leader_was_replaced_and_cannot_say_so", || {
        let mut cluster = Cluster::start(Plan::default().on_a_network());
        let view = View::of(&cluster);
        view.create(&mut cluster, "cutoff", 1, &[]);
        let leader = view.leader(&mut cluster, "cutoff", 0);
        let record = || ProducerRecord { topic: "cutoff".into(), value: Some("v".into()), ..Default::default() };
        let took = view.run(async {
            let client = Client::connect(&cluster.bootstrap(), ClientOptions::default()).await?;
            let producer = Producer::start(&client, ProducerOptions::default())?;
            assert_eq!(producer.send(record()).await?.wait().await?.leader, leader as i32);
            cluster.network().isolate(leader, true);
            let since = Instant::now();
            assert_ne!(producer.send(record()).await?.wait().await?.leader, leader as i32);
            Ok::<_, ClientError>(since.elapsed())
        });
        cluster.network().heal();
        let took = took.expect("both records are taken");
        println!("figures leader cut off with its clients: writes went on after {} ms", took.as_millis());
        view.until_in_sync(&mut cluster, Duration::from_secs(60));
        assert!(took < LIMIT, "{took:?}");
    });
}
