//! Which bytes of a segment file this process knows to be sound, and damage that was found.
//!
//! What was written here was checked on its way in. What was found on disk is checked before it is first read to anyone,
//! a range at a time, off the lock; and again when it came from the disk into the page cache anew ([`Arrivals`]), since
//! what comes back may be something else. Damage is remembered: reads end before it, and fail at it.

use std::sync::Arc;

use klamm_protocol::arrivals::Arrivals;

use crate::disk::DiskFile;
use crate::epochs::Epochs;
use crate::error::{Damage, LogError};
use crate::log::Log;
use crate::scan::{Scan, ScanError};

/// Separate checked ranges that are remembered of one segment.
const RANGES_MAX: usize = 64;
/// Damaged places that are remembered of one log.
const DAMAGES_MAX: usize = 256;

/// What is known of one segment file. Small for the many that nobody reads.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// Everything from here on was written by this process, or checked.
    from: u32,
    /// Checked ranges below `from`.
    checked: Option<Box<Ranges>>,
}

/// Sorted, apart from each other.
#[derive(Debug, Default)]
struct Ranges(Vec<(u32, u32)>);

impl Trust {
    /// For a file of `size` bytes that this process has not looked at.
    pub fn found(size: u32) -> Trust {
        Trust { from: size, ..Trust::default() }
    }

    /// Whether all of `start..end` is known to be sound.
    pub fn covers(&self, start: u32, end: u32) -> bool {
        start >= self.from || self.checked().iter().any(|(from, to)| *from <= start && end <= *to)
    }

    fn checked(&self) -> &[(u32, u32)] {
        self.checked.as_deref().map_or(&[], |ranges| ranges.0.as_slice())
    }

    /// Nothing is known any more of a file of `size` bytes.
    pub fn forget(&mut self, size: u32) {
        *self = Trust::found(size);
    }

    /// Nothing is known any more of what came from the disk since this was asked last.
    pub fn take_in(&mut self, arrivals: &Arrivals, size: u32) {
        if let Some(from) = arrivals.drain().and_then(|from| u32::try_from(from).ok()).filter(|from| *from < size) {
            let sound = self.from;
            self.truncate(from);
            self.from = size;
            if sound < from {
                self.add(sound, from);
            }
        }
    }

    /// `start..end` was checked.
    pub fn add(&mut self, start: u32, end: u32) {
        let (mut start, mut end) = (start, end);
        if let Some(Ranges(checked)) = self.checked.as_deref_mut() {
            checked.retain(|(from, to)| {
                let apart = *to < start || *from > end;
                if !apart {
                    start = start.min(*from);
                    end = end.max(*to);
                }
                apart
            });
        }
        if end >= self.from {
            self.from = self.from.min(start);
            return;
        }
        let Ranges(checked) = &mut **self.checked.get_or_insert_default();
        let at = checked.partition_point(|(from, _)| *from < start);
        checked.insert(at, (start, end));
        self.bound();
    }

    fn bound(&mut self) {
        if let Some(Ranges(checked)) = self.checked.as_deref_mut() {
            let more = checked.len().saturating_sub(RANGES_MAX);
            checked.drain(..more);
        }
    }

    /// The file was cut.
    pub fn truncate(&mut self, size: u32) {
        self.from = self.from.min(size);
        if let Some(Ranges(checked)) = self.checked.as_deref_mut() {
            checked.retain(|(from, _)| *from < size);
            for range in checked.iter_mut() {
                range.1 = range.1.min(size);
            }
        }
    }
}

/// A place in a log where no sound batch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// Base offset of the segment.
    pub segment: i64,
    pub position: u32,
    pub damage: Damage,
}

/// A range of a segment file that has to be checked before it is shown to anyone.
#[derive(Debug, Clone)]
pub struct Unchecked {
    file: Arc<dyn DiskFile>,
    path: std::path::PathBuf,
    segment: i64,
    start: u32,
    end: u32,
    size: u32,
    /// The offsets that the range must hold: from, and to before.
    offsets: (i64, i64),
    /// No offset may be missing, unless the segment as a whole is in order.
    dense: bool,
    /// A reader was led past the offset it wanted.
    doubtful: bool,
    epochs: Epochs,
    generation: u32,
    /// The segment's, whatever `file` is read through.
    of: Arc<dyn DiskFile>,
}

/// What checking a range found.
#[derive(Debug)]
pub struct Checked {
    /// What was checked.
    pub unchecked: Unchecked,
    /// Where it is not sound, if it isn't.
    pub damage: Option<Damage>,
    position: u32,
}

impl Unchecked {
    /// Bytes to be read.
    pub fn len(&self) -> u32 {
        self.end - self.start
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same range, read through `wrap`: for readers that have to hold back.
    #[must_use]
    pub fn through(mut self, wrap: impl FnOnce(Arc<dyn DiskFile>) -> Arc<dyn DiskFile>) -> Unchecked {
        self.file = wrap(self.file);
        self
    }

    /// Reads and checks the range: CRCs, and that offsets and leader epochs, which no CRC covers, are in order. Blocks.
    pub fn check(self) -> Result<Checked, LogError> {
        let mut found = self.look(self.start, self.end, self.offsets.0, self.dense)?;
        // A range that ends before the offset the reader was told: what comes next may have a garbled one.
        let short = self.dense && found.next != self.offsets.1;
        if found.bad.is_some() || found.gap || short || self.doubtful {
            // Compaction leaves gaps. A garbled offset looks like one, but not beside all its neighbours, and only they tell
            // whose offset is wrong.
            let whole = self.look(0, self.size, self.segment, false)?;
            let concerns_us = |(position, _, _): &(u32, i64, String)| self.doubtful || *position >= self.start;
            found.bad = whole.bad.filter(concerns_us).or(found.bad);
        }
        if found.bad.is_none() && found.next > self.offsets.1 {
            let what = format!("the batches end at offset {}, {} comes next", found.next, self.offsets.1);
            found.bad = Some((found.last, found.last_offset, what));
        }
        let (position, damage) = match found.bad {
            None => (0, None),
            Some((position, offset, what)) => {
                let file = self.path.clone();
                (position, Some(Damage { file, position: u64::from(position), offset, what, next_sound: None }))
            }
        };
        Ok(Checked { unchecked: self, damage, position })
    }

    fn look(&self, start: u32, end: u32, first: i64, dense: bool) -> Result<Look, LogError> {
        let mut scan = Scan::new(&*self.file, self.segment, start, end, Vec::new());
        let mut look = Look { bad: None, gap: false, leapt: false, next: first, last: start, last_offset: first };
        loop {
            let (position, header) = match scan.next() {
                Ok(None) => break,
                Ok(Some(batch)) => (batch.position, batch.header),
                Err(ScanError::Bad { position, what }) => {
                    look.blame(position, what);
                    break;
                }
                Err(ScanError::Io(e)) => return Err(LogError::io("checking", &self.path, e)),
            };
            if header.base_offset < look.next {
                let what = format!("the batch has offset {}, {} comes next", header.base_offset, look.next);
                look.blame(position, what);
                break;
            }
            let epoch = self.epochs.at_offset(header.base_offset);
            if epoch.is_some_and(|epoch| epoch != header.partition_leader_epoch) {
                let what = format!(
                    "the batch has leader epoch {}, not {}",
                    header.partition_leader_epoch,
                    epoch.unwrap_or(-1)
                );
                look.bad = Some((position, look.next, what));
                break;
            }
            look.leapt = header.base_offset > look.next;
            look.gap |= dense && look.leapt;
            (look.last, look.last_offset) = (position, look.next);
            look.next = header.next_offset();
        }
        Ok(look)
    }
}

struct Look {
    /// Position, the offset that should be there, and what is wrong.
    bad: Option<(u32, i64, String)>,
    gap: bool,
    /// The last batch leaves a gap before it.
    leapt: bool,
    next: i64,
    /// The last batch, and the offset it should have.
    last: u32,
    last_offset: i64,
}

impl Look {
    /// The batch at `position` doesn't follow the one before it. Where that one leaves a gap, its own offset is wrong.
    fn blame(&mut self, position: u32, what: String) {
        self.bad = Some(match self.leapt {
            true => (self.last, self.last_offset, format!("the batch after it doesn't follow: {what}")),
            false => (position, self.next, what),
        });
    }
}

impl Log {
    /// What of `start..end` in a segment has to be checked before it is shown; `offsets` are those that a reader was
    /// told of, `wanted` the one it asked for.
    pub(crate) fn unchecked(
        &mut self,
        at: usize,
        (start, end): (u32, u32),
        offsets: (i64, i64),
        wanted: i64,
    ) -> Result<Option<Box<Unchecked>>, LogError> {
        let file = self.with_segment(at, |s, place| s.log_file(place))?;
        let segment = &mut self.segments[at];
        if let Some(arrivals) = file.arrivals() {
            segment.trust.take_in(&arrivals, segment.size);
        }
        if segment.trust.covers(start, end) {
            return Ok(None);
        }
        self.range_to_check(at, (start, end), offsets, wanted).map(|unchecked| Some(Box::new(unchecked)))
    }

    fn range_to_check(
        &mut self,
        at: usize,
        (start, end): (u32, u32),
        offsets: (i64, i64),
        wanted: i64,
    ) -> Result<Unchecked, LogError> {
        let dense = !self.config.compact;
        let file = self.with_segment(at, |s, place| s.log_file(place))?;
        let (base, size) = (self.segments[at].base, self.segments[at].size);
        Ok(Unchecked {
            file: file.clone(),
            of: file,
            path: self.segments[at].log_path(self.place()),
            segment: base,
            start,
            end,
            size,
            offsets,
            dense,
            doubtful: dense && offsets.0 > wanted && wanted >= base,
            epochs: self.epochs.clone(),
            generation: self.generation,
        })
    }

    /// All of the segment that begins at `base` or next after it, to be checked whatever is known of it.
    pub fn segment_to_check(&mut self, base: i64) -> Result<Option<(i64, Unchecked)>, LogError> {
        let Some(at) = self.segments.iter().position(|s| s.base >= base && s.size > 0) else { return Ok(None) };
        let (size, from, to) = (self.segments[at].size, self.segments[at].base, self.end_of(at));
        self.range_to_check(at, (0, size), (from, to), from).map(|unchecked| Some((from, unchecked)))
    }

    /// Takes note of a check. Returns the damage it found when that is news, and still about this log as it is.
    pub fn checked(&mut self, checked: &Checked) -> Option<Damage> {
        let of = &checked.unchecked;
        let segment = self.segments.iter_mut().find(|s| s.base == of.segment)?;
        if of.generation != self.generation || !segment.is_open_as(&of.of) {
            // Truncated, compacted or closed meanwhile: what is there now may be another file.
            return None;
        }
        if let Some(arrivals) = of.of.arrivals() {
            // What the check itself has read from the disk was checked.
            segment.trust.take_in(&arrivals, segment.size);
        }
        let Some(damage) = &checked.damage else {
            segment.trust.add(of.start, of.end);
            return None;
        };
        if checked.position > of.start {
            segment.trust.add(of.start, checked.position);
        }
        let known = Known { segment: of.segment, position: checked.position, damage: damage.clone() };
        self.remember(known).then(|| damage.clone())
    }

    /// Takes note of damage that a lookup met. Returns whether it is news.
    pub fn note_damage(&mut self, damage: &Damage) -> bool {
        let Some(segment) = self.segments.iter().find(|s| s.log_path(self.place()) == damage.file) else {
            return false;
        };
        let Ok(position) = u32::try_from(damage.position) else { return false };
        let known = Known { segment: segment.base, position, damage: damage.clone() };
        self.remember(known)
    }

    fn remember(&mut self, known: Known) -> bool {
        let is_news = !self.damages.iter().any(|k| (k.segment, k.position) == (known.segment, known.position));
        if is_news && self.damages.len() < DAMAGES_MAX {
            self.damages.push(known);
            self.damages.sort_by_key(|k| (k.segment, k.position));
        }
        is_news
    }

    /// Forgets what is known of the segment that holds `offset`, because somebody was not content with what it read.
    pub fn distrust(&mut self, offset: i64) {
        let at = self.segment_of(offset);
        let segment = &mut self.segments[at];
        segment.trust.forget(segment.size);
    }

    /// The first damage that is known and not mended.
    pub fn damage(&self) -> Option<&Damage> {
        self.damages.first().map(|known| &known.damage)
    }

    /// Where a read of `start..end` has to end because of damage: the position and the offset there.
    pub(crate) fn damaged_in(&self, segment: i64, start: u32, end: u32) -> Option<&Known> {
        self.damages.iter().find(|k| k.segment == segment && (start..=end).contains(&k.position))
    }

    /// The damage that hides what a reader wanted, and was led past.
    pub(crate) fn damaged_between(&self, segment: i64, start: u32, wanted: i64) -> Option<&Known> {
        self.damages.iter().find(|k| k.segment == segment && k.position <= start && k.damage.offset == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_together_and_shrink_with_the_file() {
        let mut trust = Trust::found(1000);
        assert!(!trust.covers(0, 10));
        assert!(trust.covers(1000, 1500), "what this process appends");
        trust.add(0, 100);
        trust.add(300, 400);
        assert!(trust.covers(20, 100) && !trust.covers(20, 101) && !trust.covers(100, 300));
        trust.add(100, 300);
        assert!(trust.covers(0, 400));
        trust.add(380, 1000);
        assert!(trust.covers(0, 2000), "it joins what was appended");
        trust.truncate(500);
        assert!(trust.covers(0, 500));
        trust.forget(500);
        assert!(!trust.covers(0, 10) && trust.covers(500, 600));
    }

    #[test]
    fn what_comes_from_the_disk_and_is_behind_it_is_doubted() {
        let (mut trust, arrivals) = (Trust::default(), Arrivals::default());
        let came = |trust: &mut Trust, from| {
            arrivals.note(from);
            trust.take_in(&arrivals, 1000);
        };
        came(&mut trust, 200);
        assert!(trust.covers(0, 200) && !trust.covers(0, 201) && !trust.covers(999, 1000));
        assert!(trust.covers(1000, 2000), "nothing was there yet");
        trust.add(300, 1000);
        trust.add(200, 250);
        assert!(trust.covers(0, 250) && trust.covers(300, 2000) && !trust.covers(240, 310));
        came(&mut trust, 500);
        assert!(trust.covers(0, 250) && trust.covers(300, 500) && !trust.covers(300, 501));
        came(&mut trust, 1000);
        assert!(trust.covers(300, 500) && trust.covers(1000, 1001));
        came(&mut trust, 0);
        assert!(!trust.covers(0, 1) && !trust.covers(300, 310));
    }

    #[test]
    fn many_separate_ranges_are_bounded() {
        let mut trust = Trust::found(1 << 20);
        for n in 0..1000 {
            trust.add(n * 100, n * 100 + 50);
        }
        assert!(trust.checked().len() <= RANGES_MAX);
        assert!(trust.covers(99_900, 99_950));
    }
}
