//! The certificates of the listener that brokers have among themselves, from an authority that the operator keeps.
//!
//! Two Secrets: the authority's, which only the operator reads, and the brokers', which their pods mount. What they
//! should hold follows from what they hold and the time, so an operator that stops halfway goes on where it was. An
//! authority is replaced in steps that are far enough apart for every broker to have taken the one before: first it is
//! trusted, then it signs, then the old one is trusted no more. Nothing here logs, and no error holds a key.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// What a Secret holds, as text.
pub type Data = BTreeMap<String, String>;

/// File of the brokers' Secret with their certificate and its key.
pub const NODE_PEM: &str = "node.pem";
/// File of the brokers' Secret with whom they trust.
pub const CA_PEM: &str = "ca.pem";

const DAY: i64 = 24 * 60 * 60;
/// How long certificates hold, and how long before their end they are replaced. A broker's never outlives its issuer's.
const AUTHORITY_DAYS: i64 = 5 * 365;
const AUTHORITY_RENEWED_DAYS: i64 = 500;
const BROKERS_DAYS: i64 = 365;
const BROKERS_RENEWED_DAYS: i64 = 120;
/// Between two steps of a replacement: kubelets bring a changed Secret to pods within two minutes.
const STEP_SECONDS: i64 = 60 * 60;

const CRT: &str = "ca.crt";
const KEY: &str = "ca.key";
const NEXT_CRT: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const NEXT_SIGNS_AT: &str = "next-signs-at";
const OLD_CRT: &str = "old.crt";
const OLD_UNTIL: &str = "old-trusted-until";

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The authority's Secret was changed by somebody. It is left as it is: others may still trust what it holds.
    #[error("{0} cannot be read; put back what it held, or delete the Secret to begin with a new authority")]
    Unreadable(&'static str),
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// What was made cannot be used.
    #[error("certificates cannot be used: {0}")]
    Use(String),
}

/// What the Secrets should hold; `None` where it is what they hold.
#[derive(Debug, Default)]
pub struct Renewed {
    /// The authority's.
    pub authority: Option<Data>,
    /// The brokers'.
    pub brokers: Option<Data>,
}

/// A certificate and its key, as PEM.
struct Pair {
    crt: String,
    key: String,
}

/// What the authority's Secret holds.
#[derive(Default)]
struct Authority {
    signs: Option<Pair>,
    next: Option<(Pair, Timestamp)>,
    old: Option<(String, Timestamp)>,
}

/// What the Secrets should hold now. `hosts` are the names that brokers are reached by, `cluster` is for people.
///
/// # Errors
/// The authority's Secret is not readable.
pub fn renew(
    authority: Option<&Data>,
    brokers: Option<&Data>,
    cluster: &str,
    hosts: &[String],
    now: Timestamp,
) -> Result<Renewed, CaError> {
    let mut kept = match authority {
        Some(data) => Authority::read(data)?,
        None => Authority::default(),
    };
    kept.advance(brokers, cluster, now)?;
    let trusted = kept.trusted();
    let shown = brokers.and_then(|data| data.get(NODE_PEM)).filter(|pem| kept.keeps(pem, hosts, now));
    let issuer = kept.signs.as_ref().or(kept.next.as_ref().map(|(next, _)| next));
    let node = match (shown, issuer) {
        (Some(pem), _) => pem.clone(),
        (None, Some(issuer)) => sign(issuer, cluster, hosts, now)?,
        (None, None) => return Err(CaError::Unreadable(CRT)),
    };
    let wanted = Data::from([(NODE_PEM.to_owned(), node), (CA_PEM.to_owned(), trusted)]);
    let (data, kept) = (kept.write(), authority);
    Ok(Renewed {
        authority: (kept != Some(&data)).then_some(data),
        brokers: (brokers != Some(&wanted)).then_some(wanted),
    })
}

impl Authority {
    fn read(data: &Data) -> Result<Self, CaError> {
        let pair = |crt: &'static str, key: &'static str| match (data.get(crt), data.get(key)) {
            (None, None) => Ok(None),
            (Some(c), Some(k)) => {
                not_after(c).ok_or(CaError::Unreadable(crt))?;
                KeyPair::from_pem(k).map_err(|_| CaError::Unreadable(key))?;
                Ok(Some(Pair { crt: c.clone(), key: k.clone() }))
            }
            (None, Some(_)) => Err(CaError::Unreadable(crt)),
            (Some(_), None) => Err(CaError::Unreadable(key)),
        };
        let time = |at: &'static str| match data.get(at) {
            Some(text) => text.trim().parse::<Timestamp>().map_err(|_| CaError::Unreadable(at)),
            None => Err(CaError::Unreadable(at)),
        };
        let next = match pair(NEXT_CRT, NEXT_KEY)? {
            Some(next) => Some((next, time(NEXT_SIGNS_AT)?)),
            None => None,
        };
        let old = match data.get(OLD_CRT) {
            Some(old) => Some((old.clone(), time(OLD_UNTIL)?)),
            None => None,
        };
        Ok(Self { signs: pair(CRT, KEY)?, next, old })
    }

    fn write(&self) -> Data {
        let mut data = Data::new();
        let mut put = |name: &str, text: &str| drop(data.insert(name.to_owned(), text.to_owned()));
        if let Some(signs) = &self.signs {
            put(CRT, &signs.crt);
            put(KEY, &signs.key);
        }
        if let Some((next, at)) = &self.next {
            put(NEXT_CRT, &next.crt);
            put(NEXT_KEY, &next.key);
            put(NEXT_SIGNS_AT, &at.to_string());
        }
        if let Some((old, until)) = &self.old {
            put(OLD_CRT, old);
            put(OLD_UNTIL, &until.to_string());
        }
        data
    }

    /// Takes the steps that are due.
    fn advance(&mut self, brokers: Option<&Data>, cluster: &str, now: Timestamp) -> Result<(), CaError> {
        let step = now + STEP_SECONDS.seconds();
        if self.signs.is_none() && self.next.is_none() {
            let fresh = make_authority(cluster, now)?;
            // The authority was lost and brokers are out there that trust it: it goes on to be trusted, and what it
            // signed to be shown, until all of them trust the new one.
            match brokers.and_then(|data| Some((data.get(CA_PEM)?, days_left(data.get(NODE_PEM)?, now)?))) {
                Some((bundle, left)) if left > 0 => {
                    self.old = Some((bundle.clone(), step));
                    self.next = Some((fresh, step));
                }
                _ => self.signs = Some(fresh),
            }
        }
        if let Some((_, at)) = &self.next
            && *at <= now
        {
            let former = self.signs.take().map(|pair| pair.crt).or_else(|| self.old.take().map(|(old, _)| old));
            self.old = former.map(|old| (old, step));
            self.signs = self.next.take().map(|(next, _)| next);
        }
        if self.old.as_ref().is_some_and(|(_, until)| *until <= now && self.next.is_none()) {
            self.old = None;
        }
        if let (Some(signs), None, None) = (&self.signs, &self.next, &self.old)
            && days_left(&signs.crt, now).is_none_or(|days| days < AUTHORITY_RENEWED_DAYS)
        {
            self.next = Some((make_authority(cluster, now)?, step));
        }
        Ok(())
    }

    /// Everybody that brokers trust.
    fn trusted(&self) -> String {
        let signs = self.signs.as_ref().map(|pair| pair.crt.as_str());
        let next = self.next.as_ref().map(|(pair, _)| pair.crt.as_str());
        let old = self.old.as_ref().map(|(crt, _)| crt.as_str());
        let mut all: Vec<&str> = [signs, next, old].into_iter().flatten().collect();
        // Who signs is no difference to who is trusted.
        all.sort_unstable();
        all.concat()
    }

    /// Whether what the brokers show is good for longer.
    fn keeps(&self, pem: &str, hosts: &[String], now: Timestamp) -> bool {
        let issued = match &self.signs {
            Some(signs) => with(pem, |cert| cert.issuer().as_raw().to_vec()).is_some_and(|issuer| {
                with(&signs.crt, |authority| authority.subject().as_raw().to_vec()) == Some(issuer)
            }),
            None => true,
        };
        let names = with(pem, |cert| {
            let names = cert.subject_alternative_name().ok().flatten();
            let names = names.map(|names| names.value.general_names.clone()).unwrap_or_default();
            let name = |name: &GeneralName<'_>| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            };
            names.iter().filter_map(name).collect::<Vec<_>>()
        });
        let limit = if self.signs.is_some() { BROKERS_RENEWED_DAYS } else { 0 };
        issued && names.as_deref() == Some(hosts) && days_left(pem, now).is_some_and(|days| days > limit)
    }
}

/// Calls `look` with the first certificate of a PEM text.
fn with<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let der = CertificateDer::pem_slice_iter(pem.as_bytes()).next()?.ok()?;
    let (_, cert) = X509Certificate::from_der(&der).ok()?;
    Some(look(&cert))
}

fn not_after(pem: &str) -> Option<Timestamp> {
    Timestamp::from_second(with(pem, |cert| cert.validity().not_after.timestamp())?).ok()
}

/// When the certificate in a PEM text runs out.
pub fn expiry(pem: &str) -> Option<Timestamp> {
    not_after(pem)
}

fn days_left(pem: &str, now: Timestamp) -> Option<i64> {
    Some((not_after(pem)?.as_second() - now.as_second()) / DAY)
}

/// The hosts of a certificate that begins yesterday, since clocks differ, and holds for so many days.
fn params(hosts: &[String], now: Timestamp, days: i64) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::new(hosts.to_vec())?;
    let day = |days: i64| {
        let at = Timestamp::from_second(now.as_second().saturating_add(days * DAY)).unwrap_or(now);
        let date = at.to_zoned(TimeZone::UTC).date();
        let part = |part: i8| u8::try_from(part).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
    };
    params.not_before = day(-1);
    params.not_after = day(days);
    Ok(params)
}

fn make_authority(cluster: &str, now: Timestamp) -> Result<Pair, CaError> {
    let mut params = params(&[], now, AUTHORITY_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // No two have one name: who signed a certificate is told by it.
    let name = format!("klamm {cluster} {}", now.as_nanosecond());
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    Ok(Pair { crt: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// A certificate for brokers, with its key.
fn sign(issuer: &Pair, cluster: &str, hosts: &[String], now: Timestamp) -> Result<String, CaError> {
    let left = days_left(&issuer.crt, now).unwrap_or(0);
    let mut params = params(hosts, now, BROKERS_DAYS.min(left))?;
    params.distinguished_name.push(DnType::CommonName, format!("{cluster} broker"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Nodes connect to each other.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let signer = Issuer::from_ca_cert_pem(&issuer.crt, KeyPair::from_pem(&issuer.key)?)?;
    let key = KeyPair::generate()?;
    Ok(key.serialize_pem() + &params.signed_by(&key, &signer)?.pem())
}

/// TLS of connections to the brokers' own listener, from what their Secret holds.
///
/// # Errors
/// It holds something else.
pub fn client_config(brokers: &Data) -> Result<Arc<rustls::ClientConfig>, CaError> {
    let text = |file: &str| brokers.get(file).map(String::as_bytes).unwrap_or_default();
    let bad = |error: &dyn std::fmt::Display| CaError::Use(error.to_string());
    let certificates = |file: &str| -> Result<Vec<_>, CaError> {
        CertificateDer::pem_slice_iter(text(file)).collect::<Result<_, _>>().map_err(|e| bad(&e))
    };
    let key = PrivateKeyDer::from_pem_slice(text(NODE_PEM)).map_err(|e| bad(&e))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(CA_PEM)? {
        roots.add(certificate).map_err(|e| bad(&e))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(NODE_PEM)?, key)
        .map_err(|e| bad(&e))?;
    Ok(Arc::new(config))
}

#[cfg(test)]
#[path = "ca_test.rs"]
mod tests;
