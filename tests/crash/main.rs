//! Crashes: kill -9 under load, and logs whose last write was torn. Nothing acknowledged is lost, doubled or reordered.

mod checker;
mod clock;
mod fsync;
mod hangup;
mod harmed;
mod kills;
mod offsets;
mod signals;
mod torn;
