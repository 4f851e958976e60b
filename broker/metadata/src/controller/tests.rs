//! What the decisions answer, and that their records do what the answer says.
use super::*;
use crate::image::{Broker, Image};
use std::sync::Arc;
/// An image of active brokers 0.. on the given racks.
pub(crate) fn with_brokers(racks: &[Option<String>]) -> Image {
    let mut image = Image::new("cluster");
    for (id, rack) in (0..).zip(racks) {
        let broker = Broker {
            id,
            epoch: i64::from(id) + 10,
            incarnation: Uuid([id as u8 + 1; 16]),
            endpoints: Vec::new(),
            features: Vec::new(),
            rack: rack.clone(),
            fenced: false,
            in_controlled_shutdown: false,
            log_dirs: vec![Uuid([id as u8 + 100; 16])],
            cordoned_log_dirs: None,
        };
        Arc::make_mut(&mut image.brokers).insert(id, Arc::new(broker));
    }
    image
}
