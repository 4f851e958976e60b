//! Topics: what one should be (`desired`), what has to be done about how it is (`plan`),
//! and how it is and how that is done (`cluster`).

pub mod cluster;
pub mod desired;
pub mod plan;
