//! The network edge: listeners, connections, and how answers leave.

pub mod budget;
pub mod connection;
pub mod listener;
pub mod send;
