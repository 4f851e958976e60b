//! How the operator is told what to do: flags, each with an environment variable for the chart.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

/// Settings of `klamm-operator run`.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Namespaces whose resources are looked after, separated by commas; all when empty
    #[arg(long, env = "KLAMM_OPERATOR_WATCH_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACE")]
    pub watch_namespaces: Vec<String>,
    /// The namespace of the operator itself, which holds its Lease
    #[arg(long, env = "KLAMM_OPERATOR_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// This process among several; the pod's name
    #[arg(long, env = "KLAMM_OPERATOR_IDENTITY", default_value_t = identity())]
    pub identity: String,
    /// Whether one of several operators acts and the others wait
    #[arg(long, env = "KLAMM_OPERATOR_LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_election: bool,
    /// The brokers' image without its tag, which is the Cluster's version
    #[arg(long, env = "KLAMM_OPERATOR_BROKER_IMAGE", default_value = "klamm/broker")]
    pub broker_image: String,
    /// The DNS domain of the Kubernetes cluster
    #[arg(long, env = "KLAMM_OPERATOR_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Where health and metrics are served
    #[arg(long, env = "KLAMM_OPERATOR_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// How many objects of a kind are worked on at once
    #[arg(long, env = "KLAMM_OPERATOR_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Whether Topics and ConsumerGroups may name brokers by their addresses (bootstrapServers). The operator asks those in
    /// its own name, so that no allowedNamespaces of a Cluster holds
    #[arg(long, env = "KLAMM_OPERATOR_ALLOW_BOOTSTRAP_SERVERS", default_value_t = true, action = clap::ArgAction::Set)]
    pub allow_bootstrap_servers: bool,
    /// Whether ConsumerGroups may have Deployments and StatefulSets of their namespace scaled
    #[arg(long, env = "KLAMM_OPERATOR_ALLOW_SCALE_TARGETS", default_value_t = false, action = clap::ArgAction::Set)]
    pub allow_scale_targets: bool,
    /// What is looked after. Without clusters the Clusters are left to another operator, but Topics and ConsumerGroups
    /// of theirs are still looked after
    #[arg(
        long,
        env = "KLAMM_OPERATOR_CONTROLLERS",
        value_delimiter = ',',
        default_value = "clusters,topics,consumer-groups"
    )]
    pub controllers: Vec<Kind>,
    /// How log lines look
    #[arg(long, env = "KLAMM_OPERATOR_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// What is logged: a level, or levels by module (info,klamm_operator=debug)
    #[arg(long, env = "KLAMM_OPERATOR_LOG", default_value = "info")]
    pub log: String,
}

impl Settings {
    /// The namespaces to watch; one `None` for all.
    pub fn namespaces(&self) -> Vec<Option<String>> {
        let named: Vec<_> = self.watch_namespaces.iter().filter(|name| !name.is_empty()).cloned().map(Some).collect();
        if named.is_empty() { vec![None] } else { named }
    }

    /// Whether resources of a namespace are looked after.
    pub fn watches(&self, namespace: &str) -> bool {
        self.namespaces().iter().any(|watched| watched.as_deref().is_none_or(|watched| watched == namespace))
    }
}

/// A kind of resources.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Kind {
    /// Brokers, their storage and their listeners
    Clusters,
    /// Topics
    Topics,
    /// Consumer groups
    ConsumerGroups,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// One object a line
    Json,
    /// For people
    Text,
}

fn identity() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("pid-{}", std::process::id()))
}
