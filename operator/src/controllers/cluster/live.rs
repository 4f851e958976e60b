//! What brokers are told while they run, over their own listener: the configuration that needs no restart.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::admin::configs::{ConfigChange, ConfigSource, Resource};
use klamm_client::{Client, ClientError};

/// What brokers say of themselves.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The id of the Kafka cluster.
    pub cluster_id: String,
    /// All brokers that the controller knows.
    pub registered: BTreeSet<i32>,
    /// The racks of brokers that take part.
    pub racks: BTreeMap<i32, Option<String>>,
    /// Partitions that have no leader, or fewer replicas in sync than writes need; only looked at when a broker is away.
    pub unavailable: Option<usize>,
}

/// What came of the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Configured {
    /// Nobody was asked: there is no broker yet.
    NotAsked,
    /// The brokers have it.
    Applied,
    /// Nobody was asked: nothing is to be changed.
    Paused,
    /// They refuse it.
    Refused(String),
    /// Nobody was asked in this look: what was said before holds.
    Later,
    /// None of them answers.
    Unreachable(String),
}

/// What the brokers say of themselves. `min_in_sync` is asked about when a broker is away.
///
/// # Errors
/// None of them answers.
pub async fn ask(client: &Client, min_in_sync: Option<usize>) -> Result<Told, ClientError> {
    let described = client.describe_cluster().await?;
    let registered = described.brokers.iter().map(|broker| broker.broker.id).collect();
    let present = described.brokers.into_iter().filter(|broker| !broker.fenced);
    let mut told = Told {
        cluster_id: described.cluster_id,
        registered,
        racks: present.map(|broker| (broker.broker.id, broker.broker.rack)).collect(),
        unavailable: None,
    };
    if let Some(least) = min_in_sync {
        let known = client.refresh(None).await?;
        let partitions = known.topics.values().flat_map(|topic| &topic.partitions);
        let short = partitions.filter(|p| p.leader < 0 || p.isr.len() < least.min(p.replicas.len()));
        told.unavailable = Some(short.count());
    }
    Ok(told)
}

/// The brokers that tell clients other addresses than these, which they read when they start: by broker, listener and
/// address, without the host where that is the node's.
///
/// # Errors
/// One of them does not answer.
pub async fn moved(
    client: &Client,
    brokers: &[i32],
    outside: &BTreeMap<i32, Vec<(String, String)>>,
) -> Result<BTreeSet<i32>, ClientError> {
    const KEY: &str = "advertised.listeners";
    let mut moved = BTreeSet::new();
    for id in brokers {
        let Some(wanted) = outside.get(id) else { continue };
        let entries = client.describe_configs(&Resource::Broker(*id), Some(&[KEY.to_owned()])).await?;
        let told = entries.into_iter().find(|entry| entry.name == KEY).and_then(|entry| entry.value);
        if told.is_some_and(|told| !tells(&told, wanted)) {
            moved.insert(*id);
        }
    }
    Ok(moved)
}

/// Whether a broker tells all of these addresses.
fn tells(told: &str, wanted: &[(String, String)]) -> bool {
    wanted.iter().all(|(listener, address)| {
        let own = told.split(',').find_map(|one| one.trim().strip_prefix(listener.as_str())?.strip_prefix("://"));
        own.is_some_and(|own| own.ends_with(address.as_str()))
    })
}

/// Gives the brokers the wanted keys, and takes back those of `before` that are wanted no more. `unmanaged` keys are left.
pub async fn configure(
    client: &Client,
    wanted: &BTreeMap<String, String>,
    before: &[String],
    unmanaged: &[String],
) -> Configured {
    if wanted.is_empty() && before.is_empty() {
        return Configured::Applied;
    }
    let entries = match client.describe_configs(&Resource::Brokers, None).await {
        Ok(entries) => entries,
        Err(error) => return failed(&error),
    };
    let set = entries.into_iter().filter(|entry| entry.source == ConfigSource::BrokerDefault);
    let there: BTreeMap<_, _> = set.map(|entry| (entry.name, entry.value)).collect();
    let changes = changes(&there, wanted, before, unmanaged);
    if changes.is_empty() {
        return Configured::Applied;
    }
    match client.alter_configs(&Resource::Brokers, &changes, false).await {
        Ok(()) => {
            tracing::info!(keys = changes.len(), "brokers are configured");
            Configured::Applied
        }
        Err(error) => failed(&error),
    }
}

fn changes(
    there: &BTreeMap<String, Option<String>>,
    wanted: &BTreeMap<String, String>,
    before: &[String],
    unmanaged: &[String],
) -> Vec<ConfigChange> {
    let differs = |(key, value): &(&String, &String)| there.get(*key).and_then(Option::as_ref) != Some(*value);
    let set = wanted.iter().filter(differs).map(|(key, value)| ConfigChange::Set(key.clone(), value.clone()));
    let kept: BTreeSet<&String> = wanted.keys().chain(unmanaged).collect();
    let gone = before.iter().filter(|key| !kept.contains(key) && there.contains_key(*key));
    set.chain(gone.map(|key| ConfigChange::Delete(key.clone()))).collect()
}

fn failed(error: &ClientError) -> Configured {
    match error.code() {
        Some(_) if !error.is_retriable() => Configured::Refused(error.to_string()),
        _ => Configured::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_or_it_is_not() {
        let told = "REPLICATION://p-0.x:9093,OUT://10.0.0.7:30001,LB://[fd00::1]:9095";
        let wanted = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            all.iter().map(|(listener, address)| ((*listener).to_owned(), (*address).to_owned())).collect()
        };
        for (all, right) in [
            (&[("OUT", ":30001"), ("LB", "[fd00::1]:9095")][..], true),
            (&[("OUT", ":30002")], false),
            (&[("OUT", ":0001")], false),
            (&[("LB", "[fd00::2]:9095")], false),
            (&[("NEW", ":30001")], false),
            (&[], true),
        ] {
            assert_eq!(tells(told, &wanted(all)), right, "{all:?}");
        }
    }

    #[test]
    fn only_what_differs_is_changed_and_only_ours_is_taken_back() {
        let texts = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
            all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let there = texts(&[("a", "1"), ("b", "2"), ("ours", "3"), ("theirs", "4"), ("left", "5")]);
        let there: BTreeMap<_, _> = there.into_iter().map(|(k, v)| (k, Some(v))).collect();
        let wanted = texts(&[("a", "1"), ("b", "9"), ("c", "3")]);
        let before = names(&["a", "ours", "left", "long gone"]);
        let all = changes(&there, &wanted, &before, &names(&["left"]));
        let set = |key: &str, value: &str| ConfigChange::Set(key.into(), value.into());
        assert_eq!(all, [set("b", "9"), set("c", "3"), ConfigChange::Delete("ours".into())]);
        let now = texts(&[("a", "1"), ("b", "9"), ("c", "3"), ("theirs", "4"), ("left", "5")]);
        let now: BTreeMap<_, _> = now.into_iter().map(|(k, v)| (k, Some(v))).collect();
        assert!(changes(&now, &wanted, &before, &names(&["left"])).is_empty(), "once it is done nothing is left");
    }
}
