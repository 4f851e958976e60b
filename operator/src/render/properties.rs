//! The brokers' configuration files: one for each in a ConfigMap, which every pod mounts whole.
//!
//! What differs between brokers is in here and not in the pods' template. A broker reads its file when it starts; the
//! list of founding voters is read only with an empty disk, so that it may change at any time.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::checked::Checked;
use super::names::{BROKERS, Names};
use super::{CONFIG_BYTES, Facts, NotYet, Outside, advertised_host, bracketed, pod, statefulset};
use crate::ca;
use crate::crd::cluster::{ADMIN_PORT, ClientAuth, INTERNAL_PORT, Listener, ListenerType};

/// The listener that brokers have among themselves, also for the quorum.
const OWN: &str = "REPLICATION";
/// Most nodes that form a new cluster.
pub const FOUNDERS: i32 = 3;

/// What all brokers are configured with.
pub fn of_all(checked: &Checked) -> BTreeMap<String, String> {
    let mut all = checked.fixed.clone();
    let mut put = |key: &str, value: String| drop(all.insert(key.to_owned(), value));
    let (mut listeners, mut protocols) = (vec![format!("{OWN}://:{INTERNAL_PORT}")], vec![format!("{OWN}:SSL")]);
    for listener in &checked.spec.listeners {
        let (name, protocol) = (upper(listener), if listener.tls.is_some() { "SSL" } else { "PLAINTEXT" });
        listeners.push(format!("{name}://:{}", listener.port));
        protocols.push(format!("{name}:{protocol}"));
        if let Some(tls) = &listener.tls {
            let key = |key: &str| format!("listener.name.{}.ssl.{key}", listener.name);
            let dir = pod::listener_dir(&listener.name);
            put(&key("keystore.type"), "PEM".into());
            put(&key("keystore.location"), dir.clone());
            if tls.client_auth != ClientAuth::None {
                put(&key("truststore.type"), "PEM".into());
                put(&key("truststore.location"), dir);
            }
            let auth = match tls.client_auth {
                ClientAuth::None => "none",
                ClientAuth::Requested => "requested",
                ClientAuth::Required => "required",
            };
            put(&key("client.auth"), auth.into());
        }
    }
    put("listeners", listeners.join(","));
    put("listener.security.protocol.map", protocols.join(","));
    put("inter.broker.listener.name", OWN.into());
    put("controller.listener.names", OWN.into());
    let own = |key: &str| format!("listener.name.{}.ssl.{key}", OWN.to_ascii_lowercase());
    put(&own("keystore.type"), "PEM".into());
    put(&own("keystore.location"), format!("{}/{}", pod::TLS_DIR, ca::NODE_PEM));
    put(&own("truststore.type"), "PEM".into());
    put(&own("truststore.location"), format!("{}/{}", pod::TLS_DIR, ca::CA_PEM));
    put(&own("client.auth"), "required".into());
    put("klamm.admin.listener", format!(":{ADMIN_PORT}"));
    put("log.dirs", format!("{}/log", pod::DATA_DIR));
    put("process.roles", "broker,controller".into());
    if checked.spec.rack.is_some() {
        put("broker.rack", format!("${{env:{}}}", pod::RACK));
    }
    all
}

/// What one broker is configured with.
fn of_one(checked: &Checked, facts: &Facts, id: i32) -> Result<BTreeMap<String, String>, NotYet> {
    let names = &checked.names;
    let mut one = of_all(checked);
    let mut put = |key: &str, value: String| drop(one.insert(key.to_owned(), value));
    put("node.id", id.to_string());
    put("cluster.id", cluster_id(checked, facts));
    let founders = checked.founders(facts);
    let address = |id: i32| format!("{}:{INTERNAL_PORT}", names.broker_host(id));
    if id < founders {
        let voters: Vec<_> = (0..founders).map(|id| format!("{id}@{}", address(id))).collect();
        put("controller.quorum.voters", voters.join(","));
    } else {
        let mut voters: Vec<_> = (0..founders).map(address).collect();
        // A node that is told of one voter only, on the port that it has itself, takes that for its own name and begins a
        // cluster alone.
        voters.extend((voters.len() == 1).then(|| address(0)));
        put("controller.quorum.bootstrap.servers", voters.join(","));
    }
    let mut advertised = vec![format!("{OWN}://{}", address(id))];
    for listener in &checked.spec.listeners {
        advertised.push(format!("{}://{}", upper(listener), advertised_address(names, facts, listener, id)?));
    }
    put("advertised.listeners", advertised.join(","));
    Ok(one)
}

/// `host:port` that a broker tells clients of a listener.
pub fn advertised_address(names: &Names, facts: &Facts, listener: &Listener, id: i32) -> Result<String, NotYet> {
    let given = advertised_host(listener, id);
    let outside = facts.outside.get(&(listener.name.clone(), id));
    let missing = || NotYet::Missing { listener: listener.name.clone(), broker: id };
    Ok(match (listener.kind, outside) {
        (ListenerType::Internal, _) => format!("{}:{}", names.broker_host(id), listener.port),
        (ListenerType::Nodeport, Some(Outside::Port(port))) => {
            let host = given.map_or_else(|| format!("${{env:{}}}", pod::NODE_IP), |host| bracketed(&host));
            format!("{host}:{port}")
        }
        (ListenerType::Loadbalancer, outside) => {
            let told = match outside {
                Some(Outside::Host(host)) => Some(host.clone()),
                _ => None,
            };
            format!("{}:{}", bracketed(&given.or(told).ok_or_else(missing)?), listener.port)
        }
        (ListenerType::Nodeport, _) => return Err(missing()),
    })
}

fn upper(listener: &Listener) -> String {
    listener.name.to_ascii_uppercase()
}

/// The id of the Kafka cluster.
pub fn cluster_id(checked: &Checked, facts: &Facts) -> String {
    facts.cluster_id.clone().unwrap_or_else(|| new_cluster_id(&checked.uid))
}

/// The id of a new cluster: the Cluster's own, in Kafka's notation.
fn new_cluster_id(uid: &str) -> String {
    let digits: Vec<u8> = uid.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
    let bytes: Vec<u8> = digits.chunks(2).map(|two| two.iter().fold(0, |byte, &d| (byte << 4) | digit(d))).collect();
    let mut id = [0; 16];
    id.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
    klamm_protocol::Uuid(id).to_string()
}

/// The ConfigMap with a file for each broker.
///
/// # Errors
/// An address outside is not known yet, or they are too large together.
pub fn config_map(checked: &Checked, facts: &Facts, replicas: i32) -> Result<Value, NotYet> {
    let (mut data, mut bytes) = (BTreeMap::new(), 0);
    for id in 0..replicas {
        let text: String = of_one(checked, facts, id)?.iter().map(|(key, value)| line(key, value)).collect();
        let name = format!("{}.properties", checked.names.pod(id));
        bytes += name.len() + text.len();
        // Not more of them than anybody may ask for is kept, though all are counted.
        if bytes <= CONFIG_BYTES {
            data.insert(name, text);
        }
    }
    if bytes > CONFIG_BYTES {
        return Err(NotYet::TooLarge { brokers: replicas, bytes });
    }
    let mut metadata = checked.names.meta(&checked.names.config());
    let mut notes = statefulset::notes(checked, facts);
    notes.insert(BROKERS.into(), replicas.to_string().into());
    metadata["annotations"] = notes.into();
    Ok(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data }))
}

/// One line of a properties file. What would read otherwise than it is written is escaped.
fn line(key: &str, value: &str) -> String {
    let mut line = String::new();
    for c in key.chars() {
        if matches!(c, ' ' | ':' | '=' | '#' | '!') {
            line.push('\\');
        }
        escape(c, &mut line);
    }
    line.push('=');
    for (n, c) in value.chars().enumerate() {
        if n == 0 && c == ' ' {
            line.push('\\');
        }
        escape(c, &mut line);
    }
    line.push('\n');
    line
}

fn escape(c: char, to: &mut String) {
    match c {
        '\\' => to.push_str("\\\\"),
        '\n' => to.push_str("\\n"),
        '\r' => to.push_str("\\r"),
        '\t' => to.push_str("\\t"),
        '\x0c' => to.push_str("\\f"),
        c => to.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_as_it_was() {
        assert_eq!(line("num.partitions", "3"), "num.partitions=3\n");
        assert_eq!(line("a b", " x\\y\nnode.id=9"), "a\\ b=\\ x\\\\y\\nnode.id=9\n");
        assert_eq!(line("#k:e=y", "v=w:#"), "\\#k\\:e\\=y=v=w:#\n");
    }

    #[test]
    fn a_cluster_is_known_by_its_own_id() {
        assert_eq!(new_cluster_id("e203a878-4dde-4a1b-be13-c2be1b53e002"), "4gOoeE3eShu-E8K-G1PgAg");
        assert_eq!(new_cluster_id(""), "AAAAAAAAAAAAAAAAAAAAAA");
    }
}
