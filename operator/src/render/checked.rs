//! A Cluster that makes sense: checked once, so that nothing after has to doubt it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::keys::{self, Scope};
use super::names::{Names, RESTART};
use crate::crd::cluster::{Cluster, ClusterSpec, ListenerType};
use crate::roll::window::Window;
use crate::settings::Settings;

/// A Cluster, checked.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What things are called.
    pub names: Names,
    /// The Cluster's `metadata.uid`.
    pub uid: String,
    /// As written.
    pub spec: ClusterSpec,
    /// The brokers' image.
    pub image: String,
    /// The version in that image, where it is known.
    pub version: Option<String>,
    /// The operator's own namespace.
    pub operator_namespace: String,
    /// Configuration that brokers read at their start.
    pub fixed: BTreeMap<String, String>,
    /// Configuration that is changed while they run.
    pub dynamic: BTreeMap<String, String>,
    /// Keys that are left as they are found.
    pub unmanaged: Vec<String>,
    /// What is allowed and hardly meant.
    pub warnings: Vec<String>,
    /// When brokers may be restarted.
    pub windows: Vec<Window>,
    /// The annotation [`RESTART`].
    pub restart: Option<String>,
}

/// Why nothing can be made of a Cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invalid {
    /// One word, for conditions.
    pub reason: &'static str,
    /// In plain words.
    pub message: String,
}

fn invalid<T>(reason: &'static str, message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid { reason, message: message.into() })
}

/// Checks a Cluster.
///
/// # Errors
/// What the API server could not refuse.
pub fn check(cluster: &Cluster, settings: &Settings) -> Result<Checked, Invalid> {
    let meta = &cluster.metadata;
    let names = Names {
        cluster: meta.name.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        domain: settings.cluster_domain.clone(),
    };
    let spec = cluster.spec.clone();
    let own = env!("CARGO_PKG_VERSION");
    let version = match (&spec.version, &spec.image) {
        (None, None) => Some(own.to_owned()),
        (version, _) => version.clone(),
    };
    let tagged = || format!("{}:{}", settings.broker_image, spec.version.as_deref().unwrap_or(own));
    let image = spec.image.clone().unwrap_or_else(tagged);
    let mut checked = Checked {
        names,
        uid: meta.uid.clone().unwrap_or_default(),
        image,
        version,
        operator_namespace: settings.namespace.clone(),
        fixed: BTreeMap::new(),
        dynamic: BTreeMap::new(),
        unmanaged: Vec::new(),
        warnings: Vec::new(),
        windows: Vec::new(),
        restart: meta.annotations.as_ref().and_then(|all| all.get(RESTART).cloned()),
        spec,
    };
    checked.config()?;
    checked.listeners()?;
    checked.windows()?;
    Ok(checked)
}

impl Checked {
    fn config(&mut self) -> Result<(), Invalid> {
        for (key, value) in &self.spec.config {
            if let Some(why) = keys::reserved(key) {
                return invalid("InvalidConfig", format!("config: {key} cannot be set: {why}"));
            }
            if value.is_null() {
                self.unmanaged.push(key.clone());
                continue;
            }
            let Some(text) = value.text() else {
                return invalid("InvalidConfig", format!("config: {key} must be a string, a number or a boolean"));
            };
            match keys::scope(key) {
                Scope::Live => self.dynamic.insert(key.clone(), text),
                Scope::Start => self.fixed.insert(key.clone(), text),
            };
        }
        let replicas = self.spec.replicas;
        for key in ["default.replication.factor", "offsets.topic.replication.factor", "min.insync.replicas"] {
            let text = self.fixed.get(key).or(self.dynamic.get(key));
            if let Some(number) = text.and_then(|text| text.trim().parse::<i32>().ok())
                && number > replicas
            {
                self.warnings.push(format!("{key} is {number}, and there are {replicas} brokers"));
            }
        }
        Ok(())
    }

    fn windows(&mut self) -> Result<(), Invalid> {
        for window in &self.spec.rolling.windows {
            match Window::parse(&window.cron, &window.duration) {
                Ok(window) => self.windows.push(window),
                Err(why) => return invalid("InvalidWindow", format!("rolling.windows: {why}")),
            }
        }
        Ok(())
    }

    fn listeners(&mut self) -> Result<(), Invalid> {
        for listener in &self.spec.listeners {
            let host = listener.advertised_host.as_deref();
            if let Some(host) = host
                && self.spec.replicas > 1
                && !host.contains("{id}")
            {
                let name = &listener.name;
                let text = format!(
                    "listener {name}: advertisedHost {host} is one host for several brokers: put {{id}} into it"
                );
                return invalid("InvalidListener", text);
            }
            if host.is_some_and(|host| host.replace("{id}", "").contains(['{', '}'])) {
                let text = format!("listener {}: of braces advertisedHost knows only {{id}}", listener.name);
                return invalid("InvalidListener", text);
            }
        }
        for listener in self.spec.listeners.iter().filter(|listener| listener.kind != ListenerType::Loadbalancer) {
            let (name, service) = (&listener.name, listener.service.clone().unwrap_or_default());
            if !service.load_balancer_source_ranges.is_empty() {
                self.warnings.push(format!(
                    "listener {name}: loadBalancerSourceRanges is for load balancers, and limits nobody here: see allowedPeers"
                ));
            }
            if service.load_balancer_class.is_some() {
                self.warnings
                    .push(format!("listener {name}: loadBalancerClass is for load balancers, and does nothing here"));
            }
        }
        if let Some(template) = &self.spec.pod_template {
            let named = template.spec.get("containers");
            let bad = named.is_some_and(|containers| {
                let nameless = |container: &Value| container.get("name").and_then(Value::as_str).is_none();
                containers.as_array().is_none_or(|all| all.iter().any(nameless))
            });
            if bad {
                return invalid(
                    "InvalidPodTemplate",
                    "podTemplate.spec.containers must be a list of containers with names",
                );
            }
        }
        Ok(())
    }

    /// Listeners of a kind.
    pub fn listeners_of(&self, kind: ListenerType) -> impl Iterator<Item = &crate::crd::cluster::Listener> {
        self.spec.listeners.iter().filter(move |listener| listener.kind == kind)
    }
}
