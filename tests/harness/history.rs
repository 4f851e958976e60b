//! What a run noted down: every send with its outcome, every record a reader was shown, commits and watermarks.
//!
//! Pure data of one topic; the workload fills it, the checker judges it. A value is unique: its producer's number and
//! the record's number at that producer, rising.

use std::collections::BTreeMap;

/// A record's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    /// Who sent it.
    pub producer: u32,
    /// Which one of the producer's.
    pub number: u32,
}

impl Value {
    /// The bytes that stand for it, `size` of them at least.
    pub fn to_bytes(self, size: usize) -> Vec<u8> {
        let mut text = format!("{} {} ", self.producer, self.number);
        while text.len() < size {
            text.push('.');
        }
        text.into_bytes()
    }

    /// What these bytes stand for.
    pub fn parse(bytes: &[u8]) -> Option<Value> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split(' ');
        Some(Value { producer: words.next()?.parse().ok()?, number: words.next()?.parse().ok()? })
    }
}

/// A time without an acknowledged record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gap {
    /// When the last one before it was acknowledged, in milliseconds from the beginning of the run.
    pub from_ms: u32,
    /// How long it was, in milliseconds.
    pub ms: u32,
}

/// How a send ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Written at this offset, said this broker. −1: written, but the broker no longer knew where.
    Acked {
        /// Where it stands.
        offset: i64,
        /// Who said so.
        leader: i32,
    },
    /// Refused before anything was sent.
    Failed,
    /// It may be there or not, now or later.
    Unknown,
}

/// One send.
#[derive(Debug, Clone, Copy)]
pub struct Send {
    /// What was sent.
    pub value: Value,
    /// Where to.
    pub partition: i32,
    /// What became of it.
    pub outcome: Outcome,
    /// Milliseconds from the beginning of the run until it was sent.
    pub sent_ms: u32,
    /// The same until it was settled.
    pub done_ms: u32,
}

/// A record as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Where it stands.
    pub offset: i64,
    /// What it is.
    pub value: Value,
    /// Leader epoch of its batch.
    pub epoch: i32,
}

/// What one reader was shown, by partition, in the order of its polls. A new stretch begins wherever its position was
/// set anew: at the start, and after a rebalance.
#[derive(Debug, Default)]
pub struct Reader {
    /// Names it in reports.
    pub name: String,
    /// What it was shown.
    pub stretches: BTreeMap<i32, Vec<Vec<Seen>>>,
}

impl Reader {
    /// One that was shown nothing yet.
    pub fn new(name: impl Into<String>) -> Reader {
        Reader { name: name.into(), ..Reader::default() }
    }

    /// Notes a record of the current stretch.
    pub fn saw(&mut self, partition: i32, seen: Seen) {
        let stretches = self.stretches.entry(partition).or_default();
        match stretches.last_mut() {
            Some(last) => last.push(seen),
            None => stretches.push(vec![seen]),
        }
    }

    /// From now on another position counts.
    pub fn moved(&mut self) {
        for stretches in self.stretches.values_mut() {
            stretches.push(Vec::new());
        }
    }
}

/// A look at what a group has committed.
#[derive(Debug, Clone, Copy)]
pub struct CommitLook {
    /// The partition.
    pub partition: i32,
    /// The highest offset whose commit had been acknowledged when the look began.
    pub promised: i64,
    /// What is committed.
    pub found: i64,
}

/// A whole run.
#[derive(Debug, Default)]
pub struct History {
    /// The topic.
    pub topic: String,
    /// Every send.
    pub sends: Vec<Send>,
    /// The log as read from its beginning at the end.
    pub log: BTreeMap<i32, Vec<Seen>>,
    /// Readers by assignment: each must have seen everything.
    pub readers: Vec<Reader>,
    /// Members of the group: together they must have seen everything.
    pub members: Vec<Reader>,
    /// What was committed, as it was looked at again and again.
    pub commits: Vec<CommitLook>,
    /// Successive high watermarks by partition, each series as one client saw it.
    pub watermarks: Vec<BTreeMap<i32, Vec<i64>>>,
}

impl History {
    /// How many sends were acknowledged.
    pub fn acked(&self) -> usize {
        self.sends.iter().filter(|s| matches!(s.outcome, Outcome::Acked { .. })).count()
    }

    /// How many were not.
    pub fn not_acked(&self) -> usize {
        self.sends.len() - self.acked()
    }

    /// The longest time without an acknowledgement by partition, from `since_ms` on.
    pub fn gaps(&self, since_ms: u32) -> BTreeMap<i32, u32> {
        self.gaps_within(u64::from(since_ms), u64::MAX)
            .into_iter()
            .map(|(partition, gap)| (partition, gap.ms))
            .collect()
    }

    /// The same of such times that begin between these moments: the last acknowledgement before the first moment counts,
    /// and so does the first one after the last.
    pub fn gaps_within(&self, from_ms: u64, to_ms: u64) -> BTreeMap<i32, Gap> {
        let mut times: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
        for send in self.sends.iter().filter(|s| matches!(s.outcome, Outcome::Acked { .. })) {
            times.entry(send.partition).or_default().push(send.done_ms);
        }
        let longest = |(partition, mut at): (i32, Vec<u32>)| {
            at.sort_unstable();
            let within = at.windows(2).filter(|w| u64::from(w[1]) >= from_ms && u64::from(w[0]) < to_ms);
            let gaps = within.map(|w| Gap { from_ms: w[0], ms: w[1] - w[0] });
            (partition, gaps.max_by_key(|gap| gap.ms).unwrap_or_default())
        };
        times.into_iter().map(longest).collect()
    }
}
