//! What a Cluster is made of in Kubernetes: pure functions from its description and a few facts to objects.
//!
//! The same description gives the same objects, byte for byte. What is in a pod's template depends neither on how many
//! brokers there are nor on where they run, so that scaling restarts nobody; [`names::TEMPLATE_HASH`] is computed over
//! what was rendered here, never over what the API server made of it.

pub mod checked;
mod hash;
pub mod keys;
pub mod names;
mod network;
mod overlay;
mod pod;
mod properties;
pub mod service;
mod statefulset;

#[cfg(test)]
mod golden_test;
#[cfg(test)]
pub use golden_test::settings as golden_settings;
#[cfg(test)]
mod network_test;
#[cfg(test)]
mod property_test;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub use checked::{Checked, Invalid, check};
pub use hash::{fingerprint, hash};

use crate::crd::cluster::{Listener, ListenerType};
use crate::scale;

/// What builders have to know of the world.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// How many brokers the StatefulSet has, or had before it was lost; `None` before there was one.
    pub replicas: Option<i32>,
    /// What was decided about their number.
    pub next: scale::Next,
    /// What of that is noted on the StatefulSet from now on.
    pub begun: scale::Begun,
    /// How many brokers the quorum began with, if it is noted there.
    pub founders: Option<i32>,
    /// The StatefulSet's claim templates as they are, since they cannot change; `None` before there is one.
    pub claims: Option<Value>,
    /// The size of volumes that the StatefulSet was made for, if it is noted there.
    pub made_for: Option<String>,
    /// Whether the claims are larger than these templates, so that the StatefulSet is to be made anew: no claim goes with it.
    pub outgrown: bool,
    /// The id of the Kafka cluster, once it was told.
    pub cluster_id: Option<String>,
    /// What the Services of brokers got, by listener and broker.
    pub outside: BTreeMap<(String, i32), Outside>,
}

/// Where a broker is reached from outside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outside {
    /// On this port of any node.
    Port(i32),
    /// At this host: a load balancer's.
    Host(String),
}

impl Checked {
    /// How many brokers there are to be now: once there are some, [`scale`] alone decides it.
    pub fn replicas(&self, facts: &Facts) -> i32 {
        facts.replicas.map_or(self.spec.replicas, |there| facts.next.replicas(there))
    }

    /// How many brokers the quorum began with: whoever comes later joins it, and never begins one.
    pub fn founders(&self, facts: &Facts) -> i32 {
        // Brokers of an operator that did not note it are as many as they were at first.
        let first = || facts.replicas.unwrap_or(self.spec.replicas).min(properties::FOUNDERS);
        facts.founders.unwrap_or_else(first)
    }

    /// The part of the brokers' configuration that is one for all, with what it takes effect by: a restart.
    fn static_configuration(&self) -> Value {
        let advertised: Vec<_> =
            self.spec.listeners.iter().map(|l| json!([l.name, l.kind, l.advertised_host])).collect();
        json!({ "all": properties::of_all(self), "advertised": advertised })
    }

    /// By what a pod is known to run as described.
    pub fn template_hash(&self) -> String {
        hash(&json!([self.static_configuration(), pod::template(self)]))
    }

    /// What of the description brokers have to be restarted for, whatever this version of the operator makes of it.
    pub fn description_hash(&self) -> String {
        let spec = &self.spec;
        hash(&json!({
            "version": spec.version, "image": spec.image, "config": self.fixed, "listeners": spec.listeners,
            "rack": spec.rack, "resources": spec.resources, "podTemplate": spec.pod_template,
            "storage": spec.storage.kind,
        }))
    }
}

/// The Services: first of all, since some addresses are known only when they are there.
pub fn services(checked: &Checked, facts: &Facts) -> Vec<Value> {
    // Those of brokers that are to come may take time to get their addresses.
    service::all(checked, checked.replicas(facts).max(checked.spec.replicas))
}

/// Everything else.
///
/// # Errors
/// An address outside is not known yet, or there are too many brokers.
pub fn brokers(checked: &Checked, facts: &Facts) -> Result<Vec<Value>, NotYet> {
    let replicas = checked.replicas(facts);
    Ok(vec![
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": checked.names.meta(&checked.names.cluster),
            "automountServiceAccountToken": false,
        }),
        network::policy(checked),
        network::budget(checked),
        properties::config_map(checked, facts, replicas)?,
        statefulset::build(checked, facts, replicas),
    ])
}

/// Why there cannot be brokers.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotYet {
    /// An address outside that is not known yet.
    #[error("listener {listener}: the address of broker {broker} is not known yet")]
    Missing {
        /// The listener.
        listener: String,
        /// The broker.
        broker: i32,
    },
    /// A ConfigMap has no room for the files of so many brokers.
    #[error(
        "the configuration files of {brokers} brokers have {bytes} bytes, and a ConfigMap holds {CONFIG_BYTES}: have fewer \
         brokers, listeners or keys"
    )]
    TooLarge {
        /// How many there are to be.
        brokers: i32,
        /// What their files come to.
        bytes: usize,
    },
}

/// Most that a ConfigMap holds, with some room for its metadata.
const CONFIG_BYTES: usize = (1 << 20) - (32 << 10);

/// Where brokers are reached from outside and tell clients so: by broker, the listener's name in Kafka and how the address
/// ends. A node's own address, which the broker finds out itself, is not part of it.
pub fn outside(checked: &Checked, facts: &Facts) -> BTreeMap<i32, Vec<(String, String)>> {
    let mut all: BTreeMap<i32, Vec<(String, String)>> = BTreeMap::new();
    for (name, id) in facts.outside.keys() {
        let Some(listener) = checked.spec.listeners.iter().find(|listener| listener.name == *name) else { continue };
        let Ok(address) = properties::advertised_address(&checked.names, facts, listener, *id) else { continue };
        let own = format!("${{env:{}}}", pod::NODE_IP);
        let address = address.strip_prefix(&own).unwrap_or(&address).to_owned();
        all.entry(*id).or_default().push((name.to_ascii_uppercase(), address));
    }
    all
}

/// The host that clients outside are told, where it is given.
fn advertised_host(listener: &Listener, id: i32) -> Option<String> {
    listener.advertised_host.as_ref().map(|host| host.replace("{id}", &id.to_string()))
}

/// Where clients begin, by listener: what the status shows. `nodes` are addresses of nodes that brokers run on,
/// `bootstrap` what the Services for the start got.
pub fn bootstrap(checked: &Checked, nodes: &[String], bootstrap: &BTreeMap<String, Outside>) -> Vec<(String, String)> {
    let names = &checked.names;
    let one = |listener: &Listener| {
        let name = listener.name.clone();
        let servers = match (listener.kind, bootstrap.get(&name)) {
            (ListenerType::Internal, _) => format!("{}:{}", names.host(&names.bootstrap()), listener.port),
            (ListenerType::Nodeport, Some(Outside::Port(port))) => {
                let hosts: Vec<_> = nodes.iter().map(|node| format!("{}:{port}", bracketed(node))).collect();
                hosts.join(",")
            }
            (ListenerType::Loadbalancer, Some(Outside::Host(host))) => format!("{}:{}", bracketed(host), listener.port),
            _ => String::new(),
        };
        (name, servers)
    };
    checked.spec.listeners.iter().map(one).filter(|(_, servers)| !servers.is_empty()).collect()
}

/// An IPv6 address in brackets, anything else as it is.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}
