//! Messages come back as they were; any bytes are a message or malformed.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_malformed(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::decode(bytes.clone().into());
        let _ = Answer::decode(bytes.into());
    }
}
