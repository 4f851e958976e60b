//! Records as text: format strings for people, and an object for `-o json|yaml` and `produce --json`.
//!
//! Bytes that aren't UTF-8 go into a field of their own, as base64, so that nothing is lost on the way
//! from `consume -o json` to `produce --json`.

use std::io::{self, Write};

use bytes::Bytes;
use klamm_client::ConsumedRecord;
use serde::{Deserialize, Serialize};

/// A record as an object.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RecordObject {
    #[serde(default)]
    topic: String,
    #[serde(default)]
    partition: i32,
    #[serde(default)]
    offset: i64,
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) timestamp: Option<i64>,
    /// `create` or `append`: whether producer or broker set it.
    #[serde(default)]
    timestamp_type: String,
    #[serde(default)]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default)]
    headers: Vec<HeaderObject>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct HeaderObject {
    key: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// Key, value and headers of a record to be written.
pub(super) type Content = (Option<Bytes>, Option<Bytes>, Vec<(Bytes, Option<Bytes>)>);

impl RecordObject {
    pub(super) fn of(record: &ConsumedRecord) -> Self {
        let (key, key_base64) = text(record.key.as_ref());
        let (value, value_base64) = text(record.value.as_ref());
        let headers = record.headers.iter().map(|(key, value)| {
            let (value, value_base64) = text(value.as_ref());
            HeaderObject { key: String::from_utf8_lossy(key).into_owned(), value, value_base64 }
        });
        Self {
            topic: record.topic.to_string(),
            partition: record.partition,
            offset: record.offset,
            timestamp: (record.timestamp >= 0).then_some(record.timestamp),
            timestamp_type: if record.log_append_time { "append" } else { "create" }.to_owned(),
            key,
            key_base64,
            value,
            value_base64,
            headers: headers.collect(),
        }
    }

    /// A record as a segment file holds it; `appended` says whether the broker set its timestamp.
    pub(super) fn stored(record: &klamm_protocol::batch::Record, appended: bool) -> Self {
        Self::of(&ConsumedRecord {
            topic: "".into(),
            partition: -1,
            offset: record.offset,
            leader_epoch: -1,
            timestamp: record.timestamp,
            log_append_time: appended,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        })
    }

    /// What it says about a record to be written.
    pub(super) fn content(self) -> Result<Content, String> {
        let key = bytes(self.key, self.key_base64)?;
        let value = bytes(self.value, self.value_base64)?;
        let header = |h: HeaderObject| Ok((Bytes::from(h.key), bytes(h.value, h.value_base64)?));
        Ok((key, value, self.headers.into_iter().map(header).collect::<Result<_, String>>()?))
    }
}

fn text(bytes: Option<&Bytes>) -> (Option<String>, Option<String>) {
    match bytes {
        None => (None, None),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(encode_base64(bytes))),
        },
    }
}

fn bytes(text: Option<String>, base64: Option<String>) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err("a text and its base64 form exclude each other".to_owned()),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => decode_base64(&base64).map(|bytes| Some(bytes.into())).ok_or("bad base64".to_owned()),
        (None, None) => Ok(None),
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let six = (bits >> (18 - 6 * i)) as usize & 63;
            text.push(if i <= chunk.len() { char::from(BASE64[six]) } else { '=' });
        }
    }
    text
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits.bytes() {
        let six = BASE64.iter().position(|&c| c == digit)?;
        bits = bits << 6 | six as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

/// A format string such as `%t %p %o\t%k\t%s\n`, with kcat's letters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RecordFormat(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Literal(Vec<u8>),
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    KeyLength,
    Value,
    ValueLength,
    Headers,
}

impl RecordFormat {
    /// The value, behind the key and `separator` if there is one; a line each.
    pub(super) fn line(key_separator: Option<&str>) -> Self {
        let mut pieces = Vec::new();
        if let Some(separator) = key_separator {
            pieces.push(Piece::Field(Field::Key));
            pieces.push(Piece::Literal(separator.as_bytes().to_vec()));
        }
        pieces.push(Piece::Field(Field::Value));
        pieces.push(Piece::Literal(b"\n".to_vec()));
        Self(pieces)
    }

    pub(super) fn parse(format: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            let field = match (c, if matches!(c, '%' | '\\') { chars.next() } else { None }) {
                ('%', Some('%')) => {
                    literal.push('%');
                    continue;
                }
                ('%', Some(letter)) => field(letter)
                    .ok_or_else(|| format!("%{letter} is unknown; there are %t %p %o %T %k %K %s %S %h and %%"))?,
                ('%' | '\\', None) => return Err(format!("{c} at the end says nothing; write {c}{c}")),
                ('\\', Some(escaped)) => {
                    literal.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        '0' => '\0',
                        '\\' => '\\',
                        other => return Err(format!("\\{other} is unknown; there are \\n \\t \\r \\0 and \\\\")),
                    });
                    continue;
                }
                (other, _) => {
                    literal.push(other);
                    continue;
                }
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into_bytes()));
            }
            pieces.push(Piece::Field(field));
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into_bytes()));
        }
        Ok(Self(pieces))
    }

    pub(super) fn write(&self, out: &mut dyn Write, record: &ConsumedRecord) -> io::Result<()> {
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => out.write_all(literal)?,
                Piece::Field(Field::Topic) => out.write_all(record.topic.as_bytes())?,
                Piece::Field(Field::Partition) => write!(out, "{}", record.partition)?,
                Piece::Field(Field::Offset) => write!(out, "{}", record.offset)?,
                Piece::Field(Field::Timestamp) => write!(out, "{}", record.timestamp)?,
                Piece::Field(Field::Key) => out.write_all(record.key.as_deref().unwrap_or_default())?,
                Piece::Field(Field::KeyLength) => write!(out, "{}", length(record.key.as_ref()))?,
                Piece::Field(Field::Value) => out.write_all(record.value.as_deref().unwrap_or_default())?,
                Piece::Field(Field::ValueLength) => write!(out, "{}", length(record.value.as_ref()))?,
                Piece::Field(Field::Headers) => write_headers(out, record)?,
            }
        }
        Ok(())
    }
}

fn field(letter: char) -> Option<Field> {
    Some(match letter {
        't' => Field::Topic,
        'p' => Field::Partition,
        'o' => Field::Offset,
        'T' => Field::Timestamp,
        'k' => Field::Key,
        'K' => Field::KeyLength,
        's' => Field::Value,
        'S' => Field::ValueLength,
        'h' => Field::Headers,
        _ => return None,
    })
}

/// -1 tells null from empty.
fn length(bytes: Option<&Bytes>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

fn write_headers(out: &mut dyn Write, record: &ConsumedRecord) -> io::Result<()> {
    for (i, (key, value)) in record.headers.iter().enumerate() {
        if i > 0 {
            out.write_all(b",")?;
        }
        out.write_all(key)?;
        out.write_all(b"=")?;
        out.write_all(value.as_deref().unwrap_or(b"NULL"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ConsumedRecord {
        ConsumedRecord {
            topic: "t".into(),
            partition: 3,
            offset: 14,
            leader_epoch: 0,
            timestamp: 1000,
            log_append_time: false,
            key: Some("k".into()),
            value: None,
            headers: vec![("a".into(), Some("1".into())), ("a".into(), None)],
        }
    }

    #[test]
    fn format_strings_are_kcats() {
        let mut out = Vec::new();
        let format = RecordFormat::parse(r"%t[%p]@%o %T %k:%K %s:%S %h 100%%\n").expect("parses");
        format.write(&mut out, &record()).expect("writes");
        assert_eq!(String::from_utf8_lossy(&out), "t[3]@14 1000 k:1 :-1 a=1,a=NULL 100%\n");
        for bad in ["%x", "%", "\\", "\\x"] {
            assert!(RecordFormat::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn base64_goes_both_ways() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(encode_base64(bytes.as_bytes()), text);
            assert_eq!(decode_base64(text), Some(bytes.as_bytes().to_vec()));
        }
        for bad in ["A", "AA", "A===", "Zm9?"] {
            assert_eq!(decode_base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn objects_lose_nothing() {
        let original = ConsumedRecord { value: Some(Bytes::from_static(b"\xff\0")), ..record() };
        let json = serde_json::to_string(&RecordObject::of(&original)).expect("serializes");
        assert_eq!(
            json,
            r#"{"topic":"t","partition":3,"offset":14,"timestamp":1000,"timestamp_type":"create","key":"k","value":null,"value_base64":"/wA=","headers":[{"key":"a","value":"1"},{"key":"a","value":null}]}"#
        );
        let object: RecordObject = serde_json::from_str(&json).expect("parses");
        assert_eq!(object.content(), Ok((original.key, original.value, original.headers)));
    }
}
