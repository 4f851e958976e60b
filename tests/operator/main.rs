//! Klamm on a real Kubernetes: etcd, API server, controllers and nodes, all on this machine.
//!
//! Needs root and control groups; where they are refused every test says so and does nothing. `kubernetes/` makes the
//! cluster, the other modules are the tests.

mod alerts;
mod alone;
mod charts;
mod clusters;
mod consumer_pods;
mod consumers;
mod converged;
mod dockerfile;
mod faulty;
mod gitops;
mod groups;
mod grown;
mod kubernetes;
mod large;
mod metrics_api;
mod outages;
mod pages;
mod pods;
mod process;
mod releases;
mod rights;
mod rules;
mod stage;
mod teardown;
mod topics;
mod trial;
mod types;
mod unnoted;
