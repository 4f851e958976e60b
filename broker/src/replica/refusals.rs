//! First batches of idempotent producers that were refused for now, so that what was sent behind them is not taken
//! before them.
//!
//! A log takes any sequence number from a producer that it knows nothing of, since what it knew may have been deleted.
//! With several batches in flight the first may be refused (too few replicas in sync, a full disk) and the second arrive
//! a moment later, when all is well again: taken, it would stand before the first for ever. A leader therefore remembers
//! the lowest sequence number that it refused to a producer unknown to it, until that is taken.

use std::collections::BTreeMap;

use klamm_log::producers::Producers;
use klamm_protocol::batch::BatchHeader;

/// How many producers are remembered; the lowest ids are forgotten first.
const PRODUCERS_MAX: usize = 1_000;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Epoch and lowest refused sequence number by producer.
    lowest: BTreeMap<i64, (i16, i32)>,
}

impl Refusals {
    /// These records were refused and will be sent again.
    pub fn refused(&mut self, records: &[u8], producers: &Producers) {
        if let Ok(batch) = BatchHeader::parse(records)
            && producers.get(batch.producer_id).is_none()
        {
            self.note(&batch);
        }
    }

    fn note(&mut self, batch: &BatchHeader) {
        if !batch.has_producer_id() || batch.is_control() {
            return;
        }
        let this = (batch.producer_epoch, batch.base_sequence);
        match self.lowest.get_mut(&batch.producer_id) {
            Some(known) if known.0 == this.0 => known.1 = known.1.min(this.1),
            Some(known) => *known = this,
            None => {
                if self.lowest.len() >= PRODUCERS_MAX {
                    self.lowest.pop_first();
                }
                self.lowest.insert(batch.producer_id, this);
            }
        }
    }

    /// Whether these records come behind some that were refused.
    pub fn holds_back(&self, records: &[u8]) -> bool {
        !self.lowest.is_empty() && BatchHeader::parse(records).is_ok_and(|batch| self.comes_behind(&batch))
    }

    fn comes_behind(&self, batch: &BatchHeader) -> bool {
        let known = self.lowest.get(&batch.producer_id);
        known.is_some_and(|(epoch, lowest)| *epoch == batch.producer_epoch && *lowest < batch.base_sequence)
    }

    /// These records were taken, or never will be: from now on the log knows what comes next.
    pub fn taken(&mut self, records: &[u8]) {
        if !self.lowest.is_empty()
            && let Ok(batch) = BatchHeader::parse(records)
        {
            self.lowest.remove(&batch.producer_id);
        }
    }

    /// Forgets everything: another leader decides.
    pub fn clear(&mut self) {
        self.lowest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(producer_id: i64, producer_epoch: i16, base_sequence: i32) -> BatchHeader {
        BatchHeader { producer_id, producer_epoch, base_sequence, ..BatchHeader::default() }
    }

    #[test]
    fn what_was_sent_behind_a_refused_batch_waits_for_it() {
        let mut refusals = Refusals::default();
        for sequence in [3, 0, 5] {
            refusals.note(&batch(7, 0, sequence));
        }
        assert!(refusals.comes_behind(&batch(7, 0, 3)));
        assert!(!refusals.comes_behind(&batch(7, 0, 0)));
        assert!(!refusals.comes_behind(&batch(7, 1, 3)), "another epoch begins anew");
        assert!(!refusals.comes_behind(&batch(8, 0, 3)));
    }

    #[test]
    fn who_is_not_idempotent_is_not_remembered_and_the_memory_is_bounded() {
        let mut refusals = Refusals::default();
        refusals.note(&batch(-1, -1, -1));
        assert!(refusals.lowest.is_empty());
        (0..5_000).for_each(|id| refusals.note(&batch(id, 0, 0)));
        assert_eq!(refusals.lowest.len(), PRODUCERS_MAX);
    }
}
