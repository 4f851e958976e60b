//! Reads Java's `.properties` format: comments, `=`, `:` or blanks between key and value, escapes, `\uXXXX`, lines
//! continued by a backslash. Bytes are UTF-8; a file that isn't is taken as ISO 8859-1, which is what Java would do.
//! Any input gives entries or an error that names the line; nothing here panics or grows beyond the input's size.

use thiserror::Error;

/// Largest file that is read.
pub const MAX_BYTES: usize = 1 << 20;

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Line the entry starts on, from 1.
    pub line: usize,
    /// The key, without escapes.
    pub key: String,
    /// The value, without escapes.
    pub value: String,
}

/// Why a file could not be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PropertiesError {
    /// More than [`MAX_BYTES`].
    #[error("the file has {0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
    /// A `\u` that four hexadecimal digits of a character do not follow.
    #[error("line {0}: \\u must be followed by four hexadecimal digits that make a character")]
    Unicode(usize),
}

/// Reads all entries in order; a key may come more than once, and then the last one counts.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, PropertiesError> {
    if bytes.len() > MAX_BYTES {
        return Err(PropertiesError::TooLarge(bytes.len()));
    }
    let latin: String;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(_) => {
            latin = bytes.iter().map(|&b| char::from(b)).collect();
            &latin
        }
    };
    let mut entries = Vec::new();
    let mut lines = natural_lines(text);
    while let Some((line, start)) = lines.next() {
        let start = start.trim_start_matches(is_blank);
        if start.is_empty() || start.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = String::new();
        let mut part = start;
        while let Some(head) = continued(part) {
            logical.push_str(head);
            match lines.next() {
                Some((_, next)) => part = next.trim_start_matches(is_blank),
                None => {
                    part = "";
                    break;
                }
            }
        }
        logical.push_str(part);
        entries.push(entry(line, &logical)?);
    }
    Ok(entries)
}

/// Java's blanks between key and value.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

/// Lines with their numbers; `\n`, `\r` and `\r\n` all end one.
fn natural_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = Some(text);
    let mut number = 0;
    std::iter::from_fn(move || {
        let text = rest?;
        number += 1;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return Some((number, text));
        };
        let after = &text[end..];
        rest = Some(after.strip_prefix("\r\n").unwrap_or(&after[1..]));
        Some((number, &text[..end]))
    })
}

/// The line without its last backslash, if an odd number of them ends it.
fn continued(line: &str) -> Option<&str> {
    let backslashes = line.len() - line.trim_end_matches('\\').len();
    (backslashes % 2 == 1).then(|| &line[..line.len() - 1])
}

fn entry(line: usize, logical: &str) -> Result<Entry, PropertiesError> {
    let mut escaped = false;
    let end = logical
        .find(|c| {
            let ends = !escaped && (is_blank(c) || c == '=' || c == ':');
            escaped = !escaped && c == '\\';
            ends
        })
        .unwrap_or(logical.len());
    let (key, rest) = logical.split_at(end);
    let rest = rest.trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_blank);
    Ok(Entry { line, key: unescape(line, key)?, value: unescape(line, value)? })
}

fn unescape(line: usize, text: &str) -> Result<String, PropertiesError> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    let bad = || PropertiesError::Unicode(line);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    // The first half of a surrogate pair that waits for its second half.
    let mut high: Option<u16> = None;
    while let Some(c) = chars.next() {
        let plain = if c != '\\' {
            c
        } else {
            match chars.next() {
                Some('u') => {
                    let digits = chars.as_str().get(..4).ok_or_else(bad)?;
                    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                        return Err(bad());
                    }
                    let unit = u16::from_str_radix(digits, 16).map_err(|_| bad())?;
                    chars = chars.as_str()[4..].chars();
                    let first = high.take();
                    let pair = first.into_iter().chain([unit]);
                    match char::decode_utf16(pair).next() {
                        Some(Ok(c)) => out.push(c),
                        Some(Err(_)) if (0xd800..0xdc00).contains(&unit) && first.is_none() => high = Some(unit),
                        _ => return Err(bad()),
                    }
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\x0c',
                Some(other) => other,
                None => break,
            }
        };
        if high.is_some() {
            return Err(bad());
        }
        out.push(plain);
    }
    if high.is_some() { Err(bad()) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let entries = parse(text.as_bytes()).unwrap();
        let got: Vec<_> = entries.iter().map(|e| (e.key.as_str(), e.value.as_str())).collect();
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn separators_comments_and_blanks() {
        check("a=1\nb:2\nc 3\nd\n", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "")]);
        check("  a  =  1 2 \n", &[("a", "1 2 ")]);
        check("a \t : = 1", &[("a", "= 1")]);
        check("# x=1\n  ! y=2\n\n\t\nz=3", &[("z", "3")]);
        check("a=1\r\nb=2\rc=3", &[("a", "1"), ("b", "2"), ("c", "3")]);
        check("a=b#c", &[("a", "b#c")]);
        check("", &[]);
        check("=1", &[("", "1")]);
    }

    #[test]
    fn escapes() {
        check(r"a\=b\:c\ d=1", &[("a=b:c d", "1")]);
        check(r"a=\t\n\r\f\\\q", &[("a", "\t\n\r\x0c\\q")]);
        check(r"a=\u0041\u00e4\ud83d\ude00", &[("a", "Aä😀")]);
        check(r"\#a=1", &[("#a", "1")]);
        for bad in [r"a=\u12", r"a=\u12g4", r"a=\ud83d", r"a=\ud83dx", r"a=\ude00", r"a=\ud83d\ud83d", "a=\\u+041"] {
            assert_eq!(parse(bad.as_bytes()), Err(PropertiesError::Unicode(1)), "{bad}");
        }
    }

    #[test]
    fn continued_lines() {
        check("a=1,\\\n   2,\\\n\t3\nb=4", &[("a", "1,2,3"), ("b", "4")]);
        check("a=1\\\\\nb=2", &[("a", "1\\"), ("b", "2")]);
        check("a=1\\\n#2", &[("a", "1#2")]);
        check("# c\\\na=1", &[("a", "1")]);
        check("a=1\\", &[("a", "1")]);
        check("a=1\\\n\nb=2", &[("a", "1"), ("b", "2")]);
    }

    #[test]
    fn lines_are_counted_and_old_encodings_read() {
        let entries = parse(b"# x\na=1\\\n2\n\nb=\xe4").unwrap();
        assert_eq!((entries[0].line, entries[1].line), (2, 5));
        assert_eq!(entries[1].value, "ä");
        assert_eq!(parse(&vec![b'a'; MAX_BYTES + 1]), Err(PropertiesError::TooLarge(MAX_BYTES + 1)));
    }

    /// Writes a text so that [`parse`] gives it back.
    fn escape(text: &str) -> String {
        let mut out = String::new();
        for unit in text.encode_utf16() {
            out.push_str(&format!("\\u{unit:04x}"));
        }
        out
    }

    proptest! {
        #[test]
        fn any_bytes_give_entries_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(entries) = parse(&bytes) {
                let total: usize = entries.iter().map(|e| e.key.chars().count() + e.value.chars().count()).sum();
                prop_assert!(total <= bytes.len());
            }
        }

        #[test]
        fn tricky_text_never_panics(text in "[\\\\u0-9a-f=: \\t\\n\\r#!é]{0,80}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn what_is_escaped_comes_back(key in any::<String>(), value in any::<String>()) {
            let line = format!("{}={}", escape(&key), escape(&value));
            prop_assume!(!key.is_empty());
            let entries = parse(line.as_bytes()).unwrap();
            prop_assert_eq!(entries, vec![Entry { line: 1, key, value }]);
        }

        #[test]
        fn plain_pairs_come_back(pairs in proptest::collection::vec(("[a-z][a-z.]{0,20}", "[!-~&&[^\\\\]][ -~&&[^\\\\]]{0,30}"), 0..20)) {
            let text: String = pairs.iter().map(|(k, v)| format!("{k} = {v}\n")).collect();
            let got: Vec<_> = parse(text.as_bytes()).unwrap().into_iter().map(|e| (e.key, e.value)).collect();
            // A value that begins with a separator would lose it; such values must be escaped in a file.
            prop_assume!(pairs.iter().all(|(_, v)| !v.starts_with(['=', ':'])));
            prop_assert_eq!(got, pairs);
        }
    }
}
