//! Kubernetes' quantities: `100Gi`, `0.5`, `500m`.

/// A quantity in thousandths; `None` for what is none, or too large to count.
pub fn milli(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let unit = if suffix == "m" { 1 } else { unit(suffix)? * 1_000 };
    let mut sum = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()?.checked_mul(unit)? };
    let mut place = unit;
    for digit in part.bytes() {
        place /= 10;
        sum = sum.checked_add(place.checked_mul(i128::from(digit.checked_sub(b'0')?))?)?;
    }
    Some(sum)
}

/// What a suffix stands for; `None` for what is none. Thousandths (`m`) are none here.
pub fn unit(suffix: &str) -> Option<i128> {
    Some(match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_quantity_has_many_names() {
        for same in [&["0.5", "500m", ".5"][..], &["1Gi", "1024Mi", "1073741824"], &["0.1k", "100"], &["2", "2000m"]] {
            for text in same {
                assert_eq!(milli(text), milli(same[0]), "{text}");
            }
        }
        assert!(milli("100G") < milli("100Gi"));
        for none in ["", "Gi", "1x", "-1", "1.2.3", "1e3"] {
            assert_eq!(milli(none), None, "{none}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC*") {
            let _ = milli(&text);
        }
    }
}
