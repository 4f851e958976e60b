//! Committed offsets: [`store`] holds them, the other files are one request or duty each.

mod commit;
mod delete;
mod expire;
mod fetch;
mod guard;
mod store;

pub(crate) use delete::Purge;
pub(crate) use expire::Expiry;
pub use fetch::{offset_fetch_groups, offset_fetch_response};
pub use store::OffsetEntry;
pub(crate) use store::Offsets;
