//! Hashes that stay the same through versions of Rust and of this program: FNV-1a with 64 bits, over JSON with sorted
//! keys. They tell descriptions of one cluster apart, nothing rests on their being hard to find.

use serde_json::Value;

/// Sixteen hexadecimal digits.
pub fn hash(value: &Value) -> String {
    fingerprint(value.to_string().as_bytes())
}

/// The same of bytes.
pub fn fingerprint(bytes: &[u8]) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_never_changes() {
        assert_eq!(fingerprint(b""), "cbf29ce484222325");
        assert_eq!(fingerprint(b"foobar"), "85944171f73967e8");
        // serde_json's maps are sorted; should they cease to be, this fails.
        assert_eq!(hash(&json!({ "b": 1, "a": 2 })), fingerprint(br#"{"a":2,"b":1}"#));
    }
}
