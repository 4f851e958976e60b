//! From PEM to what rustls works with. Everything is checked here: that there are certificates and a key, that they
//! belong together, that cipher suites and versions fit.

use std::fmt;
use std::io::Read as _;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};

use crate::config::tls::{ClientAuth, ENCRYPTED, Pem, Source, TlsSettings, TlsVersion};

/// Largest PEM file that is read.
const PEM_BYTES_MAX: u64 = 8 << 20;

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct BadMaterial {
    /// The configuration key.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

/// What a listener's settings are used for here.
#[derive(Clone, Copy, Debug)]
pub struct Uses {
    /// This node listens.
    pub server: bool,
    /// This node connects to others.
    pub client: bool,
}

/// Ready for connections.
pub struct Material {
    /// For connections that are accepted.
    pub server: Option<Arc<ServerConfig>>,
    /// For connections that are opened.
    pub client: Option<Arc<ClientConfig>>,
    /// Whom this node's own certificate names.
    pub subject: String,
    /// When it runs out, in seconds since 1970.
    pub expires: Option<i64>,
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Material {
    /// Reads the files and checks everything.
    pub fn read(settings: &TlsSettings, uses: Uses) -> Result<Material, BadMaterial> {
        let provider = Arc::new(provider(settings)?);
        let versions: Vec<&'static SupportedProtocolVersion> = settings.versions.iter().map(|v| version(*v)).collect();
        let trusted = settings.trusted.as_ref().map(roots).transpose()?.map(Arc::new);
        let own = match (&settings.chain, &settings.private_key) {
            (Some(chain), Some(key)) => Some((certificates(chain, CHAIN)?, private_key(key)?)),
            _ => None,
        };
        let bad = |source: Option<&Source>, error: &dyn fmt::Display| BadMaterial {
            key: source.map_or_else(|| "ssl.keystore.location".to_owned(), |s| s.key.clone()),
            reason: error.to_string(),
        };
        let bad_own = |error: Error| match error {
            Error::InconsistentKeys(_) => {
                bad(settings.chain.as_ref(), &"the private key does not belong to the first certificate")
            }
            error => bad(settings.chain.as_ref(), &error),
        };
        let bad_trust = |error: &dyn fmt::Display| BadMaterial {
            key: settings.trusted.as_ref().map_or_else(|| "ssl.truststore.location".to_owned(), |s| s.key.clone()),
            reason: error.to_string(),
        };
        let expires = own.as_ref().and_then(|(chain, _)| super::not_after(chain.first()?));
        let subject = own.as_ref().and_then(|(chain, _)| super::subject(chain.first()?)).unwrap_or_default();

        let mut server = None;
        if uses.server {
            let Some((chain, key)) = own.as_ref().map(copy) else {
                return Err(bad(None, &"a listener of protocol SSL needs certificates and a private key"));
            };
            let builder = ServerConfig::builder_with_provider(provider.clone());
            let builder = builder.with_protocol_versions(&versions).map_err(bad_own)?;
            let verifier = match (&trusted, settings.client_auth) {
                (_, ClientAuth::None) => None,
                (None, _) => return Err(bad_trust(&"is needed to check the certificates of clients")),
                (Some(roots), auth) => {
                    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
                    let verifier =
                        if auth == ClientAuth::Required { verifier } else { verifier.allow_unauthenticated() };
                    Some(verifier.build().map_err(|e| bad_trust(&e))?)
                }
            };
            let builder = match verifier {
                None => builder.with_no_client_auth(),
                Some(verifier) => builder.with_client_cert_verifier(verifier),
            };
            server = Some(Arc::new(builder.with_single_cert(chain, key).map_err(bad_own)?));
        }

        let mut client = None;
        if uses.client {
            let Some(roots) = trusted else {
                return Err(bad_trust(&"is needed to check the certificates of other nodes"));
            };
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
            let verifier = verifier.map_err(|e| bad_trust(&e))?;
            let builder = ClientConfig::builder_with_provider(provider);
            let builder = builder.with_protocol_versions(&versions).map_err(bad_own)?;
            let builder = if settings.check_host {
                builder.with_webpki_verifier(verifier)
            } else {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyHost(verifier)))
            };
            client = Some(Arc::new(match own.as_ref().map(copy) {
                Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(bad_own)?,
                None => builder.with_no_client_auth(),
            }));
        }
        Ok(Material { server, client, subject, expires })
    }
}

fn copy((chain, key): &Own) -> Own {
    (chain.clone(), key.clone_key())
}

fn version(version: TlsVersion) -> &'static SupportedProtocolVersion {
    match version {
        TlsVersion::V12 => &rustls::version::TLS12,
        TlsVersion::V13 => &rustls::version::TLS13,
    }
}

/// ring, with the cipher suites that are wanted.
fn provider(settings: &TlsSettings) -> Result<CryptoProvider, BadMaterial> {
    let mut provider = ring::default_provider();
    if settings.suites.is_empty() {
        return Ok(provider);
    }
    let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
    let known: Vec<String> = provider.cipher_suites.iter().map(name).collect();
    let bad = |reason: String| BadMaterial { key: "ssl.cipher.suites".to_owned(), reason };
    if let Some(unknown) = settings.suites.iter().find(|suite| !known.contains(suite)) {
        return Err(bad(format!("{unknown} is not supported; there are {}", known.join(", "))));
    }
    provider.cipher_suites.retain(|suite| settings.suites.contains(&name(suite)));
    let speaks = |v: &TlsVersion| provider.cipher_suites.iter().any(|suite| suite.version() == version(*v));
    if !settings.versions.iter().any(speaks) {
        return Err(bad("none of these suites belongs to a version of ssl.enabled.protocols".to_owned()));
    }
    Ok(provider)
}

/// The files of a directory that stands in for a file of certificates and their key, or of those that are trusted: what
/// a mounted Secret of type `kubernetes.io/tls` has.
pub(super) const IN_DIRECTORY: [&str; 3] = [CHAIN, KEY, TRUSTED];
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";
const TRUSTED: &str = "ca.crt";

/// The text of a source; of the file `part` where it is a directory.
fn text(source: &Source, part: &str) -> Result<String, BadMaterial> {
    let text = match &source.pem {
        Pem::Inline(text) => in_lines(text),
        Pem::File(path) => {
            let path = if path.is_dir() { path.join(part) } else { path.clone() };
            let read = || {
                let mut text = String::new();
                std::fs::File::open(&path)?.take(PEM_BYTES_MAX).read_to_string(&mut text).map(|_| text)
            };
            let read = read();
            read.map_err(|e| BadMaterial { key: source.key.clone(), reason: format!("{}: {e}", path.display()) })?
        }
    };
    Ok(text)
}

/// PEM that came without line ends, or with spaces for them, as configurations have it: back into lines.
fn in_lines(text: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    for (n, part) in text.split("-----").enumerate() {
        if n % 2 == 1 {
            // BEGIN or END with its label.
            lines.push_str(&format!("\n-----{part}-----\n"));
        } else {
            lines.extend(part.chars().filter(|c| !c.is_whitespace()));
        }
    }
    lines
}

/// Where the source is, for messages.
fn place(source: &Source) -> String {
    match &source.pem {
        Pem::File(path) => format!("{}: ", path.display()),
        Pem::Inline(_) => String::new(),
    }
}

fn certificates(source: &Source, part: &str) -> Result<Vec<CertificateDer<'static>>, BadMaterial> {
    let text = text(source, part)?;
    let bad =
        |what: &dyn fmt::Display| BadMaterial { key: source.key.clone(), reason: format!("{}{what}", place(source)) };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.map_err(|e| bad(&format!("no PEM: {e}")))?;
    if found.is_empty() {
        return Err(bad(&"holds no certificate (no BEGIN CERTIFICATE)"));
    }
    Ok(found)
}

fn private_key(source: &Source) -> Result<PrivateKeyDer<'static>, BadMaterial> {
    let text = text(source, KEY)?;
    let bad =
        |what: &dyn fmt::Display| BadMaterial { key: source.key.clone(), reason: format!("{}{what}", place(source)) };
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(bad(&ENCRYPTED));
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|e| match e {
        rustls::pki_types::pem::Error::NoItemsFound => bad(&"holds no private key (no BEGIN PRIVATE KEY)"),
        e => bad(&format!("no PEM: {e}")),
    })
}

fn roots(source: &Source) -> Result<RootCertStore, BadMaterial> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(source, TRUSTED)? {
        roots.add(certificate).map_err(|e| BadMaterial {
            key: source.key.clone(),
            reason: format!("{}a certificate cannot be read: {e}", place(source)),
        })?;
    }
    Ok(roots)
}

/// Checks everything but the host: for `ssl.endpoint.identification.algorithm=`.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is checked last, after the signatures.
        match self.0.verify_server_cert(certificate, others, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
