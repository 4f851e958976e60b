//! Addresses in configurations: `NAME://HOST:PORT`, security protocols by listener, `HOST:PORT`, `ID@HOST:PORT`.
//! IPv6 addresses stand in brackets. Errors are reasons in words; the caller adds the key.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Neither encryption nor authentication.
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL without encryption.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            SecurityProtocol::Plaintext => "PLAINTEXT",
            SecurityProtocol::Ssl => "SSL",
            SecurityProtocol::SaslPlaintext => "SASL_PLAINTEXT",
            SecurityProtocol::SaslSsl => "SASL_SSL",
        }
    }

    /// The number by which records of the metadata log name it.
    pub fn id(self) -> i16 {
        match self {
            SecurityProtocol::Plaintext => 0,
            SecurityProtocol::Ssl => 1,
            SecurityProtocol::SaslPlaintext => 2,
            SecurityProtocol::SaslSsl => 3,
        }
    }

    /// The protocol of this name.
    pub fn from_name(name: &str) -> Option<SecurityProtocol> {
        use SecurityProtocol::{Plaintext, SaslPlaintext, SaslSsl, Ssl};
        [Plaintext, Ssl, SaslPlaintext, SaslSsl].into_iter().find(|p| p.name().eq_ignore_ascii_case(name))
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Host name or address, IPv6 without brackets; empty for every interface.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, in upper case.
    pub name: String,
    /// Where it listens, or what is advertised for it.
    pub address: HostPort,
    /// What it speaks.
    pub protocol: SecurityProtocol,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, self.address)
    }
}

/// A voter of the metadata quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Its node id.
    pub id: i32,
    /// Its controller listener.
    pub address: HostPort,
}

/// Splits `NAME://HOST:PORT`; the name comes back in upper case.
pub fn split(text: &str) -> Result<(String, HostPort), String> {
    let (name, address) =
        text.split_once("://").ok_or_else(|| format!("{text} is not of the form NAME://HOST:PORT"))?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) {
        return Err(format!("{text} needs a listener name of letters, digits, _, - and . before ://"));
    }
    let address = self::address(address).map_err(|reason| format!("{text}: {reason}"))?;
    Ok((name.to_ascii_uppercase(), address))
}

/// Splits `HOST:PORT`, where the host must not be empty.
pub fn host_port(text: &str) -> Result<HostPort, String> {
    let address = address(text)?;
    if address.host.is_empty() {
        return Err(format!("{text} names no host"));
    }
    Ok(address)
}

/// Splits `HOST:PORT`, where an empty host means every interface.
pub fn address(text: &str) -> Result<HostPort, String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text} names no port"))?;
    let port = port.parse::<u16>().ok().filter(|_| port.bytes().all(|b| b.is_ascii_digit()));
    let port = port.ok_or_else(|| format!("{text} needs a port from 0 to 65535"))?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(|| format!("{text} has a [ without ]"))?,
        None => host,
    };
    // The characters Kafka allows; a % begins the zone of a link-local IPv6 address.
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'%' | b'.' | b'_' | b':');
    if host.len() > 255 || !host.bytes().all(legal) {
        return Err(format!("{text} has no legal host"));
    }
    Ok(HostPort { host: host.to_owned(), port })
}

/// Splits `ID@HOST:PORT`.
pub fn voter(text: &str) -> Result<Voter, String> {
    let (id, address) = text.split_once('@').ok_or_else(|| format!("{text} is not of the form ID@HOST:PORT"))?;
    let id = id.parse::<i32>().ok().filter(|id| *id >= 0);
    let id = id.ok_or_else(|| format!("{text} needs a node id of at least 0 before @"))?;
    Ok(Voter { id, address: host_port(address)? })
}

/// Reads `NAME:PROTOCOL,…`.
pub fn protocol_map(text: &str) -> Result<BTreeMap<String, SecurityProtocol>, String> {
    let mut map = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, protocol) =
            part.split_once(':').ok_or_else(|| format!("{part} is not of the form LISTENER:PROTOCOL"))?;
        let (name, protocol) = (name.trim(), protocol.trim());
        let protocol = SecurityProtocol::from_name(protocol)
            .ok_or_else(|| format!("{protocol} is not one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"))?;
        map.insert(name.to_ascii_uppercase(), protocol);
    }
    Ok(map)
}

/// Reads `HOST:COUNT,…`.
pub fn host_counts(text: &str) -> Result<BTreeMap<String, u32>, String> {
    let mut map = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (host, count) = part.rsplit_once(':').ok_or_else(|| format!("{part} is not of the form HOST:COUNT"))?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).trim();
        let count = count.trim().parse::<i32>().ok().and_then(|n| u32::try_from(n).ok());
        let count = count.ok_or_else(|| format!("{part} needs a count of at least 0"))?;
        if host.is_empty() {
            return Err(format!("{part} names no host"));
        }
        map.insert(host.to_owned(), count);
    }
    Ok(map)
}

/// Why these listeners cannot be open side by side, if they can't: names must differ, and ports too, except that one
/// may be on an IPv4 and the other on an IPv6 address. Port 0 is chosen by the kernel.
pub fn conflict(listeners: &[Listener]) -> Option<String> {
    for (i, a) in listeners.iter().enumerate() {
        for b in &listeners[..i] {
            if a.name == b.name {
                return Some(format!("each listener must have a different name, {} comes twice", a.name));
            }
            if a.address.port == b.address.port && a.address.port != 0 && !on_both_stacks(a, b) {
                return Some(format!("each listener must have a different port, {a} and {b} have the same"));
            }
        }
    }
    None
}

fn on_both_stacks(a: &Listener, b: &Listener) -> bool {
    let ip = |l: &Listener| l.address.host.parse::<IpAddr>().ok();
    matches!((ip(a), ip(b)), (Some(a), Some(b)) if a.is_ipv4() != b.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn listeners_with_names_and_addresses() {
        let check = |text: &str, name: &str, host: &str, port: u16| {
            assert_eq!(split(text), Ok((name.to_owned(), HostPort { host: host.to_owned(), port })), "{text}");
        };
        check("PLAINTEXT://:9092", "PLAINTEXT", "", 9092);
        check("client-1://localhost:0", "CLIENT-1", "localhost", 0);
        check("A://[::1]:9093", "A", "::1", 9093);
        check("A://[fe80::1%eth0]:9093", "A", "fe80::1%eth0", 9093);
        check("A://klamm_0.svc.example:65535", "A", "klamm_0.svc.example", 65535);
        for bad in [
            "",
            "x",
            "://h:1",
            "A://h",
            "A://h:",
            "A://h:65536",
            "A://h:-1",
            "A://[::1:1",
            "A://h o:1",
            "A B://h:1",
            "A://h:+1",
            "A:/h:1",
        ] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn voters_maps_and_counts() {
        assert_eq!(voter("3@[::1]:9093").unwrap().address.to_string(), "[::1]:9093");
        for bad in ["", "1", "x@h:1", "-1@h:1", "1@:1", "1@h"] {
            assert!(voter(bad).is_err(), "{bad}");
        }
        let map = protocol_map("controller:PLAINTEXT, ssl:SSL").unwrap();
        assert_eq!(map.get("CONTROLLER"), Some(&SecurityProtocol::Plaintext));
        assert!(protocol_map("A:TLS").is_err() && protocol_map("A").is_err());
        assert_eq!(host_counts("a:1,[::1]:2").unwrap().get("::1"), Some(&2));
        assert!(host_counts("a:-1").is_err() && host_counts("a").is_err());
    }

    #[test]
    fn ports_may_be_shared_by_the_two_address_families_only() {
        let listeners = |texts: &[&str]| -> Vec<Listener> {
            let parsed = texts.iter().map(|t| split(t).unwrap());
            parsed.map(|(name, address)| Listener { name, address, protocol: SecurityProtocol::Plaintext }).collect()
        };
        assert_eq!(conflict(&listeners(&["A://127.0.0.1:1", "B://[::1]:1", "C://h:0", "D://h:0"])), None);
        assert!(conflict(&listeners(&["A://127.0.0.1:1", "B://127.0.0.2:1"])).is_some());
        assert!(conflict(&listeners(&["A://h:1", "B://:1"])).is_some());
        assert!(conflict(&listeners(&["A://h:1", "a://h:2"])).is_some());
    }

    proptest! {
        #[test]
        fn anything_gives_an_address_or_a_reason(text in ".{0,60}") {
            let _ = (split(&text), voter(&text), protocol_map(&text), host_counts(&text));
        }

        #[test]
        fn what_is_printed_is_read_back(host in "[a-z0-9.-]{1,20}|[0-9a-f]{1,4}::[0-9a-f]{1,4}", port: u16) {
            let listener = Listener { name: "X".into(), address: HostPort { host, port }, protocol: SecurityProtocol::Ssl };
            prop_assert_eq!(split(&listener.to_string()), Ok((listener.name, listener.address)));
        }
    }
}
