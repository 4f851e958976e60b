//! Why bytes could not be read, or a message not be written.
//!
//! A decode error is one pointer wide so that `Result`s on the hot path stay small; the allocation happens only
//! when something is wrong. It names the message, the field and the byte, which is what one needs from a log line.

use std::fmt;

/// What was wrong with the bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end before the value does.
    #[error("needs {needed} bytes, {left} left")]
    Truncated {
        /// Bytes the value takes.
        needed: usize,
        /// Bytes that were there.
        left: usize,
    },
    /// A variable-length number is longer than its type allows.
    #[error("variable-length number is too long")]
    Varint,
    /// A length or count that no value can have.
    #[error("length {0} is not possible")]
    Length(i64),
    /// More elements announced than the remaining bytes can hold.
    #[error("{count} elements announced, {left} bytes left")]
    Count {
        /// Elements announced.
        count: usize,
        /// Bytes that were there.
        left: usize,
    },
    /// Decoding would take more memory than the reader may use.
    #[error("needs {needed} bytes of memory, {left} left of the budget")]
    Budget {
        /// Bytes of memory the value takes.
        needed: usize,
        /// What was left of the budget.
        left: usize,
    },
    /// A string is not UTF-8.
    #[error("string is not UTF-8")]
    Utf8,
    /// Null where the version does not allow it.
    #[error("null is not allowed")]
    Null,
    /// A known tagged field appears twice in one section.
    #[error("tag {0} appears twice")]
    DuplicateTag(u32),
    /// A tagged field's size and its content disagree.
    #[error("tagged field has {left} bytes too many")]
    TagSize {
        /// Bytes left over inside the field.
        left: usize,
    },
    /// This message has no such version.
    #[error("version {version} is outside {min}..={max}")]
    Version {
        /// The version asked for.
        version: i16,
        /// Oldest known version.
        min: i16,
        /// Newest known version.
        max: i16,
    },
    /// No message has this key.
    #[error("unknown key {0}")]
    Key(i32),
}

/// Bytes that are not the message they should be.
#[derive(Clone, PartialEq, Eq)]
pub struct DecodeError(Box<Detail>);

#[derive(Clone, PartialEq, Eq)]
struct Detail {
    kind: DecodeErrorKind,
    message: &'static str,
    field: &'static str,
    offset: usize,
}

impl DecodeError {
    /// An error in `field`, found at byte `offset`.
    #[cold]
    #[inline(never)]
    pub fn new(kind: DecodeErrorKind, field: &'static str, offset: usize) -> Self {
        Self(Box::new(Detail { kind, message: "", field, offset }))
    }

    /// Names the message that was being read, unless an inner one did already.
    #[must_use]
    #[cold]
    pub fn in_message(mut self, message: &'static str) -> Self {
        if self.0.message.is_empty() {
            self.0.message = message;
        }
        self
    }

    /// What was wrong.
    pub fn kind(&self) -> &DecodeErrorKind {
        &self.0.kind
    }

    /// The message that was being read; empty when reading a bare value.
    pub fn message(&self) -> &'static str {
        self.0.message
    }

    /// The field that was being read.
    pub fn field(&self) -> &'static str {
        self.0.field
    }

    /// Where reading stopped, counted from the reader's first byte.
    pub fn offset(&self) -> usize {
        self.0.offset
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Detail { kind, message, field, offset } = &*self.0;
        if !message.is_empty() {
            write!(f, "{message}.")?;
        }
        write!(f, "{field} at byte {offset}: {kind}")
    }
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecodeError({self})")
    }
}

impl std::error::Error for DecodeError {}

/// A message that has no bytes in the version asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A field carries a value that this version cannot express.
    #[error("{message}.{field}: not in version {version}, and the value matters")]
    UnsupportedField {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// This message has no such version.
    #[error("{message}: no version {version}")]
    UnsupportedVersion {
        /// The message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// Null where the version does not allow it.
    #[error("{message}.{field}: null is not allowed")]
    Null {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A value is longer than its length field can say.
    #[error("{message}.{field}: {len} is too long")]
    TooLong {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// The length.
        len: usize,
    },
    /// File ranges have no place in this buffer.
    #[error("{message}.{field}: a file range cannot be written here")]
    FileRange {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
}

impl EncodeError {
    /// Names the message that was being written, unless an inner one did already.
    #[must_use]
    #[cold]
    pub fn in_message(mut self, name: &'static str) -> Self {
        match &mut self {
            Self::UnsupportedField { message, .. }
            | Self::UnsupportedVersion { message, .. }
            | Self::Null { message, .. }
            | Self::TooLong { message, .. }
            | Self::FileRange { message, .. } => {
                if message.is_empty() {
                    *message = name;
                }
            }
        }
        self
    }
}
