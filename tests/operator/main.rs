//! Klamm on a real Kubernetes: etcd, API server, controllers and nodes, all on this machine.
//!
//! Needs root and control groups; where they are refused every test says so and does nothing. `kubernetes/` makes the
//! cluster, the other modules are the tests.

mod alerts;
mod autoscale;
mod charts;
mod clusters;
mod consumer_pods;
mod consumers;
mod converged;
mod disks;
mod dockerfile;
mod faulty;
mod filling;
mod gitops;
mod groups;
mod kubernetes;
mod load;
mod malformed;
mod metrics_api;
mod mishaps;
mod outages;
mod pages;
mod pods;
mod process;
mod releases;
mod rights;
mod rules;
mod scaling;
mod stage;
mod teardown;
mod topics;
mod trial;
mod types;
mod unnoted;
mod vanished;
