//! Reads the notation of `schema/`, one message table a block. It is line based, nested by two spaces of indentation:
//!
//! ```text
//! api 0 Produce on broker                      API key, name, who answers it
//! request 3-13 flexible 9+ [unstable 13]       versions; first flexible one; newest if not yet stable
//!   struct Name                                a struct that fields refer to
//!     ...
//!   Name type [versions] [tag N] [ignorable] [= default]
//!   Topics []Topic? 4+                         `?`: null allowed; `?7+`: from version 7 on
//!     Name string                              an indented block is the struct's fields
//! response 3-13 flexible 9+
//!   ...
//! ```
//! Record tables begin with `group-key 3 Name 0`, `metadata-record 2 Name 0 flexible 0+`, `data Name 0`. Versions that are left
//! out are those of the enclosing block. `#` begins a comment. Fields of our own are tagged from 10000 on.

use std::{fmt, path::Path};

/// The first tag of fields that Kafka does not have. Its clients pass over what they don't know, and its own tags stay
/// far below.
const OWN_TAGS: u32 = 10_000;

/// An inclusive range of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    pub min: i16,
    pub max: i16,
}

impl Versions {
    pub const ALL: Versions = Versions { min: 0, max: i16::MAX };

    pub fn covers(self, other: Versions) -> bool {
        self.min <= other.min && self.max >= other.max
    }

    pub fn clip(self, other: Versions) -> Versions {
        Versions { min: self.min.max(other.min), max: self.max.min(other.max) }
    }

    fn parse(text: &str) -> Option<Versions> {
        let range = if let Some(min) = text.strip_suffix('+') {
            Versions { min: min.parse().ok()?, max: i16::MAX }
        } else if let Some((min, max)) = text.split_once('-') {
            Versions { min: min.parse().ok()?, max: max.parse().ok()? }
        } else {
            let only = text.parse().ok()?;
            Versions { min: only, max: only }
        };
        (0 <= range.min && range.min <= range.max).then_some(range)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Bool,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    F64,
    Uuid,
    Text,
    Bytes,
    Records,
    Struct(String),
    Array(Box<Type>),
}

#[derive(Debug, Clone)]
pub struct Field {
    pub line: usize,
    pub name: String,
    pub ty: Type,
    pub versions: Versions,
    /// Versions that allow null.
    pub nullable: Option<Versions>,
    pub tag: Option<u32>,
    pub ignorable: bool,
    pub default: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Struct {
    pub name: String,
    pub fields: Vec<Field>,
}

/// What a message is for; the number is its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Request(i16),
    Response(i16),
    /// A record of a family such as `metadata` or `group-key`.
    Record(String, i16),
    Data,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub kind: Kind,
    pub name: String,
    pub versions: Versions,
    pub flexible: Option<i16>,
    /// Newest version that is not marked unstable.
    pub stable: i16,
    /// The message itself comes last.
    pub structs: Vec<Struct>,
}

#[derive(Debug, Clone)]
pub struct Api {
    pub key: i16,
    pub name: String,
    pub listeners: Vec<String>,
}

/// One schema file.
#[derive(Debug, Default)]
pub struct File {
    pub api: Option<Api>,
    pub messages: Vec<Message>,
}

/// A mistake in a schema file.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    pub place: String,
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

struct Line<'a> {
    number: usize,
    depth: usize,
    words: Vec<&'a str>,
}

struct Parser<'a> {
    path: &'a Path,
    lines: Vec<Line<'a>>,
    next: usize,
}

pub fn parse(path: &Path, text: &str) -> Result<File, Mistake> {
    let mut parser = Parser { path, lines: Vec::new(), next: 0 };
    for (i, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim_end();
        let content = line.trim_start_matches(' ');
        if content.is_empty() {
            continue;
        }
        let indent = line.len() - content.len();
        if indent % 2 != 0 || content.contains('\t') {
            return Err(parser.mistake(i + 1, "indent by two spaces"));
        }
        parser.lines.push(Line { number: i + 1, depth: indent / 2, words: content.split_whitespace().collect() });
    }
    parser.file()
}

impl<'a> Parser<'a> {
    fn mistake(&self, line: usize, what: impl Into<String>) -> Mistake {
        Mistake { place: format!("{}:{line}", self.path.display()), what: what.into() }
    }

    fn file(&mut self) -> Result<File, Mistake> {
        let mut file = File::default();
        while let Some(line) = self.lines.get(self.next) {
            let (number, words) = (line.number, line.words.clone());
            if line.depth != 0 {
                return Err(self.mistake(number, "unexpected indentation"));
            }
            self.next += 1;
            let header = |kind, name: &str, words: &[&str]| -> Result<Message, String> { head(kind, name, words) };
            let message = match words.as_slice() {
                ["api", key, name, "on", listeners @ ..] if !listeners.is_empty() => {
                    let key = key.parse().map_err(|_| self.mistake(number, "key is not a number"))?;
                    file.api = Some(Api {
                        key,
                        name: name.to_string(),
                        listeners: listeners.iter().map(|l| l.to_string()).collect(),
                    });
                    continue;
                }
                [what @ ("request" | "response"), rest @ ..] => {
                    let Some(api) = &file.api else {
                        return Err(self.mistake(number, "`api` line must come first"));
                    };
                    match *what {
                        "request" => header(Kind::Request(api.key), &format!("{}Request", api.name), rest),
                        _ => header(Kind::Response(api.key), &format!("{}Response", api.name), rest),
                    }
                }
                ["data", name, rest @ ..] => header(Kind::Data, name, rest),
                [family, key, name, rest @ ..] => match key.parse() {
                    Ok(key) => header(Kind::Record(family.to_string(), key), name, rest),
                    Err(_) => Err("key is not a number".into()),
                },
                _ => Err("not the beginning of a table".into()),
            };
            let mut message = message.map_err(|what| self.mistake(number, what))?;
            self.body(number, &mut message)?;
            file.messages.push(message);
        }
        Ok(file)
    }

    fn body(&mut self, number: usize, message: &mut Message) -> Result<(), Mistake> {
        while let Some(line) = self.lines.get(self.next) {
            let (number, words) = (line.number, line.words.clone());
            let (1, ["struct", name]) = (line.depth, words.as_slice()) else {
                break;
            };
            self.next += 1;
            self.fields(number, name, 2, message.versions, message)?;
        }
        let name = message.name.clone();
        self.fields(number, &name, 1, message.versions, message)?;
        for s in &message.structs {
            for field in &s.fields {
                let mut ty = &field.ty;
                while let Type::Array(item) = ty {
                    ty = item;
                }
                if let Type::Struct(name) = ty
                    && !message.structs.iter().any(|s| s.name == *name)
                {
                    return Err(self.mistake(field.line, format!("no type {name}")));
                }
            }
        }
        Ok(())
    }

    /// Reads the fields at `depth` as a struct, with the structs inside them.
    fn fields(
        &mut self,
        number: usize,
        name: &str,
        depth: usize,
        scope: Versions,
        message: &mut Message,
    ) -> Result<(), Mistake> {
        let mut fields: Vec<Field> = Vec::new();
        while let Some(line) = self.lines.get(self.next) {
            if line.depth < depth {
                break;
            }
            let number = line.number;
            if line.depth > depth {
                return Err(self.mistake(number, "unexpected indentation"));
            }
            let field = field(number, &line.words, scope).map_err(|what| self.mistake(number, what))?;
            if fields.iter().any(|f| f.name == field.name) {
                return Err(self.mistake(number, format!("field {} is there twice", field.name)));
            }
            if field.tag.is_some() && message.flexible.is_none_or(|from| field.versions.min < from) {
                return Err(self.mistake(number, "tagged fields need flexible versions"));
            }
            self.next += 1;
            if self.lines.get(self.next).is_some_and(|l| l.depth > depth) {
                let mut ty = &field.ty;
                while let Type::Array(item) = ty {
                    ty = item;
                }
                let Type::Struct(inner) = ty else {
                    return Err(self.mistake(number + 1, "only structs have fields"));
                };
                let inner = inner.clone();
                self.fields(number, &inner, depth + 1, field.versions, message)?;
            }
            fields.push(field);
        }
        let mut tags: Vec<u32> = fields.iter().filter_map(|f| f.tag).collect();
        tags.sort_unstable();
        let (kafkas, ours): (Vec<u32>, Vec<u32>) = tags.into_iter().partition(|tag| *tag < OWN_TAGS);
        let counted = |tags: &[u32], first: u32| (first..).zip(tags).all(|(expected, tag)| expected == *tag);
        if !counted(&kafkas, 0) || !counted(&ours, OWN_TAGS) {
            return Err(self.mistake(number, format!("tags must count up from 0, our own from {OWN_TAGS}")));
        }
        if message.structs.iter().any(|s| s.name == name) {
            return Err(self.mistake(number, format!("struct {name} is there twice")));
        }
        message.structs.push(Struct { name: name.to_string(), fields });
        Ok(())
    }
}

fn head(kind: Kind, name: &str, words: &[&str]) -> Result<Message, String> {
    let bad = || "expected `VERSIONS [flexible N+] [unstable N]`".to_string();
    let [versions, rest @ ..] = words else {
        return Err(bad());
    };
    let versions = Versions::parse(versions).ok_or_else(bad)?;
    let mut message =
        Message { kind, name: name.to_string(), versions, flexible: None, stable: versions.max, structs: Vec::new() };
    for pair in rest.chunks(2) {
        match *pair {
            ["flexible", from] => message.flexible = Some(Versions::parse(from).ok_or_else(bad)?.min),
            ["unstable", from] => message.stable = from.parse::<i16>().map_err(|_| bad())? - 1,
            _ => return Err(bad()),
        }
    }
    Ok(message)
}

fn field(line: usize, words: &[&str], scope: Versions) -> Result<Field, String> {
    let [name, ty, rest @ ..] = words else {
        return Err("expected `Name type`".into());
    };
    let (ty, nullable) = match ty.split_once('?') {
        None => (*ty, None),
        Some((ty, "")) => (ty, Some(Versions::ALL)),
        Some((ty, from)) => match Versions::parse(from) {
            Some(versions) => (ty, Some(versions)),
            None => return Err(format!("`{from}` are no versions")),
        },
    };
    let mut field = Field {
        line,
        name: name.to_string(),
        ty: type_of(ty)?,
        versions: scope,
        nullable,
        tag: None,
        ignorable: false,
        default: None,
    };
    let mut rest = rest.iter();
    while let Some(&word) = rest.next() {
        match word {
            "ignorable" => field.ignorable = true,
            "tag" => {
                let tag = rest.next().and_then(|n| n.parse().ok()).ok_or("expected `tag N`")?;
                field.tag = Some(tag);
            }
            "=" => field.default = Some(rest.next().ok_or("expected a default")?.to_string()),
            versions => {
                let versions = Versions::parse(versions).ok_or_else(|| format!("`{versions}` is not understood"))?;
                field.versions = versions.clip(scope);
                if field.versions.min > field.versions.max {
                    return Err("versions outside of the enclosing block".into());
                }
            }
        }
    }
    if field.default.as_deref() == Some("null") && field.nullable.is_none() {
        return Err("a default of null needs a nullable type".into());
    }
    Ok(field)
}

fn type_of(word: &str) -> Result<Type, String> {
    Ok(match word {
        "bool" => Type::Bool,
        "i8" => Type::I8,
        "i16" => Type::I16,
        "u16" => Type::U16,
        "i32" => Type::I32,
        "u32" => Type::U32,
        "i64" => Type::I64,
        "f64" => Type::F64,
        "uuid" => Type::Uuid,
        "string" => Type::Text,
        "bytes" => Type::Bytes,
        "records" => Type::Records,
        _ => match word.strip_prefix("[]") {
            Some(item) => Type::Array(Box::new(type_of(item)?)),
            None if word.starts_with(|c: char| c.is_ascii_uppercase()) => Type::Struct(word.to_string()),
            None => return Err(format!("no type {word}")),
        },
    })
}
