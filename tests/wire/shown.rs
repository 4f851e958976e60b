//! Brings Rust's `{:?}` and the peer's imitation of it into one form.

/// Without underscores, without `Some(…)` and `Bytes(…)` around values, without fields of Klamm's own, which Apache
/// carries as unknown tags; text in quotes stays as it is.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with(", klamm") {
            // Numbers and flags only: they end where the next field begins, or the object ends.
            let behind = &rest[2..];
            let end = [", ", " }"].iter().filter_map(|end| behind.find(end)).min();
            rest = &behind[end.unwrap_or(behind.len())..];
        } else if let Some(inner) = rest.strip_prefix("Some(").or_else(|| rest.strip_prefix("Bytes(")) {
            rest = inner;
        } else if c == '"' {
            let end = quoted(rest);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        } else {
            // Parentheses appear around wrapped values only.
            if !matches!(c, '_' | ')') {
                out.push(c);
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// The length of the quoted text at the beginning of `text`.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

#[test]
fn wrappers_and_underscores_go_text_stays() {
    let debug = r#"A { b_c: Some([1, -2]), d: Some(Bytes(b"Some(_\")")), e: "x_y", f: None }"#;
    assert_eq!(plain(debug), r#"A { bc: [1, -2], d: b"Some(_\")", e: "x_y", f: None }"#);
    let debug = r#"A { b: "x, klamm_y: 1 }", klamm_c: true, klamm_d: -1 }, A { b: 1, klamm_c: false, e: 2 }"#;
    assert_eq!(plain(debug), r#"A { b: "x, klamm_y: 1 }" }, A { b: 1, e: 2 }"#);
}
