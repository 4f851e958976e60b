//! Whom a certificate names, and until when it holds. The subject is text the way Kafka's principals have it
//! (`CN=broker-0,O=Example`): the last part first, RFC 2253.
//!
//! Only certificates whose signature has been checked come here; anything unexpected still gives `None`, never a panic.

/// The subject of a certificate.
pub fn subject(certificate: &[u8]) -> Option<String> {
    let (_, _, after_validity) = element(from_validity(certificate)?)?;
    let (_, mut names, _) = element(after_validity)?;
    let mut parts = Vec::new();
    while !names.is_empty() {
        let (_, mut set, rest) = element(names)?;
        names = rest;
        let mut together = Vec::new();
        while !set.is_empty() {
            let (_, attribute, rest) = element(set)?;
            set = rest;
            let (_, kind, value) = element(attribute)?;
            let (tag, value, _) = element(value)?;
            together.push(format!("{}={}", name_of(kind), escaped(&decoded(tag, value))));
        }
        parts.push(together.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

/// When a certificate runs out, in seconds since 1970.
pub fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, validity, _) = element(from_validity(certificate)?)?;
    let (_, _, end) = element(validity)?;
    let (tag, text, _) = element(end)?;
    let text = std::str::from_utf8(text).ok()?;
    // UTCTime has two digits of the year, from 1950 on; GeneralizedTime has four.
    let (year, rest) = text.split_at_checked(if tag == 0x17 { 2 } else { 4 })?;
    let year: i64 = year.parse().ok()?;
    let year = match tag {
        0x17 if year < 50 => 2000 + year,
        0x17 => 1900 + year,
        _ => year,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    // Days since 1970, with years that begin in March so that leap days come last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// The fields of a certificate from its validity on; the subject follows that.
fn from_validity(certificate: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    // Version (optional), serial number, signature algorithm, issuer.
    if fields.first() == Some(&0xa0) {
        fields = element(fields)?.2;
    }
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    Some(fields)
}

/// The first DER element: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&length, mut rest) = rest.split_first()?;
    let mut size = usize::from(length);
    if length & 0x80 != 0 {
        let count = usize::from(length & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        size = digits.iter().fold(0, |size, digit| size << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(size)?;
    Some((tag, content, after))
}

/// RFC 2253's short name of an attribute, or its number.
fn name_of(kind: &[u8]) -> String {
    let known = match kind {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "STREET",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        _ => return dotted(kind),
    };
    known.to_owned()
}

fn dotted(kind: &[u8]) -> String {
    let mut numbers: Vec<u64> = Vec::new();
    let mut number = 0u64;
    for byte in kind {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.extend([first, number - 40 * first]);
            } else {
                numbers.push(number);
            }
            number = 0;
        }
    }
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

fn decoded(tag: u8, value: &[u8]) -> String {
    match tag {
        // BMPString: two bytes each.
        30 => {
            let units: Vec<u16> = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16_lossy(&units)
        }
        // TeletexString, in practice Latin-1.
        20 => value.iter().map(|byte| char::from(*byte)).collect(),
        _ => String::from_utf8_lossy(value).into_owned(),
    }
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (n, c) in value.chars().enumerate() {
        let edge = (n == 0 && matches!(c, ' ' | '#')) || (n == last && c == ' ');
        if c.is_control() {
            // Must not forge a line of the log.
            text.extend(c.escape_default());
            continue;
        }
        if edge || matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(parts: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["h".to_owned()]).expect("parameters");
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    #[test]
    fn the_subject_reads_as_kafka_writes_it() {
        let named = certificate(&[
            (DnType::CountryName, "CH"),
            (DnType::OrganizationName, "A, B & Co"),
            (DnType::CommonName, "broker-0"),
        ]);
        assert_eq!(subject(&named).as_deref(), Some("CN=broker-0,O=A\\, B & Co,C=CH"));
        assert_eq!(subject(&certificate(&[])).as_deref(), Some(""));
        let odd = certificate(&[(DnType::CustomDnType(vec![2, 5, 4, 12]), "x\ny")]);
        assert_eq!(subject(&odd).as_deref(), Some("2.5.4.12=x\\ny"));
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_notations() {
        let until = |year, month, day| {
            let mut params = CertificateParams::new(vec!["h".to_owned()]).expect("parameters");
            params.not_after = rcgen::date_time_ymd(year, month, day);
            let key = KeyPair::generate().expect("a key");
            let expected = params.not_after.unix_timestamp();
            (not_after(params.self_signed(&key).expect("signed").der()), Some(expected))
        };
        for (year, month, day) in
            [(1999, 12, 31), (2000, 2, 29), (2026, 1, 1), (2049, 3, 1), (2050, 3, 1), (4096, 2, 29)]
        {
            let (got, expected) = until(year, month, day);
            assert_eq!(got, expected, "{year}-{month}-{day}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..600) {
            let _ = (subject(&bytes), not_after(&bytes));
            let mut whole = certificate(&[(DnType::CommonName, "x")]);
            whole.truncate(cut);
            let _ = (subject(&whole), not_after(&whole));
        }
    }
}
