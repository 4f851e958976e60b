//! The operator's metrics: how reconciling goes, by controller.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// See the module's head. Names are part of what users build dashboards on.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    reconciled: IntCounterVec,
    duration: HistogramVec,
    steady: IntCounterVec,
    waiting: IntGaugeVec,
    under_way: IntGaugeVec,
    since: GaugeVec,
    last_success: GaugeVec,
    malformed: IntCounterVec,
    leader: IntGauge,
}

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// As described before, and found so.
    Steady,
    /// As described now, or on its way there.
    Ok,
    /// Tried again later.
    Error,
}

impl Metrics {
    /// The metrics, all at zero.
    ///
    /// # Errors
    /// A name used twice: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let named = |name: &str, help: &str| Opts::new(format!("klamm_operator_{name}"), help);
        let buckets = vec![0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        let seconds =
            HistogramOpts::new("klamm_operator_reconcile_duration_seconds", "How long reconciling an object takes");
        let metrics = Self {
            reconciled: IntCounterVec::new(
                named("reconcile_total", "Reconciliations by controller and result (ok, error)"),
                &["controller", "result"],
            )?,
            duration: HistogramVec::new(seconds.buckets(buckets), &["controller"])?,
            steady: IntCounterVec::new(
                named("steady_state_total", "Reconciliations of objects that were as described already"),
                &["controller"],
            )?,
            waiting: IntGaugeVec::new(
                named("queue_depth", "Objects that are due and wait for others to be reconciled"),
                &["controller"],
            )?,
            under_way: IntGaugeVec::new(
                named("reconcile_in_progress", "Objects being reconciled now"),
                &["controller"],
            )?,
            since: GaugeVec::new(
                named("in_progress_start_time_seconds", "When reconciling an object began that has not ended yet"),
                &["controller", "namespace", "name"],
            )?,
            last_success: GaugeVec::new(
                named("last_success_timestamp_seconds", "When a controller last reconciled an object without an error"),
                &["controller"],
            )?,
            malformed: IntCounterVec::new(
                named("malformed_objects_total", "Looks at objects that could not be read"),
                &["controller"],
            )?,
            leader: IntGauge::with_opts(named("leader", "1 while this process holds the lease"))?,
            registry,
        };
        metrics.registry.register(Box::new(metrics.reconciled.clone()))?;
        metrics.registry.register(Box::new(metrics.duration.clone()))?;
        metrics.registry.register(Box::new(metrics.steady.clone()))?;
        metrics.registry.register(Box::new(metrics.waiting.clone()))?;
        metrics.registry.register(Box::new(metrics.under_way.clone()))?;
        metrics.registry.register(Box::new(metrics.since.clone()))?;
        metrics.registry.register(Box::new(metrics.last_success.clone()))?;
        metrics.registry.register(Box::new(metrics.malformed.clone()))?;
        metrics.registry.register(Box::new(metrics.leader.clone()))?;
        Ok(metrics)
    }

    /// A controller starts. What counts begins at zero: Prometheus sees no increase in a series that begins at one.
    pub fn starts(&self, controller: &str) {
        for result in ["ok", "error"] {
            self.reconciled.with_label_values(&[controller, result]).inc_by(0);
        }
        self.malformed.with_label_values(&[controller]).inc_by(0);
        self.steady.with_label_values(&[controller]).inc_by(0);
        self.waiting.with_label_values(&[controller]).set(0);
        self.under_way.with_label_values(&[controller]).set(0);
    }

    /// An object is due; until what is answered is dropped, it waits.
    pub fn waits(&self, controller: &str) -> impl Drop + Send + use<> {
        let gauge = self.waiting.with_label_values(&[controller]);
        gauge.inc();
        Waiting(gauge)
    }

    /// An object is being reconciled: its namespace and name.
    pub fn begun(&self, controller: &str, [namespace, name]: [&str; 2]) {
        self.under_way.with_label_values(&[controller]).inc();
        self.since.with_label_values(&[controller, namespace, name]).set(now_s());
    }

    /// It is done.
    pub fn ended(&self, controller: &str, [namespace, name]: [&str; 2], outcome: Outcome, took: Duration) {
        let _ = self.since.remove_label_values(&[controller, namespace, name]);
        let result = match outcome {
            Outcome::Ok | Outcome::Steady => "ok",
            Outcome::Error => "error",
        };
        self.under_way.with_label_values(&[controller]).dec();
        self.reconciled.with_label_values(&[controller, result]).inc();
        self.duration.with_label_values(&[controller]).observe(took.as_secs_f64());
        if outcome == Outcome::Steady {
            self.steady.with_label_values(&[controller]).inc();
        }
        if outcome != Outcome::Error {
            self.last_success.with_label_values(&[controller]).set(now_s());
        }
    }

    /// An object could not be read.
    pub fn malformed(&self, controller: &str) {
        self.malformed.with_label_values(&[controller]).inc();
    }

    /// Whether this process acts.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Where other parts register metrics of their own.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        // Writing into memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

struct Waiting(IntGauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_steady_has_gone_well_too() {
        let metrics = Metrics::new().expect("names that differ");
        metrics.starts("topic");
        let waits = metrics.waits("topic");
        assert!(metrics.text().contains("klamm_operator_queue_depth{controller=\"topic\"} 1"));
        drop(waits);
        for outcome in [Outcome::Ok, Outcome::Steady, Outcome::Error] {
            metrics.begun("topic", ["a", "b"]);
            metrics.ended("topic", ["a", "b"], outcome, Duration::ZERO);
        }
        let text = metrics.text();
        for line in [
            "klamm_operator_queue_depth{controller=\"topic\"} 0",
            "klamm_operator_steady_state_total{controller=\"topic\"} 1",
            "klamm_operator_reconcile_total{controller=\"topic\",result=\"ok\"} 2",
            "klamm_operator_reconcile_total{controller=\"topic\",result=\"error\"} 1",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} in {text}");
        }
    }
}
