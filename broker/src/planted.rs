//! Known bugs of replication protocols, which the simulator (`tests/sim`) plants one at a time to see that it finds them.
//! Only the feature `planted` lets them in; without it [`planted`] is a constant false and nothing of them is compiled.

/// A rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The high watermark is the leader's log end, whatever followers have.
    HighWatermarkFromLogEnd,
    /// A new follower cuts its log at the high watermark it knew, not where its leader's epochs say (before KIP-101).
    TruncatedToHighWatermark,
    /// A leader drops laggards from the ISR without asking the controller.
    IsrShrunkAlone,
    /// Writes are taken and acknowledged with fewer than `min.insync.replicas` in sync.
    AckedBelowMinIsr,
    /// A stop in order is marked, and told at the next registration, although the logs were not synced.
    CleanStopNotSynced,
    /// A group coordinator answers what is committed without a look whether it was replaced meanwhile.
    CoordinatorUnconfirmed,
}

#[cfg(not(feature = "planted"))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;

    thread_local! {
        static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
    }

    /// From now on this thread's brokers have this bug.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted")]
pub use switch::plant;
#[cfg(feature = "planted")]
pub(crate) use switch::planted;
