//! Rules of single keys that the common ones (range, one of, …) do not cover.

use super::key::{BadValue, Value};
use super::listener;

/// A rule of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custom {
    /// 1 to 9, or -1 for gzip's own default.
    GzipLevel,
    /// `*`, or a list of PARTITION:BROKER.
    ThrottledReplicas,
    /// `latest`, `earliest` or `by_duration:` with an ISO 8601 duration.
    ShareOffsetReset,
    /// A list of NAME://HOST:PORT.
    Listeners,
    /// A list of LISTENER:PROTOCOL.
    ProtocolMap,
    /// A list of HOST:PORT.
    HostPorts,
    /// A list of ID@HOST:PORT.
    Voters,
    /// A list of HOST:COUNT.
    HostCounts,
}

impl Custom {
    /// Refuses a value of the key `name` that breaks the rule.
    pub(super) fn check(self, name: &str, value: &Value) -> Result<(), BadValue> {
        let shown = match value {
            // A Java list prints like this, and such a list is what Kafka's message holds.
            Value::List(members) => format!("[{}]", members.join(", ")),
            other => other.to_string(),
        };
        let fail = |reason: String| Err(BadValue { key: name.to_owned(), value: Some(shown.clone()), reason });
        match (self, value) {
            (Custom::GzipLevel, Value::Number(n)) if *n != -1 && !(1..=9).contains(n) => {
                fail("Value must be between 1 and 9 or equal to -1".to_owned())
            }
            (Custom::ThrottledReplicas, Value::List(members)) => {
                let star = members.concat() == "*";
                if star || members.iter().all(|m| m.is_empty() || is_replica(m)) {
                    return Ok(());
                }
                fail(format!(
                    "{name} must be the literal '*' or a list of replicas in the following format: \
                     [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                ))
            }
            (Custom::ShareOffsetReset, Value::Text(text)) => {
                let by_duration = text.strip_prefix("by_duration:").is_some_and(is_duration);
                if by_duration || text == "latest" || text == "earliest" {
                    return Ok(());
                }
                fail("must be latest, earliest, or by_duration: followed by a duration such as PT12H".to_owned())
            }
            (Custom::Listeners, Value::List(members)) => match members.iter().find_map(|m| listener::split(m).err()) {
                Some(reason) => fail(reason),
                None => Ok(()),
            },
            (Custom::ProtocolMap, Value::Text(text)) => match listener::protocol_map(text) {
                Err(reason) => fail(reason),
                Ok(_) => Ok(()),
            },
            (Custom::HostPorts, Value::List(members)) => {
                match members.iter().find_map(|m| listener::host_port(m).err()) {
                    Some(reason) => fail(reason),
                    None => Ok(()),
                }
            }
            (Custom::Voters, Value::List(members)) => match members.iter().find_map(|m| listener::voter(m).err()) {
                Some(reason) => fail(reason),
                None => Ok(()),
            },
            (Custom::HostCounts, Value::Text(text)) => match listener::host_counts(text) {
                Err(reason) => fail(reason),
                Ok(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

fn is_replica(text: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    text.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker))
}

/// `PnDTnHnMn.nS`, not negative.
fn is_duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['P', 'p']) else { return false };
    let (days, time) = match rest.split_once(['T', 't']) {
        Some((days, time)) => (days, Some(time)),
        None => (rest, None),
    };
    let parts = |text: &str, units: &str| {
        let mut units = units.chars();
        let mut number = String::new();
        for c in text.chars() {
            if c.is_ascii_digit() || (c == '.' && !number.is_empty()) {
                number.push(c);
            } else {
                let known = units.any(|unit| unit.eq_ignore_ascii_case(&c));
                if !known
                    || number.is_empty()
                    || number.ends_with('.')
                    || (number.contains('.') && !c.eq_ignore_ascii_case(&'S'))
                {
                    return false;
                }
                number.clear();
            }
        }
        number.is_empty()
    };
    parts(days, "D") && time.is_none_or(|t| !t.is_empty() && parts(t, "HMS")) && !rest.is_empty()
}
