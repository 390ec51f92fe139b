//! A JSON value of which only the frame that uses it knows the type.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::client::DecodeError;

/// Any value; numbers and text stand for each other. Text without escapes is borrowed from the body.
#[derive(Default)]
pub(super) enum Scalar<'a> {
    /// Missing or null.
    #[default]
    Null,
    Bool(bool),
    /// Holds every i64 and u64.
    Integer(i128),
    Text(Cow<'a, str>),
    /// An array, an object, a fraction, or a number past 64 bits: right for no field.
    Other,
}

impl<'a> Scalar<'a> {
    /// The text; empty for null.
    pub(super) fn text(self) -> Result<Cow<'a, str>, DecodeError> {
        match self {
            Self::Null => Ok(Cow::Borrowed("")),
            Self::Bool(true) => Ok(Cow::Borrowed("true")),
            Self::Bool(false) => Ok(Cow::Borrowed("false")),
            Self::Integer(number) => Ok(Cow::Owned(number.to_string())),
            Self::Text(text) => Ok(text),
            Self::Other => Err(DecodeError::BadBody),
        }
    }

    /// The text, if that is what it is.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::Other => None,
        }
    }

    /// The number, also of a decimal text; `None` for null and empty text.
    pub(super) fn integer<T: TryFrom<i128>>(&self) -> Result<Option<T>, DecodeError> {
        let number = match self {
            Self::Null => return Ok(None),
            Self::Text(text) if text.is_empty() => return Ok(None),
            Self::Integer(number) => *number,
            Self::Text(text) => text.parse().map_err(|_| DecodeError::BadBody)?,
            Self::Bool(_) | Self::Other => return Err(DecodeError::BadBody),
        };
        T::try_from(number).map(Some).map_err(|_| DecodeError::BadBody)
    }

    /// The truth value; false for null.
    pub(super) fn flag(&self) -> Result<bool, DecodeError> {
        match self {
            Self::Null => Ok(false),
            Self::Bool(flag) => Ok(*flag),
            Self::Integer(_) | Self::Text(_) | Self::Other => Err(DecodeError::BadBody),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Integer(number.into()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}
