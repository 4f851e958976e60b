//! What a run is told by its environment.

/// The number from the environment, or this one.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// The seed of this run; each prints it. `KLAMM_CLUSTER_SEED` repeats one.
pub fn seed() -> u64 {
    setting("KLAMM_CLUSTER_SEED", u64::from(std::process::id()))
}

/// Whether this is a long run: `KLAMM_LONG=1`.
pub fn long() -> bool {
    setting("KLAMM_LONG", 0) == 1
}
