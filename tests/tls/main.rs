//! Listeners of protocol SSL: nodes among themselves, strangers at the door, certificates that change, clients.
//!
//! Certificates are made here, signed by an authority of the test's own. `KLAMM_TEST_PEER` has no effect: what is
//! looked for in logs and files is Klamm's.

mod authority;
mod clients;
mod nodes;
