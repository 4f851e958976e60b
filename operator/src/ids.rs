//! Brokers by their ids in a sentence: many of them are said as ranges.

/// `0, 2, 4-49`: three in a row and more are a range. `ids` are in order.
pub fn ranges(ids: impl IntoIterator<Item = i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for id in ids {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => runs.push((id, id)),
        }
    }
    let said = runs.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}-{last}"),
    });
    said.collect::<Vec<_>>().join(", ")
}

/// `broker 3`, `brokers 3-49`.
pub fn brokers(ids: &[i32]) -> String {
    let all = ranges(ids.iter().copied());
    if ids.len() == 1 { format!("broker {all}") } else { format!("brokers {all}") }
}

/// `broker 3 runs`, `brokers 3-49 run`.
pub fn agree(ids: impl IntoIterator<Item = i32>, one: &str, many: &str) -> String {
    let ids: Vec<i32> = ids.into_iter().collect();
    format!("{} {}", brokers(&ids), if ids.len() == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_in_a_row_are_a_range() {
        for (ids, said) in [
            (vec![], ""),
            (vec![3], "3"),
            (vec![3, 4], "3, 4"),
            (vec![3, 4, 5], "3-5"),
            (vec![0, 2, 3, 5, 6, 7, 9], "0, 2, 3, 5-7, 9"),
            ((3..50).collect(), "3-49"),
        ] {
            assert_eq!(ranges(ids), said);
        }
        assert_eq!((brokers(&[7]).as_str(), brokers(&[0, 1, 2]).as_str()), ("broker 7", "brokers 0-2"));
    }

    #[test]
    fn one_broker_is_not_said_as_many() {
        assert_eq!(agree([3], "runs", "run"), "broker 3 runs");
        assert_eq!(agree(3..50, "runs", "run"), "brokers 3-49 run");
    }
}
