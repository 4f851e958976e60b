//! Mistakes that the property tests and the simulator (`tests/sim`) make on purpose, to see that each property can
//! fail. Outside of tests there are none: [`made`] is then a constant false.

/// One rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The ELR stays when min ISR is met again.
    ElrNeverVoid,
    /// A replica that comes back after an unclean shutdown is believed to hold everything.
    UncleanShutdownTrusted,
    /// A replica on a new disk counts as the one on the old disk.
    NewDiskTrusted,
    /// A fenced broker goes on leading.
    FencedLeaderStays,
    /// Any replica may lead at any time.
    AlwaysUnclean,
    /// The epoch of the broker that joins an ISR is not looked at.
    StaleJoinerAccepted,
    /// The leader's own epoch is not looked at when it changes the ISR.
    StaleIsrAccepted,
    /// A replica in the ELR stays there when it joins the ISR.
    ElrOverlaps,
    /// min ISR is lowered without making the ELR void.
    ElrOutlivesMinIsr,
    /// Maintenance is no reason not to be elected.
    MaintenanceIgnored,
}

#[cfg(not(any(test, feature = "planted")))]
pub(crate) const fn made(_: Mistake) -> bool {
    false
}

#[cfg(any(test, feature = "planted"))]
thread_local! {
    /// The mistake that this test makes.
    pub static MADE: std::cell::Cell<Option<Mistake>> = const { std::cell::Cell::new(None) };
}

#[cfg(any(test, feature = "planted"))]
pub(crate) fn made(mistake: Mistake) -> bool {
    MADE.get() == Some(mistake)
}
