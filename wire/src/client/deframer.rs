//! From a byte stream to frames.

use super::{Code, DecodeError, Encoding};

/// A whole frame; its body is not decoded yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// What the magic says.
    pub encoding: Encoding,
    /// What the body is.
    pub code: Code,
    /// `len` bytes.
    pub body: &'a [u8],
}

/// Cuts a stream into frames, however it is split or merged.
#[derive(Debug, Default)]
pub struct Deframer {}

impl Deframer {
    /// The next whole frame of the stream; `None` when `input` is used up, its incomplete tail kept. `input` moves past what was
    /// taken. After an error the stream has no more frames.
    pub fn next<'a>(
        &'a mut self,
        _input: &mut &'a [u8],
        _body_bytes_max: usize,
    ) -> Result<Option<Frame<'a>>, DecodeError> {
        Ok(None)
    }
}
