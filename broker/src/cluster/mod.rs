//! This broker as one of several: connections to the others, and the way to the active controller.

pub mod forward;
pub mod health;
pub mod identity;
pub mod internal_topics;
pub mod lifecycle;
pub mod peers;
pub mod producer_ids;
pub mod seats;
pub mod suspects;
pub mod transport;
pub mod visible;
pub mod whereabouts;
