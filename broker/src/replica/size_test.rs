//! What a replica that nobody writes to takes, struct by struct: ten thousand of them on a broker are usual. What hangs on
//! them (names, paths, one segment, the list of epochs) comes on top; docs/benchmarks.md has the whole.

use std::mem::size_of;

use klamm_log::Log;

use super::leader::Leader;
use super::partition::{Partition, State};
use super::session::Wanted;

#[test]
fn a_replica_is_small() {
    let sizes = [
        ("Partition", size_of::<Partition>(), 864),
        ("its state", size_of::<State>(), 576),
        ("its log", size_of::<Log>(), 464),
        ("a leader's state", size_of::<Leader>(), 208),
        ("an entry of a fetch session", size_of::<Wanted>(), 128),
    ];
    for (what, bytes, most) in sizes {
        println!("figures sizes: {what}: {bytes} bytes");
        assert!(bytes <= most, "{what} takes {bytes} bytes, {most} were enough");
    }
}
