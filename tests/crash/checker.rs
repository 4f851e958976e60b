//! What the broker promised against what its log holds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// A record as the load program notes it: where it stands, and its number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Topic and partition.
    pub partition: (String, u32),
    /// Its offset.
    pub offset: u64,
    /// The number the producer gave it; rising in each partition.
    pub number: u64,
}

/// What is wrong, counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Acknowledged and not in the log.
    pub lost: usize,
    /// In the log at another offset than acknowledged.
    pub moved: usize,
    /// In the log more than once.
    pub duplicate: usize,
    /// Behind a record that was sent later.
    pub reordered: usize,
    /// In the log and never handed to the group.
    pub unseen: usize,
}

/// Reads a file of the load program.
pub fn entries(path: &Path) -> Vec<Entry> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let topic = words.next()?.to_owned();
        let partition = words.next()?.parse().ok()?;
        Some(Entry {
            partition: (topic, partition),
            offset: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
        })
    };
    text.lines().map(|l| parse(l).unwrap_or_else(|| panic!("{}: {l:?}", path.display()))).collect()
}

/// Compares acknowledgements and what the group saw with the log, which is given in the order of its offsets.
pub fn check(acked: &[Entry], log: &[Entry], seen: &[Entry]) -> Report {
    let mut report = Report::default();
    let mut at: HashMap<(&(String, u32), u64), u64> = HashMap::new();
    let mut last: BTreeMap<&(String, u32), u64> = BTreeMap::new();
    for entry in log {
        if at.insert((&entry.partition, entry.number), entry.offset).is_some() {
            report.duplicate += 1;
        } else if last.get(&entry.partition).is_some_and(|l| *l > entry.number) {
            report.reordered += 1;
        }
        let last = last.entry(&entry.partition).or_default();
        *last = (*last).max(entry.number);
    }
    for entry in acked {
        match at.get(&(&entry.partition, entry.number)) {
            None => report.lost += 1,
            Some(offset) if *offset != entry.offset => report.moved += 1,
            Some(_) => {}
        }
    }
    let handed: HashSet<(&(String, u32), u64)> = seen.iter().map(|e| (&e.partition, e.number)).collect();
    report.unseen = log.iter().filter(|e| !handed.contains(&(&e.partition, e.number))).count();
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(numbers: &[u64]) -> Vec<Entry> {
        let entry = |(offset, number): (usize, &u64)| Entry {
            partition: ("t".into(), 0),
            offset: offset as u64,
            number: *number,
        };
        numbers.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn a_good_log_passes() {
        let good = log(&[1, 2, 5]);
        assert_eq!(check(&good, &good, &good), Report::default());
        // Records without an acknowledgement may stand or not.
        assert_eq!(check(&good[..1], &good, &good), Report::default());
    }

    #[test]
    fn each_fault_is_found() {
        let good = log(&[1, 2, 5]);
        assert_eq!(check(&good, &good[..2], &good).lost, 1);
        let twice = log(&[1, 2, 2]);
        assert_eq!(check(&[], &twice, &twice).duplicate, 1);
        let back = log(&[1, 5, 2]);
        assert_eq!(check(&[], &back, &back).reordered, 1);
        assert_eq!(check(&good, &log(&[0, 1, 2, 5]), &[]).moved, 3);
        assert_eq!(check(&good, &good, &good[1..]).unseen, 1);
    }
}
