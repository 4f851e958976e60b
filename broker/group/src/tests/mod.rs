//! The coordinator's rules, one file for each story, told through [`Desk`].

mod commits;
mod deletions;
mod desk;
mod expiry;
mod failures;
mod guards;
mod joining;
mod leaving;
mod loading;
mod rebalances;
mod record_bytes;
mod simulation;
mod static_members;
mod syncing;
mod views;

use desk::*;
