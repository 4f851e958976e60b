//! What `/metrics` says of the Clusters: brokers that are wanted, ready and outdated, and what is under way.

use prometheus::{IntGaugeVec, Opts, Registry};

use crate::crd::cluster::{ClusterStatus, OperationStep, OperationType};

/// Every label set of an operation, so that those that are over can be taken away.
const TYPES: [(OperationType, &str); 4] = [
    (OperationType::Create, "Create"),
    (OperationType::RollingRestart, "RollingRestart"),
    (OperationType::ScaleOut, "ScaleOut"),
    (OperationType::ScaleIn, "ScaleIn"),
];
const STEPS: [(OperationStep, &str); 11] = [
    (OperationStep::Running, "Running"),
    (OperationStep::Pending, "Pending"),
    (OperationStep::Restarting, "Restarting"),
    (OperationStep::WaitingForBroker, "WaitingForBroker"),
    (OperationStep::WaitingForSafety, "WaitingForSafety"),
    (OperationStep::Spreading, "Spreading"),
    (OperationStep::Cordoning, "Cordoning"),
    (OperationStep::Draining, "Draining"),
    (OperationStep::GivingUpSeat, "GivingUpSeat"),
    (OperationStep::Removing, "Removing"),
    (OperationStep::Unregistering, "Unregistering"),
];

/// See the module's head. Series of a Cluster that is gone are gone.
#[derive(Clone, Debug)]
pub struct Metrics {
    desired: IntGaugeVec,
    ready: IntGaugeVec,
    outdated: IntGaugeVec,
    operation: IntGaugeVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// A name used twice: a mistake in the code.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str, more: &[&str]| {
            let labels: Vec<&str> = ["namespace", "name"].iter().chain(more).copied().collect();
            let gauge = IntGaugeVec::new(Opts::new(name, help), &labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            desired: gauge("klamm_operator_cluster_desired_brokers", "Brokers that a Cluster asks for", &[])?,
            ready: gauge("klamm_operator_cluster_ready_brokers", "Brokers of a Cluster that are ready", &[])?,
            outdated: gauge(
                "klamm_operator_cluster_rolling_pods_remaining",
                "Brokers of a Cluster that do not run as described",
                &[],
            )?,
            operation: gauge(
                "klamm_operator_cluster_operation_info",
                "1 for what is under way or waits in a Cluster",
                &["type", "step"],
            )?,
        })
    }

    /// What was found.
    pub fn found(&self, namespace: &str, name: &str, desired: i32, status: &ClusterStatus) {
        let labels = [namespace, name];
        self.desired.with_label_values(&labels).set(desired.into());
        self.ready.with_label_values(&labels).set(status.ready_replicas.into());
        let outdated = status.replicas.saturating_sub(status.updated_replicas);
        self.outdated.with_label_values(&labels).set(outdated.into());
        let now = status.operation.as_ref().map(|operation| (operation.kind, operation.step));
        for (kind, kind_name) in TYPES {
            for (step, step_name) in STEPS {
                let labels = [namespace, name, kind_name, step_name];
                match now == Some((kind, step)) {
                    true => self.operation.with_label_values(&labels).set(1),
                    false => drop(self.operation.remove_label_values(&labels)),
                }
            }
        }
    }

    /// Nobody looks after it any more.
    pub fn forget(&self, namespace: &str, name: &str) {
        for gauge in [&self.desired, &self.ready, &self.outdated] {
            let _ = gauge.remove_label_values(&[namespace, name]);
        }
        for (_, kind) in TYPES {
            for (_, step) in STEPS {
                let _ = self.operation.remove_label_values(&[namespace, name, kind, step]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::crd::cluster::Operation;

    #[test]
    fn an_operation_that_is_over_leaves_no_series() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let operation = |kind, step| {
            let started_at = Time(Timestamp::UNIX_EPOCH);
            Operation {
                kind,
                step,
                started_at,
                reason: "R".into(),
                message: String::new(),
                broker: None,
                blocked_by: None,
                brokers: vec![],
                progress: None,
            }
        };
        let status = |operation| ClusterStatus { replicas: 3, updated_replicas: 1, operation, ..Default::default() };
        let series = || -> Vec<(String, f64)> {
            let families = registry.gather();
            let all = families.iter().flat_map(|family| family.get_metric().iter().map(|m| (family.name(), m)));
            all.map(|(name, m)| {
                let labels: Vec<&str> = m.get_label().iter().map(|label| label.value()).collect();
                (
                    format!("{} {}", name.trim_start_matches("klamm_operator_cluster_"), labels.join(" ")),
                    m.get_gauge().get_value(),
                )
            })
            .collect()
        };
        metrics.found("n", "c", 4, &status(Some(operation(OperationType::ScaleOut, OperationStep::Pending))));
        metrics.found("n", "c", 4, &status(Some(operation(OperationType::RollingRestart, OperationStep::Pending))));
        let wanted = [
            ("desired_brokers c n", 4.0),
            ("operation_info c n Pending RollingRestart", 1.0),
            ("ready_brokers c n", 0.0),
            ("rolling_pods_remaining c n", 2.0),
        ];
        assert_eq!(series(), wanted.map(|(name, value)| (name.to_owned(), value)));
        metrics.found("n", "c", 3, &status(None));
        assert_eq!(series().len(), 3);
        metrics.forget("n", "c");
        assert_eq!(series(), []);
    }
}
