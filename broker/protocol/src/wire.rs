//! How values lie on the wire: the bounded [`Reader`], the [`Writer`], and [`Wire`], which joins them by type.
//!
//! Generated messages call nothing but this module. A version is *flexible* from the point on where Kafka uses
//! compact lengths and ends every struct with a section of tagged fields.

mod error;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use bytes::Bytes;

pub use self::{
    error::{DecodeError, DecodeErrorKind, EncodeError},
    reader::{Reader, Tags},
    writer::{Encoded, Piece, TagMark, Writer},
};
#[cfg(any(test, feature = "sample"))]
use crate::sample::Sampler;
use crate::types::{Records, Uuid};

/// A type that can be a field of a message.
///
/// `version` is the message's version, `flexible` whether that version is. `get_opt` and `put_opt` are the nullable
/// forms; numbers have none.
pub trait Wire: Sized {
    /// Fewest bytes a value takes, at least 1: bounds array counts.
    const MIN_SIZE: usize;

    /// Reads a value.
    fn get(r: &mut Reader, field: &'static str, version: i16, flexible: bool) -> Result<Self, DecodeError>;

    /// Writes a value.
    fn put(&self, w: &mut Writer, field: &'static str, version: i16, flexible: bool) -> Result<(), EncodeError>;

    /// An arbitrary value that is valid at `version`.
    #[cfg(any(test, feature = "sample"))]
    fn sample(s: &mut Sampler, version: i16) -> Self;
}

/// A field type that can be null.
pub trait WireOpt: Wire {
    /// Reads a value or null.
    fn get_opt(r: &mut Reader, field: &'static str, version: i16, flexible: bool) -> Result<Option<Self>, DecodeError>;

    /// Writes a value or null.
    fn put_opt(
        value: Option<&Self>,
        w: &mut Writer,
        field: &'static str,
        version: i16,
        flexible: bool,
    ) -> Result<(), EncodeError>;
}

#[inline]
fn present<T>(value: Option<T>, r: &Reader, field: &'static str) -> Result<T, DecodeError> {
    value.ok_or_else(|| r.fail(DecodeErrorKind::Null, field))
}

/// Writes a nullable field at a version that has no null.
pub fn put_required<T: Wire>(
    value: &Option<T>,
    w: &mut Writer,
    field: &'static str,
    version: i16,
    flexible: bool,
) -> Result<(), EncodeError> {
    match value {
        Some(value) => value.put(w, field, version, flexible),
        None => Err(EncodeError::Null { message: "", field }),
    }
}

/// The error for a value that matters in a field that the version lacks.
#[cold]
pub fn unsupported(field: &'static str, version: i16) -> Result<(), EncodeError> {
    Err(EncodeError::UnsupportedField { message: "", field, version })
}

/// Writes a tagged field.
pub fn put_tag(
    w: &mut Writer,
    tag: u32,
    field: &'static str,
    content: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let mark = w.begin_tag(tag);
    content(w)?;
    w.end_tag(mark, field)
}

macro_rules! number {
    ($($ty:ident $size:literal),*) => {$(
        impl Wire for $ty {
            const MIN_SIZE: usize = $size;

            #[inline]
            fn get(r: &mut Reader, field: &'static str, _: i16, _: bool) -> Result<Self, DecodeError> {
                r.$ty(field)
            }

            #[inline]
            fn put(&self, w: &mut Writer, _: &'static str, _: i16, _: bool) -> Result<(), EncodeError> {
                w.$ty(*self);
                Ok(())
            }

            #[cfg(any(test, feature = "sample"))]
            fn sample(s: &mut Sampler, _: i16) -> Self {
                s.$ty()
            }
        }
    )*};
}
number!(bool 1, i8 1, i16 2, u16 2, i32 4, u32 4, i64 8, f64 8);

impl Wire for Uuid {
    const MIN_SIZE: usize = 16;

    #[inline]
    fn get(r: &mut Reader, field: &'static str, _: i16, _: bool) -> Result<Self, DecodeError> {
        r.array_of(field).map(Uuid)
    }

    #[inline]
    fn put(&self, w: &mut Writer, _: &'static str, _: i16, _: bool) -> Result<(), EncodeError> {
        w.raw(&self.0);
        Ok(())
    }

    #[cfg(any(test, feature = "sample"))]
    fn sample(s: &mut Sampler, _: i16) -> Self {
        s.uuid()
    }
}

/// `String`, `Bytes` and `Records`: a length and bytes.
macro_rules! sized {
    ($ty:ident $name:ident, $borrow:path) => {
        impl Wire for $ty {
            const MIN_SIZE: usize = 1;

            #[inline]
            fn get(r: &mut Reader, field: &'static str, _: i16, flexible: bool) -> Result<Self, DecodeError> {
                let value = r.$name(flexible, field)?;
                present(value, r, field)
            }

            #[inline]
            fn put(&self, w: &mut Writer, field: &'static str, _: i16, flexible: bool) -> Result<(), EncodeError> {
                w.$name(Some(self), flexible, field)
            }

            #[cfg(any(test, feature = "sample"))]
            fn sample(s: &mut Sampler, _: i16) -> Self {
                s.$name()
            }
        }

        impl WireOpt for $ty {
            #[inline]
            fn get_opt(
                r: &mut Reader,
                field: &'static str,
                _: i16,
                flexible: bool,
            ) -> Result<Option<Self>, DecodeError> {
                r.$name(flexible, field)
            }

            #[inline]
            fn put_opt(
                value: Option<&Self>,
                w: &mut Writer,
                field: &'static str,
                _: i16,
                flexible: bool,
            ) -> Result<(), EncodeError> {
                w.$name(value.map($borrow), flexible, field)
            }
        }
    };
}
sized!(String string, String::as_str);
sized!(Bytes bytes, std::convert::identity);
sized!(Records records, std::convert::identity);

impl Reader {
    /// Reads record batches or null, sharing the input's memory.
    pub fn records(&mut self, flexible: bool, field: &'static str) -> Result<Option<Records>, DecodeError> {
        Ok(self.bytes(flexible, field)?.map(Records::Bytes))
    }
}

impl<T: Wire> Wire for Vec<T> {
    const MIN_SIZE: usize = 1;

    fn get(r: &mut Reader, field: &'static str, version: i16, flexible: bool) -> Result<Self, DecodeError> {
        let value = Self::get_opt(r, field, version, flexible)?;
        present(value, r, field)
    }

    fn put(&self, w: &mut Writer, field: &'static str, version: i16, flexible: bool) -> Result<(), EncodeError> {
        w.long_length(Some(self.len()), flexible, field)?;
        self.iter().try_for_each(|item| item.put(w, field, version, flexible))
    }

    #[cfg(any(test, feature = "sample"))]
    fn sample(s: &mut Sampler, version: i16) -> Self {
        s.vec(version)
    }
}

impl<T: Wire> WireOpt for Vec<T> {
    fn get_opt(r: &mut Reader, field: &'static str, version: i16, flexible: bool) -> Result<Option<Self>, DecodeError> {
        let Some(count) = r.count(flexible, T::MIN_SIZE, size_of::<T>(), field)? else {
            return Ok(None);
        };
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::get(r, field, version, flexible)?);
        }
        Ok(Some(items))
    }

    fn put_opt(
        value: Option<&Self>,
        w: &mut Writer,
        field: &'static str,
        version: i16,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        match value {
            Some(items) => items.put(w, field, version, flexible),
            None => w.long_length(None, flexible, field),
        }
    }
}

/// A nullable struct: a byte that says whether it is there (1) or null (-1), then its fields.
pub(crate) fn get_opt_struct<T: Wire>(
    r: &mut Reader,
    field: &'static str,
    version: i16,
    flexible: bool,
) -> Result<Option<T>, DecodeError> {
    if r.i8(field)? < 0 {
        return Ok(None);
    }
    T::get(r, field, version, flexible).map(Some)
}

/// The writing side of [`get_opt_struct`].
pub(crate) fn put_opt_struct<T: Wire>(
    value: Option<&T>,
    w: &mut Writer,
    field: &'static str,
    version: i16,
    flexible: bool,
) -> Result<(), EncodeError> {
    match value {
        Some(value) => {
            w.i8(1);
            value.put(w, field, version, flexible)
        }
        None => {
            w.i8(-1);
            Ok(())
        }
    }
}

/// A nullable struct in a tagged field: there Kafka's mark is an unsigned number, 1 or, for null, 0.
pub(crate) fn get_opt_tagged_struct<T: Wire>(
    r: &mut Reader,
    field: &'static str,
    version: i16,
    flexible: bool,
) -> Result<Option<T>, DecodeError> {
    if r.uvarint(field)? == 0 {
        return Ok(None);
    }
    T::get(r, field, version, flexible).map(Some)
}

/// The writing side of [`get_opt_tagged_struct`].
pub(crate) fn put_opt_tagged_struct<T: Wire>(
    value: Option<&T>,
    w: &mut Writer,
    field: &'static str,
    version: i16,
    flexible: bool,
) -> Result<(), EncodeError> {
    w.uvarint(u32::from(value.is_some()));
    value.map_or(Ok(()), |value| value.put(w, field, version, flexible))
}
