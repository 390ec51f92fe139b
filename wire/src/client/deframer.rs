//! From a byte stream to frames.

use super::{Code, DecodeError, Encoding, HEADER_BYTES};

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
///
/// A frame that is whole in the input is borrowed from it. Only the frame at the input's end, if incomplete,
/// is copied, and its buffer is freed by the call after the one that returned it: a stream at a frame
/// boundary holds no heap.
#[derive(Debug, Default)]
pub struct Deframer {
    partial: Option<Box<Partial>>,
}

const _: () = assert!(size_of::<Deframer>() == 8);

impl Deframer {
    /// The next whole frame of the stream; `None` when `input` is used up, its incomplete tail kept. `input`
    /// moves past what was taken. Call it until `None`.
    ///
    /// Magic, code and length are each refused as soon as their last byte is there, in that order, so the
    /// error does not depend on how the stream was split. After an error the stream has no more frames: its
    /// frame boundary is lost.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        body_bytes_max: usize,
    ) -> Result<Option<Frame<'a>>, DecodeError> {
        if let Some(partial) = &self.partial {
            if !partial.is_whole() {
                return self.resume(input, body_bytes_max);
            }
            self.partial = None;
        }
        let available = *input;
        let header = parse_header(available, body_bytes_max)?;
        if let Some(header) = header
            && let Some((body, rest)) = available[HEADER_BYTES..].split_at_checked(header.body_bytes)
        {
            *input = rest;
            return Ok(Some(Frame { encoding: header.encoding, code: header.code, body }));
        }
        if !available.is_empty() {
            self.partial = Some(Box::new(Partial::keep(available, header)));
            *input = &[];
        }
        Ok(None)
    }

    /// Whether the stream stands inside a frame, once [`Deframer::next`] gave `None`.
    pub fn has_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// The code of the frame that the stream stands inside, once it has come; if it stands in none, that of
    /// the frame with which `input` begins.
    pub fn code(&self, input: &[u8]) -> Option<Code> {
        let header = self.partial.as_ref().map_or(input, |partial| partial.header());
        Code::from_i32(i32::from_be_bytes(header.get(2..6)?.try_into().ok()?))
    }

    /// Heap bytes held: 0 at a frame boundary, else of the order of what arrived of the frame.
    pub fn partial_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.body.capacity())
    }

    #[cold]
    fn resume<'a>(
        &'a mut self,
        input: &mut &[u8],
        body_bytes_max: usize,
    ) -> Result<Option<Frame<'a>>, DecodeError> {
        let partial = self.partial.as_mut().expect("the caller saw a partial frame");
        partial.take_header(input);
        let Some(header) = parse_header(partial.header(), body_bytes_max)? else { return Ok(None) };
        partial.body_bytes = header.body_bytes;
        partial.take_body(input);
        let frame = Frame { encoding: header.encoding, code: header.code, body: &partial.body };
        Ok(partial.is_whole().then_some(frame))
    }
}

/// A frame of which not everything has arrived, or the one that was returned last.
#[derive(Debug)]
struct Partial {
    header: [u8; HEADER_BYTES],
    header_bytes: u8,
    /// What the header says; meaningful once the header is whole.
    body_bytes: usize,
    body: Vec<u8>,
}

impl Partial {
    fn keep(mut input: &[u8], header: Option<Header>) -> Self {
        let body_bytes = header.map_or(0, |header| header.body_bytes);
        let mut partial = Self { header: [0; HEADER_BYTES], header_bytes: 0, body_bytes, body: Vec::new() };
        partial.take_header(&mut input);
        partial.take_body(&mut input);
        partial
    }

    fn is_whole(&self) -> bool {
        usize::from(self.header_bytes) == HEADER_BYTES && self.body.len() == self.body_bytes
    }

    fn header(&self) -> &[u8] {
        &self.header[..usize::from(self.header_bytes)]
    }

    fn take_header(&mut self, input: &mut &[u8]) {
        let missing = &mut self.header[usize::from(self.header_bytes)..];
        let (taken, rest) = input.split_at(missing.len().min(input.len()));
        missing[..taken.len()].copy_from_slice(taken);
        self.header_bytes += taken.len() as u8;
        *input = rest;
    }

    fn take_body(&mut self, input: &mut &[u8]) {
        let missing = self.body_bytes - self.body.len();
        let (taken, rest) = input.split_at(missing.min(input.len()));
        let wanted = self.body.len() + taken.len();
        if wanted > self.body.capacity() {
            // Doubles, so that single bytes are not copied quadratically; follows what arrived, not what is
            // claimed.
            let capacity = wanted.max(2 * self.body.capacity()).min(self.body_bytes);
            self.body.reserve_exact(capacity - self.body.len());
        }
        self.body.extend_from_slice(taken);
        *input = rest;
    }
}

/// A header that passed every check.
#[derive(Clone, Copy)]
struct Header {
    encoding: Encoding,
    code: Code,
    body_bytes: usize,
}

/// Checks as much of a header as is there; `None` when that is not all of it.
#[inline]
fn parse_header(bytes: &[u8], body_bytes_max: usize) -> Result<Option<Header>, DecodeError> {
    let Some((magic, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let encoding = Encoding::from_magic(u16::from_be_bytes(*magic)).ok_or(DecodeError::BadMagic)?;
    let Some((code, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let code = Code::from_i32(i32::from_be_bytes(*code)).ok_or(DecodeError::BadCode)?;
    let Some(length) = rest.first_chunk() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| DecodeError::BadLength)?;
    if length > body_bytes_max {
        return Err(DecodeError::BadLength);
    }
    Ok(Some(Header { encoding, code, body_bytes: length }))
}
