//! Authorities and certificates through the years.

use super::*;

fn at(days: i64, seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + days * DAY + seconds).unwrap()
}

fn hosts() -> Vec<String> {
    ["*.prod-brokers.x.svc.cluster.local", "prod-brokers.x.svc.cluster.local"].map(String::from).to_vec()
}

/// The two Secrets, as the operator keeps them.
#[derive(Default)]
struct Kept {
    authority: Option<Data>,
    brokers: Option<Data>,
}

impl Kept {
    /// One look; whether anything was written.
    fn look(&mut self, now: Timestamp) -> (bool, bool) {
        let renewed = renew(self.authority.as_ref(), self.brokers.as_ref(), "prod", &hosts(), now).unwrap();
        let written = (renewed.authority.is_some(), renewed.brokers.is_some());
        self.authority = renewed.authority.or(self.authority.take());
        self.brokers = renewed.brokers.or(self.brokers.take());
        client_config(self.brokers.as_ref().unwrap()).expect("usable");
        written
    }

    fn brokers(&self) -> Data {
        self.brokers.clone().unwrap()
    }
}

/// Whether a broker that has these files takes the certificate of one that has those.
fn trusts(this: &Data, other: &Data, now: Timestamp) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(this[CA_PEM].as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let shown = CertificateDer::pem_slice_iter(other[NODE_PEM].as_bytes()).next().unwrap().unwrap();
    let host = "prod-2.prod-brokers.x.svc.cluster.local".try_into().unwrap();
    let now = std::time::Duration::from_secs(now.as_second().unsigned_abs());
    let now = rustls::pki_types::UnixTime::since_unix_epoch(now);
    rustls::client::danger::ServerCertVerifier::verify_server_cert(&*verifier, &shown, &[], &host, &[], now).is_ok()
}

#[test]
fn what_is_good_stays() {
    let mut kept = Kept::default();
    assert_eq!(kept.look(at(0, 0)), (true, true));
    for days in [0, 1, 200] {
        assert_eq!(kept.look(at(days, 1)), (false, false), "day {days}");
    }
    assert!(trusts(&kept.brokers(), &kept.brokers(), at(200, 0)));
    let text = format!("{:?}", kept.brokers);
    assert!(!text.contains(&kept.authority.unwrap()[KEY]), "brokers never see the authority's key");
}

#[test]
fn through_ten_years_every_broker_trusts_every_other_whatever_each_has_seen() {
    let mut kept = Kept::default();
    kept.look(at(0, 0));
    let mut before = kept.brokers();
    let (mut authorities, mut certificates) = (0, 0);
    let mut now = at(0, 0);
    while now < at(3650, 0) {
        // Once a day, and every half hour while an authority is being replaced.
        let replacing = kept.authority.as_ref().is_some_and(|a| a.contains_key(NEXT_CRT) || a.contains_key(OLD_CRT));
        now += if replacing { 30.minutes() } else { 24.hours() };
        kept.look(now);
        let after = kept.brokers();
        for (this, other) in [(&before, &after), (&after, &before), (&after, &after)] {
            assert!(trusts(this, other, now), "{now}");
        }
        certificates += usize::from(before[NODE_PEM] != after[NODE_PEM]);
        authorities += usize::from(before[CA_PEM] != after[CA_PEM]);
        before = after;
    }
    assert!((14..20).contains(&certificates), "{certificates}");
    assert_eq!(authorities, 2 * 2, "two authorities came and two went, and nothing else changed");
}

#[test]
fn another_host_needs_another_certificate() {
    let mut kept = Kept::default();
    kept.look(at(0, 0));
    let renewed = renew(kept.authority.as_ref(), kept.brokers.as_ref(), "prod", &["a.b".to_owned()], at(0, 1)).unwrap();
    assert!(renewed.authority.is_none() && renewed.brokers.is_some());
}

#[test]
fn an_authority_that_was_lost_is_replaced_under_way() {
    let mut kept = Kept::default();
    kept.look(at(0, 0));
    let first = kept.brokers();
    kept.authority = None;
    assert_eq!(kept.look(at(1, 0)), (true, true));
    let second = kept.brokers();
    assert_eq!(first[NODE_PEM], second[NODE_PEM], "the new one is not trusted everywhere yet");
    assert!(trusts(&second, &first, at(1, 0)) && trusts(&first, &second, at(1, 0)));
    assert_eq!(kept.look(at(1, 60)), (false, false));
    assert_eq!(kept.look(at(1, STEP_SECONDS)), (true, true));
    let third = kept.brokers();
    assert!(trusts(&second, &third, at(1, 0)) && trusts(&third, &second, at(1, 0)));
    assert!(!trusts(&first, &third, at(1, 0)));
    assert_eq!(kept.look(at(1, 2 * STEP_SECONDS)), (true, true));
    let fourth = kept.brokers();
    assert!(!trusts(&fourth, &first, at(1, 0)) && trusts(&fourth, &third, at(1, 0)));
}

#[test]
fn brokers_that_lost_their_files_get_others() {
    let mut kept = Kept::default();
    kept.look(at(0, 0));
    kept.brokers = None;
    assert_eq!(kept.look(at(1, 0)), (false, true));
    kept.brokers.as_mut().unwrap().insert(NODE_PEM.to_owned(), "nonsense".to_owned());
    assert_eq!(kept.look(at(1, 0)), (false, true));
}

#[test]
fn what_somebody_has_spoilt_is_not_overwritten() {
    let mut kept = Kept::default();
    kept.look(at(0, 0));
    for (key, text) in [(KEY, "nonsense"), (CRT, ""), (NEXT_CRT, "x"), (OLD_CRT, "x")] {
        let mut spoilt = kept.authority.clone().unwrap();
        spoilt.insert(key.to_owned(), text.to_owned());
        let error = renew(Some(&spoilt), kept.brokers.as_ref(), "prod", &hosts(), at(1, 0)).unwrap_err().to_string();
        assert!(error.contains("cannot be read") && !error.contains("PRIVATE"), "{error}");
    }
}
