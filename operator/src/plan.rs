//! `klamm-operator plan`: which brokers would be restarted, in which order and why. It looks, and changes nothing.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;
use kube::{Api, Client, Resource as _};
use serde_json::Value;

use crate::controllers::cluster::observed::observe;
use crate::controllers::cluster::rolling;
use crate::controllers::malformed;
use crate::crd::cluster::Cluster;
use crate::render::keys::{self, Scope};
use crate::render::{self, Checked};
use crate::roll::{Facts, Next, Pod, Reason, Wait};
use crate::run;
use crate::settings::{Kind, LogFormat, Settings};

/// What to plan.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The Cluster's name; with --file that of the file
    #[arg(required_unless_present = "file")]
    pub name: Option<String>,
    /// The Cluster's namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// A description that is not applied yet: a Cluster as YAML or JSON
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The brokers' image without its tag, as the operator has it
    #[arg(long, env = "KLAMM_OPERATOR_BROKER_IMAGE", default_value = "klamm/broker")]
    pub broker_image: String,
    /// The DNS domain of the Kubernetes cluster
    #[arg(long, env = "KLAMM_OPERATOR_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The namespace of the operator
    #[arg(long, env = "KLAMM_OPERATOR_NAMESPACE", default_value = "default")]
    pub operator_namespace: String,
}

/// Looks, and says what would be done.
///
/// # Errors
/// The API server's, or a description that makes no sense.
pub async fn plan(args: &Args) -> anyhow::Result<String> {
    let settings = Settings {
        watch_namespaces: Vec::new(),
        namespace: args.operator_namespace.clone(),
        identity: "plan".into(),
        leader_election: false,
        broker_image: args.broker_image.clone(),
        cluster_domain: args.cluster_domain.clone(),
        listen: ([127, 0, 0, 1], 0).into(),
        concurrency: 1,
        allow_bootstrap_servers: true,
        allow_scale_targets: false,
        controllers: vec![Kind::Clusters],
        log_format: LogFormat::Text,
        log: "off".into(),
    };
    run::prepare(&settings)?;
    let client = Client::try_default().await.context("the way to the Kubernetes API")?;
    let described = args.file.as_deref().map(|file| read(file, &args.namespace)).transpose()?;
    let name = match &described {
        Some(cluster) => cluster.metadata.name.clone().context("the file's Cluster has no name")?,
        None => args.name.clone().context("a name, or --file")?,
    };
    let api: Api<Cluster> = Api::namespaced(client.clone(), &args.namespace);
    let there = api.get_opt(&name).await?.with_context(|| format!("there is no Cluster {}/{name}", args.namespace))?;
    let mut wanted = there.clone();
    if let Some(described) = described {
        wanted.spec = described.spec;
        wanted.metadata.annotations = described.metadata.annotations.or(wanted.metadata.annotations);
    }
    let checked = match render::check(&wanted, &settings) {
        Ok(checked) => checked,
        Err(invalid) => bail!("{}: {}", invalid.reason, invalid.message),
    };
    let observed = observe(&client, &checked.names).await?;
    let now = Timestamp::now();
    let facts = rolling::facts(&checked, &observed, now);
    Ok(text(&checked, &changes(&there, &wanted)?, &facts, now))
}

fn read(file: &std::path::Path, namespace: &str) -> anyhow::Result<Cluster> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let cluster = understood(&text).map_err(|why| anyhow!("{} is no Cluster: {why}", file.display()))?;
    match &cluster.metadata.namespace {
        Some(other) if other != namespace => {
            bail!("{} is of namespace {other}, and --namespace says {namespace}", file.display())
        }
        _ => Ok(cluster),
    }
}

fn understood(text: &str) -> Result<Cluster, String> {
    let object: Value = serde_yaml::from_str(text).map_err(|e| e.to_string())?;
    for (key, wanted) in [("apiVersion", Cluster::api_version(&())), ("kind", Cluster::kind(&()))] {
        if object.is_object() && object[key] != *wanted {
            return Err(format!("{key} is {}, and not {wanted}", object[key]));
        }
    }
    malformed::understood(&object)
}

/// What differs between two descriptions, each with whether brokers have to be restarted for it.
fn changes(there: &Cluster, wanted: &Cluster) -> anyhow::Result<Vec<String>> {
    let (there, wanted) = (serde_json::to_value(&there.spec)?, serde_json::to_value(&wanted.spec)?);
    let mut all = Vec::new();
    let empty = serde_json::Map::new();
    for key in names(&there, &wanted) {
        let (old, new) = (&there[&key], &wanted[&key]);
        if old == new {
            continue;
        }
        if key != "config" {
            let how = match key.as_str() {
                "version" | "image" | "listeners" | "rack" | "resources" | "podTemplate" => "restart",
                _ => "no restart",
            };
            all.push(format!("{key}: {how}"));
            continue;
        }
        let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
        for key in names(&Value::Object(old.clone()), &Value::Object(new.clone())) {
            let (before, after) = (old.get(&key), new.get(&key));
            if before != after {
                let how = match keys::scope(&key) {
                    Scope::Live => "no restart",
                    Scope::Start => "restart",
                };
                let word = |value: Option<&Value>| value.map_or_else(|| "none".to_owned(), Value::to_string);
                all.push(format!("config {key}: {} becomes {}, {how}", word(before), word(after)));
            }
        }
    }
    Ok(all)
}

/// The keys of two objects, once each.
fn names(one: &Value, other: &Value) -> std::collections::BTreeSet<String> {
    [one, other].into_iter().filter_map(Value::as_object).flat_map(|object| object.keys().cloned()).collect()
}

/// What is printed.
fn text(checked: &Checked, changes: &[String], facts: &Facts, now: Timestamp) -> String {
    let mut out = String::new();
    for change in changes {
        let _ = writeln!(out, "{change}");
    }
    // What would be applied counts as applied, and as known.
    let facts = Facts { settled: true, ..facts.clone() };
    let first = match facts.next(now) {
        Next::Nothing => return out + "no broker would be restarted\n",
        Next::Wait(Wait::Paused) => "spec.paused is true: nothing would be done".to_owned(),
        Next::Wait(Wait::Deferred) => {
            "only the operator's version is another one: brokers go on as they are (rolling.onOperatorUpgrade)".to_owned()
        }
        Next::Wait(Wait::Window(Some(opens))) => format!("nothing before {opens}, when the next window opens"),
        Next::Wait(Wait::Window(None)) => "never: none of the windows ever opens".to_owned(),
        Next::Wait(Wait::Broker(id)) => format!("nothing before broker {id} is in sync"),
        Next::Wait(Wait::Settling) => "soon".to_owned(),
        Next::Replace(id) => format!("broker {id} at once: it does not run"),
        Next::Restart(_) => {
            "one after the other, each when the others are in sync and none of its partitions suffers; the active controller last"
                .to_owned()
        }
    };
    let _ = writeln!(out, "{first}");
    let _ = writeln!(out, "{:<8}{:<24}{:<12}RESTART", "BROKER", "POD", "STATE");
    for (id, broker) in &facts.brokers {
        let state = match broker.pod {
            Pod::Missing => "missing",
            Pod::Going => "stopping",
            Pod::Stuck => "failing",
            Pod::Unready(_) => "not ready",
            Pod::Ready => "ready",
        };
        let why = broker.due.map_or("", Reason::word);
        let _ = writeln!(out, "{id:<8}{:<24}{state:<12}{why}", checked.names.pod(*id));
    }
    out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::roll::Broker;

    fn cluster(spec: Value) -> Cluster {
        let object = json!({
            "apiVersion": "klamm.dev/v1alpha1", "kind": "Cluster",
            "metadata": { "name": "prod", "namespace": "x", "uid": "u" }, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn each_change_is_told_with_what_it_takes() {
        let there = cluster(json!({ "config": { "num.partitions": 3, "log.retention.ms": 1, "same": 1 } }));
        let spec = json!({
            "replicas": 5, "image": "i", "config": { "num.partitions": 7, "log.segment.bytes": 2_000_000, "same": 1 },
        });
        let expected = [
            "config log.retention.ms: 1 becomes none, no restart",
            "config log.segment.bytes: none becomes 2000000, no restart",
            "config num.partitions: 3 becomes 7, restart",
            "image: restart",
            "replicas: no restart",
        ];
        assert_eq!(changes(&there, &cluster(spec)).unwrap(), expected);
        assert!(changes(&there, &there).unwrap().is_empty());
    }

    #[test]
    fn what_is_of_another_kind_is_no_cluster() {
        let text = |version: &str, kind: &str| {
            format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{ name: prod }}\nspec: {{}}\n")
        };
        let why = |version: &str, kind: &str| understood(&text(version, kind)).unwrap_err();
        assert!(understood(&text("klamm.dev/v1alpha1", "Cluster")).is_ok());
        assert_eq!(why("klamm.dev/v1alpha1", "Topic"), "kind is \"Topic\", and not Cluster");
        assert_eq!(why("v1", "Cluster"), "apiVersion is \"v1\", and not klamm.dev/v1alpha1");
        assert!(understood("metadata: { name: prod }").unwrap_err().starts_with("apiVersion is null"));
        assert!(understood("").is_err());
    }

    #[test]
    fn brokers_are_listed_with_why() {
        let checked = render::check(&cluster(json!({})), &render::golden_settings()).unwrap();
        let broker = |pod, due| Broker { pod, due, leaders: 0 };
        let brokers = [(0, broker(Pod::Ready, Some(Reason::Description))), (1, broker(Pod::Ready, None))];
        let facts = Facts { brokers: brokers.into(), ..Facts::default() };
        let now = Timestamp::UNIX_EPOCH;
        let said = text(&checked, &["image: restart".into()], &facts, now);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[0], "image: restart");
        assert!(lines[1].starts_with("one after the other"), "{said}");
        assert_eq!(lines[3], "0       prod-0                  ready       TemplateChanged");
        assert_eq!(lines[4], "1       prod-1                  ready");
        let none = Facts { brokers: [(0, broker(Pod::Ready, None))].into(), ..Facts::default() };
        assert_eq!(text(&checked, &[], &none, now), "no broker would be restarted\n");
    }
}
