//! The network edge: listeners, connections, and how answers leave.

pub mod connection;
pub mod listener;
pub mod send;
