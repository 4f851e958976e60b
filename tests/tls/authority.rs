//! Certificates for nodes and clients of the loopback address, and connections that show them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ClientError, Connection, ConnectionOptions, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Who signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed"))
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Private key and certificate of a new node or client.
    pub fn sign(&self, name: &str) -> String {
        let key = KeyPair::generate().expect("a key");
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        key.serialize_pem() + &params.signed_by(&key, &self.0).expect("signed").pem()
    }
}

/// Writes a file so that nobody ever sees half of it, as Kubernetes does with mounted secrets.
pub fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).expect("written");
    std::fs::rename(next, path).expect("renamed");
}

/// Settings of a listener that shows `node.pem` of a directory, trusts its `ca.pem` and asks for certificates.
pub fn settings(dir: &Path) -> Vec<(String, String)> {
    let path = |name: &str| dir.join(name).display().to_string();
    let pairs = [
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.keystore.location", path("node.pem")),
        ("ssl.truststore.type", "PEM".to_owned()),
        ("ssl.truststore.location", path("ca.pem")),
        ("ssl.client.auth", "required".to_owned()),
    ];
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

/// A directory for certificates.
pub fn directory() -> PathBuf {
    klamm_tests::paths::scratch_dir("certificates")
}

/// What a client needs that trusts `authority` and shows `own`, if any.
pub fn client(authority: &Authority, own: Option<&str>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM")).expect("a root");
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions().expect("versions");
    let builder = builder.with_root_certificates(roots);
    Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")];
            let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("they belong together")
        }
    })
}

/// Connects and negotiates versions.
pub fn connect(address: &str, config: Option<Arc<ClientConfig>>) -> Result<(), ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let options = ConnectionOptions {
        connect_timeout: Duration::from_secs(15),
        tls: config.map(Tls::new),
        ..ConnectionOptions::default()
    };
    runtime.block_on(async { Connection::open(address, options).await.map(|connection| connection.close()) })
}
