//! Topic names: which are legal, which are too alike, which are the cluster's own.

/// Longest legal topic name.
pub const NAME_MAX: usize = 249;
/// Topic of the committed offsets.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// Topic of the transactions' state.
pub const TRANSACTION_STATE: &str = "__transaction_state";
/// Topic of the share groups' state.
pub const SHARE_GROUP_STATE: &str = "__share_group_state";
/// Name under which Kafka shows its metadata log; no topic may have it.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";

/// Whether the cluster itself made the topic, for Metadata's `is_internal`.
pub fn is_internal(topic: &str) -> bool {
    [CONSUMER_OFFSETS, TRANSACTION_STATE, SHARE_GROUP_STATE].contains(&topic)
}

/// Checks a topic name; the error is the text Kafka gives to clients.
pub fn check(name: &str) -> Result<(), String> {
    // Kafka counts UTF-16 units.
    let length = name.encode_utf16().count();
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if length > NAME_MAX => format!("the length of '{name}' is longer than the max allowed length {NAME_MAX}"),
        _ if !name.chars().all(legal) => {
            format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
        }
        _ => return Ok(()),
    };
    Err(format!("Topic name is invalid: {reason}"))
}

/// What a name is in a metric, where `.` and `_` are the same; None for a name with neither.
pub fn metric_name(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_as_in_kafka() {
        let longest = "x".repeat(249);
        for name in ["a", "a.b_c-D9", "...", "__consumer_offsets", &longest] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        let too_long = "x".repeat(250);
        for name in ["", ".", "..", "a b", "a/b", "ä", "a\0", &too_long] {
            assert!(check(name).is_err(), "{name}");
        }
        assert_eq!(check("").unwrap_err(), "Topic name is invalid: the empty string is not allowed");
        assert_eq!(
            check("a!").unwrap_err(),
            "Topic name is invalid: 'a!' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        );
    }
}
