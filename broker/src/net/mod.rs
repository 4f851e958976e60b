//! The network edge: listeners, connections, and how answers leave.

pub mod budget;
pub mod connection;
mod handshake;
pub mod listener;
pub mod send;
pub mod stream;
