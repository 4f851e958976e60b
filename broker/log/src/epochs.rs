//! Which leader epoch began at which offset, and the `leader-epoch-checkpoint` file that remembers it.
//!
//! Epochs and start offsets both rise strictly. The file is a cache: a missing or garbled one is made again from the
//! epochs in the batch headers.

/// The first offset of a leader epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEntry {
    /// Leader epoch.
    pub epoch: i32,
    /// Offset of its first batch.
    pub start_offset: i64,
}

/// All epochs of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Epochs {
    entries: Vec<EpochEntry>,
}

/// Name of the file in the partition's directory.
pub const EPOCH_FILE: &str = "leader-epoch-checkpoint";

impl Epochs {
    /// Reads the file's text; `None` when it isn't one, or its entries don't rise.
    pub fn parse(text: &[u8]) -> Option<Epochs> {
        // A cut in the last line would otherwise read as a smaller number.
        let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
        let mut lines = text.lines();
        if lines.next()?.trim() != "0" {
            return None;
        }
        let count: usize = lines.next()?.trim().parse().ok()?;
        let mut epochs = Epochs::default();
        for line in lines.filter(|l| !l.trim().is_empty()) {
            let (epoch, start) = line.trim().split_once(' ')?;
            let entry = EpochEntry { epoch: epoch.parse().ok()?, start_offset: start.trim().parse().ok()? };
            if entry.epoch < 0 || entry.start_offset < 0 {
                return None;
            }
            if let Some(last) = epochs.entries.last()
                && (entry.epoch <= last.epoch || entry.start_offset < last.start_offset)
            {
                return None;
            }
            epochs.entries.push(entry);
        }
        (epochs.entries.len() == count).then_some(epochs)
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut text = format!("0\n{}\n", self.entries.len());
        for e in &self.entries {
            text.push_str(&format!("{} {}\n", e.epoch, e.start_offset));
        }
        text
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|e| e.epoch)
    }

    /// Notes that `epoch` has a batch at `start_offset`. Returns whether anything changed.
    ///
    /// Entries that contradict the new one (a later start, or a larger epoch) are dropped: they can only stem from a
    /// tail that has since been cut off.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        if epoch < 0 || self.entries.last().is_some_and(|e| e.epoch == epoch) {
            return false;
        }
        self.entries.retain(|e| e.epoch < epoch && e.start_offset < start_offset);
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    /// The largest epoch not above `epoch`, and the offset where it ends; `None` for an epoch newer than any seen.
    ///
    /// For an epoch older than anything kept the answer is that epoch and the log's first known offset, so that a
    /// follower that far behind goes on from there.
    pub fn end_offset(&self, epoch: i32, log_end: i64) -> Option<(i32, i64)> {
        if epoch < 0 || self.latest()? < epoch {
            return None;
        }
        let next = self.entries.partition_point(|e| e.epoch <= epoch);
        let end = self.entries.get(next).map_or(log_end, |e| e.start_offset);
        let floor = next.checked_sub(1).map_or(epoch, |at| self.entries[at].epoch);
        Some((floor, end))
    }

    /// The epoch of the record at an offset.
    pub fn at_offset(&self, offset: i64) -> Option<i32> {
        let next = self.entries.partition_point(|e| e.start_offset <= offset);
        Some(self.entries[next.checked_sub(1)?].epoch)
    }

    /// Drops what begins at or after a new log end. Returns whether anything changed.
    pub fn truncate_end(&mut self, log_end: i64) -> bool {
        let keep = self.entries.partition_point(|e| e.start_offset < log_end);
        let changed = keep < self.entries.len();
        self.entries.truncate(keep);
        changed
    }

    /// Drops what ended before a new log start; the epoch of the first record left begins there. Returns whether
    /// anything changed.
    pub fn truncate_start(&mut self, log_start: i64) -> bool {
        let next = self.entries.partition_point(|e| e.start_offset <= log_start);
        let Some(first) = next.checked_sub(1) else {
            return false;
        };
        if first == 0 && self.entries[0].start_offset == log_start {
            return false;
        }
        self.entries.drain(..first);
        self.entries[0].start_offset = log_start;
        true
    }

    /// Forgets all entries. Returns whether there were any.
    pub fn clear(&mut self) -> bool {
        let any = !self.entries.is_empty();
        self.entries = Vec::new();
        any
    }
}

/// Collects the epochs of batches, from the first to the last. Their epochs rise, and no CRC covers them: one that its
/// neighbours contradict is left out, so that it differs from what is known of its offset.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    /// The last batch, of which its successor decides.
    last: Option<EpochEntry>,
}

impl Collector {
    /// The next batch. Returns whether it goes with the one before.
    pub fn see(&mut self, epoch: i32, start_offset: i64, epochs: &mut Epochs) -> bool {
        if epoch < 0 {
            return true;
        }
        let next = EpochEntry { epoch, start_offset };
        let Some(last) = self.last.replace(next) else { return true };
        let rises = last.epoch <= epoch;
        let before = epochs.latest();
        if rises || before.is_some_and(|before| epoch < before) {
            Self::assign(last, epochs);
        } else if before.is_none() {
            // Nothing before it says what its epoch is: that of its successor.
            self.last = Some(EpochEntry { epoch, ..last });
        }
        rises
    }

    /// There are no more.
    pub fn finish(self, epochs: &mut Epochs) {
        if let Some(last) = self.last {
            Self::assign(last, epochs);
        }
    }

    fn assign(entry: EpochEntry, epochs: &mut Epochs) {
        if epochs.latest().is_none_or(|latest| latest < entry.epoch) {
            epochs.assign(entry.epoch, entry.start_offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(seen: &[i32]) -> Epochs {
        let (mut collector, mut epochs) = (Collector::default(), Epochs::default());
        for (offset, &epoch) in seen.iter().enumerate() {
            collector.see(epoch, offset as i64, &mut epochs);
        }
        collector.finish(&mut epochs);
        epochs
    }

    #[test]
    fn an_epoch_that_its_neighbours_contradict_is_not_believed() {
        assert_eq!(collected(&[0, 0, 3, 4, 4]), epochs(&[(0, 0), (3, 2), (4, 3)]));
        assert_eq!(collected(&[-1, -1, 0]), epochs(&[(0, 2)]));
        let sound = [2, 2, 2, 5, 5, 5, 6, 6, 6];
        // But the last, of which nobody knows better.
        for at in 0..sound.len() - 1 {
            for bit in 0..31 {
                let mut seen = sound;
                seen[at] ^= 1 << bit;
                // As if its epoch had begun a batch earlier or later.
                let plausible = (at == 0 || seen[at] >= seen[at - 1]) && seen[at] <= seen[at + 1];
                let found = collected(&seen);
                assert!(
                    plausible || (0..9).any(|o| found.at_offset(o) != Some(seen[o as usize])),
                    "{seen:?}: {found:?}"
                );
                let astray = (0..9).filter(|o| found.at_offset(*o as i64) != Some(sound[*o])).count();
                assert!(astray <= 2, "{seen:?}: {found:?}");
            }
        }
    }

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for &(epoch, start) in entries {
            epochs.assign(epoch, start);
        }
        epochs
    }

    #[test]
    fn text_goes_both_ways_and_garbage_is_refused() {
        let e = epochs(&[(0, 0), (3, 10), (4, 12)]);
        assert_eq!(e.to_text(), "0\n3\n0 0\n3 10\n4 12\n");
        assert_eq!(Epochs::parse(e.to_text().as_bytes()), Some(e));
        for bad in [
            "0\n1\n0 5",
            "",
            "0",
            "1\n0\n",
            "0\n2\n0 0\n",
            "0\n1\n0 0\n1 5\n",
            "0\n2\n1 0\n0 5\n",
            "0\n1\n0 x\n",
            "0\n1\n\0\0\0\n",
            "0\n1\n-1 4\n",
        ] {
            assert_eq!(Epochs::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn end_offsets_answer_as_kafka_does() {
        let e = epochs(&[(2, 10), (5, 20), (6, 30)]);
        for (epoch, answer) in [
            (-1, None),
            (0, Some((0, 10))),
            (2, Some((2, 20))),
            (3, Some((2, 20))),
            (5, Some((5, 30))),
            (6, Some((6, 99))),
            (7, None),
        ] {
            assert_eq!(e.end_offset(epoch, 99), answer, "epoch {epoch}");
        }
        assert_eq!(Epochs::default().end_offset(0, 99), None);
        assert_eq!(e.at_offset(9), None);
        assert_eq!(e.at_offset(10), Some(2));
        assert_eq!(e.at_offset(29), Some(5));
    }

    #[test]
    fn truncation_at_both_ends() {
        let mut e = epochs(&[(0, 0), (1, 10), (2, 20)]);
        assert!(!e.truncate_end(21));
        assert!(e.truncate_end(20));
        assert!(e.truncate_start(15));
        assert_eq!(e, epochs(&[(1, 15)]));
        assert!(!e.truncate_start(15));
        assert!(!e.truncate_start(3));
    }

    #[test]
    fn assigning_drops_what_contradicts() {
        let mut e = epochs(&[(0, 0), (1, 10), (2, 20)]);
        assert!(!e.assign(2, 25));
        assert!(e.assign(3, 15));
        assert_eq!(e, epochs(&[(0, 0), (1, 10), (3, 15)]));
    }
}
