//! What `/metrics` says of the groups that have a resource: lag by topic, its age, members.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Opts, Registry};

use super::lag::Lag;

/// See the module's head. Series of a group that is no longer watched are gone.
#[derive(Clone, Debug)]
pub struct Metrics {
    lag: IntGaugeVec,
    uncommitted: IntGaugeVec,
    seconds: IntGaugeVec,
    members: IntGaugeVec,
    topics: Arc<Mutex<HashMap<Key, BTreeSet<String>>>>,
}

/// Namespace and name of the resource, and the group's id.
type Key = [String; 3];

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// A name used twice: a mistake in the code.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str, more: &[&str]| {
            let labels: Vec<&str> = ["namespace", "name", "consumergroup"].iter().chain(more).copied().collect();
            let gauge = IntGaugeVec::new(Opts::new(format!("klamm_consumergroup_{name}"), help), &labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            lag: gauge("lag", "Records of a topic that a group has not committed", &["topic"])?,
            uncommitted: gauge("uncommitted_partitions", "Partitions without a commit", &[])?,
            seconds: gauge(
                "lag_seconds",
                "Age of the oldest record that a group has not committed, to a quarter",
                &[],
            )?,
            members: gauge("members", "Members of a group", &[])?,
            topics: Arc::default(),
        })
    }

    /// What was found.
    pub fn found(&self, key: &Key, members: usize, lag: &Lag, seconds: Option<i64>) {
        let [namespace, name, group] = key.each_ref().map(String::as_str);
        let now: BTreeSet<String> = lag.topics.keys().cloned().collect();
        let before = self.topics.lock().insert(key.clone(), now.clone()).unwrap_or_default();
        for gone in before.difference(&now) {
            let _ = self.lag.remove_label_values(&[namespace, name, group, gone]);
        }
        for (topic, (_, records)) in &lag.topics {
            self.lag.with_label_values(&[namespace, name, group, topic]).set(*records);
        }
        self.uncommitted.with_label_values(&[namespace, name, group]).set(lag.uncommitted.into());
        self.seconds.with_label_values(&[namespace, name, group]).set(seconds.unwrap_or(0));
        self.members.with_label_values(&[namespace, name, group]).set(i64::try_from(members).unwrap_or(i64::MAX));
    }

    /// The resource is gone, or cannot be read: what it may have named.
    pub fn forget_all_of(&self, namespace: &str, name: &str) {
        let all = self.topics.lock();
        let keys: Vec<Key> = all.keys().filter(|[space, own, _]| space == namespace && own == name).cloned().collect();
        drop(all);
        keys.iter().for_each(|key| self.forget(key));
    }

    /// Nobody watches it any more, or it cannot be seen: no number is better than an old one.
    pub fn forget(&self, key: &Key) {
        let [namespace, name, group] = key.each_ref().map(String::as_str);
        let Some(topics) = self.topics.lock().remove(key) else { return };
        for topic in topics {
            let _ = self.lag.remove_label_values(&[namespace, name, group, topic.as_str()]);
        }
        for gauge in [&self.uncommitted, &self.seconds, &self.members] {
            let _ = gauge.remove_label_values(&[namespace, name, group]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_end_with_what_they_are_about() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let key = ["n", "r", "g"].map(str::to_owned);
        let lag = |topics: &[&str]| Lag {
            topics: topics.iter().map(|topic| ((*topic).to_owned(), (1, 7))).collect(),
            ..Lag::default()
        };
        let series = || registry.gather().iter().map(|family| family.get_metric().len()).sum::<usize>();
        metrics.found(&key, 2, &lag(&["a", "b"]), Some(3));
        assert_eq!(series(), 5);
        metrics.found(&key, 2, &lag(&["b"]), None);
        assert_eq!(series(), 4);
        metrics.forget(&key);
        metrics.forget(&key);
        assert_eq!(series(), 0);
    }
}
