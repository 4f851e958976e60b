//! What was configured, by layer: defaults < file < environment < `--set`. Each value remembers where it came from, so
//! that an error can say so. Keys are checked here, all of them, so that one start shows every mistake.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::key::BadValue;
use super::keys;
use super::properties::{self, PropertiesError};
use super::tls;

/// Texts by key.
pub use klamm_metadata::Entries;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file.
    File(String, usize),
    /// An environment variable.
    Env(String),
    /// `--set`.
    Flag,
    /// Changed at run time.
    Dynamic,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(name, line) => write!(f, "{name}:{line}"),
            Origin::Env(name) => write!(f, "environment {name}"),
            Origin::Flag => f.write_str("--set"),
            Origin::Dynamic => f.write_str("dynamic configuration"),
        }
    }
}

/// A mistake in the configuration: key, value, reason. The process that meets one at the start exits with 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key; empty when a whole file or argument is at fault.
    pub key: String,
    /// The value; absent when it is secret or there is none.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Option<Origin>,
    /// What is wrong, and what to do about it.
    pub reason: String,
}

impl ConfigError {
    /// A mistake that no single value is to blame for.
    pub fn new(key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError { key: key.to_owned(), value: None, origin: None, reason: reason.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            // A hostile or broken file must not flood the log.
            let short: String = value.chars().take(200).collect();
            write!(f, "={short}{}", if short.len() < value.len() { "…" } else { "" })?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        let colon = if self.key.is_empty() && self.origin.is_none() { "" } else { ": " };
        write!(f, "{colon}{}", self.reason)
    }
}

/// All mistakes of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> ConfigErrors {
        ConfigErrors(vec![error])
    }
}

/// The variables of this process, without those that are not Unicode: no key or value of ours can be.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// A configured value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its text, as written.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Configured values; later layers replace earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<String, Setting>,
    warnings: Vec<String>,
}

impl Settings {
    /// Nothing configured.
    pub fn new() -> Settings {
        Settings::default()
    }

    /// Adds a properties file.
    pub fn add_file(&mut self, path: &Path) -> Result<(), ConfigErrors> {
        let name = path.display().to_string();
        let read = || -> std::io::Result<Vec<u8>> {
            use std::io::Read as _;
            let mut bytes = Vec::new();
            let limit = properties::MAX_BYTES as u64 + 1;
            std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|e| ConfigError::new("", format!("cannot read {name}: {e}")))?;
        self.add_properties(&name, &bytes)
    }

    /// Adds the text of a properties file called `name`.
    pub fn add_properties(&mut self, name: &str, bytes: &[u8]) -> Result<(), ConfigErrors> {
        let entries = properties::parse(bytes)
            .map_err(|e: PropertiesError| ConfigError::new("", format!("cannot read {name}: {e}")))?;
        for entry in entries {
            let origin = Origin::File(name.to_owned(), entry.line);
            self.values.insert(entry.key, Setting { value: entry.value, origin });
        }
        Ok(())
    }

    /// Adds those environment variables that stand for keys: `KLAMM_` and the key in upper case with `_` for `.`.
    /// A variable that stands for none gives a warning and no error: Kubernetes itself adds variables that begin with
    /// the name of each Service, and one may well be called klamm.
    pub fn add_env(&mut self, vars: impl IntoIterator<Item = (String, String)>) {
        let mut vars: Vec<_> = vars.into_iter().filter(|(name, _)| name.starts_with("KLAMM_")).collect();
        vars.sort();
        for (name, value) in vars {
            let rest = name.strip_prefix("KLAMM_").unwrap_or(&name);
            if let Some(key) = key_of_variable(rest) {
                self.values.insert(key, Setting { value, origin: Origin::Env(name) });
            } else if !is_foreign_variable(rest) {
                let meant = keys::nearest(rest, variables().map(|(v, _)| v)).map(|v| format!(", KLAMM_{v} is"));
                let meant = meant.unwrap_or_default();
                self.warnings.push(format!("environment variable {name} is no configuration key{meant}"));
            }
        }
    }

    /// Adds one `KEY=VALUE` of `--set`.
    pub fn add_flag(&mut self, text: &str) -> Result<(), ConfigErrors> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(ConfigError::new("", format!("--set {text}: expected KEY=VALUE")).into());
        };
        self.set(key.trim(), value, Origin::Flag);
        Ok(())
    }

    /// Puts variables of the environment where a file says `${env:NAME}`, as Kafka's config provider `env` does. One
    /// that is unset or empty is a mistake: what follows from it (an address, a rack) would be silently wrong.
    pub fn expand(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<(), ConfigErrors> {
        let mut errors = Vec::new();
        let mut expanded = Vec::new();
        for (key, setting) in self.values.iter().filter(|(_, s)| matches!(s.origin, Origin::File(..))) {
            match expand(&setting.value, &variable) {
                Ok(None) => {}
                Ok(Some(value)) => expanded.push((key.clone(), value)),
                Err(reason) => errors.push(self.error(key, reason)),
            }
        }
        if !errors.is_empty() {
            return Err(ConfigErrors(errors));
        }
        for (key, value) in expanded {
            if let Some(setting) = self.values.get_mut(&key) {
                setting.value = value;
            }
        }
        Ok(())
    }

    /// Sets one value.
    pub fn set(&mut self, key: &str, value: &str, origin: Origin) {
        self.values.insert(key.to_owned(), Setting { value: value.to_owned(), origin });
    }

    /// Removes one value.
    pub fn remove(&mut self, key: &str) {
        self.values.remove(key);
    }

    /// The value of a key, if configured.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.values.get(key)
    }

    /// All configured values as texts: what DescribeConfigs calls static.
    pub fn entries(&self) -> Entries {
        self.values.iter().map(|(key, setting)| (key.clone(), setting.value.clone())).collect()
    }

    /// Turns the complaint about one value into an error that says where the value came from.
    pub fn error(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        let secret = keys::find_broker_or_listener(key).is_some_and(|k| k.sensitive());
        let setting = self.values.get(key);
        ConfigError {
            key: key.to_owned(),
            value: setting.filter(|_| !secret).map(|s| s.value.clone()),
            origin: setting.map(|s| s.origin.clone()),
            reason: reason.into(),
        }
    }

    /// Checks that every key is known and its value good. Gives the warnings about keys without effect.
    pub fn check(&self) -> Result<Vec<String>, ConfigErrors> {
        let mut warnings = self.warnings.clone();
        let mut errors = Vec::new();
        for (name, setting) in &self.values {
            match check_one(name, &setting.value) {
                Ok(None) => {}
                Ok(Some(warning)) => warnings.push(format!("{name} ({}): {warning}", setting.origin)),
                Err(reason) => errors.push(self.error(name, reason)),
            }
        }
        if errors.is_empty() { Ok(warnings) } else { Err(ConfigErrors(errors)) }
    }
}

/// A value with its variables put in; `None` when it names none.
fn expand(text: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    const BEGIN: &str = "${env:";
    let mut parts = text.split(BEGIN);
    let mut value = parts.next().unwrap_or_default().to_owned();
    let mut found = false;
    for part in parts {
        let (name, rest) = part.split_once('}').ok_or_else(|| format!("{BEGIN} without }}"))?;
        let put = variable(name).filter(|put| !put.is_empty());
        value.push_str(&put.ok_or_else(|| format!("the environment variable {name} is unset or empty"))?);
        value.push_str(rest);
        found = true;
    }
    Ok(found.then_some(value))
}

/// Prefixes of keys that Kafka hands to plug-ins.
const PLUGIN_PREFIXES: &[&str] = &["rsm.config.", "rlmm.config.", "config.providers."];

/// Checks one key with its value: the reason it is refused, or a warning if it has no effect.
fn check_one(name: &str, value: &str) -> Result<Option<String>, String> {
    if keys::GONE.iter().any(|key| key.name == name) {
        return Ok(Some("Kafka itself has dropped this key, it has no effect".to_owned()));
    }
    if PLUGIN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Ok(Some("belongs to a Java plug-in, Klamm does not need it".to_owned()));
    }
    let Some(key) = keys::find_broker_or_listener(name) else {
        let known = keys::broker().iter().map(|key| key.name);
        let meant = match keys::nearest(name, known) {
            Some(meant) => format!(", did you mean {meant}?"),
            None if keys::find_topic(name).is_some() => {
                let of_broker = keys::find_topic(name).and_then(|key| key.from_broker.first());
                match of_broker {
                    Some((broker, _)) => format!(": it is a topic's; its default for all topics is {broker}"),
                    None => ": it is a topic's, set it on topics".to_owned(),
                }
            }
            None => String::new(),
        };
        return Err(format!("unknown key{meant}"));
    };
    if key.dynamic_only {
        return Err("can only be set at run time, with kafka-configs".to_owned());
    }
    if value.trim_start().starts_with("${") {
        return Err("of the config providers only env is there, as ${env:NAME}".to_owned());
    }
    key.parse(value).map_err(|BadValue { reason, .. }| reason)?;
    if name == "authorizer.class.name" && !value.trim().is_empty() {
        // Starting anyway would leave a cluster open that its owner believes to be closed.
        return Err("authorization is not available yet; remove the key to run without".to_owned());
    }
    Ok(match key.doc {
        Some(_) if name == key.name || tls::BY_LISTENER.contains(&key.name) => None,
        Some(_) => Some("Klamm has no settings by listener yet, this one has no effect".to_owned()),
        None => Some("known to Kafka, not needed by Klamm: it has no effect".to_owned()),
    })
}

/// Keys by the variable that stands for them, without `KLAMM_`. Our own keys need not repeat it.
fn variables() -> impl Iterator<Item = (&'static str, &'static str)> {
    use std::sync::LazyLock;
    static VARIABLES: LazyLock<Vec<(String, &'static str)>> = LazyLock::new(|| {
        let upper = |name: &str| name.to_ascii_uppercase().replace('.', "_");
        let mut all: Vec<_> = keys::broker().iter().map(|key| (upper(key.name), key.name)).collect();
        let own = all.iter().filter_map(|(v, key)| Some((v.strip_prefix("KLAMM_")?.to_owned(), *key)));
        let own: Vec<_> = own.filter(|(v, _)| !all.iter().any(|(other, _)| other == v)).collect();
        all.extend(own);
        all
    });
    VARIABLES.iter().map(|(variable, key)| (variable.as_str(), *key))
}

fn key_of_variable(rest: &str) -> Option<String> {
    if let Some((_, key)) = variables().find(|(variable, _)| *variable == rest) {
        return Some(key.to_owned());
    }
    // LISTENER_NAME_<listener>_<key>: the longest key that ends it leaves the shortest listener name.
    let rest = rest.strip_prefix("LISTENER_NAME_")?;
    let ends = |v: &str| rest.strip_suffix(v).and_then(|head| head.strip_suffix('_')).filter(|l| !l.is_empty());
    let found = variables().filter_map(|(v, key)| ends(v).map(|listener| (v.len(), listener, key))).max()?;
    Some(format!("listener.name.{}.{}", found.1.to_ascii_lowercase(), found.2))
}

/// Variables that are not meant as keys: our own switches, and what Kubernetes sets for a Service named klamm.
fn is_foreign_variable(rest: &str) -> bool {
    matches!(rest, "LOG" | "LONG" | "BOOTSTRAP" | "COMMAND_CONFIG" | "PORT")
        || rest.ends_with("_SERVICE_HOST")
        || rest.contains("SERVICE_PORT")
        || rest == "SERVICE_HOST"
        || ["_TCP", "_UDP", "_ADDR", "_PROTO", "_PORT"].iter().any(|end| rest.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        let mut settings = Settings::new();
        settings.add_properties("server.properties", text.as_bytes()).unwrap();
        settings
    }

    fn refused(text: &str, expected: &str) {
        assert_eq!(settings(text).check().unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_mistake_is_named_with_key_value_place_and_reason() {
        refused("\nnum.partitions=many", "num.partitions=many (server.properties:2): Not a number of type INT");
        refused("num.partitions=0", "num.partitions=0 (server.properties:1): Value must be at least 1");
        refused("num.partition=3", "num.partition=3 (server.properties:1): unknown key, did you mean num.partitions?");
        refused("what.is.this=3", "what.is.this=3 (server.properties:1): unknown key");
        refused(
            "retention.ms=3",
            "retention.ms=3 (server.properties:1): unknown key: it is a topic's; its default for all topics is log.retention.ms",
        );
        refused("a=1\nb=2", "a=1 (server.properties:1): unknown key\nb=2 (server.properties:2): unknown key");
    }

    #[test]
    fn secrets_are_not_shown() {
        let error = settings("ssl.key.password=${file:/x:y}").check().unwrap_err().to_string();
        assert!(!error.contains("file") && error.starts_with("ssl.key.password (server.properties:1): "), "{error}");
    }

    #[test]
    fn a_key_without_effect_gets_one_line() {
        let warnings =
            settings("num.io.threads=8\nzookeeper.connect=x\nlistener.name.a.ssl.protocol=TLSv1.3\nnum.partitions=1");
        let warnings = warnings.check().unwrap();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        let line = "num.io.threads (server.properties:1): known to Kafka, not needed by Klamm: it has no effect";
        assert!(warnings.iter().any(|w| w == line), "{warnings:?}");
    }

    #[test]
    fn an_authorizer_is_not_ignored() {
        let error = settings("authorizer.class.name=org.example.A").check().unwrap_err();
        assert!(error.to_string().contains("authorization is not available yet"));
        assert!(settings("authorizer.class.name=").check().is_ok());
    }

    #[test]
    fn later_layers_win() {
        let mut settings = settings("num.partitions=1\nlog.dirs=/a");
        let vars = [("KLAMM_NUM_PARTITIONS", "2"), ("KLAMM_LOG_DIRS", "/b"), ("PATH", "/bin")];
        settings.add_env(vars.map(|(k, v)| (k.to_owned(), v.to_owned())));
        settings.add_flag("num.partitions=3").unwrap();
        assert_eq!(settings.get("num.partitions").unwrap().value, "3");
        assert_eq!(settings.get("log.dirs").unwrap().value, "/b");
        assert!(settings.add_flag("num.partitions").is_err());
    }

    #[test]
    fn a_file_takes_variables_and_misses_none() {
        let variable = |name: &str| match name {
            "HOST" => Some("10.0.0.1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let mut all = settings("advertised.listeners=A://${env:HOST}:1,B://${env:HOST}:2\nbroker.rack=a${b");
        all.add_flag("cluster.id=${env:HOST}").unwrap();
        all.expand(variable).unwrap();
        assert_eq!(all.get("advertised.listeners").unwrap().value, "A://10.0.0.1:1,B://10.0.0.1:2");
        assert_eq!(all.get("broker.rack").unwrap().value, "a${b");
        assert_eq!(all.get("cluster.id").unwrap().value, "${env:HOST}", "a shell has done it, or its user meant it");
        for (text, reason) in [("${env:EMPTY}", "EMPTY is unset or empty"), ("x${env:NO}", "NO is unset or empty")] {
            let error = settings(&format!("broker.rack={text}")).expand(variable).unwrap_err().to_string();
            assert!(error.contains("broker.rack") && error.ends_with(reason), "{error}");
        }
        assert!(settings("broker.rack=${env:HOST").expand(variable).is_err());
    }

    #[test]
    fn variables_stand_for_keys() {
        for (variable, key) in [
            ("KLAMM_ADMIN_LISTENER", "klamm.admin.listener"),
            ("ADMIN_LISTENER", "klamm.admin.listener"),
            ("CLUSTER_ID", "cluster.id"),
            ("LISTENER_NAME_INTERNAL_SSL_KEYSTORE_LOCATION", "listener.name.internal.ssl.keystore.location"),
            ("LISTENER_SECURITY_PROTOCOL_MAP", "listener.security.protocol.map"),
        ] {
            assert_eq!(key_of_variable(variable).as_deref(), Some(key));
        }
        let mut settings = Settings::new();
        let vars = ["KLAMM_SERVICE_HOST", "KLAMM_PORT_9092_TCP_ADDR", "KLAMM_LOG", "KLAMM_NUM_PARTITION"];
        settings.add_env(vars.map(|v| (v.to_owned(), "1".to_owned())));
        let warnings = settings.check().unwrap();
        assert_eq!(
            warnings,
            ["environment variable KLAMM_NUM_PARTITION is no configuration key, KLAMM_NUM_PARTITIONS is"]
        );
    }
}
