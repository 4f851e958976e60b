//! A node is cut off, without and with records on their way, and comes back.

use std::time::Instant;

use crate::kubernetes::kubectl::kubectl;
use crate::kubernetes::{nodes, with_nodes_alone};
use crate::pods::{Brokers, lines};

#[test]
fn a_node_is_cut_off_and_comes_back() {
    with_nodes_alone("alone::cutoff::a_node_is_cut_off_and_comes_back", || {
        let brokers = Brokers::start("cut");
        brokers.klamm(0, &["topics", "create", "orders", "--partitions", "3"]).ok();
        brokers.write(0, &lines(0..100));
        let name = brokers.node_of(2);
        let node = name.trim_start_matches("node").parse().expect("a number");
        nodes::connect(node, false);
        let since = Instant::now();
        // The others go on, whoever led what.
        brokers.write(0, &lines(100..200));
        println!("figures node cut off: writes with acks=all go on after {:.1} s", since.elapsed().as_secs_f64());
        kubectl(["wait", "--for=condition=Ready=Unknown", "--timeout=60s", &format!("node/{name}")]).limit(70).ok();
        println!("figures node cut off: NotReady after {:.1} s", since.elapsed().as_secs_f64());
        nodes::connect(node, true);
        let since = Instant::now();
        kubectl(["wait", "--for=condition=Ready", "--timeout=60s", &format!("node/{name}")]).limit(70).ok();
        println!("figures node back: Ready after {:.1} s", since.elapsed().as_secs_f64());
        brokers.ready(2);
        assert_eq!(brokers.read(2).len(), 200);
    });
}
