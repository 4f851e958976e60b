//! Certificates in force, with files that change and break.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::config::tls::{ClientAuth, Source, TlsVersion};

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
}

/// Chain and key of a new certificate.
fn node(authority: &CertifiedIssuer<'static, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    (params.signed_by(&key, authority).expect("signed").pem(), key.serialize_pem())
}

fn file(key: &str, path: &Path) -> Option<Source> {
    Some(Source { key: key.to_owned(), pem: Pem::File(path.to_owned()) })
}

fn inline(key: &str, text: &str) -> Option<Source> {
    Some(Source { key: key.to_owned(), pem: Pem::Inline(text.to_owned()) })
}

fn settings(dir: &Path) -> TlsSettings {
    let own = file("ssl.keystore.location", &dir.join("node.pem"));
    TlsSettings {
        chain: own.clone(),
        private_key: own,
        trusted: file("ssl.truststore.location", &dir.join("ca.pem")),
        client_auth: ClientAuth::Required,
        versions: vec![TlsVersion::V12, TlsVersion::V13],
        suites: Vec::new(),
        check_host: true,
    }
}

const BOTH: Uses = Uses { server: true, client: true };

fn open(settings: &TlsSettings) -> Result<ListenerTls, String> {
    ListenerTls::open("INTERNAL", BOTH, settings.clone()).map_err(|e| e.to_string())
}

#[test]
fn changed_files_are_taken_over_and_broken_ones_are_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = authority();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
    let (chain, key) = node(&ca);
    write("ca.pem", &ca.pem());
    write("node.pem", &format!("{key}{chain}"));
    let settings = settings(dir.path());
    let tls = open(&settings).expect("opened");
    let first = tls.server().expect("a server");
    let same = |other: &Arc<ServerConfig>| Arc::ptr_eq(&tls.server().expect("a server"), other);

    tls.look(&settings);
    assert!(same(&first), "nothing has changed");
    for broken in ["", "-----BEGIN CERTIFICATE-----\n", chain.as_str(), key.as_str()] {
        write("node.pem", broken);
        tls.look(&settings);
        assert!(same(&first), "{broken} must not be taken over");
    }
    fs::remove_file(dir.path().join("node.pem")).expect("removed");
    tls.look(&settings);
    assert!(same(&first), "a file that is gone");
    let (chain, key) = node(&ca);
    write("node.pem", &format!("{chain}{key}"));
    tls.look(&settings);
    assert!(!same(&first), "a good file is taken over");
    let second = tls.server().expect("a server");
    tls.look(&TlsSettings { client_auth: ClientAuth::Requested, ..settings });
    assert!(!same(&second), "a changed setting is taken over");
}

#[test]
fn a_mounted_secret_is_taken_as_a_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = authority();
    // As Kubernetes does it: files are links into a folder, and that is replaced.
    let version = |name: &str| {
        let (chain, key) = node(&ca);
        let folder = dir.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        for (file, text) in [("tls.crt", chain), ("tls.key", key), ("ca.crt", ca.pem())] {
            fs::write(folder.join(file), text).expect("written");
        }
        let _ = fs::remove_file(dir.path().join("..data"));
        std::os::unix::fs::symlink(name, dir.path().join("..data")).expect("a link");
    };
    version("1");
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        std::os::unix::fs::symlink(format!("..data/{file}"), dir.path().join(file)).expect("a link");
    }
    let own = file("ssl.keystore.location", dir.path());
    let trusted = file("ssl.truststore.location", dir.path());
    let settings = TlsSettings { chain: own.clone(), private_key: own, trusted, ..settings(dir.path()) };
    let tls = open(&settings).expect("opened");
    let first = tls.server().expect("a server");
    tls.look(&settings);
    assert!(Arc::ptr_eq(&tls.server().expect("a server"), &first), "nothing has changed");
    version("2");
    tls.look(&settings);
    assert!(!Arc::ptr_eq(&tls.server().expect("a server"), &first), "the new ones are taken over");
    fs::remove_file(dir.path().join("tls.key")).expect("removed");
    assert!(open(&settings).expect_err("refused").contains("tls.key: No such file"));
}

#[test]
fn what_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = authority();
    let (chain, key) = node(&ca);
    let good = settings(dir.path());
    let refused = |settings: &TlsSettings, words: &[&str]| {
        let why = open(settings).expect_err("refused");
        for word in words {
            assert!(why.contains(word), "{word:?} in {why}");
        }
    };
    refused(&good, &["ssl.truststore.location: ", "ca.pem: No such file"]);
    let ca_pem = ca.pem();
    let good = TlsSettings {
        chain: inline("ssl.keystore.certificate.chain", &chain),
        private_key: inline("ssl.keystore.key", &key),
        trusted: inline("ssl.truststore.certificates", &ca_pem),
        ..good
    };
    open(&good).expect("good");
    // As a properties file without line ends has it.
    let flat = TlsSettings { chain: inline("c", &chain.replace('\n', " ")), ..good.clone() };
    open(&flat).expect("without line ends");
    let with_chain = |text: &str| TlsSettings { chain: inline("CHAIN", text), ..good.clone() };
    let with_key = |text: &str| TlsSettings { private_key: inline("KEY", text), ..good.clone() };
    refused(&with_chain("nothing"), &["CHAIN: holds no certificate"]);
    refused(&with_chain("-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----"), &["CHAIN: no PEM"]);
    refused(&with_key(&chain), &["KEY: holds no private key"]);
    refused(&with_key("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA\n"), &["KEY: ", "not supported", "-nocrypt"]);
    refused(&with_key(&node(&ca).1), &["ssl.keystore.certificate.chain: the private key does not belong"]);
    let trust = TlsSettings { trusted: inline("TRUST", &key), ..good.clone() };
    refused(&trust, &["TRUST: holds no certificate"]);
    let suites = |names: &[&str]| TlsSettings {
        suites: names.iter().map(|n| (*n).to_owned()).collect(),
        versions: vec![TlsVersion::V13],
        ..good.clone()
    };
    open(&suites(&["TLS_AES_256_GCM_SHA384"])).expect("a suite");
    refused(&suites(&["TLS_RSA_WITH_RC4_128_MD5"]), &["ssl.cipher.suites: TLS_RSA_WITH_RC4_128_MD5 is not supported"]);
    refused(&suites(&["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]), &["none of these suites"]);
}

/// A handshake in memory: what the client thinks of it.
fn shake(server: &ListenerTls, client: &ListenerTls, host: &str) -> Result<(), rustls::Error> {
    let config = Material::read(&client.seen.lock().settings, BOTH).expect("material").client.expect("a client");
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).expect("a name");
    let mut client = rustls::ClientConnection::new(config, name)?;
    let mut server = rustls::ServerConnection::new(server.server().expect("a server"))?;
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("in memory");
        }
        let mut arrived = &bytes[..];
        while !arrived.is_empty() {
            server.read_tls(&mut arrived).expect("in memory");
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).expect("in memory");
        }
        let mut arrived = &bytes[..];
        while !arrived.is_empty() {
            client.read_tls(&mut arrived).expect("in memory");
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

#[test]
fn the_host_is_checked_unless_that_is_switched_off_and_the_signature_always() {
    let dir = tempfile::tempdir().expect("a directory");
    let of = |ca: &CertifiedIssuer<'static, KeyPair>, check_host| {
        let (chain, key) = node(ca);
        let settings = TlsSettings {
            chain: inline("c", &chain),
            private_key: inline("k", &key),
            trusted: inline("t", &ca.pem()),
            check_host,
            ..settings(dir.path())
        };
        open(&settings).expect("opened")
    };
    let (ca, other) = (authority(), authority());
    for versions in [TlsVersion::V12, TlsVersion::V13] {
        let server = TlsSettings { versions: vec![versions], ..of(&ca, true).seen.lock().settings.clone() };
        let server = open(&server).expect("opened");
        shake(&server, &of(&ca, true), "localhost").expect("the host");
        let error = shake(&server, &of(&ca, true), "elsewhere").expect_err("another host");
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
        shake(&server, &of(&ca, false), "elsewhere").expect("any host");
        let error = shake(&server, &of(&other, false), "localhost").expect_err("another authority");
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    }
}
