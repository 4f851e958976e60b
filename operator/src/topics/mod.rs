//! Topics: what one should be (`desired`), and what has to be done about how it is (`plan`).

pub mod desired;
pub mod plan;
