//! Runs Klamm on Kubernetes: the operator and its resource types.
//!
//! `crd` holds the types that users apply; everything else brings clusters, topics and groups in line with them.

pub mod crd;
