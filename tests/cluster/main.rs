//! Three brokers under faults: killed, paused, cut off, out of disk; and a checker that says whether anything was lost.
//!
//! `KLAMM_LONG=1` runs the long figures, `KLAMM_CLUSTER_SEED` repeats a run's choices, `KLAMM_TEST_PEER=apache` puts
//! Apache Kafka in Klamm's place. docs/faults.md says what each test does.

mod balance;
mod both;
mod cutoff;
mod deletions;
mod disks;
mod drains;
mod example;
mod failover;
mod idempotence;
mod judge;
mod kills;
mod maintenance;
mod many;
mod member;
mod moving;
mod partitions;
mod pauses;
mod posing;
mod quorum;
mod racks;
mod resumed;
mod rolling;
mod rot;
mod strangers;
mod throttles;
mod unclean;
mod view;

use klamm_tests::{checker, history, workload};
