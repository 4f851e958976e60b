//! What a listener of protocol SSL is configured with: Kafka's `ssl.*` keys, each of which
//! `listener.name.<name>.ssl.…` overrides for one listener. Only PEM, as files or in the configuration itself (KIP-651).
//!
//! Pure: files are named here and read elsewhere. What Klamm cannot honour is refused, never ignored: a listener that is
//! less strict than its owner believes would be worse than none.

use std::fmt;
use std::path::PathBuf;

use super::key::Value;
use super::keys;
use super::layers::Layers;

/// The keys of which each listener may have its own.
pub const BY_LISTENER: &[&str] = &[
    "ssl.cipher.suites",
    "ssl.client.auth",
    "ssl.enabled.protocols",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

/// Text of PEM, or where it is. Its debug output shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// In a file.
    File(PathBuf),
    /// In the configuration.
    Inline(String),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => path.fmt(f),
            Pem::Inline(_) => f.write_str("inline"),
        }
    }
}

/// A key of the configuration, by the name it was set with, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `ssl.keystore.location`, say, or the same of a listener.
    pub key: String,
    /// What it holds.
    pub pem: Pem,
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nothing.
    None,
    /// A certificate, if they have one.
    Requested,
    /// A certificate.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// TLS of one listener, and of connections that this node opens to the same listener of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// This node's certificates, its own first.
    pub chain: Option<Source>,
    /// Their private key; in a file with both, the same source.
    pub private_key: Option<Source>,
    /// Who may sign the certificates of others.
    pub trusted: Option<Source>,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// Versions of TLS that are spoken.
    pub versions: Vec<TlsVersion>,
    /// Cipher suites by Kafka's (and IANA's) names; empty for all.
    pub suites: Vec<String>,
    /// Whether a connection that this node opens must meet the host that it asked for.
    pub check_host: bool,
}

/// A key and why its value cannot be used.
type Refused = (String, String);

impl TlsSettings {
    /// The settings of the listener of this name.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn of(layers: &Layers, listener: &str) -> Result<TlsSettings, Refused> {
        let keys = Keys { layers, prefix: format!("listener.name.{}.", listener.to_ascii_lowercase()) };
        let (chain, private_key) = key_store(&keys, listener)?;
        let trusted = trust_store(&keys, listener)?;
        let client_auth = match keys.text("ssl.client.auth").1.as_deref() {
            Some("required") => ClientAuth::Required,
            Some("requested") => ClientAuth::Requested,
            _ => ClientAuth::None,
        };
        if client_auth != ClientAuth::None && trusted.is_none() {
            let reason = format!("{listener} asks for certificates of clients: name here who may sign them");
            return Err((keys.name_of("ssl.truststore.location"), reason));
        }
        let (key, names) = keys.list("ssl.enabled.protocols");
        let mut versions = Vec::new();
        for name in names {
            versions.push(match name.as_str() {
                "TLSv1.2" => TlsVersion::V12,
                "TLSv1.3" => TlsVersion::V13,
                _ => return Err((key, format!("{name} is not supported, only TLSv1.2 and TLSv1.3 are"))),
            });
        }
        if versions.is_empty() {
            return Err((key, "names no protocol; TLSv1.2 and TLSv1.3 are supported".to_owned()));
        }
        let (key, identification) = keys.text("ssl.endpoint.identification.algorithm");
        let check_host = match identification.as_deref() {
            None => false,
            Some(text) if text.eq_ignore_ascii_case("https") => true,
            Some(text) => return Err((key, format!("{text} is unknown; https checks hosts, an empty value doesn't"))),
        };
        let suites = keys.list("ssl.cipher.suites").1;
        Ok(TlsSettings { chain, private_key, trusted, client_auth, versions, suites, check_host })
    }
}

fn key_store(keys: &Keys<'_>, listener: &str) -> Result<(Option<Source>, Option<Source>), Refused> {
    let location = keys.source("ssl.keystore.location", true);
    let chain = keys.source("ssl.keystore.certificate.chain", false);
    let private_key = keys.source("ssl.keystore.key", false);
    if location.is_some() || chain.is_some() || private_key.is_some() {
        let (type_key, store_type) = keys.text("ssl.keystore.type");
        check_type(type_key, store_type, "keystore", listener, "ssl.keystore.location")?;
    }
    refuse_password(keys, "ssl.keystore.password", location.is_some() || chain.is_some())?;
    if let (key, Some(_)) = keys.text("ssl.key.password") {
        return Err((key, ENCRYPTED.to_owned()));
    }
    match (location, chain, private_key) {
        (Some(file), None, None) => Ok((Some(file.clone()), Some(file))),
        (None, Some(chain), Some(key)) => Ok((Some(chain), Some(key))),
        (None, None, None) => Ok((None, None)),
        (Some(file), ..) => {
            let other = "ssl.keystore.certificate.chain and ssl.keystore.key";
            Err((file.key, format!("is set besides {other}; only one of the two ways can hold")))
        }
        (None, Some(chain), None) => Err((chain.key, "needs ssl.keystore.key besides it".to_owned())),
        (None, None, Some(key)) => Err((key.key, "needs ssl.keystore.certificate.chain besides it".to_owned())),
    }
}

/// Why keys under a password are refused.
pub const ENCRYPTED: &str = "private keys under a password are not supported; \
     store the key as it is, readable by the broker only (openssl pkcs8 -topk8 -nocrypt)";

fn trust_store(keys: &Keys<'_>, listener: &str) -> Result<Option<Source>, Refused> {
    let location = keys.source("ssl.truststore.location", true);
    let inline = keys.source("ssl.truststore.certificates", false);
    if let (Some(file), Some(_)) = (&location, &inline) {
        let reason = "is set besides ssl.truststore.certificates; only one of the two can hold";
        return Err((file.key.clone(), reason.to_owned()));
    }
    let found = location.or(inline);
    if found.is_some() {
        let (type_key, store_type) = keys.text("ssl.truststore.type");
        check_type(type_key, store_type, "truststore", listener, "ssl.truststore.location")?;
        refuse_password(keys, "ssl.truststore.password", true)?;
    }
    Ok(found)
}

fn check_type(key: String, value: Option<String>, what: &str, listener: &str, location: &str) -> Result<(), Refused> {
    match value {
        Some(text) if text.eq_ignore_ascii_case("PEM") => Ok(()),
        other => {
            let other = other.unwrap_or_default();
            let reason = format!(
                "{listener} has a {what} of type {other}, and only PEM is supported: convert the store (for PKCS12 \
                 with openssl pkcs12 -nodes), set this to PEM and {location} to the file"
            );
            Err((key, reason))
        }
    }
}

fn refuse_password(keys: &Keys<'_>, name: &str, store: bool) -> Result<(), Refused> {
    match keys.text(name) {
        (key, Some(_)) if store => Err((key, "PEM has no password for the whole store; remove it".to_owned())),
        _ => Ok(()),
    }
}

/// Keys as one listener sees them: its own before those of all.
struct Keys<'a> {
    layers: &'a Layers,
    prefix: String,
}

impl Keys<'_> {
    /// The value and the name that it was set with.
    fn get(&self, base: &str) -> (String, Option<Value>) {
        let own = format!("{}{base}", self.prefix);
        let Some(key) = keys::find_broker(base) else { return (own, None) };
        let of_listener = self.layers.in_order().into_iter().find_map(|(entries, _)| {
            let text = entries.get(&own)?;
            key.parse(text).ok()
        });
        match of_listener {
            Some(value) => (own, Some(value)),
            None => (base.to_owned(), self.layers.value(key)),
        }
    }

    fn name_of(&self, base: &str) -> String {
        self.get(base).0
    }

    fn text(&self, base: &str) -> (String, Option<String>) {
        match self.get(base) {
            (key, Some(Value::Text(text))) => (key, Some(text).filter(|text| !text.is_empty())),
            (key, _) => (key, None),
        }
    }

    fn list(&self, base: &str) -> (String, Vec<String>) {
        match self.get(base) {
            (key, Some(Value::List(members))) => (key, members),
            (key, _) => (key, Vec::new()),
        }
    }

    fn source(&self, base: &str, file: bool) -> Option<Source> {
        let (key, text) = self.text(base);
        let text = text?;
        Some(Source { key, pem: if file { Pem::File(text.into()) } else { Pem::Inline(text) } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Entries;

    fn settings(pairs: &[(&str, &str)]) -> Result<TlsSettings, Refused> {
        let entries: Entries = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        TlsSettings::of(&Layers::new(entries), "INTERNAL")
    }

    const STORE: [(&str, &str); 2] = [("ssl.keystore.type", "PEM"), ("ssl.keystore.location", "/k.pem")];
    const TRUST: [(&str, &str); 2] = [("ssl.truststore.type", "PEM"), ("ssl.truststore.location", "/t.pem")];

    #[track_caller]
    fn refused(pairs: &[(&str, &str)], key: &str, reason: &str) {
        let all: Vec<_> = STORE.iter().chain(pairs).copied().collect();
        let (at, why) = settings(&all).expect_err("refused");
        assert_eq!(at, key, "{why}");
        assert!(why.contains(reason), "{why}");
    }

    #[test]
    fn what_a_listener_overrides_wins_over_what_all_have() {
        let all = settings(&[STORE, TRUST].concat()).expect("legal");
        assert_eq!(all.chain, all.private_key);
        assert_eq!(all.client_auth, ClientAuth::None);
        assert_eq!(all.versions, [TlsVersion::V12, TlsVersion::V13]);
        assert!(all.check_host && all.suites.is_empty());

        let own = [
            ("listener.name.internal.ssl.client.auth", "required"),
            ("listener.name.internal.ssl.keystore.location", "/own.pem"),
            ("listener.name.internal.ssl.enabled.protocols", "TLSv1.3"),
            ("listener.name.internal.ssl.endpoint.identification.algorithm", ""),
            ("listener.name.other.ssl.truststore.location", "/other.pem"),
            ("ssl.client.auth", "none"),
        ];
        let own = settings(&[&STORE[..], &TRUST, &own].concat()).expect("legal");
        let chain = own.chain.expect("a chain");
        assert_eq!(chain.key, "listener.name.internal.ssl.keystore.location");
        assert_eq!(chain.pem, Pem::File("/own.pem".into()));
        assert_eq!(own.trusted.expect("trust").pem, Pem::File("/t.pem".into()));
        assert_eq!((own.client_auth, own.check_host), (ClientAuth::Required, false));
        assert_eq!(own.versions, [TlsVersion::V13]);
    }

    #[test]
    fn keys_in_the_configuration_itself_are_taken_and_never_shown() {
        let inline = [
            ("ssl.keystore.type", "PEM"),
            ("ssl.keystore.certificate.chain", "CHAIN"),
            ("ssl.keystore.key", "SECRET"),
            ("ssl.truststore.type", "pem"),
            ("ssl.truststore.certificates", "ROOT"),
        ];
        let settings = settings(&inline).expect("legal");
        assert_eq!(settings.private_key.as_ref().map(|s| &s.pem), Some(&Pem::Inline("SECRET".into())));
        assert!(!format!("{settings:?}").contains("SECRET"));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_with_the_key() {
        let (key, why) = settings(&[("ssl.keystore.location", "/k.jks")]).expect_err("Kafka's default");
        assert!(key == "ssl.keystore.type" && why.contains("INTERNAL has a keystore of type JKS"), "{key}: {why}");
        refused(&[("ssl.keystore.type", "PKCS12")], "ssl.keystore.type", "only PEM is supported");
        refused(&[("ssl.truststore.location", "/t.jks")], "ssl.truststore.type", "only PEM is supported");
        refused(&[("ssl.keystore.password", "x")], "ssl.keystore.password", "no password for the whole store");
        refused(&[("ssl.key.password", "x")], "ssl.key.password", "-nocrypt");
        refused(&[("ssl.client.auth", "required")], "ssl.truststore.location", "who may sign them");
        refused(&[("ssl.enabled.protocols", "TLSv1.3,TLSv1.1")], "ssl.enabled.protocols", "TLSv1.1 is not supported");
        refused(&[("ssl.enabled.protocols", "")], "ssl.enabled.protocols", "names no protocol");
        let algorithm = "ssl.endpoint.identification.algorithm";
        refused(&[(algorithm, "ldaps")], algorithm, "ldaps is unknown");
        refused(&[("ssl.keystore.key", "x")], "ssl.keystore.location", "only one of the two ways");
        let both = [&TRUST[..], &[("ssl.truststore.certificates", "x")]].concat();
        refused(&both, "ssl.truststore.location", "only one of the two");
        let lone = [("ssl.keystore.type", "PEM"), ("ssl.keystore.key", "x")];
        assert_eq!(settings(&lone).expect_err("half").0, "ssl.keystore.key");
    }
}
