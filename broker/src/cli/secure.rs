//! `--command-config`: the properties file of Kafka's own tools, of which the security of connections matters here.
//!
//! What says how to be secure and can't be honoured is refused; what only tunes a Java client is passed over.

use std::path::Path;

use klamm_client::Tls;

use super::input::read_file;
use super::{CliError, Result};
use crate::config::tls::TlsSettings;
use crate::config::{Entries, Layers, properties};
use crate::tls;

/// Reads the file: TLS for connections, or none.
pub fn read(file: &Path) -> Result<Option<Tls>> {
    let bad = |reason: &dyn std::fmt::Display| CliError::usage(format!("{}: {reason}", file.display()));
    let bytes = read_file(file, properties::MAX_BYTES as u64).map_err(|e| bad(&e))?;
    let parsed = properties::parse(&bytes).map_err(|e| bad(&e))?;
    of(parsed.into_iter().map(|entry| (entry.key, entry.value)).collect()).map_err(|reason| bad(&reason))
}

fn of(entries: Entries) -> Result<Option<Tls>, String> {
    match entries.get("security.protocol").map(|text| text.trim()).unwrap_or("PLAINTEXT") {
        "PLAINTEXT" => return Ok(None),
        "SSL" => {}
        other => return Err(format!("security.protocol: {other} is not available yet, only PLAINTEXT and SSL are")),
    }
    let settings = TlsSettings::of(&Layers::new(entries), "this client");
    let settings = settings.map_err(|(key, reason)| format!("{key}: {reason}"))?;
    tls::for_client(&settings).map(Some).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pairs: &[(&str, &str)]) -> String {
        let entries = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        of(entries).expect_err("refused")
    }

    #[test]
    fn nothing_is_less_secure_than_the_file_says() {
        assert!(of(Entries::from([("client.id".to_owned(), "x".to_owned())])).expect("no security").is_none());
        assert!(refused(&[("security.protocol", "SASL_SSL")]).contains("SASL_SSL is not available yet"));
        let ssl = ("security.protocol", "SSL");
        assert!(refused(&[ssl]).starts_with("ssl.truststore.location: "));
        assert!(refused(&[ssl, ("ssl.truststore.location", "/t.jks")]).contains("truststore of type JKS"));
        let key = ("ssl.keystore.location", "/k.p12");
        assert!(refused(&[ssl, key, ("ssl.keystore.type", "PKCS12")]).contains("keystore of type PKCS12"));
    }
}
