//! What is done about a group's consumers, which run elsewhere: how many there are to be, and that there are none while
//! the group's offsets are moved. Both are pure functions of what is seen and noted.
//!
//! `replicas` decides by lag, `pause` stops consumers for a reset and starts them again. What an operator has to know
//! after it was killed stands in the ConsumerGroup's status; everything else is seen.

pub mod pause;
#[cfg(test)]
mod pause_test;
pub mod replicas;
#[cfg(test)]
mod replicas_test;
