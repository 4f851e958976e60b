//! Writes Rust for the parsed tables: a struct, its default and its [`Wire`] implementation each.
//!
//! What can be said once lives in `src/wire.rs`; the text written here only says which fields, in which versions.

use std::fmt::Write;

use super::notation::{Api, Field, Kind, Message, Struct, Type, Versions};

const KEYWORDS: &[&str] = &["type", "match", "ref", "self", "move", "use", "final", "abstract", "as", "in"];

/// `IsrWithEpochs` -> `isr_with_epochs`, `ISRNodes` -> `isr_nodes`.
pub fn snake(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, &c) in chars.iter().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            let after_word = !chars[i - 1].is_ascii_uppercase();
            let before_word = chars.get(i + 1).is_some_and(|n| n.is_ascii_lowercase());
            if after_word || before_word {
                out.push('_');
            }
        }
        out.push(c.to_ascii_lowercase());
    }
    if KEYWORDS.contains(&out.as_str()) {
        out.push('_');
    }
    out
}

fn plain_type(ty: &Type) -> String {
    match ty {
        Type::Bool => "bool".into(),
        Type::I8 => "i8".into(),
        Type::I16 => "i16".into(),
        Type::U16 => "u16".into(),
        Type::I32 => "i32".into(),
        Type::U32 => "u32".into(),
        Type::I64 => "i64".into(),
        Type::F64 => "f64".into(),
        Type::Uuid => "Uuid".into(),
        Type::Text => "String".into(),
        Type::Bytes => "Bytes".into(),
        Type::Records => "Records".into(),
        Type::Struct(name) => name.clone(),
        Type::Array(item) => format!("Vec<{}>", plain_type(item)),
    }
}

fn rust_type(field: &Field) -> String {
    let plain = plain_type(&field.ty);
    if field.nullable.is_some() { format!("Option<{plain}>") } else { plain }
}

fn is_number(ty: &Type) -> bool {
    use Type::*;
    matches!(ty, I8 | I16 | U16 | I32 | U32 | I64 | F64)
}

fn default_value(field: &Field) -> Result<String, String> {
    let plain = match (&field.ty, field.default.as_deref()) {
        (_, Some("null")) => return Ok("None".into()),
        (Type::Records, None) if field.nullable.is_some() => return Ok("None".into()),
        (Type::Bool, Some(value @ ("true" | "false"))) => value.into(),
        (Type::Bool, None) => "false".into(),
        (ty, value) if is_number(ty) => {
            let value = value.unwrap_or("0");
            if value.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) {
                format!("{value}{}", if *ty == Type::F64 && !value.contains('.') { ".0" } else { "" })
            } else {
                return Err(format!("`{value}` is no number"));
            }
        }
        (Type::Uuid, None) => "Uuid::ZERO".into(),
        (Type::Text, None) => "String::new()".into(),
        (Type::Bytes, None) => "Bytes::new()".into(),
        (Type::Records, None) => "Records::default()".into(),
        (Type::Array(_), None) => "Vec::new()".into(),
        (Type::Struct(name), None) => format!("{name}::default()"),
        (_, Some(value)) => return Err(format!("`{value}` is no default for this type")),
        _ => return Err("no default".into()),
    };
    Ok(if field.nullable.is_some() { format!("Some({plain})") } else { plain })
}

/// An expression that is true when the field differs from its default.
fn is_set(field: &Field) -> Result<String, String> {
    let name = format!("self.{}", snake(&field.name));
    let default = default_value(field)?;
    Ok(match (&field.ty, default.as_str()) {
        (_, "None") => format!("{name}.is_some()"),
        (Type::Bool, "false") => name,
        (Type::Bool, "true") => format!("!{name}"),
        (Type::Text | Type::Bytes | Type::Records | Type::Array(_), _) if field.nullable.is_none() => {
            format!("!{name}.is_empty()")
        }
        (Type::Text | Type::Bytes | Type::Records | Type::Array(_), _) => {
            format!("{name}.as_ref().is_none_or(|x| !x.is_empty())")
        }
        _ => format!("{name} != {default}"),
    })
}

/// A condition on `v` for `versions`, empty when the message's own range implies it.
fn condition(versions: Versions, message: &Message) -> String {
    let all = message.versions;
    let mut parts = Vec::new();
    if versions.min > all.min && versions.min == versions.max {
        return format!("v == {}", versions.min);
    }
    if versions.min > all.min {
        parts.push(format!("v >= {}", versions.min));
    }
    if versions.max < all.max {
        parts.push(format!("v <= {}", versions.max));
    }
    parts.join(" && ")
}

/// Wraps `body` so that it runs only at `versions`.
fn at(versions: Versions, message: &Message, body: &str, otherwise: &str) -> String {
    let condition = condition(versions, message);
    match (condition.as_str(), otherwise) {
        ("", _) => format!("{body}\n"),
        (_, "") => format!("if {condition} {{ {body} }}\n"),
        _ => format!("if {condition} {{ {body} }} else {{ {otherwise} }}\n"),
    }
}

fn get(field: &Field, message: &Message) -> String {
    let name = &field.name;
    let args = format!("(r, {name:?}, v, f)?");
    let (get, get_opt) = match &field.ty {
        Type::Struct(_) if field.tag.is_some() => ("Wire::get", "get_opt_tagged_struct"),
        Type::Struct(_) => ("Wire::get", "get_opt_struct"),
        _ => ("Wire::get", "WireOpt::get_opt"),
    };
    match field.nullable {
        None => format!("{get}{args}"),
        Some(nullable) => match condition(nullable.clip(field.versions), message).as_str() {
            // The field's own condition has been tested already.
            c if c.is_empty() || nullable.covers(field.versions) => format!("{get_opt}{args}"),
            c => format!("if {c} {{ {get_opt}{args} }} else {{ Some({get}{args}) }}"),
        },
    }
}

fn put(field: &Field, message: &Message) -> String {
    let name = &field.name;
    let value = format!("self.{}", snake(name));
    let args = format!("w, {name:?}, v, f");
    let put_opt = match &field.ty {
        Type::Struct(_) if field.tag.is_some() => "put_opt_tagged_struct",
        Type::Struct(_) => "put_opt_struct",
        _ => "WireOpt::put_opt",
    };
    match field.nullable {
        None => format!("{value}.put({args})?"),
        Some(nullable) => match condition(nullable.clip(field.versions), message).as_str() {
            c if c.is_empty() || nullable.covers(field.versions) => {
                format!("{put_opt}({value}.as_ref(), {args})?")
            }
            c => {
                format!("if {c} {{ {put_opt}({value}.as_ref(), {args})? }} else {{ put_required(&{value}, {args})? }}")
            }
        },
    }
}

fn sample(field: &Field, message: &Message) -> String {
    let value = match field.nullable {
        None => "Wire::sample(s, v)".to_string(),
        Some(nullable) => {
            let c = condition(nullable.clip(field.versions), message);
            format!("s.opt(v, {})", if c.is_empty() { "true" } else { &c })
        }
    };
    at(field.versions, message, &format!("m.{} = {value};", snake(&field.name)), "")
}

/// Versions in words, for the documentation.
fn words(versions: Versions, message: &Message) -> String {
    let (min, max) = (versions.min, versions.max);
    if max >= message.versions.max {
        format!("{min}+")
    } else if min == max {
        format!("{min}")
    } else {
        format!("{min}-{max}")
    }
}

fn emit_struct(out: &mut String, s: &Struct, message: &Message) -> Result<(), (usize, String)> {
    let name = &s.name;
    let mut fields = String::new();
    let mut defaults = String::new();
    let (mut gets, mut puts, mut samples) = (String::new(), String::new(), String::new());
    let mut tagged: Vec<&Field> = Vec::new();
    for field in &s.fields {
        let line = |what| (field.line, what);
        let snake = snake(&field.name);
        if !field.versions.covers(message.versions) {
            _ = writeln!(fields, "    /// Versions {}.", words(field.versions, message));
        }
        _ = writeln!(fields, "    pub {snake}: {},", rust_type(field));
        _ = writeln!(defaults, "{snake}: {},", default_value(field).map_err(line)?);
        samples += &sample(field, message);
        let is_set = is_set(field).map_err(line)?;
        let lost = if field.ignorable {
            String::new()
        } else {
            format!("if {is_set} {{ unsupported({:?}, v)?; }}", field.name)
        };
        if field.tag.is_some() {
            tagged.push(field);
            let condition = condition(field.versions, message);
            if !condition.is_empty() && !lost.is_empty() {
                _ = writeln!(puts, "if !({condition}) {{ {lost} }}");
            }
        } else {
            gets += &at(field.versions, message, &format!("m.{snake} = {};", get(field, message)), "");
            puts += &at(field.versions, message, &format!("{};", put(field, message)), &lost);
        }
    }
    tagged.sort_by_key(|f| f.tag);
    if let Some(from) = message.flexible {
        let (mut arms, mut count, mut tags) = (String::new(), String::new(), String::new());
        for field in &tagged {
            let (tag, snake) = (field.tag.unwrap_or(0), snake(&field.name));
            let condition = condition(field.versions, message);
            let guard = if condition.is_empty() { String::new() } else { format!(" if {condition}") };
            let and = if condition.is_empty() { String::new() } else { format!("{condition} && ") };
            let is_set = is_set(field).map_err(|what| (field.line, what))?;
            _ = writeln!(
                arms,
                "{tag}{guard} => {{ r.known_tag(&mut tags, {tag})?; m.{snake} = {}; }}",
                get(field, message)
            );
            count += &format!(" + u32::from({and}{is_set})");
            _ = writeln!(
                tags,
                "if {and}{is_set} {{ put_tag(w, {tag}, {:?}, |w| {{ {}; Ok(()) }})?; }}",
                field.name,
                put(field, message)
            );
        }
        let flexible = if from <= message.versions.min { "" } else { "if f " };
        if tagged.is_empty() {
            _ = writeln!(gets, "{flexible}{{ r.skip_tags()?; }}");
            _ = writeln!(puts, "{flexible}{{ w.uvarint(0); }}");
        } else {
            _ = writeln!(
                gets,
                "{flexible}{{ let mut tags = r.tags()?; while let Some(tag) = r.next_tag(&mut tags)? {{ match tag {{ \
                 {arms} _ => r.skip_tag(), }} r.end_tag(&tags)?; }} }}"
            );
            _ = writeln!(puts, "{flexible}{{ w.uvarint(0{count}); {tags} }}");
        }
    }
    _ = write!(
        out,
        "#[derive(Debug, Clone, PartialEq)]\npub struct {name} {{\n{fields}}}\n\
         impl Default for {name} {{ fn default() -> Self {{ Self {{ {defaults} }} }} }}\n\
         #[allow(unused_variables, unused_mut)]\nimpl Wire for {name} {{\n\
         const MIN_SIZE: usize = {};\n\
         fn get(r: &mut Reader, field: &'static str, v: i16, f: bool) -> Result<Self, DecodeError> {{\n\
         let mut m = Self::default();\n{gets}Ok(m)\n}}\n\
         fn put(&self, w: &mut Writer, field: &'static str, v: i16, f: bool) -> Result<(), EncodeError> {{\n\
         {puts}Ok(())\n}}\n\
         #[cfg(any(test, feature = \"sample\"))]\nfn sample(s: &mut Sampler, v: i16) -> Self {{\n\
         let mut m = Self::default();\n{samples}m\n}}\n}}\n",
        min_size(s, message, 0)
    );
    Ok(())
}

/// The fewest bytes a struct takes in any version: what an array of them must at least have per element.
fn min_size(s: &Struct, message: &Message, depth: usize) -> usize {
    let of = |field: &Field| -> usize {
        let everywhere = condition(field.versions, message).is_empty();
        if !everywhere || field.tag.is_some() {
            return 0;
        }
        match &field.ty {
            Type::Bool | Type::I8 => 1,
            Type::I16 | Type::U16 => 2,
            Type::I32 | Type::U32 => 4,
            Type::I64 | Type::F64 => 8,
            Type::Uuid => 16,
            Type::Struct(name) if field.nullable.is_none() && depth < 8 => {
                message.structs.iter().find(|s| s.name == *name).map_or(0, |s| min_size(s, message, depth + 1))
            }
            _ => 1,
        }
    };
    s.fields.iter().map(of).sum::<usize>().max(1)
}

/// A module with everything of one message.
pub fn message(out: &mut String, message: &Message) -> Result<(), (usize, String)> {
    let module = snake(&message.name);
    let name = &message.name;
    let (min, max) = (message.versions.min, message.versions.max);
    _ = writeln!(
        out,
        "/// `{name}`, versions {min}-{max}.\npub mod {module} {{\n#[allow(unused_imports)] use super::prelude::*;"
    );
    for s in &message.structs {
        emit_struct(out, s, message)?;
    }
    let flexible = message.flexible.map_or("i16::MAX".to_string(), |v| v.to_string());
    _ = writeln!(
        out,
        "impl Message for {name} {{ const NAME: &'static str = {name:?}; const MIN_VERSION: i16 = {min}; \
         const MAX_VERSION: i16 = {max}; const FLEXIBLE_FROM: i16 = {flexible}; }}"
    );
    if let Kind::Record(_, key) = &message.kind {
        _ = writeln!(out, "impl Record for {name} {{ const KEY: i16 = {key}; }}");
    }
    if let Kind::Request(_) = message.kind {
        let api = name.strip_suffix("Request").unwrap_or(name);
        _ = writeln!(
            out,
            "impl Request for {name} {{ const KEY: ApiKey = ApiKey::{api}; \
             type Response = super::{}::{api}Response; }}",
            snake(&format!("{api}Response"))
        );
    }
    _ = writeln!(out, "}}\npub use {module}::{name};");
    Ok(())
}

/// The list of all messages, for tests that go through them.
pub fn visitor(out: &mut String, messages: &[Message]) {
    _ = writeln!(
        out,
        "#[cfg(any(test, feature = \"sample\"))]\n\
         /// Shows every message to `visitor`.\n\
         pub fn for_each(visitor: &mut impl crate::sample::Visitor) {{ use crate::{{sample::Kind, ApiKey}};"
    );
    for message in messages {
        let (name, module) = (&message.name, snake(&message.name));
        let kind = match message.kind {
            Kind::Request(_) => format!("Kind::Request(ApiKey::{})", name.trim_end_matches("Request")),
            Kind::Response(_) => format!("Kind::Response(ApiKey::{})", name.trim_end_matches("Response")),
            _ => "Kind::Data".to_string(),
        };
        _ = writeln!(out, "visitor.message::<{module}::{name}>({kind});");
    }
    _ = writeln!(out, "}}");
}

/// The `ApiKey` enum and its table.
pub fn api_keys(apis: &[(Api, Message, Message)]) -> String {
    let mut out = String::from(
        "/// A Kafka API.\n#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]\n#[repr(i16)]\npub enum ApiKey {\n",
    );
    let flexible = |m: &Message| m.flexible.unwrap_or(i16::MAX);
    let (mut from, mut index, mut all, mut entries) = (String::new(), String::new(), String::new(), String::new());
    for (i, (api, request, response)) in apis.iter().enumerate() {
        let Api { key, name, listeners } = api;
        let on = |listener: &str| listeners.iter().any(|l| l == listener);
        _ = writeln!(out, "/// Key {key}.\n{name} = {key},");
        _ = write!(from, "{key} => Self::{name},");
        _ = write!(index, "Self::{name} => {i},");
        _ = write!(all, "Self::{name},");
        _ = writeln!(
            entries,
            "Entry {{ name: {name:?}, min: {}, max: {}, max_stable: {}, request_flexible: {}, \
             response_flexible: {}, broker: {}, controller: {} }},",
            request.versions.min,
            request.versions.max,
            request.stable,
            flexible(request),
            flexible(response),
            on("broker"),
            on("controller")
        );
    }
    _ = writeln!(
        out,
        "}}\nimpl ApiKey {{\n/// Every key, ascending.\npub const ALL: &'static [Self] = &[{all}];\n\
         /// The API with this key.\npub fn from_i16(key: i16) -> Option<Self> {{ Some(match key {{ {from} _ => return None }}) }}\n\
         /// Its place in [`ApiKey::ALL`], for tables indexed by API.\npub const fn index(self) -> usize {{ match self {{ {index} }} }}\n}}\n\
         const ENTRIES: &[Entry] = &[\n{entries}];"
    );
    out
}

/// `group-key` -> `GroupKey`.
fn camel(family: &str) -> String {
    let mut out = String::new();
    for word in family.split('-') {
        let mut chars = word.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.extend(chars);
    }
    out
}

/// An enum for each family of records.
pub fn families(messages: &[Message]) -> String {
    let mut families: Vec<(&str, Vec<(i16, &Message)>)> = Vec::new();
    for message in messages {
        if let Kind::Record(family, key) = &message.kind {
            match families.iter_mut().find(|(name, _)| name == family) {
                Some((_, members)) => members.push((*key, message)),
                None => families.push((family, vec![(*key, message)])),
            }
        }
    }
    let mut out = String::new();
    for (family, mut members) in families {
        members.sort_by_key(|(key, _)| *key);
        let name = camel(family);
        let (mut variants, mut froms) = (String::new(), String::new());
        let (mut keys, mut maxima, mut reads, mut writes) =
            (String::new(), String::new(), String::new(), String::new());
        for (key, message) in members {
            let m = &message.name;
            let variant = ["Record", "Key", "Value"].iter().find_map(|s| m.strip_suffix(s)).unwrap_or(m);
            _ = writeln!(variants, "/// Key {key}.\n{variant}({m}),");
            _ = write!(keys, "Self::{variant}(_) => {key},");
            _ = write!(maxima, "Self::{variant}(_) => {m}::MAX_VERSION,");
            _ = write!(reads, "{key} => Self::{variant}({m}::decode(r, version)?),");
            _ = write!(writes, "Self::{variant}(m) => m.encode(w, version),");
            _ = writeln!(froms, "impl From<{m}> for {name} {{ fn from(m: {m}) -> Self {{ Self::{variant}(m) }} }}");
        }
        _ = writeln!(
            out,
            "/// A record of the family `{family}`.\n#[derive(Debug, Clone, PartialEq)]\npub enum {name} {{\n{variants}}}\n\
             {froms}\
             impl Family for {name} {{\n\
             fn key(&self) -> i16 {{ match self {{ {keys} }} }}\n\
             fn max_version(&self) -> i16 {{ match self {{ {maxima} }} }}\n\
             fn read(r: &mut Reader, key: i16, version: i16) -> Result<Self, DecodeError> {{ Ok(match key {{ {reads} \
             _ => return Err(unknown_key(r, key, {name:?})) }}) }}\n\
             fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {{ match self {{ {writes} }} }}\n}}"
        );
    }
    out
}
