//! One row of the key table: a configuration's name, type, default, rule, how it may change and whether Klamm acts
//! on it. Parsing and checking a value belong here, so that start-up, CreateTopics and IncrementalAlterConfigs refuse
//! the same values with the same words. The words are Kafka's own, since tools and people search for them.

use std::fmt;

pub use super::check::Custom;

/// Value types, with the numbers DescribeConfigs uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Kind {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// 32-bit number.
    Int = 3,
    /// 16-bit number.
    Short = 4,
    /// 64-bit number.
    Long = 5,
    /// Floating point number.
    Double = 6,
    /// Comma-separated texts.
    List = 7,
    /// A Java class name.
    Class = 8,
    /// Text that is never shown.
    Password = 9,
}

impl Kind {
    /// Kafka's name of the type, as its messages print it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Short => "SHORT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
            Kind::Class => "CLASS",
            Kind::Password => "PASSWORD",
        }
    }
}

/// How a broker key may change while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Only by a restart.
    Static,
    /// For one broker.
    PerBroker,
    /// For one broker, or for all at once.
    ClusterWide,
}

/// What a value must satisfy beyond its type. Bounds are text, because messages print them as Kafka declares them.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Nothing.
    Any,
    /// A number within bounds, both inclusive.
    Range(Option<&'static str>, Option<&'static str>),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// One of these texts in any case.
    OneOfAnyCase(&'static [&'static str]),
    /// Each list member is one of these texts.
    EachOf(&'static [&'static str]),
    /// Text of at least one character.
    NonEmptyText,
    /// A rule of its own.
    Custom(Custom),
}

/// A configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name, as in a properties file.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Default; absent means null.
    pub default: Option<&'static str>,
    /// What a value must satisfy.
    pub rule: Rule,
    /// Whether an empty list is refused.
    pub not_empty: bool,
    /// How it may change (broker keys).
    pub update: Update,
    /// Kafka hides it from DescribeConfigs unless it is set.
    pub internal: bool,
    /// It can be set at run time only, never in a file (Kafka's replication throttles).
    pub dynamic_only: bool,
    /// It came after Kafka 4.3: accepted, but not listed unless set.
    pub newer: bool,
    /// For topic and group keys: broker keys that give the value when the resource has none, in order of precedence,
    /// with the factor that turns their unit into this key's.
    pub from_broker: &'static [(&'static str, i64)],
    /// What Klamm does with it, in a sentence; absent when it is only accepted.
    pub doc: Option<&'static str>,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key {
        name,
        kind,
        default: None,
        rule: Rule::Any,
        not_empty: false,
        update: Update::Static,
        internal: false,
        dynamic_only: false,
        newer: false,
        from_broker: &[],
        doc: None,
    }
}

macro_rules! constructors {
    ($($name:ident = $kind:ident),+) => {$(
        pub(super) const fn $name(name: &'static str) -> Key { key(name, Kind::$kind) }
    )+};
}
constructors!(
    boolean = Boolean,
    string = String,
    int = Int,
    short = Short,
    long = Long,
    double = Double,
    list = List,
    class = Class,
    password = Password
);

/// What the table is written with.
impl Key {
    pub(super) const fn or(mut self, default: &'static str) -> Key {
        self.default = Some(default);
        self
    }
    pub(super) const fn at_least(mut self, min: &'static str) -> Key {
        self.rule = Rule::Range(Some(min), None);
        self
    }
    pub(super) const fn between(mut self, min: &'static str, max: &'static str) -> Key {
        self.rule = Rule::Range(Some(min), Some(max));
        self
    }
    pub(super) const fn one_of(mut self, texts: &'static [&'static str]) -> Key {
        self.rule = Rule::OneOf(texts);
        self
    }
    pub(super) const fn one_of_any_case(mut self, texts: &'static [&'static str]) -> Key {
        self.rule = Rule::OneOfAnyCase(texts);
        self
    }
    pub(super) const fn each_of(mut self, texts: &'static [&'static str]) -> Key {
        self.rule = Rule::EachOf(texts);
        self
    }
    pub(super) const fn non_empty_text(mut self) -> Key {
        self.rule = Rule::NonEmptyText;
        self
    }
    pub(super) const fn custom(mut self, rule: Custom) -> Key {
        self.rule = Rule::Custom(rule);
        self
    }
    pub(super) const fn not_empty(mut self) -> Key {
        self.not_empty = true;
        self
    }
    pub(super) const fn per_broker(mut self) -> Key {
        self.update = Update::PerBroker;
        self
    }
    pub(super) const fn cluster_wide(mut self) -> Key {
        self.update = Update::ClusterWide;
        self
    }
    pub(super) const fn internal(mut self) -> Key {
        self.internal = true;
        self
    }
    pub(super) const fn dynamic_only(mut self) -> Key {
        self.dynamic_only = true;
        self
    }
    pub(super) const fn newer(mut self) -> Key {
        self.newer = true;
        self
    }
    pub(super) const fn inherits(mut self, keys: &'static [(&'static str, i64)]) -> Key {
        self.from_broker = keys;
        self
    }
    pub(super) const fn acts(mut self, doc: &'static str) -> Key {
        self.doc = Some(doc);
        self
    }
}

/// A value of its key's type, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A boolean.
    Bool(bool),
    /// A SHORT, INT or LONG.
    Number(i64),
    /// A DOUBLE.
    Double(f64),
    /// A STRING, CLASS or PASSWORD.
    Text(String),
    /// A LIST.
    List(Vec<String>),
}

impl fmt::Display for Value {
    /// The text Kafka shows for a parsed value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(b) => write!(f, "{b}"),
            Value::Number(n) => write!(f, "{n}"),
            Value::Double(d) => f.write_str(&java_double(*d)),
            Value::Text(s) => f.write_str(s),
            Value::List(l) => f.write_str(&l.join(",")),
        }
    }
}

/// `Double.toString` of Java, which DescribeConfigs shows: always a point, and `E` outside of 10^-3 to 10^7.
fn java_double(d: f64) -> String {
    if d == 0.0 || (1e-3..1e7).contains(&d.abs()) {
        return format!("{d:?}");
    }
    let text = format!("{d:E}");
    match text.split_once('E') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0E{exponent}"),
        _ => text,
    }
}

/// Why a value is refused. Displays as Kafka's own message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// The key.
    pub key: String,
    /// The value as Kafka prints it; absent when its message has none.
    pub value: Option<String>,
    /// The reason.
    pub reason: String,
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "Invalid value {value} for configuration {}: {}", self.key, self.reason),
            None => write!(f, "Configuration '{}' {}", self.key, self.reason),
        }
    }
}

impl std::error::Error for BadValue {}

/// Java's `String.trim`: everything up to the space goes.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|c| c <= ' ')
}

impl Key {
    /// Whether values of this key are never shown.
    pub fn sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// The documentation DescribeConfigs carries.
    pub fn documentation(&self) -> &'static str {
        self.doc.unwrap_or("Known to Kafka; Klamm accepts it and does not use it.")
    }

    /// Parses and checks a value.
    pub fn parse(&self, text: &str) -> Result<Value, BadValue> {
        let trimmed = trim(text);
        let number = |min: i64, max: i64| {
            let n = trimmed.parse::<i64>().ok().filter(|n| (min..=max).contains(n));
            n.map(Value::Number).ok_or_else(|| self.bad(text, format!("Not a number of type {}", self.kind.name())))
        };
        let value = match self.kind {
            Kind::Boolean if trimmed.eq_ignore_ascii_case("true") => Value::Bool(true),
            Kind::Boolean if trimmed.eq_ignore_ascii_case("false") => Value::Bool(false),
            Kind::Boolean => return Err(self.bad(text, "Expected value to be either true or false")),
            Kind::Short => number(i16::MIN.into(), i16::MAX.into())?,
            Kind::Int => number(i32::MIN.into(), i32::MAX.into())?,
            Kind::Long => number(i64::MIN, i64::MAX)?,
            Kind::Double => match trimmed.parse::<f64>() {
                Ok(d) if d.is_finite() => Value::Double(d),
                _ => return Err(self.bad(text, "Not a number of type DOUBLE")),
            },
            Kind::List if trimmed.is_empty() => Value::List(Vec::new()),
            Kind::List => {
                let mut members: Vec<String> = Vec::new();
                for part in trimmed.split(',').map(trim) {
                    // Kafka drops what comes twice, except from lists that have no rule for lists.
                    if self.free_list() || !members.iter().any(|m| m == part) {
                        members.push(part.to_owned());
                    }
                }
                Value::List(members)
            }
            Kind::String | Kind::Class | Kind::Password => Value::Text(trimmed.to_owned()),
        };
        self.check(&value)?;
        Ok(value)
    }

    /// The default, parsed; `None` when it is null.
    pub fn default_value(&self) -> Option<Value> {
        self.default.and_then(|text| self.parse(text).ok())
    }

    fn check(&self, value: &Value) -> Result<(), BadValue> {
        if let Value::List(members) = value {
            self.check_list(members)?;
        }
        match (self.rule, value) {
            (Rule::Range(min, max), Value::Number(n)) => self.check_range(value, *n as f64, min, max),
            (Rule::Range(min, max), Value::Double(d)) => self.check_range(value, *d, min, max),
            (Rule::OneOf(texts), Value::Text(s)) if !texts.contains(&s.as_str()) => {
                Err(self.bad(s, format!("String must be one of: {}", texts.join(", "))))
            }
            (Rule::OneOfAnyCase(texts), Value::Text(s)) if !texts.iter().any(|t| t.eq_ignore_ascii_case(s)) => {
                Err(self.bad(s, format!("String must be one of (case insensitive): {}", texts.join(", "))))
            }
            (Rule::NonEmptyText, Value::Text(s)) if s.is_empty() => Err(self.bad(s, "String must be non-empty")),
            (Rule::Custom(rule), value) => rule.check(self.name, value),
            _ => Ok(()),
        }
    }

    /// Kafka gives these lists no rule for lists, so that duplicates and empty members get as far as their own rule.
    fn free_list(&self) -> bool {
        matches!(self.rule, Rule::Custom(Custom::Voters | Custom::HostPorts | Custom::ThrottledReplicas))
    }

    fn check_list(&self, members: &[String]) -> Result<(), BadValue> {
        if self.free_list() {
            return Ok(());
        }
        let refuse = |reason: String| Err(BadValue { key: self.name.to_owned(), value: None, reason });
        if self.not_empty && members.is_empty() {
            let valid = match self.rule {
                Rule::EachOf(texts) => format!("[{}]", texts.join(", ")),
                _ => "any non-empty value".to_owned(),
            };
            return refuse(format!("must not be empty. Valid values include: {valid}"));
        }
        for member in members {
            if member.is_empty() {
                return refuse("values must not be empty.".to_owned());
            }
            if let Rule::EachOf(texts) = self.rule
                && !texts.contains(&member.as_str())
            {
                return Err(self.bad(member, format!("String must be one of: {}", texts.join(", "))));
            }
        }
        Ok(())
    }

    fn check_range(&self, value: &Value, n: f64, min: Option<&str>, max: Option<&str>) -> Result<(), BadValue> {
        // Kafka compares as doubles, too.
        let bound = |text: &str| text.parse::<f64>().ok();
        if let Some(min) = min
            && bound(min).is_some_and(|min| n < min)
        {
            return Err(self.bad(value, format!("Value must be at least {min}")));
        }
        if let Some(max) = max
            && bound(max).is_some_and(|max| n > max)
        {
            return Err(self.bad(value, format!("Value must be no more than {max}")));
        }
        Ok(())
    }

    fn bad(&self, value: impl fmt::Display, reason: impl Into<String>) -> BadValue {
        let value = if self.sensitive() { "[hidden]".to_owned() } else { value.to_string() };
        BadValue { key: self.name.to_owned(), value: Some(value), reason: reason.into() }
    }
}
