//! Which partition of `__consumer_offsets` a group lives in. Clients never see it, but a log taken over from Apache
//! Kafka has its groups where Java's string hash put them.

/// The partition of `__consumer_offsets`, of `partitions`, that `group_id` belongs to. 0 when there are none.
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    if partitions <= 0 {
        return 0;
    }
    let hash = group_id.encode_utf16().fold(0i32, |h, unit| h.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's Utils.abs: the one value without a positive counterpart becomes 0.
    hash.checked_abs().unwrap_or(0) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_java() {
        // As a JVM computes it: of 50 partitions, of 7.
        let cases = [
            ("", 0, 0),
            ("a", 47, 6),
            ("my-group", 12, 1),
            ("console-consumer-12345", 6, 6),
            ("grüße", 23, 4),
            ("😀", 49, 2),
            ("connect-cluster", 13, 5),
            // Its hash is i32::MIN.
            ("polygenelubricants", 0, 0),
        ];
        for (group, of_50, of_7) in cases {
            assert_eq!(partition_for(group, 50), of_50, "{group}");
            assert_eq!(partition_for(group, 7), of_7, "{group}");
        }
        assert_eq!(partition_for("a", 0), 0);
    }
}
